//! What a tokenizer is built from: the vocabulary as a model file states it, in plain data.
//! The seam between file metadata and the tokenizer: tests write it by hand, files go through
//! [`TokenizerSource::from_metadata`]. Nothing here is checked yet; [`super::Tokenizer::new`] does that.

use crate::format::gguf::{Metadata, Strings};
use crate::{Error, Result};

/// A vocabulary and its settings, unchecked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenizerSource {
    /// Kind of tokenizer: `"gpt2"` is byte-level BPE (`tokenizer.ggml.model`).
    pub model: String,
    /// How text is cut into words before merging (`tokenizer.ggml.pre`); empty means `"default"`.
    pub pre: String,
    /// Text of each token, in byte-level spelling for ordinary tokens. Index is the id.
    pub tokens: Vec<String>,
    /// GGUF token types, one per token, or empty: 1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// Pairs `"left right"`, best first.
    pub merges: Vec<String>,
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message (of a tool call).
    pub eom: Option<u32>,
    /// Whether `add_special` puts `bos` in front; `None` leaves it to the pre-tokenizer's habit.
    pub add_bos: Option<bool>,
    /// Whether `add_special` appends `eos`; `None` is no.
    pub add_eos: Option<bool>,
}

impl TokenizerSource {
    /// Reads the `tokenizer.ggml.*` keys. Absent keys stay empty, but for the vocabulary.
    ///
    /// # Errors
    /// [`Error::Format`] where the vocabulary is absent or a key holds something of another type;
    /// [`Error::OutOfMemory`].
    pub fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let text = |key| Ok(metadata.get_str(key)?.unwrap_or_default().to_owned());
        let id = |key| metadata.get_u32(key);
        let merges = metadata.get_str_array("tokenizer.ggml.merges")?;
        Ok(Self {
            model: text("tokenizer.ggml.model")?,
            pre: text("tokenizer.ggml.pre")?,
            tokens: copied(metadata.require_str_array("tokenizer.ggml.tokens")?)?,
            token_types: metadata.get_i32_array("tokenizer.ggml.token_type")?.unwrap_or_default().to_vec(),
            merges: merges.map(copied).transpose()?.unwrap_or_default(),
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos: id("tokenizer.ggml.eos_token_id")?,
            eot: id("tokenizer.ggml.eot_token_id")?,
            eom: id("tokenizer.ggml.eom_token_id")?,
            add_bos: metadata.get_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: metadata.get_bool("tokenizer.ggml.add_eos_token")?,
        })
    }
}

fn copied(strings: &Strings) -> Result<Vec<String>> {
    let mut list = Vec::new();
    list.try_reserve_exact(strings.len()).map_err(|_| Error::OutOfMemory {
        bytes: strings.len().saturating_mul(size_of::<String>()),
        what: "the vocabulary",
    })?;
    list.extend(strings.iter().map(str::to_owned));
    Ok(list)
}
