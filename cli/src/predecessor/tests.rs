//! The predecessor's pages: read whole, refused with the line at fault, and compared with reports of ours.

use smallmind::report::compare::{Comparison, Verdict, compare};
use smallmind::report::data::{self, Method, ModelSpec, Report};
use smallmind::report::read::{Layout, check, parse_with};
use smallmind::report::{Format, Read, render};

use super::pages::Pages;
use testing::{each_damaged, method, report};

#[path = "../../../src/report/testing.rs"]
mod testing;

fn parse(source: &str, bytes: &[u8]) -> smallmind::Result<Read> {
    parse_with(source, bytes, &[&Pages])
}

fn error(bytes: &[u8]) -> String {
    parse("file", bytes).unwrap_err().to_string()
}

fn read(report: Report) -> Read {
    Read::of("report", report).unwrap()
}

fn compared(before: &Read, after: &Read) -> Comparison {
    compare(before, after).unwrap()
}

/// A page of the enhanced mode, in the layout of the predecessor; the figures are made up.
const ENHANCED: &str = "# Enhanced Performance Profile Report\n\n**Generated:** 2026-01-02 03:04:05\n\n## Summary\n\n\
- **Total Runtime:** 1,100.30 ms\n- **Total Allocations:** 3.00 MB\n- **Methods Profiled:** 6\n\n\
## 🔥 Hot Paths (Top 30)\n\n\
| Rank | Method | Time (ms) | Calls | Avg (ms) | Alloc (MB) |\n|------|--------|-----------|-------|----------|------------|\n\
| 1 | `Model_Small_Inference` | 500.00 | 1 | 500.000 | 1.00 |\n\
| 2 | `Model_Small_GenerateToken` | 400.00 | 25 | 16.000 | 1.00 |\n\
| 3 | `MatMul_128x128` | 100.20 | 1 | 100.204 | 0.00 |\n\
| 4 | `MatMul_Iteration` | 80.00 | 3 | 26.667 | 0.00 |\n\
| 5 | `TensorAdd_10000` | 20.06 | 1 | 20.061 | 0.50 |\n\
| 6 | `TensorAdd_Iteration` | 0.04 | 10 | 0.004 | 0.50 |\n\n\
## 💾 Top Allocators\n\n| Rank | Method | Total (MB) | Calls | Avg (KB) |\n|---|---|---|---|---|\n\
| 1 | `Model_Small_Inference` | 1.00 | 1 | 1024.00 |\n| 2 | `TensorAdd_10000` | 0.50 | 1 | 512.00 |\n";

#[test]
fn the_predecessors_page_is_read() {
    let read = parse("old.md", ENHANCED.as_bytes()).unwrap();
    assert_eq!(read.layout, Layout::Dialect("predecessor"));
    assert_eq!(read.nested_total_ns, Some(1_100_300_000));
    assert!(read.notes[0].contains("sums over nested scopes"));
    assert_eq!((&*read.report.mode, &*read.report.created), ("enhanced", "2026-01-02 03:04:05"));
    let run = &read.report.parts[0].runs[0];
    assert_eq!((&*read.report.parts[0].name, run.wall_ns, run.methods.len()), ("same work", 0, 6));
    // The mean has more digits: 10 calls of 0.004 ms are known to 5 µs like the total, one call to half a µs.
    let product = &run.methods[2];
    assert_eq!((&*product.name, product.calls, product.total_ns), ("MatMul_128x128", 1, 100_204_000));
    assert!((read.rounding_ns[&(0, product.name.clone())] - 500.0).abs() < 1e-6);
    assert!((read.rounding_ns[&(0, "TensorAdd_Iteration".to_owned())] - 5000.0).abs() < 1e-6);
    assert_eq!(run.methods[0].alloc_bytes, 1 << 20);
    let model = &read.report.models[0];
    assert_eq!((&*model.name, model.parameters, &model.tokens[..]), ("Small", 470_528, &[25][..]));
    assert_eq!(read.report.models.len(), 1);
}

