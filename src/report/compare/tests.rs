//! Comparisons of made-up reports: verdicts, what they are based on, and how often they are wrong.

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64;

use super::*;
use crate::report::data::{Machine, Method, ModelSpec, Report};
use crate::report::read::Layout;
use crate::report::testing::{method, report};

fn read(report: Report) -> Read {
    Read::of("report", report).unwrap()
}

/// Runs of one method with these times.
fn times(times: &[u64]) -> Read {
    read(report(times.iter().map(|&time| vec![method("work", 1, time)]).collect()))
}

fn compared(before: &Read, after: &Read) -> Comparison {
    compare(before, after).unwrap()
}

fn verdicts(comparison: &Comparison) -> Vec<(&str, Verdict)> {
    comparison.parts[0].methods.iter().map(|method| (method.name.as_str(), method.time_ns.verdict)).collect()
}

#[test]
fn a_clear_change_is_told_and_has_its_ratio() {
    let before = times(&[1_000_000, 1_010_000, 1_005_000]);
    let slower = compared(&before, &times(&[1_200_000, 1_212_000, 1_206_000]));
    let method = &slower.parts[0].methods[0];
    assert_eq!(method.time_ns.verdict, Verdict::Regressed);
    assert!((method.time_ns.ratio.unwrap() - 1.2).abs() < 1e-9);
    let [low, high] = method.time_ns.interval.unwrap();
    assert!(1.17 < low && low < 1.2 && 1.2 < high && high < 1.23, "{low} {high}");
    assert_eq!(
        (slower.parts[0].verdict, &*slower.parts[0].summary[0].name),
        (Verdict::Regressed, "wall time")
    );
    let faster = compared(&times(&[1_200_000, 1_212_000, 1_206_000]), &before);
    assert_eq!(faster.parts[0].verdict, Verdict::Improved);
    assert!((faster.parts[0].methods[0].time_ns.percent().unwrap() + 16.6667).abs() < 1e-3);
}

#[test]
fn one_run_a_side_is_never_a_verdict() {
    let many = times(&[1_000_000, 1_010_000, 1_005_000]);
    for (before, after) in
        [(times(&[1_000_000]), times(&[9_000_000])), (many.clone(), times(&[9_000_000])), (times(&[9]), many)]
    {
        let comparison = compared(&before, &after);
        let part = &comparison.parts[0];
        assert!(!matches!(part.verdict, Verdict::Improved | Verdict::Regressed));
        assert!(
            part.methods.iter().all(|method| method.time_ns.interval.is_none() && method.time_ns.p.is_none())
        );
        assert!(!comparison.can_tell() && comparison.regressions(0.0).is_empty());
        assert!(render_comparison(&comparison).contains("One run can't tell noise from a change"));
    }
    // The change itself is shown all the same.
    let comparison = compared(&times(&[1_000_000]), &times(&[9_000_000]));
    assert!((comparison.parts[0].methods[0].time_ns.ratio.unwrap() - 9.0).abs() < 1e-9);
}

#[test]
fn noise_is_no_verdict() {
    let comparison =
        compared(&times(&[1_000_000, 1_300_000, 1_150_000]), &times(&[1_200_000, 1_050_000, 1_350_000]));
    assert_eq!(verdicts(&comparison), [("work", Verdict::NoDifference)]);
    let [low, high] = comparison.parts[0].methods[0].time_ns.interval.unwrap();
    assert!(low < 1.0 && 1.0 < high);
}

#[test]
fn copies_of_a_run_count_once() {
    let before = times(&[1_000_000, 1_000_000, 1_000_000]);
    let comparison = compared(&before, &times(&[1_100_000, 1_100_001, 1_100_002]));
    assert_eq!(comparison.parts[0].runs, [1, 3]);
    assert_eq!(comparison.parts[0].verdict, Verdict::NoDifference);
    let copies = comparison.notes.iter().filter(|note| note.contains("is a copy of an earlier one"));
    assert_eq!(copies.count(), 2);
}

#[test]
fn what_the_clock_cannot_tell_gets_no_verdict() {
    let side = |each: u64| {
        let runs = (0..5)
            .map(|run| vec![method("long", 1, 1_000_000 + run), method("short", 1000, 1000 * each + run)]);
        read(report(runs.collect()))
    };
    let comparison = compared(&side(60), &side(90));
    assert_eq!(verdicts(&comparison), [("short", Verdict::TooShort), ("long", Verdict::NoDifference)]);
    assert!(comparison.regressions(5.0).is_empty());
    // From 100 ns a call on, it counts.
    let comparison = compared(&side(200), &side(300));
    assert_eq!(verdicts(&comparison)[0], ("short", Verdict::Regressed));
}

