//! Where a chat's lines come from: a line editor where a person types at a terminal, else plain lines of standard
//! input.

use std::borrow::Cow;
use std::io::{BufRead, ErrorKind, IsTerminal, Read};

use rustyline::completion::Completer;
use rustyline::error::{ReadlineError, Signal};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{Cmd, Config, Editor, Helper, KeyCode, KeyEvent, Modifiers};
use smallmind::tokenizer::MAX_TEXT_BYTES;
use smallmind::{Error, Result};

use super::history::{self, History};
use crate::output::{complain, remark};

const PROMPT: &str = "> ";
/// Before a line that goes on with the one before.
const GOING_ON: &str = "… ";

/// What comes next.
pub enum Next {
    /// A line, or several that belong together, without the last line break.
    Line(String),
    /// A line that can't be a message, and why.
    Bad(Error),
    /// Ctrl-C where nothing runs that it could stop.
    Interrupted,
    End,
}

/// The source of lines.
pub enum Input {
    Editor(Box<Editor<Echo, MemHistory>>, Option<History>),
    Lines {
        /// Whether a person types them.
        prompting: bool,
    },
}

impl Input {
    /// The editor where input and output are a terminal that can do it.
    pub fn open(keeps_history: bool, quiet: bool) -> Result<Input> {
        let person = std::io::stdin().is_terminal();
        if !person || !std::io::stdout().is_terminal() || is_plain_terminal() {
            return Ok(Input::Lines { prompting: person && !quiet });
        }
        let history = if keeps_history { History::open() } else { None };
        editor(history.as_ref()).map(|editor| Input::Editor(Box::new(editor), history)).map_err(failed)
    }

    /// Whether a person edits lines.
    pub fn is_editor(&self) -> bool {
        matches!(self, Input::Editor(..))
    }

    /// Whether a person sees what is said, and not a script.
    pub fn is_person(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    /// Waits for the next line. A person's backslash at its end joins the line after it.
    ///
    /// # Errors
    /// [`Error::Io`] where standard input can't be read.
    pub fn next(&mut self) -> Result<Next> {
        let mut text = String::new();
        loop {
            let line = match self.line(if text.is_empty() { PROMPT } else { GOING_ON })? {
                Next::Line(line) => line,
                // What was begun is a message.
                Next::End if !text.is_empty() => {
                    text.pop();
                    return Ok(Next::Line(text));
                }
                other => return Ok(other),
            };
            text.push_str(&line);
            if !self.joins() || !text.ends_with('\\') {
                self.remember(&text);
                return Ok(Next::Line(text));
            }
            text.pop();
            text.push('\n');
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Next> {
        match self {
            Input::Editor(editor, _) => edited(editor, prompt),
            Input::Lines { prompting } => {
                if *prompting {
                    remark(prompt);
                }
                plain()
            }
        }
    }

    /// Whether a backslash joins lines: what a script says is taken as it is.
    fn joins(&self) -> bool {
        !matches!(self, Input::Lines { prompting: false })
    }

    fn remember(&mut self, text: &str) {
        let Input::Editor(editor, history) = self else { return };
        if text.trim().is_empty() {
            return;
        }
        // The editor's own history only ever refuses a line that it has.
        let _ = editor.add_history_entry(text);
        if let Some(Err(error)) = history.as_ref().map(|history| history.add(text)) {
            // Said once: it would be the same for every line.
            complain(&format!("the history is not kept: {error}"));
            *history = None;
        }
    }
}

/// The echo of a line that is edited: control characters, as a pasted text may have them, are in the line and not on the
/// terminal.
pub struct Echo;

impl Helper for Echo {}

impl Validator for Echo {}

impl Completer for Echo {
    type Candidate = String;
}

impl Hinter for Echo {
    type Hint = String;
}

impl Highlighter for Echo {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        visible(line)
    }

    fn highlight_char(&self, line: &str, _: usize, _: CmdKind) -> bool {
        line.chars().any(is_hidden)
    }
}

fn is_hidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// The line without control characters and without the sequences that ESC begins, to which the editor gives no width
/// either.
fn visible(line: &str) -> Cow<'_, str> {
    if !line.contains(is_hidden) {
        return line.into();
    }
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            shown.extend((!is_hidden(c)).then_some(c));
        } else if chars.next() == Some('[') {
            chars.find(|c| !matches!(c, '0'..='9' | ';'));
        }
    }
    shown.into()
}

/// Terminals that know no control sequences.
fn is_plain_terminal() -> bool {
    std::env::var("TERM").is_ok_and(|term| ["dumb", "cons25", "emacs"].contains(&term.as_str()))
}

fn editor(history: Option<&History>) -> rustyline::Result<Editor<Echo, MemHistory>> {
    let config = Config::builder().max_history_size(history::MAX_ENTRIES)?.history_ignore_dups(true)?.build();
    let memory = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, memory)?;
    editor.set_helper(Some(Echo));
    for entry in history.map(History::entries).unwrap_or_default() {
        editor.add_history_entry(entry)?;
    }
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    Ok(editor)
}

fn edited(editor: &mut Editor<Echo, MemHistory>, prompt: &str) -> Result<Next> {
    loop {
        return match editor.readline(prompt) {
            Ok(line) => Ok(Next::Line(line)),
            Err(ReadlineError::Eof) => Ok(Next::End),
            Err(ReadlineError::Interrupted | ReadlineError::Signal(Signal::Interrupt)) => {
                Ok(Next::Interrupted)
            }
            Err(ReadlineError::Signal(_)) => continue,
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                Ok(Next::Bad(Error::invalid("the terminal: a line that is not UTF-8, which is left out")))
            }
            Err(error) => Err(failed(error)),
        };
    }
}

fn failed(error: ReadlineError) -> Error {
    let source = match error {
        ReadlineError::Io(source) => source,
        other => std::io::Error::other(other.to_string()),
    };
    Error::Io { path: "the terminal".into(), source }
}

/// The next line of standard input.
fn plain() -> Result<Next> {
    let failed = |source| Error::Io { path: "standard input".into(), source };
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    if (&mut input).take(MAX_TEXT_BYTES as u64 + 1).read_until(b'\n', &mut line).map_err(failed)? == 0 {
        return Ok(Next::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        line.pop_if(|last| *last == b'\r');
    } else if line.len() > MAX_TEXT_BYTES {
        input.skip_until(b'\n').map_err(failed)?;
        let why = format!("standard input: a line of more than {MAX_TEXT_BYTES} bytes, which is left out");
        return Ok(Next::Bad(Error::invalid(why)));
    }
    Ok(match String::from_utf8(line) {
        Ok(line) => Next::Line(line),
        Err(_) => Next::Bad(Error::invalid("standard input: a line that is not UTF-8, which is left out")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_text_has_no_power_over_the_terminal() {
        for (line, shown) in [
            ("naïve 漢字\n\ttab", "naïve 漢字\n\ttab"),
            ("a\x1b[2Jb\x1b[31;1mc", "abc"),
            ("a\x1b]0;title\x07b", "a0;titleb"),
            ("a\x1bcb\x1b", "ab"),
            ("\x08\r\0\x7f\u{9b}2J", "2J"),
            ("a\x1b[\x1bb", "ab"),
        ] {
            assert_eq!(visible(line), shown, "{line:?}");
            assert_eq!(matches!(visible(line), Cow::Borrowed(_)), line == shown);
        }
    }
}
