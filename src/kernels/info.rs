//! The description of a kernel: operation, element types, instruction set and register tile.
//! Reports print it; tests and benches loop over it.

use crate::isa::{Isa, IsaId};

/// The description of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Operation, e.g. `"matmul"`, `"gelu_tanh"`.
    pub op: &'static str,
    /// Element types, e.g. `"f32"`, `"q4_1"`.
    pub dtype: &'static str,
    /// Level that the kernel needs.
    pub isa: IsaId,
    /// Rows of the register tile; 1 for a kernel without one.
    pub mr: usize,
    /// Columns of the register tile, which is the width of a packed panel; 1 for a kernel without one.
    pub nr: usize,
}

impl KernelInfo {
    /// A kernel of level `I` without a register tile.
    pub(super) const fn of<I: Isa>(op: &'static str, dtype: &'static str) -> Self {
        Self { op, dtype, isa: I::ID, mr: 1, nr: 1 }
    }
}
