//! Parses operators by jinja2's grammar, with its precedences. Each becomes a filter, which binds tighter than all.

use super::SyntaxError;
use super::lexer::Kind;
use super::parser::{Code, Parser};

impl Parser<'_, '_> {
    pub(super) fn expression(&mut self) -> Result<Code, SyntaxError> {
        self.nested(|parser| {
            let mut value = parser.or()?;
            while parser.skip_name("if") {
                let condition = parser.or()?;
                let other = if parser.skip_name("else") { Some(parser.expression()?) } else { None };
                let depth =
                    other.as_ref().map_or(0, |other| other.depth).max(condition.depth).max(value.depth) + 1;
                let mut text = format!("({} if {}", value.text, condition.text);
                if let Some(other) = other {
                    text.push_str(" else ");
                    text.push_str(&other.text);
                }
                text.push(')');
                value = parser.check(Code { text, depth, name: None, is_literal: false })?;
            }
            Ok(value)
        })
    }

    pub(super) fn or(&mut self) -> Result<Code, SyntaxError> {
        self.logic("or", Self::and)
    }

    fn and(&mut self) -> Result<Code, SyntaxError> {
        self.logic("and", Self::not)
    }

    fn logic(
        &mut self,
        word: &str,
        operand: impl Fn(&mut Self) -> Result<Code, SyntaxError>,
    ) -> Result<Code, SyntaxError> {
        let mut first = operand(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        if first.is_literal {
            // minijinja would compute the value of constants, as a boolean.
            first = self.apply(first, "_same", Vec::new())?;
        }
        let mut operands = vec![first];
        while self.skip_name(word) {
            operands.push(operand(self)?);
        }
        self.chain(operands, &format!(" {word} "))
    }

    fn not(&mut self) -> Result<Code, SyntaxError> {
        let mut count = 0_usize;
        while self.skip_name("not") {
            count += 1;
        }
        let value = self.compare()?;
        let inner = Code {
            depth: value.depth + 1,
            text: format!("(not {})", value.text),
            name: None,
            is_literal: false,
        };
        match count {
            0 => Ok(value),
            odd if odd % 2 == 1 => self.check(inner),
            _ => self.check(Code {
                depth: inner.depth + 1,
                text: format!("(not {})", inner.text),
                name: None,
                is_literal: false,
            }),
        }
    }

    fn compare(&mut self) -> Result<Code, SyntaxError> {
        let first = self.sum()?;
        let mut args = Vec::new();
        loop {
            let operator = match self.peek() {
                Some(Kind::Operator(operator @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => operator,
                Some(Kind::Name("in")) => "in",
                Some(Kind::Name("not"))
                    if self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Kind::Name("in")) =>
                {
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
            args.push(Code::new(format!("'{operator}'")));
            args.push(self.sum()?);
        }
        if args.is_empty() { Ok(first) } else { self.apply(first, "_compare", args) }
    }

    fn sum(&mut self) -> Result<Code, SyntaxError> {
        let mut value = self.concat()?;
        loop {
            let mut added = Vec::new();
            while self.skip_operator("+") {
                added.push(self.concat()?);
            }
            if !added.is_empty() {
                value = self.apply(value, "_add", added)?;
            }
            if !self.skip_operator("-") {
                return Ok(value);
            }
            let taken = self.concat()?;
            value = self.apply(value, "_sub", vec![taken])?;
        }
    }

    fn concat(&mut self) -> Result<Code, SyntaxError> {
        let first = self.product()?;
        let mut rest = Vec::new();
        while self.skip_operator("~") {
            rest.push(self.product()?);
        }
        if rest.is_empty() { Ok(first) } else { self.apply(first, "_concat", rest) }
    }

    fn product(&mut self) -> Result<Code, SyntaxError> {
        let mut value = self.power()?;
        loop {
            let filter = match self.peek() {
                Some(Kind::Operator("*")) => "_mul",
                Some(Kind::Operator("/")) => "_div",
                Some(Kind::Operator("//")) => "_floordiv",
                Some(Kind::Operator("%")) => "_mod",
                _ => return Ok(value),
            };
            self.at += 1;
            let other = self.power()?;
            value = self.apply(value, filter, vec![other])?;
        }
    }

    fn power(&mut self) -> Result<Code, SyntaxError> {
        let mut value = self.unary(true)?;
        while self.skip_operator("**") {
            let other = self.unary(true)?;
            value = self.apply(value, "_pow", vec![other])?;
        }
        Ok(value)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Code, SyntaxError> {
        let sign = match self.peek() {
            Some(Kind::Operator("-")) => Some("_neg"),
            Some(Kind::Operator("+")) => Some("_pos"),
            _ => None,
        };
        let mut value = match sign {
            None => self.primary()?,
            Some(filter) => {
                self.at += 1;
                let operand = self.nested(|parser| parser.unary(false))?;
                self.apply(operand, filter, Vec::new())?
            }
        };
        value = self.postfix(value)?;
        if with_filters { self.filters(value) } else { Ok(value) }
    }
}
