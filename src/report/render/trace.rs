//! The timeline as a trace that Perfetto and `chrome://tracing` open: a process for each part, a track for each
//! thread, and tracks of counters. Times are microseconds with three digits behind the point.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::family;
use crate::profile::Counter;
use crate::report::data::{Counters, Event, Part, Report};
use crate::sort;
use crate::{Error, Result};

pub(super) fn render(report: &Report) -> Result<Vec<u8>> {
    let parts = report.parts.iter().enumerate();
    let events: Vec<Value> = parts.flat_map(|(index, part)| part_events(part, index + 1)).collect();
    let trace = json!({
        "displayTimeUnit": "ns",
        "otherData": {
            "created": report.created,
            "mode": report.mode,
            "cpu": report.machine.cpu,
            "version": report.machine.version,
        },
        "traceEvents": events,
    });
    serde_json::to_vec(&trace).map_err(|error| Error::Internal(format!("trace as JSON: {error}")))
}

/// The timeline of the first run that has one.
pub(super) fn timeline(part: &Part) -> &[Event] {
    part.runs.iter().map(|run| run.timeline.as_slice()).find(|events| !events.is_empty()).unwrap_or_default()
}

fn part_events(part: &Part, process: usize) -> Vec<Value> {
    let timeline = timeline(part);
    let threads: BTreeSet<usize> = timeline.iter().map(|event| event.thread).collect();
    let names = threads.iter().map(|&thread| {
        json!({
            "ph": "M", "name": "thread_name", "pid": process, "tid": thread,
            "args": { "name": format!("thread {thread}") },
        })
    });
    let process_name =
        json!({ "ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": { "name": part.name } });
    // Viewers nest by time, and want the outer of two that begin together first.
    let mut ordered: Vec<&Event> = timeline.iter().collect();
    sort::by_key(&mut ordered, |event| (event.thread, event.start_ns, event.depth));
    let complete = ordered.iter().map(|event| {
        json!({
            "ph": "X", "name": event.name, "cat": "zone", "pid": process, "tid": event.thread,
            "ts": event.start_ns as f64 / 1e3, "dur": event.duration_ns as f64 / 1e3,
        })
    });
    let working = working(&ordered).into_iter().map(|(ns, count)| {
        json!({
            "ph": "C", "name": "threads working", "pid": process, "tid": 0, "ts": ns as f64 / 1e3,
            "args": { "threads": count },
        })
    });
    let counted = counted(&ordered).into_iter().map(|Sample { track, thread, ns, value }| {
        json!({
            "ph": "C", "name": format!("{track}, thread {thread}"), "pid": process, "tid": thread,
            "ts": ns as f64 / 1e3, "args": { "value": value },
        })
    });
    std::iter::once(process_name).chain(names).chain(complete).chain(working).chain(counted).collect()
}

/// Counters with a track for each thread that they were read of.
const TRACKS: [Counter; 6] = [
    Counter::MinorFaults,
    Counter::MajorFaults,
    Counter::ContextSwitches,
    Counter::Migrations,
    Counter::CacheMisses,
    Counter::BranchMisses,
];

/// How many threads are in a method and don't wait, from each moment at which that changes.
fn working(timeline: &[&Event]) -> Vec<(u64, i64)> {
    let mut changes: Vec<(u64, i64)> = Vec::new();
    // Where the outermost event of each thread ends; events come by thread, then by time.
    let mut covered = (usize::MAX, 0);
    for event in timeline {
        let (begin, end) = (event.start_ns, event.start_ns.saturating_add(event.duration_ns));
        let inside = covered.0 == event.thread && begin < covered.1;
        if inside && family::is_wait(&event.name) {
            changes.extend([(begin, -1), (end.min(covered.1), 1)]);
        } else if !inside {
            changes.extend([(begin, 1), (end, -1)]);
            covered = (event.thread, end);
        }
    }
    changes.sort_unstable();
    let mut count = 0;
    let mut moments: Vec<(u64, i64)> = Vec::new();
    for (ns, change) in changes {
        count += change;
        match moments.last_mut() {
            Some(last) if last.0 == ns => last.1 = count,
            _ => moments.push((ns, count)),
        }
    }
    moments
}

/// A value of a track at a moment.
struct Sample {
    track: &'static str,
    thread: usize,
    ns: u64,
    value: Value,
}

/// What was counted at the ends of events: of each thread so far and, of instructions, for each cycle since the end
/// before.
fn counted(timeline: &[&Event]) -> Vec<Sample> {
    let end = |event: &Event| event.start_ns.saturating_add(event.duration_ns);
    let mut ends: Vec<(&Event, &Counters)> =
        timeline.iter().filter_map(|event| Some((*event, event.counters.as_ref()?))).collect();
    sort::by_key(&mut ends, |(event, _)| (event.thread, end(event)));
    let mut samples = Vec::new();
    let mut before: Option<(usize, &Counters)> = None;
    for (event, counters) in ends {
        let (thread, ns) = (event.thread, end(event));
        let mut push = |track, value| samples.push(Sample { track, thread, ns, value });
        for counter in TRACKS {
            if let Some(value) = counters.get(counter) {
                push(counter.name(), json!(value));
            }
        }
        let earlier = before.filter(|(of, _)| *of == thread).map(|(_, counters)| counters);
        let since = |counter| {
            let earlier = earlier.and_then(|counters| counters.get(counter)).unwrap_or(0);
            Some(counters.get(counter)?.saturating_sub(earlier))
        };
        if let Some((instructions, cycles)) = since(Counter::Instructions).zip(since(Counter::Cycles))
            && cycles > 0
        {
            push("instructions per cycle", json!(instructions as f64 / cycles as f64));
        }
        before = Some((thread, counters));
    }
    samples
}
