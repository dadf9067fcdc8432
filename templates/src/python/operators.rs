//! Python's operators on values.

use super::budget::Budget;
use super::numbers::{self, Number, too_large};
use super::values::{self, Kind, defined, type_name};
use super::{format, text, wrong};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};
use std::cmp::Ordering;

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    wrong(format!("unsupported operand type(s) for {operator}: '{}' and '{}'", type_name(a), type_name(b)))
}

fn both_defined(operator: &str, a: &Value, b: &Value) -> Result<(), Error> {
    defined(a, &format!("the left side of {operator} is undefined"))?;
    defined(b, &format!("the right side of {operator} is undefined"))
}

/// `a + b + …`, from the left.
pub(super) fn add(budget: &Budget, first: Value, rest: &[Value]) -> Result<Value, Error> {
    if let Some(texts) = std::iter::once(&first).chain(rest).map(Value::as_str).collect::<Option<Vec<_>>>() {
        budget.make(texts.iter().map(|text| text.len()).sum())?;
        return Ok(Value::from(texts.concat()));
    }
    let mut sum = first;
    for value in rest {
        sum = add_two(budget, &sum, value)?;
    }
    Ok(sum)
}

fn add_two(budget: &Budget, a: &Value, b: &Value) -> Result<Value, Error> {
    both_defined("+", a, b)?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return arithmetic(a, b, i128::checked_add, |a, b| a + b);
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        budget.make(a.len() + b.len())?;
        return Ok(Value::from([a, b].concat()));
    }
    match (values::sequence(a), values::sequence(b)) {
        (Some(x), Some(y)) if x.kind == y.kind && matches!(x.kind, Kind::List | Kind::Tuple) => {
            budget.make((x.items.len() + y.items.len()) * size_of::<Value>())?;
            values::new(budget, x.kind, [&x.items[..], &y.items].concat())
        }
        _ => Err(unsupported("+", a, b)),
    }
}

fn arithmetic(
    a: Number,
    b: Number,
    integers: impl Fn(i128, i128) -> Option<i128>,
    floats: impl Fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let result = match (a, b) {
        (Number::Integer(a), Number::Integer(b)) => Number::Integer(integers(a, b).ok_or_else(too_large)?),
        _ => Number::Float(floats(a.as_float(), b.as_float())),
    };
    Ok(result.value())
}

/// `a operator b` where only numbers have the operator.
fn numeric(
    operator: &str,
    a: &Value,
    b: &Value,
    compute: impl Fn(Number, Number) -> Result<Value, Error>,
) -> Result<Value, Error> {
    both_defined(operator, a, b)?;
    match (Number::of(a), Number::of(b)) {
        (Some(x), Some(y)) => compute(x, y),
        _ => Err(unsupported(operator, a, b)),
    }
}

pub(super) fn subtract(a: &Value, b: &Value) -> Result<Value, Error> {
    numeric("-", a, b, |a, b| arithmetic(a, b, i128::checked_sub, |a, b| a - b))
}

pub(super) fn divide(a: &Value, b: &Value) -> Result<Value, Error> {
    numeric("/", a, b, |a, b| match b.as_float() {
        0.0 => Err(wrong("division by zero")),
        divisor => Ok(Value::from(a.as_float() / divisor)),
    })
}

pub(super) fn floor_divide(a: &Value, b: &Value) -> Result<Value, Error> {
    numeric("//", a, b, |a, b| numbers::floor_divide(a, b).map(Number::value))
}

pub(super) fn power(a: &Value, b: &Value) -> Result<Value, Error> {
    numeric("**", a, b, |a, b| numbers::power(a, b).map(Number::value))
}

pub(super) fn multiply(budget: &Budget, a: &Value, b: &Value) -> Result<Value, Error> {
    both_defined("*", a, b)?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return arithmetic(a, b, i128::checked_mul, |a, b| a * b);
    }
    let (value, count) = match (Number::of(a), Number::of(b)) {
        (None, Some(Number::Integer(count))) => (a, count),
        (Some(Number::Integer(count)), None) => (b, count),
        _ => return Err(unsupported("*", a, b)),
    };
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        budget.make(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    match values::sequence(value) {
        Some(sequence) if matches!(sequence.kind, Kind::List | Kind::Tuple) => {
            budget.make(sequence.items.len().saturating_mul(count).saturating_mul(size_of::<Value>()))?;
            let length = sequence.items.len() * count;
            values::new(budget, sequence.kind, sequence.items.iter().cycle().take(length).cloned().collect())
        }
        _ => Err(unsupported("*", a, b)),
    }
}

/// The remainder, or a text with values in it.
pub(super) fn modulo(budget: &Budget, a: &Value, b: &Value) -> Result<Value, Error> {
    if let Some(text) = a.as_str() {
        return format::percent(budget, text, b).map(Value::from);
    }
    numeric("%", a, b, |a, b| numbers::modulo(a, b).map(Number::value))
}

pub(super) fn negate(value: &Value) -> Result<Value, Error> {
    defined(value, "the operand of - is undefined")?;
    match Number::of(value) {
        Some(Number::Integer(value)) => {
            value.checked_neg().map(|v| Number::Integer(v).value()).ok_or_else(too_large)
        }
        Some(Number::Float(value)) => Ok(Value::from(-value)),
        None => Err(wrong(format!("bad operand type for unary -: '{}'", type_name(value)))),
    }
}

