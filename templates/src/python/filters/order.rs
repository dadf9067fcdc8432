//! Filters that compare items or add them up, whole ones or one attribute of each.

use std::cmp::Ordering;

use minijinja::{Error, Value};

use super::lists::{items, iterator};
use crate::python::args::Args;
use crate::python::values::{self, defined};
use crate::python::{operators, sequences, wrong};

/// Items, each with the value by which it is compared.
fn keyed(
    args: &Args<'_>,
    value: &Value,
    path: Option<&Value>,
    case_sensitive: bool,
    default: Option<&Value>,
) -> Result<Vec<(Value, Value)>, Error> {
    args.budget.work(values::weight(value))?;
    let items = values::items(&args.budget, value)?;
    let key = |item: &Value| match path {
        Some(path) => sequences::by_path(item, path, default),
        None => Ok(item.clone()),
    };
    let keyed = |item: Value| Ok((sequences::without_case(&args.budget, key(&item)?, case_sensitive)?, item));
    items.into_iter().map(keyed).collect()
}

fn is_less(args: &Args<'_>, a: &Value, b: &Value) -> Result<bool, Error> {
    args.budget.work(values::weight(a).saturating_add(values::weight(b)))?;
    Ok(operators::order("<", a, b)? == Some(Ordering::Less))
}

pub(super) fn sort(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let (reversed, case_sensitive) = (args.flag("reverse", false)?, args.flag("case_sensitive", false)?);
    let path = args.given("attribute")?;
    let paths: Vec<Value> = match path.as_ref().and_then(|path| path.as_str()) {
        Some(text) => sequences::checked_path(text)?.split(',').map(Value::from).collect(),
        None => vec![path.unwrap_or(Value::from(()))],
    };
    let items = values::items(&args.budget, &value)?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items {
        // Lists of keys compare equal ones first, so that equal values need no order.
        let key = |path| {
            let key = sequences::by_path(&item, path, None)?;
            sequences::without_case(&args.budget, key, case_sensitive)
        };
        let keys = paths.iter().map(key).collect::<Result<_, _>>()?;
        keyed.push((values::list(&args.budget, keys)?, item));
    }
    let sorted = sequences::sort(keyed, &mut |a, b| {
        if reversed { is_less(args, &b.0, &a.0) } else { is_less(args, &a.0, &b.0) }
    })?;
    values::list(&args.budget, sorted.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn dictsort(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let case_sensitive = args.flag("case_sensitive", false)?;
    let by = args.given_string("by")?;
    let reversed = args.flag("reverse", false)?;
    let place = match by.as_ref().map_or("key", |by| by.as_str().unwrap_or_default()) {
        "key" => 0,
        "value" => 1,
        _ => return Err(wrong("You can only sort by either \"key\" or \"value\"")),
    };
    defined(&value, "an undefined value has no items")?;
    let pairs = items(value, args)?;
    let path = Value::from(place);
    let keyed = keyed(args, &pairs, Some(&path), case_sensitive, None)?;
    let sorted = sequences::sort(keyed, &mut |a, b| {
        if reversed { is_less(args, &b.0, &a.0) } else { is_less(args, &a.0, &b.0) }
    })?;
    values::list(&args.budget, sorted.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn extreme(value: Value, args: &mut Args<'_>, wanted: Ordering) -> Result<Value, Error> {
    let case_sensitive = args.flag("case_sensitive", false)?;
    let path = args.given("attribute")?;
    let mut best: Option<(Value, Value)> = None;
    for (key, item) in keyed(args, &value, path.as_ref(), case_sensitive, None)? {
        let better = match &best {
            Some((other, _)) => operators::order("<", &key, other)? == Some(wanted),
            None => true,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

pub(super) fn unique(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let case_sensitive = args.flag("case_sensitive", false)?;
    let path = args.given("attribute")?;
    let keyed = keyed(args, &value, path.as_ref(), case_sensitive, None)?;
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for (key, item) in keyed {
        values::check_key(&key)?;
        if seen.insert(key) {
            kept.push(item);
        }
    }
    iterator(args, kept)
}

pub(super) fn groupby(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let path = args.required("attribute")?;
    let default = args.given("default")?;
    let case_sensitive = args.flag("case_sensitive", false)?;
    let keyed = keyed(args, &value, Some(&path), case_sensitive, default.as_ref())?;
    let sorted = sequences::sort(keyed, &mut |a, b| is_less(args, &a.0, &b.0))?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sorted {
        match groups.last_mut() {
            Some((last, items)) if operators::equal(last, &key) => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (_, items) in groups {
        // Without regard to case, the first item's own value stands for the group.
        let grouper = sequences::by_path(&items[0], &path, default.as_ref())?;
        let items = values::list(&args.budget, items)?;
        out.push(values::group(grouper, items)?);
    }
    values::list(&args.budget, out)
}

pub(super) fn sum(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let path = args.given("attribute")?;
    let mut sum = args.optional("start")?.unwrap_or_else(|| Value::from(0));
    if sum.as_str().is_some() {
        return Err(wrong("sum() can't sum strings"));
    }
    for (item, _) in keyed(args, &value, path.as_ref(), true, None)? {
        sum = operators::add(&args.budget, sum, &[item])?;
    }
    Ok(sum)
}
