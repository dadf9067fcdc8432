//! Methods of Python's strings. Characters are code points; sizes are checked before a text is made.

use super::args::Args;
use super::methods::Method;
use super::values::{self, Kind};
use super::{numbers, text, wrong};
use crate::rewrite::is_space;
use minijinja::{Error, Value};

/// A text is split into fewer parts.
const MAX_PARTS: usize = 1 << 21;

pub(super) const METHODS: [(&str, Method); 46] = [
    // Its call needs all arguments, so the caller deals with it; this makes its name known.
    ("format", |_, _| Err(wrong("format() must be called with its string"))),
    ("upper", |s, args| made(args, upper(own(s)))),
    ("lower", |s, args| made(args, lower(own(s)))),
    ("casefold", |s, args| made(args, lower(own(s)).replace('ß', "ss"))),
    ("swapcase", |s, args| made(args, own(s).chars().map(swapped).collect())),
    ("title", |s, args| made(args, title(own(s)))),
    ("capitalize", |s, args| made(args, capitalize(own(s)))),
    ("strip", |s, args| strip(s, args, true, true)),
    ("lstrip", |s, args| strip(s, args, true, false)),
    ("rstrip", |s, args| strip(s, args, false, true)),
    ("split", |s, args| split(s, args, false)),
    ("rsplit", |s, args| split(s, args, true)),
    ("splitlines", splitlines),
    ("partition", |s, args| partition(s, args, false)),
    ("rpartition", |s, args| partition(s, args, true)),
    ("replace", |s, args| {
        let (old, new) = (args.string("old")?, args.string("new")?);
        let count = args.given_integer("count")?;
        replace(own(s), own(&old), own(&new), count, args)
    }),
    ("join", |s, args| {
        let items = args.required("iterable")?;
        let items = values::items(&args.budget, &items)?;
        let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
        let texts = texts.ok_or_else(|| wrong("join: an item is no string"))?;
        join(own(s), &texts, args)
    }),
    ("startswith", |s, args| affix(s, args, |text, part| text.starts_with(part))),
    ("endswith", |s, args| affix(s, args, |text, part| text.ends_with(part))),
    ("removeprefix", |s, args| {
        let part = args.string("prefix")?;
        made(args, own(s).strip_prefix(own(&part)).unwrap_or(own(s)).to_owned())
    }),
    ("removesuffix", |s, args| {
        let part = args.string("suffix")?;
        made(args, own(s).strip_suffix(own(&part)).unwrap_or(own(s)).to_owned())
    }),
    ("find", |s, args| Ok(Value::from(position(s, args, false)?.map_or(-1, |at| at as i64)))),
    ("rfind", |s, args| Ok(Value::from(position(s, args, true)?.map_or(-1, |at| at as i64)))),
    ("index", |s, args| {
        position(s, args, false)?.map(Value::from).ok_or_else(|| wrong("substring not found"))
    }),
    ("rindex", |s, args| {
        position(s, args, true)?.map(Value::from).ok_or_else(|| wrong("substring not found"))
    }),
    ("count", |s, args| {
        let part = args.string("sub")?;
        let (_, within) = window(own(s), args)?;
        let Some(within) = within else { return Ok(Value::from(0)) };
        let count = if own(&part).is_empty() {
            within.chars().count() + 1
        } else {
            within.matches(own(&part)).count()
        };
        Ok(Value::from(count))
    }),
    ("center", |s, args| padded(s, args, Side::Center)),
    ("ljust", |s, args| padded(s, args, Side::Left)),
    ("rjust", |s, args| padded(s, args, Side::Right)),
    ("zfill", |s, args| {
        let width = args.given_integer("width")?.ok_or_else(|| wrong("zfill: the width is missing"))?;
        let (sign, digits) = match own(s).chars().next() {
            Some('+' | '-') => own(s).split_at(1),
            _ => ("", own(s)),
        };
        let missing = missing(own(s), width);
        args.budget.make(missing.saturating_add(own(s).len()))?;
        Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing))))
    }),
    ("expandtabs", expandtabs),
    ("isdigit", |s, _| all(s, |c| c.is_ascii_digit() || digit_like(c))),
    ("isdecimal", |s, _| all(s, is_decimal)),
    ("isnumeric", |s, _| all(s, char::is_numeric)),
    ("isalpha", |s, _| all(s, |c| c.is_alphabetic() && !c.is_numeric())),
    ("isalnum", |s, _| all(s, char::is_alphanumeric)),
    ("isspace", |s, _| all(s, is_space)),
    ("isascii", |s, _| Ok(Value::from(own(s).is_ascii()))),
    ("isprintable", |s, _| Ok(Value::from(own(s).chars().all(text::is_printable)))),
    ("isidentifier", |s, _| {
        let word = own(s);
        let begins = word.chars().next().is_some_and(|c| c == '_' || c.is_alphabetic());
        Ok(Value::from(begins && word.chars().all(|c| c == '_' || c.is_alphanumeric())))
    }),
    ("isupper", |s, _| Ok(Value::from(is_upper(own(s))))),
    ("islower", |s, _| Ok(Value::from(is_lower(own(s))))),
    ("istitle", |s, _| Ok(Value::from(own(s).chars().any(char::is_alphabetic) && title(own(s)) == own(s)))),
    ("encode", |_, _| Err(wrong("encode: bytes aren't supported"))),
    ("translate", |_, _| Err(wrong("translate isn't supported"))),
    ("maketrans", |_, _| Err(wrong("maketrans isn't supported"))),
];

