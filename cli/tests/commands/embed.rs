//! Commands for vectors of texts: values are the library's, every format holds them, a run that was cut anywhere goes on
//! without losing or doubling a text, and every bad text has its status.

use std::path::Path;
use std::sync::Arc;

use crate::common::embedders::family;
use crate::support::{TINY, fails, smallmind, stderr, stdout, succeeds, with_input};
use serde_json::{Value as Json, json};
use smallmind::embed::{Embedder, EmbedderParams, LongTexts, Prompt, Results, TextStatus};
use smallmind::model::{LoadParams, Model, Pooling};

/// A folder with a small encoder.
pub struct Fixture {
    folder: tempfile::TempDir,
    model: String,
}

impl Fixture {
    pub fn new(name: &str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.gguf");
        std::fs::write(&model, family(name).file()).unwrap();
        Fixture { model: model.into_os_string().into_string().unwrap(), folder }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).into_os_string().into_string().unwrap()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A command with this model.
    pub fn command(&self, command: &[&str], args: &[&str]) -> std::process::Command {
        smallmind(&[command, &["-m", &self.model, "-q", "--threads", "2"], args].concat())
    }

    pub fn embed(&self, args: &[&str]) -> std::process::Command {
        self.command(&["embed"], args)
    }

    pub fn library(&self) -> Arc<Model> {
        Model::open(Path::new(&self.model), &LoadParams::default()).unwrap()
    }
}

