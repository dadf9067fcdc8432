//! A share of a matrix product, as the kernels of all product families take it.
//! Pointers and sizes only: the ops that divide a product make portions, and kernels compute them.

/// A share of `Y = X · Wᵀ (+ bias) (+ Y)`: all `m` rows of X against a run of packed weight panels.
///
/// X is `m × k`, row-major with `ldx` *bytes* between rows, in the representation that the family names
/// (f32 for `matmul`, quantised rows for `qmatmul`). W is N × K, packed ahead into panels of `nr` outputs.
/// Y is `m × n` f32, row-major with `ldy` floats between rows; only columns of panels
/// `panel_begin..panel_end` are written, and never a column ≥ `n`.
///
/// Each output is accumulated over K in index order with one accumulator, whatever `m` is: one row and
/// five hundred give the same bits, as does any split into portions.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
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
    /// Adds to Y (a residual) instead of overwriting it.
    pub accumulate: bool,
}
