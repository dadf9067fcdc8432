//! A place in a thread's call tree: its figures, written by the thread alone, readable by any at any time.
//! A sequence number lets a reader see the figures as they belong together.

use std::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use std::time::Duration;

use super::Zone;
use super::alloc::AllocCounts;
use super::histogram::{BUCKETS, bucket};
use super::zone::LIMIT;

/// Numbers of a node, its histogram aside.
const FIGURES: usize = 13;

/// A path in the tree: the zones of one node and its ancestors.
pub(super) struct Node {
    pub zone: AtomicU16,
    pub parent: AtomicU16,
    /// Odd while the owner changes the figures, that is, all below up to the histogram.
    sequence: AtomicU32,
    calls: AtomicU64,
    ticks: AtomicU64,
    self_ticks: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    /// Sum of squared ticks, the bits of an f64: u64 would overflow after a few long scopes.
    squares: AtomicU64,
    flops: AtomicU64,
    bytes: AtomicU64,
    alloc_count: AtomicU64,
    alloc_bytes: AtomicU64,
    /// Most bytes that one scope held beyond what its thread held before.
    peak_bytes: AtomicU64,
    /// Time that was given to another thread's scope, in it and outside of children.
    assist_ticks: AtomicU64,
    assist_self_ticks: AtomicU64,
    histogram: [AtomicU32; BUCKETS],
    /// The child of each zone, 0 for none (the root is nobody's child).
    pub children: [AtomicU16; LIMIT],
}

/// A node's figures as read by another thread.
pub(super) struct NodeReading {
    pub zone: Zone,
    /// Number of the parent node; 0 is the root.
    pub parent: usize,
    pub calls: u64,
    pub ticks: u64,
    pub self_ticks: u64,
    pub min: u64,
    pub max: u64,
    pub squares: f64,
    pub flops: u64,
    pub bytes: u64,
    pub alloc: AllocCounts,
    pub peak_bytes: u64,
    pub assist_ticks: u64,
    pub assist_self_ticks: u64,
    pub histogram: Box<[u64; BUCKETS]>,
}

/// Adds without a locked instruction: only the owner writes.
#[inline(always)]
pub(super) fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

impl Node {
    /// Counts a scope that ended: ticks, ticks without children, operations and bytes.
    pub fn settle(&self, assists: bool, figures: [u64; 4]) {
        self.write(|| self.count(assists, figures));
        if !assists {
            self.count_in_histogram(figures[0]);
        }
    }

    /// Changes the figures so that readers see all of the change or none.
    #[inline(always)]
    fn write(&self, change: impl FnOnce()) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        change();
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    #[inline(always)]
    fn count(&self, assists: bool, [ticks, self_ticks, flops, bytes]: [u64; 4]) {
        if assists {
            self.assist(ticks, self_ticks);
        } else {
            self.record(ticks, self_ticks);
        }
        add(&self.flops, flops);
        add(&self.bytes, bytes);
    }

    /// Counts allocations outside of children, and a peak.
    pub fn count_allocations(&self, own: AllocCounts, peak: u64) {
        self.write(|| {
            add(&self.alloc_count, own.count);
            add(&self.alloc_bytes, own.bytes);
            if peak > self.peak_bytes.load(Relaxed) {
                self.peak_bytes.store(peak, Relaxed);
            }
        });
    }

    #[inline(always)]
    fn record(&self, ticks: u64, self_ticks: u64) {
        let calls = self.calls.load(Relaxed);
        if calls == 0 || ticks < self.min.load(Relaxed) {
            self.min.store(ticks, Relaxed);
        }
        if ticks > self.max.load(Relaxed) {
            self.max.store(ticks, Relaxed);
        }
        self.calls.store(calls + 1, Relaxed);
        add(&self.ticks, ticks);
        add(&self.self_ticks, self_ticks);
        let squares = f64::from_bits(self.squares.load(Relaxed)) + (ticks as f64) * (ticks as f64);
        self.squares.store(squares.to_bits(), Relaxed);
    }

    #[inline(always)]
    fn assist(&self, ticks: u64, self_ticks: u64) {
        add(&self.assist_ticks, ticks);
        add(&self.assist_self_ticks, self_ticks);
    }

    #[inline(always)]
    fn count_in_histogram(&self, ticks: u64) {
        let count = &self.histogram[bucket(ticks)];
        count.store(count.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// Zeroes the figures.
    pub fn clear(&self) {
        self.figures().into_iter().for_each(|figure| figure.store(0, Relaxed));
        self.histogram.iter().for_each(|count| count.store(0, Relaxed));
    }

    /// Reads until the owner left the figures alone for the time of a reading: a fraction of a microsecond, so that few
    /// tries are enough even while the owner does nothing but record. Where it lost its core in the middle of a
    /// change, sleeping gives it time to come back; after a fifth of a second of that the figures may belong to
    /// two moments, which is better than not to return.
    pub fn read(&self) -> Option<NodeReading> {
        let mut figures = self.read_figures();
        for attempt in 0..1100 {
            let before = self.sequence.load(Acquire);
            figures = self.read_figures();
            fence(Acquire);
            if before & 1 == 0 && self.sequence.load(Relaxed) == before {
                break;
            }
            match attempt {
                0..100 => std::hint::spin_loop(),
                _ => std::thread::sleep(Duration::from_micros(200)),
            }
        }
        let [calls, ticks, self_ticks, min, max, squares, flops, bytes, ..] = figures;
        let [.., alloc_count, alloc_bytes, peak_bytes, assist_ticks, assist_self_ticks] = figures;
        let mut histogram = Box::new([0; BUCKETS]);
        for (to, from) in histogram.iter_mut().zip(&self.histogram) {
            *to = from.load(Relaxed) as u64;
        }
        Some(NodeReading {
            zone: Zone::from_index(self.zone.load(Relaxed))?,
            parent: self.parent.load(Relaxed) as usize,
            calls,
            ticks,
            self_ticks,
            min,
            max,
            squares: f64::from_bits(squares),
            flops,
            bytes,
            alloc: AllocCounts { count: alloc_count, bytes: alloc_bytes },
            peak_bytes,
            assist_ticks,
            assist_self_ticks,
            histogram,
        })
    }

    fn read_figures(&self) -> [u64; FIGURES] {
        self.figures().map(|figure| figure.load(Relaxed))
    }

    /// The numbers that a scope's end changes, without the histogram.
    fn figures(&self) -> [&AtomicU64; FIGURES] {
        [
            &self.calls,
            &self.ticks,
            &self.self_ticks,
            &self.min,
            &self.max,
            &self.squares,
            &self.flops,
            &self.bytes,
            &self.alloc_count,
            &self.alloc_bytes,
            &self.peak_bytes,
            &self.assist_ticks,
            &self.assist_self_ticks,
        ]
    }
}
