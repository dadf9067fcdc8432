//! Running the built command line: its arguments, its input, and what it said.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::common::gguf_writer::{F32, Writer, string};
use crate::common::golden_path;
use smallmind::format::gguf::Gguf;

/// 288 tokens, 128 positions, random weights.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/gguf/untied-mixed.gguf");

pub fn smallmind(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smallmind"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn generate(model: &str, args: &[&str]) -> Command {
    let mut command = smallmind(&["generate", "--model", model]);
    command.args(args);
    command
}

/// Runs it with this on standard input.
pub fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("whole characters only")
}

pub fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Standard output of a run that must succeed.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    stdout(&output).to_owned()
}

/// Checks that it failed with this code, no output and one line with `reason`; remarks in brackets may
/// stand before it.
pub fn assert_fails(what: &str, output: &Output, code: i32, reason: &str) {
    let lines: Vec<_> = stderr(output).lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(output.status.code(), Some(code), "{what}: {lines:?}");
    let [line] = lines[..] else { panic!("{what}: {lines:#?}") };
    assert!(line.starts_with("smallmind: ") && line.contains(reason), "{what}: {line}");
    assert!(output.stdout.is_empty(), "{what}: {}", stdout(output));
}

pub fn fails(command: &mut Command, code: i32, reason: &str) {
    let output = command.output().unwrap();
    assert_fails(&format!("{command:?}"), &output, code, reason);
}

/// A model of single bytes with a ChatML template and random weights, of 512 positions.
pub fn chat_model() -> String {
    golden_path("cases/chatml_nobos.gguf").into_os_string().into_string().unwrap()
}

/// The file of [`chat_model`] with another template.
pub fn chat_model_with(template: &str) -> Vec<u8> {
    const KEY: &str = "tokenizer.chat_template";
    let gguf = Gguf::open_path(chat_model()).unwrap();
    let others = gguf.metadata().iter().filter(|(key, _)| *key != KEY);
    let writer = Writer::new().pair(KEY, string(template));
    let writer = others.fold(writer, |writer, (key, value)| writer.pair(key, value.clone()));
    let add = |writer: Writer, tensor: &smallmind::format::gguf::TensorInfo| {
        let mut data = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut data).unwrap();
        writer.tensor(&tensor.name, tensor.shape(), tensor.ty.0, &data)
    };
    gguf.tensors().iter().fold(writer, add).build()
}

/// A model that runs, whose name, a key, a value, a tensor and the message of its chat template command a terminal.
pub fn rude_model() -> Vec<u8> {
    let gguf = Gguf::open_path(TINY).unwrap();
    let template = "{{ raise_exception('rude\u{1b}[31mreason\u{9b}\nsmallmind: fake line') }}";
    let mut writer = Writer::new()
        .pair("rude\u{1b}[2Jkey", string("rude\u{1b}[2Jvalue"))
        .pair("tokenizer.chat_template", string(template));
    for (key, value) in gguf.metadata().iter() {
        writer =
            writer.pair(key, if key == "general.name" { string("rude\u{7}name") } else { value.clone() });
    }
    for tensor in gguf.tensors() {
        let mut data = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut data).unwrap();
        writer = writer.tensor(&tensor.name, tensor.shape(), tensor.ty.0, &data);
    }
    writer.tensor("rude\u{9b}.input_scale", &[1], F32, &[0; 4]).build()
}
