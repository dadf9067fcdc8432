//! Reading: whole pages and files, and a planted fault for each guard.

use super::*;
use crate::report::data::{FORMAT, Machine, Method, Part, Run, VERSION};
use crate::report::render::sample;
use crate::report::testing::each_damaged;
use crate::report::{Format, render};

fn error(bytes: &[u8]) -> String {
    parse("file", bytes).unwrap_err().to_string()
}

fn method(name: &str, total_ns: u64) -> Method {
    let (min_ns, mean_ns, max_ns) = (total_ns / 2, total_ns / 2, total_ns / 2);
    Method {
        name: name.into(),
        calls: 2,
        total_ns,
        self_ns: total_ns,
        min_ns,
        mean_ns,
        max_ns,
        ..Method::default()
    }
}

/// Two methods, one in the other, in two runs.
fn report() -> Report {
    let run = |factor: u64| {
        let [outer, inner] =
            [("outer", 2000), ("inner", 800)].map(|(name, total)| method(name, factor * total));
        let below = Method { parent: Some(0), depth: 1, ..inner.clone() };
        Run {
            wall_ns: factor * 2100,
            methods: vec![outer.clone(), inner],
            tree: vec![outer, below],
            ..Run::default()
        }
    };
    Report {
        format: FORMAT.into(),
        version: VERSION,
        counting: None,
        created: "2026-01-02T03:04:05Z".into(),
        mode: "host".into(),
        machine: Machine::default(),
        models: Vec::new(),
        parts: vec![Part { name: "work".into(), about: String::new(), runs: vec![run(1000), run(1010)] }],
    }
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

#[test]
fn json_comes_back_as_it_was() {
    for report in [report(), sample::report()] {
        let read = parse("a.json", json(&report).as_bytes()).unwrap();
        assert_eq!(read.report, report);
        assert_eq!((&*read.source, read.layout), ("a.json", Layout::Json));
        assert_eq!(read.into_full().unwrap(), report);
    }
}

#[test]
fn every_fault_in_json_is_told_with_its_field() {
    type Plant = fn(&mut Report);
    let faults: [(&str, Plant, &str); 20] = [
        ("no parts", |r| r.parts.clear(), "parts: empty"),
        ("no runs", |r| r.parts[0].runs.clear(), "parts[0].runs: empty"),
        ("no name", |r| r.parts[0].name.clear(), "parts[0].name: empty"),
        (
            "part twice",
            |r| r.parts.push(r.parts[0].clone()),
            "parts[1].name: the part \"work\" stands at parts[0]",
        ),
        (
            "method twice",
            |r| r.parts[0].runs[1].methods[1].name = "outer".into(),
            "parts[0].runs[1].methods[1].name: the method \"outer\" stands at",
        ),
        (
            "method unnamed",
            |r| r.parts[0].runs[0].methods[0].name.clear(),
            "parts[0].runs[0].methods[0].name: empty",
        ),
        (
            "method lost",
            |r| {
                r.parts[0].runs[1].methods.pop();
                r.parts[0].runs[1].tree.pop();
            },
            "parts[0].runs[1].methods: \"inner\" is missing, which the first run has",
        ),
        (
            "method new",
            |r| r.parts[0].runs[1].methods.push(method("new", 5)),
            "parts[0].runs[1].methods: \"new\" is not in the first run",
        ),
        (
            "times out of order",
            |r| r.parts[0].runs[0].methods[0].min_ns = u64::MAX,
            "methods[0].min_ns: \"outer\"",
        ),
        ("mean above", |r| r.parts[0].runs[0].methods[0].max_ns = 0, "methods[0].mean_ns: \"outer\""),
        (
            "self above total",
            |r| r.parts[0].runs[0].methods[1].self_ns = 9_999_999,
            "methods[1].self_ns: \"inner\"",
        ),
        (
            "time without calls",
            |r| r.parts[0].runs[0].methods[1].calls = 0,
            "methods[1].calls: \"inner\" took 800000 ns",
        ),
        (
            "parent of a method",
            |r| r.parts[0].runs[0].methods[1].parent = Some(0),
            "methods[1].parent: \"inner\"",
        ),
        (
            "parent after child",
            |r| r.parts[0].runs[0].tree.swap(0, 1),
            "tree[0].parent: \"inner\": 0 stands after it",
        ),
        (
            "parent of itself",
            |r| r.parts[0].runs[0].tree[1].parent = Some(1),
            "tree[1].parent: \"inner\": 1 stands",
        ),
        ("no such parent", |r| r.parts[0].runs[0].tree[1].parent = Some(7), "7 is not there (2 places)"),
        (
            "wrong depth",
            |r| r.parts[0].runs[0].tree[1].depth = 3,
            "tree[1].depth: \"inner\": 3 where its callers make 1",
        ),
        (
            "not a method",
            |r| r.parts[0].runs[0].tree[1].name = "x".into(),
            "tree[1].name: \"x\" is missing from methods",
        ),
        (
            "too many rows",
            |r| {
                r.parts[0].runs[0].timeline =
                    vec![
                        crate::report::render::sample::report().parts[0].runs[0].timeline[0].clone();
                        1_000_001
                    ]
            },
            "rows in all, more than 1000000",
        ),
        (
            "no speed",
            |r| r.machine.limits = Some(crate::report::data::Limits { fma_gflops: -1.0, levels: Vec::new() }),
            "machine.limits.fma_gflops: -1 is no speed",
        ),
    ];
    assert!(check(&report()).is_ok());
    for (what, plant, expected) in faults {
        let mut report = report();
        plant(&mut report);
        let found = error(serde_json::to_string(&report).unwrap().as_bytes());
        assert!(found.starts_with("bad file: file: ") && found.contains(expected), "{what}: {found}");
    }
    let mut tokens = sample::report();
    tokens.models[0].tokens.pop();
    assert!(check(&tokens).unwrap_err().contains("models[0].tokens: 1 numbers for 2 parts"));
    tokens = sample::report();
    tokens.models[1].name = tokens.models[0].name.clone();
    assert!(check(&tokens).unwrap_err().contains("models[1].name: the model \"Small\""));
}

#[test]
fn faults_of_the_json_itself_have_field_line_and_column() {
    let text = json(&report());
    let swap = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        error(text.replacen(from, to, 1).as_bytes())
    };
    for (from, to, expected) in [
        (
            "\"total_ns\": 2000000",
            "\"total_ns\": -5",
            "parts[0].runs[0].methods[0].total_ns: invalid value: integer `-5`",
        ),
        ("\"total_ns\": 2000000", "\"total_ns\": NaN", "expected value at line"),
        ("\"total_ns\": 2000000", "\"total_ns\": 1e999", "number out of range at line"),
        (
            "\"total_ns\": 2000000",
            "\"total_ns\": 1.5",
            "methods[0].total_ns: invalid type: floating point `1.5`",
        ),
        ("\"total_ns\": 2000000,", "", "methods[0]: missing field `total_ns`"),
        ("\"calls\": 2,", "\"calls\": 2, \"calls\": 2,", "methods[0]: duplicate field `calls`"),
        ("\"wall_ns\": 2100000,", "", "parts[0].runs[0]: missing field `wall_ns`"),
        (
            "\"version\": 1",
            "\"version\": 2",
            "not supported: file: version: a profile of version \"2\"; this program",
        ),
        ("\"version\": 1", "\"version\": \"1\"", "not supported: file: version:"),
        ("\"version\": 1,", "", "version: absent"),
        ("\"smallmind-profile\"", "\"another\"", "not a profile"),
        ("\"format\": \"smallmind-profile\",", "", "format: absent: not a profile"),
    ] {
        let found = swap(from, to);
        assert!(found.contains(expected), "{to}: {found}");
        let located =
            found.contains(" line ") || found.contains("version") || found.contains("not a profile");
        assert!(located, "{found}");
    }
    assert!(error(&text.as_bytes()[..text.len() / 2]).contains("EOF while parsing"));
    assert!(error(format!("{text} x").as_bytes()).contains("trailing characters"));
    let deep = format!("{{\"format\": {}", "[".repeat(100_000));
    assert!(error(deep.as_bytes()).contains("recursion limit exceeded at line 1"));
    for (bytes, expected) in [
        (&b""[..], "empty, so not a profile"),
        (b" \n ", "empty, so not a profile"),
        (b"[]", "not a profile"),
        (b"{}", "format: absent"),
        (b"hello", "line 1: no title: not a profile"),
        (b"# A shopping list\n", "line 1: \"A shopping list\" is not the title of a profile"),
        (b"# P\n\xff", "line 2: no UTF-8 text"),
    ] {
        let found = error(bytes);
        assert!(found.contains(expected), "{found}");
    }
}

