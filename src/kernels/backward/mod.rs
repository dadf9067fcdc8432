//! Kernels of a training step beyond those of inference: optimizers, the gradient's norm, cross-entropy, what flows back
//! through norms and attention, sums over rows.
//!
//! Gradients of elementwise functions and gated pairs stand with their functions, in [`unary`](super::unary). The
//! gradient of a rotation is the rotation back: [`rope`](super::rope) with a table of negated sines.
//!
//! Contract: any alignment; strides in floats; nothing is written past a row's columns. Each kernel says along which axis
//! its work can be divided: such a division changes no bit. The order of additions depends on the instruction set, where
//! a sum runs along a vector's lanes, and on nothing else.

pub mod attention;
mod columns;
mod cross_entropy;
mod norm;
mod optimizer;
mod squares;
#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::table::{self, Entry};
use crate::isa::{Isa, IsaId};

pub use attention::AttentionBackward;
pub use columns::{ColumnSums, ColumnSumsArgs, NormGradient, NormGradientArgs};
pub use cross_entropy::{CrossEntropy, CrossEntropyArgs, NO_TARGET};
pub use norm::{NormBackward, NormBackwardArgs, NormRows};
pub use optimizer::{AdamW, AdamWArgs, AdamWConfig, AdamWStep, Sgd, SgdArgs, SgdStep};
pub use squares::{NORM_BLOCK, SumOfSquares, norm_of};

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct BackwardKernels {
    /// A step of AdamW.
    pub adamw: AdamW,
    /// A step of stochastic gradient descent.
    pub sgd: Sgd,
    /// Σ x², block by block.
    pub sum_of_squares: SumOfSquares,
    /// Cross-entropy with softmax, and its gradient.
    pub cross_entropy: CrossEntropy,
    /// Gradient of LayerNorm's input.
    pub layer_norm: NormBackward,
    /// Gradient of RMSNorm's input.
    pub rms_norm: NormBackward,
    /// Gradients of LayerNorm's gain and bias.
    pub layer_norm_gain: NormGradient,
    /// Gradient of RMSNorm's gain.
    pub rms_norm_gain: NormGradient,
    /// Rows summed up: the gradient of a bias.
    pub column_sums: ColumnSums,
    /// Gradients of attention's queries, keys and values.
    pub attention: AttentionBackward,
}

impl<I: Isa> At<I> for BackwardKernels {
    const KERNELS: Self = Self {
        adamw: AdamW::at::<I>(),
        sgd: Sgd::at::<I>(),
        sum_of_squares: SumOfSquares::at::<I>(),
        cross_entropy: CrossEntropy::at::<I>(),
        layer_norm: NormBackward::layer::<I>(),
        rms_norm: NormBackward::rms::<I>(),
        layer_norm_gain: NormGradient::layer::<I>(),
        rms_norm_gain: NormGradient::rms::<I>(),
        column_sums: ColumnSums::at::<I>(),
        attention: AttentionBackward::at::<I>(),
    };
}

static TABLE: [BackwardKernels; LEVELS] = levels::table();

impl Entry for BackwardKernels {
    fn isa(&self) -> IsaId {
        self.adamw.info.isa
    }
}

impl BackwardKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    fn infos(&self) -> [KernelInfo; 10] {
        let Self { adamw, sgd, sum_of_squares, cross_entropy, layer_norm, rms_norm, .. } = self;
        let Self { layer_norm_gain, rms_norm_gain, column_sums, attention, .. } = self;
        [
            adamw.info,
            sgd.info,
            sum_of_squares.info,
            cross_entropy.info,
            layer_norm.info,
            rms_norm.info,
            layer_norm_gain.info,
            rms_norm_gain.info,
            column_sums.info,
            attention.info,
        ]
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(BackwardKernels::infos)
}
