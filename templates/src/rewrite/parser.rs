//! Reads the tokens of a tag, and puts together the code of an expression: what all parts of the grammar share.

use super::lexer::{Kind, Token};
use super::{MAX_CHAIN, MAX_EXPRESSIONS, SyntaxError};

/// An expression as minijinja reads it. It binds tighter than any operator.
pub(super) struct Code {
    pub text: String,
    /// Levels of its tree.
    pub(super) depth: usize,
    /// It is this name and nothing else.
    pub(super) name: Option<String>,
    /// It is a number, string or other constant.
    pub(super) is_literal: bool,
}

pub(super) struct Parser<'t, 's> {
    pub(super) tokens: &'t [Token<'s>],
    pub(super) at: usize,
    /// The line of the tag, for faults at its end.
    line: usize,
    pub(super) nesting: usize,
}

impl Code {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Code { text: text.into(), depth: 1, name: None, is_literal: false }
    }

    pub(super) fn literal(text: impl Into<String>) -> Self {
        Code { is_literal: true, ..Code::new(text) }
    }
}

impl<'t, 's> Parser<'t, 's> {
    pub(super) fn new(tokens: &'t [Token<'s>], line: usize) -> Self {
        Parser { tokens, at: 0, line, nesting: 0 }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.tokens.get(self.at).map_or(self.line, |token| token.line), message)
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { is_unsupported: true, ..self.error(what) }
    }

    pub(super) fn unexpected(&self, wanted: &str) -> SyntaxError {
        match self.peek() {
            None => self.error(format!("the tag ends where {wanted} should be")),
            Some(kind) => self.error(format!("expected {wanted}, found {}", shown(kind))),
        }
    }

    pub(super) fn peek(&self) -> Option<&'t Kind<'s>> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Kind::Operator(found)) if *found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Kind::Name(found)) if *found == name)
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_operator(&mut self, operator: &str) -> Result<(), SyntaxError> {
        if self.skip_operator(operator) { Ok(()) } else { Err(self.unexpected(&format!("`{operator}`"))) }
    }

    pub(super) fn name(&mut self) -> Result<&'s str, SyntaxError> {
        match self.peek() {
            Some(Kind::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Refuses tokens behind what was read.
    pub(super) fn end(&self) -> Result<(), SyntaxError> {
        if self.at < self.tokens.len() { Err(self.unexpected("the end of the tag")) } else { Ok(()) }
    }

    pub(super) fn check(&self, code: Code) -> Result<Code, SyntaxError> {
        if code.depth > MAX_CHAIN {
            return Err(self.unsupported(format!("an expression of more than {MAX_CHAIN} levels")));
        }
        Ok(code)
    }

    /// `base|_name(args)`.
    pub(super) fn apply(&self, base: Code, filter: &str, args: Vec<Code>) -> Result<Code, SyntaxError> {
        let depth = 1 + args.iter().map(|arg| arg.depth).fold(base.depth, usize::max);
        let mut text = base.text;
        text.push('|');
        text.push_str(filter);
        if !args.is_empty() {
            text.push('(');
            join(&mut text, args, ",");
            text.push(')');
        }
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    /// `(a between b between …)`.
    pub(super) fn chain(&self, operands: Vec<Code>, between: &str) -> Result<Code, SyntaxError> {
        let depth = operands.len() + operands.iter().map(|operand| operand.depth).max().unwrap_or(0);
        let mut text = String::from("(");
        join(&mut text, operands, between);
        text.push(')');
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    pub(super) fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Code, SyntaxError>,
    ) -> Result<Code, SyntaxError> {
        self.nesting += 1;
        if self.nesting > MAX_EXPRESSIONS {
            return Err(self.unsupported(format!("more than {MAX_EXPRESSIONS} levels of nested expressions")));
        }
        let read = read(self);
        self.nesting -= 1;
        read
    }
}

pub(super) fn join(out: &mut String, parts: Vec<Code>, between: &str) {
    for (i, part) in parts.into_iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        out.push_str(&part.text);
    }
}

fn shown(kind: &Kind<'_>) -> String {
    match kind {
        Kind::Name(name) => format!("`{name}`"),
        Kind::Integer(value) => value.to_string(),
        Kind::Float(text) => text.clone(),
        Kind::Text(_) => "a string".into(),
        Kind::Operator(operator) => format!("`{operator}`"),
    }
}
