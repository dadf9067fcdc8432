//! Elementwise functions
//! ---------------------
//! Each function works on `n` floats. An output may be one of the inputs; otherwise it must not overlap any input.
//! `docs/kernels.md` states the error bounds. Infinities give the limits, NaN gives NaN.

use super::boundary;
use super::operands::Output;
use super::status::{Failure, sm_status};
use crate::ops::{self, Function, Gelu, Input};

/// GELU as it is defined: x * (1 + erf(x / sqrt(2))) / 2.
pub const SM_GELU_ERF: i32 = 0;
/// GELU in its customary approximation by tanh.
pub const SM_GELU_TANH: i32 = 1;

/// y = exp(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_exp_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Exp, x, n, y) })
}

/// y = tanh(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_tanh_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Tanh, x, n, y) })
}

/// y = erf(x).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_erf_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Erf, x, n, y) })
}

/// y = 1 / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sigmoid_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Sigmoid, x, n, y) })
}

/// y = GELU(x); `form` is `SM_GELU_ERF` or `SM_GELU_TANH`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_gelu_f32(x: *const f32, n: usize, form: i32, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Gelu(gelu(form)?), x, n, y) })
}

/// y = x / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Silu, x, n, y) })
}

/// y = x where x is above 0, else 0; NaN stays NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_relu_f32(x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map(Function::Relu, x, n, y) })
}

/// dx = dy * (1 - tanh(x)^2): the gradient that flows back through tanh to its argument.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_tanh_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map_backward(Function::Tanh, x, dy, n, dx) })
}

/// dx = dy * s * (1 - s) with s = 1 / (1 + exp(-x)).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_sigmoid_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map_backward(Function::Sigmoid, x, dy, n, dx) })
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
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map_backward(Function::Gelu(gelu(form)?), x, dy, n, dx) })
}

/// dx = dy * SiLU'(x), with SiLU as in `sm_silu_f32`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_silu_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map_backward(Function::Silu, x, dy, n, dx) })
}

/// dx = dy where x is above 0, else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_relu_backward_f32(
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { map_backward(Function::Relu, x, dy, n, dx) })
}

/// y = a + b.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_add_f32(a: *const f32, b: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let ([a, b], y) = operands([("a", a), ("b", b)], n, ("y", y))?;
        Ok(ops::add(a, b, y, None)?)
    })
}

/// y = a * b.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_mul_f32(a: *const f32, b: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let ([a, b], y) = operands([("a", a), ("b", b)], n, ("y", y))?;
        Ok(ops::mul(a, b, y, None)?)
    })
}

/// y = factor * x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_scale_f32(x: *const f32, n: usize, factor: f32, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let ([x], y) = operands([("x", x)], n, ("y", y))?;
        Ok(ops::scale(factor, x, y, None)?)
    })
}

/// y = factor * x + y.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_axpy_f32(factor: f32, x: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let ([x], y) = operands([("x", x)], n, ("y", y))?;
        Ok(ops::axpy(factor, x, y, None)?)
    })
}

/// The form of GELU that a host names.
pub(super) fn gelu(form: i32) -> Result<Gelu, Failure> {
    match form {
        SM_GELU_ERF => Ok(Gelu::Erf),
        SM_GELU_TANH => Ok(Gelu::Tanh),
        _ => Err(Failure::invalid(format!("form is {form}, which is none of SM_GELU_*"))),
    }
}

/// Inputs of `n` floats and an output that is one of them or overlaps none.
///
/// # Safety
/// Inputs are NULL or readable, `y` NULL or writable for `n` floats during `'a`.
pub(super) unsafe fn operands<'a, const N: usize>(
    inputs: [(&'static str, *const f32); N],
    n: usize,
    (name, y): (&'static str, *mut f32),
) -> Result<([Input<'a>; N], &'a mut [f32]), Failure> {
    let mut slices = [Input::InPlace; N];
    // SAFETY: the function's contract; every input is compared with the output before that is borrowed.
    unsafe {
        let y = Output::new(name, y, n)?;
        for (slice, (name, first)) in slices.iter_mut().zip(inputs) {
            *slice = y.input(name, first, n, true)?;
        }
        Ok((slices, y.borrow()))
    }
}

/// Computes a function of one argument.
///
/// # Safety
/// `x` is NULL or readable, `y` NULL or writable for `n` floats.
unsafe fn map(function: Function, x: *const f32, n: usize, y: *mut f32) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    let ([x], y) = unsafe { operands([("x", x)], n, ("y", y)) }?;
    Ok(ops::map(function, x, y, None)?)
}

/// Computes the gradient of a function of one argument.
///
/// # Safety
/// `x` and `dy` are NULL or readable, `dx` NULL or writable for `n` floats.
unsafe fn map_backward(
    function: Function,
    x: *const f32,
    dy: *const f32,
    n: usize,
    dx: *mut f32,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    let ([x, dy], dx) = unsafe { operands([("x", x), ("dy", dy)], n, ("dx", dx)) }?;
    Ok(ops::map_backward(function, x, dy, dx, None)?)
}
