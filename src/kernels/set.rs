//! One choice of kernels for each family, at one instruction-set level.
//! A value that is picked when a model or context is made, since it decides how weights are packed.

use super::attention::AttentionKernels;
use super::backward::BackwardKernels;
use super::convert::ConvertKernels;
use super::recurrence::RecurrenceKernels;
use super::rope::RopeKernels;
use super::rows::RowKernels;
use super::transpose::TransposeKernels;
use super::unary::UnaryKernels;
use super::{bmatmul, matmul, qmatmul};
use crate::error::{Error, Result};
use crate::isa::IsaId;
use once_cell::sync::OnceCell;

/// The kernels of each family for one instruction-set level: a value to copy and to hand on.
///
/// Only [`KernelSet::select`] makes one, for a level that this CPU has, out of kernels that run at it. So a set is the
/// proof that its kernels run here.
#[derive(Clone, Copy)]
pub struct KernelSet {
    pub(crate) isa: IsaId,
    pub(crate) matmul: matmul::MatmulKernels,
    pub(crate) qmatmul: qmatmul::QmatmulKernels,
    pub(crate) bmatmul: &'static bmatmul::Kernel,
    pub(crate) unary: UnaryKernels,
    pub(crate) rows: RowKernels,
    pub(crate) rope: RopeKernels,
    pub(crate) convert: ConvertKernels,
    pub(crate) transpose: TransposeKernels,
    pub(crate) attention: AttentionKernels,
    pub(crate) recurrence: RecurrenceKernels,
    pub(crate) backward: BackwardKernels,
}

impl std::fmt::Debug for KernelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSet").field("isa", &self.isa).finish_non_exhaustive()
    }
}

/// Names an instruction-set level for the default set, instead of the best one.
pub const ISA_VARIABLE: &str = "SMALLMIND_ISA";

impl KernelSet {
    /// The best kernel of each family that runs at `isa`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where this CPU lacks the level; it lists the available ones.
    pub fn select(isa: IsaId) -> Result<KernelSet> {
        let isa = IsaId::parse(isa.name())?;
        Ok(KernelSet {
            isa,
            matmul: matmul::MatmulKernels::select(isa),
            qmatmul: qmatmul::QmatmulKernels::select(isa),
            bmatmul: bmatmul::Kernel::select(isa),
            unary: UnaryKernels::select(isa),
            rows: RowKernels::select(isa),
            rope: RopeKernels::select(isa),
            convert: ConvertKernels::select(isa),
            transpose: TransposeKernels::select(isa),
            attention: AttentionKernels::select(isa),
            recurrence: RecurrenceKernels::select(isa),
            backward: BackwardKernels::select(isa),
        })
    }

    /// The level that was asked for; a family without kernels at this level has those of its next lower one.
    pub fn isa(&self) -> IsaId {
        self.isa
    }

    /// f32 × {f32, f16, bf16} matmul.
    pub fn matmul(&self) -> &matmul::MatmulKernels {
        &self.matmul
    }

    /// Matmul with block-quantised weights, and quantisation of activations.
    pub fn qmatmul(&self) -> &qmatmul::QmatmulKernels {
        &self.qmatmul
    }

    /// Matmul in bfloat16.
    pub fn bmatmul(&self) -> &'static bmatmul::Kernel {
        self.bmatmul
    }

    /// Elementwise functions.
    pub fn unary(&self) -> &UnaryKernels {
        &self.unary
    }

    /// Row-wise kernels: softmax, norms, reductions.
    pub fn rows(&self) -> &RowKernels {
        &self.rows
    }

    /// Rotary position embedding.
    pub fn rope(&self) -> &RopeKernels {
        &self.rope
    }

    /// Conversions from and to 16-bit floats.
    pub fn convert(&self) -> &ConvertKernels {
        &self.convert
    }

    /// Transposition.
    pub fn transpose(&self) -> &TransposeKernels {
        &self.transpose
    }

    /// Attention over a packed key/value cache.
    pub fn attention(&self) -> &AttentionKernels {
        &self.attention
    }

    /// Convolutions and recurrences over the tokens of a sequence.
    pub fn recurrence(&self) -> &RecurrenceKernels {
        &self.recurrence
    }

    /// Optimizers, losses, and gradients of norms and attention.
    pub fn backward(&self) -> &BackwardKernels {
        &self.backward
    }

    /// The set for the level that `SMALLMIND_ISA` names, or else the CPU's best; made once a process.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the variable holds no available level.
    pub fn default_set() -> Result<&'static KernelSet> {
        static DEFAULT: OnceCell<KernelSet> = OnceCell::new();
        DEFAULT.get_or_try_init(|| Self::from_variable(std::env::var_os(ISA_VARIABLE).as_deref()))
    }

    /// The set that the value of [`ISA_VARIABLE`] names; the best one where it is unset or empty.
    fn from_variable(value: Option<&std::ffi::OsStr>) -> Result<KernelSet> {
        match value {
            None => Self::select(IsaId::detect()),
            Some(name) if name.is_empty() => Self::select(IsaId::detect()),
            Some(name) => IsaId::parse(&name.to_string_lossy())
                .and_then(Self::select)
                .map_err(|error| Error::invalid(format!("{ISA_VARIABLE}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    #[test]
    fn every_available_level_has_a_set() {
        for isa in IsaId::available() {
            assert_eq!(KernelSet::select(isa).unwrap().isa, isa);
        }
    }

    /// Whatever level is asked for, a family gives kernels that this CPU has and that the level includes.
    #[test]
    fn no_family_gives_a_kernel_that_this_cpu_lacks() {
        for isa in IsaId::ALL {
            let given = [
                UnaryKernels::select(isa).exp.info,
                RowKernels::select(isa).softmax.info,
                RopeKernels::select(isa).halves.info,
                ConvertKernels::select(isa).to_f16.info,
                TransposeKernels::select(isa).f32.info,
                AttentionKernels::select(isa).q8_0.info,
                RecurrenceKernels::select(isa).conv.info,
                BackwardKernels::select(isa).adamw.info,
            ];
            for info in given {
                assert!(info.isa.is_available() && isa.includes(info.isa), "{isa:?} gives {info:?}");
            }
            assert_eq!(KernelSet::select(isa).is_ok(), isa.is_available());
        }
    }

    #[test]
    fn the_variable_picks_a_level_or_says_what_there_is() {
        assert_eq!(KernelSet::from_variable(None).unwrap().isa, IsaId::detect());
        assert_eq!(KernelSet::from_variable(Some(OsStr::new(""))).unwrap().isa, IsaId::detect());
        assert_eq!(KernelSet::from_variable(Some(OsStr::new("scalar"))).unwrap().isa, IsaId::Scalar);
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        for wrong in ["sse9", foreign, " scalar"] {
            let error = KernelSet::from_variable(Some(OsStr::new(wrong))).err().unwrap().to_string();
            assert!(
                error.contains(ISA_VARIABLE) && error.contains(wrong) && error.contains("scalar"),
                "{error}"
            );
            assert!(!error.contains('\n'));
        }
    }
}
