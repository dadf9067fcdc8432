//! Gated pairs
//! -----------
//! A function of a gate times another number, as in the MLPs of many transformers, and its gradients. The rules are
//! those of the elementwise functions.

use super::boundary;
use super::elementwise::{gelu, operands};
use super::operands::{Output, check_apart};
use super::status::{Failure, sm_status};
use crate::ops::{self, Gate, GatedInput};

/// y = SiLU(gate) * up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_swiglu_f32(gate: *const f32, up: *const f32, n: usize, y: *mut f32) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { gated(Gate::Silu, gate, up, n, y) })
}

/// y = GELU(gate) * up; `form` is `SM_GELU_ERF` or `SM_GELU_TANH`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_geglu_f32(
    gate: *const f32,
    up: *const f32,
    n: usize,
    form: i32,
    y: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { gated(Gate::Gelu(gelu(form)?), gate, up, n, y) })
}

/// The gradients of `sm_swiglu_f32`: dgate = dy * up * SiLU'(gate), dup = dy * SiLU(gate).
///
/// `dgate` and `dup` may each be one of the inputs. They must not be the same, nor overlap each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_swiglu_backward_f32(
    gate: *const f32,
    up: *const f32,
    dy: *const f32,
    n: usize,
    dgate: *mut f32,
    dup: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { backward(Gate::Silu, [gate, up, dy], n, dgate, dup) })
}

/// The gradients of `sm_geglu_f32`: dgate = dy * up * GELU'(gate), dup = dy * GELU(gate).
///
/// `dgate` and `dup` may each be one of the inputs. They must not be the same, nor overlap each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_geglu_backward_f32(
    gate: *const f32,
    up: *const f32,
    dy: *const f32,
    n: usize,
    form: i32,
    dgate: *mut f32,
    dup: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { backward(Gate::Gelu(gelu(form)?), [gate, up, dy], n, dgate, dup) })
}

/// Computes a gated pair.
///
/// # Safety
/// Inputs are NULL or readable, `y` NULL or writable for `n` floats.
unsafe fn gated(
    function: Gate,
    gate: *const f32,
    up: *const f32,
    n: usize,
    y: *mut f32,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    let ([gate, up], y) = unsafe { operands([("gate", gate), ("up", up)], n, ("y", y)) }?;
    Ok(ops::gated(function, gate, up, y, None)?)
}

/// Computes the gradients of a gated pair; `inputs` are gate, up and dy.
///
/// # Safety
/// Inputs are NULL or readable, outputs NULL or writable for `n` floats.
unsafe fn backward(
    function: Gate,
    inputs: [*const f32; 3],
    n: usize,
    dgate: *mut f32,
    dup: *mut f32,
) -> Result<(), Failure> {
    let mut slices = [GatedInput::Dgate; 3];
    // SAFETY: the function's contract; the outputs are apart, and every input is compared with both before they are
    // borrowed.
    unsafe {
        let (dgate, dup) = (Output::new("dgate", dgate, n)?, Output::new("dup", dup, n)?);
        check_apart(&[&dgate, &dup])?;
        for (slice, (name, first)) in slices.iter_mut().zip(["gate", "up", "dy"].into_iter().zip(inputs)) {
            *slice = if dgate.is(first) {
                GatedInput::Dgate
            } else if dup.is(first) {
                GatedInput::Dup
            } else {
                dgate.read(name, first, n)?;
                GatedInput::Slice(dup.read(name, first, n)?)
            };
        }
        Ok(ops::gated_backward(function, slices, dgate.borrow(), dup.borrow(), None)?)
    }
}
