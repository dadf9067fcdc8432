//! Small transformers on a CPU, as fast as the CPU can go.
//!
//! The house has eight floors; a module uses only what stands below it: `ffi` · `runtime`, `report` · `model` ·
//! `kv`, `tokenizer`, `chat` · `ops`, `format` · `kernels` · `quant`, `memory`, `threads` · `isa`, `profile`.
//! See `docs/DESIGN.md`.

#[cfg(feature = "models")]
pub mod chat;
pub mod error;
#[cfg(feature = "capi")]
pub mod ffi;
pub mod format;
pub mod isa;
pub mod kernels;
#[cfg(feature = "models")]
pub mod kv;
pub mod memory;
#[cfg(feature = "models")]
pub mod model;
pub mod ops;
pub mod profile;
pub mod quant;
#[cfg(feature = "report")]
pub mod report;
#[cfg(feature = "models")]
pub mod runtime;
#[cfg(test)]
mod testing;
pub mod threads;
#[cfg(feature = "models")]
mod time;
#[cfg(feature = "models")]
pub mod tokenizer;

pub use error::{Error, Result};
