//! BPE by merges (`tokenizer.ggml.model` = `"gpt2"` or `"gemma4"`): text is cut into words by the family's rules, and the
//! `tokenizers` crate merges the characters of each word. Tokens are spelled in one of two ways: in GPT-2's, a character
//! for each byte ([`super::bytes`]); in Gemma 4's, as they are, but for U+2581 in place of spaces.

use super::split::Splitter;
use super::{Scratch, VOCABULARY, WHAT, bytes};
use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{collected, copied_text, held, reserve, reserve_text};
use std::collections::HashSet;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab};

/// Most memory that merging takes, in bytes for each byte of a word. A byte is spelled with at most two bytes of text,
/// and has a symbol (32 bytes), a queue entry (16, doubled by growth), and a token with its own text.
const MERGE_BYTES_PER_BYTE: usize = 200;

/// A BPE vocabulary with its merges.
pub(super) struct Bpe {
    pub(super) splitter: Splitter,
    model: BPE,
    /// Whether each byte has a token, in GPT-2's spelling.
    has_byte: [bool; 256],
}

impl Bpe {
    /// `ordinary` has the tokens that merging may produce; `merges` are `"left right"`, the best one first.
    ///
    /// # Errors
    /// [`Error::Format`] for a merge that is no pair of tokens or occurs twice; [`Error::OutOfMemory`].
    pub(super) fn new(splitter: Splitter, ordinary: Vocab, merges: &[String]) -> Result<Self> {
        let merges = pairs(merges)?;
        let has_byte = bytes::CHARS.map(|char| ordinary.contains_key(char.encode_utf8(&mut [0; 4]) as &str));
        let model = BPE::builder()
            .vocab_and_merges(ordinary, merges)
            .ignore_merges(splitter.whole_words)
            .byte_fallback(splitter.spaced)
            .build()
            .map_err(|error| {
                Error::format(format!("tokenizer.ggml.merges: {}", quoted(&error.to_string())))
            })?;
        Ok(Self { splitter, model, has_byte })
    }

    /// The token with this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text)
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        if self.splitter.spaced {
            let spaced = scratch.spaced(text, false)?;
            return self.splitter.split(spaced, &mut |word| {
                // Line breaks are merged by no rule.
                let line = word.starts_with('\n').then(|| self.model.token_to_id(word)).flatten();
                match line.filter(|_| self.splitter.whole_lines) {
                    Some(id) => super::push(ids, id),
                    None => self.merge(word, ids),
                }
            });
        }
        let spelled = &mut scratch.text;
        self.splitter.split(text, &mut |word| {
            // A byte without a token is dropped, but nothing is merged across it.
            for part in word.as_bytes().split(|&byte| !self.has_byte[usize::from(byte)]) {
                spelled.clear();
                reserve_text(spelled, 2 * part.len(), WHAT)?;
                bytes::spell(part, spelled);
                self.merge(spelled, ids)?;
            }
            Ok(())
        })
    }

    /// Appends the tokens of one word, as it is spelled.
    fn merge(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        const LONG: usize = 1 << 12;
        // `tokenizers` allocates infallibly: memory for a long word is held ready.
        let _held = if word.len() > LONG { held(word.len() * MERGE_BYTES_PER_BYTE, WHAT)? } else { None };
        let tokens =
            self.model.tokenize(word).map_err(|error| Error::Internal(format!("merging: {error}")))?;
        reserve(ids, tokens.len(), WHAT)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

/// Merges as pairs, in order.
fn pairs(lines: &[String]) -> Result<Merges> {
    let mut seen = HashSet::with_capacity(lines.len());
    let pairs = lines.iter().enumerate().map(|(rank, line)| match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            if seen.insert(line.as_str()) {
                Ok((copied_text(left, VOCABULARY)?, copied_text(right, VOCABULARY)?))
            } else {
                Err(Error::format(format!("merge {rank} occurs twice: {}", quoted(line))))
            }
        }
        _ => Err(Error::format(format!("merge {rank} is no pair: {}", quoted(line)))),
    });
    collected(pairs, VOCABULARY)
}
