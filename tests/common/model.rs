//! The real model of the tests, SmolLM2-135M-Instruct: fetched once into `target/models`.
//! A test that needs it fails where it cannot be had.

use std::path::PathBuf;
use std::process::Command;

/// Path of the model's file; runs `examples/fetch-model.sh`, which keeps a file that is there already.
pub fn smollm2() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fetch-model.sh");
    let output = Command::new("sh").arg(script).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {stderr}");
    let stdout = String::from_utf8(output.stdout).expect("a path in UTF-8");
    PathBuf::from(stdout.lines().last().expect("the path on the last line"))
}