fn own(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn made(args: &Args<'_>, text: String) -> Result<Value, Error> {
    args.text(text)
}

fn all(value: &Value, test: impl Fn(char) -> bool) -> Result<Value, Error> {
    Ok(Value::from(!own(value).is_empty() && own(value).chars().all(test)))
}

/// Superscripts and the like, which Python takes for digits, but neither fractions nor numerals.
fn digit_like(c: char) -> bool {
    decimal(c).is_some()
        || matches!(c, '²' | '³' | '¹' | '\u{2070}'..='\u{2079}' | '\u{2080}'..='\u{2089}' | '①'..='⑨')
}

/// A decimal digit of any script.
pub(super) fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || decimal(c).is_some()
}

/// The value of a decimal digit of a script, other than ASCII's, that has a block of ten.
pub(super) fn decimal(c: char) -> Option<u32> {
    const ZEROS: [u32; 22] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50,
        0xed0, 0xf20, 0x1040, 0x17e0, 0x1810, 0xa8d0, 0xff10, 0x1d7ce,
    ];
    ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(*zero).filter(|digit| *digit < 10))
}

/// What separates words for the filter `title`.
pub(super) fn is_boundary(c: char) -> bool {
    is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<')
}

pub(super) fn upper(text: &str) -> String {
    text.to_uppercase()
}

pub(super) fn lower(text: &str) -> String {
    text.to_lowercase()
}

fn swapped(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(titled).collect();
    first + &lower(chars.as_str())
}

/// Title case differs from upper case in a few letters that are two in one: `ß` becomes `Ss`.
fn titled(c: char) -> Vec<char> {
    let mut upper = c.to_uppercase();
    let first = upper.next().unwrap_or(c);
    std::iter::once(first).chain(upper.flat_map(char::to_lowercase)).collect()
}

/// Python's `str.title`: a letter behind another is lower case.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let cased = c.is_alphabetic();
        match (cased, inside) {
            (true, false) => out.extend(titled(c)),
            (true, true) => out.extend(c.to_lowercase()),
            (false, _) => out.push(c),
        }
        inside = cased;
    }
    out
}

pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

fn strip(value: &Value, args: &mut Args<'_>, start: bool, end: bool) -> Result<Value, Error> {
    let chars = args.given_string("chars")?;
    let stripped = stripped(own(value), chars.as_ref().map(own), start, end);
    args.text(stripped.to_owned())
}

