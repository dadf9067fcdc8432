//! Ops of a pass whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each computes the share of rows that its worker owns.

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
/// Rows of `x` and `out` hold `weight.len()` floats. Only this worker touches rows `share` of `out`, and nobody else
/// writes rows `share` of `x`. `out` may be `x`.
pub unsafe fn rms_norm(k: &KernelSet, share: Range<usize>, x: Rows, weight: &[f32], eps: f32, out: Rows) {
    // SAFETY: the rows hold `weight.len()` floats and are this worker's, as promised; without `add`, `x` is only read.
    unsafe { k.rows.rms_norm.run(&norm_args(share, x, weight, eps, out)) }
}

/// `out[r] = (x[r] − mean(x[r])) / √(variance(x[r]) + eps) · weight + bias`.
///
/// # Safety
/// As [`rms_norm`]; weight and bias are of one length.
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
    // SAFETY: as in `rms_norm`; `bias` is as long as `weight`, as promised.
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
/// Rows of `x` hold `weight.len()` floats, rows of `out` `k.qmatmul.row_bytes(weight.len())` bytes. Only this worker
/// touches rows `share` of `out`, and nobody else writes rows `share` of `x`.
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
    // SAFETY: the rows are as long as the kernel reads and writes them, and this worker's, as promised.
    unsafe { k.qmatmul.norm_quantize(&args) }
}

/// RMSNorm of `heads` of each row, in place, all with one gain of a head's length.
///
/// # Safety
/// Rows of `x` hold `heads.end` heads, and only this worker touches these heads of rows `share`.
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
        // SAFETY: the head lies in each row and is this worker's, as promised; the output is the input, row on row.
        unsafe { k.rows.rms_norm.run(&NormArgs { x: first, dst: first, ..args }) }
    }
}

/// A norm of each of `heads` heads of each row: with a gain of a head's length for all, or with one for each head, the
/// gains one after the other. With a bias, of one head's length, it is LayerNorm, otherwise RMSNorm.
///
/// # Safety
/// As [`rms_norm`], with rows of `heads` heads.
pub unsafe fn heads_norm(
    k: &KernelSet,
    share: Range<usize>,
    x: Rows,
    (heads, gain, bias): (usize, &[f32], Option<&[f32]>),
    eps: f32,
    (out, head_dim): (Rows, usize),
) {
    debug_assert!(heads * head_dim * size_of::<f32>() <= x.stride().min(out.stride()));
    debug_assert!(gain.len() == head_dim || gain.len() == heads * head_dim);
    for (head, gain) in (0..heads).zip(gain.chunks_exact(head_dim).cycle()) {
        let args = norm_args(share.clone(), x, gain, eps, out);
        let beta = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let (x, dst) = (args.x.wrapping_add(head * head_dim), args.dst.wrapping_add(head * head_dim));
        let args = NormArgs { x, dst, beta, ..args };
        // SAFETY: the head lies in each row, `x`'s rows are only read, and those of `out` are this worker's, as promised;
        // gain and bias have a head's length.
        unsafe {
            match bias {
                Some(_) => k.rows.layer_norm.run(&args),
                None => k.rows.rms_norm.run(&args),
            }
        }
    }
}

/// Columns of `out += x`; `kernel` adds.
///
/// # Safety
/// The columns are readable in scratch memory of this worker. Rows of `out` hold these columns as floats, and only this
/// worker touches them in the columns' rows.
pub unsafe fn add(kernel: &Binary, x: &Beside<1>, out: Rows) {
    let (width, [first]) = (x.columns.len(), x.first);
    for (i, r) in x.rows.clone().enumerate() {
        let out = out.row_f32(r).wrapping_add(x.columns.start);
        // SAFETY: `width` columns of row r are readable in the scratch memory and this worker's in `out`, as promised;
        // the first input is the output.
        unsafe { kernel.run(out, first.wrapping_add(i * x.stride), out, width) }
    }
}

