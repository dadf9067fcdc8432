//! Sentences about figures that stand out in a report. No method is known by name here, except the one in which
//! workers wait.

use super::family::is_wait;
use super::models::ModelRate;
use super::ops;
use super::text::{duration, percent, ratio, short, shortened, size};
use super::view::PartView;
use crate::report::data::{Method, Report};
use crate::sort;

/// How much a reader should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The measurement itself is in doubt.
    Doubt,
    /// Time or memory could be won.
    Chance,
    /// Good to know.
    Fact,
}

/// Words, or the name of a method, which each rendering sets off in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Words(String),
    Name(String),
}

/// A sentence about a part.
pub(super) struct Insight {
    pub weight: Weight,
    pub pieces: Vec<Piece>,
}

/// Runs that differ by more than this leave small differences untold.
const UNSTEADY: f64 = 0.05;
/// A share of the wall time worth a sentence.
const NOTABLE: f64 = 0.02;
/// An op that reaches less of its roof than this has something to win.
const FAR_BELOW: f64 = 0.6;
/// The slowest of a hundred calls takes so many times the usual one, where calls differ oddly.
const LONG_TAIL: f64 = 3.0;
/// The mean is so many times the usual call, where few long calls make up most of a method's time.
const FEW_LONG: f64 = 2.0;
/// Fewer calls have no hundredth to speak of.
const MANY_CALLS: u64 = 100;
/// Sentences of one kind.
const MOST: usize = 3;

