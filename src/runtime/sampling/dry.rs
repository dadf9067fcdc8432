//! DRY ("don't repeat yourself"): makes tokens less likely that would continue a repetition, the more so the longer it is.
//! The lengths of all repetitions come from one pass over the last tokens (the Z-algorithm, newest token first).

use super::mask::TokenSet;
use super::penalties::check_last_n;
use super::stage::check;
use super::{MAX_ROLLBACK, breakers::Breakers};
use crate::Result;
use crate::memory::reserve::{filled, with_room};
use std::collections::VecDeque;

/// The natural logarithm of the largest f32: powers stay below it.
const MOST: f32 = 88.722_83;

/// The parameters of DRY. A token that would make a repetition of n + 1 tokens, where the n ≥ `allowed_length` tokens
/// before it stand earlier in the text too, loses `multiplier` · `base`^(n − `allowed_length`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dry {
    /// Scale of the penalty; ≥ 0, 0 is off.
    pub multiplier: f32,
    /// Growth of the penalty with each token of the repetition; ≥ 1.
    pub base: f32,
    /// Tokens that may be repeated without a penalty.
    pub allowed_length: usize,
    /// Length of the window in which repetitions count; at most [`super::MAX_PENALTY_LAST_N`], 0 is off.
    pub last_n: usize,
    /// Tokens that end a repetition, and never are penalised themselves.
    pub breakers: Breakers,
}

impl Default for Dry {
    fn default() -> Self {
        Dry { multiplier: 0.0, base: 1.75, allowed_length: 2, last_n: 4096, breakers: Breakers::default() }
    }
}

impl Dry {
    /// Sets [`Dry::multiplier`].
    pub fn with_multiplier(self, multiplier: f32) -> Self {
        Self { multiplier, ..self }
    }

    /// Sets [`Dry::base`].
    pub fn with_base(self, base: f32) -> Self {
        Self { base, ..self }
    }

    /// Sets [`Dry::allowed_length`].
    pub fn with_allowed_length(self, allowed_length: usize) -> Self {
        Self { allowed_length, ..self }
    }

    /// Sets [`Dry::last_n`].
    pub fn with_last_n(self, last_n: usize) -> Self {
        Self { last_n, ..self }
    }

    /// Sets [`Dry::breakers`].
    pub fn with_breakers(self, breakers: Breakers) -> Self {
        Self { breakers, ..self }
    }

    /// Checks each value.
    ///
    /// # Errors
    /// [`crate::Error::InvalidArgument`] that names the first one outside its range.
    pub(super) fn check(&self) -> Result<()> {
        let (multiplier, base) = (self.multiplier, self.base);
        check(multiplier >= 0.0 && multiplier.is_finite(), "dry_multiplier", multiplier, "finite and ≥ 0")?;
        check(base >= 1.0 && base.is_finite(), "dry_base", base, "finite and ≥ 1")?;
        check_last_n("dry_last_n", self.last_n)
    }

    /// Whether it changes any logit.
    pub(super) fn is_on(&self) -> bool {
        self.multiplier != 0.0 && self.last_n > 0
    }

    /// The penalty of a token that would continue a repetition of `length` ≥ `allowed_length` tokens.
    fn penalty(&self, length: usize) -> f32 {
        let mut exponent = (length - self.allowed_length) as f32;
        if self.base > 1.000_001 {
            exponent = exponent.min((MOST / self.base.ln()).floor());
        }
        self.multiplier * self.base.powf(exponent)
    }
}

/// The last tokens of a sequence, and scratch memory.
pub(super) struct Repeats {
    /// The last `last_n` of these count; others return when later ones are taken back.
    history: VecDeque<u32>,
    last_n: usize,
    /// Scratch: the window, newest token first.
    recent: Vec<u32>,
    /// Scratch: how many tokens from each place on equal the newest ones.
    lengths: Vec<usize>,
    /// Scratch: for each token of the vocabulary, 1 + the longest repetition that it would continue, or 0.
    longest: Vec<u32>,
    /// Scratch: the tokens whose entry in `longest` isn't 0.
    touched: Vec<u32>,
    /// The first tokens of breakers.
    heads: TokenSet,
}

impl Repeats {
    pub(super) fn new(dry: &Dry, n_vocab: usize) -> Result<Self> {
        const WHAT: &str = "the window of repetitions";
        let (last_n, mut heads) = (dry.last_n, TokenSet::new(n_vocab)?);
        dry.breakers.heads().for_each(|head| heads.insert(head));
        Ok(Self {
            history: VecDeque::from(with_room(last_n.saturating_add(MAX_ROLLBACK), WHAT)?),
            last_n,
            recent: with_room(last_n, WHAT)?,
            lengths: with_room(last_n, WHAT)?,
            longest: filled(0, n_vocab, WHAT)?,
            touched: with_room(last_n, WHAT)?,
            heads,
        })
    }