#[test]
fn our_page_gives_back_what_it_shows() {
    let report = sample::report();
    let page = String::from_utf8(render(&report, Format::Markdown).unwrap()).unwrap();
    let read = parse("report.md", page.as_bytes()).unwrap();
    assert_eq!(read.layout, Layout::Markdown);
    assert_eq!((&read.report.mode, &read.report.created), (&report.mode, &report.created));
    assert_eq!(read.report.parts.len(), report.parts.len());
    let machine = (&read.report.machine.cpu, &read.report.machine.isa, read.report.machine.threads);
    assert_eq!(machine, (&report.machine.cpu, &report.machine.isa, report.machine.threads));
    assert_eq!(read.report.models.len(), report.models.len());
    for (found, kept) in read.report.models.iter().zip(&report.models) {
        assert_eq!(
            (&found.name, found.parameters, &found.tokens),
            (&kept.name, kept.parameters, &kept.tokens)
        );
    }
    for (index, (found, kept)) in read.report.parts.iter().zip(&report.parts).enumerate() {
        assert_eq!((&found.name, found.runs.len()), (&kept.name, 1));
        let median = |figure: &dyn Fn(&Run) -> u64| {
            let mut figures: Vec<u64> = kept.runs.iter().map(figure).collect();
            figures.sort();
            figures[figures.len() / 2] as f64
        };
        let near =
            |found: u64, kept: f64, step: f64| assert!((found as f64 - kept).abs() <= step, "{found} {kept}");
        near(found.runs[0].wall_ns, median(&|run| run.wall_ns), 501.0);
        assert_eq!(found.runs[0].methods.len(), kept.runs[0].methods.len());
        for method in &found.runs[0].methods {
            let rounding = read.rounding_ns[&(index, method.name.clone())];
            let of = |figure: fn(&Method) -> u64| {
                median(&|run| run.methods.iter().find(|other| other.name == method.name).map_or(0, figure))
            };
            near(method.total_ns, of(|method| method.total_ns), rounding + 1.0);
            near(method.calls, of(|method| method.calls), 0.0);
            near(method.alloc_bytes, of(|method| method.alloc_bytes), 525.0);
        }
    }
    assert!(read.notes.iter().all(|note| note.contains("medians of 3 runs")) && read.notes.len() == 2);
    assert!(read.clone().into_full().unwrap_err().to_string().contains("report.json is needed"));
}

