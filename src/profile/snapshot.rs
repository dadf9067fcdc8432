//! All threads' tables merged into one tree by path, and into one list by zone.
//! Figures are made once, here, from sums that were taken from one pair of clock reads a scope.

use super::alloc::AllocCounts;
use super::counters::Counts;
use super::histogram::{BUCKETS, percentile};
use super::node::NodeReading;
use super::owner::Owner;
use super::table::Table;
use super::zone::LIMIT;
use super::{Zone, clock, pool};
use crate::Result;
use crate::sort;

/// The record since the last reset, up to now. It lacks scopes that are still open, but has their children, except
/// for the latest (256 at most) of other threads.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The call tree: a parent stands before its children, siblings by falling time.
    pub nodes: Vec<MethodStats>,
    /// Scopes that weren't recorded: tree or stack full, or no memory for a table.
    pub dropped: u64,
    /// Scopes that ended after their parent, or not before their thread did, and ends without a beginning.
    pub unbalanced: u64,
    /// Nanoseconds that recording was on: shares of time are shares of these.
    pub wall_ns: u64,
    /// Length of a clock tick in nanoseconds: no time is known better than this.
    pub ns_per_tick: f64,
    /// The time of each thread that recorded anything, or of which anything was counted, in the order of their numbers.
    pub threads: Vec<ThreadStats>,
    records: Vec<Record>,
}

/// Figures of one node of the call tree, or of one zone.
///
/// Times are those of the threads that called it, summed where several did. Of a call that workers share, one
/// thread keeps the clock; the others' shares ([`assist`](super::assist)) are in `cpu_ns`, `idle_ns` and `lanes`.
/// `flops`, `bytes` and the allocations contain those of the scopes inside, and of all threads.
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
    /// Time in it, children included.
    pub total_ns: u64,
    /// The same of the thread with most: the time it took where several threads call it side by side.
    pub busiest_ns: u64,
    /// Time in it outside its children.
    pub self_ns: u64,
    /// Time that all threads worked in it, waiting at barriers left out.
    pub cpu_ns: u64,
    /// Time that all threads waited at barriers in it.
    pub idle_ns: u64,
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
    /// Most bytes that one scope held at once beyond what its thread held when it began.
    pub peak_bytes: u64,
    /// Each thread's part, those with time in it only.
    pub lanes: Vec<Lane>,
    /// Counters of all threads, children included; none where its scopes weren't counted.
    pub counts: Option<Counts>,
    /// The same of each thread.
    pub thread_counts: Vec<ThreadCounts>,
}

/// Counters of one thread in a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadCounts {
    /// The thread's number.
    pub thread: usize,
    /// Its part.
    pub counts: Counts,
}

/// One thread's time while recording was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStats {
    /// The thread's number, in the order in which threads first recorded.
    pub thread: usize,
    /// Time in scopes, waiting at barriers left out.
    pub working_ns: u64,
    /// Time at barriers.
    pub waiting_ns: u64,
    /// Time in no scope: parked between two regions, or in code that has none.
    pub idle_ns: u64,
    /// Its counters over all that time; none where nothing was counted.
    pub counts: Option<Counts>,
}

/// One thread's part of a method, calls and assistance together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// The thread's number, in the order in which threads first recorded.
    pub thread: usize,
    /// Time in it, children included.
    pub total_ns: u64,
    /// Time in it outside its children.
    pub self_ns: u64,
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
    /// Ticks of each table, assistance included, children included and not.
    lanes: Vec<LaneTicks>,
    /// Inclusive ticks of calls, of each table.
    call_ticks: Vec<u64>,
    /// Ticks of all tables, children included: at barriers, and elsewhere.
    idle_ticks: u64,
    cpu_ticks: u64,
    /// Ticks of all scopes, those inside a scope of their own zone too: the mean is of these.
    scope_ticks: u64,
    self_ticks: u64,
    min: u64,
    max: u64,
    squares: f64,
    flops: u64,
    bytes: u64,
    alloc: AllocCounts,
    self_alloc_bytes: u64,
    peak_bytes: u64,
    histogram: Box<[u64; BUCKETS]>,
    /// Counters of each table's thread in scopes of this node, and the number of these.
    counted: Vec<Counted>,
    /// The same, or the sum over nodes below; see [`resolve_counts`].
    counts: Vec<Option<Counts>>,
    /// Whether all its scopes were counted.
    all_counted: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneTicks {
    total: u64,
    own: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    calls: u64,
    scopes: u64,
    counts: Counts,
}

