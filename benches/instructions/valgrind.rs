//! Counting with valgrind's callgrind: one process runs every kernel, each call of [`MEASURED`] is one dump.

use std::path::Path;
use std::process::{Command, Stdio};

/// The function whose calls are counted.
pub const MEASURED: &str = "smallmind_measured_call";

/// Instructions of each call of [`MEASURED`] that `command` makes, in order; `folder` is empty, and gets the dumps.
pub fn count(program: &Path, args: &[String], folder: &Path) -> Result<Vec<u64>, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .args([format!("--toggle-collect={MEASURED}"), format!("--dump-after={MEASURED}")])
        .arg(format!("--callgrind-out-file={}", folder.join("calls").display()))
        .arg(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind can't be started: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the program failed under valgrind: {}", text.trim()));
    }
    let mut counts = Vec::new();
    loop {
        // Dumps are numbered from 1; what comes after the last call stands in a file without a number.
        let path = folder.join(format!("calls.{}", counts.len() + 1));
        match std::fs::read_to_string(&path) {
            Ok(text) => counts.push(total(&text).ok_or(format!("{} has no total", path.display()))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(counts),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
}

/// The instructions of a dump.
pub fn total(dump: &str) -> Option<u64> {
    let line = |key: &str| dump.lines().find_map(|line| line.strip_prefix(key));
    line("totals:").or_else(|| line("summary:"))?.trim().parse().ok()
}
