//! Stateless arithmetic on slices. Each family has one table of kernels, generic over the instruction set.
//! A [`KernelSet`] holds one choice per family; it is a value, picked when a model or context is made.
//! Kernels never allocate, spawn, log or profile. `reference` is the same maths in plain f64 loops.

pub mod attention;
pub mod backward;
pub mod bmatmul;
pub mod convert;
mod info;
mod levels;
pub mod matmul;
mod portion;
pub mod qmatmul;
pub mod recurrence;
pub mod reference;
pub mod rope;
mod routine;
pub mod rows;
mod set;
mod table;
pub mod transpose;
pub mod unary;
mod vectors;

pub use info::KernelInfo;
pub use portion::Portion;
pub use routine::Kernel;
pub use set::{ISA_VARIABLE, KernelSet};

/// Every kernel of this build, family by family. Not all run on this CPU: see
/// [`IsaId::is_available`](crate::isa::IsaId::is_available).
pub fn enumerate() -> Vec<KernelInfo> {
    let products =
        matmul::kernels().chain(attention::kernels()).chain(qmatmul::kernels()).chain(bmatmul::kernels());
    let small = unary::kernels().chain(rows::kernels()).chain(rope::kernels());
    let moves = convert::kernels().chain(transpose::kernels());
    products.chain(small).chain(recurrence::kernels()).chain(moves).chain(backward::kernels()).collect()
}
