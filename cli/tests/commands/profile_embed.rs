//! `smallmind profile embed`: each strategy's batches are a method of its own with the work of the same texts, passes
//! allocate nothing and start no threads, and the strategies are compared.

use smallmind::embed::{Embedder, EmbedderParams, Results, TextStatus};
use smallmind::report::Report;
use smallmind::report::data::{Method, Run};

use crate::embed::Fixture;
use crate::support::{TINY, fails, smallmind, succeeds};

/// Of different lengths; batches of two take them in turn.
const TEXTS: [&str; 3] = ["a man plays", "the quick brown fox", "some one makes music in a big house"];

fn profile(fixture: &Fixture, args: &[&str]) -> Report {
    let text = succeeds(&mut fixture.command(&["profile", "embed"], &[args, &["--json"]].concat()));
    serde_json::from_str(&text).unwrap()
}

fn method<'a>(run: &'a Run, name: &str) -> Option<&'a Method> {
    run.methods.iter().find(|method| method.name == name)
}

/// Tokens of these texts, by the library.
fn tokens(fixture: &Fixture, texts: &[&str]) -> u64 {
    let mut embedder = Embedder::new(fixture.library(), &EmbedderParams::default().with_threads(1)).unwrap();
    let width = embedder.width();
    let (mut rows, mut statuses) = (vec![0.0; width * texts.len()], vec![TextStatus::NotDone; texts.len()]);
    embedder.embed(texts, &mut Results::new(&mut rows, width, &mut statuses)).unwrap().tokens
}

#[test]
fn strategies_do_the_same_work_under_their_own_names() {
    let fixture = Fixture::new("bert-mean");
    let file = fixture.write("texts.txt", format!("{}\n\n", TEXTS.join("\n\n")));
    let args = ["--texts", &file, "--batch", "2", "--iterations", "5", "--runs", "2"];
    let report = profile(&fixture, &args);
    assert_eq!((report.mode.as_str(), report.machine.threads), ("embed", 2));
    let names: Vec<_> = report.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["fine", "coarse"]);
    // Batches of texts 0 1, 2 0, 1 2, 0 1, 2 0.
    let [a, b, c] = TEXTS;
    let expected = tokens(&fixture, &[a, b, c, a, b, c, a, b, c, a]);
    let [model] = &report.models[..] else { panic!("one model") };
    assert_eq!(model.tokens, [expected, expected]);
    assert_ne!(expected, tokens(&fixture, &[a, b].repeat(5)));
    let mut flops = Vec::new();
    for (part, (own, other)) in
        report.parts.iter().zip([("Embed_Fine", "Embed_Coarse"), ("Embed_Coarse", "Embed_Fine")])
    {
        assert_eq!(part.runs.len(), 2, "{own}");
        for run in &part.runs {
            assert_eq!((run.dropped, run.unbalanced), (0, 0));
            let batches = method(run, own).unwrap();
            assert_eq!((batches.calls, method(run, "Inference").unwrap().calls), (5, 1), "{own}");
            assert!(method(run, other).is_none(), "{own}");
            assert_eq!(method(run, "prefill").unwrap().alloc_count, 0, "{own}");
            // Only tokenizing allocates.
            let tokenizing = method(run, "tokenize").unwrap();
            assert!(batches.alloc_count >= tokenizing.alloc_count, "{own}");
            flops.push(batches.flops);
        }
        assert!(!part.runs[0].timeline.is_empty() && part.runs[1].timeline.is_empty(), "{own}");
    }
    assert!(flops[0] > 0 && flops.iter().all(|&of| of == flops[0]), "{flops:?}");
}

