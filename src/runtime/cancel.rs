//! Cancelling a call of an engine or a context from another thread: the call that runs, or a generation by its number,
//! which may not have begun yet.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};

/// Cancels calls of an engine or a context, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Canceller(Arc<Cancel>);

#[derive(Debug, Default)]
struct Cancel {
    /// Whether the running call is to end.
    flag: AtomicBool,
    generations: Mutex<Generations>,
}

/// Numbers of generations; 0 for none.
#[derive(Debug, Default)]
struct Generations {
    running: u64,
    /// This one and all before it are cancelled.
    cancelled: u64,
}

/// A generation that runs under its number, until this is dropped.
pub(super) struct Running(Canceller);

impl Canceller {
    /// Ends the decode or generation that runs now with [`Error::Cancelled`]: after its current step, which takes
    /// milliseconds, or, while it waits for a shared team, as soon as the team is free for it. Without a running call
    /// this does nothing.
    pub fn cancel(&self) {
        self.0.flag.store(true, Relaxed);
    }

    /// Cancels the generations of this [id](super::generation::GenerationParams::id) and of lower ones: the one that runs,
    /// as [`Canceller::cancel`] does, and those that haven't begun yet, as soon as they begin.
    pub fn cancel_generation(&self, id: u64) {
        let mut generations = self.generations();
        generations.cancelled = generations.cancelled.max(id);
        if generations.running != 0 && generations.running <= id {
            self.cancel();
        }
    }

    /// Forgets a cancellation of an earlier call.
    pub(super) fn begin(&self) {
        self.0.flag.store(false, Relaxed);
    }

    /// Forgets a cancellation of an earlier call, and begins a generation; 0 for one without a number.
    ///
    /// # Errors
    /// [`Error::Cancelled`] where this generation is cancelled already.
    pub(super) fn begin_generation(&self, id: u64) -> Result<Running> {
        let mut generations = self.generations();
        self.begin();
        if id != 0 && id <= generations.cancelled {
            return Err(Error::Cancelled);
        }
        generations.running = id;
        Ok(Running(self.clone()))
    }

    /// The flag that a pass looks at.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.0.flag
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        // Nothing under the lock panics.
        self.0.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.generations().running = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_cancelled_before_and_while_it_runs() {
        let canceller = Canceller::default();
        let is_cancelled = || canceller.flag().load(Relaxed);
        canceller.cancel();
        let third = canceller.begin_generation(3).unwrap();
        assert!(!is_cancelled(), "a cancellation from before counts only by its number");
        canceller.cancel_generation(2);
        assert!(!is_cancelled());
        canceller.cancel_generation(5);
        assert!(is_cancelled());
        drop(third);
        for (id, runs) in [(0, true), (1, false), (4, false), (5, false), (6, true)] {
            assert_eq!(canceller.begin_generation(id).is_ok(), runs, "{id}");
            assert!(!is_cancelled(), "{id}");
        }
        // Nothing runs: only numbers count.
        canceller.cancel_generation(7);
        assert!(!is_cancelled());
        assert!(canceller.begin_generation(7).is_err());
        assert!(canceller.begin_generation(8).is_ok());
    }
}
