//! Files that hold models: where the bytes come from ([`ByteSource`]) and what they say ([`gguf`]).
//! Everything read is checked against the file before it is used; a file that lies gets a named error.
//! No model family is known here: names and shapes are facts to report, their meaning is `model`'s.

mod describe;
pub mod gguf;
mod os;
mod source;

pub use describe::{Description, TypeShare, describe};
pub use source::{ByteSource, BytesSource, FileSource, MapSource};
