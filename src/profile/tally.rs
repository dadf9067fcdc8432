//! Work that comes in many small pieces inside one scope: timed piece by piece, recorded as one call at the end.
//! A piece costs two clock reads, about half of a scope.

use std::cell::Cell;
use std::marker::PhantomData;

use super::table::Role;
use super::{Zone, clock, enabled, pool};

/// Pieces of one call of a zone; recorded below the current scope when dropped, if there were any.
#[must_use = "pieces are recorded when it is dropped"]
pub struct Tally {
    zone: Zone,
    role: Role,
    pieces: Cell<u64>,
    ticks: Cell<u64>,
    flops: Cell<u64>,
    bytes: Cell<u64>,
    /// Not Send, not Sync: the table is the thread's.
    this_thread: PhantomData<*const ()>,
}

impl Tally {
    /// Pieces of a call that this thread makes.
    #[inline]
    pub fn of_call(zone: Zone) -> Self {
        Self::new(zone, Role::Call)
    }

    /// Pieces of this thread's share in a call whose clock another thread keeps.
    #[inline]
    pub fn of_assist(zone: Zone) -> Self {
        Self::new(zone, Role::Assist)
    }

    #[inline]
    fn new(zone: Zone, role: Role) -> Self {
        let none = || Cell::new(0);
        Tally {
            zone,
            role,
            pieces: none(),
            ticks: none(),
            flops: none(),
            bytes: none(),
            this_thread: PhantomData,
        }
    }

    /// Does a piece of work, of so many floating-point operations and bytes.
    #[inline]
    pub fn piece<R>(&self, flops: u64, bytes: u64, work: impl FnOnce() -> R) -> R {
        if !enabled() {
            return work();
        }
        let start = clock::now();
        let result = work();
        self.ticks.set(self.ticks.get() + clock::now().saturating_sub(start));
        self.pieces.set(self.pieces.get() + 1);
        self.flops.set(self.flops.get().wrapping_add(flops));
        self.bytes.set(self.bytes.get().wrapping_add(bytes));
        result
    }
}

impl Drop for Tally {
    #[inline]
    fn drop(&mut self) {
        if self.pieces.get() > 0
            && let Some(table) = pool::table()
        {
            table.add(self.zone, self.role, self.ticks.get(), self.flops.get(), self.bytes.get());
        }
    }
}
