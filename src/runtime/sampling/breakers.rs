//! Breakers of repetitions for DRY: sequences of tokens that end a repetition.
//! They come from texts, each of which may be spread over tokens in many ways.

use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Longest text of a breaker in bytes.
pub const MAX_BREAKER_BYTES: usize = 40;
/// Most tokens of a breaker behind its first one.
const MAX_TAIL: usize = 20;

/// Sequences of tokens that end a repetition. The default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakers {
    /// The first token of each sequence with the others, sorted.
    sequences: Vec<(u32, Vec<u32>)>,
}

impl Breakers {
    /// The texts that break repetitions by default, as in llama.cpp.
    pub const TEXTS: [&str; 4] = ["\n", ":", "\"", "*"];

    /// Breakers that are these sequences of tokens; empty ones are left out.
    pub fn new(sequences: &[&[u32]]) -> Self {
        let parts = sequences.iter().filter_map(|sequence| sequence.split_first());
        Self::sorted(parts.map(|(&head, tail)| (head, tail.to_vec())).collect())
    }

    /// The sequences of tokens of a vocabulary that hold one of the texts: each token with the whole text in it, and each
    /// token that ends with its beginning, before the tokens of the rest.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a text that is empty or has more than [`MAX_BREAKER_BYTES`]; errors of
    /// [`Tokenizer::encode`].
    pub fn from_texts(tokenizer: &Tokenizer, texts: &[&str]) -> Result<Self> {
        let mut sequences = Vec::new();
        for text in texts {
            if text.is_empty() || text.len() > MAX_BREAKER_BYTES {
                return Err(Error::invalid(format!(
                    "a breaker of {} bytes; it must have 1 to {MAX_BREAKER_BYTES}",
                    text.len()
                )));
            }
            let tails = tails(tokenizer, text)?;
            for token in 0..tokenizer.vocab_size() as u32 {
                let bytes = tokenizer.token_bytes(token)?;
                if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                    sequences.push((token, Vec::new()));
                    continue;
                }
                let begun = tails.iter().filter(|(begin, _)| bytes.ends_with(begin.as_bytes()));
                sequences.extend(begun.map(|(_, tail)| (token, tail.clone())));
            }
        }
        Ok(Self::sorted(sequences))
    }

    fn sorted(mut sequences: Vec<(u32, Vec<u32>)>) -> Self {
        sequences.sort_unstable();
        sequences.dedup();
        Self { sequences }
    }

    /// The first tokens of the sequences.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        self.sequences.iter().map(|(head, _)| *head)
    }

    /// The sequences that begin with a token.
    fn of(&self, head: u32) -> &[(u32, Vec<u32>)] {
        let begin = self.sequences.partition_point(|(other, _)| *other < head);
        let len = self.sequences[begin..].partition_point(|(other, _)| *other == head);
        &self.sequences[begin..begin + len]
    }

    /// Whether the token alone is a breaker.
    pub(super) fn is_one(&self, token: u32) -> bool {
        self.of(token).iter().any(|(_, tail)| tail.is_empty())
    }

    /// The number of tokens behind `head` in the longest breaker with which the text goes on; `None` without one.
    pub(super) fn longest_tail(&self, head: u32, later: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        let goes_on = |tail: &[u32]| {
            let mut later = later.clone();
            tail.iter().all(|&token| later.next() == Some(token))
        };
        let tails = self.of(head).iter().filter(|(_, tail)| goes_on(tail));
        tails.map(|(_, tail)| tail.len()).max()
    }
}

/// Each proper beginning of the text, with the tokens of the rest.
fn tails<'t>(tokenizer: &Tokenizer, text: &'t str) -> Result<Vec<(&'t str, Vec<u32>)>> {
    let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
    let tail = |rest: &str| {
        let mut tokens = tokenizer.encode(rest, false, false)?;
        tokens.truncate(MAX_TAIL);
        Ok(tokens)
    };
    cuts.map(|(begin, rest)| Ok((begin, tail(rest)?))).collect()
}
