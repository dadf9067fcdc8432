//! Attributes, items and slices, as jinja2 looks them up; sorting that can fail.

use super::budget::Budget;
use super::numbers::{self, Number};
use super::values::{self, Kind, Sequence, type_name};
use super::{methods, undefined, wrong};
use minijinja::{Error, Value};

/// Longest path of the argument `attribute`.
const MAX_PATH_BYTES: usize = 256;

/// `base[key]`: the item, else for a string the attribute of that name, else undefined.
pub(super) fn item(base: &Value, key: &Value) -> Result<Value, Error> {
    if base.is_undefined() {
        return Err(undefined("an undefined value has no items"));
    }
    if let Some(found) = own_item(base, key)? {
        return Ok(found);
    }
    match key.as_str() {
        Some(name) => attribute_only(base, name),
        None => Ok(Value::UNDEFINED),
    }
}

/// `base.name`: the attribute, else the item of that name, else undefined.
pub(super) fn attribute(base: &Value, name: &str) -> Result<Value, Error> {
    if base.is_undefined() {
        return Err(undefined(format!("an undefined value has no attribute '{name}'")));
    }
    let found = attribute_only(base, name)?;
    if !found.is_undefined() {
        return Ok(found);
    }
    match values::as_dict(base) {
        Some(dict) => Ok(dict.get(&Value::from(name)).cloned().unwrap_or_default()),
        None => Ok(found),
    }
}

fn attribute_only(base: &Value, name: &str) -> Result<Value, Error> {
    if values::as_other(base).is_some() {
        return base.get_attr(name);
    }
    if let Some(item) = values::sequence(base).and_then(|sequence| sequence.by_name(name)) {
        return Ok(item.clone());
    }
    match methods::bound(base, name) {
        Some(method) => Ok(method),
        None => Ok(Value::UNDEFINED),
    }
}

fn own_item(base: &Value, key: &Value) -> Result<Option<Value>, Error> {
    if let Some(dict) = values::as_dict(base) {
        // A key without a hash is one of the errors that jinja2 takes for an absent item.
        return Ok(values::check_key(key).ok().and_then(|()| dict.get(key).cloned()));
    }
    let Some(Number::Integer(index)) = Number::of(key) else { return Ok(None) };
    if let Some(text) = base.as_str() {
        return Ok(nth_char(text, index).map(Value::from));
    }
    match values::sequence(base) {
        Some(sequence) if sequence.kind.is_indexed() => {
            Ok(position(index, sequence.items.len()).and_then(|at| sequence.items.get(at).cloned()))
        }
        _ => Ok(None),
    }
}

/// Characters that finding `base[key]` passes.
pub(super) fn distance(base: &Value, key: &Value) -> u64 {
    match (base.as_str(), Number::of(key)) {
        (Some(text), Some(Number::Integer(index))) => {
            u64::try_from(index.unsigned_abs()).unwrap_or(u64::MAX).min(text.len() as u64)
        }
        _ => 0,
    }
}

fn nth_char(text: &str, index: i128) -> Option<char> {
    if index >= 0 {
        text.chars().nth(usize::try_from(index).ok()?)
    } else {
        text.chars().rev().nth(usize::try_from(-(index + 1)).ok()?)
    }
}

fn position(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i128)? } else { index };
    usize::try_from(index).ok().filter(|at| *at < length)
}

/// `base[start:stop:step]`.
pub(super) fn slice(budget: &Budget, base: &Value, bounds: &[Value]) -> Result<Value, Error> {
    if base.is_undefined() {
        return Err(undefined("an undefined value has no items"));
    }
    let mut limits = [None; 3];
    for (limit, bound) in limits.iter_mut().zip(bounds) {
        *limit = match Number::of(bound) {
            Some(Number::Integer(value)) => Some(value),
            _ if bound.is_none() => None,
            _ => return Err(wrong("slice indices must be integers or None")),
        };
    }
    if limits[2] == Some(0) {
        return Err(wrong("slice step cannot be zero"));
    }
    if let Some(text) = base.as_str() {
        budget.work(text.len() as u64)?;
        budget.make(text.len())?;
        if limits[2].unwrap_or(1) == 1 {
            return Ok(Value::from(char_slice(text, limits)));
        }
        let chars: Vec<char> = text.chars().collect();
        let places = places(chars.len(), limits);
        return Ok(Value::from(places.map(|at| chars[at]).collect::<String>()));
    }
    match values::sequence(base) {
        Some(sequence) if sequence.kind.is_indexed() => {
            let items = places(sequence.items.len(), limits).map(|at| sequence.items[at].clone()).collect();
            values::new(budget, sliced_kind(sequence, limits), items)
        }
        _ => Err(wrong(format!("'{}' object is not subscriptable", type_name(base)))),
    }
}

