//! What the command line says: of wrong options, of what this machine gives, of text from files, and in its help.

use crate::common::golden_path;
use crate::common::model::smollm2;
use crate::support::{
    TINY, chat_model, fails, generate, rude_model, smallmind, stderr, succeeds, with_input,
};

#[test]
fn suggestions_are_kept() {
    let model = chat_model();
    for (args, code, reason) in [
        (
            &["generate", "-m", TINY, "--promt", "x"][..],
            2,
            "'--promt' found; a similar argument exists: '--prompt' (see",
        ),
        (&["quantise"], 2, "'quantise'; a similar subcommand exists: 'quantize'"),
        (&["baseline", "save", "../x"], 2, "../x"),
        (&["baseline", "delete", ".x"], 2, ".x"),
        (&["baseline", "save", "x", "--mode", "dep"], 2, "'dep' for '--mode <MODE>'"),
        (&["baseline", "save", "x", "--mode", "dep"], 2, "; a similar value exists: 'deep'"),
        (&["info", &model.replace("nobos.", "nobs.")], 1, "did you mean '"),
        (&["generate", "-m", &model.replace("chatml_nobos", "zzz"), "-p", "x"], 1, "the folder has '"),
        (&["bench", "-m", "no/such/folder/model.gguf"], 1, "there is no folder no/such/folder"),
        (&["profile", "-m", "no/such/folder/model.gguf"], 1, "there is no folder no/such/folder"),
    ] {
        fails(&mut smallmind(args), code, reason);
    }
}

/// Texts may look like options.
#[test]
fn texts_and_numbers_reach_their_options() {
    let args = ["-p", "- a list", "-n", "2", "--stop", "-- end"];
    succeeds(generate(TINY, &args).args(["--temp", "0"]));
    let args = ["chat", "-m", &chat_model(), "--system", "-1", "--seed", "1"];
    succeeds(&mut smallmind(&args));
}

#[test]
fn help_has_groups_defaults_and_examples() {
    let commands = [
        "generate",
        "chat",
        "info",
        "kernels",
        "bench",
        "create",
        "convert",
        "quantize",
        "perplexity",
        "train",
        "profile",
        "baseline",
    ];
    for command in commands {
        let help = succeeds(&mut smallmind(&[command, "--help"]));
        assert!(
            help.contains("Example") && help.contains(&format!("\n  smallmind {command} "))
                || command == "kernels"
        );
        assert!(!help.contains("[default: ]"), "{help}");
    }
    for command in ["generate", "chat"] {
        let help = succeeds(&mut smallmind(&[command, "--help"]));
        let own = help.find("\nOptions:").unwrap();
        let [sampling, model] =
            ["\nSampling:", "\nModel and machine:"].map(|heading| help.find(heading).unwrap());
        assert!(own < sampling && sampling < model, "{help}");
        // Each option with a value has a default, but those that must be given.
        let place = |option: &str| help.find(option).unwrap_or_else(|| panic!("no {option} in {help}"));
        assert!(
            (sampling..model).contains(&place("--top-p"))
                && place("--kv") > model
                && place("--stop") < sampling
        );
        for default in
            ["[default: 0.8]", "[default: f16]", "[default: 16]", "one for each core]", "the file's]"]
        {
            assert!(help.contains(default), "no {default} in {help}");
        }
    }
}

#[test]
fn threads_above_what_the_machine_gives_are_a_warning() {
    let most = std::thread::available_parallelism().unwrap().get();
    let run = |threads: usize, quiet: &[&str]| {
        let threads = threads.to_string();
        let mut command = generate(TINY, &["-p", "x", "-n", "1", "-t", &threads]);
        let output = command.args(quiet).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output).matches("threads, but this machine runs").count()
    };
    assert_eq!((run(most, &[]), run(most + 1, &[]), run(most + 1, &["-q"])), (0, 1, 0));
}

/// 16 million positions of keys and values of this model are 773 GB.
#[cfg(target_os = "linux")]
#[test]
fn a_context_that_does_not_fit_into_memory_is_told_with_its_option() {
    let memory = smallmind::memory::total_memory().unwrap();
    assert!(memory < 700 << 30, "this machine has room for it");
    let model = smollm2().into_os_string().into_string().unwrap();
    let ask = |ctx: &str| generate(&model, &["-p", "x", "--kv", "f32", "--ctx", ctx]);
    fails(&mut ask("16777216"), 1, "'--ctx 16777216' takes 77");
    fails(
        &mut ask("16777217"),
        2,
        "'16777217' for '--ctx <N>': a context of this model has at most 16777216",
    );
}

