//! WordPiece (`tokenizer.ggml.model` = `"bert"`): words are cut out, and each is cut into the longest tokens from its
//! beginning. In GGUF files the first token of a word begins with U+2581, where BERT's own files mark all others with
//! `##`. A word that can't be cut into tokens is one unknown token.
//!
//! Words are those of llama.cpp, whose rules differ from BERT's in that a character that decomposes is replaced by the
//! first part of its decomposition (of a Hangul syllable, the initial consonant is left), and in that spacing marks are
//! removed too. `tokenizers` has the model, but takes quadratic time for long words.

use super::sentencepiece::SPACE;
use super::trie::Trie;
use super::{Scratch, WHAT};
use crate::memory::reserve::{reserve, reserve_text};
use crate::{Error, Result};
use regex::Regex;
use unicode_normalization_alignments::char::decompose_canonical;

/// Characters that are words of their own, as the inside of a class: punctuation, ASCII symbols, Chinese characters.
const ALONE: &str = r"\p{P}$+<=>^`|~\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}";

/// A WordPiece vocabulary.
pub(super) struct WordPiece {
    trie: Trie,
    unknown: u32,
    lowercase: bool,
    strip_accents: bool,
    /// Finds words.
    words: Regex,
    /// Finds characters without meaning within a word.
    ignored: Regex,
}

impl WordPiece {
    /// `trie` has the tokens that may be found in text.
    pub(super) fn new(trie: Trie, unknown: u32, lowercase: bool, strip_accents: bool) -> Result<Self> {
        let pattern = |text: &str| {
            Regex::new(text).map_err(|error| Error::Internal(format!("the pattern of words: {error}")))
        };
        let words = pattern(&format!(r"[{ALONE}]|[^\s{ALONE}]+"))?;
        let marks = if strip_accents { r"\p{M}" } else { "" };
        let ignored = pattern(&format!(r"[\x00\u{{FFFD}}\p{{Cc}}\p{{Cf}}\p{{Co}}{marks}]+"))?;
        Ok(Self { trie, unknown, lowercase, strip_accents, words, ignored })
    }

    /// The token with this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.trie.id(text)
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        let Scratch { text: simple, word, .. } = scratch;
        simple.clear();
        reserve_text(simple, text.len(), WHAT)?;
        for char in text.chars() {
            // The first part of a decomposition is never longer than three bytes more.
            reserve_text(simple, 8, WHAT)?;
            simple.push(if self.strip_accents { base(char) } else { char });
        }
        for found in self.words.find_iter(simple) {
            word.clear();
            reserve_text(word, SPACE.len() + 2 * found.len(), WHAT)?;
            word.push_str(SPACE);
            let mut done = 0;
            let found = found.as_str();
            for ignored in self.ignored.find_iter(found) {
                self.append(&found[done..ignored.start()], word);
                done = ignored.end();
            }
            self.append(&found[done..], word);
            if word.len() > SPACE.len() {
                self.pieces(word, ids)?;
            }
        }
        Ok(())
    }

    fn append(&self, part: &str, word: &mut String) {
        if self.lowercase {
            word.extend(part.chars().map(|char| char.to_lowercase().next().unwrap_or(char)));
        } else {
            word.push_str(part);
        }
    }

    /// Appends the tokens of one word.
    fn pieces(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        let (begun, mut at) = (ids.len(), 0);
        while at < word.len() {
            let mut longest = None;
            self.trie.prefixes(&word.as_bytes()[at..], |length, id| longest = Some((length, id)));
            reserve(ids, 1, WHAT)?;
            let Some((length, id)) = longest else {
                ids.truncate(begun);
                ids.push(self.unknown);
                return Ok(());
            };
            ids.push(id);
            at += length;
        }
        Ok(())
    }
}

/// The first character of the canonical decomposition.
fn base(char: char) -> char {
    let mut first = None;
    if char.is_ascii() {
        return char;
    }
    decompose_canonical(char, |part| {
        first.get_or_insert(part);
    });
    first.unwrap_or(char)
}
