//! Ops whose output row depends on one input row: norms, gating, rotation, quantisation.
//! Each takes the share of rows that its worker owns.

use std::ops::Range;

use super::Rows;
use crate::kernels::KernelSet;
use crate::kernels::rope::{Rope, RopeArgs, Table};
use crate::kernels::rows::NormArgs;

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

/// `out[r] = silu(x[r][0..n]) · x[r][n..2n]`.
///
/// # Safety
/// As [`rms_norm`].
pub unsafe fn swiglu(k: &KernelSet, share: Range<usize>, x: Rows, n: usize, out: Rows) {
    for r in share {
        // SAFETY: by contract.
        unsafe {
            let (gate, up) = x.floats(r, 2 * n).split_at(n);
            k.unary.swiglu.apply(gate, up, out.floats_mut(r, n));
        }
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

/// Rotates the first `heads` heads of each row; row `r` stands at `positions[r]`.
///
/// # Safety
/// Rows `share` of `x` are this worker's alone; the table covers the positions.
pub unsafe fn rope(
    rope: &Rope,
    share: Range<usize>,
    x: Rows,
    heads: usize,
    head_dim: usize,
    table: &Table,
    positions: &[u32],
) {
    debug_assert!(heads * head_dim * size_of::<f32>() <= x.stride());
    let args = RopeArgs {
        x: x.row_f32(share.start),
        stride: x.stride() / size_of::<f32>(),
        positions: positions[share.start..share.end].as_ptr(),
        tokens: share.len(),
        n_head: heads,
        head_dim,
    };
    // SAFETY: by contract.
    unsafe { rope.run(table.angles(), &args) }
}