pub fn json_lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The floats of a record.
fn vector(record: &Json) -> Vec<f32> {
    record["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// The library's vectors.
pub fn vectors(model: &Arc<Model>, params: &EmbedderParams, texts: &[&str]) -> Vec<Vec<f32>> {
    let mut embedder = Embedder::new(model.clone(), params).unwrap();
    let width = embedder.width();
    let (mut rows, mut statuses) = (vec![0.0; width * texts.len()], vec![TextStatus::NotDone; texts.len()]);
    embedder.embed(texts, &mut Results::new(&mut rows, width, &mut statuses)).unwrap();
    rows.chunks(width).map(<[f32]>::to_vec).collect()
}

const TEXTS: [&str; 4] = ["a man plays", "", "the quick, \"brown\" fox", "some one makes music"];

#[test]
fn vectors_are_the_librarys_with_every_option() {
    let fixture = Fixture::new("bert-mean");
    let long = "abcdefgh ".repeat(40);
    let texts: Vec<&str> = TEXTS.into_iter().chain([long.as_str()]).collect();
    let file = fixture.write("texts.txt", texts.join("\n"));
    let plain = EmbedderParams::default().with_threads(1);
    let cases: [(&[&str], EmbedderParams, &str); 6] = [
        (&[], plain.clone(), "truncated"),
        (
            &["--long", "split", "--strategy", "coarse"],
            plain.clone().with_long_texts(LongTexts::Split),
            "split",
        ),
        (
            &["--pooling", "cls", "--no-normalize"],
            plain.clone().with_pooling(Pooling::Cls).with_normalize(false),
            "truncated",
        ),
        (&["--dimensions", "20", "--strategy", "fine"], plain.clone().with_dimensions(20), "truncated"),
        (&["--prompt-text", "query: "], plain.clone().with_prompt(Prompt::text("query: ")), "truncated"),
        (
            &["--prompt", "nomic:query"],
            plain.clone().with_prompt(Prompt::text("search_query: ")),
            "truncated",
        ),
    ];
    let model = fixture.library();
    for (args, params, status) in cases {
        let records = json_lines(&succeeds(fixture.embed(args).arg(&file)));
        let wanted = vectors(&model, &params, &texts);
        assert_eq!(records.len(), texts.len(), "{args:?}");
        for (i, record) in records.iter().enumerate() {
            assert_eq!(record["id"], format!("{file}:{}", i + 1));
            assert_eq!((&record["source"], &record["text"]), (&json!(file), &json!(texts[i])));
            assert_eq!(record["status"], if i == 4 { status } else { "done" }, "{args:?}");
            assert_eq!(vector(record), wanted[i], "{args:?}, text {i}");
        }
        // The comparison sees another text's vector.
        assert_ne!(wanted[0], wanted[2]);
    }
    let refused = json_lines(&succeeds(fixture.embed(&["--long", "error", "--no-text"]).arg(&file)));
    assert_eq!((&refused[4]["status"], &refused[4]["vector"]), (&json!("too-long"), &Json::Null));
    assert_eq!(refused[3].get("text"), None);
}

#[test]
fn lines_files_folders_and_fields_are_texts() {
    let fixture = Fixture::new("bert-mean");
    fixture.write("set/b.txt", "one\r\ntwo\n");
    fixture.write("set/a/x.md", "three\nfour\n");
    fixture.write("set/.hidden", "none");
    fixture.write(
        "set/c.jsonl",
        "{\"id\": 7, \"text\": \"five\", \"body\": \"six\"}\n\n{\"text\": \"seven\", \"body\": \"x\"}\n",
    );
    let set = fixture.path("set");
    let said = |args: &[&str]| -> Vec<(String, String)> {
        let records =
            json_lines(&succeeds(fixture.embed(&[&[set.as_str()], args].concat()).env("LC_ALL", "C")));
        let text = |value: &Json| value.as_str().unwrap().replace(&format!("{set}/"), "");
        records.iter().map(|record| (text(&record["id"]), text(&record["text"]))).collect()
    };
    let wanted = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect()
    };
    let lines = wanted(&[
        ("a/x.md:1", "three"),
        ("a/x.md:2", "four"),
        ("b.txt:1", "one"),
        ("b.txt:2", "two"),
        ("7", "five"),
        ("c.jsonl:3", "seven"),
    ]);
    assert_eq!(said(&[]), lines);
    let whole =
        wanted(&[("a/x.md", "three\nfour"), ("b.txt", "one\r\ntwo"), ("7", "six"), ("c.jsonl:3", "x")]);
    assert_eq!(said(&["--whole-files", "--field", "body"]), whole);
    // Standard input, named or not.
    for args in [&[][..], &["-"]] {
        let output = with_input(fixture.embed(args), b"one\ntwo");
        let records = json_lines(stdout(&output));
        assert_eq!((&records[1]["id"], &records[1]["text"]), (&json!("-:2"), &json!("two")));
        let empty = with_input(fixture.embed(args), b"");
        assert!(empty.status.success() && stdout(&empty).is_empty(), "{}", stderr(&empty));
    }
}

#[test]
fn a_bad_text_has_its_status_and_costs_no_other() {
    let fixture = Fixture::new("bert-mean");
    let mut lines = b"good\n\xff\xfe\n".to_vec();
    lines.resize(lines.len() + (16 << 20) + 1, b'x');
    lines.extend_from_slice(b"\nlast \x1b[2J\n");
    let bad = fixture.write("bad.txt", lines);
    let odd = fixture.write("odd.jsonl", "{\"text\": \"ok\"}\nno json\n{\"text\": 5}\n[]\n");
    let text = succeeds(&mut fixture.embed(&[&bad, &odd]));
    assert!(!text.contains('\u{1b}'));
    let records = json_lines(&text);
    let statuses: Vec<_> = records.iter().map(|record| record["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["done", "not-utf8", "too-long", "done", "done", "not-json", "no-text", "no-text"]);
    let model = fixture.library();
    let wanted =
        vectors(&model, &EmbedderParams::default().with_threads(1), &["good", "last \u{1b}[2J", "ok"]);
    assert_eq!([&records[0], &records[3], &records[4]].map(vector).to_vec(), wanted);
    assert!([1, 2, 5, 6, 7].iter().all(|&i| records[i]["vector"].is_null()));
    // The other formats have a place for it, too.
    let (csv, npy) = (fixture.path("bad.csv"), fixture.path("bad.npy"));
    succeeds(&mut fixture.embed(&[&bad, &odd, "--out", &csv, "--no-text"]));
    let csv = String::from_utf8(fixture.read("bad.csv")).unwrap();
    assert_eq!(csv.lines().count(), 9);
    assert!(csv.lines().nth(2).unwrap().ends_with(&format!(",not-utf8{}", ",".repeat(64))));
    succeeds(&mut fixture.embed(&[&bad, &odd, "--out", &npy]));
    let rows = matrix(&fixture.read("bad.npy"));
    assert_eq!((rows.len(), &rows[1], &rows[3]), (8, &vec![0.0; 64], &wanted[1]));
}

/// The rows of NumPy's format, by its documentation.
fn matrix(bytes: &[u8]) -> Vec<Vec<f32>> {
    let len = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..len]).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && len.is_multiple_of(64) && header.ends_with('\n'));
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let (rows, width) = shape.split_once(", ").unwrap();
    let (rows, width): (usize, usize) = (rows.parse().unwrap(), width.parse().unwrap());
    assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, "), "{header}");
    let floats: Vec<f32> =
        bytes[len..].chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    assert_eq!(floats.len(), rows * width);
    floats.chunks(width).map(<[f32]>::to_vec).collect()
}

