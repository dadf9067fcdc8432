//! jinja2's filters. `random` chooses from one item only: a conversation has one text.

mod lists;
mod numeric;
mod order;
mod texts;

use super::args::Args;
use super::strings::{self, Side};
use super::values::{self, Kind, defined};
use super::{format, json, numbers, pretty, sequences, web, wrap, wrong};
use lists::{batch, items, join, last, map, random, reverse, select, slice};
use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};
use numeric::{abs, filesizeformat, float, int, round};
use order::{dictsort, extreme, groupby, sort, sum, unique};
use std::cmp::Ordering;
use texts::{changed, indent, title, truncate};

type Filter = fn(Value, &mut Args<'_>) -> Result<Value, Error>;

const FILTERS: [(&str, Filter); 54] = [
    ("abs", abs),
    ("attr", attr),
    ("batch", batch),
    ("capitalize", |value, args| changed(&value, args, strings::capitalize)),
    ("center", |value, args| {
        let width = args.given_integer("width")?.unwrap_or(80);
        let text = args.shown(&value)?;
        strings::pad(&text, width, ' ', Side::Center, args)
    }),
    ("count", length),
    ("d", default),
    ("default", default),
    ("dictsort", dictsort),
    ("e", web::escape),
    ("escape", web::escape),
    ("filesizeformat", filesizeformat),
    ("first", |value, args| {
        let items = values::items(&args.budget, &value)?;
        Ok(items.into_iter().next().unwrap_or_default())
    }),
    ("float", float),
    ("forceescape", web::escape),
    ("format", |value, args| {
        let (positional, named) = (args.rest(), args.rest_named()?);
        let given = match (positional.is_empty(), named.is_empty()) {
            (false, false) => {
                return Err(wrong("can't handle positional and keyword arguments at the same time"));
            }
            (true, false) => {
                values::dict(&args.budget, named.into_iter().map(|(k, v)| (Value::from(k), v)).collect())?
            }
            _ => values::new(&args.budget, Kind::Tuple, positional)?,
        };
        format::percent(&args.budget, &args.shown(&value)?, &given).map(Value::from)
    }),
    ("groupby", groupby),
    ("indent", indent),
    ("int", int),
    ("items", items),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", |value, args| {
        let items = values::items(&args.budget, &value)?;
        values::list(&args.budget, items)
    }),
    ("lower", |value, args| changed(&value, args, strings::lower)),
    ("map", map),
    ("max", |value, args| extreme(value, args, Ordering::Greater)),
    ("min", |value, args| extreme(value, args, Ordering::Less)),
    ("pprint", pretty::pprint),
    ("random", random),
    ("reject", |value, args| select(value, args, false, false)),
    ("rejectattr", |value, args| select(value, args, true, false)),
    ("replace", |value, args| {
        let text = args.shown(&value)?;
        let (old, new) = (args.required("old")?, args.required("new")?);
        let count = args.given("count")?.map(|count| numbers::integer("count", &count)).transpose()?;
        let (old, new) = (args.shown(&old)?.to_string(), args.shown(&new)?.to_string());
        strings::replace(&text, &old, &new, count, args)
    }),
    ("reverse", reverse),
    ("round", round),
    ("safe", |value, args| changed(&value, args, str::to_owned)),
    ("select", |value, args| select(value, args, false, true)),
    ("selectattr", |value, args| select(value, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("string", |value, args| changed(&value, args, str::to_owned)),
    ("striptags", web::striptags),
    ("sum", sum),
    ("title", |value, args| changed(&value, args, title)),
    ("tojson", json::tojson),
    ("trim", |value, args| {
        let chars = args.given_string("chars")?;
        let chars = chars.as_ref().map(|chars| chars.as_str().unwrap_or_default());
        let text = args.shown(&value)?;
        args.text(strings::stripped(&text, chars, true, true).to_owned())
    }),
    ("truncate", truncate),
    ("unique", unique),
    ("urlencode", web::urlencode),
    ("urlize", web::urlize),
    ("upper", |value, args| changed(&value, args, strings::upper)),
    ("wordcount", |value, args| {
        let word = |c: char| c == '_' || c.is_alphanumeric();
        let text = args.shown(&value)?;
        Ok(Value::from(text.split(|c| !word(c)).filter(|part| !part.is_empty()).count()))
    }),
    ("wordwrap", wrap::wordwrap),
    ("xmlattr", web::xmlattr),
];

pub(super) fn install(environment: &mut Environment<'static>) {
    for (name, filter) in FILTERS {
        environment.add_filter(name, move |state: &State<'_, '_>, value: Value, args: Rest<Value>| {
            let mut args = Args::new(state, args.0)?;
            args.budget.work(values::own_weight(&value))?;
            let result = filter(value, &mut args)?;
            args.end()?;
            Ok::<Value, Error>(result)
        });
    }
}

pub(super) fn exists(name: &str) -> bool {
    FILTERS.iter().any(|(known, _)| *known == name)
}

fn attr(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let name = args.string("name")?;
    defined(&value, "an undefined value has no attributes")?;
    // Never an item.
    if values::as_dict(&value).is_some() {
        return Ok(Value::UNDEFINED);
    }
    sequences::attribute(&value, name.as_str().unwrap_or_default())
}

fn length(value: Value, _: &mut Args<'_>) -> Result<Value, Error> {
    values::length(&value).map(Value::from)
}

fn default(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let other = args.optional("default_value")?.unwrap_or_else(|| Value::from(""));
    let falsy_too = args.flag("boolean", false)?;
    Ok(if value.is_undefined() || (falsy_too && !value.is_true()) { other } else { value })
}
