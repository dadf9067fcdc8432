//! Python's `str()` and `repr()` of values.

use super::budget::{Budget, MAX_VALUE_BYTES};
use super::values::{self, Kind};
use super::{out_of_memory, wrong};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

/// The text of a value; a string's is its own.
pub(super) enum Shown<'v> {
    Own(&'v str),
    Made(String),
}

impl<'v> Shown<'v> {
    pub(super) fn new(value: &'v Value, budget: &Budget) -> Result<Self, Error> {
        match value.as_str() {
            Some(text) => Ok(Shown::Own(text)),
            None => shown(value, budget).map(Shown::Made),
        }
    }
}

impl std::ops::Deref for Shown<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Shown::Own(text) => text,
            Shown::Made(text) => text,
        }
    }
}

/// A text that is charged as it grows.
pub(super) struct Text<'b> {
    text: String,
    budget: &'b Budget,
}

impl<'b> Text<'b> {
    pub(super) fn new(budget: &'b Budget) -> Self {
        Text { text: String::new(), budget }
    }

    pub(super) fn push_str(&mut self, more: &str) -> Result<(), Error> {
        self.budget.make(more.len())?;
        let length = self.text.len() + more.len();
        if length > MAX_VALUE_BYTES {
            return Err(wrong(format!("a text of more than {MAX_VALUE_BYTES} bytes")));
        }
        self.budget.memory.reserve_text(&mut self.text, more.len()).map_err(out_of_memory)?;
        self.text.push_str(more);
        Ok(())
    }

    pub(super) fn push(&mut self, c: char) -> Result<(), Error> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// Appends `str(value)`.
    pub(super) fn push_value(&mut self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.push_str(text),
            None if value.is_undefined() => Ok(()),
            None => push_repr(self, value),
        }
    }

    /// Appends a text in which some characters become others.
    pub(super) fn push_escaped(
        &mut self,
        text: &str,
        escape: impl Fn(char) -> Option<String>,
    ) -> Result<(), Error> {
        let mut from = 0;
        for (at, c) in text.char_indices() {
            if let Some(escaped) = escape(c) {
                self.push_str(&text[from..at])?;
                self.push_str(&escaped)?;
                from = at + c.len_utf8();
            }
        }
        self.push_str(&text[from..])
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Python's `str(value)`.
pub(crate) fn shown(value: &Value, budget: &Budget) -> Result<String, Error> {
    let mut out = Text::new(budget);
    out.push_value(value)?;
    Ok(out.finish())
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value, budget: &Budget) -> Result<String, Error> {
    let mut out = Text::new(budget);
    push_repr(&mut out, value)?;
    Ok(out.finish())
}

fn push_repr(out: &mut Text<'_>, value: &Value) -> Result<(), Error> {
    if let Some(sequence) = values::sequence(value) {
        return push_sequence(out, sequence);
    }
    if let Some(dict) = values::as_dict(value) {
        return push_pairs(out, dict.pairs.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined")?,
        ValueKind::None => out.push_str("None")?,
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string())?,
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?))?,
        ValueKind::String => push_quoted(out, value.as_str().unwrap_or_default())?,
        _ if values::is_namespace(value) => {
            // A namespace may hold no other, so this ends.
            let object = value.as_object().and_then(|object| object.try_iter_pairs());
            out.push_str("<Namespace ")?;
            push_pairs(out, object.into_iter().flatten())?;
            out.push('>')?;
        }
        _ => match value.get_attr("name")?.as_str() {
            Some(name) => out.push_str(&format!("<Macro '{name}'>"))?,
            None => out.push_str(&value.to_string())?,
        },
    }
    Ok(())
}

fn push_sequence(out: &mut Text<'_>, sequence: &values::Sequence) -> Result<(), Error> {
    let (begin, end) = match sequence.kind {
        Kind::List => ("[", "]"),
        Kind::Tuple if sequence.items.len() == 1 => ("(", ",)"),
        Kind::Tuple => ("(", ")"),
        Kind::Keys => ("dict_keys([", "])"),
        Kind::Values => ("dict_values([", "])"),
        Kind::Items => ("dict_items([", "])"),
        Kind::Range(start, stop, step) => {
            let step = if step == 1 { String::new() } else { format!(", {step}") };
            return out.push_str(&format!("range({start}, {stop}{step})"));
        }
        Kind::Iterator => return out.push_str("<generator object>"),
    };
    out.push_str(begin)?;
    for (i, item) in sequence.items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ")?;
        }
        push_repr(out, item)?;
    }
    out.push_str(end)
}

fn push_pairs(out: &mut Text<'_>, pairs: impl Iterator<Item = (Value, Value)>) -> Result<(), Error> {
    out.push('{')?;
    for (i, (key, value)) in pairs.enumerate() {
        if i > 0 {
            out.push_str(", ")?;
        }
        push_repr(out, &key)?;
        out.push_str(": ")?;
        push_repr(out, &value)?;
    }
    out.push('}')
}

/// A string in quotes, with Python's choice of them.
fn push_quoted(out: &mut Text<'_>, text: &str) -> Result<(), Error> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote)?;
    out.push_escaped(text, |c| {
        Some(match c {
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\t' => "\\t".into(),
            c if c == quote || c == '\\' => format!("\\{c}"),
            c if is_printable(c) => return None,
            c => match u32::from(c) {
                code @ ..0x100 => format!("\\x{code:02x}"),
                code @ ..0x1_0000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            },
        })
    })?;
    out.push(quote)
}

/// Python's `str.isprintable` of one character: neither control, format, private, unassigned, nor white space but the
/// space. Rust's table for `Debug` is the same; behind another character it escapes no combining ones.
pub(super) fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        c => {
            let mut text = [b'a', 0, 0, 0, 0];
            let length = c.encode_utf8(&mut text[1..]).len();
            let text = std::str::from_utf8(&text[..=length]).unwrap_or_default();
            text.escape_debug().count() == 2
        }
    }
}

/// Python's `repr` of a float: the fewest digits that give it back.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
