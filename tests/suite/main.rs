//! Tests of the library from outside, a module a subject: `cargo test --test suite -- context::` runs one of them.
//! Those that want the process for themselves, or an allocator that counts, are in `alone` and `counted`.

#[path = "../common/mod.rs"]
mod common;

mod gguf;
#[cfg(target_arch = "x86_64")]
mod instructions;
mod onnx;
mod onnx_format;
mod readme;
mod threads;
mod threads_limit;
mod ulp;

#[cfg(feature = "models")]
mod adapter_training;
#[cfg(feature = "models")]
mod adapters;
#[cfg(feature = "models")]
mod cases;
#[cfg(feature = "models")]
mod chat;
#[cfg(feature = "models")]
mod context;
mod converted;
#[cfg(feature = "models")]
mod embed;
#[cfg(feature = "models")]
mod families;
#[cfg(feature = "models")]
mod families_bad;
#[cfg(feature = "models")]
mod folders;
#[cfg(feature = "models")]
mod gguf_files;
#[cfg(feature = "models")]
mod gpt;
#[cfg(feature = "models")]
mod llama2c;
#[cfg(feature = "models")]
mod mixed_types;
#[cfg(feature = "models")]
mod parity;
#[cfg(feature = "models")]
mod plans;
#[cfg(feature = "models")]
mod quantize;
#[cfg(feature = "models")]
mod speculation;
#[cfg(feature = "models")]
mod tokenizer;
#[cfg(feature = "models")]
mod training;
#[cfg(feature = "models")]
mod training_differences;
#[cfg(feature = "models")]
mod vocabularies;

#[cfg(feature = "capi")]
mod c_abi;
#[cfg(feature = "capi")]
mod header;
#[cfg(feature = "capi")]
mod oom;
#[cfg(feature = "capi")]
mod package;
#[cfg(feature = "capi")]
mod shipped;
