//! Texts with values in them: `'%s' % value` and `'{}'.format(value)`.

use super::args::Args;
use super::budget::{Budget, MAX_VALUE_BYTES};
use super::numbers::{self, Number};
use super::spec::Spec;
use super::text::{self, Shown};
use super::values::{self, Kind, type_name};
use super::{sequences, wrong};
use minijinja::{Error, Value};

/// Most levels of fields in formats (`{:{width}}`).
const MAX_NESTING: usize = 2;

/// `format % values`.
pub(super) fn percent(budget: &Budget, format: &str, given: &Value) -> Result<String, Error> {
    budget.make(format.len())?;
    let items = match values::sequence(given) {
        Some(sequence) if sequence.kind == Kind::Tuple => sequence.items.clone(),
        _ => vec![given.clone()],
    };
    let mut given_values = Given { map: values::as_dict(given), rest: items.iter(), budget };
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let field;
        (field, rest) = Field::parse(rest)?;
        given_values.push(&mut out, field)?;
        check(&out)?;
    }
    out.push_str(rest);
    if given_values.rest.next().is_some() && !is_mapping(given) {
        return Err(wrong("not all arguments converted during string formatting"));
    }
    Ok(out)
}

/// The right side of `%`.
struct Given<'a> {
    map: Option<&'a values::Dict>,
    /// Values that no field took yet.
    rest: std::slice::Iter<'a, Value>,
    budget: &'a Budget,
}

impl<'a> Given<'a> {
    fn take(&mut self) -> Result<&'a Value, Error> {
        self.rest.next().ok_or_else(|| wrong("not enough arguments for format string"))
    }

    /// Appends the value that `field` is for.
    fn push(&mut self, out: &mut String, field: Field<'_>) -> Result<(), Error> {
        let mut spec = field.spec;
        let named = match field.name {
            Some(name) => {
                let map = self.map.ok_or_else(|| wrong("format requires a mapping"))?;
                Some(map.get(&Value::from(name)).ok_or_else(|| wrong(format!("no key '{name}'")))?)
            }
            None => None,
        };
        if field.width_given {
            let width = numbers::integer("*", self.take()?)?;
            if width < 0 {
                spec.align = Some('<');
            }
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if field.precision_given {
            let precision = numbers::integer("*", self.take()?)?.max(0);
            spec.precision = Some(usize::try_from(precision).unwrap_or(usize::MAX));
        }
        let value = match named {
            Some(value) => value,
            None => self.take()?,
        };
        push_percent(out, value, field.kind, spec, self.budget)
    }
}

/// Values of these types may be left over: a map is there for its names, and CPython takes lists for maps.
fn is_mapping(given: &Value) -> bool {
    let is_list =
        values::sequence(given).is_some_and(|sequence| matches!(sequence.kind, Kind::List | Kind::Range(..)));
    values::as_dict(given).is_some() || is_list || given.is_undefined()
}

fn check(out: &str) -> Result<(), Error> {
    if out.len() > MAX_VALUE_BYTES { Err(wrong("a formatted text is too long")) } else { Ok(()) }
}

/// `%(name)#0- +*.*ld`.
struct Field<'s> {
    name: Option<&'s str>,
    spec: Spec,
    width_given: bool,
    precision_given: bool,
    kind: char,
}