#[test]
fn every_format_holds_the_vectors() {
    let fixture = Fixture::new("bert-mean");
    let file = fixture.write("texts.txt", TEXTS.join("\n"));
    let wanted = vectors(&fixture.library(), &EmbedderParams::default().with_threads(1), &TEXTS);
    for (name, format) in [("v.jsonl", None), ("v.csv", None), ("v.npy", None), ("v.data", Some("csv"))] {
        let mut args = vec![file.as_str(), "--out"];
        let out = fixture.path(name);
        args.push(&out);
        args.extend(format.iter().flat_map(|format| ["--format", format]));
        assert_eq!(succeeds(&mut fixture.embed(&args)), "");
        // Never over a file that is there.
        fails(&mut fixture.embed(&args), 1, "is there already (--resume goes on with it");
        succeeds(fixture.embed(&args).arg("--force"));
    }
    let records = json_lines(std::str::from_utf8(&fixture.read("v.jsonl")).unwrap());
    assert_eq!(records.iter().map(vector).collect::<Vec<_>>(), wanted);
    assert_eq!(matrix(&fixture.read("v.npy")), wanted);
    let about = json_lines(std::str::from_utf8(&fixture.read("v.npy.jsonl")).unwrap());
    assert_eq!(
        about[2],
        json!({"id": format!("{file}:3"), "source": file, "status": "done", "text": TEXTS[2]})
    );
    assert_eq!(fixture.read("v.csv"), fixture.read("v.data"));
    let csv = String::from_utf8(fixture.read("v.csv")).unwrap();
    let lines: Vec<_> = csv.lines().collect();
    assert!(
        lines[0].starts_with("id,source,status,text,v0,v1,") && lines[0].ends_with(",v63"),
        "{}",
        lines[0]
    );
    assert!(
        lines[3].starts_with(&format!("{file}:3,{file},done,\"the quick, \"\"brown\"\" fox\",")),
        "{}",
        lines[3]
    );
    let numbers: Vec<f32> = lines[1].split(',').skip(4).map(|x| x.parse().unwrap()).collect();
    assert_eq!(numbers, wanted[0]);
    fails(&mut fixture.embed(&[&file, "--format", "npy"]), 2, "needs '--out <FILE>'");
}

/// Records are made on all threads.
#[test]
fn any_number_of_threads_writes_the_same() {
    let fixture = Fixture::new("bert-mean");
    let line = |i: usize| format!("{} \"text, {}\"\n", char::from(b'a' + (i % 26) as u8), "x ".repeat(i % 7));
    let mut lines: Vec<u8> = (0..150).flat_map(|i| line(i).into_bytes()).collect();
    lines.extend_from_slice(b"\xff\nlast");
    let file = fixture.write("a.txt", lines);
    let model = fixture.path("model.gguf");
    for name in ["v.jsonl", "v.csv", "v.npy"] {
        let made: Vec<_> = ["1", "2", "5"]
            .into_iter()
            .map(|threads| {
                let out = fixture.path(name);
                let args =
                    ["embed", "-m", &model, "-q", "--threads", threads, &file, "--force", "--out", &out];
                succeeds(&mut smallmind(&args));
                let beside = format!("{out}.jsonl");
                (fixture.read(name), std::fs::read(beside).unwrap_or_default())
            })
            .collect();
        assert!(made[0] == made[1] && made[0] == made[2], "{name}");
        let records = if name == "v.npy" { &made[0].1 } else { &made[0].0 };
        let lines = records.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(lines, 152 + usize::from(name == "v.csv"), "{name}");
    }
}

