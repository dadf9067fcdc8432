//! The bytes of a small model that writes short stories for children. It is a package of its own, so that only programs
//! that have smallmind's feature `builtin` take its 4 MB. README.md is the model's card.
#![no_std]

/// A GGUF file: a Llama with its vocabulary.
pub static MODEL: &[u8] = include_bytes!("../stories.gguf");
