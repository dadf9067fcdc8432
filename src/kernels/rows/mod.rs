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
pub(super) mod softmax;
#[cfg(test)]
pub(super) mod tests;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::table::{self, Entry};
use crate::isa::{Isa, IsaId};

pub use broadcast::{AddRow, AddRowArgs};
pub use norm::{Affine, Norm, NormArgs};
pub use reduce::{Argmax, Dot, Reduce};
pub use softmax::{LogSoftmax, LogSoftmaxArgs, Softmax, SoftmaxArgs, Weighing};

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
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
    /// max xᵢ; −∞ for an empty row; NaN where any element is NaN.
    pub max: Reduce,
    /// Σ aᵢ·bᵢ.
    pub dot: Dot,
    /// Index of the largest element.
    pub argmax: Argmax,
}

impl<I: Isa> At<I> for RowKernels {
    const KERNELS: Self = Self {
        softmax: Softmax::at::<I>(),
        log_softmax: LogSoftmax::at::<I>(),
        layer_norm: Norm::layer::<I>(),
        rms_norm: Norm::rms::<I>(),
        add_row: AddRow::at::<I>(),
        sum: Reduce::sum::<I>(),
        max: Reduce::max::<I>(),
        dot: Dot::at::<I>(),
        argmax: Argmax::at::<I>(),
    };
}

static TABLE: [RowKernels; LEVELS] = levels::table();

impl Entry for RowKernels {
    fn isa(&self) -> IsaId {
        self.softmax.info.isa
    }
}

impl RowKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    fn infos(&self) -> [KernelInfo; 9] {
        let Self { softmax, log_softmax, layer_norm, rms_norm, add_row, sum, max, dot, argmax } = self;
        [
            softmax.info,
            log_softmax.info,
            layer_norm.info,
            rms_norm.info,
            add_row.info,
            sum.info,
            max.info,
            dot.info,
            argmax.info,
        ]
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(RowKernels::infos)
}
