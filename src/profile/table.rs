//! One thread's call tree: fixed in size, written by its thread alone, readable by any at any time.
//! Recording takes no lock and allocates nothing; every field is a relaxed atomic with a single writer.

use std::alloc::{Layout, alloc_zeroed};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::alloc::{self, AllocCounts};
use super::counters::{AtomicCounts, Counts};
use super::node::{Node, NodeReading, add};
use super::os::ThreadCounters;
use super::trace::Events;
use super::{Zone, clock};
use crate::cpu::{Cache, prefetch_line};

/// Nodes of a thread's tree, the root included.
const NODES: usize = 1024;

/// Scopes that may be open at once on a thread.
pub(super) const DEPTH: usize = 64;

const ROOT: usize = 0;

/// Bumped by every reset; a table of an older epoch counts as empty, and its thread clears it when it next
/// records. (A reset can't clear it: only the owner writes.)
pub(super) static EPOCH: AtomicU32 = AtomicU32::new(1);

/// When the last reset was, in ticks: scopes open at that moment count from there.
pub(super) static RESET_AT: AtomicU64 = AtomicU64::new(0);

/// An ended scope that isn't in its node yet. Between two scopes of an op a model's weights drive the nodes out of
/// the caches; so figures wait here, and are added many at a time, when each node has to come only once.
struct Pending {
    node: AtomicU16,
    assists: AtomicBool,
    /// Ticks, without children, operations, bytes.
    figures: [AtomicU64; 4],
}

/// Scopes that may wait. A snapshot by another thread may miss so many of a thread inside of a scope.
const PENDING: usize = 256;

/// An open scope.
struct Frame {
    node: AtomicU16,
    /// The node to go back to.
    outer: AtomicU16,
    /// Whether counters were read when it was opened.
    counted: AtomicBool,
    serial: AtomicU64,
    start: AtomicU64,
    child_ticks: AtomicU64,
    alloc_count: AtomicU64,
    alloc_bytes: AtomicU64,
    child_alloc_count: AtomicU64,
    child_alloc_bytes: AtomicU64,
    /// The two values of [`alloc::begin_peak`].
    held: AtomicU64,
    outer_peak: AtomicU64,
}

/// One thread's measurements. All zeroes is a valid, empty table.
pub(super) struct Table {
    /// Whether a living thread writes it.
    pub owned: AtomicBool,
    epoch: AtomicU32,
    /// Nodes beyond the root.
    extra_nodes: AtomicU32,
    /// Node whose children the next scopes are.
    current: AtomicU16,
    depth: AtomicU32,
    /// How often the tree was cut down to its root: node numbers from before mean nothing.
    generation: AtomicU32,
    serial: AtomicU64,
    dropped: AtomicU64,
    unbalanced: AtomicU64,
    /// Where the ends of scopes are noted one by one, while that is wanted.
    pub events: AtomicPtr<Events>,
    /// What the system counts of the thread.
    pub counters: ThreadCounters,
    n_pending: AtomicU32,
    pending: [Pending; PENDING],
    frames: [Frame; DEPTH],
    nodes: [Node; NODES],
    /// Readings at the beginning of the open scopes that are counted. Apart from frames and nodes, which stay as
    /// small as most scopes need them.
    began: [AtomicCounts; DEPTH],
    /// What was counted in each node, its children included.
    counts: [AtomicCounts; NODES],
}

/// Finds an open scope's frame again.
#[derive(Clone, Copy)]
pub(super) struct Token {
    depth: u32,
    serial: u64,
}

/// A node that was current.
#[derive(Clone, Copy)]
pub(super) struct Place {
    node: u16,
    generation: u32,
}

/// A stretch of a thread's time in a node that is counted though no scope is open.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    place: Place,
    epoch: u32,
    began: Counts,
}

/// How a scope counts for its zone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// As a call.
    Call,
    /// As another thread's share in a call of its.
    Assist,
}

/// A node's position by name: the zones from the root down, cut where it is deeper than 64.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub(super) len: usize,
    pub(super) zones: [u16; DEPTH],
    /// Whether a scope of it is counted, so that threads which take it count what they do for it.
    pub(super) counted: bool,
}

impl Path {
    /// The root.
    pub const ROOT: Path = Path { len: 0, zones: [0; DEPTH], counted: false };
}

