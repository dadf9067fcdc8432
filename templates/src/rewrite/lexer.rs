//! Cuts a template into text and tags, and tags into tokens, as jinja2's lexer with `trim_blocks` and `lstrip_blocks`.
//! White space control (`{%-`, `-%}`, `{%+`), comments and `{% raw %}` are dealt with here and don't come out.

use super::SyntaxError;

/// A part of a template.
pub(super) enum Piece<'s> {
    /// Text that is written as it is.
    Text(&'s str),
    /// `{{ … }}`.
    Variable(Vec<Token<'s>>, usize),
    /// `{% … %}`.
    Block(Vec<Token<'s>>, usize),
}

/// A token and its line, from 1.
pub(super) struct Token<'s> {
    pub kind: Kind<'s>,
    pub line: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'s> {
    Name(&'s str),
    /// An integer in decimal digits.
    Integer(u128),
    /// A float as minijinja reads it.
    Float(String),
    Text(String),
    Operator(&'static str),
}

/// Longer operators come first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// Python's `str.isspace` of one character.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub(super) fn split(source: &str) -> Result<Vec<Piece<'_>>, SyntaxError> {
    let mut lexer = Lexer { source, at: 0, line: 1, line_starting: true };
    let mut pieces = Vec::new();
    while let Some((start, marker)) = lexer.next_marker() {
        let text = &source[lexer.at..start];
        let sign = source.as_bytes().get(start + 2).filter(|byte| matches!(byte, b'-' | b'+'));
        let kept = match sign {
            Some(b'-') => text.trim_end_matches(is_space),
            Some(_) => text,
            None if marker == '{' => text,
            None => lexer.without_indent(text),
        };
        if !kept.is_empty() {
            pieces.push(Piece::Text(kept));
        }
        lexer.advance(start + 2 + usize::from(sign.is_some()));
        let line = lexer.line;
        match marker {
            '#' => lexer.skip_comment()?,
            '{' => pieces.push(Piece::Variable(lexer.tokens("}}")?, line)),
            _ => match lexer.raw()? {
                Some(text) => pieces.push(Piece::Text(text)),
                None => pieces.push(Piece::Block(lexer.tokens("%}")?, line)),
            },
        }
    }
    if lexer.at < source.len() {
        pieces.push(Piece::Text(&source[lexer.at..]));
    }
    Ok(pieces)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    /// The last tag took a line end with it, so white space that follows is an indent.
    line_starting: bool,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn error(&self, message: impl Into<String>) -> SyntaxError {
        SyntaxError::new(self.line, message)
    }

    /// Goes on to the byte `to`, and counts lines.
    fn advance(&mut self, to: usize) {
        let passed = &self.source.as_bytes()[self.at..to];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count();
        self.line_starting = passed.last() == Some(&b'\n');
        self.at = to;
    }

    fn next_marker(&self) -> Option<(usize, char)> {
        let bytes = self.source.as_bytes();
        (self.at..bytes.len().saturating_sub(1))
            .find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'{' | b'%' | b'#'))
            .map(|i| (i, char::from(bytes[i + 1])))
    }

    /// `lstrip_blocks`: white space between the beginning of a line and a block goes.
    fn without_indent(&self, text: &'s str) -> &'s str {
        let line = text.rfind('\n').map_or(0, |at| at + 1);
        let is_indent = (line > 0 || self.line_starting) && text[line..].chars().all(is_space);
        if is_indent { &text[..line] } else { text }
    }

    /// The length of a tag's end at the beginning of `rest`, with the white space that it takes with it.
    fn end(rest: &str, end: &str) -> Option<usize> {
        if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
            return Some(rest.len() - after.trim_start_matches(is_space).len());
        }
        let is_block = end != "}}";
        if is_block && rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(end)) {
            return Some(1 + end.len());
        }
        let after = rest.strip_prefix(end)?;
        Some(end.len() + usize::from(is_block && after.starts_with('\n')))
    }

    fn skip_comment(&mut self) -> Result<(), SyntaxError> {
        // The shortest comment: a sign belongs to its end.
        let end = self.rest().find("#}").ok_or_else(|| self.error("a comment without an end (`#}`)"))?;
        let signed = end > 0 && matches!(self.rest().as_bytes()[end - 1], b'-' | b'+');
        let at = self.at + end - usize::from(signed);
        let length = Self::end(&self.source[at..], "#}").unwrap_or(2);
        self.advance(at + length);
        Ok(())
    }

    /// The text of a raw block, if one begins here.
    fn raw(&mut self) -> Result<Option<&'s str>, SyntaxError> {
        let rest = self.rest();
        let Some(after) = rest.trim_start_matches(is_space).strip_prefix("raw") else { return Ok(None) };
        let after = after.trim_start_matches(is_space);
        // The beginning takes no line end, whatever `trim_blocks` says.
        let begin = match after.strip_prefix("-%}") {
            Some(body) => body.trim_start_matches(is_space),
            None => match after.strip_prefix("%}") {
                Some(body) => body,
                None => return Ok(None),
            },
        };
        let start = self.source.len() - begin.len();
        self.advance(start);
        let mut from = start;
        while let Some(found) = self.source[from..].find("{%") {
            let tag = from + found;
            let after = &self.source[tag + 2..];
            let sign = after.as_bytes().first().filter(|byte| matches!(byte, b'-' | b'+')).copied();
            let name = after[usize::from(sign.is_some())..].trim_start_matches(is_space);
            if let Some(rest) = name.strip_prefix("endraw") {
                let rest = rest.trim_start_matches(is_space);
                if let Some(length) = Self::end(rest, "%}") {
                    let text = &self.source[start..tag];
                    let kept = match sign {
                        Some(b'-') => text.trim_end_matches(is_space),
                        Some(_) => text,
                        None => self.without_indent(text),
                    };
                    self.advance(self.source.len() - rest.len() + length);
                    return Ok(Some(kept));
                }
            }
            from = tag + 2;
        }
        Err(self.error("`raw` without `endraw`"))
    }

    /// The tokens up to the end of a tag.
    fn tokens(&mut self, end: &'static str) -> Result<Vec<Token<'s>>, SyntaxError> {
        let mut tokens = Vec::new();
        let mut open: Vec<&str> = Vec::new();
        loop {
            let space = self.rest().len() - self.rest().trim_start_matches(is_space).len();
            self.advance(self.at + space);
            if self.rest().is_empty() {
                return Err(self.error(format!("the template ends within a tag (`{end}` is missing)")));
            }
            if open.is_empty()
                && let Some(length) = Self::end(self.rest(), end)
            {
                self.advance(self.at + length);
                return Ok(tokens);
            }
            let line = self.line;
            let (kind, length) = self.token()?;
            if let Kind::Operator(operator) = kind {
                self.balance(&mut open, operator)?;
            }
            self.advance(self.at + length);
            tokens.push(Token { kind, line });
        }
    }

    fn balance(&self, open: &mut Vec<&str>, operator: &'static str) -> Result<(), SyntaxError> {
        match operator {
            "(" => open.push(")"),
            "[" => open.push("]"),
            "{" => open.push("}"),
            ")" | "]" | "}" if open.pop() != Some(operator) => {
                return Err(self.error(format!("unexpected `{operator}`")));
            }
            _ => {}
        }
        Ok(())
    }

    fn token(&self) -> Result<(Kind<'s>, usize), SyntaxError> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '_' || first.is_alphanumeric() {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            return Ok((Kind::Name(&rest[..length]), length));
        }
        if first == '\'' || first == '"' {
            return self.text(first);
        }
        match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            Some(operator) => Ok((Kind::Operator(operator), operator.len())),
            None => Err(self.error(format!("unexpected character {first:?}"))),
        }
    }

    fn number(&self) -> Result<(Kind<'s>, usize), SyntaxError> {
        let rest = self.rest().as_bytes();
        let too_large = || SyntaxError::unsupported(self.line, "an integer above 2^127");
        let prefix = rest.get(1).map(u8::to_ascii_lowercase).filter(|_| rest[0] == b'0');
        let radix = prefix.and_then(|p| [(b'x', 16), (b'o', 8), (b'b', 2)].into_iter().find(|r| r.0 == p));
        if let Some((_, radix)) = radix {
            let length = digits(&rest[2..], radix, true);
            if length > 0 {
                let text = String::from_utf8_lossy(&rest[2..2 + length]).replace('_', "");
                let value = u128::from_str_radix(&text, radix).ok().filter(|v| i128::try_from(*v).is_ok());
                return Ok((Kind::Integer(value.ok_or_else(too_large)?), 2 + length));
            }
        }
        let mut length = digits(rest, 10, false);
        let mut is_float = false;
        // A dot before digits, unless this number is itself behind a dot (`a.0.1`).
        let behind_dot = self.at > 0 && self.source.as_bytes()[self.at - 1] == b'.';
        if !behind_dot {
            if rest.get(length) == Some(&b'.') {
                let fraction = digits(&rest[length + 1..], 10, false);
                if fraction > 0 {
                    length += 1 + fraction;
                    is_float = true;
                }
            }
            if rest.get(length).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e')) {
                let sign = usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
                let exponent = digits(rest.get(length + 1 + sign..).unwrap_or_default(), 10, false);
                if exponent > 0 {
                    length += 1 + sign + exponent;
                    is_float = true;
                }
            }
        }
        if is_float {
            let text = String::from_utf8_lossy(&rest[..length]).replace('_', "");
            return Ok((Kind::Float(text), length));
        }
        if rest[0] == b'0' {
            // Zeros only: `007` is no number in Python.
            let zeros = rest[..length].iter().take_while(|byte| matches!(byte, b'0' | b'_')).count();
            return Ok((Kind::Integer(0), zeros));
        }
        let text = String::from_utf8_lossy(&rest[..length]).replace('_', "");
        let value = text.parse::<u128>().ok().filter(|v| i128::try_from(*v).is_ok()).ok_or_else(too_large)?;
        Ok((Kind::Integer(value), length))
    }

    fn text(&self, quote: char) -> Result<(Kind<'s>, usize), SyntaxError> {
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                chars.next();
            } else if c == quote {
                let text = unescaped(&rest[1..at]).map_err(|message| self.error(message))?;
                return Ok((Kind::Text(text), at + 1));
            }
        }
        Err(self.error("a string without an end"))
    }
}

