//! Model files: sources of bytes ([`ByteSource`]) the GGUF format ([`gguf`]), and the headers of
//! safetensors files.
//! All contents are checked against the file before use; a contradiction is an error that names its place.
//! This module knows no model family: `model` interprets the names and shapes of tensors.

mod describe;
pub mod gguf;
mod os;
#[cfg(feature = "models")]
mod safetensors;
mod source;

pub use describe::{Description, TypeShare, describe};
#[cfg(feature = "models")]
pub use safetensors::{SafeTensor, safetensors};
pub use source::{ByteSource, BytesSource, FileSource, MapSource};
