//! Output: results go to standard output, remarks to standard error.
//! A closed pipe causes no panic, as it would in `println!` and `eprintln!`.

use std::io::{ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use smallmind::{Error, Result};

/// A failed write to standard output as the crate's error.
pub fn failed(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), source }
}

/// Prints a result; a closed pipe (`smallmind info … | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => Err(failed(source)),
        _ => Ok(()),
    }
}

/// A text from a file, made fit for a terminal: control characters are escaped.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Prints a remark as it is, without adding a line break.
pub fn remark(text: &str) {
    // If standard error is closed, there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A line on standard error with the progress of a measurement, if standard error is a terminal.
pub fn progress(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}
