//! Elementwise functions
//! ---------------------
//! Each works on `n` floats. An output may be one of the inputs, and must not overlap one otherwise. Errors are
//! those of `docs/kernels.md`; infinities give the limits, NaN gives NaN.

use super::boundary;
use super::matrices::{arrays, bytes};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::unary::{Binary, Unary, UnaryKernels};
use crate::profile::{self, Zone};

/// GELU as it is defined: x * (1 + erf(x / sqrt(2))) / 2.
pub const SM_GELU_ERF: i32 = 0;
/// GELU in its customary approximation by tanh.
pub const SM_GELU_TANH: i32 = 1;

/// y = exp(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_exp_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.exp, Zone::Elementwise, x, n, y) })
}

/// y = tanh(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_tanh_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.tanh, Zone::Elementwise, x, n, y) })
}

/// y = erf(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_erf_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.erf, Zone::Elementwise, x, n, y) })
}

/// y = 1 / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sigmoid_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.sigmoid, Zone::Elementwise, x, n, y) })
}

/// y = GELU(x); `form` is `SM_GELU_ERF` or `SM_GELU_TANH`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gelu_f32(x: *const f32, n: usize, form: i32, y: *mut f32) -> sm_status {
    boundary::call(|| {
        let kernels = kernels()?;
        let gelu = by_form(form, &kernels.gelu_erf, &kernels.gelu_tanh)?;
        // SAFETY: the header's contract.
        unsafe { unary(gelu, Zone::Gelu, x, n, y) }
    })
}

/// y = x / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.silu, Zone::Silu, x, n, y) })
}

/// y = x where that is above 0, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_relu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { unary(&kernels()?.relu, Zone::Elementwise, x, n, y) })
}

/// dx = dy * (1 - tanh(x)^2): what flows back through tanh to its argument.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_tanh_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    let inputs = [("x", x), ("dy", dy)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.tanh_backward, Zone::Elementwise, inputs, n, ("dx", dx)) })
}

/// dx = dy * s * (1 - s) with s = 1 / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sigmoid_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    let inputs = [("x", x), ("dy", dy)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        binary(&kernels()?.sigmoid_backward, Zone::Elementwise, inputs, n, ("dx", dx))
    })
}

/// dx = dy * GELU'(x); `form` is `SM_GELU_ERF` or `SM_GELU_TANH`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gelu_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    form: i32,
    dx: *mut f32,
) -> sm_status {
    boundary::call(|| {
        let kernels = kernels()?;
        let kernel = by_form(form, &kernels.gelu_erf_backward, &kernels.gelu_tanh_backward)?;
        // SAFETY: the header's contract.
        unsafe { binary(kernel, Zone::Gelu, [("x", x), ("dy", dy)], n, ("dx", dx)) }
    })
}

/// dx = dy * SiLU'(x), SiLU as in `sm_silu_f32`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    let inputs = [("x", x), ("dy", dy)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.silu_backward, Zone::Silu, inputs, n, ("dx", dx)) })
}

/// dx = dy where x is above 0, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_relu_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    let inputs = [("x", x), ("dy", dy)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.relu_backward, Zone::Elementwise, inputs, n, ("dx", dx)) })
}

/// y = a + b.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_f32(a: *const f32, b: *const f32, n: usize, y: *mut f32) -> sm_status {
    let inputs = [("a", a), ("b", b)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.add, Zone::Add, inputs, n, ("y", y)) })
}

/// y = a * b.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_mul_f32(a: *const f32, b: *const f32, n: usize, y: *mut f32) -> sm_status {
    let inputs = [("a", a), ("b", b)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.mul, Zone::Mul, inputs, n, ("y", y)) })
}

/// y = factor * x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_scale_f32(x: *const f32, n: usize, factor: f32, y: *mut f32) -> sm_status {
    boundary::call(|| {
        if arrays(n, &[("x", x)], ("y", y))? {
            let kernels = kernels()?;
            let _zone = profile::scope(Zone::Elementwise).work(n as u64, bytes(n.saturating_mul(2)));
            // SAFETY: the header's contract, with sizes and overlap checked.
            unsafe { kernels.scale.run(x, factor, y, n) };
        }
        Ok(())
    })
}

/// y = factor * x + y.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_axpy_f32(factor: f32, x: *const f32, n: usize, y: *mut f32) -> sm_status {
    boundary::call(|| {
        if arrays(n, &[("x", x)], ("y", y))? {
            let kernels = kernels()?;
            let _zone = profile::scope(Zone::Add).work(2 * n as u64, bytes(n.saturating_mul(3)));
            // SAFETY: the header's contract, with sizes and overlap checked.
            unsafe { kernels.axpy.run(factor, x, y, n) };
        }
        Ok(())
    })
}

fn kernels() -> Result<&'static UnaryKernels, Failure> {
    Ok(&KernelSet::default_set()?.unary)
}

/// The kernel for a form of GELU.
pub(super) fn by_form<T>(form: i32, erf: T, tanh: T) -> Result<T, Failure> {
    match form {
        SM_GELU_ERF => Ok(erf),
        SM_GELU_TANH => Ok(tanh),
        _ => Err(Failure::invalid(format!("form is {form}, which is none of SM_GELU_*"))),
    }
}

/// Runs a function of one argument over checked buffers.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` floats.
unsafe fn unary(kernel: &Unary, zone: Zone, x: *const f32, n: usize, y: *mut f32) -> Result<(), Failure> {
    if arrays(n, &[("x", x)], ("y", y))? {
        let _zone = profile::scope(zone).work(0, bytes(n.saturating_mul(2)));
        // SAFETY: the function's contract, with sizes and overlap checked.
        unsafe { kernel.run(x, y, n) };
    }
    Ok(())
}

/// Runs a function of two arguments over checked buffers.
///
/// # Safety
/// Inputs are NULL or readable, `y` NULL or writable for `n` floats.
pub(super) unsafe fn binary(
    kernel: &Binary,
    zone: Zone,
    inputs: [(&'static str, *const f32); 2],
    n: usize,
    y: (&'static str, *mut f32),
) -> Result<(), Failure> {
    if arrays(n, &inputs, y)? {
        let _zone = profile::scope(zone).work(0, bytes(n.saturating_mul(3)));
        // SAFETY: the function's contract, with sizes and overlap checked.
        unsafe { kernel.run(inputs[0].1, inputs[1].1, y.1, n) };
    }
    Ok(())
}
