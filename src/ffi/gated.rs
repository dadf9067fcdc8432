//! Gated pairs
//! -----------
//! A function of a gate times another number, as the MLPs of many transformers have them, and what flows back.
//! Rules as for the elementwise functions.

use super::boundary;
use super::elementwise::{binary, by_form};
use super::matrices::{arrays, bytes, overlap, range};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::unary::{GatedArgs, GatedBackward, UnaryKernels};
use crate::profile::{self, Zone};

/// y = SiLU(gate) * up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_swiglu_f32(gate: *const f32, up: *const f32, n: usize, y: *mut f32) -> sm_status {
    let inputs = [("gate", gate), ("up", up)];
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { binary(&kernels()?.swiglu, Zone::SwiGlu, inputs, n, ("y", y)) })
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
    boundary::call(|| {
        let kernels = kernels()?;
        let kernel = by_form(form, &kernels.geglu_erf, &kernels.geglu)?;
        // SAFETY: the header's contract.
        unsafe { binary(kernel, Zone::Gelu, [("gate", gate), ("up", up)], n, ("y", y)) }
    })
}

/// What flows back through `sm_swiglu_f32`: dgate = dy * up * SiLU'(gate), dup = dy * SiLU(gate).
///
/// `dgate` and `dup` may each be one of the inputs, but not the same, nor overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_swiglu_backward_f32(
    gate: *const f32,
    up: *const f32,
    dy: *const f32,
    n: usize,
    dgate: *mut f32,
    dup: *mut f32,
) -> sm_status {
    let args = GatedArgs { gate, up, dy, dgate, dup, n };
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { backward(&kernels()?.swiglu_backward, Zone::SwiGlu, &args) })
}

/// What flows back through `sm_geglu_f32`: dgate = dy * up * GELU'(gate), dup = dy * GELU(gate).
///
/// `dgate` and `dup` may each be one of the inputs, but not the same, nor overlap.
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
    let args = GatedArgs { gate, up, dy, dgate, dup, n };
    boundary::call(|| {
        let kernels = kernels()?;
        let kernel = by_form(form, &kernels.geglu_erf_backward, &kernels.geglu_backward)?;
        // SAFETY: the header's contract.
        unsafe { backward(kernel, Zone::Gelu, &args) }
    })
}

fn kernels() -> Result<&'static UnaryKernels, Failure> {
    Ok(&KernelSet::default_set()?.unary)
}

/// Runs a backward pass over checked buffers.
///
/// # Safety
/// Inputs are NULL or readable, outputs NULL or writable for `n` floats.
unsafe fn backward(kernel: &GatedBackward, zone: Zone, args: &GatedArgs) -> Result<(), Failure> {
    let inputs = [("gate", args.gate), ("up", args.up), ("dy", args.dy)];
    let todo = arrays(args.n, &inputs, ("dgate", args.dgate))?;
    arrays(args.n, &inputs, ("dup", args.dup))?;
    if todo {
        if overlap(&range(args.dgate, args.n), &range(args.dup, args.n)) {
            return Err(Failure::invalid("dgate and dup overlap"));
        }
        let _zone = profile::scope(zone).work(0, bytes(args.n.saturating_mul(5)));
        // SAFETY: the function's contract, with sizes and overlap checked.
        unsafe { kernel.run(args) };
    }
    Ok(())
}
