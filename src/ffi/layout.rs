//! Transposition and conversion
//! ----------------------------

use super::boundary;
use super::operands::Output;
use super::status::{Failure, sm_status};
use crate::ops::{self, RowShape};
use crate::threads::Team;

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
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let (len_x, len_y) = (ops::floats("x", rows, cols, ldx)?, ops::floats("y", cols, rows, ldy)?);
        let y = Output::new("y", y, len_y)?;
        let x = y.read("x", x, len_x)?;
        Ok(ops::transpose(x, y.borrow(), RowShape { rows, cols, ldx, ldy }, None)?)
    })
}

/// y = x as IEEE half floats, rounded to nearest, ties to even. A number that is too large becomes infinite.
///
/// The four conversions work on `n` elements; `x` and `y` must not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f32_to_f16(x: *const f32, n: usize, y: *mut u16) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { convert(ops::f32_to_f16, x, n, y) })
}

/// y = x as bfloat16, rounded to nearest, ties to even.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f32_to_bf16(x: *const f32, n: usize, y: *mut u16) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { convert(ops::f32_to_bf16, x, n, y) })
}

/// y = the IEEE half floats x; exact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_f16_to_f32(x: *const u16, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { convert(ops::f16_to_f32, x, n, y) })
}

/// y = the bfloat16 numbers x; exact.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_bf16_to_f32(x: *const u16, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { convert(ops::bf16_to_f32, x, n, y) })
}

/// Converts `n` elements.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` elements.
unsafe fn convert<'a, T: 'a, U: 'a>(
    op: impl FnOnce(&'a [T], &'a mut [U], Option<&Team>) -> crate::Result<()>,
    x: *const T,
    n: usize,
    y: *mut U,
) -> Result<(), Failure> {
    // SAFETY: the function's contract; x is compared with y before that is borrowed.
    let (x, y) = unsafe {
        let y = Output::new("y", y, n)?;
        (y.read("x", x, n)?, y.borrow())
    };
    Ok(op(x, y, None)?)
}
