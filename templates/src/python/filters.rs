//! jinja2's filters. `random` chooses from one item only: a conversation has one text.

use super::args::Args;
use super::numbers::{self, Number};
use super::strings::{self, Side};
use super::values::{self, Kind, defined, type_name};
use super::{format, json, operators, pretty, sequences, web, wrap, wrong};
use minijinja::value::Rest;
use minijinja::{Environment, Error, State, Value};
use std::cmp::Ordering;

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

/// The value's text after `change`.
fn changed(value: &Value, args: &mut Args<'_>, change: impl Fn(&str) -> String) -> Result<Value, Error> {
    let text = args.shown(value)?;
    args.budget.make(text.len())?;
    args.text(change(&text))
}

/// Each word begins in upper case; words are what stands between white space, hyphens and opening brackets.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        begins = strings::is_boundary(c);
    }
    out
}

fn iterator(args: &Args<'_>, items: Vec<Value>) -> Result<Value, Error> {
    values::new(&args.budget, Kind::Iterator, items)
}

fn abs(value: Value, _: &mut Args<'_>) -> Result<Value, Error> {
    match Number::of(&value) {
        Some(Number::Integer(n)) => {
            n.checked_abs().map(|n| Number::Integer(n).value()).ok_or_else(numbers::too_large)
        }
        Some(Number::Float(n)) => Ok(Value::from(n.abs())),
        None => Err(wrong(format!("bad operand type for abs(): '{}'", type_name(&value)))),
    }
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

fn float(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let default = args.optional("default")?.unwrap_or_else(|| Value::from(0.0));
    defined(&value, "an undefined value is no number")?;
    let number = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(&value).map(Number::as_float),
    };
    Ok(number.map_or(default, Value::from))
}

fn int(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let default = args.optional("default")?.unwrap_or_else(|| Value::from(0));
    let base = args.given_integer("base")?.unwrap_or(10);
    defined(&value, "an undefined value is no number")?;
    let whole = |number: f64| (number.is_finite() && number.abs() < 1e38).then_some(number.trunc() as i128);
    let number = match (value.as_str(), Number::of(&value)) {
        (Some(text), _) => {
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let parsed = base.and_then(|base| numbers::parse_integer(text, base));
            parsed.or_else(|| numbers::parse_float(text).and_then(whole))
        }
        (_, Some(Number::Integer(number))) => Some(number),
        (_, Some(Number::Float(number))) => whole(number),
        _ => None,
    };
    Ok(number.map_or(default, |number| Number::Integer(number).value()))
}

fn round(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let precision = args.given_integer("precision")?.unwrap_or(0);
    let method = args.given_string("method")?;
    let number =
        Number::of(&value).ok_or_else(|| wrong(format!("type {} can't be rounded", type_name(&value))))?;
    let scale = || 10_f64.powi(i32::try_from(precision.clamp(-400, 400)).unwrap_or(0));
    let scaled = number.as_float() * scale();
    match method.as_ref().map_or("common", |method| method.as_str().unwrap_or_default()) {
        "common" => match number {
            Number::Integer(n) if precision >= 0 => Ok(Number::Integer(n).value()),
            Number::Integer(n) => {
                let rounded = numbers::round(n as f64, precision);
                Ok(Number::Integer(rounded as i128).value())
            }
            Number::Float(n) => Ok(Value::from(numbers::round(n, precision))),
        },
        "ceil" => Ok(Value::from(scaled.ceil() / scale())),
        "floor" => Ok(Value::from(scaled.floor() / scale())),
        _ => Err(wrong("method must be common, ceil or floor")),
    }
}

