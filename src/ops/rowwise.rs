//! Ops of a pass whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each computes the share of rows that its worker owns.

use std::ops::Range;

use super::Rows;
use super::linear::{Beside, Target};
use crate::kernels::KernelSet;
use crate::kernels::qmatmul::{BlockFunction, BlocksArgs, NormQuantizeArgs};
use crate::kernels::rope::{Angles, Rope, RopeArgs};
use crate::kernels::rows::NormArgs;
use crate::kernels::unary::{Binary, Unary};
use crate::quant::BLOCK;

/// A norm: with a bias LayerNorm, `(x − mean(x)) / √(variance(x) + eps) · gain + bias`, otherwise RMSNorm, `x / rms(x) ·
/// gain`.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// Factors: a head's, for all heads, or those of one head after the other.
    pub gain: &'a [f32],
    /// Added to the products; as many as a head has.
    pub bias: Option<&'a [f32]>,
    /// Added to mean squares.
    pub eps: f32,
}

/// The norm of each of `heads`, of `head_dim` floats, of each row. A whole row is a head, too.
///
/// # Safety
/// Rows of `x` and `out` hold `heads.end` heads. Only this worker touches these heads of rows `share` of `out`, and nobody
/// else writes them in `x`. `out` may be `x`.
pub unsafe fn norm(
    k: &KernelSet,
    share: Range<usize>,
    (x, out): (Rows, Rows),
    (heads, head_dim): (Range<usize>, usize),
    norm: Norm<'_>,
) {
    debug_assert!(heads.end * head_dim * size_of::<f32>() <= x.stride().min(out.stride()));
    debug_assert!(norm.gain.len() == head_dim || norm.gain.len() == heads.end * head_dim);
    let kernel = if norm.bias.is_some() { &k.rows.layer_norm } else { &k.rows.rms_norm };
    for head in heads {
        let (first, of_all) = (head * head_dim, norm.gain.len() == head_dim);
        let gain = if of_all { norm.gain } else { &norm.gain[first..first + head_dim] };
        let args = NormArgs {
            x: x.row_f32(share.start).wrapping_add(first),
            x_stride: x.stride() / size_of::<f32>(),
            add: std::ptr::null(),
            add_stride: 0,
            dst: out.row_f32(share.start).wrapping_add(first),
            dst_stride: out.stride() / size_of::<f32>(),
            gamma: gain.as_ptr(),
            beta: norm.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            eps: norm.eps,
            rows: share.len(),
            cols: head_dim,
            mean: std::ptr::null_mut(),
            rstd: std::ptr::null_mut(),
        };
        // SAFETY: the head lies in each row, those of `x` are only read without `add`, and those of `out` are this
        // worker's, as promised; gain and bias have a head's length.
        unsafe { kernel.run(&args) }
    }
}

/// RMSNorm and [`quantize`] in one: rows of `out` hold quantised rows.
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

/// Adds columns to the target's; `kernel` adds.
pub fn add(kernel: &Binary, mut x: Beside<1>) {
    for i in 0..x.rows.len() {
        let ([x], out) = x.row(i);
        kernel.apply_in_place(out, x);
    }
}

/// The target's columns = f(gate) · up.
pub fn gate(kernel: &Binary, mut pair: Beside<2>) {
    for i in 0..pair.rows.len() {
        let ([gate, up], out) = pair.row(i);
        kernel.apply(gate, up, out);
    }
}

/// The target's blocks = silu(gate) · up.
pub fn gate_quantize(k: &KernelSet, pair: Beside<2>) {
    quantize_blocks(k, &pair, BlockFunction::SiluGate(pair.first[1]));
}

/// The target's blocks = gelu(x).
pub fn gelu_quantize(k: &KernelSet, x: Beside<1>) {
    quantize_blocks(k, &x, BlockFunction::Gelu);
}

/// The target's blocks = the first product's columns.
pub fn quantize_columns<const N: usize>(k: &KernelSet, x: Beside<N>) {
    quantize_blocks(k, &x, BlockFunction::Identity);
}

/// Columns as whole blocks of the target's rows. A gate's factors are columns of `x`, too.
fn quantize_blocks<const N: usize>(k: &KernelSet, x: &Beside<N>, function: BlockFunction) {
    let Target::Blocks(out, n) = x.target else { unreachable!("the target has rows of floats") };
    assert!(x.columns.start.is_multiple_of(BLOCK) && x.columns.len().is_multiple_of(BLOCK));
    assert!(x.columns.end <= n && k.qmatmul.row_bytes(n) <= out.stride());
    let args = BlocksArgs {
        x: x.first[0],
        stride: x.stride,
        rows: x.rows.len(),
        len: x.columns.len(),
        out: out.row(0),
        out_stride: out.stride(),
        k: n,
        block: x.columns.start / BLOCK,
    };
    // SAFETY: all columns are readable, and the blocks lie in the target's rows and are this worker's, as whoever made the
    // value was promised.
    unsafe { k.qmatmul.quantize_blocks(&args, function) }
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
