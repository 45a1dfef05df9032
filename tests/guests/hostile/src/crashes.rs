//! Ends at once.

use std::hint::black_box;

pub fn divide() {
    black_box(black_box(1) / black_box(0));
}

/// Reads behind the end of memory.
pub fn outside() {
    let end = std::ptr::without_provenance::<u64>(0xffff_fff0);
    // SAFETY: none, it is the point: the engine traps.
    black_box(unsafe { end.read_volatile() });
}

/// Uses the stack in memory.
pub fn recurse() {
    black_box(deeper(black_box(0)));
}

fn deeper(n: u64) -> u64 {
    let here = black_box([n; 16]);
    if n == u64::MAX { 0 } else { deeper(n + 1) + here[(n % 16) as usize] }
}

/// Uses the stack of calls, and a host function at each step.
pub fn call_deep() {
    black_box(deep(black_box(1)));
}

#[inline(never)]
fn deep(n: u64) -> u64 {
    let seed = wasip2::clocks::monotonic_clock::resolution();
    if n == 0 { seed } else { deep(n + 1).wrapping_mul(3) + seed }
}
