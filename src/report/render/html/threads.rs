//! Threads on the page: their times, the methods that they shared, and counters.

use serde::Serialize;

use super::super::counts;
use super::super::family;
use super::super::text::{duration, percent, ratio};
use super::super::view::PartView;
use super::place;
use super::sections::{Bar, milliseconds};
use crate::report::data::{Lane, Method, ThreadTime};
use crate::sort;

/// Methods that threads shared.
const SHARED: usize = 24;
/// Methods that were counted.
const COUNTED: usize = 60;

/// A thread's time.
#[derive(Serialize)]
pub(in super::super) struct Thread {
    number: usize,
    working: String,
    waiting: String,
    idle: String,
    waiting_share: String,
    bar: [String; 2],
    /// Its counters, as the heads of `counts` have them; empty where nothing was counted.
    counts: Vec<String>,
}

/// A method that threads shared.
#[derive(Serialize)]
pub(in super::super) struct Shared {
    name: String,
    class: &'static str,
    threads: usize,
    busiest: String,
    mean: String,
    uneven: String,
    lanes: Vec<Bar>,
}

/// A method's counters.
#[derive(Serialize)]
pub(in super::super) struct Counted {
    name: String,
    class: &'static str,
    cells: [String; 9],
}

/// Each thread's time, where several worked.
pub(super) fn of(part: &PartView<'_>) -> Vec<Thread> {
    let wall = part.middle.wall_ns as f64;
    let threads = part.threads();
    if threads.len() < 2 {
        return Vec::new();
    }
    let is_counted = threads.iter().any(|thread| thread.counters.is_some());
    let of_thread = |thread: &ThreadTime| {
        let [working, waiting, idle] =
            [thread.working_ns, thread.waiting_ns, thread.idle_ns].map(|ns| ns as f64);
        let cells = || counts::cells(&thread.counters.clone().unwrap_or_default()).to_vec();
        Thread {
            number: thread.thread,
            working: milliseconds(working),
            waiting: milliseconds(waiting),
            idle: milliseconds(idle),
            waiting_share: percent(ratio(waiting, working + waiting)),
            bar: [working, waiting].map(|ns| place(ratio(ns, wall))),
            counts: if is_counted { cells() } else { Vec::new() },
        }
    };
    threads.iter().map(of_thread).collect()
}

/// Counters of the run, and of the methods whose calls were counted.
pub(super) fn counted(part: &PartView<'_>) -> Vec<Counted> {
    let all = part.middle.counters.iter().map(|counters| Counted {
        name: "all".to_owned(),
        class: "whole",
        cells: counts::cells(counters),
    });
    let methods = part.counted().map(|(method, counters)| Counted {
        name: method.name.clone(),
        class: family::of(&method.name).class,
        cells: counts::cells(counters),
    });
    all.chain(methods.take(COUNTED)).collect()
}

/// The methods that threads shared, with each one's part.
pub(super) fn shared(part: &PartView<'_>) -> Vec<Shared> {
    let methods = part.middle.methods.iter().filter(|method| method.lanes.len() > 1);
    let shared = |method: &Method| {
        let class = family::of(&method.name).class;
        let busiest = method.lanes.iter().map(|lane| lane.self_ns).max().unwrap_or(0) as f64;
        let sum: f64 = method.lanes.iter().map(|lane| lane.self_ns as f64).sum();
        let mean = sum / method.lanes.len() as f64;
        let mut lanes: Vec<_> = method.lanes.iter().collect();
        sort::by_key(&mut lanes, |lane| lane.thread);
        let bar = |lane: &&Lane| Bar {
            name: format!("thread {}", lane.thread),
            class,
            width: place(ratio(lane.self_ns as f64, busiest)),
            value: milliseconds(lane.self_ns as f64),
            percent: String::new(),
            title: format!("thread {}: {}", lane.thread, duration(lane.self_ns as f64)),
        };
        Shared {
            name: method.name.clone(),
            class,
            threads: method.lanes.len(),
            busiest: milliseconds(busiest),
            mean: milliseconds(mean),
            uneven: percent(ratio(busiest - mean, mean)),
            lanes: lanes.iter().map(bar).collect(),
        }
    };
    methods.take(SHARED).map(shared).collect()
}
