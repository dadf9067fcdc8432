//! Counters and threads
//! ====================
//! What the system counted while recording was on (page faults, context switches and, where it grants them, cycles,
//! instructions and misses), by zone and thread, and each thread's time.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::names::intern;
use super::params::{Versioned, fields};
use super::profile::hold_snapshot;
use super::status::{Failure, sm_status};
use crate::profile::{self, Counter, Counting, Counts, MethodStats, Snapshot, ThreadStats};

/// Counters are not read, and not opened.
pub const SM_COUNT_NOTHING: i32 = 0;
/// Counters of your own zones are read, and those of every thread over all of the recording: as it is at first.
pub const SM_COUNT_ZONES: i32 = 1;
/// Counters of every call that is recorded are read as well: each takes a microsecond more, or less.
pub const SM_COUNT_EVERYTHING: i32 = 2;

/// Bit of `known` in `sm_zone_counters` for `minor_faults`, as those that follow for the counters of their names.
pub const SM_COUNTER_MINOR_FAULTS: u64 = 1;
/// Bit for `major_faults`.
pub const SM_COUNTER_MAJOR_FAULTS: u64 = 2;
/// Bit for `context_switches`.
pub const SM_COUNTER_CONTEXT_SWITCHES: u64 = 4;
/// Bit for `migrations`.
pub const SM_COUNTER_MIGRATIONS: u64 = 8;
/// Bit for `cycles`.
pub const SM_COUNTER_CYCLES: u64 = 16;
/// Bit for `instructions`.
pub const SM_COUNTER_INSTRUCTIONS: u64 = 32;
/// Bit for `cache_references`.
pub const SM_COUNTER_CACHE_REFERENCES: u64 = 64;
/// Bit for `cache_misses`.
pub const SM_COUNTER_CACHE_MISSES: u64 = 128;
/// Bit for `branches`.
pub const SM_COUNTER_BRANCHES: u64 = 256;
/// Bit for `branch_misses`.
pub const SM_COUNTER_BRANCH_MISSES: u64 = 512;

/// Counters of one zone below one caller, of all threads or of one. A counter whose bit in `known` is not set
/// is 0 and says nothing. Those of the processor count user mode.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_zone_counters {
    /// The zone; NULL for the whole recording.
    pub name: *const c_char,
    /// The zone's index in the array of `sm_profile_snapshot`, as long as nothing is recorded in between; -1 for the
    /// whole recording.
    pub node: i64,
    /// The thread's number; -1 for all together.
    pub thread: i64,
    /// Bits `SM_COUNTER_*` of the counters that are known.
    pub known: u64,
    /// Page faults without input or output, such as the first touch of new memory.
    pub minor_faults: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Times that a thread lost its core, or gave it away to wait.
    pub context_switches: u64,
    /// Times that a thread moved to another core.
    pub migrations: u64,
    /// Cycles of the cores.
    pub cycles: u64,
    /// Instructions retired.
    pub instructions: u64,
    /// Accesses that reached the last level of the caches.
    pub cache_references: u64,
    /// Those of them that went on to memory.
    pub cache_misses: u64,
    /// Branches retired.
    pub branches: u64,
    /// Branches that were predicted wrongly.
    pub branch_misses: u64,
}

// SAFETY: repr(C); integers and a raw pointer.
unsafe impl Versioned for sm_zone_counters {
    const NAME: &'static str = "sm_zone_counters";

    fields!(
        name,
        node,
        thread,
        known,
        minor_faults,
        major_faults,
        context_switches,
        migrations,
        cycles,
        instructions,
        cache_references,
        cache_misses,
        branches,
        branch_misses
    );
}

impl sm_zone_counters {
    fn new(zone: Option<(usize, &MethodStats)>, thread: i64, counts: &Counts) -> Self {
        let of = |counter| counts.get(counter).unwrap_or(0);
        Self {
            name: zone.map_or(std::ptr::null(), |(_, stats)| intern(stats.name)),
            node: zone.map_or(-1, |(node, _)| node as i64),
            thread,
            known: counts.iter().fold(0, |known, (counter, _)| known | 1 << counter.index()),
            minor_faults: of(Counter::MinorFaults),
            major_faults: of(Counter::MajorFaults),
            context_switches: of(Counter::ContextSwitches),
            migrations: of(Counter::Migrations),
            cycles: of(Counter::Cycles),
            instructions: of(Counter::Instructions),
            cache_references: of(Counter::CacheReferences),
            cache_misses: of(Counter::CacheMisses),
            branches: of(Counter::Branches),
            branch_misses: of(Counter::BranchMisses),
        }
    }

