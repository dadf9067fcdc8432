//! All threads' tables merged into one tree by path, and into one list by zone.
//! Figures are made once, here, from sums that were taken from one pair of clock reads a scope.

use super::alloc::AllocCounts;
use super::histogram::{BUCKETS, percentile};
use super::table::NodeReading;
use super::{Zone, clock, pool};

/// What was recorded since the last reset, up to now. Scopes still open are not in it; their children are.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The call tree: a parent stands before its children, siblings by falling time.
    pub nodes: Vec<MethodStats>,
    /// Scopes that weren't recorded: tree or stack full, no memory for a table, or ended after their parent.
    pub dropped: u64,
    /// Nanoseconds that recording was on: what shares of time are shares of.
    pub wall_ns: u64,
    /// Length of a clock tick in nanoseconds: no time is known better than this.
    pub ns_per_tick: f64,
    records: Vec<Record>,
}

/// Figures of one node of the call tree, or of one zone.
///
/// Times are summed over the threads that worked in it, except `busiest_ns`. `flops`, `bytes` and the
/// allocations contain those of the scopes inside.
#[derive(Clone, Debug)]
pub struct MethodStats {
    /// The zone.
    pub zone: Zone,
    /// Its name.
    pub name: &'static str,
    /// Index of the parent in [`Snapshot::nodes`]; `None` for a root, and in lists by zone.
    pub parent: Option<usize>,
    /// Ancestors in the tree.
    pub depth: usize,
    /// Scopes that ended.
    pub calls: u64,
    /// Threads on which it took time.
    pub threads: usize,
    /// Time in it, children included, summed over threads.
    pub total_ns: u64,
    /// Time in it, children included, of the thread with most: for an op all threads share, what it took.
    pub busiest_ns: u64,
    /// Time in it outside its children, summed over threads.
    pub self_ns: u64,
    /// Shortest scope.
    pub min_ns: u64,
    /// Mean of the scopes.
    pub mean_ns: u64,
    /// Longest scope.
    pub max_ns: u64,
    /// Standard deviation of the scopes.
    pub std_ns: u64,
    /// Half of the scopes were no longer than this (within 6 %, as the next two).
    pub p50_ns: u64,
    /// 95 % of the scopes were no longer than this.
    pub p95_ns: u64,
    /// 99 % of the scopes were no longer than this.
    pub p99_ns: u64,
    /// Floating-point operations declared.
    pub flops: u64,
    /// Bytes moved, as declared.
    pub bytes: u64,
    /// Bytes allocated.
    pub alloc_bytes: u64,
    /// Allocations.
    pub alloc_count: u64,
    /// Bytes allocated outside its children.
    pub self_alloc_bytes: u64,
}

impl MethodStats {
    /// 10⁹ declared operations a second, over the busiest thread's time; 0 where no time was measured.
    pub fn gflops(&self) -> f64 {
        rate(self.flops, self.busiest_ns)
    }

    /// 10⁹ declared bytes a second, over the busiest thread's time; 0 where no time was measured.
    pub fn gbps(&self) -> f64 {
        rate(self.bytes, self.busiest_ns)
    }
}

fn rate(amount: u64, ns: u64) -> f64 {
    if ns == 0 { 0.0 } else { amount as f64 / ns as f64 }
}

/// Sums over threads, in ticks.
#[derive(Clone, Debug)]
struct Record {
    zone: Zone,
    parent: Option<usize>,
    calls: u64,
    /// Inclusive ticks of each table.
    lanes: Vec<u64>,
    /// Ticks of all scopes, those inside a scope of their own zone too: what the mean is of.
    scope_ticks: u64,
    self_ticks: u64,
    min: u64,
    max: u64,
    squares: f64,
    flops: u64,
    bytes: u64,
    alloc: AllocCounts,
    self_alloc_bytes: u64,
    histogram: Box<[u64; BUCKETS]>,
}

impl Record {
    fn new(zone: Zone, parent: Option<usize>, lanes: usize) -> Self {
        Self {
            zone,
            parent,
            calls: 0,
            lanes: vec![0; lanes],
            scope_ticks: 0,
            self_ticks: 0,
            min: u64::MAX,
            max: 0,
            squares: 0.0,
            flops: 0,
            bytes: 0,
            alloc: AllocCounts::default(),
            self_alloc_bytes: 0,
            histogram: Box::new([0; BUCKETS]),
        }
    }

