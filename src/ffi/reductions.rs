//! Reductions
//! ----------
//! An array to one number, which goes to `result`.

use super::boundary;
use super::buffers;
use super::matrices::bytes;
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::rows::RowKernels;
use crate::profile::{self, Zone};

/// The sum of `n` floats; 0 of none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sum_f32(x: *const f32, n: usize, result: *mut f32) -> sm_status {
    boundary::call(|| {
        buffers::check(x, n, "x")?;
        // SAFETY: the header's contract, with the size checked.
        unsafe { reduce(n, result, |set| set.sum.run(x, n)) }
    })
}

/// The sum of the products of two arrays of `n` floats; 0 of none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_dot_f32(a: *const f32, b: *const f32, n: usize, result: *mut f32) -> sm_status {
    boundary::call(|| {
        buffers::check(a, n, "a")?;
        buffers::check(b, n, "b")?;
        // SAFETY: the header's contract, with sizes checked.
        unsafe { reduce(n.saturating_mul(2), result, |set| set.dot.run(a, b, n)) }
    })
}

/// The largest of `n` floats: minus infinity of none, NaN where any is NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_max_f32(x: *const f32, n: usize, result: *mut f32) -> sm_status {
    boundary::call(|| {
        buffers::check(x, n, "x")?;
        // SAFETY: the header's contract, with the size checked.
        unsafe { reduce(n, result, |set| set.max.run(x, n)) }
    })
}

/// The first index of the largest of `n` floats, where NaN counts as smallest; 0 where there is nothing else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_argmax_f32(x: *const f32, n: usize, result: *mut usize) -> sm_status {
    boundary::call(|| {
        buffers::check(x, n, "x")?;
        // SAFETY: the header's contract, with the size checked.
        unsafe { reduce(n, result, |set| set.argmax.run(x, n)) }
    })
}

/// Stores what `run` finds in `moved` floats.
///
/// # Safety
/// `result` is NULL or writable.
unsafe fn reduce<T>(moved: usize, result: *mut T, run: impl FnOnce(&RowKernels) -> T) -> Result<(), Failure> {
    buffers::check(result, 1, "result")?;
    let kernels = &KernelSet::default_set()?.rows;
    let _zone = profile::scope(Zone::Reduce).work(moved as u64, bytes(moved));
    // SAFETY: not NULL, so writable.
    unsafe { result.write(run(kernels)) };
    Ok(())
}
