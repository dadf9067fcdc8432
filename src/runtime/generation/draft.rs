//! Speculation: a drafter guesses the tokens that come next, and one pass of the model computes the logits behind all of
//! them. Each token is still picked from the model's own logits, so a generation's tokens are those that it has without a
//! drafter, to the bit; a right guess saves a pass.

use std::borrow::BorrowMut;
use std::fmt;

use super::super::context::{Context, Logits};
use crate::memory::reserve::reserve;
use crate::model::Model;
use crate::ops::argmax;
use crate::{Error, Result};

/// Most tokens that are guessed at a time: more would be a pass of its own.
pub const MAX_DRAFT: usize = 64;

/// Guesses tokens.
pub trait Drafter {
    /// Appends guesses of the tokens that follow `tokens`, at most `most`, to `draft`. Tokens outside the vocabulary are
    /// no guesses, and end the draft.
    ///
    /// # Errors
    /// The drafter's own; they end the generation.
    fn propose(&mut self, tokens: &[u32], most: usize, draft: &mut Vec<u32>) -> Result<()>;
}

/// A drafter, and how far it guesses.
pub struct Drafting<'a> {
    pub(super) drafter: &'a mut dyn Drafter,
    pub(super) most: usize,
}

impl fmt::Debug for Drafting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drafting").field("most", &self.most).finish_non_exhaustive()
    }
}

impl<'a> Drafting<'a> {
    /// Guesses of at most `most` tokens at a time. The context's `n_output` is to be `most + 1`; with less, fewer are
    /// guessed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for none, or more than [`MAX_DRAFT`].
    pub fn new(drafter: &'a mut dyn Drafter, most: usize) -> Result<Self> {
        if !(1..=MAX_DRAFT).contains(&most) {
            return Err(Error::invalid(format!("a draft of {most} tokens; expected 1 to {MAX_DRAFT}")));
        }
        Ok(Drafting { drafter, most })
    }
}

/// Guesses that a text repeats itself: what followed the last tokens where they stood before. It needs no model, and does
/// well where an answer quotes its prompt.
#[derive(Clone, Copy, Debug)]
pub struct PromptLookup {
    /// Most and fewest tokens that must have stood before.
    longest: usize,
    shortest: usize,
}

impl Default for PromptLookup {
    /// Runs of 4 to 2 tokens.
    fn default() -> Self {
        PromptLookup { longest: 4, shortest: 2 }
    }
}

impl PromptLookup {
    /// Looks for runs of `longest` tokens, then for shorter ones, down to `shortest`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless 1 ≤ `shortest` ≤ `longest`.
    pub fn new(longest: usize, shortest: usize) -> Result<Self> {
        if shortest == 0 || shortest > longest {
            return Err(Error::invalid(format!("runs of {longest} down to {shortest} tokens")));
        }
        Ok(PromptLookup { longest, shortest })
    }
}

impl Drafter for PromptLookup {
    fn propose(&mut self, tokens: &[u32], most: usize, draft: &mut Vec<u32>) -> Result<()> {
        for len in (self.shortest..=self.longest).rev().filter(|&len| len < tokens.len()) {
            let (before, run) = (&tokens[..tokens.len() - 1], &tokens[tokens.len() - len..]);
            if let Some(place) = before.windows(len).rposition(|window| window == run) {
                let next = &tokens[place + len..];
                let next = &next[..next.len().min(most)];
                reserve(draft, next.len(), "a draft")?;
                draft.extend_from_slice(next);
                break;
            }
        }
        Ok(())
    }
}

/// Guesses by a smaller model of the same vocabulary: its likeliest tokens. It has a context of that model, or borrows one.
#[derive(Debug)]
pub struct DraftModel<C> {
    context: C,
}

impl<C: BorrowMut<Context>> DraftModel<C> {
    /// A drafter for a model, on a context of the smaller one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the vocabularies differ.
    pub fn new(context: C, of: &Model) -> Result<Self> {
        let (ours, theirs) = (context.borrow().model(), of);
        let (count, wanted) = (ours.config().n_vocab, theirs.config().n_vocab);
        if count != wanted {
            return Err(Error::invalid(format!("a draft model of {count} tokens for a model of {wanted}")));
        }
        if let (Ok(ours), Ok(theirs)) = (ours.tokenizer(), theirs.tokenizer()) {
            let differs = |&token: &u32| ours.token_bytes(token).ok() != theirs.token_bytes(token).ok();
            if let Some(token) = (0..count as u32).find(differs) {
                return Err(Error::invalid(format!("the draft model's token {token} is another text")));
            }
        }
        Ok(DraftModel { context })
    }

    /// The context.
    pub fn context(&self) -> &Context {
        self.context.borrow()
    }
}

impl<C: BorrowMut<Context>> Drafter for DraftModel<C> {
    fn propose(&mut self, tokens: &[u32], most: usize, draft: &mut Vec<u32>) -> Result<()> {
        let context = self.context.borrow_mut();
        let room = context.n_ctx().saturating_sub(tokens.len());
        if tokens.is_empty() || room == 0 {
            return Ok(());
        }
        let same = context.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
        // The last one's logits are wanted.
        let kept = context.rewind_at_most(same.min(tokens.len() - 1));
        context.decode(&tokens[kept..], Logits::Last)?;
        let most = most.min(room);
        reserve(draft, most, "a draft")?;
        for place in 0..most {
            let token = argmax(context.logits())? as u32;
            draft.push(token);
            if place + 1 < most {
                context.decode(&[token], Logits::Last)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_up(tokens: &[u32], most: usize) -> Vec<u32> {
        let mut draft = Vec::new();
        PromptLookup::new(3, 1).unwrap().propose(tokens, most, &mut draft).unwrap();
        draft
    }

    #[test]
    fn the_longest_run_counts_and_of_these_the_last_one() {
        assert_eq!(looked_up(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 2), [4, 9]);
        assert_eq!(looked_up(&[7, 3, 4, 9, 3, 5, 1, 2, 3], 9), [5, 1, 2, 3]);
        assert_eq!(looked_up(&[1, 1, 1, 1], 3), [1]);
        assert_eq!(looked_up(&[1, 2, 3], 3), [0; 0]);
        assert_eq!(looked_up(&[1], 3), [0; 0]);
        assert_eq!(looked_up(&[], 3), [0; 0]);
        assert!(PromptLookup::new(2, 0).is_err() && PromptLookup::new(2, 3).is_err());
    }
}