#[test]
fn a_run_that_was_cut_anywhere_goes_on() {
    let fixture = Fixture::new("bert-mean");
    // A text with a line break, which CSV keeps.
    fixture.write("in/a.txt", "first");
    fixture.write("in/b.txt", "second,\n\"text\"\nends");
    fixture.write("in/c.txt", "third");
    let input = fixture.path("in");
    for name in ["v.jsonl", "v.csv", "v.npy"] {
        let out = fixture.path(name);
        let args = [input.as_str(), "--whole-files", "--out", &out, "--dimensions", "2"];
        succeeds(&mut fixture.embed(&args));
        let beside = format!("{name}.jsonl");
        let is_matrix = name.ends_with("npy");
        let whole = (fixture.read(name), if is_matrix { fixture.read(&beside) } else { Vec::new() });
        let resume = |matrix: &[u8], records: &[u8], what: &str| {
            fixture.write(name, matrix);
            if is_matrix {
                fixture.write(&beside, records);
            }
            succeeds(fixture.embed(&args).arg("--resume"));
            assert!(fixture.read(name) == whole.0, "{name} cut to {what}");
            assert!(!is_matrix || fixture.read(&beside) == whole.1, "{name} cut to {what}");
        };
        // Every byte of the last record, and some before it.
        let (last, len) = (if is_matrix { 8 } else { whole.0.len() / 3 }, whole.0.len());
        for cut in len - last..=len {
            resume(&whole.0[..cut], &whole.1, &format!("{cut} of {len}"));
        }
        for cut in [0, 1, 100] {
            resume(&whole.0[..cut], &whole.1, &format!("{cut} of {len}"));
        }
        for cut in (0..=whole.1.len()).filter(|cut| *cut < 2 || *cut > 2 * whole.1.len() / 3) {
            resume(&whole.0, &whole.1[..cut], &format!("{cut} of the records"));
        }
    }
}

#[test]
fn a_run_goes_on_only_with_the_same_model_texts_and_options() {
    let fixture = Fixture::new("bert-mean");
    let (file, out) = (fixture.write("a.txt", "one\ntwo\n"), fixture.path("v.jsonl"));
    let args = [file.as_str(), "--out", &out, "--resume"];
    // Nothing is there: it begins.
    succeeds(&mut fixture.embed(&args));
    let whole = fixture.read("v.jsonl");
    let other = |more: &[&str], reason: &str| {
        fails(&mut fixture.embed(&[&args[..], more].concat()), 1, reason);
        assert_eq!(fixture.read("v.jsonl"), whole);
    };
    other(&["--dimensions", "5"], "--dimensions was another (--force begins it again)");
    other(&["--prompt-text", "x"], "prompt was another");
    other(&["--long", "split"], "--long was another");
    other(&["--no-text"], "--no-text was another");
    other(&["--pooling", "cls"], "makes other vectors than then");
    other(&["--no-normalize"], "makes other vectors than then");
    other(&[&file], "inputs was another");
    fixture.write("a.txt", "one\n");
    other(&[], "has moved in the inputs");
    fixture.write("a.txt", "one\ntwo\nthree\n");
    std::fs::remove_file(fixture.path("v.jsonl.settings.json")).unwrap();
    other(&[], ".settings.json isn't there");
    succeeds(&mut fixture.embed(&[&file, "--out", &out, "--force"]));
    assert!(fixture.read("v.jsonl").starts_with(&whole));
}

#[test]
fn wrong_models_and_options() {
    let fixture = Fixture::new("bert-mean");
    let file = fixture.write("a.txt", "one\n");
    fails(&mut fixture.embed(&[&file, "--dimensions", "65"]), 2, "'65' for '--dimensions <N>'");
    fails(
        &mut fixture.embed(&[&file, "--prompt", "poem"]),
        2,
        "'--prompt <NAME>': no prompt \"poem\"; there are gemma:",
    );
    fails(&mut fixture.embed(&[&fixture.path("none.txt")]), 1, "none.txt");
    fails(&mut fixture.embed(&[&file, "--resume"]), 2, "--out");
    fails(&mut fixture.embed(&[&file, "--out", &fixture.path("")]), 1, "is no file that can be rewritten");
    fails(&mut smallmind(&["embed", "-m", TINY, "-q", &file]), 1, "--pooling chooses one");
    let reranker = Fixture::new("bert-rank");
    fails(&mut reranker.embed(&[&file]), 1, "the model is a reranker");
    let out = reranker.path("v.jsonl");
    fails(&mut reranker.embed(&[&file, "--out", &out]), 1, "the model is a reranker");
    assert!(!Path::new(&out).exists());
}

