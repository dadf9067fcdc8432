//! Which thread writes which table. A thread takes one at its first scope (or when it is prepared), gives
//! it back when it ends, and the next thread goes on in it: nothing is lost, and there are never more
//! tables than threads that lived at once.

use std::cell::Cell;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::{EPOCH, RESET_AT, Table};
use super::zone::MAX_OWNERS;
use super::{clock, trace};

/// Everything behind the lock, which is never taken while recording.
pub(super) struct Registry {
    pub tables: Vec<&'static Table>,
    /// When recording was switched on, while it is.
    pub on_since: Option<u64>,
    /// Ticks that recording was on since the last reset, without the stretch that still lasts.
    pub on_ticks: u64,
    /// Numbers of owners: in use, or with figures of one that is gone.
    pub owners: [OwnerSlot; MAX_OWNERS],
}

/// Whether an owner's number may be given away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerSlot {
    Free,
    Used,
    /// Its owner is gone, its figures stay until the next reset.
    Left,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    tables: Vec::new(),
    on_since: None,
    on_ticks: 0,
    owners: [OwnerSlot::Free; MAX_OWNERS],
});

/// Scopes that no table could count: memory was short, the thread was ending, or the host's stack was full.
static WITHOUT_TABLE: AtomicU64 = AtomicU64::new(0);

pub(super) fn registry() -> MutexGuard<'static, Registry> {
    // Nothing under the lock can be left half done by a panic.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Ticks that recording was on since the last reset.
    pub fn wall_ticks(&self) -> u64 {
        self.on_ticks + self.on_since.map_or(0, |since| clock::now().saturating_sub(since))
    }

    /// Starts or ends a stretch of recording.
    pub fn switch(&mut self, on: bool) {
        self.on_ticks = self.wall_ticks();
        self.on_since = on.then(clock::now);
    }

    /// Forgets all that was recorded.
    pub fn reset(&mut self) {
        let now = clock::now();
        self.on_ticks = 0;
        self.on_since = self.on_since.map(|_| now);
        WITHOUT_TABLE.store(0, Relaxed);
        for slot in self.owners.iter_mut().filter(|slot| **slot == OwnerSlot::Left) {
            *slot = OwnerSlot::Free;
        }
        RESET_AT.store(now, Relaxed);
        EPOCH.fetch_add(1, Release);
    }
}

/// Scopes lost past all tables.
pub(super) fn without_table() -> u64 {
    WITHOUT_TABLE.load(Relaxed)
}

thread_local! {
    static TABLE: Cell<Option<&'static Table>> = const { Cell::new(None) };
    static RETURN_AT_EXIT: ReturnAtExit = const { ReturnAtExit };
}

/// Gives the thread's table back when the thread ends.
struct ReturnAtExit;

impl Drop for ReturnAtExit {
    fn drop(&mut self) {
        if let Some(table) = TABLE.take() {
            table.close_all();
            table.owned.store(false, Release);
        }
    }
}

/// The calling thread's table.
#[inline(always)]
pub(super) fn table() -> Option<&'static Table> {
    match TABLE.get() {
        Some(table) => Some(table),
        None => attach(),
    }
}

/// The calling thread's table, if it has one already.
pub(super) fn table_if_any() -> Option<&'static Table> {
    TABLE.get()
}

/// Counts a scope that found no table, or none in time.
#[cold]
pub(super) fn count_dropped() {
    WITHOUT_TABLE.fetch_add(1, Relaxed);
}

/// Counts an end without a beginning.
#[cold]
pub(super) fn count_unbalanced() {
    if let Some(table) = table() {
        table.count_unbalanced();
    }
}

#[cold]
fn attach() -> Option<&'static Table> {
    // Fails in a thread that has already given its table back: it must not take another.
    RETURN_AT_EXIT.try_with(|_| ()).ok()?;
    let mut registry = registry();
    let free = registry.tables.iter().copied().find(|table| !table.owned.load(Acquire));
    let table = match free {
        Some(table) => table,
        None => {
            registry.tables.try_reserve(1).ok()?;
            let table = Table::leak_new()?;
            registry.tables.push(table);
            table
        }
    };
    table.owned.store(true, Relaxed);
    trace::attach(table);
    TABLE.set(Some(table));
    Some(table)
}
