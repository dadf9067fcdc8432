//! Small transformers on a CPU, as fast as the CPU can go.
//!
//! The house has eight floors; a module uses only what stands below it: `ffi` · `runtime`, `report` · `model` ·
//! `kv`, `tokenizer`, `chat` · `ops`, `format` · `kernels` · `quant`, `memory`, `threads` · `isa`, `profile`.
//! See `docs/DESIGN.md`.

pub mod chat;
pub mod error;
pub mod ffi;
pub mod format;
pub mod isa;
pub mod kernels;
pub mod kv;
pub mod memory;
pub mod model;
pub mod ops;
pub mod profile;
pub mod quant;
pub mod report;
pub mod runtime;
pub mod threads;
pub mod tokenizer;

pub use error::{Error, Result};
