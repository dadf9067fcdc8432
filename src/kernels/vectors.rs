//! Whole and partial vectors of a row in one call, for loops that end with a partial one.

use crate::isa::Isa;

/// Loads `count` lanes; the rest are 0.
///
/// # Safety
/// `p` is readable for `count ≤ LANES` floats.
#[inline(always)]
pub(super) unsafe fn load<I: Isa>(isa: I, p: *const f32, count: usize) -> I::F32 {
    // SAFETY: the caller's promise. With a constant count the branch is decided at compile time.
    unsafe { if count == I::LANES { isa.load(p) } else { isa.load_first(p, count) } }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// `p` is writable for `count ≤ LANES` floats.
#[inline(always)]
pub(super) unsafe fn store<I: Isa>(isa: I, p: *mut f32, x: I::F32, count: usize) {
    // SAFETY: the caller's promise. With a constant count the branch is decided at compile time.
    unsafe { if count == I::LANES { isa.store(p, x) } else { isa.store_first(p, x, count) } }
}
