//! The timeline: a lane for each thread, a row of it for each level of scopes. Waiting for others is drawn over the
//! scope that waits.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::family;
use super::super::text::{duration, percent, ratio};
use super::super::trace;
use super::{place, tooltip};
use crate::report::data::{Event, Part};
use crate::sort;

/// Scopes drawn; of more, the longest.
const MOST_EVENTS: usize = 4000;
/// Threads drawn.
const MOST_LANES: usize = 64;
/// Levels of a lane; deeper scopes stand in the last.
const MOST_ROWS: usize = 8;
/// Marks on the time's axis, about.
const TICKS: f64 = 6.0;

/// The picture.
#[derive(Serialize)]
pub(in super::super) struct Timeline {
    lanes: Vec<Lane>,
    ticks: Vec<Tick>,
    span: String,
    hidden: usize,
}

#[derive(Serialize)]
struct Lane {
    thread: usize,
    rows: usize,
    working: String,
    waiting: String,
    events: Vec<Bar>,
}

#[derive(Serialize)]
struct Bar {
    name: String,
    class: &'static str,
    row: usize,
    left: String,
    width: String,
    title: String,
}

#[derive(Serialize)]
struct Tick {
    left: String,
    label: String,
}

/// None where no run was traced.
pub(super) fn of(part: &Part) -> Option<Timeline> {
    let mut events: Vec<&Event> = trace::timeline(part).iter().collect();
    let all = events.len();
    sort::by_key(&mut events, |event| std::cmp::Reverse(event.duration_ns));
    events.truncate(MOST_EVENTS);
    let start = events.iter().map(|event| event.start_ns).min()?;
    let end = events.iter().map(|event| event.start_ns.saturating_add(event.duration_ns)).max()?;
    let span = (end - start).max(1) as f64;
    let mut threads: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    events.iter().for_each(|event| threads.entry(event.thread).or_default().push(event));
    let lanes: Vec<Lane> =
        threads.iter().take(MOST_LANES).map(|(&thread, events)| lane(thread, events, start, span)).collect();
    let drawn: usize = lanes.iter().map(|lane| lane.events.len()).sum();
    Some(Timeline { lanes, ticks: ticks(span), span: duration(span), hidden: all - drawn })
}

fn waits(event: &Event) -> bool {
    family::is_wait(&event.name)
}

fn lane(thread: usize, events: &[&Event], start: u64, span: f64) -> Lane {
    let mut events: Vec<&Event> = events.to_vec();
    // Later bars cover earlier ones: waits come last.
    sort::by_key(&mut events, |event| (waits(event), event.depth, event.start_ns));
    let highest = events.iter().filter(|event| !waits(event)).map(|event| event.depth).min().unwrap_or(0);
    let bars: Vec<Bar> = events
        .iter()
        .map(|event| {
            let level = event.depth.saturating_sub(highest).saturating_sub(usize::from(waits(event)));
            let facts = [
                ("begins", duration((event.start_ns - start) as f64)),
                ("takes", duration(event.duration_ns as f64)),
            ];
            Bar {
                name: event.name.clone(),
                class: family::of(&event.name).class,
                row: level.min(MOST_ROWS - 1),
                left: place(ratio((event.start_ns - start) as f64, span)),
                width: place(ratio(event.duration_ns as f64, span)),
                title: tooltip(&event.name, &facts),
            }
        })
        .collect();
    let time = |wanted: &dyn Fn(&&&Event) -> bool| -> f64 {
        events.iter().filter(wanted).map(|event| event.duration_ns as f64).sum()
    };
    let waiting = time(&|event| waits(event));
    let covered = time(&|event| event.depth == highest && !waits(event));
    Lane {
        thread,
        rows: bars.iter().map(|bar| bar.row + 1).max().unwrap_or(1),
        working: percent(ratio((covered - waiting).max(0.0), span)),
        waiting: percent(ratio(waiting, span)),
        events: bars,
    }
}

/// Marks at round times.
fn ticks(span: f64) -> Vec<Tick> {
    let rough = span / TICKS;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * magnitude >= rough).unwrap_or(10.0) * magnitude;
    let count = (span / step).floor() as usize;
    (0..=count)
        .map(|tick| tick as f64 * step)
        .map(|ns| Tick { left: place(ns / span), label: if ns == 0.0 { "0".into() } else { round(ns) } })
        .collect()
}

/// A round time with its unit.
fn round(ns: f64) -> String {
    let (value, unit) = match ns {
        ..1e3 => (ns, "ns"),
        ..1e6 => (ns / 1e3, "µs"),
        ..1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn a_lane_shows_how_long_its_thread_waited() {
        let report = sample::report();
        let timeline = of(&report.parts[0]).unwrap();
        assert_eq!(timeline.lanes.len(), 2);
        assert_eq!(timeline.hidden, 0);
        let events = &report.parts[0].runs[0].timeline;
        let end = events.iter().map(|event| event.start_ns + event.duration_ns).max().unwrap();
        let waited: u64 =
            events.iter().filter(|event| event.thread == 1 && waits(event)).map(|e| e.duration_ns).sum();
        assert_eq!(timeline.lanes[1].waiting, format!("{:.1}", 100.0 * waited as f64 / end as f64));
        assert_eq!(timeline.lanes[1].rows, 1);
        assert_eq!(timeline.lanes[0].rows, 3);
        let labels: Vec<&str> = timeline.ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(labels, ["0", "50 µs", "100 µs", "150 µs"]);
    }

    #[test]
    fn no_timeline_is_none() {
        assert!(of(&Part { name: String::new(), about: String::new(), runs: vec![] }).is_none());
    }
}
