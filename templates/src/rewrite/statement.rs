//! Writes a template's statements for minijinja. jinja2's environment for chat templates knows `break`, `continue` and
//! `generation` besides jinja2's own.

use super::lexer::{Kind, Piece, Token};
use super::parser::Parser;
use super::{MAX_BLOCKS, MAX_CHAIN, SyntaxError, UNDEFINED, push_literal, push_name};

/// The template that `pieces` are the parts of.
pub(super) fn write(pieces: &[Piece<'_>]) -> Result<String, SyntaxError> {
    let mut writer = Writer { out: String::new(), line: 1, open: Vec::new() };
    for piece in pieces {
        if let Piece::Variable(tokens, _) | Piece::Block(tokens, _) = piece {
            writer.note_hidden(tokens);
        }
        match piece {
            Piece::Text(text) => {
                writer.out.push_str("{{");
                push_literal(&mut writer.out, text);
                writer.out.push_str("}}");
            }
            Piece::Variable(tokens, line) => {
                let mut parser = Parser::new(tokens, *line);
                let value = parser.tuple(true, false, &[])?;
                parser.end()?;
                writer.tag("{{ ", &value.text, " }}", *line);
            }
            Piece::Block(tokens, line) => writer.block(tokens, *line)?,
        }
    }
    match writer.open.last() {
        None => Ok(writer.out),
        Some(open) => Err(SyntaxError::new(open.line, format!("`{}` without `end{0}`", open.name))),
    }
}

/// A block that isn't closed yet.
struct Open {
    name: &'static str,
    line: usize,
    /// What closes it in minijinja.
    end: &'static str,
    elifs: usize,
    /// Behind `else`.
    in_else: bool,
    function: Option<Function>,
}

/// A macro whose body is read.
struct Function {
    name: String,
    /// The end of its parameters in the output, and whether it has some.
    params_end: usize,
    has_params: bool,
    /// The hidden parameters (see [`HIDDEN`]) that the macro itself names, and those that its body uses.
    named: [bool; 2],
    used: [bool; 2],
}

/// Variables of a macro that have the arguments for which it has no parameters. A macro that uses one has it as a hidden
/// parameter.
const HIDDEN: [&str; 2] = ["varargs", "kwargs"];

struct Writer {
    out: String,
    /// The line of the end of `out`.
    line: usize,
    open: Vec<Open>,
}

impl Writer {
    /// Writes a tag on its line.
    fn tag(&mut self, begin: &str, text: &str, end: &str, line: usize) {
        self.out.push_str(begin);
        let missing = line.saturating_sub(self.line);
        self.out.extend(std::iter::repeat_n('\n', missing));
        self.line += missing;
        self.out.push_str(text);
        self.out.push_str(end);
    }

    /// Notes for each open macro that `tokens` use a hidden parameter.
    fn note_hidden(&mut self, tokens: &[Token<'_>]) {
        for (i, hidden) in HIDDEN.iter().enumerate() {
            if tokens.iter().any(|token| matches!(token.kind, Kind::Name(name) if name == *hidden)) {
                let open = self.open.iter_mut().filter_map(|open| open.function.as_mut());
                open.for_each(|function| function.used[i] = true);
            }
        }
    }

    /// Opens a macro, for `macro`.
    fn open_macro(&mut self, parser: &mut Parser<'_, '_>, line: usize) -> Result<(), SyntaxError> {
        self.push("macro", "endmacro", line)?;
        let mut name = String::new();
        push_name(&mut name, parser.name()?);
        let (params, defaults) = parameters(parser)?;
        parser.end()?;
        self.charge_macro();
        self.statement(&format!("macro {name}{params}"), line);
        let params_end = self.out.len() - ") %}".len();
        self.out.push_str(&defaults);
        let names = |hidden: &str| {
            let params = params.trim_matches(['(', ')']).split(", ");
            params.map(|param| param.split('=').next().unwrap_or_default()).any(|name| name == hidden)
        };
        let function = Function {
            name,
            params_end,
            has_params: params != "()",
            named: HIDDEN.map(names),
            used: [false; 2],
        };
        if let Some(open) = self.open.last_mut() {
            open.function = Some(function);
        }
        Ok(())
    }

    /// Gives a macro that was closed its hidden parameters.
    fn hide(&mut self, function: &Function, line: usize) {
        let wanted = |i: &usize| function.used[*i] && !function.named[*i];
        let hidden: Vec<&str> = (0..HIDDEN.len()).filter(wanted).map(|i| HIDDEN[i]).collect();
        if hidden.is_empty() {
            return;
        }
        let mut params = String::new();
        for name in &hidden {
            if function.has_params || !params.is_empty() {
                params.push_str(", ");
            }
            params.push_str(&format!("{name}={UNDEFINED}"));
        }
        self.out.insert_str(function.params_end, &params);
        let (name, hidden) = (&function.name, hidden.join("','"));
        self.statement(&format!("set {name} = {name}|_variadic('{hidden}')"), line);
    }

    fn charge_macro(&mut self) {
        self.out.push_str("{{ ''|_macro }}");
    }

    fn statement(&mut self, text: &str, line: usize) {
        self.tag("{% ", text, " %}", line);
    }

    fn block(&mut self, tokens: &[Token<'_>], line: usize) -> Result<(), SyntaxError> {
        let mut parser = Parser::new(tokens, line);
        let name = parser.name()?;
        if let Some(opened) = name.strip_prefix("end") {
            return self.close(opened, &mut parser, line);
        }
        let text = match name {
            "for" => self.open_loop(&mut parser, line)?,
            "if" => {
                self.push("if", "endif", line)?;
                format!("if {}", parser.tuple(false, false, &[])?.text)
            }
            "elif" => self.elif(&mut parser)?,
            "else" => self.otherwise(&parser)?,
            "set" => self.set(&mut parser, line)?,
            "with" => self.with(&mut parser, line)?,
            "macro" => return self.open_macro(&mut parser, line),
            "call" => {
                self.push("call", "endcall", line)?;
                let has_params = parser.is_operator("(");
                let (params, defaults) =
                    if has_params { parameters(&mut parser)? } else { Default::default() };
                let call = parser.expression()?.text;
                parser.end()?;
                self.charge_macro();
                self.statement(&format!("call{params} {call}"), line);
                self.out.push_str(&defaults);
                return Ok(());
            }
            "filter" => {
                self.push("filter", "endfilter", line)?;
                format!("filter {}", parser.filter_chain()?)
            }
            "block" => {
                self.push("block", "endblock", line)?;
                let mut text = String::from("block ");
                push_name(&mut text, parser.name()?);
                parser.skip_name("scoped");
                parser.skip_name("required");
                text
            }
            // Its body is what a model wrote; the mark is for training.
            "generation" => {
                self.push("generation", "endwith", line)?;
                "with".into()
            }
            "autoescape" => {
                let on = parser.expression()?.text;
                if on != "false" {
                    return Err(parser.unsupported("`autoescape` with anything but `false`"));
                }
                self.push("autoescape", "endwith", line)?;
                "with".into()
            }
            "break" | "continue" => {
                self.check_loop(name, &parser)?;
                name.to_owned()
            }
            "extends" | "include" | "import" | "from" => {
                let mut message = String::new();
                push_literal(&mut message, &format!("`{name}`: a chat template has no other templates"));
                self.tag("{{ ", &format!("raise_exception({message})"), " }}", line);
                return Ok(());
            }
            _ => return Err(parser.unsupported(format!("the statement `{name}`"))),
        };
        parser.end()?;
        self.statement(&text, line);
        Ok(())
    }

    fn push(&mut self, name: &'static str, end: &'static str, line: usize) -> Result<(), SyntaxError> {
        if self.open.len() == MAX_BLOCKS {
            return Err(SyntaxError::unsupported(
                line,
                format!("more than {MAX_BLOCKS} levels of nested blocks"),
            ));
        }
        self.open.push(Open { name, line, end, elifs: 0, in_else: false, function: None });
        Ok(())
    }

    fn close(&mut self, name: &str, parser: &mut Parser<'_, '_>, line: usize) -> Result<(), SyntaxError> {
        match self.open.pop() {
            Some(open) if open.name == name => {
                if name == "block" && matches!(parser.peek(), Some(Kind::Name(_))) {
                    parser.name()?;
                }
                parser.end()?;
                self.statement(open.end, line);
                if let Some(function) = &open.function {
                    self.hide(function, line);
                }
                Ok(())
            }
            Some(open) => {
                let (wanted, from) = (open.name, open.line);
                Err(parser
                    .error(format!("`end{name}` where `end{wanted}` is missing (`{wanted}` in line {from})")))
            }
            None => Err(parser.error(format!("`end{name}` without its beginning"))),
        }
    }

    fn open_loop(&mut self, parser: &mut Parser<'_, '_>, line: usize) -> Result<String, SyntaxError> {
        self.push("for", "endfor", line)?;
        let target = parser.target(false, &["in"])?.text;
        if !parser.skip_name("in") {
            return Err(parser.error("expected `in`"));
        }
        let items = parser.tuple(false, false, &["recursive"])?.text;
        let mut text = format!("for {target} in {items}");
        if parser.skip_name("if") {
            text.push_str("|_kept if ");
            text.push_str(&parser.expression()?.text);
        } else {
            text.push_str("|_iter");
        }
        if parser.skip_name("recursive") {
            text.push_str(" recursive");
        }
        Ok(text)
    }

    fn elif(&mut self, parser: &mut Parser<'_, '_>) -> Result<String, SyntaxError> {
        match self.open.last_mut() {
            Some(open) if open.name == "if" && !open.in_else => {
                open.elifs += 1;
                if open.elifs > MAX_CHAIN {
                    return Err(parser.unsupported(format!("more than {MAX_CHAIN} `elif` of one `if`")));
                }
                Ok(format!("elif {}", parser.tuple(false, false, &[])?.text))
            }
            _ => Err(parser.error("`elif` without its `if`")),
        }
    }

    fn otherwise(&mut self, parser: &Parser<'_, '_>) -> Result<String, SyntaxError> {
        match self.open.last_mut() {
            Some(open) if matches!(open.name, "if" | "for") && !open.in_else => {
                open.in_else = true;
                Ok("else".into())
            }
            _ => Err(parser.error("`else` without its `if` or `for`")),
        }
    }

    fn set(&mut self, parser: &mut Parser<'_, '_>, line: usize) -> Result<String, SyntaxError> {
        let target = parser.target(true, &["="])?;
        if parser.skip_operator("=") {
            let mut value = parser.tuple(true, false, &[])?.text;
            if target.is_tuple {
                value.push_str("|_iter");
            }
            if target.has_attribute {
                value.push_str("|_stored");
            }
            return Ok(format!("set {} = {value}", target.text));
        }
        self.push("set", "endset", line)?;
        if parser.skip_operator("|") {
            return Ok(format!("set {}|{}", target.text, parser.filter_chain()?));
        }
        Ok(format!("set {}", target.text))
    }

    fn with(&mut self, parser: &mut Parser<'_, '_>, line: usize) -> Result<String, SyntaxError> {
        self.push("with", "endwith", line)?;
        let mut text = String::from("with");
        let mut first = true;
        while parser.peek().is_some() {
            if !first {
                parser.expect_operator(",")?;
            }
            let target = parser.target(false, &["="])?;
            if target.is_tuple {
                return Err(parser.error("`with` gives a value to one name at a time"));
            }
            parser.expect_operator("=")?;
            text.push_str(&format!(
                "{}{} = {}",
                if first { " " } else { ", " },
                target.text,
                parser.expression()?.text
            ));
            first = false;
        }
        Ok(text)
    }

    /// `break` and `continue` jump, so no block with a scope or an output of its own may lie between them and their
    /// loop.
    fn check_loop(&self, name: &str, parser: &Parser<'_, '_>) -> Result<(), SyntaxError> {
        for open in self.open.iter().rev() {
            match open.name {
                "for" if !open.in_else => return Ok(()),
                "for" | "if" => {}
                between => return Err(parser.unsupported(format!("`{name}` within `{between}`"))),
            }
        }
        Err(parser.error(format!("`{name}` outside of a loop")))
    }
}

/// The parameters of a macro or a call block, and statements that give them their defaults. minijinja's own defaults
/// don't see the parameters before them.
fn parameters(parser: &mut Parser<'_, '_>) -> Result<(String, String), SyntaxError> {
    parser.expect_operator("(")?;
    let mut text = String::from("(");
    let mut defaults = String::new();
    while !parser.is_operator(")") {
        if text.len() > 1 {
            parser.expect_operator(",")?;
            text.push_str(", ");
        }
        let mut name = String::new();
        push_name(&mut name, parser.name()?);
        text.push_str(&name);
        if parser.skip_operator("=") {
            let default = parser.expression()?;
            if default.is_literal {
                text.push('=');
                text.push_str(&default.text);
            } else {
                text.push('=');
                text.push_str(UNDEFINED);
                let set = format!(
                    "{{% if {name} is undefined() %}}{{% set {name} = {} %}}{{% endif %}}",
                    default.text
                );
                defaults.push_str(&set);
            }
        } else if text.contains('=') {
            return Err(parser.error("a parameter without a default behind one with a default"));
        }
    }
    parser.expect_operator(")")?;
    text.push(')');
    Ok((text, defaults))
}