impl Record {
    fn new(zone: Zone, parent: Option<usize>, lanes: usize) -> Self {
        Self {
            zone,
            parent,
            calls: 0,
            lanes: vec![LaneTicks::default(); lanes],
            call_ticks: vec![0; lanes],
            idle_ticks: 0,
            cpu_ticks: 0,
            scope_ticks: 0,
            self_ticks: 0,
            min: u64::MAX,
            max: 0,
            squares: 0.0,
            flops: 0,
            bytes: 0,
            alloc: AllocCounts::default(),
            self_alloc_bytes: 0,
            peak_bytes: 0,
            histogram: Box::new([0; BUCKETS]),
            counted: vec![Counted::default(); lanes],
            counts: vec![None; lanes],
            all_counted: true,
        }
    }

    /// Adds counters of a table's thread in so many scopes.
    fn add_counts(&mut self, (counts, scopes): (Counts, u64), lane: usize) {
        let counted = &mut self.counted[lane];
        if scopes > 0 {
            counted.counts = if counted.scopes == 0 { counts } else { counted.counts.and(&counts) };
            counted.scopes += scopes;
        }
    }

    fn add_reading(&mut self, reading: &NodeReading, lane: usize) {
        self.counted[lane].calls += reading.calls;
        self.calls += reading.calls;
        self.lanes[lane].total += reading.ticks + reading.assist_ticks;
        self.lanes[lane].own += reading.self_ticks + reading.assist_self_ticks;
        self.call_ticks[lane] += reading.ticks;
        let spent = if self.zone == Zone::Barrier { &mut self.idle_ticks } else { &mut self.cpu_ticks };
        *spent += reading.self_ticks + reading.assist_self_ticks;
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
        self.peak_bytes = self.peak_bytes.max(reading.peak_bytes);
        add_histogram(&mut self.histogram, &reading.histogram);
    }

    fn add_alloc(&mut self, alloc: AllocCounts) {
        self.alloc.count = self.alloc.count.saturating_add(alloc.count);
        self.alloc.bytes = self.alloc.bytes.saturating_add(alloc.bytes);
    }

    /// Adds another node of the same zone. Inside a node of its own zone (`nested`), figures that include children are
    /// in the outer node already.
    fn add_record(&mut self, other: &Record, nested: bool) {
        self.calls += other.calls;
        self.scope_ticks += other.scope_ticks;
        self.self_ticks += other.self_ticks;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.squares += other.squares;
        self.self_alloc_bytes += other.self_alloc_bytes;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
        add_histogram(&mut self.histogram, &other.histogram);
        self.lanes.iter_mut().zip(&other.lanes).for_each(|(to, from)| to.own += from.own);
        if !nested {
            self.lanes.iter_mut().zip(&other.lanes).for_each(|(to, from)| to.total += from.total);
            self.call_ticks.iter_mut().zip(&other.call_ticks).for_each(|(to, from)| *to += from);
            self.idle_ticks += other.idle_ticks;
            self.cpu_ticks += other.cpu_ticks;
            self.flops = self.flops.saturating_add(other.flops);
            self.bytes = self.bytes.saturating_add(other.bytes);
            self.add_alloc(other.alloc);
            self.all_counted &= other.all_counted;
            for (to, from) in self.counts.iter_mut().zip(&other.counts) {
                *to = Counts::sum(to.iter().chain(from));
            }
        }
    }

