//! The built command line as a person or a script meets it: what it prints, and what it says of bad input.
//! Every failure is one line on standard error and a code: 1, 2 for a wrong command line, 130 after Ctrl-C.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::model;
use crate::support::{
    TINY, assert_fails, chat_model, fails, generate, rude_model, smallmind, stderr, stdout, succeeds,
    with_input,
};

#[test]
fn without_a_file_the_built_in_model_tells_a_story() {
    let text =
        succeeds(&mut smallmind(&["generate", "-p", "Once upon a time", "-n", "12", "--temp", "0", "-q"]));
    // So begin nearly all stories that it has read.
    assert!(
        text.starts_with(", there was a ") || text.starts_with("Once upon a time, there was a "),
        "{text}"
    );
}

#[test]
fn wrong_command_lines() {
    let wrong: [(&[&str], &str); 14] = [
        (&["dance"], "unrecognized subcommand 'dance'"),
        (&["chat"], "'--model <FILE>' is needed: the built-in model only continues texts"),
        (&["generate", "--model", TINY, "--color"], "'--color'"),
        (&["generate", "--model", TINY, "-p", "x", "-n", "-1"], "'-1' for '--max-tokens <N>'"),
        (&["generate", "--model", TINY, "-p", "x", "-n", "many"], "'many'"),
        (&["generate", "--model", TINY, "-p", "x", "--threads", "0"], "from 1 to 1024 is needed"),
        (&["generate", "--model", TINY, "-p", "x", "--threads", "100000"], "from 1 to 1024 is needed"),
        (&["generate", "--model", TINY, "-p", "x", "--activations", "4"], "16, auto or 8 is needed"),
        (&["chat", "--model", TINY, "--kv", "q4_0"], "f32, f16 or q8_0 is needed"),
        (&["generate", "--model", TINY, "-p", "x", "--system", "y"], "not provided: --chat"),
        (&["bench", "--model", TINY, "--repetitions", "0"], "from 1 on is needed"),
        (
            &["bench", "--model", TINY, "-p", "-1,2"],
            "'-1' for '--prompt-tokens <N>': a whole number is needed",
        ),
        (&["bench", "--random", "-5,1,1,1,1"], "'-5,1,1,1,1' for '--random"),
        (&["bench", "--model", TINY, "--isa", "x\x1b[2J\x07"], "'x\\x1b[2J\\x07'"),
    ];
    for (args, reason) in wrong {
        fails(&mut smallmind(args), 2, reason);
    }
    let help = smallmind(&[]).output().unwrap();
    assert_eq!(help.status.code(), Some(2));
    assert!(stderr(&help).contains("Commands:"), "{}", stderr(&help));
    assert!(succeeds(&mut smallmind(&["--help"])).contains("Commands:"));
    assert!(succeeds(&mut smallmind(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn bad_values() {
    let long = "x".repeat(1025);
    let wrong: [(&[&str], i32, &str); 17] = [
        (&["--stop", "x", "--stop", ""], 2, "'--stop <TEXT>': it is empty"),
        (&["--stop", &long], 2, "it has 1025 bytes; at most 1024"),
        (&["--temp", "NaN"], 2, "'NaN' for '--temp <T>': it must be finite"),
        (&["--temp", "-1"], 2, "'-1' for '--temp <T>': it must be finite and ≥ 0"),
        (&["--temp=-1e3"], 2, "'-1e3' for '--temp <T>'"),
        (&["--temp", "-inf"], 2, "'-inf' for '--temp <T>'"),
        (&["--temp", "inf"], 2, "'inf' for '--temp <T>'"),
        (&["--top-p", "0"], 2, "'0' for '--top-p <P>': it must be above 0 and at most 1"),
        (&["--top-p", "much"], 2, "'much' for '--top-p <P>': a number is needed"),
        (&["--min-p", "-0.5"], 2, "'-0.5' for '--min-p <P>': it must be within 0 and 1"),
        (&["--repeat-penalty", "0"], 2, "'0' for '--repeat-penalty <R>'"),
        (&["--rope-base", "-1"], 2, "'-1' for '--rope-base <X>': expected a finite number"),
        (&["--seed", "-7"], 2, "'-7' for '--seed <N>'"),
        (&["--top-k", "-2"], 2, "'-2' for '--top-k <K>': a whole number is needed"),
        (&["--ctx", "18446744073709551615"], 2, "'18446744073709551615' for '--ctx <N>': a context of this"),
        (&["--ctx", "3"], 1, "the context holds 3 positions"),
        (&["--chat"], 1, "chat template"),
    ];
    for (args, code, reason) in wrong {
        fails(generate(TINY, &["-p", "hello there"]).args(args), code, reason);
    }
    fails(
        generate(TINY, &["-p", "x"]).args(["--stop", "x"].repeat(65)),
        2,
        "'--stop <TEXT>' 65 times; at most",
    );
    // Told before a long load.
    fails(&mut smallmind(&["chat", "-m", "missing.gguf", "--top-p", "2"]), 2, "'2' for '--top-p <P>'");
    fails(&mut generate(TINY, &["-p", &"long ".repeat(100)]), 1, "the context holds 128 positions");
    for level in ["sse9", "", "AVX2"] {
        let mut command = generate(TINY, &["-p", "x", "-n", "1"]);
        command.env("SMALLMIND_ISA", level);
        match level {
            "" => drop(succeeds(&mut command)),
            _ => fails(&mut command, 1, "available: scalar"),
        }
    }
}

#[test]
fn bad_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let whole = std::fs::read(TINY).unwrap();
    let bad = [
        (folder.path().join("missing.gguf"), "No such file"),
        (folder.path().to_owned(), "not a regular file"),
        (file("empty.gguf", b""), "not a GGUF file"),
        (file("text.gguf", b"once upon a time there was"), "not a GGUF file"),
        (file("header.gguf", &whole[..500]), "bad file"),
        (file("tensors.gguf", &whole[..whole.len() - 1000]), "bad file"),
    ];
    for (path, reason) in &bad {
        let path = path.to_str().unwrap();
        for flags in [&["-p", "x"][..], &["-p", "x", "--mmap"]] {
            fails(&mut generate(path, flags), 1, reason);
        }
        fails(&mut smallmind(&["info", path]), 1, reason);
        fails(&mut smallmind(&["chat", "-m", path]), 1, reason);
        fails(&mut smallmind(&["bench", "-m", path]), 1, reason);
    }
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/gguf/metadata.gguf");
    fails(&mut generate(other, &["-p", "x"]), 1, "smallmind: ");
}

#[test]
fn prompts_from_standard_input() {
    let same = ["-n", "12", "--temp", "0"];
    let typed = succeeds(generate(TINY, &["-p", "hello"]).args(same));
    assert!(!typed.trim().is_empty());
    assert_eq!(typed, stdout(&with_input(generate(TINY, &same), b"hello")));
    let output = with_input(generate(TINY, &same), b"hello \xff\xfe");
    assert_fails("invalid UTF-8", &output, 1, "standard input is not UTF-8");
    let output = with_input(generate(TINY, &same), &vec![b'a'; (16 << 20) + 5]);
    assert_fails("17 MB", &output, 1, "the tokenizer takes");
    let output = with_input(smallmind(&["chat", "-m", &chat_model()]), b"\xff\n");
    assert_fails("invalid UTF-8", &output, 1, "standard input");
}

/// The text of a control token is only text: nobody typed the token.
#[test]
fn a_prompt_is_text() {
    let prompt = |text| {
        let output = generate(TINY, &["-n", "1", "-p", text]).output().unwrap();
        let remark = stderr(&output).lines().find(|line| line.starts_with("[prefill")).unwrap().to_owned();
        remark.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let (letter, token) = (prompt("a"), prompt("<|im_end|>a"));
    assert!(token > letter + 3, "{token} tokens where one letter is {letter}");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let run = |seed: &str, more: &[&str]| {
        succeeds(generate(TINY, &["-p", "x", "-n", "40", "--seed", seed]).args(more))
    };
    let text = run("5", &[]);
    assert_eq!(text, run("5", &["--mmap"]));
    assert_eq!(text, run("5", &["--threads", "1", "--quiet"]));
    assert_ne!(text, run("6", &[]));
}

#[test]
fn a_stop_string_ends_the_text_and_is_left_out() {
    let args = ["-p", "hello", "-n", "40", "--temp", "0"];
    let run = |stops: &[&str]| {
        let output = generate(TINY, &args).args(stops).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output).strip_suffix('\n').unwrap().to_owned(), stderr(&output).contains("· stop string]"))
    };
    let (whole, stopped) = run(&[]);
    assert!(!stopped && whole.chars().count() > 20, "{whole}");
    // Every place of the text, in stop strings of three characters: several tokens, or parts of some.
    let begins: Vec<_> = whole.char_indices().map(|(at, _)| at).collect();
    for at in [1, 7, 13] {
        let stop = &whole[begins[at]..begins[at + 3]];
        let (expected, _) = whole.split_once(stop).unwrap();
        assert_eq!(run(&["--stop", stop]), (expected.to_owned(), true), "{stop:?} in {whole:?}");
        assert_eq!(run(&["--stop", "-- never", "--stop", stop]), (expected.to_owned(), true));
    }
    // What might have begun a stop string comes at the end.
    let last = whole.chars().last().unwrap();
    assert_eq!(run(&["--stop", &format!("{last}{}", "-- never")]), (whole, false));
}

#[test]
fn quiet_is_quiet_and_a_profile_is_a_table() {
    let quiet = generate(TINY, &["-p", "x", "-n", "3", "-q"]).output().unwrap();
    assert_eq!(stderr(&quiet), "");
    let profiled = generate(TINY, &["-p", "x", "-n", "3", "--profile"]).output().unwrap();
    for zone in ["load", "tokenize", "prefill", "decode", "attention", "sample", "GFLOPS"] {
        assert!(stderr(&profiled).contains(zone), "no {zone} in {}", stderr(&profiled));
    }
}

#[test]
fn info_kernels_and_bench_print_tables() {
    let info = succeeds(&mut smallmind(&["info", TINY, "--tensors", "--metadata"]));
    for fact in ["llama", "128 positions", "288 tokens", "token_embd.weight", "llama.block_count = 2"] {
        assert!(info.contains(fact), "no {fact} in {info}");
    }
    let kernels = succeeds(&mut smallmind(&["kernels"]));
    assert!(kernels.contains("scalar") && kernels.contains("matmul"), "{kernels}");
    let bench = ["bench", "-m", TINY, "-p", "8", "-n", "4", "-d", "8", "-r", "1", "-t", "1,2"];
    let table = succeeds(smallmind(&bench).args(["--activations", "8"]));
    assert!(table.contains("8-bit activations"), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("tg4@d8")).count(), 2, "{table}");
    let json = succeeds(smallmind(&bench).arg("--json"));
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 6, "pp, tg and the first token, on one and two threads");
    assert_eq!((&rows[0]["activation_bits"], &rows[0]["kv"]), (&16.into(), &"f16".into()));
    let table = succeeds(smallmind(&bench).args(["--kv", "q8_0"]));
    assert!(table.contains("q8_0 cache"), "{table}");
    assert!(rows[0]["weights"].as_str().unwrap().contains("Q8_0"), "{rows}");
    for row in rows.as_array().unwrap() {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("min") > 0.0 && number("min") <= number("tokens_per_second"), "{row}");
        assert!(number("max") >= number("tokens_per_second") && number("load_seconds") > 0.0, "{row}");
    }
    let lists = ["bench", "-m", TINY, "-p", "4,8", "-n", "0", "-f", "0", "-d", "0,5", "-r", "2", "-t", "1"];
    let table = succeeds(&mut smallmind(&lists));
    let tests: Vec<_> = table.lines().skip(3).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(tests, ["pp4", "pp8", "pp4@d5", "pp8@d5"], "{table}");
}

