//! A window of the last tokens of a sequence, with the number of occurrences of each token.
//! It is a ring of tokens and a table of counts, both of full size from the start. The ring holds [`MAX_ROLLBACK`]
//! tokens more than the window; they return into the window when later tokens are taken back.

use super::MAX_ROLLBACK;
use crate::Result;
use crate::memory::reserve::{filled, with_room};
use std::collections::VecDeque;

/// The last tokens. The default has capacity 0 and counts nothing.
#[derive(Default)]
pub(super) struct Window {
    /// The last `capacity` of these are in the window; the last one is the newest.
    tokens: VecDeque<u32>,
    capacity: usize,
    /// Occurrences by token; empty in the default window.
    counts: Vec<u32>,
    /// The tokens in the window, each once, in no order.
    distinct: Vec<u32>,
    /// For each token of the window, its place in `distinct`.
    places: Vec<u32>,
}

impl Window {
    /// A window of `capacity` tokens of a vocabulary of `n_vocab`.
    pub(super) fn new(capacity: usize, n_vocab: usize) -> Result<Self> {
        const WHAT: &str = "the sampler's window";
        let tokens = VecDeque::from(with_room(capacity.saturating_add(MAX_ROLLBACK), WHAT)?);
        let distinct = with_room(capacity.saturating_add(1).min(n_vocab), WHAT)?;
        let (counts, places) = (filled(0, n_vocab, WHAT)?, filled(0, n_vocab, WHAT)?);
        Ok(Self { tokens, capacity, counts, distinct, places })
    }

    /// Appends a token of the vocabulary; if the window is full, its oldest token leaves it.
    pub(super) fn push(&mut self, token: u32) {
        if self.capacity == 0 {
            return;
        }
        if self.tokens.len() == self.capacity + MAX_ROLLBACK {
            self.tokens.pop_front();
        }
        if let Some(oldest) = self.oldest_of_full() {
            self.leaves(oldest);
        }
        self.tokens.push_back(token);
        self.enters(token);
    }

    /// Takes back the last `n` tokens; the tokens that left the window for them return. This is exact as long as all
    /// tokens taken back, minus those appended since, are at most [`MAX_ROLLBACK`].
    pub(super) fn rollback(&mut self, n: usize) {
        for _ in 0..n {
            let Some(token) = self.tokens.pop_back() else { return };
            self.leaves(token);
            if let Some(oldest) = self.oldest_of_full() {
                self.enters(oldest);
            }
        }
    }

    /// The oldest token in the window, if the window is full.
    fn oldest_of_full(&self) -> Option<u32> {
        self.tokens.len().checked_sub(self.capacity).map(|at| self.tokens[at])
    }

    fn enters(&mut self, token: u32) {
        let count = &mut self.counts[token as usize];
        *count += 1;
        if *count == 1 {
            self.places[token as usize] = self.distinct.len() as u32;
            self.distinct.push(token);
        }
    }

    fn leaves(&mut self, token: u32) {
        let count = &mut self.counts[token as usize];
        *count -= 1;
        if *count == 0 {
            let place = self.places[token as usize];
            self.distinct.swap_remove(place as usize);
            if let Some(&moved) = self.distinct.get(place as usize) {
                self.places[moved as usize] = place;
            }
        }
    }

    /// The tokens in the window, each once, in no order.
    pub(super) fn distinct(&self) -> &[u32] {
        &self.distinct
    }

    /// Occurrences of the token in the window.
    pub(super) fn count(&self, token: u32) -> u32 {
        self.counts.get(token as usize).copied().unwrap_or(0)
    }

    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        for token in self.distinct.drain(..) {
            self.counts[token as usize] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_ROLLBACK, Window};
    use proptest::prelude::*;

    fn counts(window: &Window) -> Vec<u32> {
        let mut distinct = window.distinct().to_vec();
        distinct.sort_unstable();
        let counted: Vec<u32> = (0..5).filter(|&token| window.count(token) > 0).collect();
        assert_eq!(distinct, counted);
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
        assert!(window.distinct().is_empty());
        window.push(3);
        assert_eq!(counts(&window), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn without_room_nothing_counts() {
        for mut window in [Window::default(), Window::new(0, 5).unwrap()] {
            window.push(4);
            window.rollback(1);
            assert_eq!((window.count(4), window.distinct().is_empty()), (0, true));
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
