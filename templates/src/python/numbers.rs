//! Python's numbers: integers (of 128 bits), booleans that count as integers, and floats.

use super::values::type_name;
use super::{strings, undefined, wrong};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(super) fn of(value: &Value) -> Option<Number> {
        match value.kind() {
            ValueKind::Bool => Some(Number::Integer(i128::from(value.is_true()))),
            ValueKind::Number if value.is_integer() => {
                i128::try_from(value.clone()).ok().map(Number::Integer)
            }
            ValueKind::Number => f64::try_from(value.clone()).ok().map(Number::Float),
            _ => None,
        }
    }

    pub(super) fn as_float(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    pub(super) fn value(self) -> Value {
        match self {
            Number::Integer(value) => i64::try_from(value).map_or_else(|_| Value::from(value), Value::from),
            Number::Float(value) => Value::from(value),
        }
    }
}

pub(super) fn too_large() -> Error {
    wrong("integers beyond 128 bits aren't supported")
}

/// An argument that must be an integer.
pub(super) fn integer(name: &str, value: &Value) -> Result<i128, Error> {
    match Number::of(value) {
        Some(Number::Integer(value)) => Ok(value),
        _ if value.is_undefined() => Err(undefined("an undefined value is no integer")),
        _ => Err(wrong(format!("`{name}` must be an integer, not {}", type_name(value)))),
    }
}

/// `%`, whose result has the sign of `b`.
pub(super) fn modulo(a: Number, b: Number) -> Result<Number, Error> {
    match (a, b) {
        (_, Number::Integer(0)) => Err(wrong("integer modulo by zero")),
        (Number::Integer(a), Number::Integer(b)) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            Ok(Number::Integer(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
        }
        _ => divmod(a.as_float(), b.as_float()).map(|(_, rest)| Number::Float(rest)),
    }
}

/// `//`, rounded down.
pub(super) fn floor_divide(a: Number, b: Number) -> Result<Number, Error> {
    match (a, b) {
        (_, Number::Integer(0)) => Err(wrong("integer division or modulo by zero")),
        (Number::Integer(a), Number::Integer(b)) => {
            let quotient = a.checked_div(b).ok_or_else(too_large)?;
            let inexact = a.checked_rem(b).unwrap_or(0) != 0;
            Ok(Number::Integer(if inexact && (a < 0) != (b < 0) { quotient - 1 } else { quotient }))
        }
        _ => divmod(a.as_float(), b.as_float()).map(|(quotient, _)| Number::Float(quotient)),
    }
}

/// As CPython's `float_divmod`.
fn divmod(a: f64, b: f64) -> Result<(f64, f64), Error> {
    if b == 0.0 {
        return Err(wrong("float divmod() by zero"));
    }
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0.0_f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return Ok((0.0_f64.copysign(a / b), rest));
    }
    let floor = quotient.floor();
    Ok((if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest))
}

/// `**`.
pub(super) fn power(a: Number, b: Number) -> Result<Number, Error> {
    match (a, b) {
        (Number::Integer(a), Number::Integer(b)) if b >= 0 => {
            let small = match a {
                0 | 1 => Some(if b == 0 { 1 } else { a }),
                -1 => Some(if b % 2 == 0 { 1 } else { -1 }),
                _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            };
            small.map(Number::Integer).ok_or_else(too_large)
        }
        _ => {
            let (base, exponent) = (a.as_float(), b.as_float());
            if base == 0.0 && exponent < 0.0 {
                return Err(wrong("0.0 cannot be raised to a negative power"));
            }
            if base < 0.0 && exponent.is_finite() && exponent.fract() != 0.0 {
                return Err(wrong("complex numbers aren't supported"));
            }
            let power = base.powf(exponent);
            if power.is_infinite() && base.is_finite() && exponent.is_finite() {
                return Err(wrong("the result of ** is too large"));
            }
            Ok(Number::Float(power))
        }
    }
}

/// Python's `round(value, digits)`.
pub(super) fn round(value: f64, digits: i128) -> f64 {
    if !value.is_finite() || digits > 308 {
        return value;
    }
    if digits < -308 {
        return 0.0_f64.copysign(value);
    }
    let places = digits.unsigned_abs() as usize;
    if digits >= 0 {
        return format!("{value:.places$}").parse().unwrap_or(value);
    }
    let scale = 10_f64.powi(places as i32);
    (value / scale).round_ties_even() * scale
}

/// Python's `int(text, base)`.
pub(super) fn parse_integer(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(crate::rewrite::is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = match base {
        16 => ["0x", "0X"],
        8 => ["0o", "0O"],
        2 => ["0b", "0B"],
        _ => ["", ""],
    };
    let digits = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(digits);
    let bytes = digits.as_bytes();
    let underscores = bytes.iter().enumerate().all(|(i, byte)| {
        *byte != b'_' || (i > 0 && bytes[i - 1] != b'_' && bytes.get(i + 1).is_some_and(|next| *next != b'_'))
    });
    if !underscores || digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    // Digits of any script count: U+0660 is a zero.
    let digit = |c: char| strings::decimal(c).and_then(|digit| char::from_digit(digit, 10)).unwrap_or(c);
    let digits: String = digits.chars().filter(|c| *c != '_').map(digit).collect();
    let value = i128::from_str_radix(&digits, base).ok()?;
    Some(if negative { -value } else { value })
}

/// Python's `float(text)`.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(crate::rewrite::is_space);
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
    let fits = bytes
        .iter()
        .enumerate()
        .all(|(i, byte)| *byte != b'_' || (digit(i.checked_sub(1)) && digit(Some(i + 1))));
    if !fits { None } else { text.replace('_', "").parse().ok() }
}
