//! Numbers as pages show them: `1,702.74 ms`, `98.75%`, `12`. Each keeps how far its last digit lets it be off.

/// A number that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// In the base unit (nanoseconds, bytes), or as it stands.
    pub value: f64,
    /// Half of its last digit: how far rounding took it at most.
    pub rounding: f64,
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// This many nanoseconds.
    Time(u64),
    /// This many bytes.
    Bytes(u64),
    /// A share of something.
    Percent,
    /// Things, or a rate.
    None,
}

impl Unit {
    /// The unit that a word names.
    pub fn of(word: &str) -> Option<Unit> {
        Some(match word {
            "ns" => Unit::Time(1),
            "µs" | "μs" | "us" => Unit::Time(1_000),
            "ms" => Unit::Time(1_000_000),
            "s" => Unit::Time(1_000_000_000),
            "B" => Unit::Bytes(1),
            "KB" | "KiB" | "kB" => Unit::Bytes(1 << 10),
            "MB" | "MiB" => Unit::Bytes(1 << 20),
            "GB" | "GiB" => Unit::Bytes(1 << 30),
            "%" => Unit::Percent,
            _ => return None,
        })
    }

    fn scale(self) -> f64 {
        match self {
            Unit::Time(scale) | Unit::Bytes(scale) => scale as f64,
            Unit::Percent | Unit::None => 1.0,
        }
    }

    /// Whether both count the same kind of thing.
    fn like(self, other: Unit) -> bool {
        matches!(
            (self, other),
            (Unit::Time(_), Unit::Time(_))
                | (Unit::Bytes(_), Unit::Bytes(_))
                | (Unit::Percent, Unit::Percent)
        )
    }
}

/// A number in a column of this unit; a unit of its own goes before that of the column. None for an empty cell or a
/// dash.
///
/// # Errors
/// The text is no number of this kind; the message says why.
pub fn parse(text: &str, column: Unit) -> Result<Option<Number>, String> {
    let text = text.trim();
    if matches!(text, "" | "-" | "–" | "—") {
        return Ok(None);
    }
    let digits =
        text.find(|c: char| !matches!(c, '0'..='9' | '.' | ',' | '+' | '-' | '−')).unwrap_or(text.len());
    let (number, word) = (&text[..digits], text[digits..].trim());
    let unit = match word {
        "" => column,
        word => match Unit::of(word) {
            Some(unit) if column == Unit::None || unit.like(column) => unit,
            _ => return Err(format!("{} is no number here", crate::error::quoted(text))),
        },
    };
    let (value, places) = plain(number).map_err(|why| format!("{} {why}", crate::error::quoted(text)))?;
    // Counts are exact.
    let rounding = if unit == Unit::None && places == 0 { 0.0 } else { 0.5 * 10f64.powi(-places) };
    let (value, rounding) = (value * unit.scale(), rounding * unit.scale());
    // Four months in nanoseconds: exact in an f64, and far from the end of 64 bits.
    if value >= 1e16 {
        return Err(format!("{} is out of range", crate::error::quoted(text)));
    }
    Ok(Some(Number { value, rounding }))
}

/// Digits with at most one point and commas between thousands; also, how many stand behind the point.
fn plain(number: &str) -> Result<(f64, i32), &'static str> {
    if number.starts_with(['-', '−']) {
        return Err("is negative");
    }
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) =
        number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or("");
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut rest = groups.peekable();
    let separated = rest.peek().is_some();
    let sound = all_digits(first)
        && (!separated || first.len() <= 3)
        && rest.all(|group| group.len() == 3 && all_digits(group))
        && fraction.is_none_or(all_digits);
    if !sound {
        return Err("is no number");
    }
    let value: f64 = number.replace(',', "").parse().map_err(|_| "is no number")?;
    Ok((value, fraction.map_or(0, str::len).min(300) as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str, unit: Unit) -> (f64, f64) {
        let number = parse(text, unit).unwrap().unwrap();
        (number.value, number.rounding)
    }

    #[test]
    fn numbers_with_separators_and_units() {
        assert_eq!(number("1,702.74", Unit::Time(1_000_000)), (1_702_740_000.0, 5_000.0));
        assert_eq!(number("1.5 s", Unit::Time(1_000_000)), (1.5e9, 5e7));
        assert_eq!(number("16.25 μs", Unit::Time(1_000_000)).0, 16_250.0);
        assert_eq!(number("0.5 KB", Unit::None).0, 512.0);
        assert_eq!(number("98.75%", Unit::None).0, 98.75);
        assert_eq!(number("1,234,567", Unit::None), (1_234_567.0, 0.0));
        assert_eq!(number("+12", Unit::None), (12.0, 0.0));
        for nothing in ["", " – ", "-", "—"] {
            assert_eq!(parse(nothing, Unit::None).unwrap(), None);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let ms = Unit::Time(1_000_000);
        for (text, why) in [
            ("NaN", "is no number here"),
            ("inf", "is no number here"),
            ("-5.0", "is negative"),
            ("−5.0", "is negative"),
            ("1,5", "is no number"),
            ("1234,567", "is no number"),
            (",5", "is no number"),
            ("1.2.3", "is no number"),
            ("1.", "is no number"),
            (".5", "is no number"),
            ("12 apples", "is no number here"),
            ("12 MB", "is no number here"),
            ("1e9", "is no number here"),
            ("99999999999999999999", "is out of range"),
            ("5-3", "is no number"),
        ] {
            let error = parse(text, ms).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
