//! Every rendering of a whole report, of none, and of ones made to break it.

use super::sample::report;
use super::*;
use crate::report::data::{Event, Limits, Method, Part, Run};

fn text(report: &Report, format: Format) -> String {
    String::from_utf8(render(report, format).unwrap()).unwrap()
}

/// Rows of the first table under a heading of a part, cells apart.
fn table(markdown: &str, part: &str, section: &str) -> Vec<Vec<String>> {
    let part = &markdown[markdown.find(&format!("## Part: {part}\n")).unwrap()..];
    let section = &part[part.find(&format!("### {section}\n")).unwrap()..];
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|l| l.starts_with('|'));
    lines
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect())
        .collect()
}

#[test]
fn self_times_and_what_lies_outside_sum_to_the_wall() {
    let report = report();
    let markdown = text(&report, Format::Markdown);
    let rows = table(&markdown, "same work", "Self Time");
    let (all, rows) = rows.split_last().unwrap();
    assert_eq!(all[1], "**all**");
    let sum: f64 = rows.iter().map(|row| row[2].parse::<f64>().unwrap()).sum();
    let wall = report.parts[0].runs[2].wall_ns as f64 / 1e6;
    assert!((sum / wall - 1.0).abs() < 1e-4, "{sum} of {wall} ms");
    assert_eq!(all[2], text::ms(wall * 1e6));
    let outside = rows.iter().find(|row| row[1] == "*outside of every scope*").unwrap();
    assert_eq!(outside[2], "0.061000");
    let percent: f64 = rows.iter().map(|row| row[3].parse::<f64>().unwrap()).sum();
    assert!((percent - 100.0).abs() < 1.0, "{percent}");
}

#[test]
fn tables_hold_medians_and_shares() {
    let report = report();
    let markdown = text(&report, Format::Markdown);
    let hot = table(&markdown, "same work", "Hot Paths");
    assert_eq!(hot.len(), 30);
    assert_eq!(hot[0][..2], ["1", "Model_Medium_Inference"]);
    let runs = &report.parts[0].runs;
    let mut totals: Vec<u64> = runs.iter().map(|run| run.methods[0].total_ns).collect();
    let mut walls: Vec<u64> = runs.iter().map(|run| run.wall_ns).collect();
    totals.sort();
    walls.sort();
    assert_eq!(hot[0][2], text::ms(totals[1] as f64));
    assert_eq!(hot[0][3], format!("{:.1}", 100.0 * totals[1] as f64 / walls[1] as f64));
    assert_eq!(hot[0][8], "3.1");
    assert_eq!(table(&markdown, "same work", "All Methods").len(), runs[0].methods.len());
    let ops = table(&markdown, "same work", "Operations");
    let matmul = ops.iter().find(|row| row[1] == "MatMul_512x512").unwrap();
    let gflops: f64 = matmul[5].parse().unwrap();
    assert!((gflops - 146.0 / 1.012).abs() < 1.0, "{gflops}");
    assert_eq!(matmul[8], "arithmetic");
    assert_eq!(matmul[9], format!("{:.1}", 100.0 * 146.0 / 1.012 / 160.0));
}

#[test]
fn json_is_the_report() {
    let report = report();
    let back: Report = serde_json::from_slice(&render(&report, Format::Json).unwrap()).unwrap();
    assert_eq!(back, report);
}

#[test]
fn limits_that_are_no_numbers_are_refused() {
    for wrong in [f64::NAN, f64::INFINITY, -1.0] {
        let mut report = report();
        report.machine.limits = Some(Limits { fma_gflops: wrong, levels: vec![] });
        for format in Format::ALL {
            let error = render(&report, format).unwrap_err().to_string();
            assert!(error.contains("machine.limits") && error.contains("fma_gflops"), "{error}");
        }
    }
}

#[test]
fn formats_are_found_by_name() {
    for format in Format::ALL {
        assert_eq!(Format::parse(format.name()).unwrap(), format);
    }
    assert!(Format::parse("pdf").unwrap_err().to_string().contains("\"pdf\"; there are markdown, json"));
}

