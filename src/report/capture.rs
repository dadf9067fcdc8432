//! From the recorder to a kept run: switches recording on around some work, and turns the record into a run.

use super::data::{
    self, COUNTING_VERSION, Counters, Event, FORMAT, Lane, Machine, Method, MissingCounters, Part, Report,
    Run, ThreadCounters, ThreadTime, VERSION,
};
use super::machine::last_measured;
use crate::Result;
use crate::kernels::KernelSet;
use crate::profile::alloc::{self, TotalCounts};
use crate::profile::trace::{self, Trace};
use crate::profile::{self, Counts, MethodStats, Snapshot, ThreadCounts, ThreadStats};
use crate::sort;
use crate::time::rfc3339_now;

impl Report {
    /// A report of now, to which models and parts are to be added.
    pub fn new(mode: &str, machine: Machine) -> Report {
        Report {
            format: FORMAT.to_owned(),
            version: VERSION,
            created: rfc3339_now(),
            mode: mode.to_owned(),
            machine,
            models: Vec::new(),
            parts: Vec::new(),
            counting: None,
        }
    }

    /// Adds a part, and notes which counters it lacks.
    pub fn add_part(&mut self, part: Part) {
        if part.runs.iter().any(|run| run.counters.is_some()) {
            self.counting = Some(counting());
        }
        self.parts.push(part);
    }

    /// The record of a host's own code so far: one run, with the last timeline, and the machine's limits where
    /// they were measured.
    ///
    /// # Errors
    /// Those of [`KernelSet::default_set`].
    pub fn of_host() -> Result<Report> {
        let mut run = Run::from(&profile::snapshot());
        run.timeline = timeline(&trace::last());
        let threads = run.tree.iter().map(|method| method.threads).max().unwrap_or(1);
        let machine = Machine::detect(KernelSet::default_set()?, threads, false);
        let mut report = Report::new("host", Machine { limits: last_measured(), ..machine });
        let about = "what the program has recorded".to_owned();
        report.add_part(Part { name: "all".to_owned(), about, runs: vec![run] });
        Ok(report)
    }
}

/// Records `work`: forgets the record from before, and switches recording off at the end. The profile is the
/// process's: it contains the work of other threads meanwhile.
pub fn record<R>(work: impl FnOnce() -> R) -> (R, Run) {
    alloc::reset_peak();
    let before = alloc::total_counts();
    profile::set_enabled(true);
    profile::reset();
    let result = work();
    profile::set_enabled(false);
    let allocated = since(before);
    let snapshot = profile::snapshot();
    (result, Run { alloc_bytes: allocated.bytes, alloc_count: allocated.count, ..Run::from(&snapshot) })
}

/// The same with a timeline of at most `events` scopes on each thread.
///
/// # Errors
/// Those of [`trace::start`]; the work isn't done then.
pub fn record_traced<R>(events: usize, work: impl FnOnce() -> R) -> Result<(R, Run)> {
    trace::start(events)?;
    let (result, mut run) = record(work);
    let trace = trace::stop();
    run.dropped += trace.dropped;
    run.timeline = timeline(&trace);
    Ok((result, run))
}

/// Which scopes are counted now, and which counters are missing.
fn counting() -> data::Counting {
    let missing = profile::counters::missing().into_iter().map(|missing| MissingCounters {
        counters: missing.counters.into_iter().map(data::key).collect(),
        reason: missing.reason,
    });
    let every_scope = profile::counting() == profile::Counting::Everything;
    data::Counting { version: COUNTING_VERSION, every_scope, missing: missing.collect() }
}

/// Allocations since then, and the peak.
fn since(before: TotalCounts) -> TotalCounts {
    let now = alloc::total_counts();
    TotalCounts {
        count: now.count.wrapping_sub(before.count),
        bytes: now.bytes.wrapping_sub(before.bytes),
        ..now
    }
}

