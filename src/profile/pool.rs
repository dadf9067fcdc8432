//! Which thread writes which table. A thread takes one at its first scope (or when it is prepared), gives
//! it back when it ends, and the next thread goes on in it: nothing is lost, and there are never more
//! tables than threads that lived at once.

use std::cell::Cell;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::counters::{Counting, Counts, counting};
use super::table::{EPOCH, RESET_AT, Table};
use super::zone::MAX_OWNERS;
use super::{clock, trace};

/// Everything behind the lock, which is never taken while recording.
pub(super) struct Registry {
    pub tables: Vec<&'static Table>,
    /// Counters of each table's threads while recording was on since the last reset; as long as `tables`.
    counted: Vec<Counted>,
    /// When recording was switched on, while it is.
    pub on_since: Option<u64>,
    /// Ticks that recording was on since the last reset, without the stretch that still lasts.
    pub on_ticks: u64,
    /// Numbers of owners: in use, or with figures of one that is gone.
    pub owners: [OwnerSlot; MAX_OWNERS],
}

/// Counters of the threads of one table.
#[derive(Clone, Copy, Default)]
struct Counted {
    /// In stretches of recording that have ended; none where nothing was counted.
    sum: Option<Counts>,
    /// The reading at the beginning of the stretch that lasts.
    began: Option<Counts>,
}

impl Counted {
    fn until_now(&self, table: &Table) -> Option<Counts> {
        let lasting = self.began.map(|began| table.counters.read(is_own(table)).since(&began));
        Counts::sum(self.sum.iter().chain(&lasting))
    }

    fn end(&mut self, table: &Table) {
        *self = Counted { sum: self.until_now(table), began: None };
    }
}

/// Whether a table is the calling thread's.
fn is_own(table: &Table) -> bool {
    TABLE.get().is_some_and(|own| std::ptr::eq(own, table))
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
    counted: Vec::new(),
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
        self.on_since = None;
        self.end_counting();
        if on {
            self.begin_counting();
            self.on_since = Some(clock::now());
        }
    }

    /// Begins or ends reading counters, as [`counting`] says now.
    pub fn count_again(&mut self) {
        self.end_counting();
        if self.on_since.is_some() {
            self.begin_counting();
        }
    }

    fn begin_counting(&mut self) {
        if counting() == Counting::Off {
            return;
        }
        for (table, counted) in self.tables.iter().zip(&mut self.counted) {
            if table.owned.load(Acquire) {
                table.counters.open();
                counted.began = Some(table.counters.read(is_own(table)));
            }
        }
    }

    fn end_counting(&mut self) {
        for (table, counted) in self.tables.iter().zip(&mut self.counted) {
            if counted.began.is_some() {
                counted.end(table);
                table.counters.pause();
            }
        }
    }

    /// Counters of the threads of the table of this number, up to now.
    pub fn counts(&self, number: usize) -> Option<Counts> {
        self.counted[number].until_now(self.tables[number])
    }

    /// Forgets all that was recorded.
    pub fn reset(&mut self) {
        for (table, counted) in self.tables.iter().zip(&mut self.counted) {
            let began = counted.began.map(|_| table.counters.read(is_own(table)));
            *counted = Counted { sum: None, began };
        }
        WITHOUT_TABLE.store(0, Relaxed);
        for slot in self.owners.iter_mut().filter(|slot| **slot == OwnerSlot::Left) {
            *slot = OwnerSlot::Free;
        }
        // Last, so that none of this is in the time of the recording.
        let now = clock::now();
        self.on_ticks = 0;
        self.on_since = self.on_since.map(|_| now);
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
            let mut registry = registry();
            if let Some(number) = registry.tables.iter().position(|other| std::ptr::eq(*other, table)) {
                registry.counted[number].end(table);
            }
            table.counters.close();
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
    let free = registry.tables.iter().position(|table| !table.owned.load(Acquire));
    let number = match free {
        Some(number) => number,
        None => {
            registry.tables.try_reserve(1).ok()?;
            registry.counted.try_reserve(1).ok()?;
            registry.tables.push(Table::leak_new()?);
            registry.counted.push(Counted::default());
            registry.tables.len() - 1
        }
    };
    let table = registry.tables[number];
    table.owned.store(true, Relaxed);
    table.counters.attach();
    if registry.on_since.is_some() && counting() != Counting::Off {
        table.counters.open();
        registry.counted[number].began = Some(table.counters.read(true));
    }
    trace::attach(table);
    TABLE.set(Some(table));
    Some(table)
}