#[test]
fn a_folder_holds_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("report.md"), "what was there").unwrap();
    let paths = write_folder(&report(), &inner).unwrap();
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let mut expected = paths.clone();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(std::fs::read(&paths[0]).unwrap(), render(&report(), Format::Markdown).unwrap());
    let blocked = inner.join("report.md").join("deeper");
    let error = write_folder(&report(), &blocked).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == blocked), "{error}");
}

/// Reports that are odd in a way each.
fn odd_reports() -> Vec<(&'static str, Report)> {
    let with = |change: &dyn Fn(&mut Report)| {
        let mut report = report();
        change(&mut report);
        report
    };
    let named = |name: &str| {
        with(&|report| {
            let run = &mut report.parts[0].runs[2];
            run.tree[0].name = name.to_string();
            run.methods[0].name = name.to_string();
            report.mode = name.to_string();
            report.parts[0].name = name.to_string();
            report.models[0].name = name.to_string();
            report.machine.cpu = name.to_string();
            report.parts[1].runs[0].timeline[0].name = name.to_string();
        })
    };
    let largest = Method {
        name: "largest".into(),
        parent: Some(usize::MAX),
        depth: usize::MAX,
        calls: u64::MAX,
        threads: usize::MAX,
        total_ns: u64::MAX,
        self_ns: u64::MAX,
        flops: u64::MAX,
        bytes: u64::MAX,
        alloc_bytes: u64::MAX,
        ..Method::default()
    };
    let deep = |report: &mut Report| {
        let method = |place: usize| Method {
            name: format!("m{place}"),
            parent: place.checked_sub(1),
            calls: 1,
            total_ns: 1000 - place as u64,
            self_ns: 1,
            ..Method::default()
        };
        report.parts[0].runs = vec![Run {
            wall_ns: 1000,
            methods: (0..1000).map(method).collect(),
            tree: (0..1000).map(method).collect(),
            ..Run::default()
        }];
    };
    vec![
        ("no parts", with(&|report| report.parts.clear())),
        ("no runs", with(&|report| report.parts[0].runs.clear())),
        ("empty runs", with(&|report| report.parts[0].runs = vec![Run::default(); 2])),
        ("no machine", with(&|report| report.machine = Machine::default())),
        (
            "limits of zero",
            with(&|report| {
                report.machine.limits = Some(Limits { fma_gflops: 0.0, levels: vec![] });
            }),
        ),
        ("no wall", with(&|report| report.parts[0].runs.iter_mut().for_each(|run| run.wall_ns = 0))),
        ("zero tokens", with(&|report| report.models[0].tokens = vec![0])),
        ("1000 methods deep", with(&deep)),
        (
            "largest numbers",
            with(&|report| {
                let run = Run {
                    wall_ns: u64::MAX,
                    alloc_bytes: u64::MAX,
                    dropped: u64::MAX,
                    methods: vec![largest.clone(); 3],
                    tree: vec![largest.clone(); 3],
                    timeline: vec![Event {
                        name: "late".into(),
                        thread: usize::MAX,
                        start_ns: u64::MAX,
                        duration_ns: u64::MAX,
                        depth: usize::MAX,
                        counters: None,
                    }],
                    ..Run::default()
                };
                report.parts[0] = Part { runs: vec![run.clone(), run], ..report.parts[0].clone() };
            }),
        ),
        ("a script", named("<script>alert('x')</script>\"><img src=x onerror=alert(1)>")),
        ("pipes and lines", named("a|b\n| 1 | c;d\r\t\u{0}\u{1b}[31m --> ]]> {{ x }} {% y %}")),
        ("an empty name", named("")),
        ("a long name", named(&"long ".repeat(4000))),
    ]
}

