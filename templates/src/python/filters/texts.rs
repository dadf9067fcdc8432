//! Filters that change texts.

use minijinja::{Error, Value};

use crate::python::args::Args;
use crate::python::values::{self, defined, type_name};
use crate::python::{numbers, strings, wrong};

/// The value's text after `change`.
pub(super) fn changed(
    value: &Value,
    args: &mut Args<'_>,
    change: impl Fn(&str) -> String,
) -> Result<Value, Error> {
    let text = args.shown(value)?;
    args.budget.make(text.len())?;
    args.text(change(&text))
}

/// Each word begins in upper case; words are what stands between white space, hyphens and opening brackets.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        begins = strings::is_boundary(c);
    }
    out
}

pub(super) fn indent(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let width = args.optional("width")?.unwrap_or_else(|| Value::from(4));
    let (first, blank) = (args.flag("first", false)?, args.flag("blank", false)?);
    defined(&value, "an undefined value has no lines")?;
    let text =
        value.as_str().ok_or_else(|| wrong(format!("indent: str is needed, not {}", type_name(&value))))?;
    let width = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(numbers::integer("width", &width)?.max(0)).unwrap_or(usize::MAX);
            args.budget.make(width)?;
            " ".repeat(width)
        }
    };
    let lines = text.matches('\n').count() + 1;
    args.budget.make(text.len().saturating_add(lines.saturating_mul(width.len())))?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

pub(super) fn truncate(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let length = args.given_integer("length")?.unwrap_or(255);
    let kill_words = args.flag("killwords", false)?;
    let end = args.given_string("end")?.unwrap_or_else(|| Value::from("..."));
    let leeway = args.given_integer("leeway")?.unwrap_or(5);
    let end = end.as_str().unwrap_or_default();
    let Some(text) = value.as_str() else {
        let fits = values::length(&value)? as i128 <= length.saturating_add(leeway);
        return if fits { Ok(value) } else { Err(wrong("truncate: str is needed")) };
    };
    let end_length = end.chars().count() as i128;
    if length < end_length || leeway < 0 {
        return Err(wrong("truncate: the length or the leeway is too small"));
    }
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return args.text(text.to_owned());
    }
    let cut: String = text.chars().take(usize::try_from(length - end_length).unwrap_or(usize::MAX)).collect();
    let cut: &str = if kill_words { &cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    args.text(format!("{cut}{end}"))
}
