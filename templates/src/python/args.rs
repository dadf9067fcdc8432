//! Arguments of a filter, method or function, taken one by one by position or by name, as Python binds them.

use super::budget::Budget;
use super::text::Shown;
use super::values::{self, type_name};
use super::{numbers, wrong};
use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};
use std::sync::Arc;

/// The arguments that haven't been taken yet.
pub(super) struct Args<'a> {
    pub state: &'a State<'a, 'a>,
    pub budget: Arc<Budget>,
    positional: std::vec::IntoIter<Value>,
    named: Option<Kwargs>,
}

impl<'a> Args<'a> {
    /// Work is charged for the values that are passed.
    pub(super) fn new(state: &'a State<'a, 'a>, mut values: Vec<Value>) -> Result<Self, Error> {
        let budget = Budget::of(state)?;
        for value in &values {
            budget.work(values::own_weight(value))?;
        }
        let named = match values.last() {
            Some(last) if last.is_kwargs() => values.pop().map(Kwargs::try_from).transpose()?,
            _ => None,
        };
        Ok(Args { state, budget, positional: values.into_iter(), named })
    }

    /// The next argument.
    pub(super) fn optional(&mut self, name: &str) -> Result<Option<Value>, Error> {
        if let Some(value) = self.positional.next() {
            return Ok(Some(value));
        }
        self.named(name)
    }

    /// An argument that has no position.
    pub(super) fn named(&self, name: &str) -> Result<Option<Value>, Error> {
        match &self.named {
            Some(named) if named.has(name) => named.get::<Value>(name).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn required(&mut self, name: &str) -> Result<Value, Error> {
        self.optional(name)?.ok_or_else(|| wrong(format!("the argument `{name}` is missing")))
    }

    /// The next argument, if it is there and not `none`.
    pub(super) fn given(&mut self, name: &str) -> Result<Option<Value>, Error> {
        Ok(self.optional(name)?.filter(|value| !value.is_none()))
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Value, Error> {
        string(name, self.required(name)?)
    }

    pub(super) fn given_string(&mut self, name: &str) -> Result<Option<Value>, Error> {
        self.given(name)?.map(|value| string(name, value)).transpose()
    }

    pub(super) fn given_integer(&mut self, name: &str) -> Result<Option<i128>, Error> {
        self.optional(name)?.map(|value| numbers::integer(name, &value)).transpose()
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, Error> {
        Ok(self.optional(name)?.map_or(default, |value| value.is_true()))
    }

    /// All positional arguments that are left.
    pub(super) fn rest(&mut self) -> Vec<Value> {
        self.positional.by_ref().collect()
    }

    /// All named arguments, which count as taken.
    pub(super) fn rest_named(&mut self) -> Result<Vec<(String, Value)>, Error> {
        let Some(named) = self.named.take() else { return Ok(Vec::new()) };
        named.args().map(|name| Ok((name.to_owned(), named.get::<Value>(name)?))).collect()
    }

    /// All arguments that are left, for a call of something else.
    pub(super) fn rest_as_passed(&mut self) -> Vec<Value> {
        let mut rest = self.rest();
        rest.extend(self.named.take().map(Value::from));
        rest
    }

    /// Refuses named arguments that weren't taken.
    pub(super) fn end_of_named(&self) -> Result<(), Error> {
        self.named.as_ref().map_or(Ok(()), Kwargs::assert_all_used)
    }

    /// Refuses arguments that weren't taken.
    pub(super) fn end(&self) -> Result<(), Error> {
        if self.positional.len() > 0 {
            return Err(wrong("too many arguments"));
        }
        self.end_of_named()
    }

    /// A new text.
    pub(super) fn text(&self, text: String) -> Result<Value, Error> {
        self.budget.make(text.len())?;
        Ok(Value::from(text))
    }

    /// Python's `str(value)`.
    pub(super) fn shown<'v>(&self, value: &'v Value) -> Result<Shown<'v>, Error> {
        Shown::new(value, &self.budget)
    }
}

fn string(name: &str, value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(_) => Ok(value),
        None => Err(wrong(format!("the argument `{name}` must be str, not {}", type_name(&value)))),
    }
}
