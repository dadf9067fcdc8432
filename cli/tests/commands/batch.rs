//! `smallmind batch`: texts are those that lines have alone, in the order of the lines; a run that was cut anywhere goes on
//! without losing or doubling a line; every bad line has its record.

use crate::support::{TINY, chat_model, fails, generate, smallmind, stderr, stdout, succeeds, with_input};
use serde_json::Value as Json;

/// A folder with the input.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(lines: &str) -> Fixture {
        let fixture = Fixture { folder: tempfile::tempdir().unwrap() };
        std::fs::write(fixture.path("in.jsonl"), lines).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).into_os_string().into_string().unwrap()
    }

    fn batch(&self, model: &str, args: &[&str]) -> std::process::Command {
        let input = self.path("in.jsonl");
        let fixed = ["batch", "-m", model, "-q", "--threads", "2", "--ctx", "128", &input];
        smallmind(&[&fixed, args].concat())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

fn records(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// So many lines, of very different lengths.
fn lines(count: usize) -> String {
    let line = |i: usize| format!("{{\"prompt\": \"line {i}\", \"max_tokens\": {}}}\n", 3 + i * 7 % 40);
    (0..count).map(line).collect()
}

#[test]
fn a_line_has_the_text_that_it_has_alone() {
    let wide = "{\"prompt\": \"a b\", \"id\": \"x\", \"max_tokens\": 12, \"seed\": 5, \"temperature\": 1.1, \"top_k\": 7, \
                \"top_p\": 0.9, \"min_p\": 0, \"repetition_penalty\": 1.2, \"priority\": 3}\n";
    let greedy =
        "{\"prompt\": \"a b\", \"id\": 7, \"max_tokens\": 9, \"temperature\": 0, \"stop\": \"zzzz\"}\n";
    let fixture = Fixture::new(&[&lines(20), wide, greedy].concat());
    let out = succeeds(&mut fixture.batch(TINY, &["--seed", "3", "--parallel", "3"]));
    let found = records(&out);
    assert_eq!(found.len(), 22);
    let alone = |args: &[&str]| {
        let text = succeeds(generate(TINY, &["-q", "--ctx", "128"]).args(args));
        text.strip_suffix('\n').unwrap().to_owned()
    };
    for i in [0, 7, 19] {
        let (seed, tokens) = ((3 + i + 1).to_string(), (3 + i * 7 % 40).to_string());
        let text = alone(&["-p", &format!("line {i}"), "--seed", &seed, "-n", &tokens]);
        assert_eq!(found[i]["text"], text, "line {i}");
        assert_eq!(found[i]["id"], format!("{}:{}", fixture.path("in.jsonl"), i + 1));
        assert_eq!(found[i]["status"], "done");
    }
    let options =
        ["--temp", "1.1", "--top-k", "7", "--top-p", "0.9", "--min-p", "0", "--repeat-penalty", "1.2"];
    let text = alone(&[&["-p", "a b", "--seed", "5", "-n", "12"], &options[..]].concat());
    assert_eq!((&found[20]["text"], &found[20]["id"]), (&text.into(), &"x".into()));
    let text = alone(&["-p", "a b", "--temp", "0", "-n", "9"]);
    assert_eq!((&found[21]["text"], &found[21]["id"]), (&text.into(), &"7".into()));
    assert!(found[0]["reason"] == "length" && found[0]["tokens"] == 3);
    assert!(found[0]["prompt_tokens"].as_u64() > Some(0));
    // Whatever runs at the same time, and with a cache for one.
    for args in [["--parallel", "1", "-b", "5"], ["--parallel", "16", "--positions", "128"]] {
        assert_eq!(succeeds(fixture.batch(TINY, &["--seed", "3"]).args(args)), out);
    }
    let input = std::fs::read(fixture.path("in.jsonl")).unwrap();
    let piped = with_input(smallmind(&["batch", "-m", TINY, "--ctx", "128", "--seed", "3"]), &input);
    let texts =
        |text: &str| records(text).into_iter().map(|record| record["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(stdout(&piped)), texts(&out));
    assert!(
        stderr(&piped).contains("[22 lines · ") && stderr(&piped).contains("seed 3]"),
        "{}",
        stderr(&piped)
    );
}

#[test]
fn every_option_of_sampling_is_one_of_a_line_too() {
    let options: [(&str, &[&str]); 16] = [
        (
            "\"temperature_range\": 0.7, \"temperature_exponent\": 2",
            &["--dynatemp-range", "0.7", "--dynatemp-exp", "2"],
        ),
        ("\"typical_p\": 0.3", &["--typical", "0.3"]),
        ("\"top_n_sigma\": 1.1", &["--top-n-sigma", "1.1"]),
        (
            "\"xtc_probability\": 0.6, \"xtc_threshold\": 0.02",
            &["--xtc-probability", "0.6", "--xtc-threshold", "0.02"],
        ),
        ("\"frequency_penalty\": 3", &["--frequency-penalty", "3"]),
        (
            "\"presence_penalty\": 4, \"penalty_last_n\": 9",
            &["--presence-penalty", "4", "--repeat-last-n", "9"],
        ),
        (
            "\"dry_multiplier\": 9, \"dry_base\": 2, \"dry_allowed_length\": 0, \"dry_last_n\": 50",
            &[
                "--dry-multiplier",
                "9",
                "--dry-base",
                "2",
                "--dry-allowed-length",
                "0",
                "--dry-penalty-last-n",
                "50",
            ],
        ),
        (
            "\"dry_multiplier\": 9, \"dry_allowed_length\": 0, \"dry_breakers\": [\"a\", \"e\"]",
            &[
                "--dry-multiplier",
                "9",
                "--dry-allowed-length",
                "0",
                "--dry-sequence-breaker",
                "a",
                "--dry-sequence-breaker",
                "e",
            ],
        ),
        (
            "\"dry_multiplier\": 9, \"dry_allowed_length\": 0, \"dry_breakers\": []",
            &["--dry-multiplier", "9", "--dry-allowed-length", "0", "--dry-sequence-breaker", "none"],
        ),
        (
            "\"mirostat\": 2, \"mirostat_tau\": 3, \"mirostat_eta\": 0.3",
            &["--mirostat", "2", "--mirostat-ent", "3", "--mirostat-lr", "0.3"],
        ),
        ("\"logit_bias\": [[68, 4.5], [70, false]]", &["-l", "68+4.5", "-l", "70-inf"]),
        ("\"samplers\": [\"top_k\", \"temperature\"]", &["--samplers", "top_k;temperature"]),
        ("\"top_k\": 3", &["--top-k", "3"]),
        ("\"regex\": \"[xyz]{5}\"", &["--regex", "[xyz]{5}"]),
        ("\"grammar\": \"start: \\\"abc\\\" | \\\"abd\\\"\"", &["--regex", "ab[cd]"]),
        ("\"json_schema\": {\"enum\": [\"yes\", \"no\"]}", &["--regex", "\"(yes|no)\""]),
    ];
    let common = "\"prompt\": \"hello there\", \"max_tokens\": 24, \"seed\": 5";
    let plain = format!("{{{common}}}\n");
    let fixture = Fixture::new(
        &options.iter().map(|(fields, _)| format!("{{{common}, {fields}}}\n")).collect::<String>(),
    );
    let found = records(&succeeds(&mut fixture.batch(TINY, &[])));
    let alone = Fixture::new(&plain);
    let without = records(&succeeds(&mut alone.batch(TINY, &[])))[0]["text"].clone();
    for ((fields, args), found) in options.iter().zip(&found) {
        let base = ["-q", "--ctx", "128", "-p", "hello there", "-n", "24", "--seed", "5"];
        let text = succeeds(generate(TINY, &base).args(*args));
        assert_eq!(found["text"], text.strip_suffix('\n').unwrap(), "{fields}");
        assert_ne!(found["text"], without, "{fields} changes nothing");
        // The same as a default of the command line.
        let by_flags = records(&succeeds(alone.batch(TINY, &[]).args(*args)));
        assert_eq!(by_flags[0]["text"], found["text"], "{args:?}");
    }
    // What a line says counts more than the command line.
    let off =
        Fixture::new(&format!("{{{common}, \"mirostat\": 0, \"dry_multiplier\": 0, \"logit_bias\": []}}\n"));
    let flags = ["--mirostat", "2", "--dry-multiplier", "9", "-l", "68+100"];
    assert_eq!(records(&succeeds(&mut off.batch(TINY, &flags)))[0]["text"], without);
}

#[test]
fn log_probabilities_are_those_of_generate() {
    let common = "\"prompt\": \"hello there\", \"max_tokens\": 9, \"seed\": 5";
    let fixture = Fixture::new(&format!(
        "{{{common}}}\n{{{common}, \"logprobs\": 0, \"temperature\": 3}}\n{{{common}, \"logprobs\": 288}}\n"
    ));
    let found = records(&succeeds(&mut fixture.batch(TINY, &["--logprobs", "4", "--parallel", "3"])));
    let plain = records(&succeeds(&mut fixture.batch(TINY, &[])));
    assert_eq!((&found[0]["text"], plain[0].get("logprobs")), (&plain[0]["text"], None));
    let options = ["-q", "--ctx", "128", "-p", "hello there", "-n", "9", "--seed", "5", "--logprobs"];
    for (found, args) in [(&found[0], &["4"][..]), (&found[1], &["0", "--temp", "3"])] {
        let lines = records(&succeeds(generate(TINY, &options).args(args)));
        assert_eq!(found["logprobs"], Json::from(lines.clone()), "{args:?}");
        assert_eq!(found["tokens"], lines.len());
        let text: String = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
        assert_eq!(found["text"], text);
    }
    for picked in found[0]["logprobs"].as_array().unwrap() {
        let top = picked["top"].as_array().unwrap();
        let of = |token: &Json| token["logprob"].as_f64().unwrap();
        assert!(
            top.len() == 4 && top.windows(2).all(|pair| of(&pair[0]) >= of(&pair[1])) && of(&top[0]) < 0.0
        );
        assert!(
            top.iter().filter(|token| token["token"] == picked["token"]).all(|token| of(token) == of(picked))
        );
        assert!(top.iter().map(|token| of(token).exp()).sum::<f64>() < 1.0);
    }
    assert!(
        found[1]["logprobs"].as_array().unwrap().iter().all(|picked| picked["top"] == Json::Array(vec![]))
    );
    assert!(found[2]["error"].as_str().unwrap().contains("log-probabilities of 288 tokens; at most 100"));
}

#[test]
fn messages_go_through_the_chat_template() {
    let fixture = Fixture::new(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}], \"max_tokens\": 8, \"temperature\": 0}\n",
    );
    let found = records(&succeeds(&mut fixture.batch(&chat_model(), &[])));
    let alone = succeeds(&mut generate(
        &chat_model(),
        &["-q", "--chat", "--ctx", "128", "-p", "hello", "--temp", "0", "-n", "8"],
    ));
    assert_eq!(found[0]["text"], alone.strip_suffix('\n').unwrap());
}

#[test]
fn every_bad_line_has_its_record_and_costs_no_other() {
    let long = format!("{{\"prompt\": \"{}\"}}", "ab cd ".repeat(200));
    let bad: [(&str, &str); 19] = [
        ("no json", "expected"),
        ("{\"prompt\": \"a\", \"temprature\": 1}", "unknown field `temprature`"),
        ("{\"id\": 5}", "either \"prompt\" or \"messages\""),
        ("{\"prompt\": \"a\", \"messages\": []}", "either \"prompt\" or \"messages\""),
        ("{\"prompt\": \"a\", \"temperature\": -1}", "temperature is -1"),
        ("{\"prompt\": \"a\", \"typical\": 1}", "unknown field `typical`"),
        ("{\"prompt\": \"a\", \"typical_p\": 0}", "typical_p is 0"),
        ("{\"prompt\": \"a\", \"xtc_probability\": 2}", "xtc_probability is 2"),
        ("{\"prompt\": \"a\", \"mirostat\": 1}", "mirostat is 1; it must be 0 or 2"),
        ("{\"prompt\": \"a\", \"logit_bias\": [[5, true]]}", "a logit bias is a number, or false"),
        ("{\"prompt\": \"a\", \"logit_bias\": [[288, 1]]}", "a logit bias for token 288"),
        ("{\"prompt\": \"a\", \"samplers\": [\"top-k\"]}", "one of logit_bias, mask"),
        ("{\"prompt\": \"a\", \"regex\": \"(\"}", "the regular expression: "),
        (
            "{\"prompt\": \"a\", \"regex\": \"a\", \"grammar\": \"a\"}",
            "one of json_schema, regex and grammar",
        ),
        ("{\"prompt\": \"a\", \"dry_multiplier\": 1, \"dry_breakers\": [\"\"]}", "a breaker of 0 bytes"),
        ("{\"prompt\": \"a\", \"stop\": [\"\"]}", "stop string 0 is empty"),
        ("{\"prompt\": \"a\", \"max_tokens\": -3}", "-3"),
        (&long, "the context holds 128 positions"),
        ("{\"prompt\": \"\\ud800\"}", "hex escape"),
    ];
    let good = "{\"prompt\": \"line\", \"max_tokens\": 4}";
    let text: String = bad.iter().map(|(line, _)| format!("{line}\n\n{good}\n")).collect();
    let fixture = Fixture::new(&text);
    let found = records(&succeeds(&mut fixture.batch(TINY, &["--seed", "1"])));
    assert_eq!(found.len(), 2 * bad.len());
    for ((line, says), pair) in bad.iter().zip(found.chunks(2)) {
        assert_eq!((&pair[0]["status"], &pair[1]["status"]), (&"failed".into(), &"done".into()), "{line}");
        assert!(pair[0]["error"].as_str().unwrap().contains(says), "{line}: {}", pair[0]);
    }
    assert_eq!(found[4]["id"], "5");
}

#[test]
fn a_run_that_was_cut_anywhere_goes_on() {
    let fixture = Fixture::new(&lines(12));
    let out = fixture.path("out.jsonl");
    let run = |args: &[&str]| {
        let mut command = fixture.batch(TINY, &["--out", &out]);
        command.args(args);
        command
    };
    succeeds(&mut run(&["--seed", "9"]));
    let whole = fixture.read("out.jsonl");
    assert_eq!(records(&whole).len(), 12);
    fails(&mut run(&["--seed", "9"]), 1, "--resume goes on with it, --force overwrites it");
    let second = whole.find('\n').unwrap() + 1;
    for cut in [0, 1, second - 1, second, second + 5, whole.len() - 1, whole.len()] {
        std::fs::write(&out, &whole[..cut]).unwrap();
        // The seed is that of the file.
        let seed: &[&str] = if cut == 0 { &["--seed", "9"] } else { &[] };
        succeeds(run(&["--resume", "--parallel", "2"]).args(seed));
        assert_eq!(fixture.read("out.jsonl"), whole, "cut at {cut}");
    }
    std::fs::write(&out, &whole[..second]).unwrap();
    for (args, says) in [
        (&["--seed", "8"][..], "--seed was another"),
        (&["--temp", "0.5"], "sampling was another"),
        (&["--dry-multiplier", "0.5"], "sampling was another"),
        (&["--logprobs", "2"], "--logprobs was another"),
        (&["-n", "7"], "--max-tokens was another"),
        (&["--kv", "f32"], "--kv was another"),
    ] {
        fails(run(&["--resume"]).args(args), 1, says);
        assert_eq!(fixture.read("out.jsonl"), whole[..second], "{args:?}");
    }
    std::fs::write(
        fixture.path("in.jsonl"),
        lines(12).replace("{\"prompt\": \"line 0\"", "{\"id\": 1, \"prompt\": \"\""),
    )
    .unwrap();
    fails(&mut run(&["--resume"]), 1, "has moved");
    std::fs::remove_file(fixture.path("out.jsonl.settings.json")).unwrap();
    fails(&mut run(&["--resume"]), 1, ".settings.json isn't there");
    succeeds(&mut run(&["--force"]));
    assert_eq!(records(&fixture.read("out.jsonl")).len(), 12);
}

#[test]
fn a_killed_run_loses_and_doubles_nothing() {
    let fixture = Fixture::new(&lines(300));
    let out = fixture.path("out.jsonl");
    let reference = succeeds(&mut fixture.batch(TINY, &["--seed", "4"]));
    let args = ["--out", &out, "--resume", "--seed", "4", "--parallel", "3"];
    let mut kills = 0;
    for millis in [60, 120, 250, 350, 450, 600, 800].into_iter().cycle() {
        let mut child = fixture.batch(TINY, &args).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        child.kill().unwrap();
        if child.wait().unwrap().success() || kills > 60 {
            break;
        }
        kills += 1;
    }
    succeeds(&mut fixture.batch(TINY, &args));
    assert_eq!(fixture.read("out.jsonl"), reference);
    assert!(kills > 0);
}