/// Half a nanosecond between two runs must not make a method's own time longer than its whole one.
#[test]
fn pages_of_two_runs_read_back_whatever_their_medians() {
    for ns in [16_133, 213_513, 217_448, 582_314, 1_234_567, 99_999_999] {
        let mut report = sample::report();
        let part = &mut report.parts[0];
        part.runs.truncate(2);
        for (run, total) in part.runs.iter_mut().zip([ns, ns + 1]) {
            for method in run.methods.iter_mut().chain(&mut run.tree).filter(|m| m.self_ns == m.total_ns) {
                (method.total_ns, method.self_ns, method.cpu_ns) = (total, total, total);
                (method.mean_ns, method.min_ns, method.max_ns) = (total / method.calls, 0, total);
                (method.p50_ns, method.p95_ns, method.p99_ns, method.std_ns) = (0, 0, 0, 0);
            }
        }
        let page = render(&report, Format::Markdown).unwrap();
        parse("page", &page).unwrap_or_else(|error| panic!("{ns}: {error}"));
    }
}

#[test]
fn a_fault_in_our_page_is_told_with_its_line() {
    let page = String::from_utf8(render(&sample::report(), Format::Markdown).unwrap()).unwrap();
    let all = page.find("### All Methods").unwrap();
    let rows: Vec<&str> = page[all..].lines().filter(|line| line.starts_with("| ")).take(6).collect();
    let line_of = |row: &str| 1 + page[..all + page[all..].find(row).unwrap()].matches('\n').count();
    let [second, third] = [rows[2], rows[3]];
    let changed = |from: &str, to: &str| {
        let at = all + page[all..].find(from).unwrap();
        let mut page = page.clone();
        page.replace_range(at..at + from.len(), to);
        error(page.as_bytes())
    };
    // A row lost, doubled, in the wrong place.
    assert!(
        changed(&format!("{second}\n"), "")
            .contains(&format!("line {}: rank 3 where 2 is due", line_of(second)))
    );
    let doubled = changed(second, &format!("{second}\n{second}"));
    assert!(doubled.contains(&format!("line {}: the method", line_of(second) + 1)), "{doubled}");
    assert!(doubled.contains(&format!("stands in line {} already", line_of(second))), "{doubled}");
    assert!(changed(third, "text").contains(&format!("line {}: \"text\" ends no table", line_of(third))));
    let last =
        page[all..].lines().skip_while(|line| !line.starts_with("| ")).take_while(|line| !line.is_empty());
    let last = last.last().unwrap();
    assert!(changed(&format!("{last}\n"), "").contains("rows are missing or too many"));
    // A figure that is none.
    let total = second.split(" | ").nth(3).unwrap();
    for (bad, why) in
        [("NaN", "is no number"), ("-1.0", "is negative"), ("inf", "is no number"), ("–", "no time")]
    {
        let found = changed(second, &second.replacen(total, bad, 1));
        assert!(found.contains(&format!("line {}: ", line_of(second))) && found.contains(why), "{found}");
    }
    // Sections that are missing, doubled, or not of this report.
    let without = |from: &str, to: &str| error(page.replacen(from, to, 1).as_bytes());
    assert!(without("## Part: with cache", "## Part: other").contains("no section \"Part: with cache\""));
    assert!(without("## Summary", "## Other").contains("no summary"));
    assert!(error(format!("{page}{page}").as_bytes()).contains("a second title"));
    let again = &page[page.find("## Part: same").unwrap()..];
    assert!(error(format!("{page}\n{again}").as_bytes()).contains("a second table \"All Methods\""));
}

