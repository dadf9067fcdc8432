//! Filters and tests, and the names that statements give values to.

use super::lexer::Kind;
use super::parser::{Code, Parser, join};
use super::{MAX_EXPRESSIONS, PRIVATE, SyntaxError, push_name};

impl Parser<'_, '_> {
    pub(super) fn filters(&mut self, mut value: Code) -> Result<Code, SyntaxError> {
        loop {
            value = if self.skip_operator("|") {
                let (name, args) = self.filter()?;
                self.apply(value, &name, args)?
            } else if self.is_name("is") {
                self.at += 1;
                self.test(value)?
            } else if self.is_operator("(") {
                self.call(value)?
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter's name and arguments.
    fn filter(&mut self) -> Result<(String, Vec<Code>), SyntaxError> {
        let name = self.dotted_name()?;
        let args = if self.is_operator("(") { self.args(false)? } else { Vec::new() };
        Ok((name, args))
    }

    /// `a|b(c)`, without the value that is filtered.
    pub(super) fn filter_chain(&mut self) -> Result<String, SyntaxError> {
        let mut text = String::new();
        loop {
            let (name, args) = self.filter()?;
            text.push_str(&name);
            if !args.is_empty() {
                text.push('(');
                join(&mut text, args, ",");
                text.push(')');
            }
            if !self.skip_operator("|") {
                return Ok(text);
            }
            text.push('|');
        }
    }

    fn dotted_name(&mut self) -> Result<String, SyntaxError> {
        let mut name = String::new();
        push_name(&mut name, self.name()?);
        while self.skip_operator(".") {
            name.push('.');
            push_name(&mut name, self.name()?);
        }
        if name.starts_with(PRIVATE) {
            return Err(self.error(format!("no filter or test has the name `{name}`")));
        }
        Ok(name)
    }

    fn test(&mut self, value: Code) -> Result<Code, SyntaxError> {
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let args = if self.is_operator("(") {
            self.args(false)?
        } else if self.begins_operand() {
            if self.is_name("is") {
                return Err(self.error("tests can't be chained with `is`"));
            }
            let operand = self.primary()?;
            vec![self.postfix(operand)?]
        } else {
            Vec::new()
        };
        let depth = 2 + args.iter().map(|arg| arg.depth).fold(value.depth, usize::max);
        let mut text = format!("({}{} is {name}(", if negated { "not " } else { "" }, value.text);
        join(&mut text, args, ",");
        text.push_str("))");
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    /// The argument of a test without parentheses may begin here.
    fn begins_operand(&self) -> bool {
        match self.peek() {
            Some(Kind::Name(name)) => !matches!(*name, "else" | "or" | "and"),
            Some(Kind::Integer(_) | Kind::Float(_) | Kind::Text(_)) => true,
            Some(Kind::Operator(operator)) => matches!(*operator, "[" | "{"),
            None => false,
        }
    }

    /// Names that are given values, with or without parentheses and commas. With `dotted` a name may have an attribute.
    pub(super) fn target(&mut self, dotted: bool, ends: &[&str]) -> Result<Target, SyntaxError> {
        let mut text = String::new();
        let (mut count, mut is_tuple, mut has_attribute) = (0, false, false);
        while !self.is_end(ends) {
            if self.skip_operator("(") {
                self.nesting += 1;
                if self.nesting > MAX_EXPRESSIONS {
                    return Err(self.unsupported("names nested so deep"));
                }
                let inner = self.target(dotted, &[")"])?;
                self.nesting -= 1;
                self.expect_operator(")")?;
                text.push_str(&format!("({})", inner.text));
            } else {
                let name = self.name()?;
                if matches!(name, "true" | "false" | "none" | "True" | "False" | "None" | "self" | "loop") {
                    return Err(self.error(format!("`{name}` can't be given a value")));
                }
                push_name(&mut text, name);
                if dotted && self.skip_operator(".") {
                    text.push('.');
                    push_name(&mut text, self.name()?);
                    has_attribute = true;
                }
            }
            count += 1;
            if !self.skip_operator(",") {
                break;
            }
            text.push(',');
            is_tuple = true;
        }
        if count == 0 { Err(self.unexpected("a name")) } else { Ok(Target { text, is_tuple, has_attribute }) }
    }
}

/// What is given a value.
pub(super) struct Target {
    pub text: String,
    pub is_tuple: bool,
    pub has_attribute: bool,
}