/// The sentences of a part, first those that put its figures in doubt.
pub(super) fn of(report: &Report, part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Vec<Insight> {
    let mut found = Vec::new();
    found.extend(amiss(part));
    found.extend(unsteady(part));
    found.extend(outside(part));
    found.extend(largest(part));
    found.extend(below_roof(report, part));
    found.extend(waiting(report, part));
    found.extend(uneven(part));
    found.extend(tails(part));
    found.extend(allocations(part, rates));
    found.extend(against_first(report, part, rates));
    sort::by_key(&mut found, |insight| insight.weight as u8);
    found
}

pub(super) fn words(text: impl Into<String>) -> Piece {
    Piece::Words(text.into())
}

pub(super) fn name(text: &str) -> Piece {
    Piece::Name(shortened(text))
}

fn insight(weight: Weight, pieces: Vec<Piece>) -> Insight {
    Insight { weight, pieces }
}

fn amiss(part: &PartView<'_>) -> Vec<Insight> {
    let (dropped, unbalanced) = part.amiss();
    let tell = |count: u64, what: &str| {
        (count > 0).then(|| insight(Weight::Doubt, vec![words(format!("{count} scopes {what}"))]))
    };
    [
        tell(dropped, "found no room and are missing from every figure."),
        tell(unbalanced, "were never closed, or closed out of order: their times are not known."),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unsteady(part: &PartView<'_>) -> Option<Insight> {
    let (runs, width) = (part.part.runs.len(), part.wall.width());
    (runs > 1 && width > UNSTEADY).then(|| {
        let text = format!(
            "The {runs} runs differ by {} % in wall time; smaller differences between two profiles say little.",
            percent(width)
        );
        insight(Weight::Doubt, vec![words(text)])
    })
}

fn outside(part: &PartView<'_>) -> Option<Insight> {
    let share = ratio(part.outside_ns() as f64, part.middle.wall_ns as f64);
    (share > UNSTEADY && !part.middle.methods.is_empty()).then(|| {
        let outside = duration(part.outside_ns() as f64);
        let text = format!("{outside}, {} % of the time, lies outside of every scope.", percent(share));
        insight(Weight::Doubt, vec![words(text)])
    })
}

fn largest(part: &PartView<'_>) -> Option<Insight> {
    let methods = part.by_self_time();
    let shown = &methods[..methods.len().min(MOST)];
    let wall = part.middle.wall_ns as f64;
    let together = ratio(shown.iter().map(|method| method.self_ns as f64).sum(), wall);
    let mut pieces = vec![words(match shown.len() {
        0 => return None,
        1 => "All time in methods is spent in ".to_string(),
        _ => format!("{} % of the time is spent in ", percent(together)),
    })];
    for (index, method) in shown.iter().enumerate() {
        let joint = if index == 0 {
            ""
        } else if index + 1 == shown.len() {
            " and "
        } else {
            ", "
        };
        pieces.push(words(joint));
        pieces.push(name(&method.name));
        pieces.push(words(format!(" ({} %)", percent(ratio(method.self_ns as f64, wall)))));
    }
    pieces.push(words(", by their own work alone."));
    Some(insight(Weight::Fact, pieces))
}

fn below_roof(report: &Report, part: &PartView<'_>) -> Vec<Insight> {
    let wall = part.middle.wall_ns as f64;
    let mut ops = ops::of(part, &report.machine);
    ops.retain(|op| {
        let far = op.roof.as_ref().is_some_and(|roof| roof.share < FAR_BELOW);
        far && ratio(op.stake_ns(), wall) > NOTABLE
    });
    sort::by(&mut ops, |a, b| b.stake_ns().total_cmp(&a.stake_ns()));
    let tell = |op: &ops::Op<'_>| {
        let roof = op.roof.as_ref()?;
        let speed = match op.node.flops {
            0 => format!("{} GB/s", short(op.node.gbps())),
            _ => format!("{} GFLOPS", short(op.node.gflops())),
        };
        let text = format!(
            " reaches {speed}, {} % of what {} allows: {} ({} % of the time) at stake.",
            percent(roof.share),
            roof.name,
            duration(op.stake_ns()),
            percent(ratio(op.stake_ns(), wall)),
        );
        Some(insight(Weight::Chance, vec![name(&op.label), words(text)]))
    };
    ops.iter().take(MOST).filter_map(tell).collect()
}

/// Nanoseconds that threads waited for each other, of all threads together.
fn waited_ns(part: &PartView<'_>) -> f64 {
    let barrier = part.middle.methods.iter().find(|method| waits(method));
    barrier.map_or(0.0, |barrier| barrier.idle_ns as f64)
}

pub(super) fn waits(method: &Method) -> bool {
    is_wait(&method.name)
}

fn waiting(report: &Report, part: &PartView<'_>) -> Option<Insight> {
    let threads = report.machine.threads.max(1);
    let share = ratio(waited_ns(part), part.middle.wall_ns as f64 * threads as f64);
    (share > NOTABLE).then(|| {
        let waited = duration(waited_ns(part));
        let text = format!(
            "{threads} threads waited for each other for {waited} together, {} % of their time.",
            percent(share)
        );
        insight(Weight::Chance, vec![words(text)])
    })
}

/// Sentences about places of the tree: methods are sums over places that may have little in common.
fn about_places(part: &PartView<'_>, tell: impl Fn(&Method) -> Option<String>) -> Vec<Insight> {
    let all: Vec<usize> = (0..part.tree.nodes.len()).collect();
    let labelled = part.tree.nodes.iter().zip(part.tree.labels(&all));
    let told =
        labelled.filter(|(node, _)| !waits(node)).filter_map(|(node, label)| Some((label, tell(node)?)));
    let sentence = |(label, text): (String, String)| insight(Weight::Chance, vec![name(&label), words(text)]);
    told.take(MOST).map(sentence).collect()
}

fn uneven(part: &PartView<'_>) -> Vec<Insight> {
    let wall = part.middle.wall_ns as f64;
    about_places(part, |node| {
        let sum: f64 = node.lanes.iter().map(|lane| lane.self_ns as f64).sum();
        let mean = ratio(sum, node.lanes.len() as f64);
        let busiest = node.lanes.iter().max_by_key(|lane| lane.self_ns)?;
        let extra = busiest.self_ns as f64 - mean;
        (ratio(extra, wall) > NOTABLE).then(|| {
            let extra = duration(extra);
            format!(
                " is shared unevenly: thread {} works {extra} longer in it than the mean.",
                busiest.thread
            )
        })
    })
}

fn tails(part: &PartView<'_>) -> Vec<Insight> {
    let wall = part.middle.wall_ns as f64;
    about_places(part, |node| {
        if ratio(node.self_ns as f64, wall) <= NOTABLE || node.calls < MANY_CALLS {
            return None;
        }
        let (usual, mean, p99) = (node.p50_ns as f64, node.mean_ns as f64, node.p99_ns as f64);
        let as_a_rule = format!(" takes {} as a rule, but", duration(usual));
        if ratio(mean, usual) > FEW_LONG {
            let longest = duration(node.max_ns as f64);
            return Some(format!(
                "{as_a_rule} {} on average: its longest call took {longest}.",
                duration(mean)
            ));
        }
        let times = short(ratio(p99, usual));
        (ratio(p99, usual) > LONG_TAIL).then(|| {
            format!("{as_a_rule} one call of a hundred takes {} or more ({times} ×).", duration(p99))
        })
    })
}

fn allocations(part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Vec<Insight> {
    let here = rates.iter().filter(|rate| rate.part == part.index);
    let mut found: Vec<Insight> = here.map(of_a_token).collect();
    let largest = part.methods.iter().map(|m| &m.figures).max_by_key(|m| m.self_alloc_bytes);
    if let Some(method) = largest.filter(|method| method.self_alloc_bytes > 0) {
        let bytes = method.self_alloc_bytes as f64;
        // A thread's help in a call of another is no call.
        let calls = match method.calls {
            0 => String::new(),
            calls => format!(" in {}, {} each", counted(calls, "call"), size(bytes / calls as f64)),
        };
        let text = format!(" allocates most by itself: {}{calls}.", size(bytes));
        found.push(insight(Weight::Fact, vec![name(&method.name), words(text)]));
    }
    found
}

/// Allocations of a model for a token. Less than one for each belongs to the generation, not to a token.
fn of_a_token(rate: &ModelRate<'_>) -> Insight {
    let model = name(&rate.model.name);
    if rate.alloc_count == 0.0 {
        return insight(Weight::Fact, vec![model, words(" allocates nothing while it makes tokens.")]);
    }
    if rate.alloc_count < 1.0 {
        let text = format!(
            " allocates nothing for each token: {} in {} for all {} of them.",
            counted((rate.alloc_count * rate.tokens as f64).round() as u64, "allocation"),
            size(rate.alloc_bytes * rate.tokens as f64),
            rate.tokens,
        );
        return insight(Weight::Fact, vec![model, words(text)]);
    }
    let text = format!(
        " allocates {} in {} allocations for each token.",
        size(rate.alloc_bytes),
        short(rate.alloc_count)
    );
    insight(Weight::Chance, vec![model, words(text)])
}

/// How a part's speed stands to that of the first part.
fn against_first(report: &Report, part: &PartView<'_>, rates: &[ModelRate<'_>]) -> Vec<Insight> {
    let Some(first) = report.parts.first().filter(|_| part.index > 0) else { return Vec::new() };
    let here = rates.iter().filter(|rate| rate.part == part.index);
    let tell = |rate: &ModelRate<'_>| {
        let before = rates.iter().find(|other| other.part == 0 && other.model.name == rate.model.name)?;
        if before.tokens != rate.tokens {
            return None;
        }
        let times = short(ratio(rate.speed.median, before.speed.median));
        let text = format!(" makes {times} × as many tokens a second as in ");
        Some(insight(Weight::Fact, vec![name(&rate.model.name), words(text), name(&first.name), words(".")]))
    };
    here.filter_map(tell).collect()
}

/// A number of things.
fn counted(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{ending}")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::super::{models, view};
    use super::*;
    use crate::report::data::Lane;

    fn sentences(report: &Report, part: usize) -> Vec<String> {
        let parts = view::parts(report);
        let rates = models::rates(report, &parts);
        let text = |insight: &Insight| {
            let pieces = insight.pieces.iter().map(|piece| match piece {
                Piece::Words(text) | Piece::Name(text) => text.as_str(),
            });
            pieces.collect()
        };
        of(report, &parts[part], &rates).iter().map(text).collect()
    }

    fn has(sentences: &[String], part: &str) -> bool {
        sentences.iter().any(|sentence| sentence.contains(part))
    }

    #[test]
    fn what_is_planted_is_told() {
        let mut report = sample::report();
        let before = sentences(&report, 0);
        assert!(has(&before, "linear.up (21.0 %)"), "{before:#?}");
        assert!(has(&before, "54.6 GFLOPS, 34.1 % of what arithmetic allows"), "{before:#?}");
        assert!(has(&before, "2 threads waited for each other"), "{before:#?}");
        for absent in
            ["no room", "never closed", "outside of every scope", "differ by", "unevenly", "as a rule"]
        {
            assert!(!has(&before, absent), "{absent}: {before:#?}");
        }
        let run = &mut report.parts[0].runs[2];
        (run.dropped, run.unbalanced) = (7, 2);
        // The run stays in the middle.
        run.methods.iter_mut().for_each(|method| method.self_ns = method.self_ns * 9 / 10);
        // That of Medium: the first in the tree.
        let up = run.tree.iter_mut().find(|method| method.name == "linear.up").unwrap();
        up.lanes = vec![
            Lane { thread: 0, total_ns: 0, self_ns: 1_000_000 },
            Lane { thread: 1, total_ns: 0, self_ns: 21_000_000 },
        ];
        let down = run.tree.iter_mut().find(|method| method.name == "linear.down").unwrap();
        down.p99_ns = down.p50_ns * 5;
        let qkv = run.tree.iter_mut().find(|method| method.name == "linear.qkv").unwrap();
        (qkv.p50_ns, qkv.mean_ns, qkv.max_ns) = (50_000, 150_000, 9_000_000);
        report.parts[0].runs[0].wall_ns = report.parts[0].runs[0].wall_ns * 11 / 10;
        let after = sentences(&report, 0);
        for told in [
            "7 scopes found no room",
            "2 scopes were never closed",
            "lies outside of every scope",
            "The 3 runs differ by",
            "linear.up ‹ Model_Medium_Forward is shared unevenly: thread 1 works 10.0 ms longer",
            "linear.down ‹ Model_Medium_Forward takes 207 µs as a rule, but one call of a hundred takes 1.04 ms or more (5.00 ×).",
            "linear.qkv ‹ Model_Medium_Forward takes 50.0 µs as a rule, but 150 µs on average: its longest call took 9.00 ms.",
        ] {
            assert!(has(&after, told), "{told}: {after:#?}");
        }
    }

    #[test]
    fn parts_are_held_against_the_first() {
        let found = sentences(&sample::report(), 1);
        assert!(has(&found, "Small makes 12.8 × as many tokens a second as in same work."), "{found:#?}");
        assert!(has(&found, "Small allocates nothing for each token: 1 allocation in 2.00 KB for all 25"));
        let mut report = sample::report();
        for run in &mut report.parts[1].runs {
            let inference = run.methods.iter_mut().find(|m| m.name == "Model_Small_Inference").unwrap();
            (inference.alloc_bytes, inference.alloc_count) = (25 * 4096, 50);
        }
        let found = sentences(&report, 1);
        assert!(has(&found, "Small allocates 4.00 KB in 2.00 allocations for each token."), "{found:#?}");
    }
}