/// Columns of `out = f(gate) · up`.
///
/// # Safety
/// The pair's columns are readable in scratch memory of this worker. Rows of `out` hold these columns as floats, and only
/// this worker touches them in the pair's rows.
pub unsafe fn gate(kernel: &Binary, pair: &Beside<2>, out: Rows) {
    let (width, [gate, up]) = (pair.columns.len(), pair.first);
    for (i, r) in pair.rows.clone().enumerate() {
        let row = |first: *const f32| first.wrapping_add(i * pair.stride);
        let out = out.row_f32(r).wrapping_add(pair.columns.start);
        // SAFETY: `width` columns of row r are readable in the scratch memory and this worker's in `out`, as promised.
        unsafe { kernel.run(row(gate), row(up), out, width) }
    }
}

/// Columns of `out = silu(gate) · up` as whole blocks of quantised rows of `n`.
///
/// # Safety
/// The pair's columns are readable in scratch memory of this worker. Rows of `out` hold quantised rows of `n`, and only
/// this worker touches these blocks of the pair's rows.
pub unsafe fn gate_quantize(k: &KernelSet, pair: &Beside<2>, n: usize, out: Rows) {
    // SAFETY: both columns are readable, and the blocks are this worker's, as promised.
    unsafe { k.qmatmul.gate_quantize(&blocks(pair, n, out), pair.first[1]) }
}

/// Columns of `out = gelu(x)` as whole blocks of quantised rows of `n`.
///
/// # Safety
/// The columns are readable in scratch memory of this worker. Rows of `out` hold quantised rows of `n`, and only this
/// worker touches these blocks of the columns' rows.
pub unsafe fn gelu_quantize(k: &KernelSet, x: &Beside<1>, n: usize, out: Rows) {
    // SAFETY: the columns are readable, and the blocks are this worker's, as promised.
    unsafe { k.qmatmul.gelu_quantize(&blocks(x, n, out)) }
}

/// Columns as whole blocks of quantised rows of `n`.
///
/// # Safety
/// As [`gelu_quantize`].
pub unsafe fn quantize_columns<const N: usize>(k: &KernelSet, x: &Beside<N>, n: usize, out: Rows) {
    // SAFETY: the columns are readable, and the blocks are this worker's, as promised.
    unsafe { k.qmatmul.quantize_blocks(&blocks(x, n, out)) }
}

/// The kernels' arguments: the first of the columns, and their places as blocks of quantised rows of `n`.
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
/// Rows of `x` hold `columns.end` floats, and only this worker touches these columns of these rows.
pub unsafe fn activate(kernel: &Unary, x: Rows, rows: Range<usize>, columns: Range<usize>) {
    debug_assert!(columns.end * size_of::<f32>() <= x.stride());
    for r in rows {
        let first = x.row_f32(r).wrapping_add(columns.start);
        // SAFETY: the columns lie in the row and are this worker's, as promised.
        unsafe { kernel.run(first, first, columns.len()) }
    }
}

/// Rows of `len` floats quantised as the kernel set's products read them.
///
/// # Safety
/// Rows of `x` hold `len` floats, rows of `out` `k.qmatmul.row_bytes(len)` bytes. Only this worker touches rows `share` of
/// `out`, and nobody else writes rows `share` of `x`.
pub unsafe fn quantize(k: &KernelSet, share: Range<usize>, x: Rows, len: usize, out: Rows) {
    for r in share {
        // SAFETY: row r of both is as long as the kernel reads and writes it, and this worker's, as promised.
        unsafe { k.qmatmul.quantize_rows(x.row_f32(r), len, 1, len, out.row(r)) }
    }
}

/// Rotates `heads` of each row's heads; row `r` stands at `positions[r]`.
///
/// # Safety
/// Rows of `x` hold `heads.end` heads of `head_dim` floats, and only this worker touches these heads of rows `share`. There are
/// angles for the positions of these rows, and their `rot_dim` is at most `head_dim`.
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
    // SAFETY: the heads lie in each row and are this worker's, and there are angles for the positions, as promised.
    unsafe { rope.run(angles, &args) }
}
