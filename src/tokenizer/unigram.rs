//! Unigram (`tokenizer.ggml.model` = `"t5"`): of all ways to cut a text into tokens, the one with the best sum of scores.
//! A character without a token is the unknown token, at a score below all others; unknown tokens side by side are one.
//!
//! `tokenizers` has this model too, but finds control tokens and bytes in plain text, normalises in another way (see
//! [`super::charsmap`]), and keeps a hash map for each node of its tree: hundreds of bytes for each token's byte.

use super::charsmap::Charsmap;
use super::sentencepiece::SPACE;
use super::trie::Trie;
use super::{Scratch, WHAT};
use crate::Result;
use crate::memory::reserve::{filled, reserve};

/// By how much the unknown token's score is below the least of normal tokens.
pub(super) const UNKNOWN_PENALTY: f32 = 10.0;

/// The vocabulary of a Unigram model.
pub(super) struct Unigram {
    /// Normal, user-defined and unused tokens.
    pub(super) trie: Trie,
    /// Scores by id; those of user-defined tokens are 0.
    pub(super) scores: Vec<f32>,
    pub(super) unknown: u32,
    pub(super) unknown_score: f32,
    pub(super) charsmap: Option<Charsmap>,
    /// Whether a text begins with a space, also behind a special token.
    pub(super) add_space_prefix: bool,
    /// Whether spaces side by side are one, and those at the end of a text none.
    pub(super) remove_extra_whitespaces: bool,
}

/// The best way to cut the text up to some place.
#[derive(Clone)]
struct Best {
    score: f64,
    /// The last token, and where it begins.
    token: u32,
    start: u32,
}

impl Unigram {
    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<()> {
        self.normalise(text, &mut scratch.bytes)?;
        let text = &scratch.bytes;
        let best = self.best(text)?;
        let (mut at, begun) = (text.len(), ids.len());
        while at > 0 {
            let Best { token, start, .. } = best[at];
            if token != self.unknown || ids.len() == begun || ids.last() != Some(&self.unknown) {
                reserve(ids, 1, WHAT)?;
                ids.push(token);
            }
            at = start as usize;
        }
        ids[begun..].reverse();
        Ok(())
    }

    /// For each place in the text, the best way to get there.
    fn best(&self, text: &[u8]) -> Result<Vec<Best>> {
        let nowhere = Best { score: f64::NEG_INFINITY, token: self.unknown, start: 0 };
        let mut best = filled(nowhere, text.len() + 1, WHAT)?;
        best[0].score = 0.0;
        let mut start = 0;
        while start < text.len() {
            let char_len = char_len(text[start]).min(text.len() - start);
            let here = best[start].score;
            let mut has_token = false;
            let mut offer = |length: usize, token: u32, score: f32| {
                let (score, there) = (here + f64::from(score), &mut best[start + length]);
                if score > there.score {
                    *there = Best { score, token, start: start as u32 };
                }
            };
            self.trie.prefixes(&text[start..], |length, token| {
                has_token |= length == char_len;
                offer(length, token, self.scores[token as usize]);
            });
            if !has_token {
                offer(char_len, self.unknown, self.unknown_score);
            }
            start += char_len;
        }
        Ok(best)
    }

    /// Applies the file's rules, spells spaces as [`SPACE`], adds the first one and removes superfluous ones.
    fn normalise(&self, text: &str, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        let (mut at, mut in_word, mut prefixed) = (0, false, !self.add_space_prefix);
        while let Some(char) = text[at..].chars().next() {
            let mut kept = [0; 4];
            let rule =
                self.charsmap.as_ref().map(|rules| rules.longest(&text.as_bytes()[at..])).transpose()?;
            let (length, piece) = match rule.flatten() {
                // A rule may end within a character, where its file is no good.
                Some((length, piece)) if text.is_char_boundary(at + length) => (length, piece),
                _ => (char.len_utf8(), char.encode_utf8(&mut kept).as_bytes()),
            };
            reserve(out, SPACE.len() * (piece.len() + 1), WHAT)?;
            for &byte in piece {
                let begins = byte != b' ' && !in_word;
                in_word = byte != b' ';
                if begins && (!prefixed || self.remove_extra_whitespaces) {
                    out.extend_from_slice(SPACE.as_bytes());
                    prefixed = true;
                }
                if in_word {
                    out.push(byte);
                } else if !self.remove_extra_whitespaces {
                    out.extend_from_slice(SPACE.as_bytes());
                }
            }
            at += length;
        }
        Ok(())
    }
}

/// Bytes of the character that begins with this byte; 1 for a byte that begins none.
fn char_len(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    }
}
