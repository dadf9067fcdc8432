//! `smallmind chat` as a person meets it in a terminal, and as a script does in a pipe.

use serde_json::Value;
use std::process::Output;

use crate::support::{chat_model, chat_model_with, fails, smallmind, stderr, stdout, succeeds, with_input};

/// A chat that reads this from a pipe; answers are short and always the same.
fn piped(args: &[&str], said: &str) -> Output {
    let mut command = smallmind(&["chat", "-m", &chat_model(), "-n", "6", "--temp", "0"]);
    command.args(args);
    with_input(command, said.as_bytes())
}

/// Tokens of each prefill, as the summaries say.
fn prefills(stderr: &str) -> Vec<usize> {
    let summaries = stderr.lines().filter_map(|line| line.strip_prefix("[prefill "));
    summaries.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn messages(file: &std::path::Path) -> Vec<(String, String)> {
    let list: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    let messages = list.as_array().unwrap().iter();
    messages.map(|message| (text(message, "role"), text(message, "content"))).collect()
}

#[test]
fn a_conversation_is_saved_loaded_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk one.json");
    let name = file.to_str().unwrap();
    let said = format!("Hello.\n/system Be brief.\n/save {name}\n");
    let first = piped(&[], &said);
    assert!(first.status.success(), "{}", stderr(&first));
    let kept = messages(&file);
    assert_eq!(kept[0], ("system".into(), "Be brief.".into()));
    assert_eq!(kept[1], ("user".into(), "Hello.".into()));
    assert_eq!((kept.len(), &*kept[2].0), (3, "assistant"));
    assert_eq!(stdout(&first), format!("{}\n", kept[2].1));

    let again = folder.path().join("again.json");
    let second = piped(&[], &format!("/load {name}\nMore.\n/save {}\n", again.display()));
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(messages(&again)[..3], kept);
    assert_eq!(messages(&again).len(), 5);
}

#[test]
fn retry_answers_the_last_message_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let said = format!("Hello.\n/retry\n/save {}\n", file.display());
    let mut command = smallmind(&["chat", "-m", &chat_model(), "-n", "12", "--seed", "3", "--top-k", "0"]);
    command.args(["--min-p", "0", "--top-p", "1"]);
    let output = with_input(command, said.as_bytes());
    assert!(output.status.success(), "{}", stderr(&output));
    let kept = messages(&file);
    assert_eq!(kept.len(), 2, "one message and the second answer: {kept:?}");
    assert!(stdout(&output).ends_with(&format!("{}\n", kept[1].1)));
    let counts = prefills(stderr(&output));
    assert!(counts.len() == 2 && counts[1] == 1, "the message isn't read again: {counts:?}");
    assert_ne!(stdout(&output), format!("{0}\n{0}\n", kept[1].1), "another draw gives another answer");

    let none = piped(&[], "/retry\n");
    assert!(stderr(&none).contains("there is no message to answer"), "{}", stderr(&none));
}

/// Each of these is said on a line, and the message after it gets its answer.
#[test]
fn no_error_ends_a_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let long = "long ".repeat(200);
    let folder = folder.path().to_str().unwrap();
    for (line, reason) in [
        (long.as_str(), "/clear starts over, --ctx gives more room"),
        ("/dance", "there is no command /dance"),
        ("/load /no/such/file", "/no/such/file: No such file"),
        (&format!("/load {}", chat_model()), "no conversation"),
        ("/save /no/such/folder/file", "/no/such/folder/file: No such file"),
        (&format!("/save {folder}"), "is a folder"),
        ("/save", "needs the name of a file"),
    ] {
        let output = piped(&["--ctx", "256"], &format!("{line}\nHello.\n"));
        let errors: Vec<_> = stderr(&output).lines().filter(|line| line.starts_with("smallmind: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(reason), "{line}: {}", stderr(&output));
        assert_eq!(prefills(stderr(&output)).len(), 1, "{line}: {}", stderr(&output));
        // A script learns of it by the code.
        assert_eq!(output.status.code(), Some(1), "{line}");
    }
    // What was taken back isn't there later, but for /retry.
    let output = piped(&["--ctx", "64"], &format!("{long}\nHi.\n/retry\n"));
    let counts = prefills(stderr(&output));
    assert!(counts.len() == 2 && counts[0] < 64 && counts[1] == 1, "{}", stderr(&output));
}

/// /retry means the message that was taken back, and leaves the answers that there are.
#[test]
fn retry_of_what_was_taken_back_keeps_former_answers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let long = "long ".repeat(200);
    let said = format!("Hi.\n/save {0}\n{long}\n/retry\n/save {0}.2\n", file.display());
    let output = piped(&["--ctx", "64"], &said);
    assert_eq!(stderr(&output).matches("/clear starts over").count(), 2, "{}", stderr(&output));
    assert_eq!(messages(&file), messages(&folder.path().join("talk.json.2")));
}

