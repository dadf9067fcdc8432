//! The real model of the tests, SmolLM2-135M-Instruct: fetched once into `target/models`.
//! A test that needs it fails where it cannot be had.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Path of the model's file; runs `examples/fetch-model.sh`, which keeps a file that is there already.
pub fn smollm2() -> PathBuf {
    // The command line's package stands a folder deeper than the library's.
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut scripts = folders.map(|folder| folder.join("examples/fetch-model.sh"));
    let script = scripts.find(|script| script.is_file()).expect("the script");
    let output = Command::new("sh").arg(&script).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {stderr}", script.display());
    let stdout = String::from_utf8(output.stdout).expect("a path in UTF-8");
    PathBuf::from(stdout.lines().last().expect("the path on the last line"))
}
