//! README and docs show what is there: examples that are compiled, speeds that were measured.

use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The lines of README's first code block of that language.
fn block(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let lines = readme.lines().skip_while(|line| *line != format!("```{language}")).skip(1);
    let block: Vec<_> = lines.take_while(|line| *line != "```").map(str::to_owned).collect();
    assert!(!block.is_empty(), "README has no block of {language}");
    block
}

#[test]
fn the_c_example_is_the_file() {
    assert_eq!(block("c").join("\n"), read("examples/generate.c").trim_end());
}

#[test]
fn the_rust_example_is_in_the_file() {
    let indented: Vec<_> = block("rust").iter().map(|line| format!("    {line}")).collect();
    assert!(read("examples/generate.rs").contains(&indented.join("\n")));
}

#[test]
fn the_chart_and_the_table_are_what_the_numbers_give() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.py");
    let output = Command::new("python3").args([script, "--check"]).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
