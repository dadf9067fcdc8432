//! Training by the command line: a model that memorises a sentence, runs that are broken and go on, and bad input.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;

use crate::support::{TINY, chat_model, fails, generate, smallmind, stderr, succeeds};

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog, and a small mind learns it by heart.";

/// A folder with a text.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(text: &str) -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        std::fs::write(desk.path("text.txt"), text).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trains the tiny model to `out`; of an option that is there several times the last holds.
    fn train(&self, out: &str, args: &[&[&str]]) -> Command {
        let defaults = ["--model", TINY, "--batch", "2", "--threads", "2"];
        let args = [&defaults[..], &args.concat()].concat();
        let mut options: Vec<&[&str]> = Vec::new();
        for option in args.chunk_by(|_, next| !next.starts_with("--")) {
            options.retain(|known| known[0] != option[0]);
            options.push(option);
        }
        let mut command = smallmind(&["train"]);
        command.arg(self.path("text.txt")).args(options.concat()).arg("--out").arg(self.path(out));
        command
    }

    fn names(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Checks that two models, their states and their losses are the same.
    fn assert_same(&self, one: &str, other: &str) {
        for ending in ["", ".state", ".losses.jsonl", ".svg"] {
            let read = |name: &str| std::fs::read(self.path(&format!("{name}{ending}"))).unwrap();
            assert!(read(one) == read(other), "{one}{ending} differs from {other}{ending}");
        }
    }
}

/// Some sentences, none of them like another.
fn text() -> String {
    let line =
        |i: usize| format!("{i} times {} is {}, says the mouse number {}.\n", i + 3, i * (i + 3), i * 7 % 13);
    (0..60).map(line).collect()
}

const FEW: [&str; 6] = ["--context", "32", "--evaluate-every", "3", "--save-every", "4"];

#[test]
fn a_model_memorises_a_sentence() {
    let desk = Desk::new(SENTENCE);
    // All of its 67 tokens.
    let args = [
        "--context",
        "66",
        "--batch",
        "1",
        "--validation",
        "0",
        "--steps",
        "100",
        "--lr",
        "0.01",
        "--weight-decay",
        "0",
    ];
    let output = desk.train("out.gguf", &[&args]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(" of memory: weights "), "{}", stderr(&output));
    let (beginning, rest) = SENTENCE.split_at(12);
    let model = desk.path("out.gguf");
    let written =
        succeeds(&mut generate(model.to_str().unwrap(), &["-p", beginning, "-n", "50", "-q", "--temp", "0"]));
    assert!(written.len() > 40 && rest.starts_with(written.trim_end()), "{written}");
    assert_eq!(
        desk.names(),
        ["out.gguf", "out.gguf.losses.jsonl", "out.gguf.state", "out.gguf.svg", "text.txt"]
    );
}

/// At a checkpoint between two validations, in the second epoch, and with another number of threads.
#[test]
fn a_run_that_goes_on_makes_the_same_bytes_as_an_unbroken_one() {
    let desk = Desk::new(&text());
    let args = [&FEW[..], &["--schedule", "constant", "--warm-up", "3", "--dropout", "0.1"]].concat();
    let run = |out: &str, more: &[&str]| succeeds(&mut desk.train(out, &[&args, more]));
    run("whole.gguf", &["--steps", "40"]);
    run("broken.gguf", &["--steps", "20"]);
    assert!(
        run("broken.gguf", &["--steps", "40", "--resume", "--threads", "3"]).contains(": step 40, loss ")
    );
    // The validation of the former last step.
    let losses = desk.path("broken.gguf.losses.jsonl");
    let lines = std::fs::read_to_string(&losses).unwrap();
    let more = |line: &&str| !(line.contains("validation") && line.contains("\"step\":20,"));
    let lines: String = lines.lines().filter(more).map(|line| format!("{line}\n")).collect();
    let whole = std::fs::read_to_string(desk.path("whole.gguf.losses.jsonl")).unwrap();
    assert_eq!(lines, whole);
    for ending in ["", ".state"] {
        let read = |name: &str| std::fs::read(desk.path(&format!("{name}{ending}"))).unwrap();
        assert!(read("whole.gguf") == read("broken.gguf"), "{ending}");
    }
    // Other data, another order.
    run("other.gguf", &["--steps", "3", "--seed", "7"]);
    let read = |name: &str| std::fs::read(desk.path(name)).unwrap();
    assert!(read("whole.gguf") != read("other.gguf"));
}

