//! The last tokens of a sequence, and how often each is among them.
//! A ring of tokens beside a count per token; both have their full size from the start. The ring holds
//! [`MAX_ROLLBACK`] tokens more than the window, which come back into it when later ones are taken back.

use super::MAX_ROLLBACK;
use crate::{Error, Result};
use std::collections::VecDeque;

/// The default has no room and counts nothing.
#[derive(Default)]
pub(super) struct Window {
    /// The last `capacity` of these are in the window; the newest is the last.
    tokens: VecDeque<u32>,
    capacity: usize,
    /// By token; empty in a window without room.
    counts: Vec<u32>,
}

impl Window {
    /// Room for `capacity` tokens of a vocabulary of `n_vocab`.
    pub(super) fn new(capacity: usize, n_vocab: usize) -> Result<Self> {
        let mut window = Self { capacity, ..Self::default() };
        let n_tokens = capacity + MAX_ROLLBACK;
        let room = window.tokens.try_reserve_exact(n_tokens).and(window.counts.try_reserve_exact(n_vocab));
        room.map_err(|_| Error::OutOfMemory {
            bytes: (n_tokens + n_vocab).saturating_mul(size_of::<u32>()),
            what: "the sampler's window",
        })?;
        window.counts.resize(n_vocab, 0);
        Ok(window)
    }

    /// Puts in a token of the vocabulary; the oldest leaves a full window.
    pub(super) fn push(&mut self, token: u32) {
        if self.capacity == 0 {
            return;
        }
        if self.tokens.len() == self.capacity + MAX_ROLLBACK {
            self.tokens.pop_front();
        }
        if let Some(oldest) = self.oldest_of_full() {
            self.counts[oldest as usize] -= 1;
        }
        self.tokens.push_back(token);
        self.counts[token as usize] += 1;
    }

    /// Takes back the last `n` tokens; what they pushed out returns. Exact where `n` and the tokens taken back before
    /// it, less those put in since, are together at most [`MAX_ROLLBACK`].
    pub(super) fn rollback(&mut self, n: usize) {
        for _ in 0..n {
            let Some(token) = self.tokens.pop_back() else { return };
            self.counts[token as usize] -= 1;
            if let Some(oldest) = self.oldest_of_full() {
                self.counts[oldest as usize] += 1;
            }
        }
    }

    /// The oldest token in the window, where the window is full.
    fn oldest_of_full(&self) -> Option<u32> {
        self.tokens.len().checked_sub(self.capacity).map(|at| self.tokens[at])
    }

    /// Whether no token is in the window.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How often the token is in the window.
    pub(super) fn count(&self, token: u32) -> u32 {
        self.counts.get(token as usize).copied().unwrap_or(0)
    }

    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        for token in self.tokens.drain(..) {
            // Tokens that have left the window count nothing.
            self.counts[token as usize] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_ROLLBACK, Window};
    use proptest::prelude::*;

    fn counts(window: &Window) -> Vec<u32> {
        (0..5).map(|token| window.count(token)).collect()
    }

    #[test]
    fn counts_the_last_tokens_only() {
        let mut window = Window::new(3, 5).unwrap();
        for token in [1, 1, 4] {
            window.push(token);
        }
        assert_eq!(counts(&window), [0, 2, 0, 0, 1]);
        window.push(2);
        assert_eq!(counts(&window), [0, 1, 1, 0, 1]);
        window.push(2);
        window.push(2);
        assert_eq!(counts(&window), [0, 0, 3, 0, 0]);
        window.clear();
        assert_eq!(counts(&window), [0; 5]);
        assert!(window.is_empty());
        window.push(3);
        assert_eq!(counts(&window), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn without_room_nothing_counts() {
        for mut window in [Window::default(), Window::new(0, 5).unwrap()] {
            window.push(4);
            window.rollback(1);
            assert_eq!((window.count(4), window.is_empty()), (0, true));
        }
    }

    proptest! {
        /// After any pushes and rollbacks the counts are those of a window that only saw what is left.
        #[test]
        fn what_left_the_window_returns(
            capacity in 1usize..6,
            tokens in prop::collection::vec(0u32..5, 0..2 * MAX_ROLLBACK),
            taken in 0..=MAX_ROLLBACK,
        ) {
            let mut window = Window::new(capacity, 5).unwrap();
            tokens.iter().for_each(|&token| window.push(token));
            let kept = &tokens[..tokens.len().saturating_sub(taken)];
            window.rollback(taken);
            let mut fresh = Window::new(capacity, 5).unwrap();
            kept.iter().for_each(|&token| fresh.push(token));
            prop_assert_eq!(counts(&window), counts(&fresh));
        }
    }
}
