//! Python's `json.dumps` with the arguments that `tojson` passes on.

use super::args::Args;
use super::numbers::Number;
use super::operators;
use super::text::{self, Text};
use super::values::{self, Kind, type_name};
use super::{sequences, wrong};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};
use std::cmp::Ordering;

/// Longest indentation of a level, in bytes.
const MAX_INDENT: usize = 1024;

struct Style {
    ascii: bool,
    indent: Option<String>,
    between_items: String,
    behind_keys: String,
    sorted: bool,
}

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let style = Style::new(args)?;
    let mut out = Text::new(&args.budget);
    style.push(&mut out, &value, 0)?;
    Ok(Value::from(out.finish()))
}

impl Style {
    fn new(args: &mut Args<'_>) -> Result<Style, Error> {
        let ascii = args.flag("ensure_ascii", false)?;
        let indent = match args.given("indent")? {
            None => None,
            Some(value) => Some(match (value.as_str(), Number::of(&value)) {
                (Some(text), _) => text.to_owned(),
                (_, Some(Number::Integer(width))) => {
                    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                    if width > MAX_INDENT {
                        return Err(wrong(format!("tojson: an indent above {MAX_INDENT} isn't supported")));
                    }
                    " ".repeat(width)
                }
                _ => return Err(wrong("tojson: the indent must be a number or a string")),
            }),
        };
        if indent.as_ref().is_some_and(|indent| indent.len() > MAX_INDENT) {
            return Err(wrong(format!("tojson: an indent above {MAX_INDENT} isn't supported")));
        }
        let (mut between_items, mut behind_keys) =
            (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
        if let Some(separators) = args.given("separators")? {
            let separators = values::items(&args.budget, &separators)?;
            let texts: Vec<&str> = separators.iter().filter_map(Value::as_str).collect();
            let [items, keys] = texts[..] else { return Err(wrong("tojson: separators are two strings")) };
            (between_items, behind_keys) = (items.to_owned(), keys.to_owned());
        }
        let sorted = args.flag("sort_keys", false)?;
        Ok(Style { ascii, indent, between_items, behind_keys, sorted })
    }

    fn push(&self, out: &mut Text<'_>, value: &Value, level: usize) -> Result<(), Error> {
        if let Some(dict) = values::as_dict(value) {
            return self.push_map(out, dict, level);
        }
        if let Some(sequence) = values::sequence(value) {
            if !matches!(sequence.kind, Kind::List | Kind::Tuple) {
                return Err(not_serializable(value));
            }
            return self.push_list(out, &sequence.items, level);
        }
        match (value.kind(), value.as_str()) {
            (ValueKind::None, _) => out.push_str("null")?,
            (ValueKind::Bool, _) => out.push_str(if value.is_true() { "true" } else { "false" })?,
            (ValueKind::Number, _) => out.push_str(&number(value))?,
            (_, Some(text)) => self.push_text(out, text)?,
            _ => return Err(not_serializable(value)),
        }
        Ok(())
    }

    fn push_break(&self, out: &mut Text<'_>, level: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            out.push('\n')?;
            for _ in 0..level {
                out.push_str(indent)?;
            }
        }
        Ok(())
    }

    fn push_list(&self, out: &mut Text<'_>, items: &[Value], level: usize) -> Result<(), Error> {
        if items.is_empty() {
            return out.push_str("[]");
        }
        out.push('[')?;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between_items)?;
            }
            self.push_break(out, level + 1)?;
            self.push(out, item, level + 1)?;
        }
        self.push_break(out, level)?;
        out.push(']')
    }

    fn push_map(&self, out: &mut Text<'_>, dict: &values::Dict, level: usize) -> Result<(), Error> {
        if dict.pairs.is_empty() {
            return out.push_str("{}");
        }
        let mut pairs: Vec<&(Value, Value)> = dict.pairs.iter().collect();
        if self.sorted {
            pairs = sequences::sort(pairs, &mut |a, b| {
                Ok(operators::order("<", &a.0, &b.0)? == Some(Ordering::Less))
            })?;
        }
        out.push('{')?;
        for (i, (key, value)) in pairs.into_iter().enumerate() {
            if i > 0 {
                out.push_str(&self.between_items)?;
            }
            self.push_break(out, level + 1)?;
            let name = match (key.as_str(), key.kind()) {
                (Some(text), _) => text.to_owned(),
                (_, ValueKind::None) => "null".into(),
                (_, ValueKind::Bool) => if key.is_true() { "true" } else { "false" }.into(),
                (_, ValueKind::Number) => number(key),
                _ => {
                    return Err(wrong(format!(
                        "keys must be str, int, float, bool or None, not {}",
                        type_name(key)
                    )));
                }
            };
            self.push_text(out, &name)?;
            out.push_str(&self.behind_keys)?;
            self.push(out, value, level + 1)?;
        }
        self.push_break(out, level)?;
        out.push('}')
    }

    fn push_text(&self, out: &mut Text<'_>, text: &str) -> Result<(), Error> {
        out.push('"')?;
        out.push_escaped(text, |c| {
            Some(match c {
                '"' => "\\\"".into(),
                '\\' => "\\\\".into(),
                '\n' => "\\n".into(),
                '\r' => "\\r".into(),
                '\t' => "\\t".into(),
                '\x08' => "\\b".into(),
                '\x0c' => "\\f".into(),
                c if u32::from(c) < 0x20 || (self.ascii && u32::from(c) > 0x7e) => {
                    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => return None,
            })
        })?;
        out.push('"')
    }
}

fn number(value: &Value) -> String {
    match Number::of(value) {
        Some(Number::Integer(value)) => value.to_string(),
        Some(Number::Float(value)) if value.is_nan() => "NaN".into(),
        Some(Number::Float(value)) if value.is_infinite() => {
            if value > 0.0 { "Infinity" } else { "-Infinity" }.into()
        }
        Some(Number::Float(value)) => text::float(value),
        None => String::new(),
    }
}

fn not_serializable(value: &Value) -> Error {
    wrong(format!("Object of type {} is not JSON serializable", type_name(value)))
}
