//! Cuts text into words ("pre-tokenisation"); merging never crosses the boundary of a word. Each family of models has
//! its own rules, named by `tokenizer.ggml.pre` ([`super::families`]). Time is linear in the text, since the patterns run
//! on a finite automaton. Such an automaton has no lookahead: what published patterns look ahead for is a [`Cut`].

use super::families::{FAMILIES, Settings};
use crate::error::{Error, Result, quoted};
use regex::Regex;

/// What is done with the matches of a pattern.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cut {
    /// Each is a piece.
    Whole,
    /// The same, but a run of spaces before another character leaves its last space to the next word. It has the effect
    /// of `\s+(?!\S)|\s+`.
    LeaveOne,
    /// The same, except for a run that ends with a line break (`\s*[\r\n]+` precedes `\s+` in the pattern).
    LeaveOneOnLine,
    /// As [`Cut::LeaveOneOnLine`], and runs of spaces are cut into 512, 256, 128 … 1 of them, the largest first.
    Powers,
    /// Each is digits, which are cut before every group of three, counted from the right.
    BeforeThousands,
    /// Each is digits, which are cut behind every group of three, counted from the right; text before the first group
    /// stays with it.
    BehindThousands,
}

/// The compiled rules of one family.
#[derive(Debug)]
pub(super) struct Splitter {
    passes: Vec<(Regex, Cut)>,
    settings: Settings,
}

impl std::ops::Deref for Splitter {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl Splitter {
    /// The rules with the name `pre`; an empty name means `"default"`. With `or_default`, an unknown name does too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that isn't in the table.
    pub(super) fn new(pre: &str, or_default: bool) -> Result<Self> {
        let name = if pre.is_empty() { "default" } else { pre };
        let find = |name| FAMILIES.iter().find(|family| family.names.contains(&name));
        let family = find(name).or_else(|| find("default").filter(|_| or_default)).ok_or_else(|| {
            Error::Unsupported(format!(
                "pre-tokenizer {} (tokenizer.ggml.pre), so that only token ids can be given, unless the default is asked for",
                quoted(name)
            ))
        })?;
        let passes = family
            .passes
            .iter()
            .map(|&(pattern, cut)| Ok((Regex::new(pattern).map_err(bad_pattern)?, cut)))
            .collect::<Result<_>>()?;
        Ok(Self { passes, settings: family.settings })
    }

    /// Calls `word` with each word of `text`, in order; the words together are the text.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        word: &mut impl FnMut(&'t str) -> Result<()>,
    ) -> Result<()> {
        split(&self.passes, text, word)
    }
}

fn bad_pattern(error: regex::Error) -> Error {
    Error::Internal(format!("a pre-tokenizer's pattern: {error}"))
}

fn split<'t>(
    passes: &[(Regex, Cut)],
    text: &'t str,
    word: &mut impl FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let Some(((pattern, cut), rest)) = passes.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut done = 0;
    while let Some(found) = pattern.find_at(text, done) {
        if *cut != Cut::BehindThousands {
            split(rest, &text[done..found.start()], word)?;
            done = found.start();
        }
        let end = found.end() - given_back(found.as_str(), found.end() < text.len(), *cut);
        while done < end {
            let next = match cut {
                Cut::Whole | Cut::LeaveOne | Cut::LeaveOneOnLine => end,
                Cut::Powers => done + power(&text[done..end]),
                Cut::BeforeThousands => done + before_thousands(&text[done..end]),
                Cut::BehindThousands if done <= found.start() => {
                    found.start() + behind_thousands(&text[found.start()..end])
                }
                Cut::BehindThousands => done + bytes_of(&text[done..end], 3),
            };
            split(rest, &text[done..next], word)?;
            done = next;
        }
    }
    split(rest, &text[done..], word)
}

/// Bytes at the end of a match that belong to the next one. In all patterns, only runs of spaces end with a space, and
/// they are as long as possible, so the character after one is no space.
fn given_back(found: &str, followed: bool, cut: Cut) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let leaves = match cut {
        Cut::Whole | Cut::BeforeThousands | Cut::BehindThousands => false,
        Cut::LeaveOne => last.is_whitespace(),
        Cut::LeaveOneOnLine | Cut::Powers => last.is_whitespace() && !matches!(last, '\r' | '\n'),
    };
    if leaves && followed && found.len() > last.len_utf8() { last.len_utf8() } else { 0 }
}

