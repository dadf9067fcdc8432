//! Options of sampling and of constrained text: what they refuse, and that texts are as they ask for.

use crate::support::{TINY, fails, generate, stderr, succeeds};

#[test]
fn bad_values_of_sampling() {
    let wrong: [(&[&str], i32, &str); 16] = [
        (&["--typical", "0"], 2, "'0' for '--typical <P>': it must be above 0 and at most 1"),
        (&["--top-n-sigma", "nan"], 2, "'nan' for '--top-n-sigma <N>': it must be finite"),
        (&["--xtc-probability", "2"], 2, "'2' for '--xtc-probability <P>': it must be within 0 and 1"),
        (&["--dynatemp-range", "-1"], 2, "'-1' for '--dynatemp-range <T>': it must be finite and ≥ 0"),
        (&["--dynatemp-exp", "inf"], 2, "'inf' for '--dynatemp-exp <X>'"),
        (&["--dry-base", "0.5"], 2, "'0.5' for '--dry-base <X>': it must be finite and ≥ 1"),
        (&["--repeat-last-n", "-1"], 2, "from 0 to 1048576 is needed"),
        (&["--logprobs", "101"], 2, "'101' for '--logprobs <N>': a whole number from 0 to 100 is needed"),
        (&["--mirostat", "1"], 2, "0 or 2 is needed"),
        (&["--logit-bias", "5"], 2, "a token and a number with its sign are needed"),
        (&["--logit-bias", "5+inf"], 2, "a token and a number with its sign are needed"),
        (&["--logit-bias", "5000000+1"], 1, "a logit bias for token 5000000"),
        (&["--samplers", "top_k;top-p"], 2, "one of logit_bias, mask, penalties"),
        (&["--samplers", "top_k;top_k"], 2, "top_k is in the order of stages twice"),
        (&["--samplers", "top_k", "--logit-bias", "5+1"], 2, "no place for logit_bias"),
        (&["--dry-multiplier", "1", "--dry-sequence-breaker", ""], 1, "a breaker of 0 bytes"),
    ];
    for (args, code, reason) in wrong {
        fails(generate(TINY, &["-p", "hello there"]).args(args), code, reason);
    }
}

#[test]
fn options_change_the_text() {
    let text = |args: &[&str]| {
        let mut command = generate(TINY, &["-p", "hello there", "-q", "-n", "24", "--seed", "5"]);
        succeeds(command.args(args))
    };
    let plain = text(&[]);
    assert_eq!(
        text(&["--samplers", "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"]),
        plain
    );
    let changed: [&[&str]; 9] = [
        &["--typical", "0.2"],
        &["--top-n-sigma", "1"],
        &["--xtc-probability", "1", "--xtc-threshold", "0.01"],
        &["--dynatemp-range", "0.8"],
        &["--presence-penalty", "5"],
        &["--frequency-penalty", "5"],
        &["--dry-multiplier", "9", "--dry-allowed-length", "0"],
        &["--mirostat", "2", "--mirostat-ent", "2"],
        &["--samplers", "temperature"],
    ];
    for args in changed {
        assert_ne!(text(args), plain, "{args:?}");
    }
    // A token that is all but forced.
    assert!(text(&["--logit-bias", "68+100"]).starts_with("AAA"));
}

#[test]
fn a_full_context_shifts_where_it_is_asked_to() {
    let long = [
        "-p",
        "hello there",
        "--ctx",
        "32",
        "-n",
        "100",
        "--seed",
        "5",
        "-l",
        "0-inf",
        "-l",
        "1-inf",
        "-l",
        "2-inf",
    ];
    let run = |args: &[&str]| {
        let output = generate(TINY, &long).args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (output.stdout.clone(), stderr(&output).to_owned())
    };
    let (ended, why) = run(&[]);
    assert!(why.contains("context full"), "{why}");
    let (shifted, why) = run(&["--context-shift"]);
    assert!(why.contains("token limit") && why.contains("decode 100 tokens"), "{why}");
    // Up to where the context was full, it is the same text.
    assert!(shifted.len() > ended.len() && shifted.starts_with(ended.trim_ascii_end()));
    let (kept, _) = run(&["--context-shift", "--keep", "12"]);
    assert!(kept != shifted && kept.starts_with(ended.trim_ascii_end()));
    let wrong: [(&[&str], i32, &str); 3] = [
        (&["--context-shift", "--kv", "q8_0"], 1, "keys are stored in q8_0"),
        (&["--context-shift", "--keep", "31"], 1, "a context of 32; it must have room for two more"),
        (&["--keep", "3"], 2, "--context-shift"),
    ];
    for (args, code, reason) in wrong {
        fails(generate(TINY, &long).args(args), code, reason);
    }
}

#[cfg(feature = "grammar")]
#[test]
fn texts_are_as_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // Between the parts of an object, random weights may write spaces for ever.
    let schema = file("schema.json", "{\"enum\": [\"yes\", \"no\"]}");
    let lark = file("grammar.lark", "start: \"a\" (\"b\" | \"c\") \"d\"\n");
    let text = |args: &[&str]| {
        succeeds(generate(TINY, &["-p", "hello there", "-q", "--seed", "3"]).args(args)).trim_end().to_owned()
    };
    let json: serde_json::Value = serde_json::from_str(&text(&["--json-schema", &schema])).unwrap();
    assert!(json == "yes" || json == "no", "{json}");
    assert!(["abd", "acd"].contains(&text(&["--grammar", &lark]).as_str()));
    assert_eq!(text(&["--regex", "[xyz]{5}"]).chars().filter(|char| "xyz".contains(*char)).count(), 5);
    let summary = generate(TINY, &["-p", "hello", "--regex", "ab"]).output().unwrap();
    assert!(stderr(&summary).contains("end of text"), "{}", stderr(&summary));

    let broken = file("broken.json", "{\"type\": 7");
    let wrong: [(&[&str], i32, &str); 5] = [
        (&["--json-schema", &broken], 1, "the JSON schema: "),
        (&["--regex", "("], 1, "the regular expression: "),
        (&["--json-schema", "no-such-file"], 1, "no-such-file"),
        (&["--regex", "a", "--grammar", &lark], 2, "cannot be used with"),
        (&["--regex", "a", "--samplers", "top_k"], 2, "has no place for mask"),
    ];
    for (args, code, reason) in wrong {
        fails(generate(TINY, &["-p", "hello there"]).args(args), code, reason);
    }
}
