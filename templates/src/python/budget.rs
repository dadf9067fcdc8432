//! What one rendering may take: bytes that it makes, and work that it does. Both are counted as they are spent, so
//! neither a value that is doubled again and again nor a slow step in a long loop gets far.

use super::{out_of_memory, wrong};
use crate::memory::Memory;
use minijinja::value::Object;
use minijinja::{Error, State};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The budget's name in a template's context. It isn't an identifier, so that no template can use it.
pub(crate) const NAME: &str = " budget";
/// Longest text or list, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 64 << 20;
/// Bytes that any rendering may make, freed or not.
const MADE: u64 = 256 << 20;
/// And for each byte of the messages: a template may put a conversation together message by message.
const MADE_EACH: u64 = 256;
const MADE_MOST: u64 = 2 << 30;
/// Bytes that a rendering may look at: less than a second's, and more for a long conversation.
const WORK: u64 = 256 << 20;
const WORK_EACH: u64 = 1024;
const WORK_MOST: u64 = 16 << 30;
/// Each time that this much was made, memory is probed for what comes next: minijinja allocates infallibly.
const PROBED: u64 = 64 << 10;
const AHEAD: usize = 256 << 10;
/// Most levels of filters that run filters.
const MAX_NESTING: u64 = 16;

/// What is left of a rendering's memory and work.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(super) memory: Memory,
    /// What `made` began with.
    granted: u64,
    made: AtomicU64,
    work: AtomicU64,
    unprobed: AtomicU64,
    nesting: AtomicU64,
}

impl Object for Budget {}

impl Budget {
    /// For a conversation of so many bytes.
    pub(crate) fn new(bytes: usize, memory: Memory) -> Self {
        let made = MADE.saturating_add(MADE_EACH.saturating_mul(bytes as u64)).min(MADE_MOST);
        let work = WORK.saturating_add(WORK_EACH.saturating_mul(bytes as u64)).min(WORK_MOST);
        Budget {
            memory,
            granted: made,
            made: AtomicU64::new(made),
            work: AtomicU64::new(work),
            unprobed: AtomicU64::new(PROBED),
            nesting: AtomicU64::new(0),
        }
    }

    /// The budget of the rendering that `state` is of.
    pub(crate) fn of(state: &State<'_, '_>) -> Result<Arc<Self>, Error> {
        let found = state.lookup(NAME).and_then(|value| value.downcast_object::<Self>());
        found.ok_or_else(|| wrong("a value was used outside of a rendering"))
    }

    /// Before `bytes` of a new value are taken.
    pub(crate) fn make(&self, bytes: usize) -> Result<(), Error> {
        if bytes > MAX_VALUE_BYTES {
            return Err(wrong(format!("a value of {bytes} bytes; at most {MAX_VALUE_BYTES} are taken")));
        }
        spend(&self.made, bytes as u64).ok_or_else(|| wrong("the template takes too much memory"))?;
        let unprobed = self.unprobed.load(Ordering::Relaxed).saturating_add(bytes as u64);
        self.unprobed.store(unprobed, Ordering::Relaxed);
        if unprobed >= PROBED {
            self.unprobed.store(0, Ordering::Relaxed);
            // The text that a block of the template writes into has been made as well, and doubles as it grows.
            let growth =
                usize::try_from(self.granted - self.made.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            let growth = growth.min(MAX_VALUE_BYTES).saturating_mul(2);
            let ahead = bytes.saturating_add(growth).saturating_add(AHEAD);
            self.memory.ask(ahead).map_err(out_of_memory)?;
        }
        Ok(())
    }

    /// Runs a filter or test for another (`map`, `select`), which may run another in turn.
    pub(super) fn nested<T>(&self, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let nesting = self.nesting.load(Ordering::Relaxed);
        if nesting >= MAX_NESTING {
            return Err(wrong(format!("filters run filters more than {MAX_NESTING} levels deep")));
        }
        self.nesting.store(nesting + 1, Ordering::Relaxed);
        let result = run();
        self.nesting.store(nesting, Ordering::Relaxed);
        result
    }

    /// Before `units` bytes are looked at.
    pub(super) fn work(&self, units: u64) -> Result<(), Error> {
        spend(&self.work, units).ok_or_else(|| wrong("the template takes too long"))
    }
}

/// Takes `amount` off what is left, if there is so much.
fn spend(left: &AtomicU64, amount: u64) -> Option<()> {
    // One thread renders.
    let rest = left.load(Ordering::Relaxed).checked_sub(amount)?;
    left.store(rest, Ordering::Relaxed);
    Some(())
}