/// Waiting for a pipe's other end would last for ever.
#[cfg(unix)]
#[test]
fn a_pipe_that_nobody_uses_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let refused = "pipe: not a regular file";
    let output = piped(&[], &format!("/load {0}\n/save {0}\nHello.\n", pipe.display()));
    assert!(stderr(&output).contains(refused), "{}", stderr(&output));
    assert!(stderr(&output).contains("pipe: a pipe that nobody reads"), "{}", stderr(&output));
    assert_eq!(prefills(stderr(&output)).len(), 1);
    let (model, pipe) = (chat_model(), pipe.to_str().unwrap());
    let chat = ["generate", "-m", &model, "-p", "Hi", "--chat", "--tools", pipe];
    fails(&mut smallmind(&chat), 1, refused);
    fails(&mut smallmind(&["perplexity", "-m", &model, "-f", pipe, "-c", "16"]), 1, refused);
}

#[test]
fn a_model_that_cannot_chat_is_told_at_once() {
    let output = with_input(smallmind(&["chat", "-m", crate::support::TINY]), b"Hello.\n");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).matches("chat template").count(), 1, "{}", stderr(&output));
}

#[test]
fn two_slashes_begin_a_message_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let output = piped(&["-q"], &format!("//usr\r\n/save {}\n", file.display()));
    assert_eq!((messages(&file)[0].1.as_str(), stderr(&output)), ("/usr", ""));
}

/// The template doesn't write the token that the pre-tokenizer asks for.
#[test]
fn a_conversation_begins_with_the_token_for_its_beginning() {
    let prefill = |args: &[&str]| prefills(stderr(&piped(args, "Hello.")))[0];
    let (with, without) = (prefill(&[]), prefill(&["--no-bos"]));
    assert_eq!((with, prefill(&["--parse-special"])), (without + 1, with));
    assert_eq!(prefill(&["--parse-special", "--no-bos"]), without);
    let generate = |args: &[&str]| {
        let mut command = smallmind(&["generate", "-m", &chat_model(), "-n", "1", "-p", "xyz"]);
        prefills(stderr(&command.args(args).output().unwrap()))[0]
    };
    assert_eq!((generate(&[]), generate(&["--no-bos"])), (4, 3));
}

