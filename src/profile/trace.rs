//! A timeline: the scopes of a stretch of time one by one, with their beginning and end, for each thread.
//! Off it costs a load a scope. Each thread writes into a buffer of fixed size that it alone writes.

use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::counters::{AtomicCounts, Counting, Counts, counting};
use super::{Zone, clock, pool};
use crate::sort;
use crate::{Error, Result};

/// Most events that a thread may keep.
pub const MAX_EVENTS: usize = 1 << 20;

/// A scope that ended while it was traced.
#[derive(Clone, Debug)]
pub struct TraceEvent {
    /// Its zone.
    pub zone: Zone,
    /// The thread's number in the order in which threads first recorded.
    pub thread: usize,
    /// Scopes around it on its thread.
    pub depth: usize,
    /// Its beginning, from that of the trace.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// What was counted of its thread when it ended, from the first such reading of the trace on; none where its
    /// counters weren't read.
    pub counts: Option<Counts>,
}

/// The scopes of a stretch of time, from [`stop`] and [`last`].
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of their beginnings, an outer one before those inside.
    pub events: Vec<TraceEvent>,
    /// Scopes for which there was no room.
    pub dropped: u64,
}

/// The buffer of one thread.
pub(super) struct Events {
    slots: Box<[Slot]>,
    /// Readings at the ends of the same scopes; empty where scopes aren't counted.
    counts: Box<[AtomicCounts]>,
    /// Slots in use, and those that were needed beyond.
    len: AtomicUsize,
    lost: AtomicU64,
}

/// Zone and depth, beginning, end.
struct Slot([AtomicU64; 3]);

/// A trace is under way.
static TRACING: AtomicBool = AtomicBool::new(false);
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static BEGAN: AtomicU64 = AtomicU64::new(0);

impl Events {
    /// A buffer that lives for ever: a thread may be about to write into it at any time.
    fn leak_new(capacity: usize) -> Result<&'static Events> {
        let mut slots = Vec::new();
        let bytes = capacity.saturating_mul(size_of::<Slot>());
        slots.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory { bytes, what: "a trace" })?;
        slots.extend((0..capacity).map(|_| Slot([const { AtomicU64::new(0) }; 3])));
        let mut counts = Vec::new();
        if counting() == Counting::Everything {
            let bytes = capacity.saturating_mul(size_of::<AtomicCounts>());
            counts.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory { bytes, what: "a trace" })?;
            counts.extend((0..capacity).map(|_| AtomicCounts::default()));
        }
        let (len, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (slots, counts) = (slots.into_boxed_slice(), counts.into_boxed_slice());
        Ok(Box::leak(Box::new(Events { slots, counts, len, lost })))
    }

    /// Notes a scope; by the buffer's thread alone.
    #[inline]
    pub fn push(&self, zone: u16, depth: u32, [start, end]: [u64; 2], counts: Option<&Counts>) {
        if !TRACING.load(Relaxed) {
            return;
        }
        let len = self.len.load(Relaxed);
        let Some(Slot([what, from, to])) = self.slots.get(len) else {
            self.lost.store(self.lost.load(Relaxed) + 1, Relaxed);
            return;
        };
        what.store(u64::from(zone) | u64::from(depth) << 16, Relaxed);
        from.store(start, Relaxed);
        to.store(end, Relaxed);
        if let Some(cell) = self.counts.get(len) {
            cell.store(counts.unwrap_or(&Counts::default()));
        }
        self.len.store(len + 1, Release);
    }

    /// Whether it holds so many scopes, with their counts where scopes are counted.
    fn has_room(&self, capacity: usize) -> bool {
        let counts = counting() != Counting::Everything || self.counts.len() >= capacity;
        self.slots.len() >= capacity && counts
    }

    fn clear(&self) {
        self.len.store(0, Relaxed);
        self.lost.store(0, Relaxed);
    }
}

/// Starts noting the scopes that end from now on, up to `capacity` on each thread; scopes noted before are
/// forgotten. Recording must be on too. Buffers are never given back: they are used again by the next trace.
///
/// # Errors
/// [`Error::InvalidArgument`] where `capacity` is 0 or more than [`MAX_EVENTS`], or a trace is under way;
/// [`Error::OutOfMemory`].
pub fn start(capacity: usize) -> Result<()> {
    if capacity == 0 || capacity > MAX_EVENTS {
        return Err(Error::invalid(format!("a trace has room for 1 to {MAX_EVENTS} events, not {capacity}")));
    }
    let registry = pool::registry();
    if TRACING.load(Relaxed) {
        return Err(Error::invalid("a trace is under way already"));
    }
    CAPACITY.store(capacity, Relaxed);
    for table in &registry.tables {
        match table.events() {
            Some(events) if events.has_room(capacity) => events.clear(),
            _ => table.events.store(ptr::from_ref(Events::leak_new(capacity)?).cast_mut(), Release),
        }
    }
    BEGAN.store(clock::now(), Relaxed);
    TRACING.store(true, Release);
    Ok(())
}

/// Gives a thread that has just come its buffer, while a trace is under way. Without memory it goes without.
pub(super) fn attach(table: &super::table::Table) {
    if TRACING.load(Acquire)
        && table.events.load(Relaxed).is_null()
        && let Ok(events) = Events::leak_new(CAPACITY.load(Relaxed))
    {
        table.events.store(ptr::from_ref(events).cast_mut(), Release);
    }
}

/// Ends the trace, if one is under way, and returns the scopes that it noted.
pub fn stop() -> Trace {
    TRACING.store(false, Relaxed);
    last()
}

/// Number of scopes noted since the last [`start`], so far.
pub(super) fn noted() -> usize {
    pool::registry()
        .tables
        .iter()
        .filter_map(|table| table.events())
        .map(|events| events.len.load(Acquire))
        .sum()
}

/// The scopes noted since the last [`start`], so far.
pub fn last() -> Trace {
    let registry = pool::registry();
    let mut trace = Trace::default();
    let (began, ns_per_tick) = (BEGAN.load(Relaxed), clock::ns_per_tick());
    let ns = |ticks: u64| (ticks as f64 * ns_per_tick) as u64;
    for (thread, table) in registry.tables.iter().enumerate() {
        let Some(events) = table.events() else { continue };
        let len = events.len.load(Acquire);
        trace.dropped += events.lost.load(Relaxed);
        let mut first = None;
        for (index, Slot([what, from, to])) in events.slots[..len].iter().enumerate() {
            let counts =
                events.counts.get(index).map(|cell| cell.load().0).filter(|counts| !counts.is_empty());
            let counts = counts.map(|counts| counts.since(first.get_or_insert(counts)));
            let (what, from, to) = (what.load(Relaxed), from.load(Relaxed).max(began), to.load(Relaxed));
            trace.events.extend(Zone::from_index(what as u16).map(|zone| TraceEvent {
                zone,
                thread,
                depth: (what >> 16) as usize,
                start_ns: ns(from - began),
                duration_ns: ns(to.saturating_sub(from)),
                counts,
            }));
        }
    }
    sort::by_key(&mut trace.events, |event| (event.start_ns, event.thread, event.depth));
    trace
}