#[test]
fn odd_reports_have_every_format() {
    for (what, report) in odd_reports() {
        for format in Format::ALL {
            let bytes = render(&report, format).unwrap_or_else(|error| panic!("{what}, {format:?}: {error}"));
            if format == Format::Pprof {
                continue;
            }
            let text = String::from_utf8(bytes).unwrap();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric());
            let mut odd = words.filter(|word| matches!(*word, "NaN" | "inf" | "nan" | "Infinity"));
            assert_eq!(odd.next(), None, "{what}, {format:?}");
        }
    }
}

#[test]
fn a_page_shows_hostile_names_as_text() {
    let (_, report) = odd_reports().into_iter().find(|(what, _)| *what == "a script").unwrap();
    let page = text(&report, Format::Html);
    assert!(page.contains("&lt;script&gt;alert("));
    for raw in ["<script>alert", "<img", "onerror=alert(1)>"] {
        assert!(!page.contains(raw), "{raw}");
    }
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn a_page_needs_nothing_from_elsewhere() {
    let page = text(&report(), Format::Html);
    for outside in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for section in ["Where the time went", "Who called whom", "class=\"roofline wide\"", "class=\"timeline\""]
    {
        assert_eq!(page.matches(section).count(), 2, "{section}");
    }
    let bar = page.split("<li title=\"linear.up").nth(1).unwrap().split("</li>").next().unwrap();
    assert!(bar.contains("21.977 ms") && bar.contains("21.0 %") && bar.contains("width:100.000%"), "{bar}");
}

#[test]
fn a_name_keeps_to_its_cell() {
    for (what, report) in odd_reports() {
        let markdown = text(&report, Format::Markdown);
        for lines in markdown.lines().collect::<Vec<_>>().windows(2).filter(|l| l[0].starts_with('|')) {
            if !lines[1].starts_with('|') {
                continue;
            }
            let cells = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
            assert_eq!(cells(lines[0]), cells(lines[1]), "{what}: {lines:?}");
        }
    }
}

#[test]
fn a_trace_has_complete_events_in_order() {
    let report = report();
    let trace: serde_json::Value = serde_json::from_str(&text(&report, Format::Trace)).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let complete: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    let timeline = &report.parts[0].runs[0].timeline;
    assert_eq!(complete.len(), 2 * timeline.len());
    let first = complete[0];
    assert_eq!((first["ts"].as_f64(), first["tid"].as_u64()), (Some(0.0), Some(0)));
    assert_eq!(first["name"], "Model_Medium_GenerateToken");
    let sum: f64 = complete.iter().map(|event| event["dur"].as_f64().unwrap()).sum();
    let expected: u64 = timeline.iter().map(|event| event.duration_ns).sum();
    assert!((sum - 2.0 * expected as f64 / 1e3).abs() < 1e-6);
    let threads = events.iter().filter(|event| event["name"] == "thread_name").count();
    assert_eq!(threads, 4);
}

#[test]
fn a_trace_has_tracks_of_counters() {
    let report = report();
    let trace: serde_json::Value = serde_json::from_str(&text(&report, Format::Trace)).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let track = |name: &str| -> Vec<(f64, f64)> {
        let of_part = events.iter().filter(|event| event["ph"] == "C" && event["pid"] == 1);
        let values = of_part.filter(|event| event["name"] == name).map(|event| {
            let value = event["args"].as_object().unwrap().values().next().unwrap();
            (event["ts"].as_f64().unwrap(), value.as_f64().unwrap())
        });
        values.collect()
    };
    // Both threads work or wait from the first op on; at last only the first is left, then none.
    let working = track("threads working");
    assert!(working.iter().all(|&(_, count)| (0.0..=2.0).contains(&count)), "{working:?}");
    assert!(working.iter().any(|&(_, count)| count == 2.0));
    assert_eq!(working.last().unwrap().1, 0.0);
    assert!(working.windows(2).all(|pair| pair[0].0 < pair[1].0));
    let timeline = &report.parts[0].runs[0].timeline;
    for thread in [0, 1] {
        let faults = track(&format!("minor page faults, thread {thread}"));
        let counted = timeline.iter().filter(|event| event.thread == thread && event.counters.is_some());
        assert_eq!(faults.len(), counted.count());
        assert!(faults.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1), "{faults:?}");
        let rates = track(&format!("instructions per cycle, thread {thread}"));
        assert!(!rates.is_empty() && rates.iter().all(|&(_, rate)| (rate - 2.0).abs() < 0.1), "{rates:?}");
    }
    // One that wasn't counted has the track of threads alone.
    let mut plain = report.clone();
    plain.parts[0].runs[0].timeline.iter_mut().for_each(|event| event.counters = None);
    assert!(!text(&plain, Format::Trace).contains("minor page faults, thread 0\",\"ph\":\"C\",\"pid\":1"));
}

