//! The private filters that stand for operators, attributes, items, calls and literals in a rewritten template.

use super::args::Args;
use super::budget::Budget;
use super::values::{self, Kind, defined};
use super::variadic::Variadic;
use super::{methods, operators, sequences, wrong};
use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};

/// Most arguments that a list or map may stand for; a call has up to 2,000 of those.
const MAX_SPLAT: usize = 1000;
/// Memory of a macro with its closure, which minijinja keeps until the end of a rendering.
const MACRO_BYTES: usize = 1024;

type Operator = fn(&Budget, Value, &[Value]) -> Result<Value, Error>;

/// Operators look at strings whole.
const OPERATORS: [(&str, Operator); 11] = [
    ("_add", |budget, value, args| operators::add(budget, value, args)),
    ("_sub", |_, value, args| operators::subtract(&value, one(args)?)),
    ("_mul", |budget, value, args| operators::multiply(budget, &value, one(args)?)),
    ("_div", |_, value, args| operators::divide(&value, one(args)?)),
    ("_floordiv", |_, value, args| operators::floor_divide(&value, one(args)?)),
    ("_mod", |budget, value, args| operators::modulo(budget, &value, one(args)?)),
    ("_pow", |_, value, args| operators::power(&value, one(args)?)),
    ("_neg", |_, value, _| operators::negate(&value)),
    ("_pos", |_, value, _| operators::positive(&value)),
    ("_concat", |budget, value, args| operators::concat(budget, &value, args)),
    ("_compare", |budget, value, args| {
        for value in std::iter::once(&value).chain(args) {
            budget.work(values::weight(value))?;
        }
        operators::compare(budget, value, args).map(Value::from)
    }),
];

/// These look at the first level of a value, or at less.
const SHALLOW: [(&str, Operator); 12] = [
    ("_same", |_, value, _| Ok(value)),
    ("_attr", |_, value, args| sequences::attribute(&value, one(args)?.as_str().unwrap_or_default())),
    ("_item", |budget, value, args| {
        let key = one(args)?;
        // A character is found from the nearer end; a key is hashed.
        budget.work(values::own_weight(key).saturating_add(sequences::distance(&value, key)))?;
        sequences::item(&value, key)
    }),
    ("_slice", |budget, value, args| sequences::slice(budget, &value, args)),
    ("_iter", iterable),
    ("_kept", |budget, value, args| {
        let value = iterable(budget, value, args)?;
        // minijinja makes a list of the items that a loop's condition lets through.
        values::list(budget, values::items(budget, &value)?)
    }),
    ("_splat", splat),
    ("_macro", |budget, value, _| budget.make(MACRO_BYTES).map(|()| value)),
    ("_stored", |_, value, _| values::check_stored(&value).map(|()| value)),
    ("_list", |budget, value, _| sequence(budget, Kind::List, &value)),
    ("_tuple", |budget, value, _| sequence(budget, Kind::Tuple, &value)),
    ("_dict", |budget, value, _| {
        let items: Vec<Value> = value.try_iter()?.collect();
        let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        values::dict(budget, pairs)
    }),
];

pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, operator) in OPERATORS {
        environment.add_filter(name, move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
            let budget = Budget::of(state)?;
            for value in std::iter::once(&value).chain(args.iter()) {
                budget.work(values::own_weight(value))?;
            }
            operator(&budget, value, &args)
        });
    }
    for (name, operator) in SHALLOW {
        environment.add_filter(name, move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
            operator(&*Budget::of(state)?, value, &args)
        });
    }
    environment.add_filter("_method", |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
        let name = args.first().ok_or_else(|| wrong("a method without a name"))?.clone();
        method(state, &value, name.as_str().unwrap_or_default(), &args[1..])
    });
    environment.add_filter("_variadic", |value: Value, args: Rest<Value>| Variadic::hiding(value, &args));
    environment.add_filter("_call", |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
        call(state, &value, &args)
    });
}

fn one(args: &[Value]) -> Result<&Value, Error> {
    args.first().ok_or_else(|| wrong("an operand is missing"))
}

fn sequence(budget: &Budget, kind: Kind, value: &Value) -> Result<Value, Error> {
    values::new(budget, kind, value.try_iter()?.collect())
}

/// Arguments from a list (`*a`) or a map (`**a`).
fn splat(budget: &Budget, value: Value, args: &[Value]) -> Result<Value, Error> {
    let value = iterable(budget, value, args)?;
    if values::length(&value).unwrap_or(0) > MAX_SPLAT || values::items(budget, &value)?.len() > MAX_SPLAT {
        return Err(wrong(format!("more than {MAX_SPLAT} arguments at once")));
    }
    match values::as_dict(&value) {
        Some(_) => Ok(value),
        None => values::list(budget, values::items(budget, &value)?),
    }
}

/// The value, if a loop may run over it. A string becomes a list, so that the loop knows its length.
fn iterable(budget: &Budget, value: Value, _: &[Value]) -> Result<Value, Error> {
    if value.as_str().is_some() {
        return values::list(budget, values::items(budget, &value)?);
    }
    let fits =
        value.is_undefined() || values::sequence(&value).is_some() || values::as_dict(&value).is_some();
    if fits {
        Ok(value)
    } else {
        Err(wrong(format!("'{}' object is not iterable", values::type_name(&value))))
    }
}

/// `value.name(args)`.
fn method(state: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    defined(value, &format!("an undefined value has no attribute '{name}'"))?;
    if values::as_other(value).is_some() {
        let attribute = value.get_attr(name)?;
        if !attribute.is_undefined() {
            return call(state, &attribute, args);
        }
        if args.is_empty() && name == "cycle" {
            return Err(wrong("no items for cycling given"));
        }
        let budget = Budget::of(state)?;
        for arg in args {
            budget.work(values::own_weight(arg))?;
        }
        return value.call_method(state, name, args);
    }
    if let Some(result) = methods::call(value, name, &mut Args::new(state, args.to_vec())?)? {
        return Ok(result);
    }
    let attribute = sequences::attribute(value, name)?;
    if attribute.is_undefined() {
        let type_name = values::type_name(value);
        return Err(wrong(format!("'{type_name}' object has no method '{name}' here")));
    }
    call(state, &attribute, args)
}

fn call(state: &State<'_, '_>, function: &Value, args: &[Value]) -> Result<Value, Error> {
    defined(function, "an undefined value was called")?;
    match values::as_other(function) {
        Some(_) => function.call(state, args),
        None => Err(wrong(format!("'{}' object is not callable", values::type_name(function)))),
    }
}
