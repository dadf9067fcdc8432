//! Running a model: a context owns cache, arena and workers; sampling and generation stand on it.

mod context;
mod exec;
pub mod generate;
pub mod sampling;
pub mod stream;

pub use context::{Context, ContextParams, Logits, MemoryEstimate};
