//! Transposition and conversion
//! ----------------------------

use std::mem::size_of;
use std::ops::Range;

use super::boundary;
use super::buffers;
use super::matrices::{bytes, floats, overlap, range};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::convert::{Narrow, Widen};
use crate::kernels::transpose::TransposeArgs;
use crate::profile::{self, Zone};

/// y = the transpose of x: x is `rows` by `cols`, y is `cols` by `rows`. They must not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_transpose_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    boundary::call(|| {
        let (len_x, len_y) = (floats("x", rows, cols, ldx)?, floats("y", cols, rows, ldy)?);
        buffers::check(x, len_x, "x")?;
        buffers::check(y, len_y, "y")?;
        if overlap(&range(x, len_x), &range(y, len_y)) {
            return Err(Failure::invalid("x and y overlap"));
        }
        if len_x > 0 {
            let kernel = &KernelSet::default_set()?.transpose.f32;
            let _zone =
                profile::scope(Zone::Transpose).work(0, bytes(rows.saturating_mul(cols).saturating_mul(2)));
            let args = TransposeArgs { src: x, src_stride: ldx, dst: y, dst_stride: ldy, rows, cols };
            // SAFETY: the header's contract, with sizes and overlap checked.
            unsafe { kernel.run(&args) };
        }
        Ok(())
    })
}

/// y = x as IEEE half floats, rounded to nearest, ties to even; what is too large becomes infinite.
///
/// The four conversions work on `n` elements; `x` and `y` must not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f32_to_f16(x: *const f32, n: usize, y: *mut u16) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { narrow(&KernelSet::default_set()?.convert.to_f16, x, n, y) })
}

/// y = x as bfloat16, rounded to nearest, ties to even.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f32_to_bf16(x: *const f32, n: usize, y: *mut u16) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { narrow(&KernelSet::default_set()?.convert.to_bf16, x, n, y) })
}

/// y = the IEEE half floats x; exact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f16_to_f32(x: *const u16, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { widen(&KernelSet::default_set()?.convert.from_f16, x, n, y) })
}

/// y = the bfloat16 numbers x; exact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_bf16_to_f32(x: *const u16, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { widen(&KernelSet::default_set()?.convert.from_bf16, x, n, y) })
}

/// Checks two arrays of `n` elements that must not overlap; whether there is anything to do.
fn apart<T, U>(x: *const T, n: usize, y: *const U) -> Result<bool, Failure> {
    buffers::check(x, n, "x")?;
    buffers::check(y, n, "y")?;
    if overlap(&addresses(x, n), &addresses(y, n)) {
        return Err(Failure::invalid("x and y overlap"));
    }
    Ok(n > 0)
}

/// Addresses of `n` elements, which are known to fit into memory.
fn addresses<T>(first: *const T, n: usize) -> Range<usize> {
    first.addr()..first.addr() + n * size_of::<T>()
}

/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` elements.
unsafe fn narrow(kernel: &Narrow, x: *const f32, n: usize, y: *mut u16) -> Result<(), Failure> {
    if apart(x, n, y)? {
        let _zone = profile::scope(Zone::Convert).work(0, 6 * n as u64);
        // SAFETY: the function's contract, with sizes and overlap checked.
        unsafe { kernel.run(x, y, n) };
    }
    Ok(())
}

/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` elements.
unsafe fn widen(kernel: &Widen, x: *const u16, n: usize, y: *mut f32) -> Result<(), Failure> {
    if apart(x, n, y)? {
        let _zone = profile::scope(Zone::Convert).work(0, 6 * n as u64);
        // SAFETY: the function's contract, with sizes and overlap checked.
        unsafe { kernel.run(x, y, n) };
    }
    Ok(())
}
