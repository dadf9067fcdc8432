//! Stateless arithmetic on slices: every kernel is a row of its family's table, generic over the ISA.
//! A [`KernelSet`] holds one choice per family; it is a value, picked when a model or context is made.
//! Kernels never allocate, spawn, log or profile. `reference` is the same maths in plain f64 loops.

use crate::isa::IsaId;

pub mod attention;
pub mod matmul;
pub mod qmatmul;
pub mod reference;
pub mod rope;
pub mod rows;
pub mod unary;

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
    pub matmul: matmul::Set,
    /// Matmul with block-quantised weights, and quantisation of activations.
    pub qmatmul: qmatmul::Set,
    /// Elementwise functions.
    pub unary: unary::Set,
    /// Row-wise: softmax, norms.
    pub rows: rows::Set,
    /// Rotary position embedding.
    pub rope: rope::Set,
    /// Attention over a packed key/value cache.
    pub attention: attention::Set,
}
