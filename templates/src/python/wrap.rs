//! jinja2's filter `wordwrap`, which is Python's `textwrap.wrap` of each line.

use std::ops::Range;

use super::args::Args;
use super::strings;
use super::text::Text;
use super::values::{defined, type_name};
use super::wrong;
use crate::rewrite::is_space;
use minijinja::{Error, Value};

/// `value | wordwrap(width, break_long_words, wrapstring, break_on_hyphens)`.
pub(super) fn wordwrap(value: Value, args: &mut Args<'_>) -> Result<Value, Error> {
    let width = args.given_integer("width")?.unwrap_or(79);
    let long_words = args.flag("break_long_words", true)?;
    let between = args.given_string("wrapstring")?.unwrap_or_else(|| Value::from("\n"));
    let hyphens = args.flag("break_on_hyphens", true)?;
    defined(&value, "an undefined value has no lines")?;
    let text =
        value.as_str().ok_or_else(|| wrong(format!("wordwrap: str is needed, not {}", type_name(&value))))?;
    let between = between.as_str().unwrap_or_default();
    let mut out = Text::new(&args.budget);
    for (i, line) in strings::lines(text, false, usize::MAX).into_iter().enumerate() {
        let Some(width) = usize::try_from(width).ok().filter(|width| *width > 0) else {
            return Err(wrong(format!("invalid width {width} (must be > 0)")));
        };
        if i > 0 {
            out.push_str(between)?;
        }
        // A character, and in the worst case a chunk for each.
        let each = size_of::<char>() + size_of::<Range<usize>>();
        args.budget.make(line.len().saturating_mul(each))?;
        let chars: Vec<char> = line.chars().collect();
        let chunks = chunks(&chars, hyphens);
        Wrap { chars: &chars, width, long_words, hyphens }.write(chunks, between, &mut out)?;
    }
    Ok(Value::from(out.finish()))
}

/// White space that separates words.
fn is_blank(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_letter(c: char) -> bool {
    is_word(c) && !strings::is_decimal(c)
}

/// A character behind which a dash of two or more hyphens separates words.
fn is_before_dash(c: char) -> bool {
    is_word(c) || matches!(c, '!' | '"' | '\'' | '&' | '.' | ',' | '?')
}

/// The parts of a text between which a line may end: white space, dashes, words, and parts of words with hyphens.
fn chunks(chars: &[char], hyphens: bool) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let run = |is: &dyn Fn(char) -> bool| {
            at + chars[at..].iter().position(|&c| !is(c)).unwrap_or(chars.len() - at)
        };
        let end = if is_blank(chars[at]) {
            run(&is_blank)
        } else if !hyphens {
            run(&|c| !is_blank(c))
        } else {
            dash(chars, at).unwrap_or_else(|| word(chars, at))
        };
        chunks.push(at..end);
        at = end;
    }
    chunks
}

/// The end of a dash between words that begins at `at`.
fn dash(chars: &[char], at: usize) -> Option<usize> {
    if at == 0 || chars[at] != '-' || !is_before_dash(chars[at - 1]) {
        return None;
    }
    let length = chars[at..].iter().position(|&c| c != '-')?;
    (length >= 2 && is_word(chars[at + length])).then_some(at + length)
}

/// The end of the word, or part of a word, that begins at `at`.
fn word(chars: &[char], at: usize) -> usize {
    let letter = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|&c| is_letter(c));
    let is_hyphen = |at: Option<usize>| at.and_then(|at| chars.get(at)) == Some(&'-');
    let back = |at: usize, by: usize| at.checked_sub(by);
    for end in at + 1..chars.len() {
        if is_blank(chars[end]) || dash(chars, end).is_some() {
            return end;
        }
        if chars[end] == '-' {
            let before = letter(back(end, 1))
                && (letter(back(end, 2)) || (is_hyphen(back(end, 2)) && letter(back(end, 3))));
            let behind = letter(Some(end + 1))
                && (letter(Some(end + 2)) || (is_hyphen(Some(end + 2)) && letter(Some(end + 3))));
            if before && behind {
                return end + 1;
            }
        }
    }
    chars.len()
}

struct Wrap<'c> {
    chars: &'c [char],
    width: usize,
    long_words: bool,
    hyphens: bool,
}

impl Wrap<'_> {
    fn is_empty(&self, chunk: &Range<usize>) -> bool {
        self.chars[chunk.clone()].iter().all(|&c| is_space(c))
    }

    fn write(&self, mut chunks: Vec<Range<usize>>, between: &str, out: &mut Text<'_>) -> Result<(), Error> {
        chunks.reverse();
        let mut is_first = true;
        while let Some(next) = chunks.last() {
            if !is_first && self.is_empty(next) {
                chunks.pop();
            }
            let line = self.line(&mut chunks);
            if line.is_empty() {
                continue;
            }
            if !is_first {
                out.push_str(between)?;
            }
            is_first = false;
            for chunk in line {
                out.push_str(&self.chars[chunk].iter().collect::<String>())?;
            }
        }
        Ok(())
    }

    /// Takes the chunks of one line from the end of `chunks`.
    fn line(&self, chunks: &mut Vec<Range<usize>>) -> Vec<Range<usize>> {
        let mut line: Vec<Range<usize>> = Vec::new();
        let mut length = 0;
        while let Some(next) = chunks.last()
            && length + next.len() <= self.width
        {
            length += next.len();
            line.extend(chunks.pop());
        }
        if let Some(next) = chunks.last_mut()
            && next.len() > self.width
        {
            if self.long_words {
                let end = next.start + self.cut(next, self.width - length);
                line.push(next.start..end);
                next.start = end;
            } else if line.is_empty() {
                line.extend(chunks.pop());
            }
        }
        if line.last().is_some_and(|last| self.is_empty(last)) {
            line.pop();
        }
        line
    }

    /// How many characters of a long word fit into `space`: up to its last hyphen, if others come before that.
    fn cut(&self, word: &Range<usize>, space: usize) -> usize {
        let fits = &self.chars[word.start..word.start + space];
        match fits.iter().rposition(|&c| c == '-') {
            Some(hyphen) if self.hyphens && fits[..hyphen].iter().any(|&c| c != '-') => hyphen + 1,
            _ => space,
        }
    }
}
