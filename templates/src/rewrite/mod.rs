//! Rewrites a template of jinja2 into the part of the language in which minijinja and jinja2 agree.
//! minijinja keeps statements, scopes, loops and macros. Text between tags becomes string literals, so that white space
//! is treated as jinja2 does, and each operator becomes a filter of [`super::python`], which has Python's semantics.
//!
//! `{{ a.b + 1 }}` becomes `{{ a|_attr('b')|_add(1) }}`. A tag stays on its line, so minijinja's line numbers are right.

mod expression;
mod filters;
mod lexer;
mod operand;
mod parser;
mod statement;

pub(super) use lexer::is_space;

/// Filters with this first character are ours; a template can't name them.
pub(super) const PRIVATE: char = '_';
/// The variable that stands for jinja2's `self`. No character of a name is mangled to it (see [`push_name`]).
pub(super) const SELF: &str = "_u1_";
/// A variable that is never defined.
const UNDEFINED: &str = "_u0_";
/// Most levels of nested expressions; minijinja refuses 150 levels of its own, of which an expression takes three.
const MAX_EXPRESSIONS: usize = 32;
/// Most levels of nested blocks.
const MAX_BLOCKS: usize = 50;
/// Most operators, filters and attributes in one chain, and most `elif`s of an `if`: minijinja compiles them
/// recursively.
const MAX_CHAIN: usize = 300;

/// A template that doesn't compile.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// The line, from 1.
    pub line: usize,
    /// The fault.
    pub message: String,
    /// jinja2 may take it, this library doesn't.
    pub is_unsupported: bool,
}

impl SyntaxError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        SyntaxError { line, message: message.into(), is_unsupported: false }
    }

    fn unsupported(line: usize, what: impl Into<String>) -> Self {
        SyntaxError { line, message: what.into(), is_unsupported: true }
    }
}

/// The template in minijinja's language.
///
/// # Errors
/// A fault that jinja2 finds when it compiles a template, or nesting beyond a limit.
pub(super) fn rewrite(source: &str) -> Result<String, SyntaxError> {
    let source = normalised(source);
    statement::write(&lexer::split(&source)?)
}

/// Line ends as jinja2 makes them: CRLF and CR become LF, and one line end at the end is dropped.
fn normalised(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// Appends a literal that minijinja reads as `text`. It has no line end, so that tags stay on their lines.
fn push_literal(out: &mut String, text: &str) {
    out.push('\'');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('\'');
}

/// A name that minijinja reads; it knows ASCII only, jinja2 all that Python takes.
fn push_name(out: &mut String, name: &str) {
    for c in name.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(&format!("_u{:x}_", u32::from(c)));
        }
    }
}
