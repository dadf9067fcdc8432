//! Ops whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each takes the share of rows that its worker owns.

use std::ops::Range;

use super::Rows;
use super::linear::Beside;
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::{BlocksArgs, NormQuantizeArgs};
use crate::kernels::rope::{Angles, Rope, RopeArgs};
use crate::kernels::rows::NormArgs;
use crate::kernels::unary::{Binary, Unary};
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

/// RMSNorm of each head of some rows by one gain, which has a head's length; in place.
///
/// # Safety
/// These heads of rows `share` of `x` are this worker's alone.
pub unsafe fn head_norm(
    k: &KernelSet,
    share: Range<usize>,
    x: Rows,
    heads: Range<usize>,
    gain: &[f32],
    eps: f32,
) {
    debug_assert!(heads.end * size_of_val(gain) <= x.stride());
    for head in heads {
        let first = x.row_f32(share.start).wrapping_add(head * gain.len());
        let args = norm_args(share.clone(), x, gain, eps, x);
        // SAFETY: by contract; the output is the input, row on row.
        unsafe { k.rows.rms_norm.run(&NormArgs { x: first, dst: first, ..args }) }
    }
}

/// Columns of `out = f(gate) · up`.
///
/// # Safety
/// The pair's columns are readable; these columns of these rows of `out` are this worker's alone.
pub unsafe fn gate(kernel: &Binary, pair: &Beside<2>, out: Rows) {
    let (width, [gate, up]) = (pair.columns.len(), pair.first);
    for (i, r) in pair.rows.clone().enumerate() {
        let row = |first: *const f32| first.wrapping_add(i * pair.stride);
        let out = out.row_f32(r).wrapping_add(pair.columns.start);
        // SAFETY: by contract.
        unsafe { kernel.run(row(gate), row(up), out, width) }
    }
}

/// Columns of `out = silu(gate) · up` as whole blocks of quantised rows of `n`.
///
/// # Safety
/// As [`gate`].
pub unsafe fn gate_quantize(k: &KernelSet, pair: &Beside<2>, n: usize, out: Rows) {
    // SAFETY: by contract.
    unsafe { k.qmatmul.gate_quantize(&blocks(pair, n, out), pair.first[1]) }
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

/// `x = f(x)` of some columns of some rows.
///
/// # Safety
/// These columns of these rows are this worker's alone.
pub unsafe fn activate(kernel: &Unary, x: Rows, rows: Range<usize>, columns: Range<usize>) {
    debug_assert!(columns.end * size_of::<f32>() <= x.stride());
    for r in rows {
        let first = x.row_f32(r).wrapping_add(columns.start);
        // SAFETY: by contract.
        unsafe { kernel.run(first, first, columns.len()) }
    }
}

/// Rows of `len` floats quantised as the kernel set's products read them.
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
/// These heads of rows `share` of `x` are this worker's alone; there are angles for the positions.
pub unsafe fn rope(
    rope: &Rope,
    share: Range<usize>,
    x: Rows,
    heads: Range<usize>,
    head_dim: usize,
    angles: Angles,
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
    unsafe { rope.run(angles, &args) }
}
