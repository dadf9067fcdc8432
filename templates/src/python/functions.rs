//! The functions that jinja2 and `apply_chat_template` give to templates.

use super::args::Args;
use super::values::{self, Kind};
use super::wrong;
use crate::clock;
use crate::error::shortened;
use crate::rewrite::SELF;
use minijinja::value::{Object, ObjectRepr, Rest};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most items of `range`, as in jinja2's sandbox.
const MAX_RANGE: u64 = 100_000;

/// Longest message of `raise_exception`, in characters.
const MAX_MESSAGE_CHARS: usize = 2000;

type Function = fn(&mut Args<'_>) -> Result<Value, Error>;

const FUNCTIONS: [(&str, Function); 8] = [
    ("range", range),
    ("dict", |args| pairs(args).and_then(|(budget, pairs)| values::dict(&budget, pairs))),
    ("namespace", namespace),
    ("joiner", joiner),
    ("cycler", cycler),
    ("raise_exception", raise_exception),
    ("strftime_now", strftime_now),
    ("lipsum", |_| Err(wrong("`lipsum` makes a random text, which isn't supported"))),
];

pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, function) in FUNCTIONS {
        environment.add_function(name, move |state: &State<'_, '_>, args: Rest<Value>| {
            let mut args = Args::new(state, args.0)?;
            let result = function(&mut args)?;
            args.end()?;
            Ok::<Value, Error>(result)
        });
    }
    environment.add_global(SELF, Value::from_object(Itself));
}

fn range(args: &mut Args<'_>) -> Result<Value, Error> {
    let mut bounds = Vec::new();
    for value in args.rest() {
        let bound = super::numbers::integer("range", &value)?;
        bounds.push(i64::try_from(bound).map_err(|_| wrong("range: a number is too large"))?);
    }
    let (start, stop, step) = match bounds[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => return Err(wrong("range takes one to three numbers")),
    };
    if step == 0 {
        return Err(wrong("range: the step must not be zero"));
    }
    let distance =
        if step > 0 { i128::from(stop) - i128::from(start) } else { i128::from(start) - i128::from(stop) };
    let count = u64::try_from(distance.max(0)).unwrap_or(u64::MAX).div_ceil(step.unsigned_abs());
    if count > MAX_RANGE {
        return Err(wrong(format!("range: {count} items; at most {MAX_RANGE} are taken")));
    }
    // The last one lies before `stop`, so that none overflows.
    let items = (0..count as i64).map(|i| Value::from(start.wrapping_add(i.wrapping_mul(step)))).collect();
    values::new(&args.budget, Kind::Range(start, stop, step), items)
}

type Pairs = (Arc<super::Budget>, Vec<(Value, Value)>);

/// The arguments of `dict` and `namespace`: a map or pairs, and names.
fn pairs(args: &mut Args<'_>) -> Result<Pairs, Error> {
    let mut pairs = Vec::new();
    let positional = args.rest();
    if positional.len() > 1 {
        return Err(wrong(format!("at most 1 positional argument is taken, not {}", positional.len())));
    }
    if let Some(first) = positional.into_iter().next() {
        match values::as_dict(&first) {
            Some(dict) => pairs.extend(dict.pairs.iter().cloned()),
            None => {
                for pair in values::items(&args.budget, &first)? {
                    match &values::items(&args.budget, &pair)?[..] {
                        [key, value] => pairs.push((key.clone(), value.clone())),
                        other => return Err(wrong(format!("a pair has {} items", other.len()))),
                    }
                }
            }
        }
    }
    pairs.extend(args.rest_named()?.into_iter().map(|(name, value)| (Value::from(name), value)));
    Ok((args.budget.clone(), pairs))
}

fn namespace(args: &mut Args<'_>) -> Result<Value, Error> {
    let (budget, pairs) = pairs(args)?;
    // minijinja takes assignments to its own type only.
    minijinja::functions::namespace(Some(values::dict(&budget, pairs)?))
}

fn raise_exception(args: &mut Args<'_>) -> Result<Value, Error> {
    let message = args.required("message")?;
    let message = args.shown(&message)?;
    Err(Error::new(ErrorKind::InvalidOperation, shortened(&message, MAX_MESSAGE_CHARS).to_owned()))
}

fn strftime_now(args: &mut Args<'_>) -> Result<Value, Error> {
    let format = args.string("format")?;
    clock::strftime_now(format.as_str().unwrap_or_default()).map(Value::from)
}

fn joiner(args: &mut Args<'_>) -> Result<Value, Error> {
    let separator = args.optional("sep")?.unwrap_or_else(|| Value::from(", "));
    values::check_stored(&separator)?;
    Ok(Value::from_object(Joiner { separator, used: AtomicBool::new(false) }))
}

fn cycler(args: &mut Args<'_>) -> Result<Value, Error> {
    let items = args.rest();
    if items.is_empty() {
        return Err(wrong("cycler: at least one item has to be provided"));
    }
    items.iter().try_for_each(values::check_stored)?;
    Ok(Value::from_object(Cycler { items, at: AtomicUsize::new(0) }))
}

/// A separator, but for the first call.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _state: &State<'_, '_>, _args: &[Value]) -> Result<Value, Error> {
        let used = self.used.swap(true, Ordering::Relaxed);
        Ok(if used { self.separator.clone() } else { Value::from("") })
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<joiner>")
    }
}

/// Items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn current(&self) -> Value {
        self.items[self.at.load(Ordering::Relaxed)].clone()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.current())
    }

    fn call_method(self: &Arc<Self>, _: &State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        match method {
            "next" => {
                let current = self.current();
                let next = (self.at.load(Ordering::Relaxed) + 1) % self.items.len();
                self.at.store(next, Ordering::Relaxed);
                Ok(current)
            }
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<cycler>")
    }
}

/// jinja2's `self`, of which only the blocks are of use; minijinja calls those itself.
#[derive(Debug)]
struct Itself;

impl Object for Itself {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}
