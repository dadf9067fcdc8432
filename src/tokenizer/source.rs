//! What a tokenizer is built from: the vocabulary as a model file states it, in plain data.
//! The seam between file metadata and the tokenizer: tests write it by hand, files go through
//! [`TokenizerSource::from_metadata`]. Nothing here is checked yet; [`super::Tokenizer::new`] does that.

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
