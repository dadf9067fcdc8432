//! Python's mini-language of formats, `[[fill]align][sign][z][#][0][width][,][.precision][type]`, which `%` and
//! `str.format` share.

use super::budget::Budget;
use super::numbers::Number;
use super::text::{self, Shown};
use super::values::{defined, type_name};
use super::wrong;
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

/// Most digits behind the point.
const MAX_PRECISION: usize = 1000;

#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    pub align: Option<char>,
    /// `+`, `-` or a space.
    pub sign: Option<char>,
    pub alternate: bool,
    pub zero: bool,
    pub width: usize,
    /// `,` or `_`.
    pub grouping: Option<char>,
    pub precision: Option<usize>,
    /// The type, or none.
    pub kind: Option<char>,
}

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Spec, Error> {
        let mut spec = Spec::default();
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        let is_align = |c: Option<&char>| matches!(c, Some('<' | '>' | '^' | '='));
        if is_align(chars.get(1)) {
            spec.fill = chars.first().copied();
            spec.align = chars.get(1).copied();
            at = 2;
        } else if is_align(chars.first()) {
            spec.align = chars.first().copied();
            at = 1;
        }
        let mut take = |accepted: &str| match chars.get(at) {
            Some(c) if accepted.contains(*c) => {
                at += 1;
                Some(*c)
            }
            _ => None,
        };
        spec.sign = take("+- ");
        spec.alternate = take("#").is_some();
        spec.zero = take("0").is_some();
        spec.width = digits(&mut take)?.unwrap_or(0);
        spec.grouping = take(",_");
        if take(".").is_some() {
            spec.precision = Some(digits(&mut take)?.ok_or_else(|| wrong("a format without its precision"))?);
        }
        spec.kind = take("bcdeEfFgGnosxX%");
        if at < chars.len() { Err(wrong(format!("invalid format specifier '{text}'"))) } else { Ok(spec) }
    }

    /// The value's text.
    pub(super) fn apply(&self, value: &Value, budget: &Budget) -> Result<String, Error> {
        budget.make(self.width.saturating_mul(self.fill.map_or(1, char::len_utf8)))?;
        if self.precision.unwrap_or(0) > MAX_PRECISION && value.as_str().is_none() {
            return Err(wrong(format!("a precision above {MAX_PRECISION} isn't supported")));
        }
        defined(value, "an undefined value was formatted")?;
        match (value.kind(), Number::of(value)) {
            (ValueKind::Bool, Some(_)) if self.kind.is_none() && self.is_plain() => {
                Ok(Shown::new(value, budget)?.to_string())
            }
            (_, Some(Number::Integer(number))) => self.integer(number),
            (_, Some(Number::Float(number))) => self.float(number),
            (ValueKind::String, None) => self.text(value.as_str().unwrap_or_default(), budget),
            // `object.__format__` takes no format.
            _ if self.kind.is_none() && self.is_plain() => Ok(Shown::new(value, budget)?.to_string()),
            _ => Err(wrong(format!("unsupported format string passed to {}", type_name(value)))),
        }
    }

    fn is_plain(&self) -> bool {
        self.width == 0
            && self.precision.is_none()
            && self.align.is_none()
            && self.sign.is_none()
            && !self.zero
    }

    pub(super) fn text(&self, value: &str, budget: &Budget) -> Result<String, Error> {
        let wrong_for_text = self.sign.is_some() || self.grouping.is_some() || self.align == Some('=');
        if !matches!(self.kind, None | Some('s')) || wrong_for_text || self.alternate {
            return Err(wrong("a format of numbers for a string"));
        }
        let cut = match self.precision {
            Some(precision) => value.char_indices().nth(precision).map_or(value, |(at, _)| &value[..at]),
            None => value,
        };
        budget.make(cut.len())?;
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        Ok(self.padded(cut, "", self.align.unwrap_or('<'), fill))
    }

    fn integer(&self, value: i128) -> Result<String, Error> {
        let size = value.unsigned_abs();
        let (prefix, digits) = match self.kind {
            None | Some('d' | 'n') => ("", size.to_string()),
            Some('x') => ("0x", format!("{size:x}")),
            Some('X') => ("0X", format!("{size:X}")),
            Some('o') => ("0o", format!("{size:o}")),
            Some('b') => ("0b", format!("{size:b}")),
            Some('c') => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                let c = c.ok_or_else(|| wrong("%c arg not in range(0x110000)"))?;
                return Ok(self.padded(
                    &c.to_string(),
                    "",
                    self.align.unwrap_or('<'),
                    self.fill.unwrap_or(' '),
                ));
            }
            Some('s') => return Err(wrong("Unknown format code 's' for object of type 'int'")),
            Some(_) => return self.float(value as f64),
        };
        if self.precision.is_some() {
            return Err(wrong("Precision not allowed in integer format specifier"));
        }
        let every = if matches!(self.kind, None | Some('d' | 'n')) { 3 } else { 4 };
        let prefix = if self.alternate { prefix } else { "" };
        Ok(self.number(value < 0, prefix, &digits, every))
    }

    fn float(&self, value: f64) -> Result<String, Error> {
        let kind = self.kind.unwrap_or(' ');
        let size = value.abs();
        let mut digits = if !value.is_finite() {
            if value.is_nan() { "nan".to_owned() } else { "inf".to_owned() }
        } else {
            match kind.to_ascii_lowercase() {
                'f' => format!("{size:.*}", self.precision.unwrap_or(6)),
                '%' => format!("{:.*}", self.precision.unwrap_or(6), size * 100.0),
                'e' => exponential(size, self.precision.unwrap_or(6)),
                'g' | 'n' => general(size, self.precision.unwrap_or(6), self.alternate, false),
                ' ' => match self.precision {
                    Some(precision) => general(size, precision, self.alternate, true),
                    None => text::float(size),
                },
                kind => {
                    return Err(wrong(format!("Unknown format code '{kind}' for object of type 'float'")));
                }
            }
        };
        if self.alternate && value.is_finite() && !digits.contains('.') {
            let end = digits.find('e').unwrap_or(digits.len());
            digits.insert(end, '.');
        }
        if kind.is_ascii_uppercase() {
            digits = digits.to_ascii_uppercase();
        }
        if kind == '%' {
            digits.push('%');
        }
        let negative = value.is_sign_negative() && !value.is_nan();
        Ok(self.number(negative, "", &digits, 3))
    }

    /// Sign, prefix and digits, in groups, padded.
    fn number(&self, negative: bool, prefix: &str, digits: &str, every: usize) -> String {
        let sign = match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            (false, _) => "",
        };
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let (whole, rest) = digits.split_at(end);
        let align = self.align.unwrap_or(if self.zero { '=' } else { '>' });
        let fill = self.fill.unwrap_or(if self.zero { '0' } else { ' ' });
        let front = format!("{sign}{prefix}");
        let Some(separator) = self.grouping else {
            return self.padded(&format!("{whole}{rest}"), &front, align, fill);
        };
        let mut grouped = grouped(whole, every, separator);
        if align == '=' && fill == '0' && self.width <= MAX_PRECISION {
            // The zeros are grouped too.
            while grouped.len() + rest.len() + front.len() < self.width {
                let group = grouped.find(separator).unwrap_or(grouped.len());
                grouped.insert_str(0, if group == every { "0," } else { "0" });
                grouped = grouped.replacen(',', &separator.to_string(), 1);
            }
            return format!("{front}{grouped}{rest}");
        }
        self.padded(&format!("{grouped}{rest}"), &front, align, fill)
    }

    fn padded(&self, text: &str, front: &str, align: char, fill: char) -> String {
        let missing = self.width.saturating_sub(front.chars().count() + text.chars().count());
        let fill = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        match align {
            '<' => format!("{front}{text}{}", fill(missing)),
            '^' => format!("{}{front}{text}{}", fill(missing / 2), fill(missing - missing / 2)),
            '=' => format!("{front}{}{text}", fill(missing)),
            _ => format!("{}{front}{text}", fill(missing)),
        }
    }
}

