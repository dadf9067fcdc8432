//! The last tokens of a sequence, and how often each is among them.
//! A ring of tokens beside a count per token; both have their full size from the start.

use crate::{Error, Result};

/// The default has no room and counts nothing.
#[derive(Default)]
pub(super) struct Window {
    /// Tokens, the oldest at `next` once the ring is full.
    ring: Vec<u32>,
    next: usize,
    capacity: usize,
    /// By token; empty in a window without room.
    counts: Vec<u32>,
}

impl Window {
    /// Room for `capacity` tokens of a vocabulary of `n_vocab`.
    pub(super) fn new(capacity: usize, n_vocab: usize) -> Result<Self> {
        let mut window = Self { capacity, ..Self::default() };
        let room = window.ring.try_reserve_exact(capacity).and(window.counts.try_reserve_exact(n_vocab));
        room.map_err(|_| Error::OutOfMemory {
            bytes: (capacity + n_vocab).saturating_mul(size_of::<u32>()),
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
        if self.ring.len() < self.capacity {
            self.ring.push(token);
        } else {
            let oldest = std::mem::replace(&mut self.ring[self.next], token);
            self.counts[oldest as usize] -= 1;
            self.next = (self.next + 1) % self.capacity;
        }
        self.counts[token as usize] += 1;
    }

    /// The tokens in the window, each as often as it is there, in no order.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.ring
    }

    /// How often the token is in the window.
    pub(super) fn count(&self, token: u32) -> u32 {
        self.counts.get(token as usize).copied().unwrap_or(0)
    }

    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        for token in self.ring.drain(..) {
            self.counts[token as usize] = 0;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn counts_the_last_tokens_only() {
        let mut window = Window::new(3, 5).unwrap();
        let counts = |window: &Window| (0..5).map(|token| window.count(token)).collect::<Vec<_>>();
        for token in [1, 1, 4] {
            window.push(token);
        }
        assert_eq!(counts(&window), [0, 2, 0, 0, 1]);
        window.push(2);
        assert_eq!(counts(&window), [0, 1, 1, 0, 1]);
        window.push(2);
        window.push(2);
        assert_eq!(counts(&window), [0, 0, 3, 0, 0]);
        assert_eq!(window.tokens(), [2, 2, 2]);
        window.clear();
        assert_eq!(counts(&window), [0; 5]);
        window.push(3);
        assert_eq!(counts(&window), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn without_room_nothing_counts() {
        let mut window = Window::default();
        window.push(7);
        assert_eq!((window.count(7), window.tokens().len()), (0, 0));
    }
}
