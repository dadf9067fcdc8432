//! `smallmind profile compare`, `profile models` and `baseline` as a person or a CI job runs them: on small made-up
//! profiles, with what they print, write and end with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use smallmind::report::data::{self, Machine, Method, ModelSpec, Report, Run};
use smallmind::report::{Format, render};
use testing::{method, of_runs};

// Other tests use the rest.
#[allow(dead_code)]
#[path = "../../../src/report/testing.rs"]
mod testing;

/// A folder for one test, in which the program runs.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn write_report(&self, name: &str, report: &Report) -> PathBuf {
        self.write(name, serde_json::to_vec(report).unwrap())
    }

    /// Runs the program here, with its data here too.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_smallmind"))
            .args(args)
            .current_dir(self.path())
            .env("XDG_DATA_HOME", self.path().join("data"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Checks that it fails with this code and one line that has `reason` in it.
    fn fails(&self, args: &[&str], code: i32, reason: &str) {
        let output = self.run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("smallmind: ") && text.contains(reason), "{args:?}: {text}");
    }
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn model(name: &str, parameters: u64) -> ModelSpec {
    ModelSpec {
        name: name.into(),
        parameters,
        tensors: 29,
        vocab: 256,
        context: 64,
        dim: 128,
        layers: 2,
        heads: 4,
        weight_bytes: 4 * parameters,
        tokens: vec![25],
    }
}

/// A profile of so many runs, in which a product takes `product_ms` with a noise of one percent.
fn report(runs: usize, product_ms: f64) -> Report {
    let run = |index: usize| {
        let noise = 1.0 + [0.0, 0.008, -0.01, 0.004, -0.003][index % 5] + 1e-4 * index as f64;
        let ns = |ms: f64| (1e6 * ms * noise) as u64;
        let methods = vec![
            method("Model_Medium_Inference", 1, ns(40.0)),
            method("Model_Small_Inference", 1, ns(10.0)),
            method("Model_Small_Forward", 25, ns(9.0)),
            Method { flops: 16_777_216, ..method("MatMul_128x128", 1, ns(product_ms)) },
            method("only here", 1, ns(1.0)),
        ];
        Run { wall_ns: ns(52.0 + product_ms), methods, alloc_bytes: 4096, alloc_count: 4, ..Run::default() }
    };
    Report {
        machine: Machine { cpu: "A CPU".into(), threads: 1, commit: "0123abc".into(), ..Machine::default() },
        models: vec![model("Small", 470_528), model("Medium", 3_454_464)],
        ..of_runs((0..runs).map(run).collect())
    }
}

/// In the layout of the predecessor; the figures are made up.
const PREDECESSOR: &str = "# Enhanced Performance Profile Report

**Generated:** 2026-01-02 03:04:05

## Summary

- **Total Runtime:** 1,320.40 ms
- **Total Allocations:** 30.00 MB
- **Methods Profiled:** 4

## 🔥 Hot Paths (Top 30)

| Rank | Method | Time (ms) | Calls | Avg (ms) | Alloc (MB) |
|------|--------|-----------|-------|----------|------------|
| 1 | `Model_Small_Inference` | 600.00 | 1 | 600.000 | 15.00 |
| 2 | `Model_Small_GenerateToken` | 600.00 | 25 | 24.000 | 15.00 |
| 3 | `MatMul_128x128` | 80.40 | 1 | 80.400 | 0.00 |
| 4 | `MatMul_Iteration` | 40.00 | 3 | 13.333 | 0.00 |

## Analysis

Text.
";

#[test]
fn a_slower_product_is_found_and_fails_where_that_is_asked_for() {
    let place = Place::new();
    place.write_report("a/report.json", &report(5, 5.0));
    place.write_report("b.json", &report(5, 6.0));
    let text = place.succeeds(&["profile", "compare", "a", "b.json"]);
    for expected in [
        "| file | a/report.json | b.json |",
        "### Top 10 Regressions\n\n| rank | method |",
        "| 1 | MatMul\\_128x128 |",
        "+20.0",
        "### Top 10 Improvements\n\nNone.",
        "### Model Sizes",
        "### SIMD Operations",
        "| regressed |",
        "| no difference shown |",
    ] {
        let expected = expected.replace("\\_", "_");
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    let compare = |args: &[&'static str]| [&["profile", "compare", "a", "b.json"], args].concat();
    place.fails(
        &compare(&["--fail-on-regression", "5"]),
        3,
        "slower by more than 5 %: MatMul_128x128 (same work) by 20.0 %",
    );
    // The comparison itself is there all the same.
    let output = place.run(&compare(&["--fail-on-regression", "5", "--out", "c.md"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert_eq!(std::fs::read_to_string(place.path().join("c.md")).unwrap(), text);
    // Within the limit, or the other way around.
    place.succeeds(&compare(&["--fail-on-regression", "25"]));
    place.succeeds(&["profile", "compare", "b.json", "a", "--fail-on-regression", "0"]);
    place.succeeds(&["profile", "compare", "a", "a", "--fail-on-regression", "0"]);
    let json: serde_json::Value = serde_json::from_str(&place.succeeds(&compare(&["--json"]))).unwrap();
    let first = &json["parts"][0]["methods"][0];
    assert_eq!(
        (first["name"].as_str(), first["time_ns"]["verdict"].as_str()),
        (Some("MatMul_128x128"), Some("regressed"))
    );
}

#[test]
fn pages_show_the_difference_and_the_baselines_over_time() {
    let place = Place::new();
    place.write_report("a.json", &report(5, 5.0));
    place.write_report("b.json", &report(5, 6.0));
    let html = |file: &str| std::fs::read_to_string(place.path().join(file)).unwrap();
    let dir = place.path().join("kept");
    let dir = dir.to_str().unwrap();
    let compare = ["profile", "compare", "a.json", "b.json", "--html", "c.html", "--dir", dir];
    place.succeeds(&compare);
    let page = html("c.html");
    assert!(page.contains("Profiles compared") && page.contains("class=\"worse\""), "{page}");
    assert!(!page.contains("Baselines over time"));
    let history = ["baseline", "--dir", dir, "history", "--out", "h.html"];
    place.fails(&history, 1, "a history needs two profiles of one mode");
    for (name, file) in [("one", "a.json"), ("two", "b.json")] {
        place.succeeds(&["baseline", "--dir", dir, "save", name, "--from", file]);
    }
    place.succeeds(&history);
    place.succeeds(&compare);
    for page in [html("h.html"), html("c.html")] {
        let row =
            page.split("Baselines over time").last().unwrap().split(">MatMul_128x128</th>").nth(1).unwrap();
        let row = row.split("</tr>").next().unwrap();
        assert!(
            row.contains("<polyline") && row.contains("one: ") && row.contains("<td>+20.0</td>"),
            "{row}"
        );
    }
}

#[test]
fn one_run_shows_nothing_and_says_so() {
    let place = Place::new();
    place.write_report("a.json", &report(1, 5.0));
    place.write_report("b.json", &report(1, 50.0));
    let output = place.run(&["profile", "compare", "a.json", "b.json", "--fail-on-regression", "1"]);
    let text = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stderr(&output).contains("one run a side can't show a regression"), "{}", stderr(&output));
    assert!(
        text.contains("**no difference shown**: 1 and 1 runs. One run can't tell noise from a change"),
        "{text}"
    );
    assert!(!text.contains("| regressed |") && !text.contains("| improved |"), "{text}");
    assert!(text.contains("### Largest Increases (Not Shown to Be Real)\n\n| rank |"), "{text}");
}

#[test]
fn markdown_pages_are_compared_ours_and_the_predecessors() {
    let place = Place::new();
    place.write("ours/report.md", render(&report(3, 5.0), Format::Markdown).unwrap());
    place.write("old.md", PREDECESSOR);
    let text = place.succeeds(&["profile", "compare", "old.md", "ours"]);
    for expected in [
        "| layout | Markdown of the predecessor | Markdown |",
        "medians of 3 runs",
        "sums over nested scopes",
        "### Added Methods",
        "| Model_Medium_Inference |",
        "### Removed Methods",
        "| MatMul_Iteration |",
        // Four products of 2 · 128³ in 80.4 ms, which its own page would have called one.
        "| MatMul_128x128 | 0.0168 | 0.209 |",
        "| Small | 470528 | 600.000 |",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_broken_profile_is_one_line_that_names_the_place() {
    let place = Place::new();
    let good = place.write_report("good.json", &report(3, 5.0));
    let text = std::fs::read_to_string(&good).unwrap();
    place.write("negative.json", text.replacen("\"total_ns\":5", "\"total_ns\":-5", 1));
    place.write("later.json", text.replacen("\"version\":1", "\"version\":7", 1));
    place.write("cut.json", &text[..text.len() / 2]);
    place.write("list.md", "# A list\n\n- milk\n");
    place.write("doubled.md", PREDECESSOR.replace("`MatMul_Iteration`", "`MatMul_128x128`"));
    place.write("nan.md", PREDECESSOR.replace("80.40 | 1", "NaN | 1"));
    place.write(
        "lost.md",
        PREDECESSOR.replace("| 2 | `Model_Small_GenerateToken` | 600.00 | 25 | 24.000 | 15.00 |\n", ""),
    );
    std::fs::create_dir(place.path().join("empty")).unwrap();
    for (file, reason) in [
        ("negative.json", "negative.json: parts[0].runs[0].methods[3].total_ns: invalid value: integer `-5"),
        ("later.json", "later.json: version: a profile of version \"7\"; this program reads version 1"),
        ("cut.json", "at line 1 column"),
        ("list.md", "list.md: line 1: \"A list\" is not the title of a profile"),
        ("doubled.md", "doubled.md: line 18: the method \"MatMul_128x128\" stands in line 17 already"),
        ("nan.md", "nan.md: line 17: \"Time (ms)\": \"NaN\" is no number here"),
        ("lost.md", "lost.md: line 16: rank 3 where 2 is due"),
        ("empty", "empty: a folder with neither report.json nor report.md"),
        ("nothing", "nothing: no such file or folder, and no such baseline in "),
    ] {
        place.fails(&["profile", "compare", file, "good.json"], 1, reason);
        place.fails(&["profile", "compare", "good.json", file], 1, reason);
    }
    for percent in ["-1", "NaN", "inf", "much"] {
        let limit = format!("--fail-on-regression={percent}");
        place.fails(
            &["profile", "compare", "good.json", "good.json", &limit],
            2,
            "a number of percent, not negative",
        );
    }
    place.fails(&["profile", "compare", "good.json"], 2, "not provided");
    place.fails(
        &["profile", "compare", "good.json", "good.json", "--out", "no/such/folder.md"],
        1,
        "no/such/folder.md",
    );
}

#[test]
fn the_models_of_a_profile_stand_beside_each_other() {
    let place = Place::new();
    place.write_report("a/report.json", &report(3, 5.0));
    let text = place.succeeds(&["profile", "models", "a"]);
    for expected in [
        "| parameters | 470528 | 3454464 |",
        "## Part: same work",
        "| metric | Small | Medium | Medium ratio |",
        // Four times the time for 7.34 times the parameters.
        "| Medium | 7.34 | 4.00 |",
        "| – | 1.84 | excellent |",
        "| Small | 25 | 0.3598 |",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    place.succeeds(&["profile", "models", "a", "--out", "models.md"]);
    assert_eq!(std::fs::read_to_string(place.path().join("models.md")).unwrap(), text);
    // A page tells the same, as far as it goes; the predecessor's has only one model here.
    place.write("page.md", render(&report(3, 5.0), Format::Markdown).unwrap());
    assert!(place.succeeds(&["profile", "models", "page.md"]).contains("| excellent |"));
    place.write("old.md", PREDECESSOR);
    assert!(place.succeeds(&["profile", "models", "old.md"]).contains("One model only"));
    let none = Report { models: Vec::new(), ..report(1, 5.0) };
    place.write_report("none.json", &none);
    place.fails(&["profile", "models", "none.json"], 1, "none.json: no model that made tokens");
}

#[test]
fn baselines_are_kept_listed_compared_and_deleted() {
    let place = Place::new();
    place.write_report("a/report.json", &report(10, 5.0));
    place.write_report("b.json", &report(5, 6.0));
    assert_eq!(place.succeeds(&["baseline", "list"]), "no baselines\n");
    place.succeeds(&["baseline", "save", "before", "--from", "a"]);
    assert!(place.path().join("data/smallmind/baselines/before.json").is_file());
    let list = place.succeeds(&["baseline", "list"]);
    let [heads, line] = list.lines().collect::<Vec<_>>()[..] else { panic!("{list}") };
    assert!(heads.starts_with("name    made") && heads.ends_with("median wall ms"), "{list}");
    for expected in ["before  2026-01-02T03:04:05Z  enhanced  A CPU  0123abc  10", "57.0"] {
        assert!(line.contains(expected), "{expected}: {list}");
    }
    let text = place.succeeds(&["profile", "compare", "before", "b.json"]);
    assert!(text.contains("(10 and 5 runs)"), "{text}");
    // A path goes before a name.
    place.write_report("before", &report(1, 5.0));
    assert!(place.succeeds(&["profile", "compare", "before", "b.json"]).contains("1 and 5 runs"));
    std::fs::remove_file(place.path().join("before")).unwrap();

    place.fails(
        &["baseline", "save", "before", "--from", "b.json"],
        1,
        "\"before\" is there already (--force replaces it)",
    );
    place.succeeds(&["baseline", "save", "before", "--from", "b.json", "--force"]);
    place.succeeds(&["baseline", "save", "after", "--from", "b.json", "--dir", "elsewhere"]);
    assert!(place.path().join("elsewhere/after.json").is_file());
    place.succeeds(&["profile", "compare", "after", "a", "--dir", "elsewhere"]);
    place.fails(
        &["profile", "compare", "after", "a"],
        1,
        "after: no such file or folder, and no such baseline in ",
    );
    for name in ["../x", "/etc/passwd", "..", ".hidden"] {
        place.fails(&["baseline", "save", name, "--from", "b.json"], 2, "can't name a baseline");
        place.fails(&["baseline", "delete", name], 2, "can't name a baseline");
    }
    place.write("page.md", render(&report(3, 5.0), Format::Markdown).unwrap());
    place.fails(&["baseline", "save", "page", "--from", "page.md"], 1, "its report.json is needed");
    place.fails(&["baseline", "save", "x", "--from", "a", "--runs", "3"], 2, "--runs");
    place.succeeds(&["baseline", "delete", "before"]);
    place.fails(&["baseline", "delete", "before"], 1, "no baseline \"before\" in ");
    assert_eq!(place.succeeds(&["baseline", "list"]), "no baselines\n");
}
