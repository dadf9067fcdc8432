//! Operands of expressions: names, literals, attributes, subscripts and calls. Attributes, subscripts and calls become
//! filters, literals of lists, tuples and maps too.

use super::lexer::Kind;
use super::parser::{Code, Parser, join};
use super::{SELF, SyntaxError, UNDEFINED, push_literal, push_name};

impl Parser<'_, '_> {
    pub(super) fn primary(&mut self) -> Result<Code, SyntaxError> {
        let kind = self.peek().ok_or_else(|| self.unexpected("an expression"))?;
        self.at += 1;
        match kind {
            Kind::Name("true" | "True") => Ok(Code::literal("true")),
            Kind::Name("false" | "False") => Ok(Code::literal("false")),
            Kind::Name("none" | "None") => Ok(Code::literal("none")),
            Kind::Name(name) => Ok(variable(name)),
            Kind::Integer(value) => Ok(Code::literal(value.to_string())),
            Kind::Float(text) => Ok(Code::literal(text.clone())),
            Kind::Text(text) => {
                let mut whole = text.clone();
                while let Some(Kind::Text(more)) = self.peek() {
                    whole.push_str(more);
                    self.at += 1;
                }
                let mut literal = String::new();
                push_literal(&mut literal, &whole);
                Ok(Code::literal(literal))
            }
            Kind::Operator("(") => {
                let value = self.tuple(true, true, &[")"])?;
                self.expect_operator(")")?;
                Ok(value)
            }
            Kind::Operator("[") => self.list(),
            Kind::Operator("{") => self.map(),
            _ => {
                self.at -= 1;
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn list(&mut self) -> Result<Code, SyntaxError> {
        let mut items = Vec::new();
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_operator("]")?;
        self.sequence(items, "_list")
    }

    fn map(&mut self) -> Result<Code, SyntaxError> {
        let mut items = Vec::new();
        while !self.is_operator("}") {
            if !items.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator("}") {
                    break;
                }
            }
            items.push(self.expression()?);
            self.expect_operator(":")?;
            items.push(self.expression()?);
        }
        self.expect_operator("}")?;
        self.sequence(items, "_dict")
    }

    fn sequence(&self, items: Vec<Code>, filter: &str) -> Result<Code, SyntaxError> {
        let depth = 2 + items.iter().map(|item| item.depth).max().unwrap_or(0);
        let mut text = String::from("[");
        join(&mut text, items, ",");
        text.push_str("]|");
        text.push_str(filter);
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    /// An expression, or a tuple of some without parentheses. It ends before one of `ends`, which are operators or
    /// names, or at the end of the tag.
    pub(super) fn tuple(
        &mut self,
        conditional: bool,
        may_be_empty: bool,
        ends: &[&str],
    ) -> Result<Code, SyntaxError> {
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            if self.is_end(ends) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.or()? });
            if !self.is_operator(",") {
                break;
            }
            is_tuple = true;
        }
        match items.len() {
            0 if !may_be_empty => Err(self.unexpected("an expression")),
            1 if !is_tuple => items.pop().ok_or_else(|| self.unexpected("an expression")),
            _ => self.sequence(items, "_tuple"),
        }
    }

    pub(super) fn is_end(&self, ends: &[&str]) -> bool {
        match self.peek() {
            None => true,
            Some(Kind::Operator(found) | Kind::Name(found)) => ends.contains(found),
            Some(_) => false,
        }
    }

    pub(super) fn postfix(&mut self, mut value: Code) -> Result<Code, SyntaxError> {
        loop {
            value = if self.skip_operator(".") {
                self.attribute(value)?
            } else if self.skip_operator("[") {
                self.subscript(value)?
            } else if self.is_operator("(") {
                self.call(value)?
            } else {
                return Ok(value);
            }
        }
    }

    fn attribute(&mut self, base: Code) -> Result<Code, SyntaxError> {
        if let Some(Kind::Integer(index)) = self.peek() {
            self.at += 1;
            return self.apply(base, "_item", vec![Code::new(index.to_string())]);
        }
        let name = self.name()?;
        let mut literal = String::new();
        push_literal(&mut literal, name);
        if !self.is_operator("(") {
            return self.apply(base, "_attr", vec![Code::new(literal)]);
        }
        if base.name.as_deref() == Some("self") {
            let mut text = String::from("self.");
            push_name(&mut text, name);
            let args = self.args(false)?;
            return self.called(text, args);
        }
        let mut args = vec![Code::new(literal)];
        args.extend(self.args(false)?);
        self.apply(base, "_method", args)
    }

