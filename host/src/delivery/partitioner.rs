//! Which partition a key belongs to: murmur2 as Kafka's Java clients use it
//! (`org.apache.kafka.common.utils.Utils.murmur2`, `toPositive`), so that a topic's keys stay where other producers put
//! them.

/// The partition of a key in a topic of `partitions` (at least 1).
#[inline]
#[must_use]
pub fn partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Kafka's murmur2: 32 bit, seed `0x9747b28c`.
#[inline]
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        // `chunks_exact` gives four bytes each.
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// Where messages without a key go: one partition for a while, then the next, so that batches stay large. Per lane and
/// output, so that two lanes do not chase each other.
#[derive(Clone, Debug, Default)]
pub struct Sticky {
    partition: u32,
    left: u32,
}

impl Sticky {
    /// Messages that go to one partition before the next one's turn.
    const RUN: u32 = 512;

    /// Begins at a partition of the caller's choice, so that lanes spread.
    #[must_use]
    pub const fn starting_at(partition: u32) -> Self {
        Self { partition, left: Self::RUN }
    }

    /// The partition of the next message.
    #[inline]
    pub fn next(&mut self, partitions: u32) -> u32 {
        if self.left == 0 {
            self.left = Self::RUN;
            self.partition = self.partition.wrapping_add(1);
        }
        self.left -= 1;
        self.partition % partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_java_does() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn sticky_moves_on_and_stays_inside() {
        let mut sticky = Sticky::starting_at(6);
        let seen: Vec<u32> = (0..2000).map(|_| sticky.next(7)).collect();
        assert_eq!((seen[0], seen[511], seen[512], seen[1024]), (6, 6, 0, 1));
    }
}
