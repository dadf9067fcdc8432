//! Hosts in C and C++ against the shipped library and the committed header: the programs of `c-tests`, compiled
//! with warnings as errors and run on the real model. (`make -C c-tests` runs these and the one in C#.)
#![cfg(target_os = "linux")]

use crate::common::model;
use crate::shipped;
use std::path::{Path, PathBuf};
use std::process::Command;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const C_SOURCES: [&str; 20] = [
    "main.c",
    "kernels.c",
    "products.c",
    "team.c",
    "bf16.c",
    "attention.c",
    "rows.c",
    "bad_arguments.c",
    "bad_kernels.c",
    "bad_rows.c",
    "bad_files.c",
    "generation.c",
    "shift.c",
    "contracts.c",
    "profile.c",
    "random.c",
    "embedder.c",
    "trainer.c",
    "server.c",
    "logprobs.c",
];

/// Compiles sources of `c-tests` into `folder` and links them with these arguments.
pub fn host(cpp: bool, sources: &[&str], link: &[&str], folder: &Path) -> PathBuf {
    let program = folder.join("host");
    let mut compiler = shipped::compiler(cpp);
    compiler.arg(if cpp { "-std=c++17" } else { "-std=c11" }).args(WARNINGS).args(["-O1", "-g"]);
    compiler.arg(format!("-I{}/include", shipped::ROOT));
    compiler.args(sources.iter().map(|source| Path::new(shipped::ROOT).join("c-tests").join(source)));
    shipped::run(compiler.args(link).args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program));
    program
}

/// Link arguments for the shared library.
pub fn shared() -> [String; 3] {
    let folder = shipped::library().display();
    [format!("-L{folder}"), "-lsmallmind".to_owned(), format!("-Wl,-rpath,{folder}")]
}

#[test]
fn a_c_host_works_with_the_shared_library() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = host(false, &C_SOURCES, &shared().each_ref().map(String::as_str), folder.path());
    let said = shipped::run(Command::new(program).arg(model::smollm2()).arg(folder.path()));
    for expected in ["Paris", "trained: The quick brown fox", "linear.gate_up", "0 failures"] {
        assert!(said.contains(expected), "no {expected:?} in:\n{said}");
    }
}

#[test]
fn a_c_host_works_with_the_static_library() {
    let folder = tempfile::tempdir().expect("a folder");
    let archive = shipped::library().join("libsmallmind.a");
    let program = host(false, &C_SOURCES, &[archive.to_str().expect("UTF-8")], folder.path());
    shipped::run(Command::new(program).arg(model::smollm2()).arg(folder.path()));
}

#[test]
fn a_cpp_host_works_with_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = host(true, &["host.cpp"], &shared().each_ref().map(String::as_str), folder.path());
    let said = shipped::run(Command::new(program).arg(model::smollm2()));
    assert!(said.contains("Once upon a time"), "{said}");
}