#[test]
fn the_predecessors_other_pages_are_read_too() {
    let page = "# Performance Profile Report\n\n**Generated:** 2026-01-02\n**Total Runtime:** 2500.00 ms\n\
**Total Allocations:** 10.00 MB\n**Methods Profiled:** 2\n\n## 🔥 Hot Paths (by Time)\n\nText:\n\n\
| Rank | Method | Total Time (ms) | % of Total | Calls | Avg Time (ms) | Min (ms) | Max (ms) |\n|--|--|--|--|--|--|--|--|\n\
| 1 | `InferenceComplete` | 2407.761 | 96.31% | 3 | 802.587 | 545.368 | 1145.521 |\n\
| 2 | `BuilderSetup` | 18.939 | 0.76% | 1 | 18.939 | 19.108 | 19.071 |\n\n\
## 💾 Top Allocators (by Memory)\n\n| Rank | Method | Total Alloc (MB) | % of Total | Calls | Avg Alloc (KB) |\n|--|--|--|--|--|--|\n\
| 1 | `InferenceComplete` | 10.000 | 99.66% | 3 | 3413.333 |\n| 2 | `BuilderSetup` | 0.000 | 0.00% | 1 | 0.000 |\n\n\
## 📞 Most Called Methods\n\n| Rank | Method | Calls | Total Time (ms) | Avg Time (μs) |\n|--|--|--|--|--|\n\
| 1 | `InferenceComplete` | 3 | 2407.761 | 802586.834 |\n";
    let read = parse("old.md", page.as_bytes()).unwrap();
    let run = &read.report.parts[0].runs[0];
    assert_eq!((read.nested_total_ns, run.wall_ns, run.alloc_bytes), (None, 2_500_000_000, 10 << 20));
    assert_eq!((run.methods[0].alloc_bytes, run.methods[0].max_ns), (10 << 20, 1_145_521_000));
    // Its shortest call is longer than its mean: told, and put in order.
    assert!(
        read.notes[0].contains("line 15") && read.notes[0].contains("\"BuilderSetup\""),
        "{:?}",
        read.notes
    );
    assert_eq!(run.methods[1].min_ns, 18_939_000);
}

#[test]
fn a_summary_in_a_table_and_other_orders_of_columns_are_read() {
    let page = "# Enhanced Performance Profile Report\n## Summary\n| Metric | Value |\n|---|---|\n\
| Total Runtime | 2 s |\n| Total Allocations | 512 KB |\n| Methods | 1 |\n\
## Hot Paths\n| **Calls** | Time (s) | Method |\n|--:|---|---|\n| 2 | 2.0 | **MatMul** |\n";
    let read = parse("old.md", page.as_bytes()).unwrap();
    let method = &read.report.parts[0].runs[0].methods[0];
    assert_eq!((&*method.name, method.calls, method.total_ns), ("MatMul", 2, 2_000_000_000));
}