/// The trace as events of a report.
pub fn timeline(trace: &Trace) -> Vec<Event> {
    let first = trace.events.first().map_or(0, |event| event.start_ns);
    let event = |event: &trace::TraceEvent| Event {
        name: event.zone.name().to_owned(),
        thread: event.thread,
        start_ns: event.start_ns - first,
        duration_ns: event.duration_ns,
        depth: event.depth,
        counters: event.counts.as_ref().map(Counters::from),
    };
    trace.events.iter().map(event).collect()
}

impl From<&Snapshot> for Run {
    /// The run so far. Allocations are those of the scopes, not of the process.
    fn from(snapshot: &Snapshot) -> Run {
        let roots = snapshot.nodes.iter().filter(|node| node.parent.is_none());
        let (alloc_bytes, alloc_count) =
            roots.fold((0, 0), |sum, root| (sum.0 + root.alloc_bytes, sum.1 + root.alloc_count));
        Run {
            wall_ns: snapshot.wall_ns,
            dropped: snapshot.dropped,
            unbalanced: snapshot.unbalanced,
            alloc_bytes,
            alloc_count,
            peak_bytes: alloc::total_counts().peak_bytes,
            methods: snapshot.by_zone().iter().map(Method::from).collect(),
            tree: snapshot.nodes.iter().map(Method::from).collect(),
            timeline: Vec::new(),
            threads: snapshot.threads.iter().map(ThreadTime::from).collect(),
            counters: Counts::sum(snapshot.threads.iter().filter_map(|thread| thread.counts.as_ref()))
                .filter(|counts| !counts.is_empty())
                .as_ref()
                .map(Counters::from),
        }
    }
}

impl From<&ThreadStats> for ThreadTime {
    fn from(stats: &ThreadStats) -> ThreadTime {
        ThreadTime {
            thread: stats.thread,
            working_ns: stats.working_ns,
            waiting_ns: stats.waiting_ns,
            idle_ns: stats.idle_ns,
            counters: stats.counts.as_ref().map(Counters::from),
        }
    }
}

impl From<&MethodStats> for Method {
    fn from(stats: &MethodStats) -> Method {
        let lane = |lane: &profile::Lane| Lane {
            thread: lane.thread,
            total_ns: lane.total_ns,
            self_ns: lane.self_ns,
        };
        let mut lanes: Vec<Lane> = match stats.lanes.len() {
            0 | 1 => Vec::new(),
            _ => stats.lanes.iter().map(lane).collect(),
        };
        sort::by_key(&mut lanes, |lane| std::cmp::Reverse(lane.total_ns));
        let of_thread = |part: &ThreadCounts| ThreadCounters {
            thread: part.thread,
            counters: Counters::from(&part.counts),
        };
        let thread_counters = match stats.thread_counts.len() {
            0 | 1 => Vec::new(),
            _ => stats.thread_counts.iter().map(of_thread).collect(),
        };
        Method {
            name: stats.name.to_owned(),
            parent: stats.parent,
            depth: stats.depth,
            calls: stats.calls,
            threads: stats.threads,
            total_ns: stats.total_ns,
            cpu_ns: stats.cpu_ns,
            idle_ns: stats.idle_ns,
            self_ns: stats.self_ns,
            min_ns: stats.min_ns,
            mean_ns: stats.mean_ns,
            max_ns: stats.max_ns,
            std_ns: stats.std_ns,
            p50_ns: stats.p50_ns,
            p95_ns: stats.p95_ns,
            p99_ns: stats.p99_ns,
            flops: stats.flops,
            bytes: stats.bytes,
            alloc_bytes: stats.alloc_bytes,
            alloc_count: stats.alloc_count,
            self_alloc_bytes: stats.self_alloc_bytes,
            peak_bytes: stats.peak_bytes,
            lanes,
            counters: stats.counts.as_ref().map(Counters::from),
            thread_counters,
        }
    }
}