/// Whoever types the name of a special token types text, in every command.
#[test]
fn special_tokens_in_what_is_typed_are_text() {
    let prefill = |args: &[&str], said: &str| {
        let output = piped(args, said);
        assert!(output.status.success(), "{}", stderr(&output));
        prefills(stderr(&output))[0]
    };
    // A token of its own has one token less than its letters.
    let (name, letters) = ("<|im_end|>", "xxxxxxxxxx");
    let plain = prefill(&[], letters);
    assert_eq!(prefill(&[], name), plain);
    assert_eq!(prefill(&["--parse-special"], name), plain - 9);
    assert_eq!(
        prefill(&[], &format!("/system {name}\nHi.")),
        prefill(&[], &format!("/system {letters}\nHi."))
    );
    // Broken by nobody: half of it ends the message, and the other half stands in the template.
    assert_eq!(prefill(&[], "<|im_end"), prefill(&[], "xxxxxxxx"));
    let generate = |args: &[&str], prompt: &str| {
        let mut command = smallmind(&["generate", "-m", &chat_model(), "-n", "1", "-p", prompt]);
        let output = command.args(args).output().unwrap();
        prefills(stderr(&output))[0]
    };
    for args in [&[][..], &["--chat"]] {
        assert_eq!(generate(args, name), generate(args, letters), "{args:?}");
        let parsing = [args, &["--parse-special"]].concat();
        assert_eq!(generate(&parsing, name) + 9, generate(&parsing, letters), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
mod terminal {
    use super::*;
    use crate::terminal::Terminal;

    /// A chat in a terminal, ready for its first line, that keeps its history in a folder.
    fn chat(args: &[&str], state: &std::path::Path) -> Terminal {
        let mut command = smallmind(&["chat", "-m", &chat_model(), "--temp", "0"]);
        command.args(args).env("XDG_STATE_HOME", state);
        let mut terminal = Terminal::start(&mut command);
        terminal.shows("/help lists the commands");
        terminal.shows("> ");
        terminal
    }

    #[test]
    fn ctrl_c_ends_the_answer_only_and_ctrl_d_the_chat() {
        let state = tempfile::tempdir().unwrap();
        let mut terminal = chat(&["-n", "1000000", "--ctx", "1000000"], state.path());
        terminal.types("Hello.\r");
        terminal.shows("Hello.");
        // The answer has begun.
        terminal.shows("\n");
        std::thread::sleep(std::time::Duration::from_millis(500));
        terminal.types("\x03");
        terminal.shows("stopped]");
        terminal.shows("> ");
        terminal.types("\x03");
        terminal.shows("[Ctrl-D or /quit ends the chat]");
        terminal.shows("> ");
        terminal.types("/system\r");
        terminal.shows("[nothing was said");
        terminal.shows("> ");
        terminal.types("\x04");
        let (shown, status) = terminal.ends();
        assert_eq!(status.code(), Some(0), "{shown:?}");
    }

    #[test]
    fn lines_are_edited_joined_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        let mut terminal = chat(&["-n", "4"], folder.path());
        // A key of the editor; a backslash before Enter; Alt-Enter; a paste with a backslash and a line break.
        terminal.types("one!\x7f\\\rtwo\x1b\rthree \x1b[200~a \\\nb\x1b[201~\r");
        terminal.shows("token limit]");
        terminal.shows("> ");
        terminal.types(&format!("/save {}\r", file.display()));
        terminal.shows("[2 messages in ");
        terminal.shows("> ");
        assert_eq!(messages(&file)[0].1, "one\ntwo\nthree a \\\nb");
        terminal.types("/quit\r");
        let (shown, status) = terminal.ends();
        assert_eq!(status.code(), Some(0), "{shown:?}");
        let history = folder.path().join("smallmind/chat-history");
        let kept = std::fs::read_to_string(&history).unwrap();
        assert_eq!(kept.lines().next().unwrap(), r#""one\ntwo\nthree a \\\nb""#);

        // The next chat has it under the arrow: the line before /quit and /save.
        let mut terminal = chat(&["-n", "4"], folder.path());
        terminal.types("\x1b[A\x1b[A\x1b[A");
        terminal.shows("three a");
        terminal.types("\r");
        terminal.shows("token limit]");
        terminal.shows("> ");
        terminal.types("\x04");
        assert_eq!(terminal.ends().1.code(), Some(0));
        std::fs::remove_file(&history).unwrap();
        let mut terminal = chat(&["-n", "4", "--no-history"], folder.path());
        terminal.types("/quit\r");
        terminal.ends();
        assert!(!history.exists());
    }

    #[test]
    fn a_long_prompt_shows_how_far_it_is_read() {
        let prompt = "x".repeat(120_000);
        let args = ["generate", "-m", &chat_model(), "--ctx", "130000", "-n", "1", "-p", &prompt];
        let mut terminal = Terminal::start(&mut smallmind(&args));
        terminal.shows("reading the prompt");
        terminal.shows("/120001 tokens");
        terminal.types("\x03");
        let (shown, status) = terminal.ends();
        assert!(status.code() == Some(130) && shown.contains("stopped]"), "{shown:?}");
    }

    #[test]
    fn a_byte_that_is_no_text_ends_no_conversation() {
        let state = tempfile::tempdir().unwrap();
        let history = state.path().join("smallmind/chat-history");
        std::fs::create_dir_all(history.parent().unwrap()).unwrap();
        std::fs::write(&history, "\"plain\"\n\"rude \\u001b[2J\"\n").unwrap();
        let mut terminal = chat(&["-n", "4"], state.path());
        terminal.types_bytes(b"\xff\r");
        terminal.shows("not UTF-8");
        terminal.shows("> ");
        // The damaging line of the history isn't there.
        terminal.types("\x1b[A");
        terminal.shows("plain");
        terminal.types("\r");
        terminal.shows("token limit]");
        terminal.shows("> ");
        // A message that was begun is not dropped at the end.
        terminal.types("begun\\\r\x04");
        terminal.shows("token limit]");
        terminal.shows("> ");
        terminal.types("\x04");
        let (shown, status) = terminal.ends();
        assert!(status.code() == Some(0) && !shown.contains("\x1b[2J"), "{shown:?}");
    }

    /// The model's tokens are single bytes with random weights: some of them are control characters.
    #[test]
    fn what_the_model_writes_reaches_a_terminal_escaped_and_a_pipe_as_it_is() {
        let args = ["generate", "-m", &chat_model(), "-p", "x", "-n", "400", "--seed", "1", "--temp", "5"];
        let cuts = ["--top-k", "0", "--top-p", "1", "--min-p", "0", "-q"];
        let all = [&args[..], &cuts].concat();
        let raw = smallmind(&all).output().unwrap();
        assert!(raw.status.success(), "{}", stderr(&raw));
        let is_rude = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        assert!(stdout(&raw).contains(is_rude), "{:?}", stdout(&raw));
        let (shown, status) = Terminal::start(&mut smallmind(&all)).ends();
        assert!(status.success());
        assert!(!shown.contains(is_rude) && shown.contains("\\x"), "{shown:?}");
    }
}

#[test]
fn templates_see_tools_and_switches() {
    let folder = tempfile::tempdir().unwrap();
    let strict = "{% if not enable_thinking is defined or enable_thinking %}{{ raise_exception('thinks') }}{% endif %}\
        {% if tools[0].name != 'f' %}{{ raise_exception('no tool') }}{% endif %}{{ messages[-1].content }}";
    let model = folder.path().join("model.gguf");
    std::fs::write(&model, chat_model_with(strict)).unwrap();
    let model = model.to_str().unwrap();
    let tools = folder.path().join("tools.json");
    std::fs::write(&tools, r#" [{"name": "f"}]"#).unwrap();
    let tools = tools.to_str().unwrap();
    let run = |args: &[&str]| {
        let mut command = smallmind(&["generate", "-m", model, "-n", "3", "-p", "Hi", "-q", "--temp", "0"]);
        command.args(args);
        command
    };
    let all = ["--chat", "--tools", tools, "--chat-arg", "enable_thinking=false"];
    succeeds(&mut run(&all));
    fails(&mut run(&all[..3]), 1, "thinks");
    fails(&mut run(&["--chat", "--chat-arg", "enable_thinking=false"]), 1, "undefined value");
    fails(&mut run(&all[1..]), 2, "'--chat-arg <KEY=VALUE>' needs --chat");
    fails(&mut run(&["--prefix", "x"]), 2, "'--prefix <TEXT>' needs --chat");
    fails(&mut run(&["--chat", "--chat-arg", "enable_thinking"]), 2, "it has no '='");
    fails(&mut run(&["--chat", "--chat-arg", "x=no"]), 2, "\"x\": no JSON value");
    fails(&mut run(&["--chat", "--chat-arg", "messages=[]"]), 1, "messages is no argument");
    fails(&mut run(&["--chat", "--tools", "/nowhere"]), 1, "/nowhere");
    std::fs::write(tools, "{}").unwrap();
    fails(&mut run(&all), 1, "tools are a JSON list");
}

#[test]
fn answers_begin_with_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    let said = format!("Hello.\n/save {}\n", file.display());
    let output = piped(&["--prefix", "Sure: "], &said);
    assert!(output.status.success(), "{}", stderr(&output));
    let kept = messages(&file);
    assert!(kept[1].1.starts_with("Sure: "), "{kept:?}");
    assert_eq!(stdout(&output), format!("{}\n", kept[1].1));
    // The model has read it: there are more tokens before its answer than without.
    let plain = piped(&[], "Hello.\n");
    assert!(prefills(stderr(&output))[0] > prefills(stderr(&plain))[0]);
}
