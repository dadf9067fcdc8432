//! Numbers and names as they are shown. Numbers never have separators between thousands, an exponent, or a
//! spelling for what is no number; names may come from a host or a file, and hold anything.

/// What stands where there is nothing to say.
pub(in crate::report) const NOTHING: &str = "–";

/// Bytes of a "MB".
pub(in crate::report) const MB: f64 = 1_048_576.0;

/// Letters of a name in a sentence or a heading.
const SHOWN: usize = 72;

/// Milliseconds, exact to the nanosecond where short and to five digits and more where long.
pub(in crate::report) fn ms(ns: f64) -> String {
    let ms = ns / 1e6;
    let digits = match ms {
        ..1.0 => 6,
        ..100.0 => 4,
        _ => 3,
    };
    format!("{ms:.digits$}")
}

/// Megabytes.
pub(in crate::report) fn mb(bytes: f64) -> String {
    let mb = bytes / MB;
    let digits = if mb < 1.0 { 6 } else { 3 };
    format!("{mb:.digits$}")
}

/// Three significant digits.
pub(in crate::report) fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_string(),
        ..0.09995 => format!("{value:.4}"),
        ..0.9995 => format!("{value:.3}"),
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A fraction in percent, one digit behind the point.
pub(in crate::report) fn percent(fraction: f64) -> String {
    format!("{:.1}", 100.0 * fraction)
}

/// A time with its unit, three digits.
pub(in crate::report) fn duration(ns: f64) -> String {
    match ns {
        ..999.5 => format!("{ns:.0} ns"),
        ..999.5e3 => format!("{} µs", short(ns / 1e3)),
        ..999.5e6 => format!("{} ms", short(ns / 1e6)),
        _ => format!("{} s", short(ns / 1e9)),
    }
}

/// A size with its unit, three digits.
pub(in crate::report) fn size(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 999.5 {
            return format!("{} {unit}", short(value));
        }
        value /= 1024.0;
    }
    format!("{} TB", short(value))
}

/// A part of a whole, 0 to 1 or more; 0 where there is no whole.
pub(in crate::report) fn ratio(part: f64, whole: f64) -> f64 {
    // A sum of nothing is -0, which would be shown so.
    if whole > 0.0 { part / whole + 0.0 } else { 0.0 }
}

/// A name on one line: what would break or turn the line is replaced.
pub(in crate::report) fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c }).collect()
}

/// A name on one line that leaves room for a sentence around it.
pub(super) fn shortened(name: &str) -> String {
    let mut shown: String = one_line(name).chars().take(SHOWN).collect();
    if shown.len() < one_line(name).len() {
        shown.push('…');
    }
    shown
}

/// A name in Markdown: one line, and a backslash before whatever means something there. Taking away each
/// backslash before punctuation gives the name back.
pub(in crate::report) fn markdown(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for char in one_line(name).chars() {
        if matches!(char, '\\' | '|' | '`' | '*' | '<' | '[' | ']' | '~' | '&') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

/// A Markdown table with its line breaks; columns whose heads aren't among `words` are numbers.
pub(in crate::report) fn table<S: AsRef<str>>(
    heads: &[S],
    words: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let heads: Vec<&str> = heads.iter().map(AsRef::as_ref).collect();
    let rule: String = heads.iter().map(|head| if words.contains(head) { "---|" } else { "---:|" }).collect();
    let mut text = format!("| {} |\n|{rule}\n", heads.join(" | "));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_plain() {
        assert_eq!(ms(123.0), "0.000123");
        assert_eq!(ms(12_345_678.0), "12.3457");
        assert_eq!(ms(1_234_567_890.0), "1234.568");
        assert_eq!(mb(1024.0), "0.000977");
        assert_eq!(mb(1.5 * MB), "1.500");
        assert_eq!(percent(0.1234), "12.3");
        assert_eq!(["0", "0.0123", "0.123", "1.23", "12.3", "12346"], {
            [0.0, 0.0123, 0.1234, 1.234, 12.34, 12345.6].map(short)
        });
        assert_eq!(duration(999.0), "999 ns");
        assert_eq!(duration(999_600.0), "1.00 ms");
        assert_eq!(duration(2.5e9), "2.50 s");
        assert_eq!(size(1536.0), "1.50 KB");
        assert_eq!(size(10.0), "10.0 B");
        assert_eq!(ratio(1.0, 0.0), 0.0);
        let nothing: f64 = [].iter().sum();
        assert_eq!(percent(ratio(nothing, 1.0)), "0.0");
    }

    #[test]
    fn names_stay_on_their_line() {
        assert_eq!(markdown("Model_Small_Forward"), "Model_Small_Forward");
        assert_eq!(markdown("a|b\nc`<i>"), "a\\|b c\\`\\<i>");
        assert_eq!(shortened("linear.up"), "linear.up");
        assert_eq!(shortened(&"ä".repeat(80)), format!("{}…", "ä".repeat(72)));
    }
}