#[test]
fn info_is_json_too() {
    let model = golden_path("cases/escapes.gguf");
    let text =
        succeeds(&mut smallmind(&["info", model.to_str().unwrap(), "--json", "--metadata", "--tensors"]));
    let facts: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(facts["architecture"], "llama");
    assert_eq!((&facts["layers"], &facts["context"]), (&1.into(), &512.into()));
    assert!(facts["name"].as_str().unwrap().contains("\u{1b}[31mRED\nsmallmind"));
    assert_eq!(facts["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 262);
    assert_eq!(facts["tensors"].as_array().unwrap().len(), facts["tensor_count"]);
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    let plain = succeeds(&mut smallmind(&["info", TINY, "--json"]));
    let facts: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert!(facts.get("metadata").is_none() && facts["types"][0]["tensors"].is_u64());
    fails(&mut smallmind(&["info", TINY, "--json", "--plan"]), 2, "cannot be used with");
}

/// Runs a command and checks that nothing it says commands a terminal; returns whether it succeeded.
fn is_polite(args: &[&str]) -> bool {
    let output = smallmind(args).output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(text.clone()).unwrap();
        let rude = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || c == '\u{202e}';
        assert!(!text.contains(rude), "{args:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("smallmind: fake")), "{args:?}: {text}");
    }
    output.status.success()
}

/// Names, keys and the chat template's message hold control sequences; so do the paths.
#[test]
fn text_from_files_is_escaped_wherever_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let (file, other) = (path("rude\u{1b}[2J\u{202e}.gguf"), path("other\u{1b}[2J.gguf"));
    let (missing, out) = (path("rude\u{1b}[2J\u{202e}-.gguf"), path("out\u{1b}[1m"));
    std::fs::write(&file, rude_model()).unwrap();
    std::fs::copy(golden_path("cases/escapes.gguf"), &other).unwrap();
    for args in [
        &["info", &file][..],
        &["info", &file, "--metadata", "--tensors"],
        &["info", &file, "--json", "--metadata", "--tensors"],
        &["info", &file, "--graph", "--plan"],
        &["info", &other, "--metadata", "--tensors"],
        &["generate", "-m", &file, "-p", "x", "-n", "0"],
        &["bench", "-m", &file, "-p", "4", "-n", "2", "-f", "0", "-r", "1"],
        &["profile", "-m", &file, "-p", "4", "-n", "2"],
        &["profile", "-m", &file, "-p", "4", "-n", "2", "--json"],
        &["profile", "-m", &file, "-p", "4", "-n", "2", "-o", &out],
        &["create", "--random", "small", "-o", &path("new\u{1b}[2J.gguf")],
    ] {
        assert!(is_polite(args), "{args:?}");
    }
    for args in [
        &["generate", "-m", &file, "-p", "x", "--chat"][..],
        &["generate", "-m", &other, "-p", "x", "--chat"],
        &["generate", "-m", &missing, "-p", "x"],
        &["profile", "compare", &file, &missing],
        &["profile", "-m", &file, "-p", "4", "-n", "2", "-o", &file],
        &["create", "--random", "small", "-o", &file],
        &["bench", "-m", &file, "-p", "99999999"],
    ] {
        assert!(!is_polite(args), "{args:?}");
    }
    // In a chat too, which goes on.
    let chatted = with_input(
        smallmind(&["chat", "-m", &file]),
        b"Hi.\n/load \x1b[1m\n/\x1b[1m\n/system \x1b[1m\n/system\n",
    );
    assert!(
        !stderr(&chatted).contains('\u{1b}') && stderr(&chatted).contains("reason"),
        "{}",
        stderr(&chatted)
    );
}

/// Whoever starts the program with SIGINT ignored, as nohup and scripts do, keeps it so.
#[cfg(target_os = "linux")]
#[test]
fn an_ignored_ctrl_c_stays_ignored() {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    for ignored in [true, false] {
        let mut command =
            smallmind(&["generate", "-m", &chat_model(), "-p", "x", "--temp", "0", "-n", "3000"]);
        command.args(["--ctx", "4000"]);
        if ignored {
            // SAFETY: between fork and exec only signal is called, which is safe there.
            unsafe {
                command.pre_exec(|| {
                    libc::signal(libc::SIGINT, libc::SIG_IGN);
                    Ok(())
                });
            }
        }
        let mut child = command.spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        // SAFETY: kill only sends a signal, to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(if ignored { 0 } else { 130 }), "{}", stderr(&output));
    }
}
