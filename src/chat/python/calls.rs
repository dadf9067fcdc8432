//! The private filters that stand for operators, attributes, items, calls and literals in a rewritten template.

use super::args::Args;
use super::budget::Budget;
use super::values::{self, Kind, defined};
use super::{methods, operators, sequences, wrong};
use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};

type Operator = fn(&Budget, Value, &[Value]) -> Result<Value, Error>;

/// Operators charge for what they look at: both sides, whole.
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
    ("_compare", |budget, value, args| operators::compare(budget, value, args).map(Value::from)),
];

/// These look at the first level of a value, or at less.
const SHALLOW: [(&str, Operator); 9] = [
    ("_same", |_, value, _| Ok(value)),
    ("_attr", |_, value, args| sequences::attribute(&value, one(args)?.as_str().unwrap_or_default())),
    ("_item", |_, value, args| sequences::item(&value, one(args)?)),
    ("_slice", |budget, value, args| sequences::slice(budget, &value, args)),
    ("_iter", |_, value, _| iterable(value)),
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
                budget.work(values::weight_of_use(value))?;
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
    environment.add_filter("_call", |state: &State<'_, '_>, value: Value, args: Rest<Value>| call(state, &value, &args));
}

fn one(args: &[Value]) -> Result<&Value, Error> {
    args.first().ok_or_else(|| wrong("an operand is missing"))
}

fn sequence(budget: &Budget, kind: Kind, value: &Value) -> Result<Value, Error> {
    values::new(budget, kind, value.try_iter()?.collect())
}

/// The value, if a loop may run over it.
fn iterable(value: Value) -> Result<Value, Error> {
    let fits = value.as_str().is_some()
        || value.is_undefined()
        || values::sequence(&value).is_some()
        || values::as_dict(&value).is_some();
    if fits { Ok(value) } else { Err(wrong(format!("'{}' object is not iterable", values::type_name(&value)))) }
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
            budget.work(values::weight_of_use(arg))?;
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