/// The length of digits with single underscores between them, or before the first where `leading`.
fn digits(bytes: &[u8], radix: u32, leading: bool) -> usize {
    let is_digit = |at: usize| bytes.get(at).is_some_and(|byte| char::from(*byte).is_digit(radix));
    let mut length = 0;
    loop {
        if is_digit(length) {
            length += 1;
        } else if (length > 0 || leading) && bytes.get(length) == Some(&b'_') && is_digit(length + 1) {
            length += 2;
        } else {
            return length;
        }
    }
}

/// Python's escapes. A surrogate, which Rust's strings can't have, becomes U+FFFD; two that belong together become
/// their character.
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        let mut code = None;
        if c != '\\' {
            out.push(c);
        } else {
            match chars.next() {
                Some('\n') | None => {}
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('a') => out.push('\x07'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('v') => out.push('\x0b'),
                Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                Some('x') => code = Some(hex(&mut chars, 2)?),
                Some('u') => code = Some(hex(&mut chars, 4)?),
                Some('U') => code = Some(hex(&mut chars, 8)?),
                Some('N') => return Err("characters by name (`\\N{…}`) aren't supported".into()),
                Some(c @ '0'..='7') => {
                    let rest = chars.as_str();
                    let more = rest.bytes().take(2).take_while(|byte| (b'0'..b'8').contains(byte)).count();
                    let octal = format!("{c}{}", &rest[..more]);
                    chars = rest[more..].chars();
                    code = u32::from_str_radix(&octal, 8).ok();
                }
                Some(c) => out.extend(['\\', c]),
            }
        }
        let Some(code) = code else {
            high = None;
            continue;
        };
        match high.take() {
            Some(first) if (0xdc00..0xe000).contains(&code) => {
                out.pop();
                let pair = 0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00);
                out.push(char::from_u32(pair).unwrap_or('\u{fffd}'));
            }
            _ if code > 0x10_ffff => return Err(format!("no character has the number {code:#x}")),
            _ => {
                high = Some(code).filter(|code| (0xd800..0xdc00).contains(code));
                out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
        }
    }
    Ok(out)
}

fn hex(chars: &mut std::str::Chars<'_>, count: usize) -> Result<u32, String> {
    let rest = chars.as_str();
    let text = rest.get(..count).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let text = text.ok_or("an escape with too few hexadecimal digits")?;
    *chars = rest[count..].chars();
    u32::from_str_radix(text, 16).map_err(|error| error.to_string())
}
