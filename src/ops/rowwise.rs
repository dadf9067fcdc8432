//! Ops whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each takes the share of rows that its worker owns.

use std::ops::Range;

use super::Rows;
use super::linear::Pair;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::{GateQuantizeArgs, NormQuantizeArgs};
use crate::kernels::rope::{Rope, RopeArgs, Table};
use crate::kernels::rows::NormArgs;
use crate::quant::BLOCK;

/// `out[r] = x[r] / rms(x[r]) · weight`.
///
/// # Safety
/// Rows `share` of `out` are this worker's alone; rows `share` of `x` are written by no other.
pub unsafe fn rms_norm(k: &KernelSet, share: Range<usize>, x: Rows, weight: &[f32], eps: f32, out: Rows) {
    debug_assert!(size_of_val(weight) <= x.stride().min(out.stride()));
    let args = NormArgs {
        x: x.row_f32(share.start),
        x_stride: x.stride() / size_of::<f32>(),
        add: std::ptr::null(),
        add_stride: 0,
        dst: out.row_f32(share.start),
        dst_stride: out.stride() / size_of::<f32>(),
        gamma: weight.as_ptr(),
        beta: std::ptr::null(),
        eps,
        rows: share.len(),
        cols: weight.len(),
        mean: std::ptr::null_mut(),
        rstd: std::ptr::null_mut(),
    };
    // SAFETY: by contract; without `add`, `x` is only read.
    unsafe { k.rows.rms_norm.run(&args) }
}

/// [`rms_norm`] and [`quantize`] in one: rows of `out` hold quantised rows.
///
/// # Safety
/// As [`rms_norm`]; rows of `out` hold `k.qmatmul.row_bytes(weight.len())`.
pub unsafe fn norm_quantize(
    k: &KernelSet,
    share: Range<usize>,
    x: Rows,
    weight: &[f32],
    eps: f32,
    out: Rows,
) {
    debug_assert!(size_of_val(weight) <= x.stride());
    let args = NormQuantizeArgs {
        x: x.row_f32(share.start),
        x_stride: x.stride() / size_of::<f32>(),
        gamma: weight.as_ptr(),
        eps,
        rows: share.len(),
        k: weight.len(),
        out: out.row(share.start),
        out_stride: out.stride(),
    };
    // SAFETY: by contract.
    unsafe { k.qmatmul.norm_quantize(&args) }
}

/// Columns of `out = silu(gate) · up`, f32 or, with `quantized`, whole blocks of quantised rows of `n`.
///
/// # Safety
/// The pair's columns are readable; these columns of these rows of `out` are this worker's alone.
pub unsafe fn swiglu(k: &KernelSet, pair: &Pair, n: usize, quantized: bool, out: Rows) {
    let width = pair.columns.len();
    if !quantized {
        for (i, r) in pair.rows.clone().enumerate() {
            // SAFETY: by contract.
            unsafe {
                let row = |first: *const f32| std::slice::from_raw_parts(first.add(i * pair.stride), width);
                let out = out.row_f32(r).add(pair.columns.start);
                k.unary.swiglu.apply(
                    row(pair.gate),
                    row(pair.up),
                    std::slice::from_raw_parts_mut(out, width),
                );
            }
        }
        return;
    }
    debug_assert!(pair.columns.start.is_multiple_of(BLOCK) && width.is_multiple_of(BLOCK));
    let args = GateQuantizeArgs {
        gate: pair.gate,
        up: pair.up,
        stride: pair.stride,
        rows: pair.rows.len(),
        len: width,
        out: out.row(pair.rows.start),
        out_stride: out.stride(),
        k: n,
        block: pair.columns.start / BLOCK,
    };
    // SAFETY: by contract.
    unsafe { k.qmatmul.gate_quantize(&args) }
}

/// Rows of `len` floats to 8 bits with a scale for each block of 32.
///
/// # Safety
/// As [`rms_norm`]; rows of `out` hold `k.qmatmul.row_bytes(len)`.
pub unsafe fn quantize(k: &KernelSet, share: Range<usize>, x: Rows, len: usize, out: Rows) {
    for r in share {
        // SAFETY: by contract.
        unsafe { k.qmatmul.quantize_rows(x.row_f32(r), len, 1, len, out.row(r)) }
    }
}

/// Rotates `heads` of each row's heads; row `r` stands at `positions[r]`.
///
/// # Safety
/// These heads of rows `share` of `x` are this worker's alone; the table covers the positions.
pub unsafe fn rope(
    rope: &Rope,
    share: Range<usize>,
    x: Rows,
    heads: Range<usize>,
    head_dim: usize,
    table: &Table,
    positions: &[u32],
) {
    debug_assert!(heads.end * head_dim * size_of::<f32>() <= x.stride());
    let args = RopeArgs {
        x: x.row_f32(share.start).wrapping_add(heads.start * head_dim),
        stride: x.stride() / size_of::<f32>(),
        positions: positions[share.start..share.end].as_ptr(),
        tokens: share.len(),
        n_head: heads.len(),
        head_dim,
    };
    // SAFETY: by contract.
    unsafe { rope.run(table.angles(), &args) }
}
