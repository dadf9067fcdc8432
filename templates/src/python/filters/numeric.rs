//! Filters that make numbers, or texts of numbers.

use minijinja::{Error, Value};

use crate::python::args::Args;
use crate::python::numbers::{self, Number};
use crate::python::values::{defined, type_name};
use crate::python::{text, wrong};

pub(super) fn abs(value: Value, _: &mut Args<'_>) -> Result<Value, Error> {
    match Number::of(&value) {
        Some(Number::Integer(n)) => {
            n.checked_abs().map(|n| Number::Integer(n).value()).ok_or_else(numbers::too_large)
        }
        Some(Number::Float(n)) => Ok(Value::from(n.abs())),
        None => Err(wrong(format!("bad operand type for abs(): '{}'", type_name(&value)))),
    }
}

pub(super) fn float(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let default = args.optional("default")?.unwrap_or_else(|| Value::from(0.0));
    defined(&value, "an undefined value is no number")?;
    let number = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(&value).map(Number::as_float),
    };
    Ok(number.map_or(default, Value::from))
}

pub(super) fn int(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let default = args.optional("default")?.unwrap_or_else(|| Value::from(0));
    let base = args.given_integer("base")?.unwrap_or(10);
    defined(&value, "an undefined value is no number")?;
    let whole = |number: f64| (number.is_finite() && number.abs() < 1e38).then_some(number.trunc() as i128);
    let number = match (value.as_str(), Number::of(&value)) {
        (Some(text), _) => {
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let parsed = base.and_then(|base| numbers::parse_integer(text, base));
            parsed.or_else(|| numbers::parse_float(text).and_then(whole))
        }
        (_, Some(Number::Integer(number))) => Some(number),
        (_, Some(Number::Float(number))) => whole(number),
        _ => None,
    };
    Ok(number.map_or(default, |number| Number::Integer(number).value()))
}

pub(super) fn round(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let precision = args.given_integer("precision")?.unwrap_or(0);
    let method = args.given_string("method")?;
    let number =
        Number::of(&value).ok_or_else(|| wrong(format!("type {} can't be rounded", type_name(&value))))?;
    let scale = || 10_f64.powi(i32::try_from(precision.clamp(-400, 400)).unwrap_or(0));
    let scaled = number.as_float() * scale();
    match method.as_ref().map_or("common", |method| method.as_str().unwrap_or_default()) {
        "common" => match number {
            Number::Integer(n) if precision >= 0 => Ok(Number::Integer(n).value()),
            Number::Integer(n) => {
                let rounded = numbers::round(n as f64, precision);
                Ok(Number::Integer(rounded as i128).value())
            }
            Number::Float(n) => Ok(Value::from(numbers::round(n, precision))),
        },
        "ceil" => Ok(Value::from(scaled.ceil() / scale())),
        "floor" => Ok(Value::from(scaled.floor() / scale())),
        _ => Err(wrong("method must be common, ceil or floor")),
    }
}

pub(super) fn filesizeformat(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let is_binary = args.flag("binary", false)?;
    let bytes = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(&value).map(Number::as_float),
    };
    let bytes = bytes.ok_or_else(|| wrong(format!("filesizeformat: {} is no number", type_name(&value))))?;
    let base: f64 = if is_binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        if bytes.is_infinite() {
            return Err(wrong("cannot convert float infinity to integer"));
        }
        return Ok(Value::from(format!("{:.0} Bytes", bytes.trunc() + 0.0)));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let unit = |power: usize| base.powi(power as i32 + 2);
    let power = (0..8).find(|&power| bytes < unit(power)).unwrap_or(7);
    let number = base * bytes / unit(power);
    let number = if number.is_finite() { format!("{number:.1}") } else { text::float(number) };
    let prefix = if is_binary { prefixes[power].to_uppercase() + "i" } else { prefixes[power].to_owned() };
    Ok(Value::from(format!("{number} {prefix}B")))
}