fn digits(take: &mut impl FnMut(&str) -> Option<char>) -> Result<Option<usize>, Error> {
    let mut value: Option<usize> = None;
    while let Some(digit) = take("0123456789").and_then(|c| c.to_digit(10)) {
        let next = value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(digit as usize));
        value = Some(next.filter(|v| *v < 1 << 31).ok_or_else(|| wrong("too many digits in a format"))?);
    }
    Ok(value)
}

fn grouped(digits: &str, every: usize, separator: char) -> String {
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(every) {
            out.push(separator);
        }
        out.push(c);
    }
    out
}

/// `1.50e+10`: an exponent of at least two digits, with its sign.
fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// C's `%g`. Without a type, Python keeps a digit behind the point, and changes to an exponent one digit earlier.
fn general(value: f64, precision: usize, keep_zeros: bool, untyped: bool) -> String {
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let exponent: i32 =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let limit = precision as i32 - i32::from(untyped);
    let trim = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..limit).contains(&exponent) || (untyped && value == 0.0) {
        let places = (precision as i32 - 1 - exponent).max(0) as usize;
        let text = trim(&format!("{value:.places$}"));
        return if untyped && !text.contains('.') { text + ".0" } else { text };
    }
    let text = exponential(value, precision - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "+00"));
    format!("{}e{exponent}", trim(mantissa))
}
