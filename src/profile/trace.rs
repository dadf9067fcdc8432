//! A timeline: the scopes of a stretch of time one by one, with their beginning and end, for each thread.
//! Off it costs a load a scope. Each thread writes into a buffer of fixed size that it alone writes.

use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{Zone, clock, pool};
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
}

/// What [`stop`] and [`last`] give.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In the order of their beginnings, an outer one before what is inside.
    pub events: Vec<TraceEvent>,
    /// Scopes for which there was no room.
    pub dropped: u64,
}

/// The buffer of one thread.
pub(super) struct Events {
    slots: Box<[Slot]>,
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
        let (len, lost) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Box::leak(Box::new(Events { slots: slots.into_boxed_slice(), len, lost })))
    }

    /// Notes a scope; by the buffer's thread alone.
    #[inline]
    pub fn push(&self, zone: u16, depth: u32, start: u64, end: u64) {
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
        self.len.store(len + 1, Release);
    }

    fn clear(&self) {
        self.len.store(0, Relaxed);
        self.lost.store(0, Relaxed);
    }
}

/// Starts noting the scopes that end from now on, up to `capacity` on each thread; what was noted before is
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
        // SAFETY: what is put there lives for ever.
        match unsafe { table.events.load(Acquire).as_ref() } {
            Some(events) if events.slots.len() >= capacity => events.clear(),
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

/// Ends the trace, if one is under way, and gives what was noted.
pub fn stop() -> Trace {
    TRACING.store(false, Relaxed);
    last()
}

/// What was noted since the last [`start`], so far.
pub fn last() -> Trace {
    let registry = pool::registry();
    let mut trace = Trace::default();
    let (began, ns_per_tick) = (BEGAN.load(Relaxed), clock::ns_per_tick());
    let ns = |ticks: u64| (ticks as f64 * ns_per_tick) as u64;
    for (thread, table) in registry.tables.iter().enumerate() {
        // SAFETY: what is put there lives for ever.
        let Some(events) = (unsafe { table.events.load(Acquire).as_ref() }) else { continue };
        let len = events.len.load(Acquire);
        trace.dropped += events.lost.load(Relaxed);
        for Slot([what, from, to]) in &events.slots[..len] {
            let (what, from, to) = (what.load(Relaxed), from.load(Relaxed).max(began), to.load(Relaxed));
            trace.events.extend(Zone::from_index(what as u16).map(|zone| TraceEvent {
                zone,
                thread,
                depth: (what >> 16) as usize,
                start_ns: ns(from - began),
                duration_ns: ns(to.saturating_sub(from)),
            }));
        }
    }
    trace.events.sort_by_key(|event| (event.start_ns, event.thread, event.depth));
    trace
}
