//! jinja2's tests (`x is string`).

use super::args::Args;
use super::numbers::Number;
use super::values::{self, defined};
use super::{budget::Budget, filters, numbers, operators, strings, wrong};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

type Check = fn(&Value, &mut Args<'_>) -> Result<bool, Error>;

const CHECKS: [(&str, Check); 35] = [
    ("defined", |value, _| Ok(!value.is_undefined())),
    ("undefined", |value, _| Ok(value.is_undefined())),
    ("none", |value, _| Ok(value.is_none())),
    ("boolean", |value, _| Ok(value.kind() == ValueKind::Bool)),
    ("true", |value, _| Ok(value.kind() == ValueKind::Bool && value.is_true())),
    ("false", |value, _| Ok(value.kind() == ValueKind::Bool && !value.is_true())),
    ("integer", |value, _| Ok(value.is_integer())),
    ("float", |value, _| Ok(value.kind() == ValueKind::Number && !value.is_integer())),
    ("number", |value, _| Ok(Number::of(value).is_some())),
    ("string", |value, _| Ok(value.as_str().is_some())),
    ("mapping", |value, _| Ok(values::as_dict(value).is_some())),
    ("sequence", |value, _| Ok(is_sequence(value))),
    ("iterable", |value, _| Ok(is_sequence(value) || values::sequence(value).is_some())),
    ("callable", |value, _| {
        Ok(value.is_undefined() || values::as_other(value).is_some() && !values::is_namespace(value))
    }),
    ("escaped", |_, _| Ok(false)),
    ("odd", |value, _| {
        remainder(value, &Value::from(2)).map(|rest| operators::equal(&rest, &Value::from(1)))
    }),
    ("even", |value, _| {
        remainder(value, &Value::from(2)).map(|rest| operators::equal(&rest, &Value::from(0)))
    }),
    ("divisibleby", |value, args| {
        let divisor = args.required("num")?;
        remainder(value, &divisor).map(|rest| operators::equal(&rest, &Value::from(0)))
    }),
    ("lower", |value, args| Ok(strings::is_lower(&args.shown(value)?))),
    ("upper", |value, args| Ok(strings::is_upper(&args.shown(value)?))),
    ("in", |value, args| {
        let container = args.required("seq")?;
        args.budget.work(values::weight(&container))?;
        operators::contains(&args.budget, value, &container)
    }),
    ("sameas", |value, args| {
        args.budget.work(values::weight(value))?;
        Ok(operators::same(value, &args.required("other")?))
    }),
    ("filter", |value, _| Ok(filters::exists(value.as_str().unwrap_or_default()))),
    ("test", |value, _| Ok(exists(value.as_str().unwrap_or_default()))),
    ("eq", |value, args| compare("==", value, args)),
    ("equalto", |value, args| compare("==", value, args)),
    ("ne", |value, args| compare("!=", value, args)),
    ("lt", |value, args| compare("<", value, args)),
    ("lessthan", |value, args| compare("<", value, args)),
    ("le", |value, args| compare("<=", value, args)),
    ("gt", |value, args| compare(">", value, args)),
    ("greaterthan", |value, args| compare(">", value, args)),
    ("ge", |value, args| compare(">=", value, args)),
    ("==", |value, args| compare("==", value, args)),
    ("!=", |value, args| compare("!=", value, args)),
];

/// Names that only `select` and the like can use.
const SIGNS: [&str; 4] = ["<", "<=", ">", ">="];

pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, check) in CHECKS {
        environment.add_test(name, move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
            run(state, &value, args.0, check)
        });
    }
    for sign in SIGNS {
        environment.add_test(sign, move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
            let mut args = Args::new(state, args.0)?;
            compare(sign, &value, &mut args)
        });
    }
}

fn run(state: &State<'_, '_>, value: &Value, args: Vec<Value>, check: Check) -> Result<bool, Error> {
    let mut args = Args::new(state, args)?;
    args.budget.work(values::own_weight(value))?;
    let holds = check(value, &mut args)?;
    args.end()?;
    Ok(holds)
}

/// Has a length and items by key; a map has, and what is undefined too.
fn is_sequence(value: &Value) -> bool {
    value.as_str().is_some()
        || value.is_undefined()
        || values::as_dict(value).is_some()
        || values::sequence(value).is_some_and(|sequence| sequence.kind.is_indexed())
}

fn remainder(value: &Value, divisor: &Value) -> Result<Value, Error> {
    defined(value, "an undefined value has no remainder")?;
    match (Number::of(value), Number::of(divisor)) {
        (Some(a), Some(b)) => numbers::modulo(a, b).map(Number::value),
        _ => Err(wrong("the operands of % must be numbers")),
    }
}

fn compare(operator: &'static str, value: &Value, args: &mut Args<'_>) -> Result<bool, Error> {
    let other = args.required("other")?;
    let budget: &Budget = &args.budget;
    budget.work(values::weight(value).saturating_add(values::weight(&other)))?;
    operators::compare(budget, value.clone(), &[Value::from(operator), other])
}

fn exists(name: &str) -> bool {
    SIGNS.contains(&name) || CHECKS.iter().any(|(known, _)| *known == name)
}