impl<'s> Field<'s> {
    fn parse(text: &'s str) -> Result<(Self, &'s str), Error> {
        let mut field = Field {
            name: None,
            spec: Spec::default(),
            width_given: false,
            precision_given: false,
            kind: ' ',
        };
        let mut rest = text;
        if let Some(name) = rest.strip_prefix('(') {
            let end = name.find(')').ok_or_else(|| wrong("incomplete format key"))?;
            field.name = Some(&name[..end]);
            rest = &name[end + 1..];
        }
        let flags = rest.len() - rest.trim_start_matches(['#', '0', '-', ' ', '+']).len();
        for flag in rest[..flags].chars() {
            match flag {
                '#' => field.spec.alternate = true,
                '0' => field.spec.zero = true,
                '-' => field.spec.align = Some('<'),
                '+' => field.spec.sign = Some('+'),
                _ => field.spec.sign = field.spec.sign.or(Some(' ')),
            }
        }
        rest = &rest[flags..];
        (field.spec.width, field.width_given, rest) = number(rest)?;
        if let Some(after) = rest.strip_prefix('.') {
            let precision;
            (precision, field.precision_given, rest) = number(after)?;
            field.spec.precision = Some(precision);
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        field.kind = rest.chars().next().ok_or_else(|| wrong("incomplete format"))?;
        rest = &rest[field.kind.len_utf8()..];
        Ok((field, rest))
    }
}

/// A number, or `*`.
fn number(text: &str) -> Result<(usize, bool, &str), Error> {
    if let Some(rest) = text.strip_prefix('*') {
        return Ok((0, true, rest));
    }
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let value = if length == 0 { Ok(0) } else { text[..length].parse() };
    Ok((value.map_err(|_| wrong("a width is too large"))?, false, &text[length..]))
}

fn push_percent(
    out: &mut String,
    value: &Value,
    kind: char,
    mut spec: Spec,
    budget: &Budget,
) -> Result<(), Error> {
    let left = spec.align == Some('<');
    let text = match kind {
        's' | 'r' | 'a' => {
            let text =
                if kind == 's' { Shown::new(value, budget)?.to_string() } else { text::repr(value, budget)? };
            budget.make(spec.width)?;
            let align = Some(if left { '<' } else { '>' });
            Spec { align, width: spec.width, precision: spec.precision, ..Spec::default() }
                .text(&text, budget)?
        }
        'c' => {
            let c = match (value.as_str(), Number::of(value)) {
                (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
                (_, Some(Number::Integer(code))) => {
                    let c = u32::try_from(code).ok().and_then(char::from_u32);
                    c.ok_or_else(|| wrong("%c arg not in range(0x110000)"))?.to_string()
                }
                _ => return Err(wrong("%c requires int or char")),
            };
            budget.make(spec.width)?;
            let align = Some(if left { '<' } else { '>' });
            Spec { align, width: spec.width, ..Spec::default() }.text(&c, budget)?
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => percent_integer(value, kind, spec, budget)?,
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = Number::of(value)
                .ok_or_else(|| wrong(format!("must be real number, not {}", type_name(value))))?;
            spec.zero &= !left;
            spec.kind = Some(kind);
            spec.apply(&Value::from(number.as_float()), budget)?
        }
        kind => return Err(wrong(format!("unsupported format character {kind:?}"))),
    };
    out.push_str(&text);
    Ok(())
}

fn percent_integer(value: &Value, kind: char, mut spec: Spec, budget: &Budget) -> Result<String, Error> {
    let number = match Number::of(value) {
        Some(Number::Integer(number)) => number,
        Some(Number::Float(number)) if matches!(kind, 'd' | 'i' | 'u') && number.is_finite() => {
            number.trunc() as i128
        }
        _ => {
            return Err(wrong(format!(
                "%{kind} format: a real number is required, not {}",
                type_name(value)
            )));
        }
    };
    let left = spec.align == Some('<');
    spec.zero &= !left;
    spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
    // A precision is the least number of digits.
    if let Some(precision) = spec.precision.take() {
        let digits =
            Spec { kind: spec.kind, ..Spec::default() }.apply(&Value::from(number.unsigned_abs()), budget)?;
        let zeros = precision.saturating_sub(digits.len());
        budget.make(zeros.saturating_add(spec.width))?;
        let sign =
            if number < 0 { "-" } else { spec.sign.map_or("", |sign| if sign == '+' { "+" } else { " " }) };
        let text = format!("{sign}{}{digits}", "0".repeat(zeros));
        let align = Some(if left { '<' } else { '>' });
        let fill = if spec.zero { Some('0') } else { None };
        return Spec { align, fill, width: spec.width, ..Spec::default() }.text(&text, budget);
    }
    spec.apply(&Number::Integer(number).value(), budget)
}

/// `format.format(args)`.
pub(super) fn braces(format: &str, args: &mut Args<'_>) -> Result<Value, Error> {
    args.budget.work(format.len() as u64)?;
    let positional = args.rest();
    let named = args.rest_named()?;
    let mut braces = Braces { positional, named, next: Some(0), budget: &args.budget };
    braces.fill(format, 0).map(Value::from)
}

struct Braces<'a> {
    positional: Vec<Value>,
    named: Vec<(String, Value)>,
    /// The number of the next field without one; none once fields have numbers.
    next: Option<usize>,
    budget: &'a Budget,
}

impl Braces<'_> {
    fn fill(&mut self, format: &str, nesting: usize) -> Result<String, Error> {
        if nesting > MAX_NESTING {
            return Err(wrong("Max string recursion exceeded"));
        }
        self.budget.make(format.len())?;
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(wrong("Single '}' encountered in format string"));
            } else {
                let end = closing(rest).ok_or_else(|| wrong("expected '}' before end of string"))?;
                let text = self.field(&rest[..end], nesting)?;
                self.budget.make(text.len())?;
                out.push_str(&text);
                check(&out)?;
                rest = &rest[end + 1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// `name!r:spec`.
    fn field(&mut self, field: &str, nesting: usize) -> Result<String, Error> {
        let in_brackets =
            field.find('[').and_then(|open| field[open..].find(']').map(|close| open..open + close));
        let end = field
            .char_indices()
            .find(|(at, c)| {
                matches!(c, '!' | ':') && !in_brackets.as_ref().is_some_and(|range| range.contains(at))
            })
            .map_or(field.len(), |(at, _)| at);
        let (name, mut rest) = field.split_at(end);
        let mut value = self.value(name)?;
        if let Some(after) = rest.strip_prefix('!') {
            let text = match after.chars().next() {
                Some('s') => Shown::new(&value, self.budget)?.to_string(),
                Some('r' | 'a') => text::repr(&value, self.budget)?,
                _ => return Err(wrong("Unknown conversion specifier")),
            };
            value = Value::from(text);
            rest = &after[1..];
        }
        let spec = match rest.strip_prefix(':') {
            Some(spec) => self.fill(spec, nesting + 1)?,
            None if rest.is_empty() => String::new(),
            None => return Err(wrong("expected ':' after conversion specifier")),
        };
        if spec.is_empty() {
            return Ok(Shown::new(&value, self.budget)?.to_string());
        }
        Spec::parse(&spec)?.apply(&value, self.budget)
    }

    /// `0.a[b]`.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let index = if first.is_empty() {
            let next =
                self.next.ok_or_else(|| wrong("cannot switch from manual to automatic field numbering"))?;
            self.next = Some(next + 1);
            Some(next)
        } else if first.bytes().all(|byte| byte.is_ascii_digit()) {
            if self.next.is_some_and(|next| next > 0) {
                return Err(wrong("cannot switch from automatic field numbering to manual"));
            }
            self.next = None;
            Some(first.parse().unwrap_or(usize::MAX))
        } else {
            None
        };
        let found = match index {
            Some(index) => self.positional.get(index),
            None => self.named.iter().find(|(name, _)| name == first).map(|(_, value)| value),
        };
        let mut value =
            found.cloned().ok_or_else(|| wrong(format!("no argument for the field {{{name}}}")))?;
        while !rest.is_empty() {
            let key;
            (key, rest) = if let Some(after) = rest.strip_prefix('[') {
                let close = after.find(']').ok_or_else(|| wrong("Missing ']' in format string"))?;
                let (key, rest) = (&after[..close], &after[close + 1..]);
                let number =
                    numbers::parse_integer(key, 10).filter(|_| key.bytes().all(|byte| byte.is_ascii_digit()));
                (number.map_or_else(|| Value::from(key), |n| Number::Integer(n).value()), rest)
            } else {
                let after = rest
                    .strip_prefix('.')
                    .ok_or_else(|| wrong("only '.' or '[' may follow ']' in a field"))?;
                let end = after.find(['.', '[']).unwrap_or(after.len());
                (Value::from(&after[..end]), &after[end..])
            };
            value = sequences::item(&value, &key)?;
            if value.is_undefined() {
                return Err(wrong(format!("no value for the field {{{name}}}")));
            }
        }
        Ok(value)
    }
}

/// The place of the brace that closes a field.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}
