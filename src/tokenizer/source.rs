//! The vocabulary of a model file as plain data, from which a tokenizer is built. It separates the tokenizer from file
//! metadata: [`TokenizerSource::from_metadata`] reads it from a file, and tests write it by hand.
//! [`super::Tokenizer::new`] checks it.

use super::VOCABULARY;
use crate::Result;
use crate::error::quoted;
use crate::format::gguf::{Metadata, Strings};
use crate::memory::reserve::{collected, copied, copied_text};

/// A vocabulary and its settings, unchecked.
#[derive(Clone, Default, PartialEq)]
pub struct TokenizerSource {
    /// Kind of tokenizer: `"gpt2"` is byte-level BPE (`tokenizer.ggml.model`).
    pub model: String,
    /// The rules by which text is cut into words before merging (`tokenizer.ggml.pre`); empty means `"default"`.
    pub pre: String,
    /// Text of each token, by id; for ordinary tokens in byte-level spelling.
    pub tokens: Vec<String>,
    /// GGUF's type of each token, or empty: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// Pairs `"left right"`, the best one first.
    pub merges: Vec<String>,
    /// The token at the beginning of a sequence.
    pub bos: Option<u32>,
    /// The token at the end of a sequence.
    pub eos: Option<u32>,
    /// The token at the end of a turn.
    pub eot: Option<u32>,
    /// The token at the end of a message (of a tool call).
    pub eom: Option<u32>,
    /// Whether `add_special` puts `bos` in front; `None` means the default of the pre-tokenizer.
    pub add_bos: Option<bool>,
    /// Whether `add_special` appends `eos`; `None` means no.
    pub add_eos: Option<bool>,
}

impl std::fmt::Debug for TokenizerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenizerSource")
            .field("model", &format_args!("{}", quoted(&self.model)))
            .field("pre", &format_args!("{}", quoted(&self.pre)))
            .field("tokens", &self.tokens.len())
            .field("merges", &self.merges.len())
            .finish_non_exhaustive()
    }
}

impl TokenizerSource {
    /// Reads the `tokenizer.ggml.*` keys. Absent keys leave a field empty; the vocabulary must not be absent.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) where the vocabulary is absent or a key has a value of another type;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let text = |key| copied_text(metadata.get_str(key)?.unwrap_or_default(), VOCABULARY);
        let id = |key| metadata.get_u32(key);
        let merges = metadata.get_str_array("tokenizer.ggml.merges")?;
        Ok(Self {
            model: text("tokenizer.ggml.model")?,
            pre: text("tokenizer.ggml.pre")?,
            tokens: texts(metadata.require_str_array("tokenizer.ggml.tokens")?)?,
            token_types: copied(
                metadata.get_i32_array("tokenizer.ggml.token_type")?.unwrap_or_default(),
                VOCABULARY,
            )?,
            merges: merges.map(texts).transpose()?.unwrap_or_default(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?,
        })
    }
}

fn texts(strings: &Strings) -> Result<Vec<String>> {
    collected(strings.iter().map(|text| copied_text(text, VOCABULARY)), VOCABULARY)
}
