//! Methods of strings, maps, lists, tuples and numbers. Those that change a list or a map are errors in jinja2's
//! sandbox, and absent here.

use super::args::Args;
use super::numbers::Number;
use super::values::{self, Kind, type_name};
use super::{format, operators, strings, wrong};
use minijinja::value::{Object, ObjectRepr, ValueKind};
use minijinja::{Error, State, Value};
use std::fmt;
use std::sync::Arc;

pub(super) type Method = fn(&Value, &mut Args<'_>) -> Result<Value, Error>;

const DICT: [(&str, Method); 5] = [
    ("get", |value, args| {
        let (key, default) = (args.required("key")?, args.optional("default")?);
        values::check_key(&key)?;
        let found = values::as_dict(value).and_then(|dict| dict.get(&key)).cloned();
        Ok(found.or(default).unwrap_or_else(|| Value::from(())))
    }),
    ("keys", |value, args| view(value, args, Kind::Keys)),
    ("values", |value, args| view(value, args, Kind::Values)),
    ("items", |value, args| view(value, args, Kind::Items)),
    ("copy", |value, _| Ok(value.clone())),
];

const SEQUENCE: [(&str, Method); 3] = [
    ("count", |value, args| {
        let item = args.required("value")?;
        let items = values::sequence(value).map_or(&[][..], |sequence| &sequence.items);
        Ok(Value::from(items.iter().filter(|other| operators::equal(other, &item)).count()))
    }),
    ("index", |value, args| {
        let item = args.required("value")?;
        let items = values::sequence(value).map_or(&[][..], |sequence| &sequence.items);
        let found = items.iter().position(|other| operators::equal(other, &item));
        found.map(Value::from).ok_or_else(|| wrong("the value is not in the list"))
    }),
    ("copy", |value, _| Ok(value.clone())),
];

const INTEGER: [(&str, Method); 2] = [
    ("bit_length", |value, _| {
        let size = match Number::of(value) {
            Some(Number::Integer(number)) => number.unsigned_abs(),
            _ => 0,
        };
        Ok(Value::from(u128::BITS - size.leading_zeros()))
    }),
    ("is_integer", |_, _| Ok(Value::from(true))),
];

const FLOAT: [(&str, Method); 1] = [("is_integer", |value, _| {
    let value = Number::of(value).map_or(0.0, Number::as_float);
    Ok(Value::from(value.is_finite() && value.fract() == 0.0))
})];

/// Named in the sandbox, but refused when they are called.
const REFUSED: [&str; 14] = [
    "append",
    "extend",
    "insert",
    "pop",
    "remove",
    "clear",
    "sort",
    "reverse",
    "update",
    "setdefault",
    "popitem",
    "fromkeys",
    "add",
    "discard",
];

fn find(value: &Value, name: &str) -> Option<Method> {
    let table: &[(&str, Method)] = match (values::sequence(value), value.kind()) {
        (Some(sequence), _) if matches!(sequence.kind, Kind::List) => &SEQUENCE,
        (Some(sequence), _) if matches!(sequence.kind, Kind::Tuple | Kind::Range(..)) => &SEQUENCE[..2],
        (Some(_), _) => &[],
        (None, ValueKind::String) => &strings::METHODS,
        (None, ValueKind::Number) if !value.is_integer() => &FLOAT,
        (None, ValueKind::Number | ValueKind::Bool) => &INTEGER,
        (None, _) if values::as_dict(value).is_some() => &DICT,
        _ => &[],
    };
    table.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
}

/// The result of `value.name(args)`, if the value's type has the method.
pub(super) fn call(value: &Value, name: &str, args: &mut Args<'_>) -> Result<Option<Value>, Error> {
    if name == "format"
        && let Some(text) = value.as_str()
    {
        return format::braces(text, args).map(Some);
    }
    if let Some(method) = find(value, name) {
        args.budget.work(values::own_weight(value))?;
        if values::sequence(value).is_some() {
            args.budget.work(values::weight(value))?;
        }
        // Most methods of a string make one of its size at most; a larger one is charged by the method.
        args.budget.make(value.as_str().map_or(0, str::len))?;
        let result = method(value, args)?;
        args.end()?;
        return Ok(Some(result));
    }
    let is_container = values::as_dict(value).is_some() || values::sequence(value).is_some();
    // A map may have such a key, but Python finds the method first.
    if is_container && REFUSED.contains(&name) && refuses(value, name) {
        return Err(wrong(format!("'{}' objects can't be changed: '{name}'", type_name(value))));
    }
    Ok(None)
}

fn refuses(value: &Value, name: &str) -> bool {
    let in_dict = ["pop", "clear", "update", "setdefault", "popitem", "fromkeys"];
    values::as_dict(value).is_none() || in_dict.contains(&name)
}

/// A method that isn't called.
#[derive(Debug)]
struct Bound {
    value: Value,
    name: String,
}

/// `value.name`, if that is a method.
pub(super) fn bound(value: &Value, name: &str) -> Option<Value> {
    find(value, name)?;
    Some(Value::from_object(Bound { value: value.clone(), name: name.to_owned() }))
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let result = call(&self.value, &self.name, &mut Args::new(state, args.to_vec())?)?;
        result.ok_or_else(|| wrong(format!("no method '{}'", self.name)))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {}>", self.name)
    }
}

fn view(value: &Value, args: &Args<'_>, kind: Kind) -> Result<Value, Error> {
    let Some(dict) = values::as_dict(value) else { return Err(wrong("no map")) };
    let budget = &args.budget;
    budget.make(dict.pairs.len().saturating_mul(size_of::<Value>()))?;
    let items = match kind {
        Kind::Keys => dict.pairs.iter().map(|(key, _)| key.clone()).collect(),
        Kind::Values => dict.pairs.iter().map(|(_, value)| value.clone()).collect(),
        _ => {
            let pair = |(key, value): &(Value, Value)| {
                values::new(budget, Kind::Tuple, vec![key.clone(), value.clone()])
            };
            dict.pairs.iter().map(pair).collect::<Result<_, _>>()?
        }
    };
    values::new(budget, kind, items)
}