/// A dialect whose pages have a title, and a line of microseconds.
struct Clock;

impl Dialect for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn titles(&self) -> &[&str] {
        &["Clock"]
    }

    fn parse(&self, page: &page::Page, title: &str) -> std::result::Result<Read, String> {
        assert_eq!(title, "Clock");
        let fact = page.fact("took")?.ok_or("no time")?;
        let number = number::parse(&fact.value, number::Unit::Time(1000))
            .map_err(|why| format!("line {}: {why}", fact.line))?
            .ok_or("no time")?;
        let mut report = report();
        report.parts[0].runs = vec![Run { wall_ns: number.value as u64, ..Run::default() }];
        Ok(Read { allocations_counted: false, ..Read::page(report) })
    }
}

#[test]
fn a_page_in_a_dialect_is_read_where_it_is_known() {
    const PAGE: &str = "# Clock\n\n- took: 2.5 ms\n";
    let read = parse_with("a.md", PAGE.as_bytes(), &[&Clock]).unwrap();
    assert_eq!((read.layout, &*read.source), (Layout::Dialect("clock"), "a.md"));
    assert_eq!(serde_json::to_value(read.layout).unwrap(), "clock");
    assert_eq!(read.report.parts[0].runs[0].wall_ns, 2_500_000);
    assert!(read.into_full().is_err());
    assert!(parse("a.md", PAGE.as_bytes()).unwrap_err().to_string().contains("\"Clock\" is not the title"));
    let error = |page: &str| parse_with("a.md", page.as_bytes(), &[&Clock]).unwrap_err().to_string();
    assert!(error("# Clock\n- took: NaN\n").contains("a.md: line 2: \"NaN\" is no number"));
    assert!(error("# Clock\n").contains("a.md: no time"));
    // Pages of ours stay ours.
    let ours = render(&sample::report(), Format::Markdown).unwrap();
    assert_eq!(parse_with("a.md", &ours, &[&Clock]).unwrap().layout, Layout::Markdown);
}

