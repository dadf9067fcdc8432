//! Norms of rows and of heads, forward and backward. Forward keeps each row's mean and factor; the gradients of gain and
//! bias are sums over all rows, which workers share by columns.

use std::ptr::{null, null_mut};

use super::{At, Step, bytes_of};
use crate::kernels::backward::{ColumnSumsArgs, NormBackwardArgs, NormGradientArgs};
use crate::kernels::rows::NormArgs;
use crate::profile::Zone;
use crate::train::parameters::Weight;
use crate::train::plan::View;

/// Columns that a worker takes at least, in sums over rows.
const COLUMNS: usize = 16;

/// A norm, and where its statistics stand.
#[derive(Clone, Copy)]
pub struct Norm {
    /// Factors: those of a head, for all heads, or of all heads one after the other.
    pub gain: Weight,
    /// Summands: LayerNorm. `None` is RMSNorm.
    pub bias: Option<Weight>,
    pub eps: f32,
    /// Heads of a row: each is normalised by itself. 1 where whole rows are.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// A row of factors 1/√… for each head.
    pub factors: View,
    /// A row of means for each head.
    pub means: Option<View>,
}

impl Norm {
    /// Place among the weights' elements of a head's first factor.
    fn gain_at(&self, head: usize) -> usize {
        if self.gain.len == self.head_dim { 0 } else { head * self.head_dim }
    }
}

/// `out` = normalised `x`.
pub struct Normalize {
    pub norm: Norm,
    pub x: View,
    pub out: View,
}

impl Step for Normalize {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let Normalize { norm, x, out } = *self;
        let first = at.share.start;
        let kernel =
            if norm.bias.is_some() { &walk.kernels.rows.layer_norm } else { &walk.kernels.rows.rms_norm };
        for head in 0..norm.heads {
            let column = head * norm.head_dim;
            let args = NormArgs {
                x: walk.row(x.columns(column, norm.head_dim), first),
                x_stride: walk.stride(x),
                add: null(),
                add_stride: 0,
                dst: walk.row(out.columns(column, norm.head_dim), first),
                dst_stride: walk.stride(out),
                gamma: walk.weight_at(norm.gain, norm.gain_at(head)),
                beta: norm.bias.map_or(null(), |bias| walk.weight_at(bias, 0)),
                eps: norm.eps,
                rows: at.share.len(),
                cols: norm.head_dim,
                mean: norm.means.map_or(null_mut(), |means| walk.row(means, head).wrapping_add(first)),
                rstd: walk.row(norm.factors, head).wrapping_add(first),
            };
            // SAFETY: the views have these rows and columns, which are this worker's, as are its rows' statistics; gain and
            // bias have a head's length.
            unsafe { kernel.run(&args) }
        }
    }

    fn zone(&self) -> Zone {
        if self.norm.bias.is_some() { Zone::LayerNorm } else { Zone::RmsNorm }
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.out.width])
    }
}

/// The gradient of a norm's input: `dx = …`, or `dx += …`.
pub struct NormInput {
    pub norm: Norm,
    pub x: View,
    pub dy: View,
    pub dx: View,
    pub add: bool,
}

impl Step for NormInput {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let NormInput { norm, x, dy, dx, add } = *self;
        let first = at.share.start;
        let kernels = &walk.kernels.backward;
        let kernel = if norm.bias.is_some() { &kernels.layer_norm } else { &kernels.rms_norm };
        for head in 0..norm.heads {
            let place = |view: View| walk.row(view.columns(head * norm.head_dim, norm.head_dim), first);
            let args = NormBackwardArgs {
                x: place(x),
                x_stride: walk.stride(x),
                dy: place(dy),
                dy_stride: walk.stride(dy),
                dx: place(dx),
                dx_stride: walk.stride(dx),
                gamma: walk.weight_at(norm.gain, norm.gain_at(head)),
                mean: norm.means.map_or(null(), |means| walk.row(means, head).wrapping_add(first)),
                rstd: walk.row(norm.factors, head).wrapping_add(first),
                rows: at.share.len(),
                cols: norm.head_dim,
                accumulate: add,
            };
            // SAFETY: the views have these rows and columns, which are this worker's, as are its rows' statistics; the
            // gain has a head's length.
            unsafe { kernel.run(&args) }
        }
    }

    fn zone(&self) -> Zone {
        Zone::NormGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[3 * self.dx.width])
    }
}

/// The gradients of a norm's gain and bias, added to what is there.
pub struct NormWeights {
    pub norm: Norm,
    pub x: View,
    pub dy: View,
}

impl Step for NormWeights {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let NormWeights { norm, x, dy } = *self;
        let columns = at.worker.share(norm.head_dim, COLUMNS);
        if columns.is_empty() {
            return;
        }
        let kernels = &walk.kernels.backward;
        let kernel = if norm.bias.is_some() { &kernels.layer_norm_gain } else { &kernels.rms_norm_gain };
        for head in 0..norm.heads {
            let column = head * norm.head_dim + columns.start;
            let args = NormGradientArgs {
                x: walk.row(x.columns(column, columns.len()), 0),
                x_stride: walk.stride(x),
                dy: walk.row(dy.columns(column, columns.len()), 0),
                dy_stride: walk.stride(dy),
                mean: norm.means.map_or(null(), |means| walk.row(means, head)),
                rstd: walk.row(norm.factors, head),
                rows: walk.rows,
                cols: columns.len(),
                dgamma: walk.gradient(norm.gain).wrapping_add(norm.gain_at(head) + columns.start),
                dbeta: norm
                    .bias
                    .filter(|bias| bias.trained)
                    .map_or(null_mut(), |bias| walk.gradient(bias).wrapping_add(columns.start)),
            };
            // SAFETY: the views have these columns in all rows, which nobody writes now, nor the statistics; these columns
            // of the gradients are this worker's.
            unsafe { kernel.run(&args) }
        }
    }

    fn zone(&self) -> Zone {
        Zone::NormGradient
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.dy.width])
    }
}

/// The gradient of a bias: sums of columns of some rows, counted from the view's first, added to what is there.
pub struct BiasGradient {
    pub dy: View,
    pub rows: usize,
    pub bias: Weight,
}

impl Step for BiasGradient {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let columns = at.worker.share(self.dy.width, COLUMNS);
        if columns.is_empty() {
            return;
        }
        let args = ColumnSumsArgs {
            dy: walk.row(self.dy.columns(columns.start, columns.len()), 0),
            dy_stride: walk.stride(self.dy),
            rows: self.rows,
            cols: columns.len(),
            out: walk.gradient(self.bias).wrapping_add(columns.start),
        };
        // SAFETY: the view has these columns in all rows, which nobody writes now; these columns of the gradient are this
        // worker's.
        unsafe { walk.kernels.backward.column_sums.run(&args) }
    }

    fn zone(&self) -> Zone {
        Zone::LinearWeightGradient
    }

    fn bytes(&self, _: usize) -> u64 {
        bytes_of(self.rows, &[self.dy.width])
    }
}
