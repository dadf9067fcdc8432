//! The checked vocabulary: the bytes of all tokens in one buffer, the kind of each token, and the tokens with a role.
//! The text of an ordinary token is byte-level spelling, which is converted to bytes here; the text of a special token
//! is its bytes.

use super::VOCABULARY;
use super::bytes::byte_of;
use super::source::TokenizerSource;
use crate::memory::reserve::{reserve, with_room};
use crate::{Error, Result};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text. GGUF's "unused", "byte" and undefined types count as normal in byte-level BPE.
    Normal,
    /// A token that steers the model and isn't text. It is only found in text on request.
    Control,
    /// A piece of text that is always found as a whole, regardless of merges.
    UserDefined,
}

impl Kind {
    /// The kind of a token with this GGUF type. "Unknown" tokens count as control tokens.
    fn from_gguf(number: i32) -> Self {
        match number {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            _ => Self::Normal,
        }
    }
}

/// Texts of tokens that end a generation, of several families. Files name at most `eos`, `eot` and `eom`, and often
/// wrong ones, so the text counts too, as in llama.cpp. In contrast to llama.cpp, a token that merging produces is
/// always text: in Qwen's vocabulary `</s>` is a tag of HTML.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// Separators of code-completion models, which also end a text.
const SEPARATOR_TEXTS: &[&str] = &[
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// The checked vocabulary. Ids are indices.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// Token `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    kinds: Vec<Kind>,
    /// Ascending ids.
    ends: Vec<u32>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
}

impl Vocabulary {
    /// Checks the tokens, their types, and the ids with a role.
    ///
    /// # Errors
    /// [`Error::Format`] for an empty or oversized vocabulary, a number of types that isn't that of tokens, and ids
    /// outside the vocabulary; [`Error::OutOfMemory`].
    pub(super) fn new(source: &TokenizerSource) -> Result<Self> {
        let n_tokens = source.tokens.len();
        if n_tokens == 0 {
            return Err(Error::format("the vocabulary is empty (tokenizer.ggml.tokens)"));
        }
        if !source.token_types.is_empty() && source.token_types.len() != n_tokens {
            return Err(Error::format(format!(
                "{} token types for {n_tokens} tokens (tokenizer.ggml.token_type)",
                source.token_types.len()
            )));
        }
        for (name, id) in [("bos", source.bos), ("eos", source.eos), ("eot", source.eot), ("eom", source.eom)]
        {
            if let Some(id) = id.filter(|&id| id as usize >= n_tokens) {
                return Err(Error::format(format!("{name} token {id} of a vocabulary of {n_tokens}")));
            }
        }
        let (offsets, bytes) = arena(source)?;
        let mut kinds = with_room(n_tokens, VOCABULARY)?;
        kinds.extend((0..n_tokens).map(|id| kind(source, id)));
        let mut ends = well_known_ends(source)?;
        for &id in &ends {
            kinds[id as usize] = Kind::Control;
        }
        reserve(&mut ends, 3, VOCABULARY)?;
        ends.extend([source.eos, source.eot, source.eom].into_iter().flatten());
        ends.sort_unstable();
        ends.dedup();
        Ok(Self { offsets, bytes, kinds, ends, bos: source.bos, eos: source.eos })
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let id = id as usize;
        let (from, to) = (*self.offsets.get(id)?, *self.offsets.get(id + 1)?);
        Some(&self.bytes[from as usize..to as usize])
    }

    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }
}

fn kind(source: &TokenizerSource, id: usize) -> Kind {
    source.token_types.get(id).map_or(Kind::Normal, |&number| Kind::from_gguf(number))
}

/// Ids of the tokens that end a generation because of their text.
fn well_known_ends(source: &TokenizerSource) -> Result<Vec<u32>> {
    let texts = END_TEXTS.iter().chain(SEPARATOR_TEXTS);
    let is_merged = |text: &str| source.merges.iter().any(|merge| makes(merge, text));
    let texts: Vec<&str> = texts.copied().filter(|text| !is_merged(text)).collect();
    let mut ids = Vec::new();
    for (id, _) in (0..).zip(&source.tokens).filter(|(_, text)| texts.contains(&text.as_str())) {
        reserve(&mut ids, 1, VOCABULARY)?;
        ids.push(id);
    }
    Ok(ids)
}

/// Whether a merge `"left right"` produces the token `text`.
fn makes(merge: &str, text: &str) -> bool {
    let pair = merge.split_once(' ').filter(|(left, right)| left.len() + right.len() == text.len());
    pair.is_some_and(|(left, right)| text.starts_with(left) && text.ends_with(right))
}

/// The bytes of all tokens, one after the other, and the offset of each.
fn arena(source: &TokenizerSource) -> Result<(Vec<u32>, Vec<u8>)> {
    let spelled: usize = source.tokens.iter().map(String::len).sum();
    if u32::try_from(spelled).is_err() || u32::try_from(source.tokens.len()).is_err() {
        return Err(Error::format("the vocabulary's texts exceed 4 GiB (tokenizer.ggml.tokens)"));
    }
    let mut offsets = with_room(source.tokens.len() + 1, VOCABULARY)?;
    let mut bytes = with_room(spelled, VOCABULARY)?;
    for (id, text) in source.tokens.iter().enumerate() {
        offsets.push(bytes.len() as u32);
        let start = bytes.len();
        let unspelled = kind(source, id) == Kind::Normal
            && text.chars().all(|char| byte_of(char).map(|byte| bytes.push(byte)).is_some());
        if !unspelled {
            bytes.truncate(start);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    offsets.push(bytes.len() as u32);
    Ok((offsets, bytes))
}
