//! Parses an expression by jinja2's grammar, with its precedences, and writes it for minijinja: operators, attributes,
//! items and calls become filters, literals of lists, tuples and maps too.

use super::lexer::{Kind, Token};
use super::{MAX_CHAIN, MAX_EXPRESSIONS, PRIVATE, SyntaxError, push_literal, push_name};

/// An expression as minijinja reads it. It binds tighter than any operator.
pub(super) struct Code {
    pub text: String,
    /// Levels of its tree.
    depth: usize,
    /// It is this name and nothing else.
    name: Option<String>,
    /// It is a number, string or other constant.
    is_literal: bool,
}

pub(super) struct Parser<'t, 's> {
    tokens: &'t [Token<'s>],
    at: usize,
    /// The line of the tag, for faults at its end.
    line: usize,
    nesting: usize,
}

impl Code {
    fn new(text: impl Into<String>) -> Self {
        Code { text: text.into(), depth: 1, name: None, is_literal: false }
    }

    fn literal(text: impl Into<String>) -> Self {
        Code { is_literal: true, ..Code::new(text) }
    }

    pub(super) fn is_literal(&self) -> bool {
        self.is_literal
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

    fn unexpected(&self, wanted: &str) -> SyntaxError {
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

    fn check(&self, code: Code) -> Result<Code, SyntaxError> {
        if code.depth > MAX_CHAIN {
            return Err(self.unsupported(format!("an expression of more than {MAX_CHAIN} levels")));
        }
        Ok(code)
    }

    /// `base|_name(args)`.
    fn apply(&self, base: Code, filter: &str, args: Vec<Code>) -> Result<Code, SyntaxError> {
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
    fn chain(&self, operands: Vec<Code>, between: &str) -> Result<Code, SyntaxError> {
        let depth = operands.len() + operands.iter().map(|operand| operand.depth).max().unwrap_or(0);
        let mut text = String::from("(");
        join(&mut text, operands, between);
        text.push(')');
        self.check(Code { text, depth, name: None, is_literal: false })
    }

    pub(super) fn expression(&mut self) -> Result<Code, SyntaxError> {
        self.nested(|parser| {
            let mut value = parser.or()?;
            while parser.skip_name("if") {
                let condition = parser.or()?;
                let other = if parser.skip_name("else") { Some(parser.expression()?) } else { None };
                let depth = other.as_ref().map_or(0, |other| other.depth).max(condition.depth).max(value.depth) + 1;
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

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Code, SyntaxError>) -> Result<Code, SyntaxError> {
        self.nesting += 1;
        if self.nesting > MAX_EXPRESSIONS {
            return Err(self.unsupported(format!("more than {MAX_EXPRESSIONS} levels of nested expressions")));
        }
        let read = read(self);
        self.nesting -= 1;
        read
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
        let inner = Code { depth: value.depth + 1, text: format!("(not {})", value.text), name: None, is_literal: false };
        match count {
            0 => Ok(value),
            odd if odd % 2 == 1 => self.check(inner),
            _ => self.check(Code { depth: inner.depth + 1, text: format!("(not {})", inner.text), name: None, is_literal: false }),
        }
    }

    fn compare(&mut self) -> Result<Code, SyntaxError> {
        let first = self.sum()?;
        let mut args = Vec::new();
        loop {
            let operator = match self.peek() {
                Some(Kind::Operator(operator @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => operator,
                Some(Kind::Name("in")) => "in",
                Some(Kind::Name("not")) if self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Kind::Name("in")) => {
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

    fn primary(&mut self) -> Result<Code, SyntaxError> {
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
    pub(super) fn tuple(&mut self, conditional: bool, may_be_empty: bool, ends: &[&str]) -> Result<Code, SyntaxError> {
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

    fn is_end(&self, ends: &[&str]) -> bool {
        match self.peek() {
            None => true,
            Some(Kind::Operator(found) | Kind::Name(found)) => ends.contains(found),
            Some(_) => false,
        }
    }

    fn postfix(&mut self, mut value: Code) -> Result<Code, SyntaxError> {
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

    fn call(&mut self, function: Code) -> Result<Code, SyntaxError> {
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
    fn args(&mut self, iterated: bool) -> Result<Vec<Code>, SyntaxError> {
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
            let mut arg = self.expression()?;
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

    fn filters(&mut self, mut value: Code) -> Result<Code, SyntaxError> {
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

fn join(out: &mut String, parts: Vec<Code>, between: &str) {
    for (i, part) in parts.into_iter().enumerate() {
        if i > 0 {
            out.push_str(between);
        }
        out.push_str(&part.text);
    }
}

fn variable(name: &str) -> Code {
    let mut text = String::new();
    // minijinja has no such variable; jinja2's is an object that has the template's blocks.
    push_name(&mut text, if name == "self" { "_self" } else { name });
    Code { text, depth: 1, name: Some(name.to_owned()), is_literal: false }
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