/// The losses fall, and are written as lines and as a picture.
#[test]
fn losses_are_written_and_fall() {
    let desk = Desk::new(&text());
    let curve = desk.path("curve.svg");
    let more = ["--epochs", "2", "--lr", "0.003", "--curve", curve.to_str().unwrap()];
    let said = succeeds(&mut desk.train("out.gguf", &[&FEW, &more]));
    assert!(said.contains(", validation loss ") && said.contains(" (perplexity "), "{said}");
    let lines = std::fs::read_to_string(desk.path("out.gguf.losses.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| lines.iter().filter_map(|line| line[key].as_f64()).collect::<Vec<_>>();
    let (training, validation) = (of("loss"), of("validation_loss"));
    assert!(
        training.len() > 20
            && validation.len() == training.len() / 3 + 1 + usize::from(training.len() % 3 > 0)
    );
    assert!(training[training.len() - 1] < training[0] - 0.5, "{training:?}");
    assert!(validation[validation.len() - 1] < validation[0] - 0.5, "{validation:?}");
    let svg = std::fs::read_to_string(curve).unwrap();
    assert_eq!(svg.matches("<polyline").count(), 2);
    assert!(!desk.path("out.gguf.svg").exists());
    // Nothing is replaced unless it is asked for.
    fails(&mut desk.train("out.gguf", &[&FEW]), 1, "out.gguf is there already (--force overwrites it)");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_leaves_a_checkpoint_that_goes_on() {
    let desk = Desk::new(&text());
    let args = [
        "--context",
        "32",
        "--evaluate-every",
        "2",
        "--save-every",
        "1000000",
        "--schedule",
        "constant",
        "--warm-up",
        "0",
    ];
    let mut child = desk.train("broken.gguf", &[&args, &["--steps", "1000000"]]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.starts_with("[step 4:")).expect("a validation");
    // SAFETY: kill only sends a signal, to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let stopped =
        said.find_map(|line| line.strip_prefix("[stopped at step ").map(str::to_owned)).expect("a stop");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let step: usize = stopped.split(';').next().unwrap().parse().unwrap();
    let steps = (step / 2 * 2 + 4).to_string();
    succeeds(&mut desk.train("broken.gguf", &[&args, &["--steps", &steps, "--resume"]]));
    succeeds(&mut desk.train("whole.gguf", &[&args, &["--steps", &steps]]));
    desk.assert_same("whole.gguf", "broken.gguf");
}

/// Weights that soon leave the range of numbers.
#[test]
fn a_loss_that_is_no_number_keeps_the_last_checkpoint() {
    let desk = Desk::new(&text());
    let args = ["--context", "32", "--schedule", "constant", "--warm-up", "0"];
    succeeds(&mut desk.train("out.gguf", &[&args, &["--steps", "2"]]));
    let before = std::fs::read(desk.path("out.gguf.state")).unwrap();
    let more = ["--steps", "50", "--resume", "--lr", "1e38", "--save-every", "49", "--evaluate-every", "49"];
    let output = desk.train("out.gguf", &[&args, &more]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the first tensor at fault is ") && said.contains("smallmind: step "), "{said}");
    assert!(said.contains("out.gguf.state keeps the state of step 2"), "{said}");
    assert!(std::fs::read(desk.path("out.gguf.state")).unwrap() == before);
}

#[test]
fn texts_that_cannot_be_trained_on_are_refused() {
    let desk = Desk::new("ten bytes.");
    let refuses =
        |args: &[&str], code, reason: &str| fails(&mut desk.train("out.gguf", &[args]), code, reason);
    refuses(&["--context", "64"], 1, "a sequence of 64 and its last target need 65");
    refuses(&[], 1, "a smaller --context or more text helps");
    std::fs::write(desk.path("text.txt"), text()).unwrap();
    refuses(&["--context", "0"], 2, "'0' for '--context <N>'");
    refuses(&["--batch", "4294967296"], 2, "a step takes at most");
    refuses(&["--batch", "5000000", "--context", "1"], 1, "a micro-batch of 5000000 sequences");
    std::fs::write(desk.path("text.txt"), "").unwrap();
    refuses(&[], 1, "text.txt: the text is empty");
    std::fs::write(desk.path("text.txt"), [0xff, 0xfe]).unwrap();
    refuses(&[], 1, "text.txt: not UTF-8");
    std::fs::remove_file(desk.path("text.txt")).unwrap();
    refuses(&[], 1, "text.txt");
    // Nothing was written.
    assert_eq!(desk.names(), [""; 0]);
}

#[test]
fn wrong_options_are_named() {
    let desk = Desk::new(&text());
    let refuses =
        |args: &[&str], code, reason: &str| fails(&mut desk.train("out.gguf", &[args]), code, reason);
    refuses(&["--schedule", "cosin"], 2, "'cosin' for '--schedule <NAME>'");
    refuses(&["--schedule", "cosin"], 2, "; a similar value exists: 'cosine'");
    refuses(&["--lr", "-1"], 2, "'-1' for '--lr <X>'");
    refuses(&["--lr", "nan"], 2, "'nan' for '--lr <X>'");
    refuses(&["--validation", "1"], 2, "'1' for '--validation <X>'");
    refuses(&["--epochs", "0"], 2, "'0' for '--epochs <X>'");
    refuses(&["--steps", "3", "--epochs", "1"], 2, "cannot be used with");
    refuses(&["--resume"], 1, "out.gguf.state");
    let out = desk.path("out.gguf.state");
    refuses(&["--curve", out.to_str().unwrap()], 2, "it is another file's path");
    fails(&mut desk.train("none/out.gguf", &[&FEW]), 1, "none/out.gguf");
    fails(&mut desk.train(".", &[&FEW]), 1, "is a folder");
    assert_eq!(desk.names(), ["text.txt"]);
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let desk = Desk::new(&text());
    let args = [&FEW[..], &["--steps", "2"]].concat();
    succeeds(&mut desk.train("out.gguf", &[&args]));
    let go_on = |more: &[&str], reason: &str| {
        fails(&mut desk.train("out.gguf", &[&args, &["--resume"], more]), 1, reason)
    };
    go_on(&["--seed", "1"], "out.gguf.state: it was trained with --seed 42, not 1");
    go_on(&["--batch", "4"], "it was trained with --batch 2, not 4");
    go_on(&["--context", "16"], "it was trained with --context 32, not 16");
    go_on(&["--validation", "0.5"], "it was trained with --validation 0.05, not 0.5");
    let other = chat_model();
    go_on(&["--model", &other], "out.gguf.state: a state of another model");
    std::fs::write(desk.path("text.txt"), text().replace("mouse", "house")).unwrap();
    go_on(&[], "out.gguf.state: a state of another text");
    std::fs::write(desk.path("text.txt"), text()).unwrap();
    let losses = desk.path("out.gguf.losses.jsonl");
    let lines = std::fs::read(&losses).unwrap();
    std::fs::write(&losses, "rubbish").unwrap();
    go_on(&[], "out.gguf.losses.jsonl: line 1 has no loss");
    std::fs::write(&losses, lines).unwrap();
    let state = desk.path("out.gguf.state");
    let whole = std::fs::read(&state).unwrap();
    for end in [0, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&state, &whole[..end]).unwrap();
        go_on(&[], "out.gguf.state");
    }
    std::fs::copy(desk.path("out.gguf"), &state).unwrap();
    go_on(&[], "out.gguf.state: it is no state of a training");
    std::fs::write(&state, whole).unwrap();
    succeeds(&mut desk.train("out.gguf", &[&args, &["--resume"]]));
}

/// Both families, whose vocabularies and weights follow from text and seed.
#[test]
fn new_models_learn_and_go_on() {
    let desk = Desk::new(&text());
    let shape = ["--layers", "1", "--dim", "32", "--heads", "2", "--vocabulary", "280", "--context", "16"];
    for family in ["gpt2", "llama"] {
        let command = |out: &str, more: &[&str]| {
            let mut command = smallmind(&["train", "--new", family, "--lr", "0.01", "--batch", "4"]);
            command.arg(desk.path("text.txt")).args(shape).args(["--schedule", "constant", "--warm-up", "0"]);
            succeeds(command.args(["--evaluate-every", "4", "--out"]).arg(desk.path(out)).args(more))
        };
        let (whole, broken) = (format!("{family}.gguf"), format!("{family}-broken.gguf"));
        command(&whole, &["--steps", "20"]);
        command(&broken, &["--steps", "12"]);
        command(&broken, &["--steps", "20", "--resume"]);
        desk.assert_same(&whole, &broken);
        let lines = std::fs::read_to_string(desk.path(&format!("{whole}.losses.jsonl"))).unwrap();
        let loss =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["validation_loss"].as_f64();
        let losses: Vec<f64> = lines.lines().filter_map(loss).collect();
        assert!((losses[0] - 280f64.ln()).abs() < 0.1 && losses[5] < losses[0] - 1.0, "{losses:?}");
        let model = desk.path(&whole).into_os_string().into_string().unwrap();
        succeeds(&mut generate(&model, &["-p", "7 times", "-n", "8", "-q", "--temp", "0"]));
        if family == "gpt2" {
            let args = ["--model", &model, "--context", "17"];
            let reason = "sequences of 17 tokens; the model takes 1 to 16";
            fails(&mut desk.train("out.gguf", &[&args]), 1, reason);
        }
    }
}

#[test]
fn shapes_of_new_models_are_checked() {
    let desk = Desk::new(&text());
    let refuses = |args: &[&str], code, reason: &str| {
        let mut command = smallmind(&["train", "--out"]);
        command.arg(desk.path("out.gguf")).arg(desk.path("text.txt")).args(args);
        fails(&mut command, code, reason);
    };
    refuses(&[], 2, "--model <FILE>");
    refuses(&["--new", "bert"], 2, "'bert' for '--new <FAMILY>'");
    refuses(&["--new", "llama", "-m", TINY], 2, "cannot be used with");
    refuses(&["--layers", "2", "-m", TINY], 2, "cannot be used with");
    refuses(&["--new", "llama", "--vocabulary", "256"], 2, "'256' for '--vocabulary <N>'");
    refuses(&["--new", "llama", "--heads", "3"], 1, "dim is 256, no multiple of 3 heads");
    refuses(
        &["--new", "llama", "--heads", "256"],
        1,
        "heads of 1 dimensions; rotary positions need an even number",
    );
    refuses(&["--new", "gpt2", "--dim", "4096", "--layers", "8", "--heads", "64"], 1, "parameters; at most");
}

/// An adapter is trained, goes on after a break to the same bytes, is applied by other commands, and merged.
#[test]
fn an_adapter_is_trained_applied_and_merged() {
    let desk = Desk::new(SENTENCE);
    let more =
        ["--context", "66", "--batch", "1", "--validation", "0", "--lr", "0.02", "--weight-decay", "0"];
    let lora = ["--lora-rank", "8", "--lora-targets", "attn_q,attn_v,attn_output,ffn_gate,ffn_up,ffn_down"];
    let steady = ["--schedule", "constant", "--warm-up", "0"];
    let run = |out: &str, rest: &[&str]| {
        let output = desk.train(out, &[&more, &lora, &steady, rest]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).to_owned()
    };
    let said = run("whole.gguf", &["--steps", "120"]);
    assert!(said.contains("an adapter of rank 8 with "), "{said}");
    run("broken.gguf", &["--steps", "60"]);
    run("broken.gguf", &["--steps", "120", "--resume", "--threads", "1"]);
    desk.assert_same("whole.gguf", "broken.gguf");
    let size = std::fs::metadata(desk.path("whole.gguf")).unwrap().len();
    assert!(size < 100_000, "{size} bytes");

    let adapter = desk.path("whole.gguf").into_os_string().into_string().unwrap();
    let (beginning, rest) = SENTENCE.split_at(12);
    let writes = |model: &str, more: &[&str]| {
        let args = ["-p", beginning, "-n", "50", "-q", "--temp", "0"];
        succeeds(&mut generate(model, &[&args[..], more].concat()))
    };
    let applied = writes(TINY, &["--lora", &adapter]);
    assert!(applied.len() > 40 && rest.starts_with(applied.trim_end()), "{applied}");
    let halves = format!("{adapter}=0.5");
    assert_eq!(writes(TINY, &["--lora", &halves, "--lora", &halves]), applied);
    let none = format!("{adapter}=0");
    assert_eq!(writes(TINY, &["--lora", &none]), writes(TINY, &[]));
    let text = desk.path("text.txt").into_os_string().into_string().unwrap();
    let perplexity = |more: &[&str]| {
        let args = ["perplexity", "-m", TINY, "-f", &text, "--ctx", "32", "--json"];
        let said = succeeds(smallmind(&args).args(more));
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        json["perplexity"].as_f64().unwrap()
    };
    assert!(perplexity(&["--lora", &adapter]) < 0.1 * perplexity(&[]));

    let merged = desk.path("merged.gguf").into_os_string().into_string().unwrap();
    let merge = |more: &[&str]| {
        let mut command = smallmind(&["merge", "-m", TINY, "--lora", &adapter, "-o", &merged]);
        command.args(more);
        command
    };
    fails(&mut merge(&[]), 1, "--requantize does it all the same");
    let said = succeeds(&mut merge(&["--requantize", "--type", "F16"]));
    assert!(said.contains("changes merged"), "{said}");
    assert_eq!(writes(&merged, &[]), applied);
    fails(&mut merge(&["--requantize"]), 1, "merged.gguf is there already (--force overwrites it)");

    let resume = |rest: &[&str], reason: &str| {
        fails(
            &mut desk.train("whole.gguf", &[&more, &steady, &["--steps", "130", "--resume"], rest]),
            1,
            reason,
        );
    };
    resume(&["--lora-rank", "4"], "was trained, not an adapter of rank 4");
    resume(&[], "an adapter (LoRA)");
}

#[test]
fn adapters_that_do_not_fit_are_refused() {
    let desk = Desk::new(&text());
    let refuses =
        |args: &[&str], code, reason: &str| fails(&mut desk.train("out.gguf", &[args]), code, reason);
    refuses(&["--lora-alpha", "4"], 2, "--lora-rank");
    refuses(&["--lora-rank", "0"], 2, "'0' for '--lora-rank <N>'");
    refuses(&["--lora-rank", "2", "--lora-alpha", "-1"], 2, "'-1' for '--lora-alpha <X>'");
    refuses(&["--lora-rank", "2", "--dropout", "0.1"], 2, "isn't for adapters");
    refuses(&["--context", "32", "--lora-rank", "4096"], 1, "an adapter of rank 4096");
    refuses(&["--context", "32", "--lora-rank", "2", "--lora-targets", "attn_x"], 1, "attn_x");
    assert_eq!(desk.names(), ["text.txt"]);
    let generates = |lora: &str, code, reason: &str| {
        fails(&mut generate(TINY, &["-p", "a", "-n", "1", "--lora", lora]), code, reason);
    };
    generates("nowhere.gguf=0.5", 1, "nowhere.gguf");
    generates("a.gguf=nan", 2, "a finite scale is needed");
    generates(TINY, 1, "general.type");
    fails(&mut smallmind(&["merge", "-m", TINY, "-o", "out.gguf"]), 2, "'--lora <FILE[=SCALE]>' is needed");
}
