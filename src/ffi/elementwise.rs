//! Elementwise functions
//! ---------------------

use super::boundary;
use super::matrices::row_by_row;
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::unary::Unary;
use crate::profile::{self, Zone};

/// GELU as it is defined: x * (1 + erf(x / sqrt(2))) / 2.
pub const SM_GELU_ERF: i32 = 0;
/// GELU in its customary approximation by tanh.
pub const SM_GELU_TANH: i32 = 1;

/// y = GELU(x) for `n` floats; `form` is `SM_GELU_ERF` or `SM_GELU_TANH`. `y` may be `x`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gelu_f32(x: *const f32, n: usize, form: i32, y: *mut f32) -> sm_status {
    boundary::call(|| {
        let kernels = &KernelSet::default_set()?.unary;
        let gelu = match form {
            SM_GELU_ERF => &kernels.gelu_erf,
            SM_GELU_TANH => &kernels.gelu_tanh,
            _ => return Err(Failure::invalid(format!("form is {form}, which is none of SM_GELU_*"))),
        };
        // SAFETY: the header's contract.
        unsafe { elementwise(gelu, Zone::Gelu, x, n, y) }
    })
}

/// y = x / (1 + exp(-x)) for `n` floats. `y` may be `x`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { elementwise(&KernelSet::default_set()?.unary.silu, Zone::Silu, x, n, y) })
}

/// Runs one function over checked buffers.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` floats.
unsafe fn elementwise(
    function: &Unary,
    zone: Zone,
    x: *const f32,
    n: usize,
    y: *mut f32,
) -> Result<(), Failure> {
    let Some(moved) = row_by_row(1, n, x, n, y, n)? else { return Ok(()) };
    let _zone = profile::scope(zone).work(0, moved);
    // SAFETY: the function's contract, and `row_by_row` has checked sizes and overlap.
    unsafe { function.run(x, y, n) };
    Ok(())
}
