//! Models that aren't GGUF files: folders of Hugging Face, and the files of llama2.c. Each is presented as the GGUF file
//! that it would be ([`Assembled`]): metadata and tensors under GGUF's names, data where they are.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::format::{ByteSource, FileSource};

mod assembled;
mod config;
mod families;
mod folder;
mod keys;
mod llama2c;
mod modules;
mod names;
mod pieces;
mod rope;
mod rules;
mod special;
mod tensors;
mod vocabulary;

pub use assembled::Assembled;
pub use llama2c::llama2c;

/// The model at a path as GGUF contents: a file is read as it is, a folder as one of Hugging Face, which has
/// `config.json`, `model.safetensors` (or several such files and their index) and `tokenizer.json`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) where something can't be read; for a folder also
/// [`Error::Format`](crate::Error::Format) where its files contradict themselves or each other, and
/// [`Error::Unsupported`](crate::Error::Unsupported) for a family that is unknown in this form.
pub fn open_source(path: &Path) -> Result<Arc<dyn ByteSource>> {
    match path.is_dir() {
        true => Ok(Arc::new(folder::open(path)?)),
        false => Ok(Arc::new(FileSource::open(path)?)),
    }
}
