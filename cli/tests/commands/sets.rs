//! Commands that compare texts: a search finds what a comparison by hand finds, scores are the library's, and
//! correlations those of cosines by hand.

use crate::embed::{Fixture, json_lines, vectors};
use crate::support::{fails, smallmind, stderr, stdout, succeeds, with_input};
use serde_json::{Value as Json, json};
use smallmind::embed::{Embedder, EmbedderParams, Results, TextStatus};

const TEXTS: [&str; 6] =
    ["a man plays", "the quick brown fox", "some one makes music", "", "a man plays", "x.y_z"];

fn params() -> EmbedderParams {
    EmbedderParams::default().with_threads(1)
}

/// The cosine in f64.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// Indices by their scores, best first.
fn order(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

#[test]
fn a_search_finds_the_nearest() {
    let fixture = Fixture::new("bert-mean");
    let file = fixture.write("texts.txt", TEXTS.join("\n"));
    let query = "a fox plays music";
    let made = vectors(&fixture.library(), &params(), &[&[query][..], &TEXTS].concat());
    for (dimensions, made) in
        [("64", made.clone()), ("20", made.iter().map(|row| row[..20].to_vec()).collect())]
    {
        let scores: Vec<f64> = made[1..].iter().map(|row| cosine(&made[0], row)).collect();
        let order = order(&scores);
        for name in ["v.jsonl", "v.npy"] {
            let set = fixture.path(name);
            succeeds(&mut fixture.embed(&[&file, "--out", &set, "--force", "--dimensions", dimensions]));
            let search = |args: &[&str]| {
                succeeds(&mut fixture.command(&["search"], &[&["--in", &set, query], args].concat()))
            };
            let found = json_lines(&search(&["--json", "--top", "4"]));
            assert_eq!(found.len(), 4);
            for (found, &i) in found.iter().zip(&order) {
                assert_eq!(found["id"], format!("{file}:{}", i + 1), "{name}, {dimensions}: {scores:?}");
                assert_eq!(found["text"], TEXTS[i]);
                assert!(
                    (found["score"].as_f64().unwrap() - scores[i]).abs() < 1e-5,
                    "{found}, not {}",
                    scores[i]
                );
            }
            let plain = search(&[]);
            assert_eq!(plain.lines().count(), TEXTS.len());
            let first = format!("{:.4}\t{file}:{}\t{}\n", scores[order[0]], order[0] + 1, TEXTS[order[0]]);
            assert!(plain.starts_with(&first), "{plain}");
        }
    }
    // The set's rows are enough, without what stands beside them.
    std::fs::remove_file(fixture.path("v.npy.jsonl")).unwrap();
    std::fs::remove_file(fixture.path("v.npy.settings.json")).unwrap();
    let found =
        succeeds(&mut fixture.command(&["search"], &["--in", &fixture.path("v.npy"), query, "--json"]));
    let scores: Vec<f64> = made[1..].iter().map(|row| cosine(&made[0][..20], &row[..20])).collect();
    assert_eq!(json_lines(&found)[0]["id"], order(&scores)[0].to_string());
}

/// A matrix in NumPy's format, by its documentation.
fn npy(rows: &[Vec<f32>]) -> Vec<u8> {
    let about =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows.len(), rows[0].len());
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend_from_slice(format!("{about:<117}\n").as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// Blocks of large sets are looked at by any thread: the results, and the first error, are those of one.
#[test]
fn any_number_of_threads_finds_the_same() {
    let fixture = Fixture::new("bert-mean");
    let query = "a fox plays";
    let wanted = vectors(&fixture.library(), &params(), &[query]).remove(0);
    // A few thousand rows, some of which stand in several blocks.
    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut rows: Vec<Vec<f32>> = (0..5000).map(|_| (0..64).map(|_| number()).collect()).collect();
    for copy in [1200, 2500, 4999] {
        rows[copy] = rows[77].iter().zip(&wanted).map(|(x, wanted)| 0.1 * x + wanted).collect();
    }
    rows[77] = rows[1200].clone();
    let scores: Vec<f64> = rows.iter().map(|row| cosine(&wanted, row)).collect();
    let order = order(&scores);
    assert_eq!(order[..4], [77, 1200, 2500, 4999]);
    let line = |i: usize| format!("{}\n", json!({"id": i.to_string(), "status": "done", "vector": rows[i]}));
    let mut lines: Vec<String> = (0..rows.len()).map(line).collect();
    let sets = [fixture.write("set.npy", npy(&rows)), fixture.write("set.jsonl", lines.concat())];
    let search = |set: &str, threads: &str| {
        let model = fixture.path("model.gguf");
        let args =
            ["search", "-m", &model, "-q", "--threads", threads, "--in", set, query, "--json", "--top"];
        smallmind(&[&args[..], &["50"]].concat())
    };
    for set in &sets {
        for threads in ["1", "2", "5"] {
            let found = json_lines(&succeeds(&mut search(set, threads)));
            let ids: Vec<usize> =
                found.iter().map(|found| found["id"].as_str().unwrap().parse().unwrap()).collect();
            assert_eq!(ids, order[..50], "{set}, {threads} threads");
            let off =
                found.iter().zip(&order).map(|(found, &i)| found["score"].as_f64().unwrap() - scores[i]);
            assert!(off.into_iter().all(|off| off.abs() < 1e-5));
        }
    }
    for broken in [4100, 3000] {
        lines[broken] = "{\"id\": 5}\n".into();
        let set = fixture.write("broken.jsonl", lines.concat());
        for threads in ["1", "2", "5"] {
            fails(&mut search(&set, threads), 1, &format!("broken.jsonl, line {}:", broken + 1));
        }
    }
}

#[test]
fn sets_that_cannot_be_searched() {
    let fixture = Fixture::new("bert-mean");
    let search = |set: &str| fixture.command(&["search"], &["--in", set, "x"]);
    let file = fixture.write("texts.txt", TEXTS.join("\n"));
    let set = fixture.path("v.npy");
    succeeds(&mut fixture.embed(&[&file, "--out", &set, "--pooling", "cls"]));
    fails(&mut search(&set), 1, "was made with another model or pooling");
    succeeds(&mut fixture.command(&["search"], &["--in", &set, "x", "--pooling", "cls"]));
    let whole = fixture.read("v.npy");
    let cut = fixture.write("cut.npy", &whole[..whole.len() - 1]);
    fails(&mut search(&cut), 1, "ends before its last row");
    fails(&mut search(&fixture.write("head.npy", &whole[..60])), 1, "not a matrix of f32");
    fails(&mut search(&fixture.write("odd.jsonl", "{\"id\": 5}\n")), 1, "odd.jsonl, line 1");
    let wide = json!({"id": "a", "status": "done", "vector": vec![0.5; 65]}).to_string();
    fails(
        &mut search(&fixture.write("wide.jsonl", wide)),
        1,
        "vectors of 65 numbers, and the model's have 64",
    );
    fails(&mut search(&fixture.path("none.jsonl")), 1, "none.jsonl");
    assert_eq!(succeeds(&mut search(&fixture.write("empty.jsonl", ""))), "");
}

#[test]
fn documents_are_ranked_by_the_librarys_scores() {
    let fixture = Fixture::new("bert-rank");
    let mut embedder = Embedder::new(fixture.library(), &params()).unwrap();
    let (mut scores, mut statuses) = (vec![0.0; TEXTS.len()], vec![TextStatus::NotDone; TEXTS.len()]);
    embedder.rerank("who plays", &TEXTS, &mut Results::new(&mut scores, 1, &mut statuses)).unwrap();
    let order = order(&scores.iter().map(|&x| x.into()).collect::<Vec<f64>>());
    assert_ne!(order, [0, 1, 2, 3, 4, 5]);
    let rerank = |args: &[&str]| fixture.command(&["rerank"], &[&["--query", "who plays"], args].concat());
    let output = with_input(
        rerank(&["--json"]),
        format!("{}\n\u{fffd}", TEXTS.join("\n")).replace('\u{fffd}', "").as_bytes(),
    );
    let ranked = json_lines(stdout(&output));
    assert_eq!(ranked.len(), TEXTS.len(), "{}", stderr(&output));
    for (ranked, &i) in ranked.iter().zip(&order) {
        assert_eq!((&ranked["id"], &ranked["text"]), (&json!(format!("-:{}", i + 1)), &json!(TEXTS[i])));
        assert_eq!(ranked["score"].as_f64().unwrap() as f32, scores[i]);
    }
    let file = fixture.write("texts.txt", TEXTS.join("\n"));
    let top = succeeds(&mut rerank(&[&file, "--top", "1"]));
    assert_eq!(top, format!("{:.4}\t{file}:{}\t{}\n", scores[order[0]], order[0] + 1, TEXTS[order[0]]));
    // A text that can't be read costs no other.
    let output = with_input(rerank(&[]), b"one\n\xff\ntwo\n");
    assert_eq!(stdout(&output).lines().count(), 2);
    let encoder = Fixture::new("bert-mean");
    fails(&mut encoder.command(&["rerank"], &["--query", "x", &file]), 1, "is no reranker");
}

#[test]
fn correlations_are_those_of_cosines_by_hand() {
    let fixture = Fixture::new("bert-mean");
    let pairs = [(0, 1, 1.0), (0, 2, 2.5), (0, 4, 5.0), (1, 2, 1.0), (5, 2, 0.0), (1, 5, 3.5)];
    let made = vectors(&fixture.library(), &params(), &TEXTS);
    let cosines: Vec<f64> = pairs.iter().map(|&(a, b, _)| cosine(&made[a], &made[b])).collect();
    let ratings: Vec<f64> = pairs.iter().map(|pair| pair.2).collect();
    // Of different values, and of two that share ranks 1 and 2.
    let rank = |of: &[f64]| -> Vec<f64> {
        let below = |x: f64| of.iter().filter(|&&y| y < x).count() as f64;
        let same = |x: f64| of.iter().filter(|&&y| y == x).count() as f64;
        of.iter().map(|&x| below(x) + (same(x) - 1.0) / 2.0).collect()
    };
    let pearson = |a: &[f64], b: &[f64]| {
        let n = a.len() as f64;
        let sum = |x: &[f64]| x.iter().sum::<f64>();
        let product =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() - sum(a) * sum(b) / n;
        product(a, b) / (product(a, a) * product(b, b)).sqrt()
    };
    let wanted = [pearson(&rank(&cosines), &rank(&ratings)), pearson(&cosines, &ratings)];
    let rows = |separator: &str| {
        let row = |&(a, b, rating): &(usize, usize, f64)| {
            format!("{}{separator}{}{separator}{rating}\n", TEXTS[a], TEXTS[b])
        };
        pairs.iter().map(row).collect::<String>()
    };
    let json = |&(a, b, rating): &(usize, usize, f64)| {
        format!("{}\n", json!({"sentence1": TEXTS[a], "sentence2": TEXTS[b], "score": rating}))
    };
    let files = [
        (fixture.write("a.tsv", rows("\t")), None),
        (fixture.write("b.csv", format!("one,two,score\n{}", rows(","))), Some("one,two,score")),
        (fixture.write("c.csv", format!("one,two,score\n{}", rows(","))), None),
        (fixture.write("d.jsonl", pairs.iter().map(json).collect::<String>()), None),
    ];
    let eval =
        |file: &str, args: &[&str]| fixture.command(&["eval", "similarity"], &[&[file], args].concat());
    for (file, columns) in &files {
        let columns: Vec<_> = columns.iter().flat_map(|columns| ["--columns", columns]).collect();
        let said = succeeds(&mut eval(file, &[&columns[..], &["--json"]].concat()));
        let said: Json = serde_json::from_str(&said).unwrap();
        for (key, wanted) in ["spearman", "pearson"].into_iter().zip(wanted) {
            assert!(
                (said[key].as_f64().unwrap() - wanted).abs() < 1e-5,
                "{file}, {key}: {said}, not {wanted}"
            );
        }
        assert_eq!(said["pairs"], 6);
    }
    let said = succeeds(&mut eval(&files[0].0, &[]));
    assert!(
        said.starts_with(&format!("Spearman {:.4}, Pearson {:.4}, 6 pairs, ", wanted[0], wanted[1])),
        "{said}"
    );
    fails(
        &mut eval(&fixture.write("bad.tsv", "a\tb\t1\na\tb\n"), &[]),
        1,
        "row 2 has no two texts and a rating",
    );
    fails(&mut eval(&fixture.write("one.tsv", "a\tb\t1\n"), &[]), 1, "no correlation");
    fails(&mut eval(&files[1].0, &["--columns", "1,2,rating"]), 1, "there is no column \"rating\"");
    fails(&mut eval(&files[1].0, &["--columns", "1,2"]), 2, "needs three names or numbers");
    fails(&mut smallmind(&["eval", "poetry"]), 2, "'poetry'");
}