/// Bytes of the first `count` characters.
fn bytes_of(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

/// Bytes of the first piece of a match: of a run of spaces on a line a power of two of them, of anything else all.
fn power(found: &str) -> usize {
    let on_line = |char: char| char.is_whitespace() && !matches!(char, '\r' | '\n');
    if !found.chars().next_back().is_some_and(on_line) {
        return found.len();
    }
    let spaces = found.chars().take(512).count();
    bytes_of(found, 1 << spaces.ilog2())
}

/// Bytes of ASCII digits before the first group of three that is a piece.
fn before_thousands(digits: &str) -> usize {
    match digits.len() {
        // The first piece has less than three digits only if the number of all isn't a multiple of three.
        length if length > 3 => (length - 1) % 3 + 1,
        length => length,
    }
}

/// Bytes of the first piece of digits: one to three, so that three are left for each of the others.
fn behind_thousands(digits: &str) -> usize {
    bytes_of(digits, (digits.chars().count() + 2) % 3 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::growth::assert_linear;

    fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        Splitter::new(pre, false)
            .unwrap()
            .split(text, &mut |word| {
                words.push(word);
                Ok(())
            })
            .unwrap();
        words
    }

    #[test]
    fn gpt2_keeps_one_space_with_the_word() {
        assert_eq!(
            words("gpt-2", "I'm  here, 42x\n\n you"),
            ["I", "'m", " ", " here", ",", " 42", "x", "\n\n", " you"]
        );
        assert_eq!(
            words("gpt-2", "a\n\nb \t\u{3000}c  "),
            ["a", "\n", "\n", "b", " \t", "\u{3000}", "c", "  "]
        );
    }

    #[test]
    fn smollm_isolates_digits_before_it_looks_at_spaces() {
        // The spaces end a piece of their own when the digits are cut out, so none is left for "4".
        assert_eq!(words("smollm", "x  42½ 7 y"), ["x", "  ", "4", "2", "½", " ", "7", " y"]);
    }

    #[test]
    fn llama3_takes_digits_by_threes_and_line_breaks_apart() {
        assert_eq!(
            words("llama-bpe", "IT'S 12345 é\n\n  \n  (x"),
            ["IT", "'S", " ", "123", "45", " é", "\n\n  \n", " ", " (", "x"]
        );
        assert_eq!(words("llama3", "a!!\r\n\r\nb"), ["a", "!!\r\n\r\n", "b"]);
    }

    #[test]
    fn qwen2_takes_single_digits() {
        assert_eq!(words("qwen2", " 12 x"), [" ", "1", "2", " x"]);
    }

    #[test]
    fn default_cuts_marks_and_digits_by_threes() {
        assert_eq!(words("", "a, 12345=6"), ["a", ",", " ", "123", "45", "=", "6"]);
    }

    #[test]
    fn groups_of_three_digits_are_counted_from_the_right() {
        assert_eq!(words("superbpe", "x 1234567,123"), ["x ", "1", "234", "567", ",", "123"]);
        assert_eq!(words("superbpe", "12 1"), ["12", " ", "1"]);
        assert_eq!(words("tiny_aya", "x1234567"), ["x", "1", "234", "567"]);
        assert_eq!(words("afmoe", "123456"), ["123", "456"]);
    }

    #[test]
    fn jais_cuts_spaces_by_powers_of_two() {
        let text = format!("a{}b", " ".repeat(1 + 512 + 8 + 2));
        let lengths: Vec<usize> = words("jais-2", &text).iter().map(|word| word.len()).collect();
        assert_eq!(lengths, [1, 512, 8, 2, 2]);
        assert_eq!(words("jais-2", "a   "), ["a", "  ", " "]);
        assert_eq!(words("jais-2", "a  \n  b"), ["a", "  \n", " ", " b"]);
    }

    #[test]
    fn words_together_are_the_text() {
        let text = "Zwölf  Boxkämpfer\u{a0}jagen\r\n\t Viktor 1,234.5 ´`^ 😀e\u{301} 漢字\u{2028}  ";
        for family in FAMILIES {
            for name in family.names {
                assert_eq!(words(name, text).concat(), text, "{name}");
                assert!(words(name, "").is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn long_runs_take_linear_time() {
        // With backtracking, a run of spaces before a letter is walked again from each of its characters.
        for family in FAMILIES {
            for unit in [" ", "\n ", "a", "1", "!\n"] {
                assert_linear(family.names[0], 1 << 13, |size| {
                    let text = unit.repeat(size / unit.len()) + "x";
                    assert_eq!(words(family.names[0], &text).concat(), text);
                });
            }
        }
    }

    #[test]
    fn an_unknown_name_is_unsupported_and_named() {
        let error = Splitter::new("martian", false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not supported: pre-tokenizer \"martian\" (tokenizer.ggml.pre), so that only token ids can be given, unless \
             the default is asked for"
        );
        let default = Splitter::new("martian", true).unwrap();
        let mut words = Vec::new();
        let collect = &mut |word| {
            words.push(word);
            Ok(())
        };
        default.split("a, 1", collect).unwrap();
        assert_eq!(words, ["a", ",", " ", "1"]);
    }
}
