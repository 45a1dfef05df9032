//! Takes time.

use std::hint::black_box;

pub fn endless() {
    loop {
        black_box(0);
    }
}

/// Bulk instructions, during which an engine cannot look at the time.
pub fn fill() {
    let mut bytes = vec![0u8; 40 << 20];
    for round in 0u8.. {
        bytes.fill(round);
        black_box(&mut bytes).copy_within(..20 << 20, 10 << 20);
        if round == u8::MAX {
            return fill();
        }
    }
}

pub fn sleep(seconds: u64) {
    std::thread::sleep(std::time::Duration::from_secs(seconds));
}

/// So many thousand turns.
pub fn work(turns: u64) {
    (0..turns * 1000).for_each(|turn| _ = black_box(turn));
}
