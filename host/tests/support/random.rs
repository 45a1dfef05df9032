//! Chance that a seed fixes, for faults (splitmix64).

/// A sequence of numbers.
pub struct Random(u64);

impl Random {
    /// Always the same numbers for the same seed.
    pub fn of(seed: u64) -> Random {
        Random(seed)
    }

    /// With the seed that `SLUICEBOX_TEST_SEED` says, or else this one; prints it.
    pub fn new(seed: u64) -> Random {
        let seed = match std::env::var("SLUICEBOX_TEST_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("SLUICEBOX_TEST_SEED is a number, not {text:?}")),
            Err(_) => seed,
        };
        eprintln!("SLUICEBOX_TEST_SEED={seed}");
        Random(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    /// True `times` out of `of`.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }
}