    fn add_reading(&mut self, reading: &NodeReading, lane: usize) {
        self.calls += reading.calls;
        self.lanes[lane] += reading.ticks;
        self.scope_ticks += reading.ticks;
        self.self_ticks += reading.self_ticks;
        if reading.calls > 0 {
            self.min = self.min.min(reading.min);
        }
        self.max = self.max.max(reading.max);
        self.squares += reading.squares;
        self.flops = self.flops.saturating_add(reading.flops);
        self.bytes = self.bytes.saturating_add(reading.bytes);
        self.add_alloc(reading.alloc);
        self.self_alloc_bytes += reading.alloc.bytes;
        add_histogram(&mut self.histogram, &reading.histogram);
    }

    fn add_alloc(&mut self, alloc: AllocCounts) {
        self.alloc.count = self.alloc.count.saturating_add(alloc.count);
        self.alloc.bytes = self.alloc.bytes.saturating_add(alloc.bytes);
    }

    /// Adds another node of the same zone. Inside a node of its own zone (`nested`), what includes its
    /// children is in the outer node already.
    fn add_record(&mut self, other: &Record, nested: bool) {
        self.calls += other.calls;
        self.scope_ticks += other.scope_ticks;
        self.self_ticks += other.self_ticks;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.squares += other.squares;
        self.self_alloc_bytes += other.self_alloc_bytes;
        add_histogram(&mut self.histogram, &other.histogram);
        if !nested {
            self.lanes.iter_mut().zip(&other.lanes).for_each(|(to, from)| *to += from);
            self.flops = self.flops.saturating_add(other.flops);
            self.bytes = self.bytes.saturating_add(other.bytes);
            self.add_alloc(other.alloc);
        }
    }

    fn stats(&self, depth: usize, ns_per_tick: f64) -> MethodStats {
        let ns = |ticks: f64| (ticks * ns_per_tick).round() as u64;
        let total: u64 = self.lanes.iter().sum();
        let calls = self.calls.max(1) as f64;
        let min = if self.calls == 0 { 0 } else { self.min };
        let mean = self.scope_ticks as f64 / calls;
        let variance = (self.squares / calls - mean * mean).max(0.0);
        let at = |p| ns(percentile(&self.histogram, p).clamp(min as f64, self.max as f64));
        MethodStats {
            zone: self.zone,
            name: self.zone.name(),
            parent: self.parent,
            depth,
            calls: self.calls,
            threads: self.lanes.iter().filter(|&&ticks| ticks > 0).count(),
            total_ns: ns(total as f64),
            busiest_ns: ns(self.lanes.iter().copied().max().unwrap_or(0) as f64),
            self_ns: ns(self.self_ticks as f64),
            min_ns: ns(min as f64),
            mean_ns: ns(mean),
            max_ns: ns(self.max as f64),
            std_ns: ns(variance.sqrt()),
            p50_ns: at(0.5),
            p95_ns: at(0.95),
            p99_ns: at(0.99),
            flops: self.flops,
            bytes: self.bytes,
            alloc_bytes: self.alloc.bytes,
            alloc_count: self.alloc.count,
            self_alloc_bytes: self.self_alloc_bytes,
        }
    }
}