#[test]
fn files_from_before_counters_are_read() {
    let mut value = serde_json::to_value(sample::report()).unwrap();
    fn remove(value: &mut serde_json::Value, names: &[&str]) {
        match value {
            serde_json::Value::Object(fields) => {
                names.iter().for_each(|name| drop(fields.remove(*name)));
                fields.values_mut().for_each(|value| remove(value, names));
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(|value| remove(value, names)),
            _ => {}
        }
    }
    for run in value["parts"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .flat_map(|part| part["runs"].as_array_mut().unwrap())
    {
        run.as_object_mut().unwrap().remove("threads");
        for list in ["methods", "tree", "timeline"] {
            remove(&mut run[list], &["counters", "thread_counters"]);
        }
        run.as_object_mut().unwrap().remove("counters");
    }
    value.as_object_mut().unwrap().remove("counting");
    value["machine"].as_object_mut().unwrap().remove("other_kernels");
    let text = value.to_string();
    assert!(
        ["counting", "counters", "other_kernels"].iter().all(|name| !text.contains(&format!("\"{name}\"")))
    );
    let read = parse("old.json", text.as_bytes()).unwrap();
    let run = &read.report.parts[0].runs[0];
    assert!(read.report.counting.is_none() && run.counters.is_none() && run.threads.is_empty());
    // What each thread did is then told by the methods that threads shared.
    let page = String::from_utf8(render(&read.report, Format::Markdown).unwrap()).unwrap();
    assert!(page.contains("### Threads") && !page.contains("### Counters"));
}

#[test]
fn folders_and_files_are_found_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let found = read(path).unwrap_err().to_string();
    assert!(found.contains("a folder with neither report.json nor report.md"), "{found}");
    std::fs::write(path.join("report.md"), render(&sample::report(), Format::Markdown).unwrap()).unwrap();
    assert_eq!(read(path).unwrap().layout, Layout::Markdown);
    std::fs::write(path.join("report.json"), json(&report())).unwrap();
    let whole = read(path).unwrap();
    assert_eq!((whole.layout, whole.report), (Layout::Json, report()));
    assert_eq!(whole.source, path.join("report.json").display().to_string());
    let missing = read(path.join("none.json")).unwrap_err();
    assert!(matches!(&missing, Error::Io { path, .. } if path.ends_with("none.json")), "{missing}");
    // A file that is too large is refused after reading no more than is allowed; this one has a hole.
    let large = path.join("large.json");
    std::fs::File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(read(&large).unwrap_err().to_string().contains("more than 256 MiB"));
}

#[test]
fn damaged_files_are_read_or_refused_but_never_panic() {
    let page = render(&sample::report(), Format::Markdown).unwrap();
    let sources = [json(&report()).into_bytes(), page];
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