#[test]
fn strategies_stand_side_by_side_in_text_and_files() {
    let fixture = Fixture::new("bert-mean");
    let folder = fixture.path("out");
    let args = ["--iterations", "3", "--batch", "8", "--runs", "3", "--out", &folder];
    let text = succeeds(&mut fixture.command(&["profile", "embed"], &args));
    assert!(text.starts_with("# Profile: embed\n"), "{text}");
    let (_, below) = text.split_once("\n## Strategies\n\n").expect("the strategies");
    let row = |name: &str| -> Vec<String> {
        let line = below.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let line = line.unwrap_or_else(|| panic!("no row {name}: {below}"));
        line.trim_matches('|').split('|').skip(1).map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(row("figure"), ["fine", "coarse"]);
    assert_eq!(row("coarse and fine windows"), ["0 + 3", "3 + 0"]);
    let number = |cell: &String| cell.parse::<f64>().unwrap();
    for (total, (each, text)) in
        row("total ms").iter().zip(row("ms per iteration").iter().zip(&row("ms per text")))
    {
        assert!((number(total) / 3.0 - number(each)).abs() < 0.002, "{below}");
        assert!((number(total) / 24.0 - number(text)).abs() < 0.0002, "{below}");
    }
    if cfg!(target_os = "linux") {
        assert_eq!(row("threads started with the embedder"), ["1", "1"]);
        assert_eq!(row("threads started by batches"), ["0", "0"]);
    }
    assert!(below.contains("\nThe time of coarse differs from that of fine by ") && below.contains("95 %"));
    for name in ["report.md", "report.html", "flame.svg", "trace.json", "strategies.md", "strategies.html"] {
        assert!(!fixture.read(&format!("out/{name}")).is_empty(), "{name}");
    }
    // Two bytes tell gzip, which pprof's files are packed with.
    assert!(fixture.read("out/profile.pb.gz").starts_with(&[0x1f, 0x8b]));
    let compared = String::from_utf8(fixture.read("out/strategies.md")).unwrap();
    assert!(compared.starts_with("# Profiles Compared\n") && compared.contains("| fine | coarse |"));
    // Batches and passes are matched, although the former have names of their own.
    let matched = |name: &str| compared.lines().any(|line| line.starts_with(&format!("| {name} |")));
    assert!(compared.contains("are those of all threads together"));
    assert!(matched("Embed") && matched("prefill") && !compared.contains("Embed_"), "{compared}");
}

#[test]
fn one_strategy_is_profiled_alone() {
    let fixture = Fixture::new("bert-mean");
    let model = fixture.path("model.gguf");
    let args = ["--iterations", "2", "--batch", "3"];
    for (strategy, threads, name, calls) in [
        ("auto", "2", "auto", "Embed_Auto"),
        ("fine", "1", "fine", "Embed_Fine"),
        ("both", "1", "fine", "Embed_Fine"),
    ] {
        let more = ["--strategy", strategy, "--workers", threads];
        let command = [&["profile", "embed", "-m", &model, "-q", "--json"], &args[..], &more].concat();
        let report: Report = serde_json::from_str(&succeeds(&mut smallmind(&command))).unwrap();
        let [part] = &report.parts[..] else { panic!("{strategy}: {}", report.parts.len()) };
        assert_eq!((part.name.as_str(), method(&part.runs[0], calls).unwrap().calls), (name, 2));
    }
}

#[test]
fn a_profile_that_cannot_be_made_is_refused() {
    let fixture = Fixture::new("bert-mean");
    let model = fixture.path("model.gguf");
    let (empty, bytes) = (fixture.write("empty.txt", "\n \n"), fixture.write("bytes.txt", b"a\n\xff"));
    let wrong: [(&[&str], i32, &str); 7] = [
        (
            &["-m", &model, "--threads", "1", "--strategy", "coarse"],
            2,
            "on one thread all strategies are the same",
        ),
        (&["-m", &model, "--batch", "0"], 2, "from 1 to 100000"),
        (&["-m", &model, "--iterations", "0"], 2, "from 1 to 1000000"),
        (&["-m", &model, "--strategy", "best"], 2, "'best' for '--strategy"),
        (&["-m", &model, "--texts", &empty], 1, "there is no text in it"),
        (&["-m", &model, "--texts", &bytes], 1, "not UTF-8"),
        (&["-m", TINY], 1, "states no pooling"),
    ];
    for (args, code, reason) in wrong {
        fails(&mut smallmind(&[&["profile", "embed"], args].concat()), code, reason);
    }
    let reranker = Fixture::new("bert-rank");
    fails(&mut reranker.command(&["profile", "embed"], &[]), 1, "is a reranker");
}
