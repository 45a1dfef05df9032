//! Takes memory and what costs the host memory, and reads what others left in it.

use std::hint::black_box;

pub fn hog() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![1; 1 << 20]));
    }
}

pub fn handles(count: u64) {
    (0..count).for_each(|_| std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(1)));
}

/// Made up at run time, so that no component holds it.
fn pattern() -> [u8; 16] {
    let mut bytes = [0; 16];
    let mut state = black_box(0x5eed_u32);
    for byte in &mut bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8 ^ 0xa5;
    }
    bytes
}

/// Writes it all over 32 MiB, and crashes.
pub fn secret() {
    let secret = black_box(pattern().repeat(2 << 20));
    panic!("after writing {} bytes", secret.len());
}

/// Looks for it in 48 MiB that were never written to, and says how much in them is not zero.
pub fn search() {
    let length = 48 << 20;
    let layout = std::alloc::Layout::from_size_align(length, 16).expect("a layout");
    // SAFETY: of that size, and the allocator's. Reading what was never written is the point.
    let bytes = unsafe { std::slice::from_raw_parts(std::alloc::alloc(layout), length) };
    let (secret, bytes) = (pattern(), black_box(bytes));
    // The allocator may have used some of it before; what it got from the host lies behind that.
    let found = bytes.chunks_exact(16).filter(|chunk| **chunk == secret).count();
    let dirty = bytes[1 << 20..].iter().filter(|byte| **byte != 0).count();
    crate::output::say(&format!("secrets {found} dirty {dirty}"));
}
