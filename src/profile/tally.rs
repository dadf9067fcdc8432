//! Work that comes in many small pieces inside one scope: timed piece by piece, recorded as one call at the end.
//! A clock read keeps the processor from working ahead, so pieces that are short are not timed: they belong to the
//! scope around them.

use std::cell::Cell;
use std::marker::PhantomData;

use super::table::Role;
use super::{Zone, clock, enabled, pool};

/// Pieces of one call of a zone; recorded below the current scope when dropped, if there were any.
#[must_use = "pieces are recorded when it is dropped"]
pub struct Tally {
    zone: Zone,
    role: Role,
    timed: bool,
    pieces: Cell<u64>,
    ticks: Cell<u64>,
    flops: Cell<u64>,
    bytes: Cell<u64>,
    /// Not Send, not Sync: the table is the thread's.
    this_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("zone", &self.zone).finish_non_exhaustive()
    }
}

impl Tally {
    /// Pieces of a call that this thread makes.
    #[inline]
    pub fn of_call(zone: Zone) -> Self {
        Self::new(zone, Role::Call, true)
    }

    /// Pieces of this thread's share in a call whose clock another thread keeps.
    #[inline]
    pub fn of_assist(zone: Zone) -> Self {
        Self::new(zone, Role::Assist, true)
    }

    /// Pieces too short to be timed: their work, and their time, are the current scope's.
    #[inline]
    pub fn untimed() -> Self {
        Self::new(Zone::Other, Role::Assist, false)
    }

    #[inline]
    fn new(zone: Zone, role: Role, timed: bool) -> Self {
        let none = || Cell::new(0);
        Tally {
            zone,
            role,
            timed,
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
        let result = if self.timed { self.time(work) } else { work() };
        self.pieces.set(self.pieces.get() + 1);
        self.flops.set(self.flops.get().wrapping_add(flops));
        self.bytes.set(self.bytes.get().wrapping_add(bytes));
        result
    }
}

impl Tally {
    #[inline]
    fn time<R>(&self, work: impl FnOnce() -> R) -> R {
        let start = clock::now();
        let result = work();
        self.ticks.set(self.ticks.get() + clock::now().saturating_sub(start));
        result
    }
}

impl Drop for Tally {
    #[inline]
    fn drop(&mut self) {
        if self.pieces.get() > 0
            && let Some(table) = pool::table()
        {
            let (ticks, flops, bytes) = (self.ticks.get(), self.flops.get(), self.bytes.get());
            match self.timed {
                true => table.add(self.zone, self.role, ticks, flops, bytes),
                false => table.add_work(flops, bytes),
            }
        }
    }
}
