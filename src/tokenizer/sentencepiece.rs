//! SentencePiece BPE (`tokenizer.ggml.model` = `"llama"`): the vocabulary has scores and no merges. Of all neighbours
//! whose texts together are a token, those with the best score are merged first, the leftmost of equal ones.
//!
//! `tokenizers` merges by a list of pairs with a rank each. Such a list can be derived from the scores, but not exactly:
//! tokens of equal score would be merged in the order of the list, not of the text, and a character without a token
//! could not be merged at all. So the loop is here; its time is linear in the text but for the queue's logarithm.

use super::{Scratch, WHAT};
use crate::Result;
use crate::memory::reserve::{reserve, with_room};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use tokenizers::models::bpe::Vocab;

/// Stands for a space in the texts of tokens.
pub(super) const SPACE: &str = "\u{2581}";

const NONE: u32 = u32::MAX;

/// The vocabulary of a SentencePiece BPE.
pub(super) struct SentencePiece {
    /// Normal and user-defined tokens by text: control tokens and bytes never come out of merging.
    pub(super) vocab: Vocab,
    /// Scores by id.
    pub(super) scores: Vec<f32>,
    /// The token of each byte.
    pub(super) bytes: [Option<u32>; 256],
    /// The token of a byte that has none.
    pub(super) unknown: Option<u32>,
    /// Whether a text begins with a space, also behind a special token.
    pub(super) add_space_prefix: bool,
}

/// A part of the text.
struct Symbol {
    start: u32,
    /// 0 once it was merged into the symbol before.
    len: u32,
    prev: u32,
    next: u32,
    token: u32,
}

/// Two neighbours that may be merged.
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Bytes of both when the pair was found; another sum means that one of them was merged since.
    len: u32,
    token: u32,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

impl SentencePiece {
    /// Appends the tokens of `text`. `begins`: it begins a text, or stands behind a special token.
    pub(super) fn encode(
        &self,
        text: &str,
        begins: bool,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let spelled = scratch.spaced(text, begins && self.add_space_prefix)?;
        let symbols = self.merged(spelled)?;
        let mut at = 0;
        while let Some(symbol) = symbols.get(at) {
            if symbol.token == NONE {
                let bytes = &spelled.as_bytes()[symbol.start as usize..][..symbol.len as usize];
                reserve(ids, bytes.len(), WHAT)?;
                ids.extend(bytes.iter().filter_map(|&byte| self.bytes[usize::from(byte)].or(self.unknown)));
            } else {
                reserve(ids, 1, WHAT)?;
                ids.push(symbol.token);
            }
            at = symbol.next as usize;
        }
        Ok(())
    }

    /// The characters of `text`, merged; the first one is the first of those that are left.
    fn merged(&self, text: &str) -> Result<Vec<Symbol>> {
        let mut symbols: Vec<Symbol> = with_room(text.chars().count(), WHAT)?;
        // A merge takes one pair and finds two at most.
        let mut pairs: Vec<Pair> = with_room(2 * symbols.capacity(), WHAT)?;
        for (start, char) in text.char_indices() {
            let at = symbols.len() as u32;
            let token = self.vocab.get(&text[start..start + char.len_utf8()]).copied().unwrap_or(NONE);
            let (start, len) = (start as u32, char.len_utf8() as u32);
            symbols.push(Symbol { start, len, prev: at.wrapping_sub(1), next: at + 1, token });
            pairs.extend(self.pair(text, &symbols, at.wrapping_sub(1), at));
        }
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let mut pairs = BinaryHeap::from(pairs);
        while let Some(pair) = pairs.pop() {
            let (left, right) = (&symbols[pair.left as usize], &symbols[pair.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            let (prev, next) = (left.prev, right.next);
            symbols[pair.right as usize].len = 0;
            let left = &mut symbols[pair.left as usize];
            (left.len, left.next, left.token) = (pair.len, next, pair.token);
            if let Some(next) = symbols.get_mut(next as usize) {
                next.prev = pair.left;
            }
            pairs.extend(self.pair(text, &symbols, prev, pair.left));
            pairs.extend(self.pair(text, &symbols, pair.left, next));
        }
        Ok(symbols)
    }

    /// The pair of two neighbours, if their texts together are a token.
    fn pair(&self, text: &str, symbols: &[Symbol], left: u32, right: u32) -> Option<Pair> {
        let (first, second) = (symbols.get(left as usize)?, symbols.get(right as usize)?);
        let len = first.len + second.len;
        let token = *self.vocab.get(&text[first.start as usize..][..len as usize])?;
        Some(Pair { score: self.scores[token as usize], left, right, len, token })
    }
}