fn char_slice(text: &str, limits: [Option<i128>; 3]) -> &str {
    let length = if text.is_ascii() { text.len() } else { text.chars().count() };
    let (start, stop, _) = indices(length, limits);
    if start >= stop {
        return "";
    }
    let (start, stop) = (start as usize, stop as usize);
    if length == text.len() {
        return &text[start..stop];
    }
    let mut offsets = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = offsets.nth(start).unwrap_or(text.len());
    let to = offsets.nth(stop - start - 1).unwrap_or(text.len());
    &text[from..to]
}

/// The first place, the place before which it ends, and the step of a slice, as Python's `slice.indices`.
fn indices(length: usize, [start, stop, step]: [Option<i128>; 3]) -> (i128, i128, i128) {
    let step = step.unwrap_or(1);
    let length = length as i128;
    // Downwards, the places lie between -1 and length - 1.
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clipped =
        |value: i128| if value < 0 { value.saturating_add(length).max(low) } else { value.min(high) };
    let (from, to) = if step > 0 { (low, high) } else { (high, low) };
    (start.map_or(from, clipped), stop.map_or(to, clipped), step)
}

/// The places that a slice takes, in its order.
fn places(length: usize, limits: [Option<i128>; 3]) -> Box<dyn Iterator<Item = usize>> {
    let (start, stop, step) = indices(length, limits);
    let stride = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    if step > 0 {
        return Box::new((start as usize..stop.max(start) as usize).step_by(stride));
    }
    Box::new(((stop + 1) as usize..(start + 1).max(stop + 1) as usize).rev().step_by(stride))
}

fn sliced_kind(sequence: &Sequence, limits: [Option<i128>; 3]) -> Kind {
    match sequence.kind {
        Kind::Range(start, _, step) => {
            let (from, to, stride) = indices(sequence.items.len(), limits);
            let value =
                |at: i128| i64::try_from(i128::from(start) + i128::from(step) * at).unwrap_or(i64::MAX);
            let stride = i64::try_from(stride.saturating_mul(i128::from(step))).unwrap_or(i64::MAX);
            Kind::Range(value(from), value(to), stride)
        }
        kind => kind,
    }
}

/// `base` by a path such as `a.b.0`, or by a number, as the argument `attribute` of filters means it.
pub(super) fn by_path(base: &Value, path: &Value, default: Option<&Value>) -> Result<Value, Error> {
    let mut value = base.clone();
    let mut step = |key: Value| -> Result<(), Error> {
        value = item(&value, &key)?;
        if value.is_undefined()
            && let Some(default) = default
        {
            value = default.clone();
        }
        Ok(())
    };
    match path.as_str() {
        Some(text) => {
            for part in checked_path(text)?.split('.') {
                let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                let number = numbers::parse_integer(part, 10).filter(|_| is_number);
                step(number.map_or_else(|| Value::from(part), |n| Number::Integer(n).value()))?;
            }
        }
        None if path.is_none() => {}
        None => step(path.clone())?,
    }
    Ok(value)
}

/// A path that isn't too long to be followed for each item of a list.
pub(super) fn checked_path(path: &str) -> Result<&str, Error> {
    if path.len() > MAX_PATH_BYTES {
        return Err(wrong(format!(
            "an attribute's path of {} bytes; at most {MAX_PATH_BYTES} are taken",
            path.len()
        )));
    }
    Ok(path)
}

/// Strings in lower case, unless case counts.
pub(super) fn without_case(budget: &Budget, value: Value, case_sensitive: bool) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) if !case_sensitive => {
            budget.work(text.len() as u64)?;
            budget.make(text.len())?;
            Ok(Value::from(text.to_lowercase()))
        }
        _ => Ok(value),
    }
}

/// A stable merge sort: Rust's own may panic on an order that isn't one, as that of NaN.
pub(super) fn sort<T: Clone>(
    items: Vec<T>,
    is_less: &mut impl FnMut(&T, &T) -> Result<bool, Error>,
) -> Result<Vec<T>, Error> {
    if items.len() < 2 {
        return Ok(items);
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let (left, right) = (sort(left, is_less)?, sort(right, is_less)?);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if is_less(b, a)? { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}

/// An item of a type that has none by name or number.
pub(super) fn no_order(value: &Value) -> Error {
    wrong(format!("'{}' object is not a sequence", type_name(value)))
}