    fn stats(&self, depth: usize, ns_per_tick: f64) -> MethodStats {
        let ns = |ticks: f64| (ticks * ns_per_tick).round() as u64;
        let total: u64 = self.call_ticks.iter().sum();
        let active = self.lanes.iter().enumerate().filter(|(_, lane)| lane.total > 0);
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
            threads: active.clone().count(),
            total_ns: ns(total as f64),
            busiest_ns: ns(self.busiest() as f64),
            self_ns: ns(self.self_ticks as f64),
            cpu_ns: ns(self.cpu_ticks as f64),
            idle_ns: ns(self.idle_ticks as f64),
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
            peak_bytes: self.peak_bytes,
            lanes: active
                .map(|(thread, lane)| Lane {
                    thread,
                    total_ns: ns(lane.total as f64),
                    self_ns: ns(lane.own as f64),
                })
                .collect(),
            counts: self.known_counts().and_then(|counts| Counts::sum(counts.iter().flatten())),
            thread_counts: self.known_counts().map_or(Vec::new(), |counts| {
                let known = counts.iter().enumerate();
                known
                    .filter_map(|(thread, counts)| Some(ThreadCounts { thread, counts: (*counts)? }))
                    .collect()
            }),
        }
    }

    /// Counters of each table's thread, where all scopes were counted.
    fn known_counts(&self) -> Option<&[Option<Counts>]> {
        self.all_counted.then_some(&self.counts)
    }

    /// Whether anything was recorded.
    fn is_used(&self) -> bool {
        self.calls > 0 || self.lanes.iter().any(|lane| lane.total > 0)
    }

    /// Whether a table's thread has scopes in it.
    fn has_scopes(&self, lane: usize) -> bool {
        self.lanes[lane].total > 0 || self.counted[lane].calls > 0
    }

    /// Ticks of the table whose calls took most.
    fn busiest(&self) -> u64 {
        self.call_ticks.iter().copied().max().unwrap_or(0)
    }
}