    pub(super) fn call(&mut self, function: Code) -> Result<Code, SyntaxError> {
        match &function.name {
            Some(name) => {
                // A recursive loop iterates over its argument.
                let args = self.args(name == "loop")?;
                self.called(function.text, args)
            }
            None => {
                let args = self.args(false)?;
                self.apply(function, "_call", args)
            }
        }
    }

    fn called(&self, mut text: String, args: Vec<Code>) -> Result<Code, SyntaxError> {
        let depth = 1 + args.iter().map(|arg| arg.depth).max().unwrap_or(0);
        text.push('(');
        join(&mut text, args, ",");
        text.push(')');
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    fn subscript(&mut self, base: Code) -> Result<Code, SyntaxError> {
        let mut items = Vec::new();
        let mut slice = None;
        while !self.is_operator("]") {
            if !items.is_empty() {
                self.expect_operator(",")?;
            }
            let start = if self.is_operator(":") { Code::new("none") } else { self.expression()? };
            if !self.is_operator(":") {
                items.push(start);
                continue;
            }
            let mut bounds = vec![start];
            while bounds.len() < 3 && self.skip_operator(":") {
                let omitted = self.is_operator(":") || self.is_operator("]") || self.is_operator(",");
                bounds.push(if omitted { Code::new("none") } else { self.expression()? });
            }
            slice = Some(bounds);
            items.push(Code::new("none"));
        }
        self.expect_operator("]")?;
        match (slice, items.len()) {
            (_, 0) => Err(self.error("a subscript without an expression")),
            (Some(bounds), 1) => self.apply(base, "_slice", bounds),
            (Some(_), _) => Err(self.unsupported("a slice within a tuple")),
            (None, 1) => self.apply(base, "_item", items),
            (None, _) => {
                let key = self.sequence(items, "_tuple")?;
                self.apply(base, "_item", vec![key])
            }
        }
    }

    /// Arguments in parentheses. With `iterated` each is made something to iterate over.
    pub(super) fn args(&mut self, iterated: bool) -> Result<Vec<Code>, SyntaxError> {
        self.expect_operator("(")?;
        let mut args: Vec<Code> = Vec::new();
        let mut has_keywords = false;
        while !self.is_operator(")") {
            if !args.is_empty() {
                self.expect_operator(",")?;
                if self.is_operator(")") {
                    break;
                }
            }
            let prefix = if self.skip_operator("**") {
                has_keywords = true;
                String::from("**")
            } else if self.skip_operator("*") {
                String::from("*")
            } else if let Some(keyword) = self.keyword() {
                has_keywords = true;
                keyword
            } else if has_keywords {
                return Err(self.error("a positional argument behind a named one"));
            } else {
                String::new()
            };
            let is_splat = prefix.starts_with('*');
            let mut arg = self.expression()?;
            if is_splat {
                arg = self.apply(arg, "_splat", Vec::new())?;
            }
            if iterated {
                arg = self.apply(arg, "_iter", Vec::new())?;
            }
            args.push(Code { text: prefix + &arg.text, depth: arg.depth, name: None, is_literal: false });
        }
        self.expect_operator(")")?;
        Ok(args)
    }

    /// `name=`.
    fn keyword(&mut self) -> Option<String> {
        let Some(Kind::Name(name)) = self.peek() else { return None };
        let next = self.tokens.get(self.at + 1).map(|token| &token.kind);
        if next != Some(&Kind::Operator("=")) {
            return None;
        }
        self.at += 2;
        let mut text = String::new();
        push_name(&mut text, name);
        text.push('=');
        Some(text)
    }
}

fn variable(name: &str) -> Code {
    let mut text = String::new();
    // minijinja has no such variable; jinja2's is an object that has the template's blocks.
    push_name(
        &mut text,
        match name {
            "self" => SELF,
            // Where an operand should be, jinja2 takes these for variables, which no template can set.
            "and" | "or" | "not" | "if" | "else" | "in" | "is" => UNDEFINED,
            name => name,
        },
    );
    Code { text, depth: 1, name: Some(name.to_owned()), is_literal: false }
}
