//! Counters of a thread, kept by the operating system and the processor: page faults, context switches, migrations,
//! cycles, instructions, cache and branch misses. They are read over all of a recording and in a host's zones; in the
//! library's own zones on request, since a reading is a system call or two.

use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{os, pool};

/// How many counters there are.
pub const COUNTERS: usize = Counter::ALL.len();

/// Something that is counted of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Counter {
    /// Page faults that took no input or output, such as the first touch of new memory.
    MinorFaults,
    /// Page faults that waited for a disk.
    MajorFaults,
    /// Times that the thread lost its core, or gave it away to wait.
    ContextSwitches,
    /// Times that the thread moved to another core.
    Migrations,
    /// Cycles of the core, in user mode (as all that follow).
    Cycles,
    /// Instructions retired.
    Instructions,
    /// Accesses that reached the last level of the caches.
    CacheReferences,
    /// Those of them that went on to memory.
    CacheMisses,
    /// Branches retired.
    Branches,
    /// Branches that were predicted wrongly.
    BranchMisses,
}

impl Counter {
    /// Every counter, in the order of their numbers: first those of the system, then those of the processor.
    pub const ALL: [Counter; 10] = [
        Counter::MinorFaults,
        Counter::MajorFaults,
        Counter::ContextSwitches,
        Counter::Migrations,
        Counter::Cycles,
        Counter::Instructions,
        Counter::CacheReferences,
        Counter::CacheMisses,
        Counter::Branches,
        Counter::BranchMisses,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::MinorFaults => "minor page faults",
            Counter::MajorFaults => "major page faults",
            Counter::ContextSwitches => "context switches",
            Counter::Migrations => "migrations",
            Counter::Cycles => "cycles",
            Counter::Instructions => "instructions",
            Counter::CacheReferences => "cache references",
            Counter::CacheMisses => "cache misses",
            Counter::Branches => "branches",
            Counter::BranchMisses => "branch misses",
        }
    }

    /// Its number: its place in [`Counter::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    const fn bit(self) -> u32 {
        1 << self.index()
    }
}

/// Values of the counters, each known or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    values: [u64; COUNTERS],
    /// A bit for each counter that is known, and [`FROM_USAGE`].
    known: u32,
}

/// The bits of all counters.
const ALL_KNOWN: u32 = (1 << COUNTERS) - 1;

/// Marks readings of `getrusage`, which began to count when the thread did: no difference to others makes sense.
const FROM_USAGE: u32 = 1 << 31;

impl Counts {
    /// The value of a counter, where it is known.
    pub fn get(&self, counter: Counter) -> Option<u64> {
        (self.known & counter.bit() != 0).then(|| self.values[counter.index()])
    }

    /// The counters that are known, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.into_iter().filter_map(|counter| Some((counter, self.get(counter)?)))
    }

    /// Whether no counter is known.
    pub fn is_empty(&self) -> bool {
        self.known & ALL_KNOWN == 0
    }

    /// Sets a counter's value.
    pub fn set(&mut self, counter: Counter, value: u64) {
        self.values[counter.index()] = value;
        self.known |= counter.bit();
    }

    pub(super) fn mark_usage(&mut self) {
        self.known |= FROM_USAGE;
    }

    /// The difference to an earlier reading of the same thread; counters that either lacks are unknown.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let same = self.known & FROM_USAGE == earlier.known & FROM_USAGE;
        let known = if same { self.known & earlier.known } else { 0 };
        let values = std::array::from_fn(|i| self.values[i].saturating_sub(earlier.values[i]));
        Counts { values, known }
    }

    /// The sum of both; counters that either lacks are unknown.
    pub fn and(&self, other: &Counts) -> Counts {
        let values = std::array::from_fn(|i| self.values[i].saturating_add(other.values[i]));
        Counts { values, known: self.known & other.known }
    }

    /// The sum of several; nothing where there is none.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Option<Counts> {
        all.into_iter()
            .fold(None, |sum: Option<Counts>, counts| Some(sum.map_or(*counts, |sum| sum.and(counts))))
    }
}

/// Counts that one thread writes and any may read; all zeroes is none.
#[derive(Default)]
pub(super) struct AtomicCounts {
    /// How many were added.
    times: AtomicU64,
    known: AtomicU32,
    values: [AtomicU64; COUNTERS],
}

impl AtomicCounts {
    /// Replaces the counts by one reading.
    pub fn store(&self, counts: &Counts) {
        self.clear();
        self.add(counts);
    }

