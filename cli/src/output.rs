//! Output: results go to standard output, remarks to standard error. Both are escaped here, so that nothing from a file
//! reaches a terminal as a control character. A closed pipe causes no panic, as it would in `println!` and `eprintln!`.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use smallmind::text::{escaped, escaped_lines};
use smallmind::{Error, Result};

/// What takes longer than this gets a line of progress.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often a line of progress without numbers moves.
const TICK: Duration = Duration::from_millis(100);

/// A failed write to standard output as the crate's error.
pub fn failed(source: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), source }
}

/// Prints a result; a closed pipe (`smallmind info … | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match write!(out, "{}", escaped_lines(text)).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => Err(failed(source)),
        _ => Ok(()),
    }
}

/// Prints JSON.
pub fn print_json(text: &str) -> Result<()> {
    print(&json_fit_for_terminals(text))
}

/// A line of JSON, or several: control characters in its texts that JSON leaves as they are become JSON's escapes, so
/// that it stays JSON when it is printed.
pub fn json_fit_for_terminals(text: &str) -> String {
    let mut fit = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        let mut buffer = [0; 4];
        let shown = &*c.encode_utf8(&mut buffer);
        // Also the invisible ones that would reorder a line.
        match c != '\n' && escaped(shown).to_string() != shown {
            true => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| fit.push_str(&format!("\\u{unit:04x}")))
            }
            false => fit.push(c),
        }
    }
    if !fit.ends_with('\n') {
        fit.push('\n');
    }
    fit
}

/// Prints a remark, without adding a line break.
pub fn remark(text: &str) {
    // If standard error is closed, there is nobody to tell.
    let _ = write!(std::io::stderr().lock(), "{}", escaped_lines(text));
}

/// Says on one line what went wrong.
pub fn complain(what: &str) {
    remark(&format!("smallmind: {}\n", escaped(what)));
}

/// Whether lines of progress are shown.
pub fn shows_progress(quiet: bool) -> bool {
    !quiet && std::io::stderr().is_terminal()
}

/// A line on standard error with the progress of a measurement, if standard error is a terminal.
pub fn progress(quiet: bool) -> ProgressBar {
    match shows_progress(quiet) {
        true => styled(ProgressBar::new_spinner(), "{msg}"),
        false => ProgressBar::hidden(),
    }
}

/// A bar that isn't shown before its position is set.
pub fn bar(quiet: bool, len: u64, template: &str) -> ProgressBar {
    match shows_progress(quiet) {
        true => styled(ProgressBar::new(len), template),
        false => ProgressBar::hidden(),
    }
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Does work that can't say how far it is, with a moving line as soon as it takes long.
pub fn while_waiting<T>(quiet: bool, what: &'static str, work: impl FnOnce() -> T) -> T {
    if !shows_progress(quiet) {
        return work();
    }
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            if waiting.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let line = styled(ProgressBar::new_spinner(), "{spinner} {msg}, {elapsed}").with_message(what);
            while waiting.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                line.tick();
            }
            line.finish_and_clear();
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_json_without_control_characters() {
        let value = serde_json::json!({ "rude\u{9b}": "\u{7f}\u{1b}[1m\n ĉ \u{202e}\u{1bca0}" });
        for text in [serde_json::to_string(&value), serde_json::to_string_pretty(&value)] {
            let fit = json_fit_for_terminals(&text.unwrap());
            assert!(
                !fit.contains(|c: char| c.is_control() && c != '\n' || c >= '\u{2000}')
                    && fit.ends_with("}\n"),
                "{fit:?}"
            );
            assert_eq!(serde_json::from_str::<serde_json::Value>(&fit).unwrap(), value);
        }
    }
}
