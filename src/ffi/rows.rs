//! Functions of rows
//! -----------------

use super::boundary;
use super::buffers;
use super::matrices::{apart, floats, row_by_row};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::rows::{NormArgs, SoftmaxArgs};
use crate::profile::{self, Zone};

/// Softmax of each row: y = exp(x) / sum of exp(x), without overflow for any finite x.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_softmax_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    boundary::call(|| {
        let Some(moved) = row_by_row(rows, cols, x, ldx, y, ldy)? else { return Ok(()) };
        let softmax = KernelSet::default_set()?.rows.softmax;
        let _zone = profile::scope(Zone::Softmax).work(0, moved);
        // SAFETY: the header's contract, and `row_by_row` has checked sizes and overlap.
        unsafe {
            softmax.run(&SoftmaxArgs {
                src: x,
                src_stride: ldx,
                dst: y,
                dst_stride: ldy,
                rows,
                cols,
                scale: 1.0,
                causal: None,
            });
        }
        Ok(())
    })
}

/// LayerNorm of each row: y = (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// `weight` and `bias` are `cols` floats each, or NULL for 1 and 0. `eps` is finite and at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_layer_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let args = norm_args(rows, cols, (x, ldx), weight, bias, eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::LayerNorm, &args) })
}

/// RMSNorm of each row: y = x / sqrt(mean of x^2 + eps) * weight.
///
/// `weight` is `cols` floats, or NULL for 1. `eps` is finite and at least 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_rms_norm_f32(
    rows: usize,
    cols: usize,
    x: *const f32,
    ldx: usize,
    weight: *const f32,
    eps: f32,
    y: *mut f32,
    ldy: usize,
) -> sm_status {
    let args = norm_args(rows, cols, (x, ldx), weight, std::ptr::null(), eps, (y, ldy));
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { normalise(Zone::RmsNorm, &args) })
}

fn norm_args(
    rows: usize,
    cols: usize,
    (x, x_stride): (*const f32, usize),
    gamma: *const f32,
    beta: *const f32,
    eps: f32,
    (dst, dst_stride): (*mut f32, usize),
) -> NormArgs {
    // Without `add`, the kernel only reads x.
    let (x, add, add_stride) = (x.cast_mut(), std::ptr::null(), 0);
    NormArgs { x, x_stride, add, add_stride, dst, dst_stride, gamma, beta, eps, rows, cols }
}

/// Runs LayerNorm or RMSNorm over checked buffers.
///
/// # Safety
/// The pointers are NULL or valid for what the header says.
unsafe fn normalise(zone: Zone, args: &NormArgs) -> Result<(), Failure> {
    let &NormArgs { x, x_stride, dst, dst_stride, gamma, beta, eps, rows, cols, .. } = args;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Failure::invalid(format!("eps is {eps}; it must be finite and at least 0")));
    }
    let Some(moved) = row_by_row(rows, cols, x, x_stride, dst, dst_stride)? else { return Ok(()) };
    for (name, vector) in [("weight", gamma), ("bias", beta)] {
        if !vector.is_null() {
            // SAFETY: the function's contract.
            let vector = unsafe { buffers::array(vector, cols, name) }?;
            apart("y", dst, floats("y", rows, cols, dst_stride)?, name, vector)?;
        }
    }
    let kernels = &KernelSet::default_set()?.rows;
    let norm = if zone == Zone::LayerNorm { kernels.layer_norm } else { kernels.rms_norm };
    let _zone = profile::scope(zone).work(0, moved);
    // SAFETY: the function's contract, with sizes and overlap checked.
    unsafe { norm.run(args) };
    Ok(())
}