#[test]
fn every_fault_in_the_predecessors_page_is_told_with_its_line() {
    for (from, to, expected) in [
        ("| 3 | `MatMul_128x128` | 100.20 | 1 | 100.204 | 0.00 |\n", "", "line 17: rank 4 where 3 is due"),
        (
            "| 6 | `TensorAdd_Iteration` | 0.04 | 10 | 0.004 | 0.50 |\n",
            "",
            "line 13: 5 methods where line 9 says 6",
        ),
        (
            "`MatMul_Iteration`",
            "`MatMul_128x128`",
            "line 18: the method \"MatMul_128x128\" stands in line 17 already",
        ),
        ("| 80.00 |", "| NaN |", "line 18: \"Time (ms)\": \"NaN\" is no number"),
        ("| 80.00 |", "| -80.00 |", "line 18: \"Time (ms)\": \"-80.00\" is negative"),
        ("| 80.00 |", "| Infinity |", "line 18: \"Time (ms)\": \"Infinity\" is no number"),
        ("| 80.00 |", "| |", "line 18: no time (\"MatMul_Iteration\")"),
        (
            "| 80.00 |",
            "| 800.00 |",
            "line 18: 3 calls of 26.667000 ms on average are not 800.000000 ms in all",
        ),
        ("| 3 | 26.667 |", "| 2.5 | 26.667 |", "line 18: \"Calls\": \"2.5\" is no whole number"),
        ("| Calls | Avg (ms) |", "| Count | Avg (ms) |", "line 13: no column for the calls"),
        ("| Time (ms) |", "| Span (ms) |", "line 13: no column for the total time"),
        (
            "| Avg (ms) |",
            "| Total (ms) |",
            "line 13: the columns \"Time (ms)\" and \"Total (ms)\" say the same",
        ),
        ("| Rank | Method | Time", "| Rank | Name | Time", "line 13: no column for the names"),
        ("- **Total Runtime:** 1,100.30 ms\n", "", "no \"total runtime\" in the summary"),
        ("1,100.30", "1,10.30", "line 7: total runtime: \"1,10.30 ms\" is no number"),
        (
            "- **Methods",
            "- **Total Runtime:** 5 ms\n- **Methods",
            "line 9: \"total runtime\" a second time; the first is line 7",
        ),
        ("Hot Paths", "Cold Paths", "no section \"Hot Paths\""),
        (
            "| 0.50 | 1 | 512.00 |",
            "| 0.90 | 1 | 512.00 |",
            "line 27: allocations of \"TensorAdd_10000\" are not those of line 19",
        ),
        (
            "| 0.50 | 1 | 512.00 |",
            "| 0.50 | 3 | 512.00 |",
            "line 27: 3 calls of \"TensorAdd_10000\", 1 in line 19",
        ),
        ("`TensorAdd_10000` | 20.06", "`` | 20.06", "line 19: a method without a name"),
    ] {
        assert!(ENHANCED.contains(from), "{from}");
        let found = error(ENHANCED.replacen(from, to, 1).as_bytes());
        assert!(found.contains(expected), "{from} -> {to}: {found}");
    }
    // What stands among the allocators only is told, not dropped.
    let page = ENHANCED.replace("| 2 | `TensorAdd_10000` | 0.50 | 1", "| 2 | `Other` | 0.50 | 1");
    let read = parse("old.md", page.as_bytes()).unwrap();
    assert!(read.notes.iter().any(|note| note.contains("\"Other\" stands among the allocators only")));
}

/// A page of the predecessor's enhanced mode with these times in ms, in its layout.
fn predecessor(matmul: f64) -> Read {
    let small = [
        ("Model_Small_Inference", 500.0, 1),
        ("Model_Small_Forward", 400.0, 25),
        ("Model_Small_GenerateToken", 450.0, 25),
    ];
    let single = [
        ("MatMul_128x128", matmul, 1),
        ("MatMul_Iteration", 30.0, 3),
        ("GELU_1000", 6.0, 1),
        ("GELU_Iteration", 5.0, 5),
        ("TensorAdd_10000", 2.0, 1),
        ("TensorAdd_Iteration", 1.5, 10),
    ];
    let rows: Vec<_> = small.iter().chain(&single).collect();
    let total: f64 = rows.iter().map(|row| row.1).sum();
    let mut page = format!(
        "# Enhanced Performance Profile Report\n\n- **Total Runtime:** {total:.2} ms\n- **Total Allocations:** 1.00 MB\n\
         - **Methods Profiled:** {}\n\n## Hot Paths (Top 30)\n\n| Rank | Method | Time (ms) | Calls | Avg (ms) | Alloc (MB) |\n\
         |---|---|---|---|---|---|\n",
        rows.len()
    );
    for (index, (name, ms, calls)) in rows.iter().enumerate() {
        let mean = ms / f64::from(*calls);
        page += &format!("| {} | `{name}` | {ms:.2} | {calls} | {mean:.3} | 0.00 |\n", index + 1);
    }
    parse("old.md", page.as_bytes()).unwrap()
}

