//! Row-wise kernels: softmax, LayerNorm, RMSNorm (also fused with a residual sum), one row added to all, reductions.
//!
//! Contract: every row is computed by itself, in the same order wherever it stands, so any split of the rows
//! into portions gives the same bits. Strides are in floats, any alignment. The output may be the input
//! (same pointer, same stride), but must not overlap it otherwise; nothing is written past `cols`.
//!
//! Sums run in `4 · LANES` interleaved partial sums, which are then added pairwise: a sum of `n` terms tᵢ is off
//! by at most (n / (4 · LANES) + 8) · 2⁻²⁴ · Σ|tᵢ|. The order depends on the instruction set, and on nothing else.

mod broadcast;
mod norm;
pub(super) mod reduce;
mod softmax;
#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, Levels};
use crate::isa::{Isa, IsaId};

pub use broadcast::{AddRow, AddRowArgs};
pub use norm::{Affine, Norm, NormArgs};
pub use reduce::{Argmax, Dot, Reduce};
pub use softmax::{LogSoftmax, Softmax, SoftmaxArgs, Weighing};

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct RowKernels {
    /// Softmax of rows, with a factor and a causal limit.
    pub softmax: Softmax,
    /// Logarithm of the softmax of rows.
    pub log_softmax: LogSoftmax,
    /// LayerNorm of rows.
    pub layer_norm: Norm,
    /// RMSNorm of rows.
    pub rms_norm: Norm,
    /// One row added to every row.
    pub add_row: AddRow,
    /// Σ xᵢ.
    pub sum: Reduce,
    /// max xᵢ, −∞ of nothing; NaN where any is NaN.
    pub max: Reduce,
    /// Σ aᵢ·bᵢ.
    pub dot: Dot,
    /// Index of the largest element.
    pub argmax: Argmax,
}

impl RowKernels {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        levels::select(isa)
    }
}

impl Levels for RowKernels {
    fn at<I: Isa>() -> Self {
        Self {
            softmax: Softmax::at::<I>(),
            log_softmax: LogSoftmax::at::<I>(),
            layer_norm: Norm::layer::<I>(),
            rms_norm: Norm::rms::<I>(),
            add_row: AddRow::at::<I>(),
            sum: Reduce::sum::<I>(),
            max: Reduce::max::<I>(),
            dot: Dot::at::<I>(),
            argmax: Argmax::at::<I>(),
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    levels::all::<RowKernels>().into_iter().flat_map(|(_, set)| {
        [
            set.softmax.info,
            set.log_softmax.info,
            set.layer_norm.info,
            set.rms_norm.info,
            set.add_row.info,
            set.sum.info,
            set.max.info,
            set.dot.info,
            set.argmax.info,
        ]
    })
}

fn info<I: Isa>(op: &'static str) -> KernelInfo {
    KernelInfo { op, dtype: "f32", isa: I::ID, mr: 1, nr: 1 }
}
