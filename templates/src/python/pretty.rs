//! jinja2's filter `pprint`, which is Python's `pprint.pformat`: the `repr` of a value, over several lines where it is
//! longer than 80 characters. Maps are sorted by their keys.

use super::args::Args;
use super::text::{self, Text};
use super::values::{self, Kind, Sequence, type_name};
use super::{operators, sequences, strings};
use crate::rewrite::is_space;
use minijinja::{Error, Value};
use std::cmp::Ordering;

const WIDTH: usize = 80;

/// `value | pprint`.
pub(super) fn pprint(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let mut out = Text::new(&args.budget);
    Pretty { args, out: &mut out }.push(&value, 0, 0, 0)?;
    Ok(Value::from(out.finish()))
}

/// A value with its maps sorted, to be shown on one line.
fn sorted(args: &Args<'_>, value: &Value) -> Result<Value, Error> {
    if let Some(sequence) = values::sequence(value)
        && matches!(sequence.kind, Kind::List | Kind::Tuple)
    {
        let items = sequence.items.iter().map(|item| sorted(args, item)).collect::<Result<_, _>>()?;
        return values::new(&args.budget, sequence.kind, items);
    }
    if values::as_dict(value).is_some() {
        let pairs = pairs(args, value)?.into_iter();
        let pairs = pairs.map(|(key, value)| Ok::<_, Error>((key, sorted(args, &value)?)));
        return values::dict(&args.budget, pairs.collect::<Result<_, _>>()?);
    }
    Ok(value.clone())
}

/// The pairs of a map by their keys: those that have no order by their types' names.
fn pairs(args: &Args<'_>, map: &Value) -> Result<Vec<(Value, Value)>, Error> {
    let pairs = values::as_dict(map).map(|dict| dict.pairs.clone()).unwrap_or_default();
    sequences::sort(pairs, &mut |(a, _), (b, _)| {
        args.budget.work(values::weight(a).saturating_add(values::weight(b)))?;
        Ok(match operators::order("<", a, b) {
            Ok(order) => order == Some(Ordering::Less),
            Err(_) => type_name(a) < type_name(b),
        })
    })
}

struct Pretty<'a, 'o, 'b> {
    args: &'a Args<'a>,
    out: &'o mut Text<'b>,
}

/// The width of a text that stands behind `indent` and before `allowance` characters.
fn room(indent: usize, allowance: usize) -> usize {
    WIDTH.saturating_sub(indent.saturating_add(allowance))
}

impl Pretty<'_, '_, '_> {
    fn repr(&self, value: &Value) -> Result<String, Error> {
        text::repr(&sorted(self.args, value)?, &self.args.budget)
    }

    fn new_line(&mut self, indent: usize) -> Result<(), Error> {
        self.args.budget.make(indent)?;
        self.out.push('\n')?;
        self.out.push_str(&" ".repeat(indent))
    }

    fn push(&mut self, value: &Value, indent: usize, allowance: usize, level: usize) -> Result<(), Error> {
        let repr = self.repr(value)?;
        if repr.chars().count() <= room(indent, allowance) {
            return self.out.push_str(&repr);
        }
        if let Some(text) = value.as_str() {
            return self.push_string(text, indent, allowance, level + 1);
        }
        if values::as_dict(value).is_some() {
            return self.push_map(value, indent, allowance + 1, level + 1);
        }
        match values::sequence(value) {
            Some(sequence) if matches!(sequence.kind, Kind::List | Kind::Tuple) => {
                self.push_sequence(sequence, indent, allowance, level + 1)
            }
            _ => self.out.push_str(&repr),
        }
    }

    fn push_sequence(
        &mut self,
        sequence: &Sequence,
        indent: usize,
        allowance: usize,
        level: usize,
    ) -> Result<(), Error> {
        let (begin, end) = match (sequence.kind, sequence.items.len()) {
            (Kind::List, _) => ("[", "]"),
            (_, 1) => ("(", ",)"),
            _ => ("(", ")"),
        };
        self.out.push_str(begin)?;
        for (i, item) in sequence.items.iter().enumerate() {
            if i > 0 {
                self.out.push(',')?;
                self.new_line(indent + 1)?;
            }
            let is_last = i + 1 == sequence.items.len();
            self.push(item, indent + 1, if is_last { allowance + end.len() } else { 1 }, level)?;
        }
        self.out.push_str(end)
    }

    fn push_map(&mut self, map: &Value, indent: usize, allowance: usize, level: usize) -> Result<(), Error> {
        let pairs = pairs(self.args, map)?;
        self.out.push('{')?;
        for (i, (key, value)) in pairs.iter().enumerate() {
            if i > 0 {
                self.out.push(',')?;
                self.new_line(indent + 1)?;
            }
            let key = self.repr(key)?;
            self.out.push_str(&key)?;
            self.out.push_str(": ")?;
            let behind_key = indent + key.chars().count() + 3;
            let is_last = i + 1 == pairs.len();
            self.push(value, behind_key, if is_last { allowance } else { 1 }, level)?;
        }
        self.out.push('}')
    }

    /// A string as several that stand below one another.
    fn push_string(
        &mut self,
        text: &str,
        mut indent: usize,
        mut allowance: usize,
        level: usize,
    ) -> Result<(), Error> {
        let is_outermost = level == 1;
        if is_outermost {
            indent += 1;
            allowance += 1;
        }
        let pieces = self.pieces(text, indent, allowance)?;
        let in_parentheses = is_outermost && pieces.len() > 1;
        if in_parentheses {
            self.out.push('(')?;
        }
        for (i, piece) in pieces.iter().enumerate() {
            if i > 0 {
                self.new_line(indent)?;
            }
            self.out.push_str(piece)?;
        }
        if in_parentheses { self.out.push(')') } else { Ok(()) }
    }

    /// The lines of a text, and of long lines as many words as fit.
    fn pieces(&self, text: &str, indent: usize, allowance: usize) -> Result<Vec<String>, Error> {
        let budget = &self.args.budget;
        let quoted = |text: &str| text::repr(&Value::from(text), budget);
        let fits = |repr: &str, is_last: bool| {
            repr.chars().count() <= room(indent, if is_last { allowance } else { 0 })
        };
        let mut pieces = Vec::new();
        let lines = strings::lines(text, true, usize::MAX);
        for (i, line) in lines.iter().enumerate() {
            let is_last_line = i + 1 == lines.len();
            let whole = quoted(line)?;
            if fits(&whole, is_last_line) {
                pieces.push(whole);
                continue;
            }
            let words = words(line);
            let mut current = String::new();
            for (j, word) in words.iter().enumerate() {
                let candidate = format!("{current}{word}");
                if fits(&quoted(&candidate)?, is_last_line && j + 1 == words.len()) {
                    current = candidate;
                    continue;
                }
                if !current.is_empty() {
                    pieces.push(quoted(&current)?);
                }
                current = (*word).to_owned();
            }
            if !current.is_empty() {
                pieces.push(quoted(&current)?);
            }
        }
        Ok(pieces)
    }
}

/// Words, each with the white space behind it.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let blank = rest.find(is_space).unwrap_or(rest.len());
        let end = rest[blank..].find(|c| !is_space(c)).map_or(rest.len(), |more| blank + more);
        words.push(&rest[..end]);
        rest = &rest[end..];
    }
    words
}
