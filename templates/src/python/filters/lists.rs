//! Filters that choose items, change each, or put them into another arrangement.

use minijinja::{Error, Value};

use crate::python::args::Args;
use crate::python::values::{self, Kind};
use crate::python::{sequences, strings, wrong};

pub(super) fn iterator(args: &Args<'_>, items: Vec<Value>) -> Result<Value, Error> {
    values::new(&args.budget, Kind::Iterator, items)
}

pub(super) fn items(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    if value.is_undefined() {
        return iterator(args, Vec::new());
    }
    let dict = values::as_dict(&value).ok_or_else(|| wrong("Can only get item pairs from a mapping."))?;
    args.budget.make(dict.pairs.len().saturating_mul(size_of::<Value>()))?;
    let pair = |(key, value): &(Value, Value)| {
        values::new(&args.budget, Kind::Tuple, vec![key.clone(), value.clone()])
    };
    let pairs = dict.pairs.iter().map(pair).collect::<Result<_, _>>()?;
    iterator(args, pairs)
}

pub(super) fn join(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let separator = args.optional("d")?.unwrap_or_else(|| Value::from(""));
    let attribute = args.given("attribute")?;
    let mut items = values::items(&args.budget, &value)?;
    if let Some(path) = attribute {
        items = items.iter().map(|item| sequences::by_path(item, &path, None)).collect::<Result<_, _>>()?;
    }
    let texts = items.iter().map(|item| args.shown(item)).collect::<Result<Vec<_>, _>>()?;
    let separator = args.shown(&separator)?;
    strings::join(&separator, &texts.iter().map(|text| &**text).collect::<Vec<_>>(), args)
}

pub(super) fn last(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    check_reversible(&value)?;
    let items = values::items(&args.budget, &value)?;
    Ok(items.into_iter().next_back().unwrap_or_default())
}

fn check_reversible(value: &Value) -> Result<(), Error> {
    let is_iterator = values::sequence(value).is_some_and(|sequence| sequence.kind == Kind::Iterator);
    if is_iterator { Err(sequences::no_order(value)) } else { Ok(()) }
}

pub(super) fn reverse(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let mut items = values::items(&args.budget, &value)?;
    items.reverse();
    match value.as_str() {
        Some(text) => args.text(text.chars().rev().collect()),
        None => iterator(args, items),
    }
}

/// `map` and `select` take anything that is false for empty, none too.
fn items_if_true(value: &Value, args: &Args<'_>) -> Result<Vec<Value>, Error> {
    if value.is_true() { values::items(&args.budget, value) } else { Ok(Vec::new()) }
}

pub(super) fn map(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let items = items_if_true(&value, args)?;
    let attribute = args.named("attribute")?;
    let mapped = match attribute {
        Some(path) => {
            let default = args.named("default")?;
            args.end_of_named()?;
            items
                .iter()
                .map(|item| sequences::by_path(item, &path, default.as_ref()))
                .collect::<Result<_, _>>()?
        }
        None => {
            let name = args.string("filter")?;
            let name = public(&name)?;
            let rest = args.rest_as_passed();
            let apply = |item: Value| {
                let all: Vec<Value> = std::iter::once(item).chain(rest.iter().cloned()).collect();
                args.budget.nested(|| args.state.apply_filter(name, &all))
            };
            items.into_iter().map(apply).collect::<Result<_, _>>()?
        }
    };
    iterator(args, mapped)
}

/// The name of a filter or test that a template may use.
fn public(name: &Value) -> Result<&str, Error> {
    let name = name.as_str().unwrap_or_default();
    if name.starts_with(crate::rewrite::PRIVATE) {
        return Err(wrong(format!("no filter or test has the name `{name}`")));
    }
    Ok(name)
}

pub(super) fn select(
    value: Value,
    args: &mut Args<'_>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let items = items_if_true(&value, args)?;
    let path = if by_attribute { Some(args.required("attribute")?) } else { None };
    let test = args.optional("test")?;
    let test = test.as_ref().map(public).transpose()?;
    let rest = args.rest_as_passed();
    let mut kept = Vec::new();
    for item in items {
        let subject = match &path {
            Some(path) => sequences::by_path(&item, path, None)?,
            None => item.clone(),
        };
        let holds = match test {
            None => subject.is_true(),
            Some(test) => {
                let all: Vec<Value> = std::iter::once(subject).chain(rest.iter().cloned()).collect();
                args.budget.nested(|| args.state.perform_test(test, &all))?
            }
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    iterator(args, kept)
}

pub(super) fn batch(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let count = args.given_integer("linecount")?.ok_or_else(|| wrong("batch: the count is missing"))?;
    let fill = args.given("fill_with")?;
    let items = values::items(&args.budget, &value)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return Err(wrong("batch: the count must be above zero"));
    };
    let mut rows = Vec::new();
    for chunk in items.chunks(count) {
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            let missing = count - row.len();
            args.budget.make(missing.saturating_mul(size_of::<Value>()))?;
            row.extend(std::iter::repeat_n(fill.clone(), missing));
        }
        rows.push(values::list(&args.budget, row)?);
    }
    iterator(args, rows)
}

pub(super) fn slice(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let slices = args.given_integer("slices")?.ok_or_else(|| wrong("slice: the count is missing"))?;
    let fill = args.given("fill_with")?;
    let items = values::items(&args.budget, &value)?;
    let Some(slices) = usize::try_from(slices).ok().filter(|slices| *slices > 0) else {
        return Err(wrong("slice: the count must be above zero"));
    };
    args.budget.make(slices.saturating_mul(size_of::<Value>()))?;
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut columns = Vec::new();
    let mut at = 0;
    for column in 0..slices {
        let length = each + usize::from(column < longer);
        let mut part = items[at..at + length].to_vec();
        at += length;
        if column >= longer
            && let Some(fill) = &fill
        {
            part.push(fill.clone());
        }
        columns.push(values::list(&args.budget, part)?);
    }
    iterator(args, columns)
}

/// The only item of a list. Of several, jinja2 would choose one by chance.
pub(super) fn random(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    match values::length(&value)? {
        0 => Ok(Value::UNDEFINED),
        1 if values::as_dict(&value).is_none() => {
            Ok(values::items(&args.budget, &value)?.into_iter().next().unwrap_or_default())
        }
        _ => Err(wrong("`random` chooses by chance, which isn't supported")),
    }
}
