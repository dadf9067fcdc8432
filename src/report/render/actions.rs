//! The head of a report: findings that a reader can act on, each with advice. They are the methods with most time and
//! their distance from the machine's limits, waiting, allocations and page faults of the measured work, and kernels
//! below the best.

use super::insights::{Piece, name, waits, words};
use super::models::ModelRate;
use super::ops::{self, Op};
use super::text::{duration, percent, ratio, short, size};
use super::view::PartView;
use crate::profile::Counter;
use crate::report::data::{Machine, Method, Report, ThreadTime};
use crate::sort;

/// Something to act on.
pub(super) struct Action {
    /// The finding.
    pub found: Vec<Piece>,
    /// The advice.
    pub advice: &'static str,
    /// The share of the wall time that it is about.
    share: f64,
}

/// Methods of a part that are named.
const METHODS: usize = 3;
/// A share of the wall time worth a line.
const NOTABLE: f64 = 0.02;
/// An op that reaches this much of its roof has little to win.
const NEAR: f64 = 0.6;
/// Nanoseconds of a page's first touch at least: a trap, a page of zeros, a table's entry.
const FAULT_NS: f64 = 250.0;

/// The findings of all parts, those that most of the time is about first.
pub(super) fn of(report: &Report, parts: &[PartView<'_>], rates: &[ModelRate<'_>]) -> Vec<Action> {
    let mut found: Vec<Action> = kernels(&report.machine).into_iter().collect();
    for part in parts {
        let of_part = [
            methods(report, part),
            waiting(part).into_iter().collect(),
            allocations(part, rates),
            faults(part).into_iter().collect(),
        ];
        for mut action in of_part.into_iter().flatten() {
            if parts.len() > 1 {
                action.found.splice(0..0, [name(&part.part.name), words(": ")]);
            }
            found.push(action);
        }
    }
    sort::by(&mut found, |a, b| b.share.total_cmp(&a.share));
    found
}

/// The methods with the largest times of their own, held against the machine's limits.
fn methods(report: &Report, part: &PartView<'_>) -> Vec<Action> {
    let wall = part.middle.wall_ns as f64;
    let ops = ops::of(part, &report.machine);
    let action = |method: &&Method| {
        let share = ratio(method.self_ns as f64, wall);
        let mut found = vec![name(&method.name), words(format!(" takes {} % of the time", percent(share)))];
        let op = ops.iter().find(|op| op.node.name == method.name);
        let roof = op.and_then(|op| op.roof.as_ref());
        found.push(words(match roof {
            Some(roof) => format!(" at {} % of what {} allows.", percent(roof.share), roof.name),
            None => ".".to_owned(),
        }));
        Action { found, advice: advice(method, op), share }
    };
    let methods = part.by_self_time().into_iter().filter(|method| !waits(method));
    let notable = methods.filter(|method| ratio(method.self_ns as f64, wall) > NOTABLE);
    notable.take(METHODS).collect::<Vec<_>>().iter().map(action).collect()
}

