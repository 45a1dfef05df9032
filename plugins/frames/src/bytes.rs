//! Little-endian reads and writes at fixed places. Callers have checked the bounds; a wrong place panics.

#[inline(always)]
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    // The slice has exactly N bytes, so the conversion cannot fail; the compiler sees that too.
    bytes[at..at + N].try_into().expect("slice of N bytes")
}

#[inline(always)]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array(bytes, at))
}

#[inline(always)]
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

/// A length as the layout writes it. Frames are far below 4 GiB (the host bounds what it packs, a 32-bit guest cannot
/// hold more), so a longer one is a bug of the caller.
#[inline(always)]
pub(crate) fn length(len: usize) -> u32 {
    let len = u32::try_from(len).expect("frame part shorter than 4 GiB");
    assert!(len != u32::MAX, "frame part shorter than 4 GiB - 1");
    len
}

/// The bytes `start..start + len`, when they lie inside.
#[inline(always)]
pub(crate) fn range(bytes: &[u8], start: usize, len: usize) -> Option<&[u8]> {
    bytes.get(start..start.checked_add(len)?)
}