#[test]
fn info_prints_graphs_and_plans_alone() {
    let graph = succeeds(&mut smallmind(&["info", TINY, "--graph"]));
    let lines: Vec<_> = graph.lines().collect();
    assert_eq!(lines[0], "graph of llama: 2 layers, 36 nodes, 21 tensors");
    assert!(
        graph.contains("\nlayer 0: 16 nodes\n") && graph.contains("attn_k.weight [64 → 32, F16]"),
        "{graph}"
    );
    assert!(graph.contains("\nlayer 1: as layer 0, %17 to %32\n  but in 1: attn_q.weight Q8_0, "), "{graph}");

    let plan = |more: &[&str]| succeeds(smallmind(&["info", TINY, "--plan"]).args(more));
    let committed = |name: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/plans/");
        std::fs::read_to_string(format!("{folder}{name}.txt")).unwrap()
    };
    assert_eq!(plan(&[]), committed("untied-mixed"));
    assert_eq!(plan(&["--activations", "16"]), plan(&[]));
    assert_eq!(plan(&["--activations", "8"]), committed("untied-mixed-8bit"));
    assert!(plan(&["--activations", "auto"]).starts_with("plan of llama with 16- or 8-bit activations: "));
    assert_eq!(plan(&["--graph"]), format!("{graph}\n{}", plan(&[])), "both, an empty line between");

    fails(&mut smallmind(&["info", TINY, "--activations", "8"]), 2, "not provided: --plan");
    fails(&mut smallmind(&["info", TINY, "--plan", "--activations", "4"]), 2, "16, auto or 8 is needed");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/gguf/metadata.gguf");
    for flag in ["--graph", "--plan"] {
        fails(&mut smallmind(&["info", other, flag]), 1, "architecture \"test\"");
        fails(&mut smallmind(&["info", "/no/such/file", flag]), 1, "No such file");
    }
}

