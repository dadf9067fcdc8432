//! The library as it is shipped, built once a test run by the recipe in `c-tests/Makefile`,
//! and the system's C and C++ compilers, found by the `cc` crate.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds the package.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder with `libsmallmind.so.N`, its link `libsmallmind.so`, and `libsmallmind.a`.
pub fn library() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let target = std::path::absolute(target()).expect("a path");
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", "c-tests", "lib"]);
        run(make.current_dir(ROOT).env("CARGO_TARGET_DIR", &target));
        target.join("shipped/lib")
    })
}

/// Cargo's target folder: the one that the variable names, as the Makefile has it.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(Path::new(ROOT).join("target"), PathBuf::from)
}

/// A compiler of the system, with no flags of its own.
pub fn compiler(cpp: bool) -> Command {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cc::Build::new();
    build.target(&triple).host(&triple).opt_level(1).cpp(cpp).no_default_flags(true).cargo_metadata(false);
    build.get_compiler().to_command()
}

/// Runs to success, or fails the test with what the program said; gives back its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complained}", output.status);
    said
}