#[test]
fn every_rendering_has_the_counters_the_waiting_and_the_reasons() {
    let report = report();
    let markdown = text(&report, Format::Markdown);
    let threads = table(&markdown, "same work", "Threads");
    let run = &report.parts[0].runs[2];
    assert_eq!(threads.len(), 2);
    for (row, thread) in threads.iter().zip(&run.threads) {
        assert_eq!(row[0], thread.thread.to_string());
        let times = [thread.working_ns, thread.waiting_ns, thread.idle_ns].map(|ns| text::ms(ns as f64));
        assert_eq!(row[1..4], times);
        let busy = (thread.working_ns + thread.waiting_ns) as f64;
        assert_eq!(row[4], format!("{:.1}", 100.0 * thread.waiting_ns as f64 / busy));
    }
    let counted = table(&markdown, "same work", "Counters");
    assert_eq!((&*counted[0][0], &*counted[0][7]), ("**all**", "2.00"));
    let creation = counted.iter().find(|row| row[0] == "Model_Medium_Creation").unwrap();
    assert_eq!(creation[1], (13_900_000 / 4096).to_string());
    assert_eq!(creation[9], text::NOTHING, "unknown counters are dashes");
    let line = "Not counted: branches, branch misses (the processor has too few counters for it).";
    let page = text(&report, Format::Html);
    for whole in [&markdown, &page] {
        assert!(whole.contains(line));
        assert!(whole.contains("this CPU lacks amx"));
    }
    let [first, glance] = ["What to do first", "class=\"glance\""].map(|piece| page.find(piece).unwrap());
    assert!(first < glance, "the front comes first");
    let [first, summary] = ["## What to Do First", "## Summary"].map(|piece| markdown.find(piece).unwrap());
    assert!(first < summary);
    assert_eq!(page.matches("What the system and the processor counted").count(), 2);
}

#[test]
fn a_flame_graph_is_well_formed_and_as_wide_as_the_wall() {
    for (what, report) in odd_reports().into_iter().chain([("sample", report())]) {
        let svg = text(&report, Format::Flame);
        let mut reader = quick_xml::Reader::from_str(&svg);
        loop {
            match reader.read_event().unwrap_or_else(|error| panic!("{what}: {error}")) {
                quick_xml::events::Event::Eof => break,
                event => drop(event),
            }
        }
    }
    let report = report();
    let svg = text(&report, Format::Flame);
    let wall = report.parts[0].runs[2].wall_ns as f64 / 1e3;
    // inferno puts separators between thousands.
    let title = svg.split("<title>same work (").nth(1).unwrap();
    let count = title.split(' ').next().unwrap().replace(',', "");
    assert!((count.parse::<f64>().unwrap() - wall).abs() <= 1.0, "{count} against {wall}");
    assert_eq!(svg, text(&report, Format::Flame));
    let product = svg.split("<title>linear.up (").nth(1).unwrap().split("fill=\"").nth(1).unwrap();
    assert!(product.starts_with("rgb(127,184,216)"), "{}", &product[..30]);
}

/// Writes the made-up report to `target/report-sample`, to be looked at.
#[test]
fn a_sample_to_look_at() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let paths = write_folder(&report(), &target.join("report-sample")).unwrap();
    assert_eq!(paths.len(), Format::ALL.len());
}
