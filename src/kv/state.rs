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

    /// Returns from position `len` to `n`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where no copy of the state at `n` was kept.
    pub fn rewind(&mut self, slot: usize, len: usize, n: usize) -> Result<()> {
        if self.bytes == 0 || n == len {
            return Ok(());
        }
        if n == 0 {
            self.clear(slot);
            return Ok(());
        }
        if self.kept[slot] != Some(n) {
            let kept = self.kept[slot].map_or(String::new(), |kept| format!(", only at {kept}"));
            return Err(Error::invalid(format!(
                "can't rewind to {n}: the model's recurrent layers have a state that can't be computed backwards, and no \
                 copy of it at that position was kept{kept}"
            )));
        }
        self.restore(slot);
        Ok(())
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
        assert!(states.rewind(1, 9, 6).is_err());
        assert_eq!(states.of(1).0, [4, 5, 6]);
        states.rewind(1, 9, 9).unwrap();
        assert_eq!(states.of(1).0, [4, 5, 6]);
        states.rewind(1, 9, 7).unwrap();
        assert_eq!(states.of(1).0, [1, 2, 3]);
        assert_eq!(states.of(0).0, [0, 0, 0]);
        states.rewind(1, 7, 0).unwrap();
        assert_eq!(states.of(1).0, [0, 0, 0]);
        assert!(states.rewind(1, 9, 7).is_err(), "what was kept belonged to what is forgotten");
    }
}
