//! Where time and memory went: named scopes, counted a thread at a time, merged when asked.
//! Off, a scope costs one predictable branch; on, two clock reads and a handful of adds in a table of the
//! thread's own, without a lock or an allocation.
//!
//! ```
//! use smallmind::profile::{self, Zone};
//! profile::set_enabled(true);
//! {
//!     let _scope = profile::scope(Zone::MatMul).work(2 * 8 * 8 * 8, 3 * 8 * 8 * 4);
//!     // the work
//! }
//! println!("{}", profile::render_table(&profile::snapshot()));
//! # profile::set_enabled(false);
//! ```
//!
//! A scope belongs to the thread that opened it, and its parent is the scope open around it there; workers
//! of a team take the path of the thread that started the region ([`adopt`]), so their ops stand under
//! the decode step they serve. Scopes that find no room are counted in [`Snapshot::dropped`].
//!
//! Counters of the system and the processor (page faults, cache misses) are read over all of the recording and in a
//! host's zones; in every scope on request: see [`counters`].

pub mod alloc;
pub mod clock;
pub mod counters;
#[cfg_attr(not(feature = "capi"), allow(dead_code, reason = "the C ABI holds memory for reports by it"))]
pub(crate) mod extent;
mod histogram;
mod host;
mod node;
mod os;
mod owner;
mod pool;
mod report;
mod snapshot;
mod table;
mod tally;
pub mod trace;
mod zone;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub use alloc::CountingAllocator;
pub use counters::{Counter, Counting, Counts, counting, set_counting};
pub use host::{zone_begin, zone_end, zone_work};
pub use owner::{Owned, Owner};
pub use report::render_table;
pub use snapshot::{Lane, MethodStats, Snapshot, ThreadCounts, ThreadStats, snapshot, snapshot_of};
pub use table::Path;
use table::Role;
pub use tally::Tally;
pub use zone::{MAX_NAME_BYTES, MAX_NAMED, Zone, zone};

/// Not asked yet, off, or on.
static STATE: AtomicU8 = AtomicU8::new(UNASKED);
const UNASKED: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// Environment variable that switches recording on from the start: anything but nothing, `0` and `off`.
pub const VARIABLE: &str = "SMALLMIND_PROFILE";

/// Switches recording on or off, for the whole process. The record stays until [`reset`].
/// Scopes already open are recorded if recording was on when they were opened.
pub fn set_enabled(on: bool) {
    let mut registry = pool::registry();
    registry.switch(on);
    STATE.store(if on { ON } else { OFF }, Relaxed);
}

/// Whether scopes are recorded: as [`set_enabled`] said last, else as the environment says ([`VARIABLE`]).
#[inline(always)]
pub fn enabled() -> bool {
    match STATE.load(Relaxed) {
        OFF => false,
        ON => true,
        _ => enabled_by_environment(),
    }
}

#[cold]
fn enabled_by_environment() -> bool {
    let value = std::env::var_os(VARIABLE);
    let on = value.is_some_and(|value| !value.is_empty() && value != "0" && value != "off");
    let mut registry = pool::registry();
    if STATE.load(Relaxed) == UNASKED {
        registry.switch(on);
        STATE.store(if on { ON } else { OFF }, Relaxed);
    }
    STATE.load(Relaxed) == ON
}

/// Forgets the record. Scopes open now count from now on.
pub fn reset() {
    pool::registry().reset();
}

/// Gives the calling thread its table now, so that its first scope allocates nothing.
pub fn prepare_thread() {
    // Without memory the thread's scopes are counted as dropped.
    let _ = pool::table();
}

/// Opens a scope that ends when the value is dropped.
#[inline(always)]
pub fn scope(zone: Zone) -> Scope {
    Scope::open(zone, Role::Call, None)
}

/// Opens a scope whose counters are read even where the library's aren't ([`Counting::Zones`]): for pieces of a
/// program that take some microseconds or more.
#[inline]
pub fn counted(zone: Zone) -> Scope {
    let token = if enabled() { begin(zone, None, true) } else { None };
    Scope { token, role: Role::Call, flops: 0, bytes: 0, this_thread: PhantomData }
}

/// Opens a scope that began at a moment already read.
#[inline(always)]
pub fn scope_at(zone: Zone, moment: Moment) -> Scope {
    Scope::open(zone, Role::Call, moment.0)
}

