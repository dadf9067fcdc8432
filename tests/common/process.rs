//! Tests in a process of their own: for what the whole process has or does, such as its memory, its limits, its
//! environment. The test starts its own program again, for itself alone.

use std::process::Command;

/// Set in such a process.
const CHILD: &str = "SMALLMIND_TEST_CHILD";

/// Whether this process runs one test alone.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `work` in a process in which nothing else happens; `test` is the full name of the test that calls it.
pub fn alone(test: &str, work: impl FnOnce()) {
    if is_child() { work() } else { succeeds(&mut child(test)) }
}

/// The command that runs this test alone.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture"]).env(CHILD, "1");
    command
}

/// Runs the [`child`] to success, or fails with what it said.
pub fn succeeds(child: &mut Command) {
    let output = child.output().expect("this program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
    print!("{said}");
}
