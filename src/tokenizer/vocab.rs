//! The checked vocabulary: the bytes of all tokens in one buffer, the kind of each token, and the tokens with a role.
//! The text of an ordinary token is spelled byte by byte or with U+2581 for spaces, which is undone here; the text of a
//! special token is its bytes.

use super::VOCABULARY;
use super::bytes::byte_of;
use super::sentencepiece::SPACE;
use super::source::TokenizerSource;
use crate::memory::reserve::{collected, reserve, with_room};
use crate::{Error, Result};

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of text. GGUF's "unused" and undefined types count as normal.
    Normal,
    /// A token that steers the model and isn't text. It is only found in text on request.
    Control,
    /// A piece of text that is always found as a whole, regardless of merges.
    UserDefined,
    /// One byte, spelled `<0x0A>`, for text without other tokens.
    Byte,
}

/// How the texts of ordinary tokens are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A character for each byte, as in GPT-2.
    Bytes,
    /// As they are, but with U+2581 for spaces.
    Spaced,
}

impl Kind {
    /// The kind of a token with this GGUF type. "Unknown" tokens count as control tokens.
    fn from_gguf(number: i32) -> Self {
        match number {
            2 | 3 => Self::Control,
            4 => Self::UserDefined,
            6 => Self::Byte,
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
    "<turn|>",
    "<|tool_response>",
    "[e~[",
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
    /// Checks the tokens, their types and scores, and the ids with a role.
    ///
    /// # Errors
    /// [`Error::Format`] for an empty or oversized vocabulary, a number of types or scores that isn't that of tokens, a
    /// score that is no number, and ids outside the vocabulary; [`Error::OutOfMemory`].
    pub(super) fn new(source: &TokenizerSource, spelling: Spelling) -> Result<Self> {
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
        if !source.scores.is_empty() && source.scores.len() != n_tokens {
            return Err(Error::format(format!(
                "{} scores for {n_tokens} tokens (tokenizer.ggml.scores)",
                source.scores.len()
            )));
        }
        if let Some(id) = source.scores.iter().position(|score| score.is_nan()) {
            return Err(Error::format(format!(
                "the score of token {id} is no number (tokenizer.ggml.scores)"
            )));
        }
        for (name, id) in source.roles() {
            if let Some(id) = id.filter(|&id| id as usize >= n_tokens) {
                return Err(Error::format(format!("{name} token {id} of a vocabulary of {n_tokens}")));
            }
        }
        let (offsets, bytes) = arena(source, spelling)?;
        let mut kinds = with_room(n_tokens, VOCABULARY)?;
        kinds.extend((0..n_tokens).map(|id| kind(source, id)));
        let mut ends = well_known_ends(source)?;
        for &id in &ends {
            kinds[id as usize] = Kind::Control;
        }
        let has = |wanted: &str| ends.iter().any(|&id| source.tokens[id as usize] == wanted);
        // gpt-oss and Solar end a message within an answer with `<|end|>`; in Gemma 4, `</s>` is a tag of HTML.
        let no_end = if has("<|call|>") && has("<|return|>") || has("<|calls|>") && has("<|flush|>") {
            "<|end|>"
        } else if has("<|tool_response>") {
            "</s>"
        } else {
            ""
        };
        if let Some(at) = ends.iter().position(|&id| source.tokens[id as usize] == no_end) {
            let id = ends.remove(at) as usize;
            kinds[id] = kind(source, id);
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

    /// The tokens of some kinds, if they have a text.
    pub(super) fn ids_of(&self, kinds: &[Kind]) -> Result<Vec<u32>> {
        let wanted = |&id: &u32| {
            kinds.contains(&self.kinds[id as usize]) && self.bytes(id).is_some_and(|text| !text.is_empty())
        };
        collected((0..self.len() as u32).filter(wanted).map(Ok), VOCABULARY)
    }

    /// Makes these tokens end a generation too.
    pub(super) fn add_ends(&mut self, ids: &[u32]) -> Result<()> {
        reserve(&mut self.ends, ids.len(), VOCABULARY)?;
        self.ends.extend_from_slice(ids);
        self.ends.sort_unstable();
        self.ends.dedup();
        Ok(())
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
    let known = |text: &str| END_TEXTS.iter().chain(SEPARATOR_TEXTS).any(|&end| end == text);
    let mut ids = Vec::new();
    for (id, text) in source.tokens.iter().enumerate().filter(|(_, text)| known(text)) {
        if !is_text(source, id, text) {
            reserve(&mut ids, 1, VOCABULARY)?;
            ids.push(id as u32);
        }
    }
    Ok(ids)
}

/// Whether encoding makes this token of plain text.
fn is_text(source: &TokenizerSource, id: usize, text: &str) -> bool {
    let is_token = |part: &str| source.tokens.iter().any(|token| token == part);
    match source.model.as_str() {
        "gpt2" | "gemma4" => source.merges.iter().any(|merge| makes(merge, text)),
        _ if kind(source, id) != Kind::Normal => false,
        "llama" => text.char_indices().skip(1).any(|(at, _)| is_token(&text[..at]) && is_token(&text[at..])),
        _ => true,
    }
}

/// Whether a merge `"left right"` produces the token `text`.
fn makes(merge: &str, text: &str) -> bool {
    let pair = merge.split_once(' ').filter(|(left, right)| left.len() + right.len() == text.len());
    pair.is_some_and(|(left, right)| text.starts_with(left) && text.ends_with(right))
}

/// The bytes of all tokens, one after the other, and the offset of each.
fn arena(source: &TokenizerSource, spelling: Spelling) -> Result<(Vec<u32>, Vec<u8>)> {
    let spelled: usize = source.tokens.iter().map(String::len).sum();
    if u32::try_from(spelled).is_err() || u32::try_from(source.tokens.len()).is_err() {
        return Err(Error::format("the vocabulary's texts exceed 4 GiB (tokenizer.ggml.tokens)"));
    }
    let mut offsets = with_room(source.tokens.len() + 1, VOCABULARY)?;
    let mut bytes = with_room(spelled, VOCABULARY)?;
    for (id, text) in source.tokens.iter().enumerate() {
        offsets.push(bytes.len() as u32);
        let start = bytes.len();
        match (spelling, kind(source, id)) {
            (_, Kind::Control | Kind::UserDefined) => bytes.extend_from_slice(text.as_bytes()),
            (Spelling::Spaced, Kind::Byte) => match byte_named(text) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(text.as_bytes()),
            },
            (Spelling::Spaced, Kind::Normal) => {
                for (i, part) in text.split(SPACE).enumerate() {
                    bytes.extend_from_slice(if i > 0 { b" " } else { b"" });
                    bytes.extend_from_slice(part.as_bytes());
                }
            }
            (Spelling::Bytes, Kind::Normal | Kind::Byte) => {
                if !text.chars().all(|char| byte_of(char).map(|byte| bytes.push(byte)).is_some()) {
                    bytes.truncate(start);
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
    offsets.push(bytes.len() as u32);
    Ok((offsets, bytes))
}

/// The byte that a text such as `<0x0A>` names.
pub(super) fn byte_named(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>').filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}