impl Table {
    /// An empty table that lives for ever (tables are reused, never freed); `None` where memory is short.
    pub fn leak_new() -> Option<&'static Table> {
        let layout = Layout::new::<Table>();
        // SAFETY: a Table is not zero-sized; zeroes are a valid one, as all its fields are atomics; and the
        // allocation is never freed.
        unsafe { alloc_zeroed(layout).cast::<Table>().as_ref() }
    }

    /// The thread's events, while a trace is under way or was.
    #[inline]
    pub fn events(&self) -> Option<&'static Events> {
        // SAFETY: null, or a buffer that was leaked, so that it lives as long as the process.
        unsafe { self.events.load(Acquire).as_ref() }
    }

    /// Opens a scope below the current node, now or at a moment already read, with its counters if it is `counted`;
    /// `None` (and one more dropped) where the table is full.
    #[inline]
    pub fn begin(&self, zone: Zone, at: Option<u64>, counted: bool) -> Option<Token> {
        self.renew();
        let depth = self.depth.load(Relaxed);
        let outer = self.current.load(Relaxed);
        let Some((frame, node)) = self.frames.get(depth as usize).zip(self.child(outer, zone.index() as u16))
        else {
            add(&self.dropped, 1);
            return None;
        };
        let serial = self.serial.load(Relaxed) + 1;
        self.serial.store(serial, Relaxed);
        frame.node.store(node, Relaxed);
        frame.outer.store(outer, Relaxed);
        frame.serial.store(serial, Relaxed);
        frame.child_ticks.store(0, Relaxed);
        frame.child_alloc_count.store(0, Relaxed);
        frame.child_alloc_bytes.store(0, Relaxed);
        let allocated = alloc::thread_counts();
        frame.alloc_count.store(allocated.count, Relaxed);
        frame.alloc_bytes.store(allocated.bytes, Relaxed);
        let (held, outer_peak) = alloc::begin_peak();
        frame.held.store(held as u64, Relaxed);
        frame.outer_peak.store(outer_peak as u64, Relaxed);
        self.current.store(node, Relaxed);
        self.depth.store(depth + 1, Relaxed);
        prefetch_line(&self.nodes[node as usize].children[Zone::Barrier.index()], Cache::L1);
        frame.counted.store(counted, Relaxed);
        if counted {
            self.began[depth as usize].store(&self.counters.read(true));
        }
        frame.start.store(at.unwrap_or_else(clock::now), Relaxed);
        Some(Token { depth, serial })
    }

    /// Closes a scope, at this moment, and the scopes that were left open inside it.
    #[inline]
    pub fn end(&self, token: Token, role: Role, [flops, bytes]: [u64; 2], now: u64) {
        let allocated = alloc::thread_counts();
        self.renew();
        let depth = self.depth.load(Relaxed);
        let frame = &self.frames[token.depth as usize];
        if depth <= token.depth || frame.serial.load(Relaxed) != token.serial {
            // An enclosing scope ended first, closed this one, and counted it.
            return;
        }
        if depth > token.depth + 1 {
            add(&self.unbalanced, u64::from(depth - token.depth - 1));
        }
        let counts = if frame.counted.load(Relaxed) { self.count_scope(token, frame) } else { None };
        let start = frame.start.load(Relaxed);
        let ticks = now.saturating_sub(start);
        let self_ticks = ticks.saturating_sub(frame.child_ticks.load(Relaxed));
        let alloc_count = allocated.count.wrapping_sub(frame.alloc_count.load(Relaxed));
        let alloc_bytes = allocated.bytes.wrapping_sub(frame.alloc_bytes.load(Relaxed));
        let peak = alloc::end_peak((frame.held.load(Relaxed) as i64, frame.outer_peak.load(Relaxed) as i64));
        let outer = token.depth.checked_sub(1).map(|d| &self.frames[d as usize]);
        if let Some(outer) = outer {
            add(&outer.child_ticks, ticks);
            add(&outer.child_alloc_count, alloc_count);
            add(&outer.child_alloc_bytes, alloc_bytes);
        }
        let number = frame.node.load(Relaxed);
        if alloc_count > 0 {
            let own = AllocCounts { count: alloc_count, bytes: alloc_bytes }.since(AllocCounts {
                count: frame.child_alloc_count.load(Relaxed),
                bytes: frame.child_alloc_bytes.load(Relaxed),
            });
            self.nodes[number as usize].count_allocations(own, peak);
        }
        self.push(number, role, [ticks, self_ticks, flops, bytes]);
        if let Some(events) = self.events() {
            events.push(
                self.nodes[number as usize].zone.load(Relaxed),
                token.depth,
                [start, now],
                counts.as_ref(),
            );
        }
        let outer = frame.outer.load(Relaxed);
        self.current.store(outer, Relaxed);
        self.depth.store(token.depth, Relaxed);
        if outer as usize == ROOT {
            self.settle();
        }
    }

    /// Counts a scope that ends; what was counted so far on this thread, if anything is known.
    #[cold]
    fn count_scope(&self, token: Token, frame: &Frame) -> Option<Counts> {
        let now = self.counters.read(true);
        let counts = now.since(&self.began[token.depth as usize].load().0);
        if counts.is_empty() {
            return None;
        }
        self.counts[frame.node.load(Relaxed) as usize].add(&counts);
        Some(now)
    }

    /// Begins to count what this thread does in its current node.
    pub fn begin_stretch(&self) -> Stretch {
        Stretch { place: self.place(), epoch: self.epoch.load(Relaxed), began: self.counters.read(true) }
    }

    /// Ends a stretch, unless a reset came in between.
    pub fn end_stretch(&self, stretch: &Stretch) {
        let standing = stretch.place.generation == self.generation.load(Relaxed);
        if standing && stretch.epoch == self.epoch.load(Relaxed) && self.is_current() {
            let counts = self.counters.read(true).since(&stretch.began);
            if !counts.is_empty() {
                self.counts[stretch.place.node as usize].add(&counts);
            }
        }
    }

    /// Records a call, or a share in one, that was measured elsewhere, below the current node.
    #[inline]
    pub fn add(&self, zone: Zone, role: Role, ticks: u64, flops: u64, bytes: u64) {
        self.renew();
        let Some(number) = self.child(self.current.load(Relaxed), zone.index() as u16) else {
            add(&self.dropped, 1);
            return;
        };
        let outer = self.depth.load(Relaxed).checked_sub(1);
        if let Some(outer) = outer.and_then(|depth| self.frames.get(depth as usize)) {
            add(&outer.child_ticks, ticks);
        }
        self.push(number, role, [ticks, ticks, flops, bytes]);
    }

    /// Adds work to the current node, if there is one.
    #[inline]
    pub fn add_work(&self, flops: u64, bytes: u64) {
        self.renew();
        let node = self.current.load(Relaxed);
        if node as usize != ROOT {
            self.push(node, Role::Assist, [0, 0, flops, bytes]);
        }
    }

    /// Puts a scope's figures where its table's thread finds room for them at once.
    #[inline]
    fn push(&self, node: u16, role: Role, figures: [u64; 4]) {
        let len = self.n_pending.load(Relaxed) as usize;
        let Some(pending) = self.pending.get(len) else {
            self.settle();
            return self.push(node, role, figures);
        };
        pending.node.store(node, Relaxed);
        pending.assists.store(role == Role::Assist, Relaxed);
        pending.figures.iter().zip(figures).for_each(|(to, figure)| to.store(figure, Relaxed));
        self.n_pending.store(len as u32 + 1, Relaxed);
    }

    /// Adds what is pending to the nodes; by the table's thread alone.
    pub fn settle(&self) {
        self.renew();
        let len = (self.n_pending.load(Relaxed) as usize).min(PENDING);
        for pending in &self.pending[..len] {
            let figures = pending.figures.each_ref().map(|figure| figure.load(Relaxed));
            let node = &self.nodes[pending.node.load(Relaxed) as usize];
            node.settle(pending.assists.load(Relaxed), figures);
        }
        self.n_pending.store(0, Relaxed);
    }

    /// Where the next scope would hang.
    pub fn path(&self) -> Path {
        let mut path = Path::ROOT;
        let mut node = self.current.load(Relaxed);
        while node as usize != ROOT && path.len < DEPTH {
            path.zones[path.len] = self.nodes[node as usize].zone.load(Relaxed);
            path.len += 1;
            node = self.nodes[node as usize].parent.load(Relaxed);
        }
        path.zones[..path.len].reverse();
        let open = &self.frames[..self.depth.load(Relaxed) as usize];
        path.counted = open.iter().any(|frame| frame.counted.load(Relaxed));
        path
    }

    /// Makes the node of this path current, as far as it fits, and returns the node that was current.
    pub fn enter(&self, path: &Path) -> Place {
        self.renew();
        let before = self.place();
        let mut node = ROOT as u16;
        for &zone in &path.zones[..path.len] {
            let Some(child) = self.child(node, zone) else { break };
            node = child;
        }
        self.current.store(node, Relaxed);
        before
    }

    /// Makes the current node's child of this zone current, if there is room for it, and returns the node that was;
    /// none where the zone is on the path already.
    pub fn step_into(&self, zone: Zone) -> Option<Place> {
        self.renew();
        let before = self.place();
        let mut node = before.node;
        while node as usize != ROOT {
            if self.nodes[node as usize].zone.load(Relaxed) as usize == zone.index() {
                return None;
            }
            node = self.nodes[node as usize].parent.load(Relaxed);
        }
        let child = self.child(before.node, zone.index() as u16)?;
        self.current.store(child, Relaxed);
        Some(before)
    }

    fn place(&self) -> Place {
        Place { node: self.current.load(Relaxed), generation: self.generation.load(Relaxed) }
    }

    /// Makes a node current again that [`Table::enter`] or [`Table::step_into`] returned.
    pub fn leave(&self, before: Place) {
        let standing = before.generation == self.generation.load(Relaxed);
        self.current.store(if standing { before.node } else { ROOT as u16 }, Relaxed);
        if self.current.load(Relaxed) as usize == ROOT {
            self.settle();
        }
    }

    /// Forgets open scopes: the owner is gone.
    pub fn close_all(&self) {
        self.settle();
        add(&self.unbalanced, u64::from(self.depth.load(Relaxed)));
        self.depth.store(0, Relaxed);
        self.current.store(ROOT as u16, Relaxed);
    }

    /// The node of `zone` below `parent`, made where it isn't there yet; `None` where the tree is full.
    #[inline]
    fn child(&self, parent: u16, zone: u16) -> Option<u16> {
        match self.nodes[parent as usize].children[zone as usize].load(Relaxed) {
            0 => self.add_node(parent, zone),
            child => Some(child),
        }
    }

    #[cold]
    fn add_node(&self, parent: u16, zone: u16) -> Option<u16> {
        let number = self.extra_nodes.load(Relaxed) + 1;
        let node = self.nodes.get(number as usize)?;
        node.zone.store(zone, Relaxed);
        node.parent.store(parent, Relaxed);
        self.nodes[parent as usize].children[zone as usize].store(number as u16, Relaxed);
        self.extra_nodes.store(number, Release);
        Some(number as u16)
    }

    /// Clears the table where a reset happened since it was last written.
    #[inline(always)]
    fn renew(&self) {
        let epoch = EPOCH.load(Acquire);
        if self.epoch.load(Relaxed) != epoch {
            self.clear(epoch);
        }
    }

    /// Zeroes the figures. Where no scope is open, the tree is cut down to its root as well: paths that the thread
    /// no longer takes would fill it in time. Open scopes point into the tree; they count from the reset on.
    #[cold]
    fn clear(&self, epoch: u32) {
        let bare = self.depth.load(Relaxed) == 0 && self.current.load(Relaxed) as usize == ROOT;
        let used = ..=self.extra_nodes.load(Relaxed) as usize;
        self.counts[used].iter().for_each(AtomicCounts::clear);
        for node in &self.nodes[used] {
            node.clear();
            if bare {
                node.children.iter().for_each(|child| child.store(0, Relaxed));
            }
        }
        if bare {
            self.extra_nodes.store(0, Relaxed);
            self.generation.store(self.generation.load(Relaxed).wrapping_add(1), Relaxed);
        }
        self.n_pending.store(0, Relaxed);
        self.dropped.store(0, Relaxed);
        self.unbalanced.store(0, Relaxed);
        let allocated = alloc::thread_counts();
        let open = ..self.depth.load(Relaxed) as usize;
        for (frame, began) in self.frames[open].iter().zip(&self.began) {
            let start = frame.start.load(Relaxed).max(RESET_AT.load(Relaxed));
            frame.start.store(start, Relaxed);
            frame.child_ticks.store(0, Relaxed);
            frame.alloc_count.store(allocated.count, Relaxed);
            frame.alloc_bytes.store(allocated.bytes, Relaxed);
            frame.child_alloc_count.store(0, Relaxed);
            frame.child_alloc_bytes.store(0, Relaxed);
            if frame.counted.load(Relaxed) {
                began.store(&self.counters.read(true));
            }
        }
        self.epoch.store(epoch, Release);
    }

    /// Whether anything was recorded since the last reset.
    pub fn is_current(&self) -> bool {
        self.epoch.load(Acquire) == EPOCH.load(Acquire)
    }

    /// Nodes beyond the root.
    pub fn n_nodes(&self) -> usize {
        self.extra_nodes.load(Acquire) as usize
    }

    /// Scopes that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Scopes whose parent ended before them, and ends without a beginning.
    pub fn unbalanced(&self) -> u64 {
        self.unbalanced.load(Relaxed)
    }

    /// Counts an end without a beginning.
    pub fn count_unbalanced(&self) {
        self.renew();
        add(&self.unbalanced, 1);
    }

    /// Every node but the root, parents before children, number 1 first: with what was counted there, and in how
    /// many scopes. Counts may miss the latest scope of another thread.
    pub fn read(&self) -> impl Iterator<Item = (NodeReading, (Counts, u64))> + '_ {
        let count = self.extra_nodes.load(Acquire) as usize;
        let counts = self.counts[1..=count].iter().map(AtomicCounts::load);
        self.nodes[1..=count].iter().zip(counts).filter_map(|(node, counts)| Some((node.read()?, counts)))
    }
}