fn add_histogram(to: &mut [u64; BUCKETS], from: &[u64; BUCKETS]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Merges what all threads have recorded since the last reset. Other threads may go on recording.
pub fn snapshot() -> Snapshot {
    let ns_per_tick = clock::ns_per_tick();
    // Held to the end, so that no reset comes in between.
    let registry = pool::registry();
    let lanes = registry.tables.len();
    let mut dropped = pool::without_table();
    let mut records: Vec<Record> = Vec::new();
    for (lane, table) in registry.tables.iter().enumerate().filter(|(_, table)| table.is_current()) {
        dropped += table.dropped();
        // Where each of the table's nodes went; its root has no record.
        let mut merged: Vec<Option<usize>> = vec![None];
        for reading in table.read() {
            let parent = merged.get(reading.parent).copied().flatten();
            let known = records.iter().position(|r| r.zone == reading.zone && r.parent == parent);
            let index = known.unwrap_or_else(|| {
                records.push(Record::new(reading.zone, parent, lanes));
                records.len() - 1
            });
            records[index].add_reading(&reading, lane);
            merged.push(Some(index));
        }
    }
    let wall_ns = (registry.wall_ticks() as f64 * ns_per_tick) as u64;
    drop(registry);
    sum_into_parents(&mut records);
    let records = in_preorder(&records);
    let nodes = tree_stats(&records, ns_per_tick);
    Snapshot { nodes, dropped, wall_ns, ns_per_tick, records }
}

/// Work and allocations of children become their parents' too. A parent stands before its children.
fn sum_into_parents(records: &mut [Record]) {
    for index in (0..records.len()).rev() {
        let Record { parent: Some(parent), flops, bytes, alloc, .. } = records[index] else { continue };
        records[parent].flops = records[parent].flops.saturating_add(flops);
        records[parent].bytes = records[parent].bytes.saturating_add(bytes);
        records[parent].add_alloc(alloc);
    }
}

/// Parents before children, siblings by falling time; nodes in which nothing was ever recorded (left over
/// from before a reset) are left out.
fn in_preorder(records: &[Record]) -> Vec<Record> {
    let mut busy: Vec<u64> = records.iter().map(|r| r.lanes.iter().copied().max().unwrap_or(0)).collect();
    let mut alive: Vec<bool> = records.iter().map(|r| r.calls > 0).collect();
    for index in (0..records.len()).rev() {
        if let Some(parent) = records[index].parent {
            alive[parent] |= alive[index];
            // A parent that is still open has no time of its own yet: its children place it.
            busy[parent] = busy[parent].max(busy[index]);
        }
    }
    let children_of = |parent: Option<usize>| {
        let mut children: Vec<usize> =
            (0..records.len()).filter(|&i| alive[i] && records[i].parent == parent).collect();
        children.sort_by_key(|&i| busy[i]); // the stack below turns this round
        children
    };
    let mut ordered: Vec<Record> = Vec::with_capacity(records.len());
    let mut stack: Vec<(usize, Option<usize>)> = children_of(None).into_iter().map(|i| (i, None)).collect();
    while let Some((index, parent)) = stack.pop() {
        let place = ordered.len();
        ordered.push(Record { parent, ..records[index].clone() });
        stack.extend(children_of(Some(index)).into_iter().map(|child| (child, Some(place))));
    }
    ordered
}

fn tree_stats(records: &[Record], ns_per_tick: f64) -> Vec<MethodStats> {
    let mut stats: Vec<MethodStats> = Vec::with_capacity(records.len());
    for record in records {
        let depth = record.parent.map_or(0, |parent| stats[parent].depth + 1);
        stats.push(record.stats(depth, ns_per_tick));
    }
    stats
}

impl Snapshot {
    /// One entry for each zone, wherever in the tree it was, by falling time. Where a zone stands inside
    /// itself, its time counts once.
    pub fn by_zone(&self) -> Vec<MethodStats> {
        let lanes = self.records.first().map_or(0, |record| record.lanes.len());
        let mut zones: Vec<Option<Record>> = vec![None; Zone::COUNT];
        for record in &self.records {
            let nested = self.ancestors(record).any(|ancestor| ancestor.zone == record.zone);
            zones[record.zone as usize]
                .get_or_insert_with(|| Record::new(record.zone, None, lanes))
                .add_record(record, nested);
        }
        let recorded = zones.iter().flatten().filter(|record| record.calls > 0);
        let mut stats: Vec<MethodStats> = recorded.map(|r| r.stats(0, self.ns_per_tick)).collect();
        stats.sort_by_key(|s| std::cmp::Reverse(s.busiest_ns));
        stats
    }

    /// The figures of one zone, wherever in the tree it was.
    pub fn zone(&self, zone: Zone) -> Option<MethodStats> {
        self.by_zone().into_iter().find(|stats| stats.zone == zone)
    }

    /// Share of the recorded time that a method took on its busiest thread, 0 to 1.
    pub fn share(&self, stats: &MethodStats) -> f64 {
        rate(stats.busiest_ns, self.wall_ns)
    }

    fn ancestors<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = &'a Record> {
        std::iter::successors(record.parent, |&i| self.records[i].parent).map(|i| &self.records[i])
    }
}