fn indent(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let width = args.optional("width")?.unwrap_or_else(|| Value::from(4));
    let (first, blank) = (args.flag("first", false)?, args.flag("blank", false)?);
    defined(&value, "an undefined value has no lines")?;
    let text =
        value.as_str().ok_or_else(|| wrong(format!("indent: str is needed, not {}", type_name(&value))))?;
    let width = match width.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let width = usize::try_from(numbers::integer("width", &width)?.max(0)).unwrap_or(usize::MAX);
            args.budget.make(width)?;
            " ".repeat(width)
        }
    };
    let lines = text.matches('\n').count() + 1;
    args.budget.make(text.len().saturating_add(lines.saturating_mul(width.len())))?;
    let mut out = String::new();
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        if if i == 0 { first } else { blank || !line.is_empty() } {
            out.push_str(&width);
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn items(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    if value.is_undefined() {
        return iterator(args, Vec::new());
    }
    let dict = values::as_dict(&value).ok_or_else(|| wrong("Can only get item pairs from a mapping."))?;
    args.budget.make(dict.pairs.len().saturating_mul(size_of::<Value>()))?;
    let pair = |(key, value): &(Value, Value)| {
        values::new(&args.budget, Kind::Tuple, vec![key.clone(), value.clone()])
    };
    let pairs = dict.pairs.iter().map(pair).collect::<Result<_, _>>()?;
    iterator(args, pairs)
}

fn join(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let separator = args.optional("d")?.unwrap_or_else(|| Value::from(""));
    let attribute = args.given("attribute")?;
    let mut items = values::items(&args.budget, &value)?;
    if let Some(path) = attribute {
        items = items.iter().map(|item| sequences::by_path(item, &path, None)).collect::<Result<_, _>>()?;
    }
    let texts = items.iter().map(|item| args.shown(item)).collect::<Result<Vec<_>, _>>()?;
    let separator = args.shown(&separator)?;
    strings::join(&separator, &texts.iter().map(|text| &**text).collect::<Vec<_>>(), args)
}

fn last(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    check_reversible(&value)?;
    let items = values::items(&args.budget, &value)?;
    Ok(items.into_iter().next_back().unwrap_or_default())
}

fn check_reversible(value: &Value) -> Result<(), Error> {
    let is_iterator = values::sequence(value).is_some_and(|sequence| sequence.kind == Kind::Iterator);
    if is_iterator { Err(sequences::no_order(value)) } else { Ok(()) }
}

fn reverse(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let mut items = values::items(&args.budget, &value)?;
    items.reverse();
    match value.as_str() {
        Some(text) => args.text(text.chars().rev().collect()),
        None => iterator(args, items),
    }
}

/// `map` and `select` take anything that is false for empty, none too.
fn items_if_true(value: &Value, args: &Args<'_>) -> Result<Vec<Value>, Error> {
    if value.is_true() { values::items(&args.budget, value) } else { Ok(Vec::new()) }
}

fn map(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let items = items_if_true(&value, args)?;
    let attribute = args.named("attribute")?;
    let mapped = match attribute {
        Some(path) => {
            let default = args.named("default")?;
            args.end_of_named()?;
            items
                .iter()
                .map(|item| sequences::by_path(item, &path, default.as_ref()))
                .collect::<Result<_, _>>()?
        }
        None => {
            let name = args.string("filter")?;
            let name = public(&name)?;
            let rest = args.rest_as_passed();
            let apply = |item: Value| {
                let all: Vec<Value> = std::iter::once(item).chain(rest.iter().cloned()).collect();
                args.budget.nested(|| args.state.apply_filter(name, &all))
            };
            items.into_iter().map(apply).collect::<Result<_, _>>()?
        }
    };
    iterator(args, mapped)
}

/// The name of a filter or test that a template may use.
fn public(name: &Value) -> Result<&str, Error> {
    let name = name.as_str().unwrap_or_default();
    if name.starts_with(crate::rewrite::PRIVATE) {
        return Err(wrong(format!("no filter or test has the name `{name}`")));
    }
    Ok(name)
}

fn select(value: Value, args: &mut Args<'_>, by_attribute: bool, wanted: bool) -> Result<Value, Error> {
    let items = items_if_true(&value, args)?;
    let path = if by_attribute { Some(args.required("attribute")?) } else { None };
    let test = args.optional("test")?;
    let test = test.as_ref().map(public).transpose()?;
    let rest = args.rest_as_passed();
    let mut kept = Vec::new();
    for item in items {
        let subject = match &path {
            Some(path) => sequences::by_path(&item, path, None)?,
            None => item.clone(),
        };
        let holds = match test {
            None => subject.is_true(),
            Some(test) => {
                let all: Vec<Value> = std::iter::once(subject).chain(rest.iter().cloned()).collect();
                args.budget.nested(|| args.state.perform_test(test, &all))?
            }
        };
        if holds == wanted {
            kept.push(item);
        }
    }
    iterator(args, kept)
}

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

fn sort(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
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

fn dictsort(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
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

fn extreme(value: Value, args: &mut Args<'_>, wanted: Ordering) -> Result<Value, Error> {
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

fn unique(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
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

fn groupby(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
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

fn sum(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
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

fn batch(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let count = args.given_integer("linecount")?.ok_or_else(|| wrong("batch: the count is missing"))?;
    let fill = args.given("fill_with")?;
    let items = values::items(&args.budget, &value)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        return Err(wrong("batch: the count must be above zero"));
    };
    let mut rows = Vec::new();
    for chunk in items.chunks(count) {
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            let missing = count - row.len();
            args.budget.make(missing.saturating_mul(size_of::<Value>()))?;
            row.extend(std::iter::repeat_n(fill.clone(), missing));
        }
        rows.push(values::list(&args.budget, row)?);
    }
    iterator(args, rows)
}

fn slice(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let slices = args.given_integer("slices")?.ok_or_else(|| wrong("slice: the count is missing"))?;
    let fill = args.given("fill_with")?;
    let items = values::items(&args.budget, &value)?;
    let Some(slices) = usize::try_from(slices).ok().filter(|slices| *slices > 0) else {
        return Err(wrong("slice: the count must be above zero"));
    };
    args.budget.make(slices.saturating_mul(size_of::<Value>()))?;
    let (each, longer) = (items.len() / slices, items.len() % slices);
    let mut columns = Vec::new();
    let mut at = 0;
    for column in 0..slices {
        let length = each + usize::from(column < longer);
        let mut part = items[at..at + length].to_vec();
        at += length;
        if column >= longer
            && let Some(fill) = &fill
        {
            part.push(fill.clone());
        }
        columns.push(values::list(&args.budget, part)?);
    }
    iterator(args, columns)
}

fn truncate(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let length = args.given_integer("length")?.unwrap_or(255);
    let kill_words = args.flag("killwords", false)?;
    let end = args.given_string("end")?.unwrap_or_else(|| Value::from("..."));
    let leeway = args.given_integer("leeway")?.unwrap_or(5);
    let end = end.as_str().unwrap_or_default();
    let Some(text) = value.as_str() else {
        let fits = values::length(&value)? as i128 <= length.saturating_add(leeway);
        return if fits { Ok(value) } else { Err(wrong("truncate: str is needed")) };
    };
    let end_length = end.chars().count() as i128;
    if length < end_length || leeway < 0 {
        return Err(wrong("truncate: the length or the leeway is too small"));
    }
    if text.chars().count() as i128 <= length.saturating_add(leeway) {
        return args.text(text.to_owned());
    }
    let cut: String = text.chars().take(usize::try_from(length - end_length).unwrap_or(usize::MAX)).collect();
    let cut: &str = if kill_words { &cut } else { cut.rsplit_once(' ').map_or(&*cut, |(before, _)| before) };
    args.text(format!("{cut}{end}"))
}

/// The only item of a list. Of several, jinja2 would choose one by chance.
fn random(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    match values::length(&value)? {
        0 => Ok(Value::UNDEFINED),
        1 if values::as_dict(&value).is_none() => {
            Ok(values::items(&args.budget, &value)?.into_iter().next().unwrap_or_default())
        }
        _ => Err(wrong("`random` chooses by chance, which isn't supported")),
    }
}

fn filesizeformat(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let is_binary = args.flag("binary", false)?;
    let bytes = match value.as_str() {
        Some(text) => numbers::parse_float(text),
        None => Number::of(&value).map(Number::as_float),
    };
    let bytes = bytes.ok_or_else(|| wrong(format!("filesizeformat: {} is no number", type_name(&value))))?;
    let base: f64 = if is_binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        if bytes.is_infinite() {
            return Err(wrong("cannot convert float infinity to integer"));
        }
        return Ok(Value::from(format!("{:.0} Bytes", bytes.trunc() + 0.0)));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let unit = |power: usize| base.powi(power as i32 + 2);
    let power = (0..8).find(|&power| bytes < unit(power)).unwrap_or(7);
    let number = base * bytes / unit(power);
    let number = if number.is_finite() { format!("{number:.1}") } else { super::text::float(number) };
    let prefix = if is_binary { prefixes[power].to_uppercase() + "i" } else { prefixes[power].to_owned() };
    Ok(Value::from(format!("{number} {prefix}B")))
}