fn add_histogram(to: &mut [u64; BUCKETS], from: &[u64; BUCKETS]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// Merges the records of all threads since the last reset. Other threads may go on recording.
pub fn snapshot() -> Snapshot {
    merge(None)
}

/// The same of one owner's scopes alone.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) where the owner has no number.
pub fn snapshot_of(owner: &Owner) -> Result<Snapshot> {
    Ok(merge(Some(Zone::of_owner(owner.number()?))))
}

/// Where a node of a thread's tree went.
#[derive(Clone, Copy)]
enum Merged {
    /// Left out with the nodes below it, except those of an owner.
    Outside,
    /// Above everything.
    Root,
    At(usize),
}

/// The records of all threads, or of them the nodes below an owner's steps.
fn merge(owner: Option<Zone>) -> Snapshot {
    let ns_per_tick = clock::ns_per_tick();
    if let Some(table) = pool::table_if_any() {
        table.settle();
    }
    // Held to the end, so that no reset comes in between.
    let registry = pool::registry();
    let (mut dropped, mut unbalanced) = (pool::without_table(), 0);
    let mut records: Vec<Record> = Vec::new();
    let lanes = registry.tables.len();
    for (lane, table) in registry.tables.iter().enumerate().filter(|(_, table)| table.is_current()) {
        dropped += table.dropped();
        unbalanced += table.unbalanced();
        merge_table(table, (lane, lanes), owner, &mut records);
    }
    let wall_ns = (registry.wall_ticks() as f64 * ns_per_tick) as u64;
    let counts: Vec<Option<Counts>> = (0..lanes).map(|number| registry.counts(number)).collect();
    drop(registry);
    sum_into_parents(&mut records);
    resolve_counts(&mut records);
    let records = in_preorder(&records);
    let nodes = tree_stats(&records, ns_per_tick);
    let threads = thread_stats(&records, &counts, wall_ns, ns_per_tick);
    Snapshot { nodes, dropped, unbalanced, wall_ns, ns_per_tick, threads, records }
}

fn merge_table(table: &Table, (lane, lanes): (usize, usize), owner: Option<Zone>, records: &mut Vec<Record>) {
    // By the number of the table's node; number 0 is its root.
    let mut merged = vec![if owner.is_some() { Merged::Outside } else { Merged::Root }];
    for (reading, counts) in table.read() {
        let above = merged.get(reading.parent).copied().unwrap_or(Merged::Root);
        let place = match (reading.zone.owner(), above) {
            (Some(_), _) if owner == Some(reading.zone) => Merged::Root,
            // Another owner's work, or a step that the common tree leaves out.
            (Some(_), _) if owner.is_some() => Merged::Outside,
            (Some(_), above) => {
                // A thread that works for the owner counts itself in this step.
                if let Merged::At(index) = above {
                    records[index].add_counts(counts, lane);
                }
                above
            }
            (None, Merged::Outside) => Merged::Outside,
            (None, above) => {
                let parent = if let Merged::At(index) = above { Some(index) } else { None };
                let known = records.iter().position(|r| r.zone == reading.zone && r.parent == parent);
                let index = known.unwrap_or_else(|| {
                    records.push(Record::new(reading.zone, parent, lanes));
                    records.len() - 1
                });
                records[index].add_reading(&reading, lane);
                records[index].add_counts(counts, lane);
                Merged::At(index)
            }
        };
        merged.push(place);
    }
}

/// Work, allocations and time of all threads of children become their parents' too. A parent stands before its children.
fn sum_into_parents(records: &mut [Record]) {
    for index in (0..records.len()).rev() {
        let Record { parent: Some(parent), flops, bytes, alloc, idle_ticks, cpu_ticks, peak_bytes, .. } =
            records[index]
        else {
            continue;
        };
        records[parent].idle_ticks += idle_ticks;
        records[parent].cpu_ticks += cpu_ticks;
        records[parent].peak_bytes = records[parent].peak_bytes.max(peak_bytes);
        records[parent].flops = records[parent].flops.saturating_add(flops);
        records[parent].bytes = records[parent].bytes.saturating_add(bytes);
        records[parent].add_alloc(alloc);
    }
}

/// Works out the counters of each node, children included. A thread with scopes in a node was counted there, or its
/// counters are unknown. A thread that only took the node's path, to work for another, has the counters of that
/// stretch, else the sum over the nodes below.
fn resolve_counts(records: &mut [Record]) {
    for index in (0..records.len()).rev() {
        for lane in 0..records[index].lanes.len() {
            let record = &mut records[index];
            let Counted { calls, scopes, counts } = record.counted[lane];
            if scopes > 0 && scopes >= calls {
                record.counts[lane] = Some(counts);
            } else if record.has_scopes(lane) {
                record.counts[lane] = None;
                record.all_counted = false;
            }
            if let (Some(parent), Some(counts)) = (record.parent, record.counts[lane]) {
                let above = &mut records[parent].counts[lane];
                *above = Counts::sum(above.iter().chain([&counts]));
            }
        }
    }
}

/// Each thread's time, from that of the nodes.
fn thread_stats(
    records: &[Record],
    counts: &[Option<Counts>],
    wall_ns: u64,
    ns_per_tick: f64,
) -> Vec<ThreadStats> {
    let own = |thread: usize, waits: bool| -> u64 {
        let records = records.iter().filter(|record| (record.zone == Zone::Barrier) == waits);
        let ticks: u64 = records.map(|record| record.lanes[thread].own).sum();
        (ticks as f64 * ns_per_tick).round() as u64
    };
    let stats = counts.iter().enumerate().map(|(thread, &counts)| {
        let [working_ns, waiting_ns] = [own(thread, false), own(thread, true)];
        let idle_ns = wall_ns.saturating_sub(working_ns + waiting_ns);
        ThreadStats { thread, working_ns, waiting_ns, idle_ns, counts }
    });
    let counted = |counts: Counts| counts.iter().any(|(_, value)| value > 0);
    stats.filter(|s| s.working_ns + s.waiting_ns > 0 || s.counts.is_some_and(counted)).collect()
}

/// Parents before children, siblings by falling time; nodes in which nothing was ever recorded (left over
/// from before a reset) are left out.
fn in_preorder(records: &[Record]) -> Vec<Record> {
    let mut busy: Vec<u64> = records.iter().map(Record::busiest).collect();
    let mut alive: Vec<bool> = records.iter().map(Record::is_used).collect();
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
        sort::by_key(&mut children, |&i| busy[i]); // the stack below turns this round
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
        let mut zones: Vec<Option<Record>> = vec![None; LIMIT];
        for record in &self.records {
            let nested = self.ancestors(record).any(|ancestor| ancestor.zone == record.zone);
            zones[record.zone.index()]
                .get_or_insert_with(|| Record::new(record.zone, None, lanes))
                .add_record(record, nested);
        }
        let recorded = zones.iter().flatten().filter(|record| record.is_used());
        let mut stats: Vec<MethodStats> = recorded.map(|r| r.stats(0, self.ns_per_tick)).collect();
        sort::by_key(&mut stats, |s| std::cmp::Reverse(s.busiest_ns));
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