#[test]
fn added_and_removed_methods_and_parts_are_listed() {
    let side = |names: [&str; 2], part: &str| {
        let mut report = report(vec![names.iter().map(|name| method(name, 2, 2_000_000)).collect()]);
        report.parts.push(Part { name: part.into(), ..report.parts[0].clone() });
        read(report)
    };
    let comparison = compared(&side(["a", "old"], "first"), &side(["a", "new"], "second"));
    let part = &comparison.parts[0];
    assert_eq!((part.added.len(), &*part.added[0].name, part.added[0].time_ns), (1, "new", 2e6));
    assert_eq!((part.removed.len(), &*part.removed[0].name, part.removed[0].calls), (1, "old", 2.0));
    assert_eq!(
        (&comparison.added_parts[..], &comparison.removed_parts[..]),
        (&["second".into()][..], &["first".into()][..])
    );
    let text = render_comparison(&comparison);
    for expected in
        ["### Added Methods", "| new | 2 | 2.0000 |", "### Removed Methods", "Parts added: **second**"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn reports_without_a_common_part_are_refused() {
    let mut other = report(vec![vec![method("a", 1, 5)]]);
    other.parts[0].name = "another".into();
    let error = compare(&times(&[1]), &read(other)).unwrap_err().to_string();
    assert!(error.contains("no part in common: \"same work\" against \"another\""), "{error}");
}

#[test]
fn unlike_conditions_are_noted() {
    let side = |cpu: &str, threads, mode: &str| {
        let mut report = report(vec![vec![method("a", 1, 5)]]);
        report.machine = Machine { cpu: cpu.into(), threads, ..Machine::default() };
        report.mode = mode.into();
        report.parts[0].runs[0].unbalanced = u64::from(threads == 2);
        read(report)
    };
    let notes = compared(&side("A", 1, "deep"), &side("B", 2, "standard")).notes;
    for expected in [
        "The mode is not the same: \"deep\" against \"standard\".",
        "The processor is not the same",
        "The number of threads is not the same: \"1\" against \"2\".",
        "0 scopes were not recorded and 1 not closed",
    ] {
        assert!(notes.iter().any(|note| note.contains(expected)), "{expected}: {notes:?}");
    }
    assert!(compared(&side("A", 1, "deep"), &side("", 1, "deep")).notes.is_empty());
}

#[test]
fn allocations_that_are_the_same_in_every_run_are_told_exactly() {
    let side = |bytes: u64, peak: u64| {
        let runs = [1_000_000u64, 1_020_000, 990_000];
        let mut report = report(runs.iter().map(|&time| vec![method("a", 1, time)]).collect());
        for run in &mut report.parts[0].runs {
            (run.alloc_bytes, run.peak_bytes) = (bytes, peak);
        }
        read(report)
    };
    let verdict = |before: &Read, after: &Read, name: &str| {
        let comparison = compared(before, after);
        comparison.parts[0].summary.iter().find(|metric| metric.name == name).unwrap().change.verdict
    };
    assert_eq!(verdict(&side(4000, 50), &side(4000, 50), "allocated"), Verdict::NoDifference);
    assert_eq!(verdict(&side(4000, 50), &side(5000, 50), "allocated"), Verdict::Regressed);
    // Nothing at all has no ratio, and is told.
    assert_eq!(verdict(&side(4000, 50), &side(0, 50), "allocated"), Verdict::Improved);
    assert_eq!(verdict(&side(0, 50), &side(4000, 50), "allocated"), Verdict::Regressed);
    assert_eq!(verdict(&side(0, 50), &side(0, 50), "allocated"), Verdict::NoDifference);
    // A peak of 0 was never measured.
    assert_eq!(verdict(&side(1, 0), &side(1, 50), "peak memory"), Verdict::Unknown);
}

#[test]
fn a_limit_is_passed_only_by_the_whole_interval() {
    let before = times(&[1_000_000, 1_001_000, 999_000, 1_000_500]);
    let after = times(&[1_100_000, 1_101_000, 1_099_000, 1_100_500]);
    let comparison = compared(&before, &after);
    // The wall time and the method, by 10 %.
    let found = comparison.regressions(5.0);
    let names: Vec<_> = found.iter().map(|regression| regression.what.as_str()).collect();
    assert_eq!(names, ["wall time", "work"]);
    assert!(found.iter().all(|regression| regression.interval[0] > 1.05 && regression.part == "same work"));
    assert_eq!(comparison.regressions(9.5).len(), 2);
    assert!(comparison.regressions(9.99).is_empty() && comparison.regressions(20.0).is_empty());
    assert!(compared(&after, &before).regressions(0.0).is_empty());
}

/// A page that tells which methods run inside of which, and whose total isn't wall time.
#[test]
fn a_total_over_nested_scopes_is_not_held_against_wall_time() {
    let runs =
        || vec![vec![method("outer", 1, 500_000), method("inner", 1, 400_000), method("own", 1, 70_000)]];
    let mut before = read(report(runs()));
    before.report.parts[0].runs[0].wall_ns = 0;
    before.nested_total_ns = Some(970_000);
    before.allocations_counted = false;
    before.inside = [("inner".to_owned(), vec!["outer".to_owned()])].into();
    let comparison = compared(&before, &read(report(runs())));
    let figures: Vec<_> = comparison.parts[0]
        .summary
        .iter()
        .map(|metric| (&*metric.name, metric.change.before.map(f64::round), metric.change.verdict))
        .collect();
    assert_eq!(
        figures[0],
        ("same methods, nested ones counted again", Some(970_000.0), Verdict::NoDifference)
    );
    assert_eq!(figures[1], ("same methods, nested ones left out", Some(570_000.0), Verdict::NoDifference));
    assert_eq!(figures[2], ("wall time", None, Verdict::Unknown));
    assert!(figures[3..5].iter().all(|figure| figure.2 == Verdict::Unknown), "{figures:?}");
    // Where the outer one isn't compared, the inner one counts.
    before.inside = [("inner".to_owned(), vec!["elsewhere".to_owned()])].into();
    let comparison = compared(&before, &read(report(runs())));
    assert_eq!(comparison.parts[0].summary[1].name, "wall time");
}

#[test]
fn the_page_has_every_section_and_the_json_every_figure() {
    let side = |matmul: u64, layout: Layout| {
        let mut report = report(vec![vec![
            Method { flops: 4_000_000, ..method("MatMul_128x128", 1, matmul) },
            method("Model_Small_Inference", 1, 500_000),
        ]]);
        report.models = vec![ModelSpec {
            name: "Small".into(),
            parameters: 470_528,
            tensors: 29,
            vocab: 256,
            context: 64,
            dim: 128,
            layers: 2,
            heads: 4,
            weight_bytes: 0,
            tokens: vec![25],
        }];
        Read { layout, notes: vec!["a note".into()], ..read(report) }
    };
    let comparison = compared(&side(40_000, Layout::Dialect("other")), &side(20_000, Layout::Json));
    let page = render_comparison(&comparison);
    for section in [
        "# Profiles Compared",
        "## Notes",
        "## Part: same work",
        "### Summary",
        "### Verdict",
        "### Largest Decreases (Not Shown to Be Real)",
        "### Largest Increases (Not Shown to Be Real)",
        "### Method by Method",
        "### Model Sizes",
        "### SIMD Operations",
    ] {
        assert!(page.contains(&format!("{section}\n")), "{section}");
    }
    // Each table is whole: as many cells as columns.
    let mut columns = 0;
    for line in page.lines() {
        match line.starts_with('|') {
            true if columns == 0 => columns = line.matches(" | ").count(),
            true if !line.starts_with("|-") => assert_eq!(line.matches(" | ").count(), columns, "{line}"),
            true => {}
            false => columns = 0,
        }
    }
    let json = serde_json::to_value(&comparison).unwrap();
    assert_eq!(json["parts"][0]["methods"][0]["name"], "MatMul_128x128");
    assert_eq!(json["parts"][0]["methods"][0]["time_ns"]["verdict"], "no_difference");
    assert_eq!(json["before"]["layout"], "other");
    assert!(page.contains("| layout | Markdown of the other | JSON |"), "{page}");
    let told =
        compared(&times(&[1_000_000, 1_010_000, 1_005_000]), &times(&[1_200_000, 1_212_000, 1_206_000]));
    let page = render_comparison(&told);
    assert!(page.contains("### Top 10 Improvements\n\nNone.\n"), "{page}");
    assert!(page.contains("| 1 | work | 1.0050 | 1.2060 | +0.200998 | +20.0 | +18"), "{page}");
    assert!(page.contains("**regressed**: wall time changed by +20.0 %"), "{page}");
}

/// Normal noise by Box and Muller.
fn normal(random: &mut Pcg64) -> f64 {
    let mut uniform = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (-2.0 * (1.0 - uniform()).ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos()
}

#[test]
fn of_many_methods_that_did_not_change_hardly_one_is_called_changed() {
    const TRIALS: usize = 300;
    let mut random = Pcg64::seed_from_u64(11);
    let [mut any, mut found] = [0, 0];
    for _ in 0..TRIALS {
        let mut side = |changed: f64| {
            let mut run = || {
                let mut time = |factor: f64| (1e6 * factor * (0.01 * normal(&mut random)).exp()) as u64;
                let mut methods = vec![method("changed", 1, time(changed))];
                methods.extend((0..29).map(|index| method(&format!("alike {index}"), 1, time(1.0))));
                methods
            };
            read(report((0..5).map(|_| run()).collect()))
        };
        let comparison = compared(&side(1.0), &side(1.1));
        let told = |name: &str, verdict| {
            matches!(verdict, Verdict::Improved | Verdict::Regressed) && name != "changed"
        };
        any += usize::from(verdicts(&comparison).iter().any(|(name, verdict)| told(name, *verdict)));
        found += usize::from(verdicts(&comparison).contains(&("changed", Verdict::Regressed)));
    }
    println!("{any} of {TRIALS} comparisons call something changed that is not, {found} find what is");
    // 5 % with two standard deviations; without correction it would be three of four.
    assert!(any as f64 <= 0.075 * TRIALS as f64, "{any}");
    assert!(found as f64 >= 0.98 * TRIALS as f64, "{found}");
}
