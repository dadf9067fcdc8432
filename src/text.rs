//! Text from outside, made fit to be shown. A name, key or path from a file may hold sequences that move a terminal's
//! cursor, change its colours, or reorder the letters of a line; every message shows such text through [`escaped`] or
//! one of its companions.

use std::fmt::{self, Display, Formatter, Write};
use std::path::Path;

/// A text on one line: control characters (`\n`, `\t`, `\x1b`, `\u{9b}`) and invisible characters that change how other
/// characters are shown (directions of writing, zero-width characters, line separators) are escaped.
///
/// ```
/// use smallmind::text::escaped;
/// assert_eq!(escaped("naïve\u{1b}[2J\u{202e}\n").to_string(), r"naïve\x1b[2J\u{202e}\n");
/// ```
pub fn escaped(text: &str) -> impl Display {
    Escaped { bytes: text.as_bytes(), style: Style::Line }
}

/// [`escaped`] for bytes that should be UTF-8; each byte that isn't is shown as `\xNN`.
pub fn escaped_bytes(bytes: &[u8]) -> impl Display {
    Escaped { bytes, style: Style::Line }
}

/// [`escaped`] for a path, which need not be UTF-8.
pub fn escaped_path(path: &Path) -> impl Display {
    escaped_bytes(path.as_os_str().as_encoded_bytes())
}

/// A text of several lines, such as a model's output: newlines, tabs and format characters (which join the parts of an
/// emoji, for example) are kept, and all other control characters are escaped.
pub fn escaped_lines(text: &str) -> impl Display {
    Escaped { bytes: text.as_bytes(), style: Style::Lines }
}

/// Characters of a text from outside that a message shows.
const SHOWN_CHARS: usize = 80;

/// A text from a file or a caller, made fit for a one-line message: escaped, in quotes, shortened where long.
pub(crate) fn quoted(text: &str) -> String {
    let short = shortened(text, SHOWN_CHARS);
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("\"{}\"{more}", Escaped { bytes: short.as_bytes(), style: Style::Quoted })
}

/// [`quoted`] for bytes that should be UTF-8.
pub(crate) fn quoted_bytes(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(SHOWN_CHARS)];
    let more = if short.len() < bytes.len() { "…" } else { "" };
    format!("\"{}\"{more}", Escaped { bytes: short, style: Style::Quoted })
}

/// The first `max` characters of a text.
pub fn shortened(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(cut, _)| &text[..cut])
}

/// The characters that are shown as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// No control or format characters.
    Line,
    /// As `Line`, and no quotation marks and backslashes.
    Quoted,
    /// No control characters but newline and tab.
    Lines,
}

struct Escaped<'a> {
    bytes: &'a [u8],
    style: Style,
}

impl Style {
    fn keeps(self, char: char) -> bool {
        match self {
            Style::Line => !char.is_control() && !is_format(char),
            Style::Quoted => Style::Line.keeps(char) && !matches!(char, '"' | '\\'),
            Style::Lines => !char.is_control() || matches!(char, '\n' | '\t'),
        }
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some((at, char)) = rest.char_indices().find(|&(_, char)| !self.style.keeps(char)) {
                f.write_str(&rest[..at])?;
                write_escape(f, char)?;
                rest = &rest[at + char.len_utf8()..];
            }
            f.write_str(rest)?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn write_escape(f: &mut Formatter<'_>, char: char) -> fmt::Result {
    match char {
        '\n' => f.write_str("\\n"),
        '\t' => f.write_str("\\t"),
        '\r' => f.write_str("\\r"),
        '"' | '\\' => {
            f.write_char('\\')?;
            f.write_char(char)
        }
        '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(char)),
        _ => write!(f, "\\u{{{:x}}}", u32::from(char)),
    }
}

/// Invisible characters that change how other characters are shown: those of Unicode's category Cf that have no shape
/// of their own, and the separators of lines and paragraphs.
fn is_format(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_as_a_command() {
        for (text, shown) in [
            ("plain, naïve, 漢字, हिन्दी, 🙂", "plain, naïve, 漢字, हिन्दी, 🙂"),
            ("C:\\models \"a\"", "C:\\models \"a\""),
            ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
            ("two\nlines\r\n\ttab", "two\\nlines\\r\\n\\ttab"),
            ("\0\x7f\u{80}\u{9b}2J\u{85}", "\\x00\\x7f\\u{80}\\u{9b}2J\\u{85}"),
            ("abc\u{202e}fed\u{2066}\u{200f}\u{61c}", "abc\\u{202e}fed\\u{2066}\\u{200f}\\u{61c}"),
            ("zero\u{200b}\u{200d}\u{feff}\u{ad}width", "zero\\u{200b}\\u{200d}\\u{feff}\\u{ad}width"),
            ("\u{2028}\u{2029}\u{e0041}", "\\u{2028}\\u{2029}\\u{e0041}"),
            ("", ""),
        ] {
            assert_eq!(escaped(text).to_string(), shown);
        }
        for char in ('\0'..='\u{9f}').filter(|char| char.is_control()) {
            let shown = escaped(&char.to_string()).to_string();
            assert!(shown.starts_with('\\') && !shown.contains(char), "{shown}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_by_number() {
        assert_eq!(escaped_bytes(b"Ren\xe9\n\xff\xfe").to_string(), "Ren\\xe9\\n\\xff\\xfe");
        // The beginning of a character, an overlong form, half a surrogate pair.
        assert_eq!(
            escaped_bytes(b"\xe6\xbc|\xc0\x9b|\xed\xa0\x80").to_string(),
            "\\xe6\\xbc|\\xc0\\x9b|\\xed\\xa0\\x80"
        );
        assert_eq!(escaped_path(Path::new("/tmp/a\x1b[2J.gguf")).to_string(), "/tmp/a\\x1b[2J.gguf");
    }

    #[test]
    fn lines_keep_their_shape() {
        let family = "👩\u{200d}👧\tand\nmore";
        assert_eq!(escaped_lines(family).to_string(), family);
        assert_eq!(escaped_lines("\x1b[2J\r\x08\u{9b}").to_string(), "\\x1b[2J\\r\\x08\\u{9b}");
    }

    #[test]
    fn quotes_are_unambiguous_and_short() {
        assert_eq!(quoted("a \"b\" \\n\n"), r#""a \"b\" \\n\n""#);
        assert_eq!(quoted(&"é".repeat(80)), format!("\"{}\"", "é".repeat(80)));
        assert_eq!(quoted_bytes(b"Ren\xe9 \""), r#""Ren\xe9 \"""#);
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
    }
}
