//! Python's `str()` and `repr()` of values.

use super::budget::{Budget, MAX_VALUE_BYTES};
use super::values::{self, Kind};
use super::wrong;
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
            None => {
                let mut out = String::new();
                write(&mut out, value, budget)?;
                Ok(Shown::Made(out))
            }
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

/// Appends `str(value)`; what is made is charged.
pub(in crate::chat) fn write(out: &mut String, value: &Value, budget: &Budget) -> Result<(), Error> {
    budget.work(values::weight_of_use(value))?;
    if let Some(text) = value.as_str() {
        budget.make(text.len())?;
        out.push_str(text);
        return Ok(());
    }
    if value.is_undefined() {
        return Ok(());
    }
    let before = out.len();
    push_repr(out, value, 0)?;
    budget.make(out.len() - before)
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value, budget: &Budget) -> Result<String, Error> {
    budget.work(values::weight_of_use(value))?;
    let mut out = String::new();
    push_repr(&mut out, value, 0)?;
    budget.make(out.len())?;
    Ok(out)
}

fn push_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if out.len() > MAX_VALUE_BYTES {
        return Err(wrong(format!("a text of more than {MAX_VALUE_BYTES} bytes")));
    }
    if let Some(sequence) = values::sequence(value) {
        return push_sequence(out, sequence, depth);
    }
    if let Some(dict) = values::as_dict(value) {
        return push_pairs(out, dict.pairs.iter().map(|(key, value)| (key.clone(), value.clone())), depth);
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&float(f64::try_from(value.clone())?)),
        ValueKind::String => push_quoted(out, value.as_str().unwrap_or_default()),
        _ if values::is_namespace(value) => {
            // A namespace may hold no other, so this ends.
            let object = value.as_object().and_then(|object| object.try_iter_pairs());
            out.push_str("<Namespace ");
            push_pairs(out, object.into_iter().flatten(), depth)?;
            out.push('>');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn push_sequence(out: &mut String, sequence: &values::Sequence, depth: usize) -> Result<(), Error> {
    let (begin, end) = match sequence.kind {
        Kind::List => ("[", "]"),
        Kind::Tuple if sequence.items.len() == 1 => ("(", ",)"),
        Kind::Tuple => ("(", ")"),
        Kind::Keys => ("dict_keys([", "])"),
        Kind::Values => ("dict_values([", "])"),
        Kind::Items => ("dict_items([", "])"),
        Kind::Range(start, stop, step) => {
            out.push_str(&format!("range({start}, {stop}"));
            if step != 1 {
                out.push_str(&format!(", {step}"));
            }
            out.push(')');
            return Ok(());
        }
        Kind::Iterator => {
            out.push_str("<generator object>");
            return Ok(());
        }
    };
    out.push_str(begin);
    for (i, item) in sequence.items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push_repr(out, item, depth + 1)?;
    }
    out.push_str(end);
    Ok(())
}

fn push_pairs(out: &mut String, pairs: impl Iterator<Item = (Value, Value)>, depth: usize) -> Result<(), Error> {
    out.push('{');
    for (i, (key, value)) in pairs.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push_repr(out, &key, depth + 1)?;
        out.push_str(": ");
        push_repr(out, &value, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// A string in quotes, with Python's choice of them.
fn push_quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote || c == '\\' => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => match u32::from(c) {
                code @ ..0x100 => out.push_str(&format!("\\x{code:02x}")),
                code @ ..0x1_0000 => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
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
