//! The timeline as a trace that Perfetto and `chrome://tracing` open: a process for each part, a track for each
//! thread. Times are microseconds with three digits behind the point.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::report::data::{Event, Part, Report};
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
    ordered.sort_by_key(|event| (event.thread, event.start_ns, event.depth));
    let complete = ordered.into_iter().map(|event| {
        json!({
            "ph": "X", "name": event.name, "cat": "zone", "pid": process, "tid": event.thread,
            "ts": event.start_ns as f64 / 1e3, "dur": event.duration_ns as f64 / 1e3,
        })
    });
    std::iter::once(process_name).chain(names).chain(complete).collect()
}