    /// The whole recording, then each zone whose counters were read: of all threads, then of each.
    fn all(snapshot: &Snapshot) -> Vec<Self> {
        let threads = snapshot.threads.iter().filter_map(|stats| Some((stats.thread, stats.counts?)));
        let mut rows = Self::of(None, threads.collect());
        for (node, stats) in snapshot.nodes.iter().enumerate() {
            let parts = stats.thread_counts.iter().map(|part| (part.thread, part.counts));
            rows.extend(Self::of(Some((node, stats)), parts.collect()));
        }
        rows
    }

    fn of(zone: Option<(usize, &MethodStats)>, threads: Vec<(usize, Counts)>) -> Vec<Self> {
        let Some(sum) = Counts::sum(threads.iter().map(|(_, counts)| counts)) else { return Vec::new() };
        let each = threads.iter().map(|(thread, counts)| Self::new(zone, *thread as i64, counts));
        std::iter::once(Self::new(zone, -1, &sum)).chain(each).collect()
    }
}

/// One thread's time while recording was on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_thread_stats {
    /// The thread's number, in the order in which threads first recorded.
    pub thread: u64,
    /// Nanoseconds in methods, waiting left out.
    pub working_ns: u64,
    /// Nanoseconds that it waited in methods for other threads.
    pub waiting_ns: u64,
    /// Nanoseconds in no method: parked until there is work, or in code that isn't measured.
    pub idle_ns: u64,
}

// SAFETY: repr(C); integers.
unsafe impl Versioned for sm_thread_stats {
    const NAME: &'static str = "sm_thread_stats";

    fields!(thread, working_ns, waiting_ns, idle_ns);
}

impl sm_thread_stats {
    fn new(stats: &ThreadStats) -> Self {
        Self {
            thread: stats.thread as u64,
            working_ns: stats.working_ns,
            waiting_ns: stats.waiting_ns,
            idle_ns: stats.idle_ns,
        }
    }
}

/// Chooses which counters are read while recording is on: `SM_COUNT_*`. A thread takes up to ten file descriptors for
/// it, all threads together at most a quarter of those that the process may have.
#[unsafe(no_mangle)]
pub extern "C" fn sm_profile_count(what: i32) -> sm_status {
    boundary::call(|| {
        profile::set_counting(match what {
            SM_COUNT_NOTHING => Counting::Off,
            SM_COUNT_ZONES => Counting::Zones,
            SM_COUNT_EVERYTHING => Counting::Everything,
            _ => return Err(Failure::invalid(format!("what is {what}, which is none of SM_COUNT_*"))),
        });
        Ok(())
    })
}

/// Writes the counters of the whole recording, then of each zone whose counters were read, in the order of
/// `sm_profile_snapshot`; of all threads together, then of each. `stride` is `sizeof(sm_zone_counters)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_counters(
    counters: *mut sm_zone_counters,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        let rows = sm_zone_counters::all(&profile::snapshot());
        buffers::give_structs(rows.into_iter(), counters, stride, capacity, count)
    })
}

/// Which counters are missing and why, a line for each reason; no text where all are there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_counters_missing(
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> sm_status {
    let lines =
        || -> String { profile::counters::missing().iter().map(|missing| format!("{missing}\n")).collect() };
    // SAFETY: by the header, `text` is NULL or writable for `capacity` bytes, `length` NULL or writable.
    boundary::call_with_spare(|| unsafe {
        buffers::give_text(lines().as_bytes(), text, capacity, length, "text")
    })
}

/// Writes each thread's time. `stride` is `sizeof(sm_thread_stats)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_profile_threads(
    threads: *mut sm_thread_stats,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: by the header, the array is NULL or writable for `capacity` elements, `stride` bytes apart, and
    // `count` is NULL or writable; a context is NULL or live.
    boundary::call_with_spare(|| unsafe {
        let _held = hold_snapshot()?;
        let snapshot = profile::snapshot();
        buffers::give_structs(
            snapshot.threads.iter().map(sm_thread_stats::new),
            threads,
            stride,
            capacity,
            count,
        )
    })
}
