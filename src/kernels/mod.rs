//! Stateless arithmetic on slices: every kernel is a row of its family's table, generic over the ISA.
//! A [`KernelSet`] holds one choice per family; it is a value, picked when a model or context is made.
//! Kernels never allocate, spawn, log or profile. `reference` is the same maths in plain f64 loops.

use crate::error::{Error, Result};
use crate::isa::IsaId;
use once_cell::sync::OnceCell;

pub mod attention;
pub mod bmatmul;
pub mod convert;
mod levels;
pub mod matmul;
pub mod qmatmul;
pub mod reference;
pub mod rope;
pub mod rows;
#[allow(dead_code)]
mod table;
pub mod transpose;
pub mod unary;
mod vectors;

/// What a row of a kernel table says of itself; printed by reports, looped over by tests and benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Operation, e.g. `"matmul"`, `"gelu_tanh"`.
    pub op: &'static str,
    /// Element types, e.g. `"f32"`, `"q4_1"`.
    pub dtype: &'static str,
    /// Level it needs.
    pub isa: IsaId,
    /// Register tile rows (1 where it has no meaning).
    pub mr: usize,
    /// Register tile columns, which is the width of a packed panel (1 where it has no meaning).
    pub nr: usize,
}

/// A share of `Y = X · Wᵀ (+ bias) (+ Y)`: all `m` rows of X against a run of packed weight panels.
///
/// X is `m × k`, row-major with `ldx` *bytes* between rows, in the representation the family names
/// (f32 for `matmul`, quantised rows for `qmatmul`). W is N × K, packed ahead into panels of `nr` outputs.
/// Y is `m × n` f32, row-major with `ldy` floats between rows; only columns of panels
/// `panel_begin..panel_end` are written, and never a column ≥ `n`.
///
/// Each output is accumulated over K in index order with one accumulator, whatever `m` is: one row and
/// five hundred give the same bits, as does any split into portions.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// First row of X.
    pub x: *const u8,
    /// Bytes between rows of X.
    pub ldx: usize,
    /// Rows of X and Y in this portion.
    pub m: usize,
    /// Length of the sums.
    pub k: usize,
    /// Packed weights, panel 0.
    pub w: *const u8,
    /// First panel to compute.
    pub panel_begin: usize,
    /// One past the last panel to compute.
    pub panel_end: usize,
    /// Columns of Y (outputs of the layer).
    pub n: usize,
    /// Row 0, column 0 of Y.
    pub y: *mut f32,
    /// Floats between rows of Y.
    pub ldy: usize,
    /// `n` floats added to each row, or null.
    pub bias: *const f32,
    /// Adds to what Y holds (a residual) instead of overwriting it.
    pub accumulate: bool,
}

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
    pub unary: unary::Set,
    /// Row-wise: softmax, norms.
    pub rows: rows::Set,
    /// Rotary position embedding.
    pub rope: rope::Set,
    /// Conversions from and to 16-bit floats.
    pub convert: convert::Set,
    /// Transposition.
    pub transpose: transpose::Set,
    /// Attention over a packed key/value cache.
    pub attention: attention::Set,
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
            unary: unary::Set::select(isa),
            rows: rows::Set::select(isa),
            rope: rope::Set::select(isa),
            convert: convert::Set::select(isa),
            transpose: transpose::Set::select(isa),
            attention: attention::Set::select(isa),
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

/// Every kernel of this build, family by family; not all run on this CPU (see [`IsaId::is_available`]).
pub fn enumerate() -> Vec<KernelInfo> {
    let products = matmul::kernels().chain(attention::rows());
    let products = products.chain(qmatmul::kernels()).chain(bmatmul::kernels());
    let small = unary::rows().chain(rows::rows()).chain(rope::rows());
    products.chain(small).chain(convert::rows()).chain(transpose::rows()).collect()
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
