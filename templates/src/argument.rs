//! Values that a template sees in addition to the messages: what JSON can say.

use minijinja::Value;

use crate::python::{self, Budget};

/// Memory of a value in a list or map, in addition to its texts.
const EACH_BYTES: usize = 128;

/// A value of a variable.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// Nothing: `none`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Argument>),
    /// A map, in the order of its keys' first places.
    Map(Vec<(String, Argument)>),
}

impl Argument {
    /// Memory that a rendering takes for its copy, in bytes.
    pub fn bytes(&self) -> usize {
        let inner = match self {
            Argument::Text(text) => text.len(),
            Argument::List(items) => items.iter().map(Argument::bytes).fold(0, usize::saturating_add),
            Argument::Map(pairs) => {
                let pair = |(key, value): &(String, Argument)| key.len() + value.bytes() + EACH_BYTES;
                pairs.iter().map(pair).fold(0, usize::saturating_add)
            }
            _ => 0,
        };
        inner.saturating_add(EACH_BYTES)
    }

    pub(crate) fn value(&self, budget: &Budget) -> Result<Value, minijinja::Error> {
        Ok(match self {
            Argument::None => Value::from(()),
            Argument::Bool(flag) => Value::from(*flag),
            Argument::Int(number) => Value::from(*number),
            Argument::Float(number) => Value::from(*number),
            Argument::Text(text) => Value::from(text.as_str()),
            Argument::List(items) => {
                let items = items.iter().map(|item| item.value(budget)).collect::<Result<_, _>>()?;
                python::list(budget, items)?
            }
            Argument::Map(pairs) => {
                let pair =
                    |(key, value): &(String, Argument)| Ok((Value::from(key.as_str()), value.value(budget)?));
                let pairs = pairs.iter().map(pair).collect::<Result<_, minijinja::Error>>()?;
                python::dict(budget, pairs)?
            }
        })
    }
}
