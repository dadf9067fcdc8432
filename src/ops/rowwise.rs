//! Ops whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each takes the share of rows that its worker owns.

use std::ops::Range;

use super::Rows;
use super::linear::Beside;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::{BlocksArgs, NormQuantizeArgs};
use crate::kernels::rope::{Rope, RopeArgs, Table};
use crate::kernels::rows::NormArgs;
use crate::quant::BLOCK;

/// `out[r] = x[r] / rms(x[r]) · weight`.
///
/// # Safety
/// Rows `share` of `out` are this worker's alone; rows `share` of `x` are written by no other.
pub unsafe fn rms_norm(k: &KernelSet, share: Range<usize>, x: Rows, weight: &[f32], eps: f32, out: Rows) {
    // SAFETY: by contract; without `add`, `x` is only read.
    unsafe { k.rows.rms_norm.run(&norm_args(share, x, weight, eps, out)) }
}

/// `out[r] = (x[r] − mean(x[r])) / √(variance(x[r]) + eps) · weight + bias`.
///
/// # Safety
/// As [`rms_norm`].
pub unsafe fn layer_norm(
    k: &KernelSet,
    share: Range<usize>,
    x: Rows,
    (weight, bias): (&[f32], &[f32]),
    eps: f32,
    out: Rows,
) {
    debug_assert_eq!(weight.len(), bias.len());
    let args = NormArgs { beta: bias.as_ptr(), ..norm_args(share, x, weight, eps, out) };
    // SAFETY: as above.
    unsafe { k.rows.layer_norm.run(&args) }
}

fn norm_args(share: Range<usize>, x: Rows, weight: &[f32], eps: f32, out: Rows) -> NormArgs {
    debug_assert!(size_of_val(weight) <= x.stride().min(out.stride()));
    NormArgs {
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
    }
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
pub unsafe fn swiglu(k: &KernelSet, pair: &Beside<2>, n: usize, quantized: bool, out: Rows) {
    let (width, [gate, up]) = (pair.columns.len(), pair.first);
    if !quantized {
        for (i, r) in pair.rows.clone().enumerate() {
            // SAFETY: by contract.
            unsafe {
                let row = |first: *const f32| std::slice::from_raw_parts(first.add(i * pair.stride), width);
                let out = out.row_f32(r).add(pair.columns.start);
                k.unary.swiglu.apply(row(gate), row(up), std::slice::from_raw_parts_mut(out, width));
            }
        }
        return;
    }
    // SAFETY: by contract.
    unsafe { k.qmatmul.gate_quantize(&blocks(pair, n, out), up) }
}

/// Columns of `out = gelu(x)` as whole blocks of quantised rows of `n`.
///
/// # Safety
/// The columns are readable; these columns of these rows of `out` are this worker's alone.
pub unsafe fn gelu_quantize(k: &KernelSet, x: &Beside<1>, n: usize, out: Rows) {
    // SAFETY: by contract.
    unsafe { k.qmatmul.gelu_quantize(&blocks(x, n, out)) }
}

/// The first of the columns, and where they go as blocks of quantised rows of `n`.
fn blocks<const N: usize>(x: &Beside<N>, n: usize, out: Rows) -> BlocksArgs {
    debug_assert!(x.columns.start.is_multiple_of(BLOCK) && x.columns.len().is_multiple_of(BLOCK));
    BlocksArgs {
        x: x.first[0],
        stride: x.stride,
        rows: x.rows.len(),
        len: x.columns.len(),
        out: out.row(x.rows.start),
        out_stride: out.stride(),
        k: n,
        block: x.columns.start / BLOCK,
    }
}

/// `x = gelu(x)` of some columns of some rows.
///
/// # Safety
/// These columns of these rows are this worker's alone.
pub unsafe fn gelu(k: &KernelSet, x: Rows, rows: Range<usize>, columns: Range<usize>) {
    debug_assert!(columns.end * size_of::<f32>() <= x.stride());
    for r in rows {
        let first = x.row_f32(r).wrapping_add(columns.start);
        // SAFETY: by contract.
        unsafe { k.unary.gelu_tanh.run(first, first, columns.len()) }
    }
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
