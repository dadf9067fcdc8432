//! Owners of scopes: whose work it was, such as a context's, so that each can have a profile of its own.
//! An owner is a step in a thread's path that takes no time, and that the common tree leaves out.

use std::marker::PhantomData;

use super::pool::{self, OwnerSlot};
use super::table::Place;
use super::zone::MAX_OWNERS;
use super::{Zone, enabled};
use crate::{Error, Result};

/// A number under which scopes are kept apart from others'. Given back when dropped; its figures stay in the
/// common tree until the next reset.
#[derive(Debug)]
pub struct Owner {
    number: Option<usize>,
}

impl Owner {
    /// An owner with a number of its own, or, where all are taken, without one: its scopes are in the common tree
    /// only.
    pub fn new() -> Owner {
        let mut registry = pool::registry();
        let number = registry.owners.iter().position(|slot| *slot == OwnerSlot::Free);
        if let Some(number) = number {
            registry.owners[number] = OwnerSlot::Used;
        }
        Owner { number }
    }

    /// Scopes of this thread are the owner's until the value is dropped.
    #[inline]
    pub fn enter(&self) -> Owned {
        let before = if enabled() { self.step_into() } else { None };
        Owned { before, this_thread: PhantomData }
    }

    fn step_into(&self) -> Option<Place> {
        pool::table()?.step_into(Zone::of_owner(self.number?))
    }

    /// The owner's number.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it has none.
    pub(super) fn number(&self) -> Result<usize> {
        self.number.ok_or_else(|| {
            Error::Unsupported(format!(
                "no profile of its own: {MAX_OWNERS} others have one (a reset frees those that are gone)"
            ))
        })
    }
}

impl Default for Owner {
    fn default() -> Self {
        Owner::new()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            pool::registry().owners[number] = OwnerSlot::Left;
        }
    }
}

/// Ends an [`Owner::enter`] when dropped.
#[must_use = "scopes are the owner's until this is dropped"]
pub struct Owned {
    before: Option<Place>,
    this_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned").finish_non_exhaustive()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some((before, table)) = self.before.zip(pool::table_if_any()) {
            table.leave(before);
        }
    }
}
