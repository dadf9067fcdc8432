//! Reductions
//! ----------
//! An array to one number, which is stored in `*result`.

use super::boundary;
use super::buffers;
use super::status::{Failure, sm_status};
use crate::ops;

/// The sum of `n` floats; 0 where `n` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sum_f32(x: *const f32, n: usize, result: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { reduce(x, n, result, ops::sum) })
}

/// The sum of the products of two arrays of `n` floats; 0 where `n` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_dot_f32(a: *const f32, b: *const f32, n: usize, result: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        buffers::check(a, n, "a")?;
        let b = buffers::array(b, n, "b")?;
        reduce(a, n, result, |a| ops::dot(a, b))
    })
}

/// The largest of `n` floats: minus infinity where `n` is 0, NaN where any is NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_max_f32(x: *const f32, n: usize, result: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { reduce(x, n, result, ops::max) })
}

/// The first index of the largest of `n` floats, where NaN counts as smallest; 0 where `n` is 0 or all are NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_argmax_f32(x: *const f32, n: usize, result: *mut usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { reduce(x, n, result, ops::argmax) })
}

/// Stores the number that `op` makes of `n` floats.
///
/// # Safety
/// `x` is NULL or readable for `n` floats, `result` NULL or writable.
unsafe fn reduce<T>(
    x: *const f32,
    n: usize,
    result: *mut T,
    op: impl FnOnce(&[f32]) -> crate::Result<T>,
) -> Result<(), Failure> {
    buffers::check(result, 1, "result")?;
    // SAFETY: the function's contract; the number is stored once the array has been read.
    unsafe {
        let number = op(buffers::array(x, n, "x")?)?;
        buffers::give_value(number, result, "result")
    }
}
