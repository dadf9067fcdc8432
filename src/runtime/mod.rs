//! Running a model: a context owns cache, arena and workers; sampling and generation stand on it.

mod context;
mod exec;
#[cfg(test)]
mod exec_tests;
pub mod generate;
pub mod generation;
pub mod sampling;
pub mod stream;

pub use context::{Canceller, Context, ContextParams, Logits, MemoryEstimate};
