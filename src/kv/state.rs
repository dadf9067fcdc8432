//! The sequences' state of fixed size, for recurrent layers. It can only return to an earlier position at which a copy
//! was kept.

use super::{TOO_LARGE, WHAT};
use crate::error::{Error, Result};
use crate::memory::reserve::filled;
use crate::memory::{AlignedBuf, checked_bytes};

/// The states of all sequences, each with room for a copy.
pub(super) struct States {
    /// Bytes of a state.
    bytes: usize,
    /// A state and its copy for each sequence.
    memory: AlignedBuf,
    /// The first state.
    first: *mut u8,
    /// The position at which each copy was made.
    kept: Vec<Option<usize>>,
}

// SAFETY: `first` points into `memory`, which moves with the states and may be used from any thread.
unsafe impl Send for States {}
// SAFETY: shared states only compute addresses from `first`. Reading or writing there takes an unsafe function, whose
// contract excludes data races.
unsafe impl Sync for States {}

impl States {
    pub fn new(bytes: usize, sequences: usize) -> Result<Self> {
        let all = checked_bytes(bytes, sequences.checked_mul(2).ok_or(TOO_LARGE)?, WHAT)?;
        let mut memory = AlignedBuf::zeroed(all, WHAT)?;
        let first = memory.as_mut_ptr();
        Ok(States { bytes, memory, first, kept: filled(None, sequences, WHAT)? })
    }

    /// Whether sequences have states at all.
    pub fn exist(&self) -> bool {
        self.bytes > 0
    }

    /// The address of a sequence's state.
    pub fn address(&self, slot: usize) -> *mut u8 {
        self.first.wrapping_add(2 * slot * self.bytes)
    }

    /// The position at which a sequence's copy was made.
    pub fn kept(&self, slot: usize) -> Option<usize> {
        self.kept[slot]
    }

    /// A sequence's state and its copy.
    fn of(&mut self, slot: usize) -> (&mut [u8], &mut [u8]) {
        let both = &mut self.memory.as_mut_slice::<u8>()[2 * slot * self.bytes..][..2 * self.bytes];
        both.split_at_mut(self.bytes)
    }

    /// A sequence's state, and its copy if there is one.
    pub fn saved(&self, slot: usize) -> (&[u8], Option<&[u8]>) {
        let both = &self.memory.as_slice::<u8>()[2 * slot * self.bytes..][..2 * self.bytes];
        let (state, copy) = both.split_at(self.bytes);
        (state, self.kept[slot].map(|_| copy))
    }

    /// A new sequence's state, and its copy if one is to be of position `kept`, to be filled.
    pub fn restored(&mut self, slot: usize, kept: Option<usize>) -> (&mut [u8], Option<&mut [u8]>) {
        self.kept[slot] = kept;
        let (state, copy) = self.of(slot);
        (state, kept.map(|_| copy))
    }

    /// Sets the state of a new sequence to zeros.
    pub fn clear(&mut self, slot: usize) {
        self.of(slot).0.fill(0);
        self.kept[slot] = None;
    }

    pub fn keep(&mut self, slot: usize, position: usize) {
        if self.bytes == 0 {
            return;
        }
        let (state, copy) = self.of(slot);
        copy.copy_from_slice(state);
        self.kept[slot] = Some(position);
    }

    /// Returns to the position of the copy.
    pub fn restore(&mut self, slot: usize) {
        let (state, copy) = self.of(slot);
        state.copy_from_slice(copy);
    }

    /// Checks that a state at position `len` can be had at `n`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where no copy of the state at `n` was kept; `what` is what the caller can't do.
    pub fn check(&self, slot: usize, len: usize, n: usize, what: &str) -> Result<()> {
        if self.bytes == 0 || n == len || n == 0 || self.kept[slot] == Some(n) {
            return Ok(());
        }
        let kept = self.kept[slot].map_or(String::new(), |kept| format!(", only at {kept}"));
        Err(Error::invalid(format!(
            "can't {what} {n}: the model's recurrent layers have a state that can't be computed backwards, and no copy \
             of it at that position was kept{kept}"
        )))
    }

    /// Returns from position `len` to `n`, for which [`States::check`] has said that it can.
    pub fn rewind(&mut self, slot: usize, len: usize, n: usize) {
        if self.bytes == 0 || n == len {
            return;
        }
        match n {
            0 => self.clear(slot),
            _ => self.restore(slot),
        }
    }

    /// Gives a new sequence the state that another one, of `len` positions, has or had at `n`, for which
    /// [`States::check`] has said that it can; and the copy, where it is of no later position.
    pub fn fork(&mut self, from: usize, to: usize, len: usize, n: usize) {
        if self.bytes == 0 || n == 0 {
            return;
        }
        let (bytes, source) = (self.bytes, 2 * from * self.bytes + if n == len { 0 } else { self.bytes });
        let target = 2 * to * bytes;
        let memory = self.memory.as_mut_slice::<u8>();
        memory.copy_within(source..source + bytes, target);
        if let Some(kept) = self.kept[from].filter(|&kept| kept <= n) {
            let copy = (2 * from + 1) * bytes;
            memory.copy_within(copy..copy + bytes, target + bytes);
            self.kept[to] = Some(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_goes_back_only_to_where_it_was_kept() {
        let mut states = States::new(3, 2).unwrap();
        states.of(1).0.copy_from_slice(&[1, 2, 3]);
        states.keep(1, 7);
        states.of(1).0.copy_from_slice(&[4, 5, 6]);
        assert!(states.check(1, 9, 6, "go to").is_err());
        for n in [0, 7, 9] {
            states.check(1, 9, n, "go to").unwrap();
        }
        states.rewind(1, 9, 9);
        assert_eq!(states.of(1).0, [4, 5, 6]);
        states.rewind(1, 9, 7);
        assert_eq!(states.of(1).0, [1, 2, 3]);
        assert_eq!(states.of(0).0, [0, 0, 0]);
        states.rewind(1, 7, 0);
        assert_eq!(states.of(1).0, [0, 0, 0]);
        assert!(states.check(1, 9, 7, "go to").is_err(), "the copy belonged to positions that are forgotten");
    }
    #[test]
    fn a_fork_has_the_state_and_no_later_copy() {
        let mut states = States::new(2, 3).unwrap();
        states.of(0).0.copy_from_slice(&[1, 2]);
        states.keep(0, 7);
        states.of(0).0.copy_from_slice(&[3, 4]);
        states.fork(0, 1, 9, 9);
        assert_eq!((states.of(1).0.to_vec(), states.of(1).1.to_vec()), (vec![3, 4], vec![1, 2]));
        states.fork(0, 2, 9, 7);
        assert_eq!((states.of(2).0.to_vec(), states.kept(2)), (vec![1, 2], Some(7)));
        states.clear(2);
        states.fork(0, 2, 9, 0);
        assert_eq!((states.of(2).0.to_vec(), states.kept(2)), (vec![0, 0], None));
    }
}