    /// Adds counts.
    pub fn add(&self, counts: &Counts) {
        let times = self.times.load(Relaxed);
        let known = if times == 0 { ALL_KNOWN | FROM_USAGE } else { self.known.load(Relaxed) };
        self.known.store(known & counts.known, Relaxed);
        for (cell, value) in self.values.iter().zip(counts.values) {
            cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
        }
        self.times.store(times + 1, Release);
    }

    /// The sum, and how many it is of.
    pub fn load(&self) -> (Counts, u64) {
        let times = self.times.load(Acquire);
        let values = self.values.each_ref().map(|value| value.load(Relaxed));
        (Counts { values, known: self.known.load(Relaxed) }, times)
    }

    pub fn clear(&self) {
        self.times.store(0, Relaxed);
        self.known.store(0, Relaxed);
        self.values.iter().for_each(|value| value.store(0, Relaxed));
    }
}

/// For which scopes counters are read while recording is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Counting {
    /// None: no counter is opened.
    Off,
    /// A host's zones ([`super::zone_begin`], [`super::counted`]), and all of the recording, thread by thread.
    #[default]
    Zones,
    /// Every scope as well: two readings each, of a system call or two.
    Everything,
}

static LEVEL: AtomicU8 = AtomicU8::new(Counting::Zones as u8);

/// Says which scopes are counted from now on. Threads open their counters when recording is switched on: up to ten
/// file descriptors each, a quarter of the process's limit at most, until the thread ends.
pub fn set_counting(level: Counting) {
    let mut registry = pool::registry();
    LEVEL.store(level as u8, Relaxed);
    registry.count_again();
}

/// Which scopes are counted.
#[inline(always)]
pub fn counting() -> Counting {
    match LEVEL.load(Relaxed) {
        0 => Counting::Off,
        1 => Counting::Zones,
        _ => Counting::Everything,
    }
}

/// Counters that aren't known, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub counters: Vec<Counter>,
    /// Why, in words.
    pub reason: String,
}

/// The counters that this process doesn't get, by reason; all of them where nothing was counted yet.
pub fn missing() -> Vec<Missing> {
    let mut found: Vec<Missing> = Vec::new();
    for counter in Counter::ALL {
        let Some(reason) = os::why_missing(counter) else { continue };
        match found.iter_mut().find(|missing| missing.reason == reason) {
            Some(missing) => missing.counters.push(counter),
            None => found.push(Missing { counters: vec![counter], reason }),
        }
    }
    found
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.counters.iter().map(|counter| counter.name()).collect();
        write!(f, "not counted: {} ({})", names.join(", "), self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(Counter, u64)]) -> Counts {
        let mut counts = Counts::default();
        pairs.iter().for_each(|&(counter, value)| counts.set(counter, value));
        counts
    }

    #[test]
    fn numbers_are_places() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.index(), index);
        }
    }

    #[test]
    fn sums_and_differences_know_what_both_know() {
        let early = counts(&[(Counter::MinorFaults, 5), (Counter::Cycles, 100)]);
        let late = counts(&[(Counter::MinorFaults, 12), (Counter::Migrations, 1), (Counter::Cycles, 90)]);
        let since = late.since(&early);
        assert_eq!(since.get(Counter::MinorFaults), Some(7));
        assert_eq!((since.get(Counter::Cycles), since.get(Counter::Migrations)), (Some(0), None));
        let both = early.and(&late);
        assert_eq!(both.iter().collect::<Vec<_>>(), [(Counter::MinorFaults, 17), (Counter::Cycles, 190)]);
        assert_eq!(Counts::sum([]), None);
        assert_eq!(Counts::sum([&early, &late]), Some(both));
        let mut usage = early;
        usage.mark_usage();
        assert!(late.since(&usage).is_empty(), "two sources have no difference");
        assert_eq!(usage.since(&usage).get(Counter::MinorFaults), Some(0));
    }

    #[test]
    fn a_cell_knows_what_all_its_sums_knew() {
        let cell = AtomicCounts::default();
        assert!(cell.load().0.is_empty());
        cell.add(&counts(&[(Counter::MinorFaults, 2), (Counter::Cycles, 3)]));
        cell.add(&counts(&[(Counter::MinorFaults, 5)]));
        let (sum, times) = cell.load();
        assert_eq!((sum.iter().collect::<Vec<_>>(), times), (vec![(Counter::MinorFaults, 7)], 2));
        cell.store(&counts(&[(Counter::Cycles, 1)]));
        assert_eq!(cell.load().0.iter().collect::<Vec<_>>(), [(Counter::Cycles, 1)]);
    }
}