pub(super) fn stripped<'s>(text: &'s str, chars: Option<&str>, start: bool, end: bool) -> &'s str {
    let mut sorted: Vec<char> = chars.unwrap_or_default().chars().collect();
    sorted.sort_unstable();
    let goes = |c: char| if chars.is_some() { sorted.binary_search(&c).is_ok() } else { is_space(c) };
    let text = if start { text.trim_start_matches(goes) } else { text };
    if end { text.trim_end_matches(goes) } else { text }
}

fn split(value: &Value, args: &mut Args<'_>, from_end: bool) -> Result<Value, Error> {
    let text = own(value);
    let separator = args.given_string("sep")?;
    let most = args.given_integer("maxsplit")?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = match separator.as_ref().map(own) {
        Some("") => return Err(wrong("empty separator")),
        Some(separator) if from_end => {
            text.rsplitn(most.saturating_add(1), separator).take(MAX_PARTS).collect()
        }
        Some(separator) => text.splitn(most.saturating_add(1), separator).take(MAX_PARTS).collect(),
        None => words(text, most, from_end),
    };
    if from_end {
        parts.reverse();
    }
    texts(args, parts)
}

/// Words between white space, at most `most` and a rest. From the end they come last word first.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = stripped(text, None, !from_end, from_end);
    while !rest.is_empty() && parts.len() < MAX_PARTS {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let (word, after) = match (from_end, rest.find(is_space), rest.rfind(is_space)) {
            (false, Some(at), _) => rest.split_at(at),
            (true, _, Some(at)) => {
                let width = rest[at..].chars().next().map_or(0, char::len_utf8);
                (&rest[at + width..], &rest[..at])
            }
            _ => (rest, ""),
        };
        parts.push(word);
        rest = stripped(after, None, !from_end, from_end);
    }
    parts
}

fn texts(args: &Args<'_>, parts: Vec<&str>) -> Result<Value, Error> {
    if parts.len() >= MAX_PARTS {
        return Err(wrong(format!("a text is split into {MAX_PARTS} parts or more")));
    }
    args.budget.make(parts.len().saturating_mul(size_of::<Value>()))?;
    for part in &parts {
        args.budget.make(part.len())?;
    }
    values::list(&args.budget, parts.into_iter().map(Value::from).collect())
}

fn splitlines(value: &Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let keep = args.flag("keepends", false)?;
    texts(args, lines(own(value), keep, MAX_PARTS))
}

