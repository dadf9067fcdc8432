//! Model files: sources of bytes ([`ByteSource`]) and the GGUF format ([`gguf`]).
//! All contents are checked against the file before use; a contradiction is an error that names its place.
//! This module knows no model family: `model` interprets the names and shapes of tensors.

mod describe;
pub mod gguf;
mod os;
mod source;

pub use describe::{Description, TypeShare, describe};
pub use source::{ByteSource, BytesSource, FileSource, MapSource};