fn advice(method: &Method, op: Option<&Op<'_>>) -> &'static str {
    match op.and_then(|op| op.roof.as_ref()) {
        None if op.is_some() => {
            "Measure the machine's limits with it, to see how much of this time could be won."
        }
        None if method.flops > 0 => {
            "This is its time outside of the methods that it calls: give its pieces zones, to see which takes it."
        }
        None => "Declare its operations and bytes, to hold it against what the machine allows.",
        Some(roof) if roof.share < NEAR && roof.name == "arithmetic" => {
            "Look at the shapes of its calls: few rows and odd sizes leave the arithmetic idle."
        }
        Some(roof) if roof.share < NEAR => {
            "Look at what it waits for (with --counters: cache misses, page faults), and at the size of its calls."
        }
        Some(roof) if roof.name == "arithmetic" => {
            "It is near the limit of the arithmetic: only less work, or more threads, make it faster."
        }
        Some(_) => {
            "It is as fast as its bytes arrive: only fewer of them (narrower weights or cache) make it faster."
        }
    }
}

/// The thread that waited longest for others.
fn waiting(part: &PartView<'_>) -> Option<Action> {
    let busy = |thread: &ThreadTime| thread.working_ns.saturating_add(thread.waiting_ns) as f64;
    let thread = part.threads().into_iter().max_by_key(|thread| thread.waiting_ns)?;
    let share = ratio(thread.waiting_ns as f64, part.middle.wall_ns as f64);
    (share > NOTABLE).then(|| {
        let text = format!(
            "Thread {} waited {} for the others, {} % of its time in methods.",
            thread.thread,
            duration(thread.waiting_ns as f64),
            percent(ratio(thread.waiting_ns as f64, busy(&thread)))
        );
        let advice = "Give the threads cores that nothing else uses, or take fewer; see which methods they share \
                      unevenly.";
        Action { found: vec![words(text)], advice, share }
    })
}

/// Allocations of models for each token.
fn allocations(part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Vec<Action> {
    let here = rates.iter().filter(|rate| rate.part == part.index && rate.alloc_count >= 1.0);
    let action = |rate: &ModelRate<'_>| {
        let text = format!(
            " allocates {} in {} allocations for each token.",
            size(rate.alloc_bytes),
            short(rate.alloc_count)
        );
        Action {
            found: vec![name(&rate.model.name), words(text)],
            advice: "A step in steady state allocates nothing: find the method under Top Allocators, and reserve \
                     before the loop.",
            share: NOTABLE,
        }
    };
    here.map(action).collect()
}

/// Page faults in the run in the middle, where all of its work was done before at least once.
fn faults(part: &PartView<'_>) -> Option<Action> {
    let counters = part.middle.counters.as_ref()?;
    let minor = counters.get(Counter::MinorFaults)?;
    let major = counters.get(Counter::MajorFaults).unwrap_or(0);
    let share = ratio(minor as f64 * FAULT_NS, part.middle.wall_ns as f64);
    if share < NOTABLE && major == 0 {
        return None;
    }
    let disk = if major > 0 { format!(", {major} of them from disk") } else { String::new() };
    let mut found = vec![words(format!("{} page faults in a run{disk}", minor.saturating_add(major)))];
    let most = part.counted().max_by_key(|(method, counters)| {
        (counters.get(Counter::MinorFaults), std::cmp::Reverse(method.total_ns))
    });
    if let Some((method, _)) = most {
        found.extend([words(", most in "), name(&method.name)]);
    }
    found.push(words(format!(": at least {} % of the time.", percent(share))));
    let advice = match major {
        0 => "Reuse memory instead of giving it back: each new page costs a trap and a page of zeros.",
        _ => {
            "Read the file, or touch its map, before the work: a page that comes from disk stops the thread."
        }
    };
    Some(Action { found, advice, share })
}

/// Kernels below the best that this CPU runs.
fn kernels(machine: &Machine) -> Option<Action> {
    let better: Vec<_> = machine.other_kernels.iter().filter(|kernel| kernel.better).collect();
    let first = better.first()?;
    let text = format!(
        "The instruction set in use is {}, though this CPU runs {} kernels of a higher one, such as ",
        machine.isa,
        better.len()
    );
    let kernel = format!("{} {}", first.family, first.name);
    let advice = "Leave SMALLMIND_ISA and --isa away, unless this is what you measure.";
    Some(Action { found: vec![words(text), name(&kernel), words(".")], advice, share: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::super::{models, sample, view};
    use super::*;
    use crate::report::data::{Counters, OtherKernel, key};

    fn lines(report: &Report) -> Vec<String> {
        let parts = view::parts(report);
        let rates = models::rates(report, &parts);
        let text = |action: &Action| {
            let pieces = action.found.iter().map(|piece| match piece {
                Piece::Words(text) | Piece::Name(text) => text.as_str(),
            });
            format!("{} {}", pieces.collect::<String>(), action.advice)
        };
        of(report, &parts, &rates).iter().map(text).collect()
    }

    fn has(lines: &[String], pieces: [&str; 2]) -> bool {
        lines.iter().any(|line| pieces.iter().all(|piece| line.contains(piece)))
    }

    #[test]
    fn what_is_planted_comes_with_its_advice() {
        let mut report = sample::report();
        let before = lines(&report);
        assert!(
            has(&before, ["same work: linear.up takes 21.0 % of the time at 34.1 %", "Look at the shapes"]),
            "{before:#?}"
        );
        assert!(has(&before, ["Thread 0 waited", "fewer"]), "{before:#?}");
        for absent in ["SMALLMIND_ISA", "allocations for each token", "from disk"] {
            assert!(!has(&before, [absent, ""]), "{absent}: {before:#?}");
        }
        report.machine.other_kernels.push(OtherKernel {
            family: "gelu".into(),
            name: "f32.amx".into(),
            reason: String::new(),
            better: true,
        });
        for run in &mut report.parts[0].runs {
            let faults = [(key(Counter::MinorFaults), run.wall_ns / 1000), (key(Counter::MajorFaults), 3)];
            run.counters = Some(Counters(faults.into()));
        }
        for run in &mut report.parts[1].runs {
            let inference = run.methods.iter_mut().find(|m| m.name == "Model_Small_Inference").unwrap();
            (inference.alloc_bytes, inference.alloc_count) = (25 * 4096, 50);
        }
        let after = lines(&report);
        for planted in [
            ["of a higher one, such as gelu f32.amx.", "SMALLMIND_ISA"],
            [", 3 of them from disk, most in Model_Medium_", "before the work"],
            ["with cache: Small allocates 4.00 KB in 2.00 allocations", "Top Allocators"],
        ] {
            assert!(has(&after, planted), "{planted:?}: {after:#?}");
        }
        // The level comes first: it is about all of the time.
        assert!(after[0].contains("SMALLMIND_ISA"), "{after:#?}");
    }
}