/// Names and texts of a file don't command the terminal.
#[test]
fn info_escapes_control_characters() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rude_model()).unwrap();
    let path = file.path().to_str().unwrap();
    let listed = succeeds(&mut smallmind(&["info", path, "--tensors", "--metadata"]));
    assert_eq!(listed.matches("rude").count(), 6, "{listed}");
    for text in [listed, succeeds(&mut smallmind(&["info", path, "--graph", "--plan"]))] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

#[test]
fn random_models_are_written_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    let file = path.to_str().unwrap();
    let create = |args: &[&str]| {
        let mut command = smallmind(&["create", "-o", file]);
        command.args(args);
        command
    };
    let said = succeeds(&mut create(&["--random", "small", "--seed", "7"]));
    assert!(said.contains("470528 parameters"), "{said}");
    let first = std::fs::read(&path).unwrap();
    fails(&mut create(&["--random", "small"]), 1, "is there already (--force overwrites it)");
    assert!(std::fs::read(&path).unwrap() == first);
    succeeds(&mut create(&["--random", "medium", "--force"]));
    assert!(std::fs::metadata(&path).unwrap().len() > 4 * 3_454_464);
    // The smaller one is whole again: nothing of the larger stays behind it.
    succeeds(&mut create(&["--random", "256,64,128,2,4", "--force", "--seed", "7"]));
    assert!(std::fs::read(&path).unwrap() == first);
    succeeds(&mut create(&["--random", "small", "--force"]));
    assert!(std::fs::read(&path).unwrap() != first, "another seed is another model");

    let info = succeeds(&mut smallmind(&["info", file, "--tensors"]));
    for fact in ["gpt2", "0.5 M in 29 tensors", "64 positions", "blk.1.attn_qkv.weight"] {
        assert!(info.contains(fact), "no {fact} in {info}");
    }
    fails(&mut smallmind(&["generate", "-m", file, "-p", "x"]), 1, "the file has no vocabulary");

    for (shape, reason) in [
        ("large", "expected small, medium or VOCAB,CONTEXT,DIM,LAYERS,HEADS"),
        ("256,64,128,2", "expected small"),
        ("256,64,128,2,3", "no multiple of 3 heads"),
        ("256,64,0,2,4", "dim is 0"),
        ("256,64,65536,2,64", "parameters"),
    ] {
        fails(&mut create(&["--random", shape]), 2, reason);
        fails(&mut smallmind(&["bench", "--random", shape]), 2, reason);
    }
    fails(&mut smallmind(&["create", "--random", "small"]), 2, "not provided: --output <FILE>");
    fails(&mut smallmind(&["create", "--random", "small", "-o", "/no/such/folder/x"]), 1, "No such file");
    fails(&mut smallmind(&["bench"]), 2, "not provided: --model <FILE>");
    fails(&mut smallmind(&["bench", "-m", TINY, "--random", "small"]), 2, "cannot be used with");

    // As long as the model's positions reach, where nothing is said; an error, where too much is.
    let table = succeeds(&mut smallmind(&["bench", "--random", "small", "-r", "1", "-t", "1"]));
    let tests: Vec<_> = table.lines().skip(3).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(tests, ["pp64", "tg64", "ft16"], "{table}");
    let long = ["bench", "--random", "small", "-r", "1", "-p", "65"];
    fails(&mut smallmind(&long), 2, "'65' for '--prompt-tokens <N>': the model has 64 positions");
    let deep = ["bench", "--random", "small", "-r", "1", "-d", "60", "-n", "5"];
    fails(
        &mut smallmind(&deep),
        2,
        "'5' for '--decode-tokens <N>': the model has 64 positions, too few for 5 behind 60",
    );
    fails(&mut smallmind(&["bench", "--random", "small", "-d", "65"]), 2, "'65' for '--depth <N>'");
}