pub(super) fn positive(value: &Value) -> Result<Value, Error> {
    defined(value, "the operand of + is undefined")?;
    match Number::of(value) {
        Some(number) => Ok(number.value()),
        None => Err(wrong(format!("bad operand type for unary +: '{}'", type_name(value)))),
    }
}

/// `a ~ b ~ …`.
pub(super) fn concat(budget: &Budget, first: &Value, rest: &[Value]) -> Result<Value, Error> {
    let mut out = text::Text::new(budget);
    for value in std::iter::once(first).chain(rest) {
        out.push_value(value)?;
    }
    Ok(Value::from(out.finish()))
}

/// `a operator b operator …`; `pairs` are the names of operators and their right sides.
pub(super) fn compare(budget: &Budget, first: Value, pairs: &[Value]) -> Result<bool, Error> {
    let mut left = &first;
    for pair in pairs.chunks_exact(2) {
        let right = &pair[1];
        let holds = match pair[0].as_str().unwrap_or_default() {
            "==" => equal(left, right),
            "!=" => !equal(left, right),
            "in" => contains(budget, left, right)?,
            "not in" => !contains(budget, left, right)?,
            operator => {
                let order = order(operator, left, right)?;
                match operator {
                    "<" => order == Some(Ordering::Less),
                    "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    ">" => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                }
            }
        };
        if !holds {
            return Ok(false);
        }
        left = right;
    }
    Ok(true)
}

/// `a == b`.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return match (a, b) {
            (Number::Integer(a), Number::Integer(b)) => a == b,
            _ => a.as_float() == b.as_float(),
        };
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (values::sequence(a), values::sequence(b)) {
        return match (a.kind, b.kind) {
            (Kind::Iterator, _) | (_, Kind::Iterator) => std::ptr::eq(a, b),
            (Kind::Range(..), Kind::Range(..)) => same_items(&a.items, &b.items),
            (a_kind, b_kind) => a_kind == b_kind && same_items(&a.items, &b.items),
        };
    }
    if let (Some(a), Some(b)) = (values::as_dict(a), values::as_dict(b)) {
        return a.pairs.len() == b.pairs.len()
            && a.pairs.iter().all(|(key, value)| b.get(key).is_some_and(|other| equal(value, other)));
    }
    match (a.kind(), b.kind()) {
        (ValueKind::None, ValueKind::None) | (ValueKind::Undefined, ValueKind::Undefined) => true,
        _ => is_same_object(a, b),
    }
}

fn same_items(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
}

/// Python's `is`, of objects.
fn is_same_object(a: &Value, b: &Value) -> bool {
    match (values::as_other(a), values::as_other(b)) {
        // minijinja compares objects of one type by identity first, and these have nothing else to compare.
        (Some(_), Some(_)) => a == b,
        _ => false,
    }
}

/// `a is b`: small values that are equal are the same object in CPython.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (values::sequence(a), values::sequence(b), values::as_dict(a), values::as_dict(b)) {
        (Some(a), Some(b), ..) => {
            std::ptr::eq(a, b) || (a.kind == Kind::Tuple && a.items.is_empty() && b.items.is_empty())
        }
        (_, _, Some(a), Some(b)) => std::ptr::eq(a, b),
        _ => type_name(a) == type_name(b) && equal(a, b),
    }
}

/// The order of two values; none where one is not a number.
pub(super) fn order(operator: &str, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    both_defined(operator, a, b)?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(match (a, b) {
            (Number::Integer(a), Number::Integer(b)) => Some(a.cmp(&b)),
            _ => a.as_float().partial_cmp(&b.as_float()),
        });
    }
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return Ok(Some(a.cmp(b)));
    }
    match (values::sequence(a), values::sequence(b)) {
        (Some(x), Some(y)) if x.kind == y.kind && matches!(x.kind, Kind::List | Kind::Tuple) => {
            match x.items.iter().zip(&y.items).find(|(a, b)| !equal(a, b)) {
                Some((a, b)) => order(operator, a, b),
                None => Ok(Some(x.items.len().cmp(&y.items.len()))),
            }
        }
        _ => {
            let (a, b) = (type_name(a), type_name(b));
            Err(wrong(format!("'{operator}' not supported between instances of '{a}' and '{b}'")))
        }
    }
}

/// `item in container`.
pub(super) fn contains(budget: &Budget, item: &Value, container: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        return match item.as_str() {
            Some(part) => {
                budget.work(text.len() as u64)?;
                Ok(text.contains(part))
            }
            None => {
                Err(wrong(format!("'in <string>' requires string as left operand, not {}", type_name(item))))
            }
        };
    }
    if let Some(dict) = values::as_dict(container) {
        values::check_key(item)?;
        return Ok(dict.get(item).is_some());
    }
    if let Some(sequence) = values::sequence(container) {
        return Ok(sequence.items.iter().any(|other| equal(other, item)));
    }
    if container.is_undefined() {
        return Ok(false);
    }
    Err(wrong(format!("argument of type '{}' is not iterable", type_name(container))))
}