#[test]
fn the_predecessors_total_is_not_held_against_wall_time() {
    let mut ours = report(vec![vec![
        method("Model_Small_Inference", 1, 50_000_000),
        method("Model_Small_GenerateToken", 25, 45_000_000),
        method("Model_Small_Forward", 25, 40_000_000),
        Method { flops: 4 * 2 * 128 * 128 * 128, ..method("MatMul_128x128", 1, 1_000_000) },
        Method { flops: 6 * 8 * 1000, ..method("GELU_1000", 1, 6_000) },
        method("own", 1, 7_000_000),
    ]]);
    ours.models = vec![ModelSpec {
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
    let comparison = compared(&predecessor(40.0), &read(ours));
    let part = &comparison.parts[0];
    let figures: Vec<_> = part
        .summary
        .iter()
        .map(|metric| (&*metric.name, metric.change.before, metric.change.after))
        .collect();
    let near = |found: (&str, Option<f64>, Option<f64>), name: &str, before: f64, after: f64| {
        assert_eq!(found.0, name);
        assert!(
            (found.1.unwrap() - before).abs() < 1.0 && (found.2.unwrap() - after).abs() < 1.0,
            "{found:?}"
        );
    };
    near(figures[0], "same methods, nested ones counted again", 1396e6, 136_006_000.0);
    near(figures[1], "same methods, nested ones left out", 546e6, 51_006_000.0);
    assert_eq!((figures[2].0, figures[2].1), ("wall time", None));
    assert!(
        part.summary[3..].iter().all(|metric| metric.change.verdict == Verdict::Unknown),
        "{:?}",
        part.summary
    );
    assert!(comparison.notes.iter().any(|note| note.contains("sums over nested scopes")));
    // True speeds: a scope holds a warm-up and three products; what GELU takes is known from the other side.
    let rate = |name: &str| {
        let operation = part.operations.iter().find(|operation| operation.name == name).unwrap();
        (operation.gflops_before.unwrap(), operation.gflops_after.unwrap())
    };
    let products = 4.0 * 2.0 * 128f64.powi(3);
    let (before, after) = rate("MatMul_128x128");
    assert!((before - products / 40e6).abs() < 1e-9 && (after - products / 1e6).abs() < 1e-9);
    let (before, after) = rate("GELU_1000");
    assert!((before - 48_000.0 / 6e6).abs() < 1e-9 && (after - 8.0).abs() < 1e-9);
    let model = &part.models[0];
    assert!(
        (model.before.tokens_per_second - 50.0).abs() < 1e-6
            && (model.after.tokens_per_second - 500.0).abs() < 1e-6
    );
    let removed: Vec<_> = part.removed.iter().map(|method| method.name.as_str()).collect();
    assert_eq!(removed, ["MatMul_Iteration", "GELU_Iteration", "TensorAdd_10000", "TensorAdd_Iteration"]);
    assert_eq!(part.added[0].name, "own");
}

#[test]
fn two_pages_of_the_predecessor_have_speeds_by_name() {
    let comparison = compared(&predecessor(40.0), &predecessor(20.0));
    let operations = &comparison.parts[0].operations;
    let names: Vec<_> = operations.iter().map(|operation| operation.name.as_str()).collect();
    assert_eq!(names, ["MatMul_128x128", "TensorAdd_10000"]);
    assert_eq!(operations[0].flops_before, Some(4.0 * 2.0 * 128f64.powi(3)));
    assert_eq!(operations[1].flops_before, Some(10.0 * 10_000.0));
    assert!((operations[0].gflops_after.unwrap() / operations[0].gflops_before.unwrap() - 2.0).abs() < 1e-9);
}

#[test]
fn damaged_files_are_read_or_refused_but_never_panic() {
    let ours = render(&report(vec![vec![method("work", 2, 1_000_000)]]), Format::Markdown).unwrap();
    let sources = [ENHANCED.as_bytes().to_vec(), ours];
    let (mut sound, mut refused) = (0, 0);
    each_damaged(&sources, |bytes| match parse("file", bytes) {
        // What was accepted is sound, so that whatever works on it may rely on that.
        Ok(read) => {
            check(&read.report).unwrap();
            sound += 1;
        }
        Err(_) => refused += 1,
    });
    assert!(sound > 50 && refused > 500, "{sound} sound, {refused} refused");
}