    /// Appends a token of the vocabulary.
    pub(super) fn push(&mut self, token: u32) {
        if self.history.len() == self.last_n + MAX_ROLLBACK {
            self.history.pop_front();
        }
        self.history.push_back(token);
    }

    /// Takes back the last `n` tokens, of which at most [`MAX_ROLLBACK`] are remembered.
    pub(super) fn rollback(&mut self, n: usize) {
        self.history.truncate(self.history.len().saturating_sub(n));
    }

    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        self.history.clear();
    }

    /// Changes the logits of tokens that would continue a repetition, in a row of all.
    pub(super) fn edit(&mut self, dry: &Dry, row: &mut [f32]) {
        let allowed = dry.allowed_length;
        if self.history.len().min(self.last_n) <= allowed {
            return;
        }
        self.recent.clear();
        self.recent.extend(self.history.iter().rev().take(self.last_n));
        let most = self.until_breaker(&dry.breakers);
        if most < allowed {
            return;
        }
        overlaps(&self.recent, &mut self.lengths);
        for (&length, &next) in self.lengths[1..].iter().zip(&self.recent) {
            let length = length.min(most);
            if length >= allowed {
                let longest = &mut self.longest[next as usize];
                if *longest == 0 {
                    self.touched.push(next);
                }
                *longest = (*longest).max(length as u32 + 1);
            }
        }
        for token in self.touched.drain(..) {
            let length = std::mem::take(&mut self.longest[token as usize]) as usize - 1;
            if !(self.heads.contains(token) && dry.breakers.is_one(token)) {
                row[token as usize] -= dry.penalty(length);
            }
        }
    }

    /// The number of newest tokens behind the last breaker.
    fn until_breaker(&self, breakers: &Breakers) -> usize {
        let heads = self.recent.iter().enumerate().filter(|(_, token)| self.heads.contains(**token));
        let found = heads.filter_map(|(at, &token)| {
            let later = self.recent[..at].iter().rev().copied();
            breakers.longest_tail(token, later).map(|tail| at - tail)
        });
        found.into_iter().next().unwrap_or(self.recent.len())
    }
}

/// Fills `lengths` with the Z-function of `tokens`: entry k is the number of tokens from k on that equal those from 0 on.
fn overlaps(tokens: &[u32], lengths: &mut Vec<usize>) {
    lengths.clear();
    lengths.resize(tokens.len(), 0);
    // tokens[begin..end] equals a beginning of `tokens`, and no known place with that property ends later.
    let (mut begin, mut end) = (0, 0);
    for k in 1..tokens.len() {
        let mut n = if k < end { lengths[k - begin].min(end - k) } else { 0 };
        while k + n < tokens.len() && tokens[n] == tokens[k + n] {
            n += 1;
        }
        lengths[k] = n;
        if k + n > end {
            (begin, end) = (k, k + n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the row of zeros becomes, negated, straight from the definition.
    fn plain(dry: &Dry, n_vocab: usize, tokens: &[u32]) -> Vec<f32> {
        let tokens = &tokens[tokens.len().saturating_sub(dry.last_n)..];
        let n = tokens.len();
        let mut longest = vec![None; n_vocab];
        for end in 1..n {
            let equal = (0..end).take_while(|i| tokens[end - 1 - i] == tokens[n - 1 - i]).count();
            if equal >= dry.allowed_length && n > dry.allowed_length {
                let entry = &mut longest[tokens[end] as usize];
                *entry = (*entry).max(Some(equal));
            }
        }
        longest.iter().map(|length| length.map_or(0.0, |length| dry.penalty(length))).collect()
    }

    proptest! {
        #[test]
        fn penalties_are_those_of_the_definition(
            tokens in prop::collection::vec(0u32..4, 0..60), allowed_length in 0usize..4, last_n in 1usize..40,
        ) {
            let dry = Dry { multiplier: 0.5, allowed_length, last_n, ..Dry::default() };
            let mut repeats = Repeats::new(&dry, 4).unwrap();
            tokens.iter().for_each(|&token| repeats.push(token));
            let mut row = [0.0; 4];
            repeats.edit(&dry, &mut row);
            prop_assert_eq!(row.map(|logit| -logit).to_vec(), plain(&dry, 4, &tokens));
        }
    }

    #[test]
    fn long_repetitions_stay_finite() {
        let dry = Dry { multiplier: 1.0, base: 4.0, ..Dry::default() };
        assert!(dry.penalty(4000).is_finite() && dry.penalty(4000) > 1e37);
        assert_eq!(Dry { multiplier: 2.0, base: 1.0, ..Dry::default() }.penalty(4000), 2.0);
    }
}
