//! `--save` and `--load`: a text goes on from a file as if it had been given whole.

use crate::support::{TINY, chat_model, fails, smallmind, stderr, succeeds, with_input};

/// What `generate` writes with these arguments.
fn written(args: &[&str]) -> String {
    let model = chat_model();
    let common = ["generate", "-m", &model, "-q", "--temp", "0", "--threads", "1"];
    succeeds(&mut smallmind(&[&common, args].concat()))
}

#[test]
fn a_text_goes_on_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (first, second) = (path("first"), path("second"));
    written(&["-p", "Once upon", "-n", "0", "--save", &first]);
    let whole = written(&["-p", "Once upon a time", "-n", "12"]);
    assert_eq!(written(&["--load", &first, "-p", " a time", "-n", "12", "--save", &second]), whole);
    // The file has the text that was written, its last token included.
    let bytes = |path: &str| std::fs::metadata(path).unwrap().len();
    written(&["-p", "Once upon a time", "-n", "12", "--save", &first]);
    assert_eq!(bytes(&first), bytes(&second));
    // Of a conversation, what the file has isn't computed again.
    let chat = ["generate", "-m", &chat_model(), "--temp", "0", "-n", "4", "--chat", "-p", "Hello"];
    let run = |more: &[&str]| smallmind(&[&chat[..], more].concat()).output().unwrap();
    let fresh = run(&["--save", &first]);
    let again = run(&["--load", &first]);
    assert_eq!(fresh.stdout, again.stdout);
    assert!(stderr(&again).contains("[prefill 1 tokens"), "{}", stderr(&again));
}

#[test]
fn a_chat_begins_with_what_a_file_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat").to_str().unwrap().to_owned();
    let model = chat_model();
    let chat = |more: &[&str]| {
        let common = ["chat", "-m", &model, "--temp", "0", "-n", "4", "--no-history"];
        with_input(smallmind(&[&common, more].concat()), b"Hello\n")
    };
    let fresh = chat(&["--save", &path]);
    let again = chat(&["--load", &path]);
    assert_eq!((fresh.status.code(), &fresh.stdout), (again.status.code(), &again.stdout));
    assert!(stderr(&again).contains("[prefill 1 tokens"), "{}", stderr(&again));
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot").to_str().unwrap().to_owned();
    written(&["-p", "Once", "-n", "0", "--save", &path]);
    let model = chat_model();
    let load = |model: &str, path: &str, more: &[&str]| {
        smallmind(&[&["generate", "-m", model, "-q", "-p", "x", "--load", path], more].concat())
    };
    fails(&mut load(TINY, &path, &[]), 1, "a model of another shape");
    fails(&mut load(&model, &path, &["--kv", "q8_0"]), 1, "f16 keys and values; the cache has q8_0");
    fails(&mut load(&model, &model, &[]), 1, "no snapshot of a sequence");
    fails(&mut load(&model, "no such file", &[]), 1, "no such file");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.pop();
    std::fs::write(&path, bytes).unwrap();
    fails(&mut load(&model, &path, &[]), 1, "of a snapshot of");
}