/// Opens a scope for this thread's share in a call whose clock another thread keeps: its time counts as the
/// zone's, but not as a call.
#[inline(always)]
pub fn assist(zone: Zone) -> Scope {
    Scope::open(zone, Role::Assist, None)
}

/// The same from a moment already read.
#[inline(always)]
pub fn assist_at(zone: Zone, moment: Moment) -> Scope {
    Scope::open(zone, Role::Assist, moment.0)
}

#[inline(never)]
fn begin(zone: Zone, at: Option<u64>, counted: bool) -> Option<table::Token> {
    let counted = match counting() {
        Counting::Off => false,
        Counting::Zones => counted,
        Counting::Everything => true,
    };
    match pool::table() {
        Some(table) => table.begin(zone, at, counted),
        None => {
            pool::count_dropped();
            None
        }
    }
}

#[inline(never)]
fn end(token: table::Token, role: Role, work: [u64; 2], at: Option<u64>) {
    let now = at.unwrap_or_else(clock::now);
    if let Some(table) = pool::table_if_any() {
        table.end(token, role, work, now);
    }
}

/// A moment, at which one scope ends and another begins: each clock read keeps the processor from working ahead.
/// Nothing while recording is off.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Option<u64>);

impl Moment {
    /// This moment.
    #[inline(always)]
    pub fn now() -> Moment {
        Moment(if enabled() { Some(clock::now()) } else { None })
    }
}

/// An open scope: its time and its thread's allocations count for its zone until it is dropped.
#[must_use = "a scope ends when it is dropped: bind it to a name"]
pub struct Scope {
    token: Option<table::Token>,
    role: Role,
    flops: u64,
    bytes: u64,
    /// Not Send, not Sync: the table is the thread's.
    this_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

impl Scope {
    #[inline(always)]
    fn open(zone: Zone, role: Role, at: Option<u64>) -> Self {
        let token = if enabled() { begin(zone, at, false) } else { None };
        Scope { token, role, flops: 0, bytes: 0, this_thread: PhantomData }
    }

    /// Declares the work done in this scope: floating-point operations (a multiply-add is two), and bytes
    /// that must be read or written at least once. Declare it where it is done, not again around it: sums
    /// over children are made by the snapshot.
    #[inline(always)]
    pub fn work(mut self, flops: u64, bytes: u64) -> Self {
        self.add_work(flops, bytes);
        self
    }

    /// Adds to the declared work, for scopes that learn it on the way.
    #[inline(always)]
    pub fn add_work(&mut self, flops: u64, bytes: u64) {
        self.flops = self.flops.wrapping_add(flops);
        self.bytes = self.bytes.wrapping_add(bytes);
    }
}

impl Scope {
    /// Ends the scope at a moment already read.
    #[inline(always)]
    pub fn end_at(mut self, moment: Moment) {
        self.close(moment.0);
    }

    #[inline(always)]
    fn close(&mut self, at: Option<u64>) {
        if let Some(token) = self.token.take() {
            end(token, self.role, [self.flops, self.bytes], at);
        }
    }
}

impl Drop for Scope {
    #[inline(always)]
    fn drop(&mut self) {
        self.close(None);
    }
}

/// Where the calling thread's next scope would hang; `None` while recording is off.
pub fn current_path() -> Option<Path> {
    if !enabled() {
        return None;
    }
    pool::table().map(table::Table::path)
}

/// Hangs the calling thread's scopes below another thread's path, until the value is dropped.
#[inline]
pub fn adopt(path: Option<&Path>) -> Adopted {
    let table = path.and_then(|_| pool::table());
    let before = table.zip(path).map(|(table, path)| table.enter(path));
    let counts = path.is_some_and(|path| path.counted);
    let stretch = table.filter(|_| counts).map(table::Table::begin_stretch);
    Adopted { before, stretch, this_thread: PhantomData }
}

/// Ends an [`adopt`] when dropped.
#[must_use = "the path is adopted until this is dropped"]
pub struct Adopted {
    before: Option<table::Place>,
    stretch: Option<table::Stretch>,
    this_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Adopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adopted").finish_non_exhaustive()
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if let Some((before, table)) = self.before.zip(pool::table_if_any()) {
            if let Some(stretch) = &self.stretch {
                table.end_stretch(stretch);
            }
            table.leave(before);
        }
    }
}
