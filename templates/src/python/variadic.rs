//! Macros that take more arguments than they name: those that use `varargs` or `kwargs`. To minijinja these two are the
//! last parameters of such a macro, which are filled here.

use super::budget::Budget;
use super::values::{self, Kind};
use super::wrong;
use minijinja::value::{Enumerator, Kwargs, Object};
use minijinja::{Error, State, Value};
use std::sync::Arc;

const POSITIONAL: &str = "varargs";
const NAMED: &str = "kwargs";

/// A macro with hidden parameters.
#[derive(Debug)]
pub(super) struct Variadic {
    inner: Value,
    /// The parameters that the macro names.
    own: Vec<String>,
    takes_positional: bool,
    takes_named: bool,
    /// Uses `caller`.
    calls_back: bool,
}

impl Variadic {
    /// The macro `inner` with those of its parameters hidden.
    pub(super) fn hiding(inner: Value, hidden: &[Value]) -> Result<Value, Error> {
        let hides = |name: &str| hidden.iter().any(|hidden| hidden.as_str() == Some(name));
        let names = inner.get_attr("arguments")?;
        let own = names.try_iter()?.filter_map(|name| name.as_str().map(str::to_owned));
        let own = own.filter(|name| !hides(name)).collect();
        let calls_back = inner.get_attr("caller")?.is_true();
        let (takes_positional, takes_named) = (hides(POSITIONAL), hides(NAMED));
        Ok(Value::from_object(Variadic { inner, own, takes_positional, takes_named, calls_back }))
    }
}

impl Object for Variadic {
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "name" => self.inner.get_attr("name").ok(),
            "arguments" => Some(Value::from_iter(self.own.iter().map(String::as_str))),
            "caller" => Some(Value::from(self.calls_back)),
            "catch_varargs" => Some(Value::from(self.takes_positional)),
            "catch_kwargs" => Some(Value::from(self.takes_named)),
            _ => None,
        }
    }

    fn call(self: &Arc<Self>, state: &State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let budget = Budget::of(state)?;
        let (positional, named) = match args.split_last() {
            Some((last, before)) if last.is_kwargs() => (before, Some(Kwargs::try_from(last.clone())?)),
            _ => (args, None),
        };
        let (first, more) = positional.split_at(positional.len().min(self.own.len()));
        if !more.is_empty() && !self.takes_positional {
            return Err(wrong(format!("a macro takes not more than {} argument(s)", self.own.len())));
        }
        let mut passed: Vec<(String, Value)> = Vec::new();
        let mut others: Vec<(Value, Value)> = Vec::new();
        let missing = &self.own[first.len()..];
        for name in named.iter().flat_map(Kwargs::args) {
            let value =
                named.as_ref().map(|named| named.peek::<Value>(name)).transpose()?.unwrap_or_default();
            let is_own = missing.iter().any(|own| own == name) || (self.calls_back && name == "caller");
            if is_own || !self.takes_named {
                passed.push((name.to_owned(), value));
            } else {
                others.push((Value::from(name), value));
            }
        }
        if self.takes_positional {
            passed.push((POSITIONAL.into(), values::new(&budget, Kind::Tuple, more.to_vec())?));
        }
        if self.takes_named {
            passed.push((NAMED.into(), values::dict(&budget, others)?));
        }
        let mut all = first.to_vec();
        all.push(Kwargs::from_iter(passed).into());
        self.inner.call(state, &all)
    }
}