/// What a full disk leaves is whole, and a later run goes on with it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_whole_records() {
    let fixture = Fixture::new("bert-mean");
    // More than the first chunk.
    let lines: String = (0..700).map(|i| format!("text {}\n", char::from(b'a' + (i % 26) as u8))).collect();
    let file = fixture.write("a.txt", lines);
    for name in ["v.jsonl", "v.csv", "v.npy"] {
        let out = fixture.path(name);
        let args = [file.as_str(), "--out", &out, "--dimensions", "8"];
        succeeds(&mut fixture.embed(&args));
        let whole = fixture.read(name);
        let largest =
            whole.len().max(std::fs::read(format!("{out}.jsonl")).map_or(0, |records| records.len()));
        let command = fixture.embed(&[&args[..], &["--force"]].concat());
        fails(&mut crate::whole_files::limited(command, largest as u64 * 3 / 5), 1, "File too large");
        let left = fixture.read(name);
        assert!(left.len() > whole.len() / 20 && left.len() < whole.len());
        match name {
            "v.npy" => assert!((64..700).contains(&matrix(&left).len())),
            _ => assert!(whole.starts_with(&left) && left.ends_with(b"\n")),
        }
        succeeds(fixture.embed(&args).arg("--resume"));
        assert!(fixture.read(name) == whole, "{name}");
    }
}

/// A run that was ended between two texts goes on behind what it wrote; its own files are no inputs.
#[cfg(target_os = "linux")]
#[test]
fn a_stopped_run_goes_on() {
    use std::io::Write;
    use std::time::{Duration, Instant};
    let fixture = Fixture::new("bert-mean");
    let lines: String = (0..600).map(|i| format!("{} text\n", char::from(b'a' + (i % 26) as u8))).collect();
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT] {
        for name in ["v.jsonl", "v.csv", "v.npy"] {
            let out = fixture.path(name);
            let whole = with_input(fixture.embed(&["--out", &out, "--force"]), lines.as_bytes());
            assert!(whole.status.success(), "{}", stderr(&whole));
            let whole = fixture.read(name);
            std::fs::remove_file(&out).unwrap();
            let mut child =
                fixture.embed(&["--out", &out]).stdin(std::process::Stdio::piped()).spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            // It waits for more in the end, if nothing stops it before.
            input.write_all(&lines.as_bytes()[..400 * 7]).unwrap();
            let start = Instant::now();
            let written = || std::fs::metadata(&out).map_or(0, |about| about.len() as usize);
            while written() <= whole.len() / 5 {
                assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
                std::thread::sleep(Duration::from_millis(5));
            }
            // SAFETY: kill only sends a signal, to a child that has not been waited for.
            assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
            let status = child.wait().unwrap();
            assert!(
                !status.success() && (signal != libc::SIGINT || status.code() == Some(130)),
                "{status:?}"
            );
            let rest = with_input(fixture.embed(&["--out", &out, "--resume"]), lines.as_bytes());
            assert!(rest.status.success(), "{}", stderr(&rest));
            assert!(fixture.read(name) == whole, "{name} after signal {signal}");
        }
    }
}

#[test]
fn own_files_are_no_inputs() {
    let fixture = Fixture::new("bert-mean");
    fixture.write("set/a.txt", "one");
    fixture.write("set/z.txt", "two");
    let (set, out) = (fixture.path("set"), fixture.path("set/v.npy"));
    let args = [set.as_str(), "--out", &out];
    succeeds(&mut fixture.embed(&args));
    let whole = fixture.read("set/v.npy");
    succeeds(fixture.embed(&args).arg("--resume"));
    succeeds(fixture.embed(&args).arg("--force"));
    assert!(fixture.read("set/v.npy") == whole && matrix(&whole).len() == 2);
}
