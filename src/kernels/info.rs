//! What a kernel says of itself: operation, element types, instruction set and register tile.
//! Reports print it; tests and benches loop over it.

use crate::isa::IsaId;

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
