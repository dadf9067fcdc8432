//! One choice of kernels for each family, at one instruction-set level.
//! A value that is picked when a model or context is made, since it decides how weights are packed.

use super::{attention, bmatmul, convert, matmul, qmatmul, rope, rows, transpose, unary};
use crate::error::{Error, Result};
use crate::isa::IsaId;
use once_cell::sync::OnceCell;

/// One kernel per family for one instruction set level. A value: copy it, hand it on.
#[derive(Clone, Copy)]
pub struct KernelSet {
    /// The level asked for; a family without a row at this level uses its next lower one.
    pub isa: IsaId,
    /// f32 × {f32, f16, bf16} matmul.
    pub matmul: matmul::MatmulKernels,
    /// Matmul with block-quantised weights, and quantisation of activations.
    pub qmatmul: qmatmul::QmatmulKernels,
    /// Matmul in bfloat16.
    pub bmatmul: &'static bmatmul::Kernel,
    /// Elementwise functions.
    pub unary: unary::UnaryKernels,
    /// Row-wise: softmax, norms.
    pub rows: rows::RowKernels,
    /// Rotary position embedding.
    pub rope: rope::RopeKernels,
    /// Conversions from and to 16-bit floats.
    pub convert: convert::ConvertKernels,
    /// Transposition.
    pub transpose: transpose::TransposeKernels,
    /// Attention over a packed key/value cache.
    pub attention: attention::AttentionKernels,
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
            unary: unary::UnaryKernels::select(isa),
            rows: rows::RowKernels::select(isa),
            rope: rope::RopeKernels::select(isa),
            convert: convert::ConvertKernels::select(isa),
            transpose: transpose::TransposeKernels::select(isa),
            attention: attention::AttentionKernels::select(isa),
        })
    }

    /// The set for the level that `SMALLMIND_ISA` names, or else the CPU's best; made once a process.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the variable holds no available level.
    pub fn default_set() -> Result<&'static KernelSet> {
        static DEFAULT: OnceCell<KernelSet> = OnceCell::new();
        DEFAULT.get_or_try_init(|| Self::from_variable(std::env::var_os(ISA_VARIABLE).as_deref()))
    }

    /// What [`ISA_VARIABLE`] asks for; unset and empty ask for the best.
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