#[cfg(target_os = "linux")]
#[test]
fn outputs_that_cannot_be_written() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for args in [&["info", TINY][..], &["kernels"], &["generate", "-m", TINY, "-p", "x", "-n", "9"]] {
        let output = smallmind(args).stdout(full()).output().unwrap();
        assert_fails(&format!("{args:?}"), &output, 1, "standard output: No space left");
        // Remarks that can't be written don't matter.
        let output = smallmind(args).stderr(full()).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
        // Nor does a reader who has gone.
        let mut child = smallmind(args).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    let output = smallmind(&["dance"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_cannot_be_had() {
    // 16 million positions of a cache are more than the limit for the address space.
    let command = format!(
        "ulimit -v 4000000 && exec '{}' generate -m '{TINY}' -p x -t 2 --ctx 16777216",
        env!("CARGO_BIN_EXE_smallmind")
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_fails("--ctx 16777216", &output, 1, "out of memory: could not reserve");
    assert!(stderr(&output).contains("a smaller --ctx takes less"), "{}", stderr(&output));
}

fn smollm2() -> String {
    model::smollm2().into_os_string().into_string().unwrap()
}

#[test]
fn a_real_model_writes_the_same_text_on_any_number_of_threads() {
    let model = smollm2();
    let run = |threads| {
        let args = ["-p", "Once upon a time", "-n", "24", "--seed", "7", "-t", threads];
        succeeds(&mut generate(&model, &args))
    };
    let text = run("1");
    assert!(text.len() > 40, "{text}");
    assert_eq!(text, run("2"));
    assert_eq!(text, run("3"));
}

/// An emoji takes several tokens, and what is read from the pipe at any moment is whole characters.
#[test]
fn characters_are_written_whole() {
    let prompt = "🙂🌍🚀🎉🙂🌍🚀🎉🙂🌍🚀";
    let mut child = generate(&smollm2(), &["-p", prompt, "-n", "16", "--temp", "0", "-q"]).spawn().unwrap();
    let mut pipe = child.stdout.take().unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = pipe.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("whole characters"));
    }
    assert!(child.wait().unwrap().success());
    assert!(text.chars().any(|c| c.len_utf8() == 4), "no emoji to prove anything in {text}");
    // Only where the last token allowed left a character unfinished.
    assert!(!text.trim_end().trim_end_matches('\u{fffd}').contains('\u{fffd}'), "{text}");
}

#[test]
fn a_stop_string_ends_a_reply_and_the_chat_goes_on() {
    let chat = || smallmind(&["chat", "-m", &smollm2(), "--temp", "0", "-n", "24"]);
    let said = b"What is the capital of France?\nAnd of Italy?\n";
    let whole = with_input(chat(), said);
    let (before, _) = stdout(&whole).split_once("Paris").expect("the capital of France");
    let mut stopping = chat();
    stopping.args(["--stop", "Paris", "--stop", "Rome"]);
    let stopped = with_input(stopping, said);
    assert!(stopped.status.success(), "{}", stderr(&stopped));
    assert!(stdout(&stopped).starts_with(&format!("{before}\n")), "{}", stdout(&stopped));
    assert!(!stdout(&stopped).contains("Paris"));
    assert_eq!(prefills(stderr(&stopped)).len(), 2, "{}", stderr(&stopped));
}

/// Tokens of each prefill, as the summaries say.
fn prefills(stderr: &str) -> Vec<usize> {
    let summaries = stderr.lines().filter_map(|line| line.strip_prefix("[prefill "));
    summaries.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_chat_keeps_what_was_said_and_does_not_compute_it_again() {
    let chat = smallmind(&["chat", "-m", &smollm2(), "--temp", "0", "-n", "16"]);
    let output =
        with_input(chat, b"My name is Ada.\nWhat is my name?\n\n/clear\nWhat is my name?\n/quit\nx\n");
    assert!(output.status.success(), "{}", stderr(&output));
    let replies: Vec<_> = stdout(&output).lines().filter(|line| !line.is_empty()).collect();
    let counts = prefills(stderr(&output));
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(
        counts[1] < counts[0] && counts[1] < counts[2],
        "a second turn is only its own tokens: {counts:?}"
    );
    assert!(replies.len() >= 3 && replies.last() != replies.get(1), "/clear forgets: {replies:?}");
    // No prompt for a person where there is none.
    assert!(!stdout(&output).contains("> ") && !stderr(&output).contains("> "));
}

#[cfg(unix)]
mod interrupted {
    use super::*;

    fn press_ctrl_c(child: &Child) {
        // SAFETY: kill only sends a signal, to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    }

    /// Reads until `text` has been seen.
    fn read_until(pipe: &mut impl Read, text: &str) {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.windows(text.len()).any(|window| window == text.as_bytes()) {
            assert_eq!(pipe.read(&mut byte).unwrap(), 1, "ended after {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
    }

    #[test]
    fn while_it_writes() {
        let mut child = generate(&smollm2(), &["-p", "Once", "-n", "8000", "--top-k", "0"]).spawn().unwrap();
        let mut first = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        press_ctrl_c(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(stderr(&output).contains("stopped"), "{}", stderr(&output));
        assert!(output.stdout.ends_with(b"\n"));
    }

    #[test]
    fn while_it_reads_a_long_prompt() {
        let long = "It was a dark and stormy night. ".repeat(600);
        let mut child = generate(&smollm2(), &["-p", &long, "--ctx", "0"]).spawn().unwrap();
        read_until(child.stderr.as_mut().unwrap(), "activations]\n");
        // The handler takes a first one as a request once the prompt is being read, and before that ends
        // the program at once: both are clean.
        press_ctrl_c(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert!(prefills(stderr(&output)).iter().all(|&n| n < 4800), "{}", stderr(&output));
        assert_eq!(stdout(&output).trim(), "");
    }

    #[test]
    fn a_chat_goes_on_after_a_reply_was_stopped() {
        let mut child =
            smallmind(&["chat", "-m", &smollm2(), "-n", "2000"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"Write a long story about a footman.\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        press_ctrl_c(&child);
        read_until(child.stderr.as_mut().unwrap(), "stopped]\n");
        input.write_all(b"/clear\nHello.\n/quit\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(prefills(stderr(&output)).len(), 1);
    }
}