/// The lines of a text, at most so many, with or without their ends.
pub(super) fn lines(text: &str, keep: bool, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    let ends = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    while !rest.is_empty() && parts.len() < most {
        let Some(at) = rest.find(ends) else {
            parts.push(rest);
            break;
        };
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        parts.push(&rest[..if keep { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    parts
}

fn partition(value: &Value, args: &mut Args<'_>, from_end: bool) -> Result<Value, Error> {
    let separator = args.string("sep")?;
    let (text, separator) = (own(value), own(&separator));
    if separator.is_empty() {
        return Err(wrong("empty separator"));
    }
    let found = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    };
    args.budget.make(text.len())?;
    values::new(&args.budget, Kind::Tuple, parts.map(Value::from).to_vec())
}

/// `text` with at most `count` of `old` replaced.
pub(super) fn replace(
    text: &str,
    old: &str,
    new: &str,
    count: Option<i128>,
    args: &Args<'_>,
) -> Result<Value, Error> {
    let count = usize::try_from(count.unwrap_or(-1)).unwrap_or(usize::MAX);
    let found = text.matches(old).take(count).count();
    args.budget.make(text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(old, new, count)))
}

pub(super) fn join(between: &str, parts: &[&str], args: &Args<'_>) -> Result<Value, Error> {
    let bytes = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    args.budget.make(bytes.saturating_add(between.len().saturating_mul(parts.len())))?;
    Ok(Value::from(parts.join(between)))
}

/// The text between the optional arguments `start` and `end`, and the place where it begins.
fn window<'s>(text: &'s str, args: &mut Args<'_>) -> Result<(usize, Option<&'s str>), Error> {
    let bounds = [args.given("start")?, args.given("end")?];
    if bounds.iter().all(Option::is_none) {
        return Ok((0, Some(text)));
    }
    let length = text.chars().count() as i128;
    let mut places = [0, length];
    for ((place, bound), name) in places.iter_mut().zip(bounds).zip(["start", "end"]) {
        if let Some(bound) = bound {
            let bound = numbers::integer(name, &bound)?;
            *place = if bound < 0 { bound.saturating_add(length).max(0) } else { bound };
        }
    }
    let [start, end] = [places[0], places[1].min(length)];
    if start > end {
        return Ok((0, None));
    }
    let at = |place: i128| text.char_indices().nth(place as usize).map_or(text.len(), |(at, _)| at);
    Ok((start as usize, Some(&text[at(start)..at(end)])))
}

fn position(value: &Value, args: &mut Args<'_>, last: bool) -> Result<Option<usize>, Error> {
    let part = args.string("sub")?;
    let (start, within) = window(own(value), args)?;
    let Some(within) = within else { return Ok(None) };
    let at = if last { within.rfind(own(&part)) } else { within.find(own(&part)) };
    Ok(at.map(|at| start + within[..at].chars().count()))
}

fn affix(value: &Value, args: &mut Args<'_>, test: impl Fn(&str, &str) -> bool) -> Result<Value, Error> {
    let parts = args.required("prefix")?;
    let (_, within) = window(own(value), args)?;
    args.budget.work(values::weight(&parts))?;
    let parts = match values::sequence(&parts) {
        Some(sequence) if sequence.kind == Kind::Tuple => sequence.items.clone(),
        _ => vec![parts],
    };
    for part in &parts {
        let part = part.as_str().ok_or_else(|| wrong("the first argument must be str or a tuple of str"))?;
        if within.is_some_and(|text| test(text, part)) {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// Where the text stands.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
    Center,
}

/// The characters that `text` lacks to have `width` of them.
pub(super) fn missing(text: &str, width: i128) -> usize {
    let length = text.chars().count();
    usize::try_from(width.max(0)).unwrap_or(usize::MAX).saturating_sub(length)
}

fn padded(value: &Value, args: &mut Args<'_>, side: Side) -> Result<Value, Error> {
    let width = args.given_integer("width")?.ok_or_else(|| wrong("the width is missing"))?;
    let fill = args.given_string("fillchar")?;
    let fill = match fill.as_ref().map(own) {
        None => ' ',
        Some(text) => {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(fill), None) => fill,
                _ => return Err(wrong("the fill character must be exactly one character long")),
            }
        }
    };
    pad(own(value), width, fill, side, args)
}

pub(super) fn pad(text: &str, width: i128, fill: char, side: Side, args: &Args<'_>) -> Result<Value, Error> {
    let missing = missing(text, width);
    args.budget.make(missing.saturating_mul(fill.len_utf8()).saturating_add(text.len()))?;
    let before = match side {
        Side::Left => 0,
        Side::Right => missing,
        // CPython puts the odd one before the text where the width is odd.
        Side::Center => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
    };
    let times = |count: usize| std::iter::repeat_n(fill, count);
    Ok(Value::from(times(before).chain(text.chars()).chain(times(missing - before)).collect::<String>()))
}

fn expandtabs(value: &Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let size = args.given_integer("tabsize")?.unwrap_or(8).max(0);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let tabs = own(value).matches('\t').count();
    args.budget.make(own(value).len().saturating_add(tabs.saturating_mul(size)))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in own(value).chars() {
        match c {
            '\t' => {
                let count = if size == 0 { 0 } else { size - column % size };
                out.extend(std::iter::repeat_n(' ', count));
                column += count;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    Ok(Value::from(out))
}
