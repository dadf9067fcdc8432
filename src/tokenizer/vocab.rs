//! The vocabulary, checked: bytes of each token in one arena, its kind, and the tokens with a role.
//! An ordinary token's text is byte-level spelling and is undone here; a special token's text is itself.

use super::bytes::byte_of;
use super::source::TokenizerSource;
use crate::{Error, Result};
use std::collections::HashSet;

/// What a token is for, by GGUF's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text (also GGUF's "unused", "byte" and undefined types, which byte-level BPE treats so).
    Normal,
    /// Steers the model, is no text: only found in text when asked for.
    Control,
    /// A piece of text that is always found whole, whatever the merges say.
    UserDefined,
}

impl Kind {
    /// "Unknown" tokens behave as control tokens do.
    fn from_gguf(number: i32) -> Self {
        match number {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            _ => Self::Normal,
        }
    }
}

/// Texts of tokens after which a model has nothing more to say, by family. Files name at most `eos`, `eot`
/// and `eom`, and often name them wrongly, so the text decides too, as in llama.cpp. Other than there, a
/// token that merging makes is text whatever it spells: in Qwen's vocabulary `</s>` is a tag of HTML.
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
    /// Checks what can be checked token by token.
    ///
    /// # Errors
    /// [`Error::Format`] for an empty or oversized vocabulary, types that don't match it in number, and ids
    /// outside it; [`Error::OutOfMemory`].
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
        let mut kinds = reserved(n_tokens)?;
        kinds.extend((0..n_tokens).map(|id| kind(source, id)));
        let mut ends = well_known_ends(source);
        for &id in &ends {
            kinds[id as usize] = Kind::Control;
        }
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

/// Ids of the tokens that end a generation by their text.
fn well_known_ends(source: &TokenizerSource) -> Vec<u32> {
    let ends = |text: &str| END_TEXTS.contains(&text) || SEPARATOR_TEXTS.contains(&text);
    let merged: HashSet<String> =
        source.merges.iter().map(|merge| merge.replacen(' ', "", 1)).filter(|text| ends(text)).collect();
    let by_text = (0..).zip(&source.tokens).filter(|(_, text)| ends(text) && !merged.contains(*text));
    by_text.map(|(id, _)| id).collect()
}

/// Bytes of all tokens on end, and where each begins.
fn arena(source: &TokenizerSource) -> Result<(Vec<u32>, Vec<u8>)> {
    let spelled: usize = source.tokens.iter().map(String::len).sum();
    if u32::try_from(spelled).is_err() || u32::try_from(source.tokens.len()).is_err() {
        return Err(Error::format("the vocabulary's texts exceed 4 GiB (tokenizer.ggml.tokens)"));
    }
    let mut offsets = reserved(source.tokens.len() + 1)?;
    let mut bytes = reserved(spelled)?;
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

fn reserved<T>(capacity: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory {
        bytes: capacity.saturating_mul(size_of::<T>()),
        what: "the vocabulary",
    })?;
    Ok(list)
}
