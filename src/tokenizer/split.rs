//! Cuts text into words ("pre-tokenisation"); merging never crosses the boundary of a word. Each family of models has
//! its own rules, named by `tokenizer.ggml.pre`, in the table below. Time is linear in the text, since the patterns run
//! on a finite automaton. Such an automaton has no lookahead, so the one in published patterns, `\s+(?!\S)`, is a
//! [`Spaces`] rule in addition to the pattern.

use crate::error::{Error, Result, quoted};
use regex::Regex;

/// The effect of `\s+(?!\S)|\s+` without lookahead: a run of spaces before another character leaves its last space to
/// the next word.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spaces {
    /// Matches stay as they are.
    Whole,
    /// Every run of spaces leaves its last space to the next word.
    LeaveOne,
    /// The same, except for a run that ends with a line break (`\s*[\r\n]+` precedes `\s+` in the pattern).
    LeaveOneOnLine,
}

/// One pass over the text: every match is a piece, and so is the text between matches.
type Pass = (&'static str, Spaces);

/// A family's rules.
struct Family {
    /// Values of `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Applied in order, each to the pieces of the pass before.
    passes: &'static [Pass],
    /// Whether a word that is a token becomes this token, regardless of merges.
    whole_words: bool,
    /// Whether `bos` goes in front if the file doesn't say.
    adds_bos: bool,
}

/// GPT-2's words: contractions, letters, digits, other characters, each with at most one space in front.
const GPT2: Pass = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", Spaces::LeaveOne);
/// Llama 3's words: contractions in any case, letters with any one mark in front, three digits at most, line breaks.
const LLAMA3: Pass = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveOneOnLine,
);
/// Qwen 2's words: Llama 3's, but single digits.
const QWEN2: Pass = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveOneOnLine,
);
/// Qwen 3.5's words: Qwen 2's, but combining marks stay with their letters.
const QWEN35: Pass = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveOneOnLine,
);
/// Single digits.
const DIGIT: Pass = (r"\p{N}", Spaces::Whole);
/// Three ASCII digits.
const THREE_DIGITS: Pass = (r"[0-9][0-9][0-9]", Spaces::Whole);

const FAMILIES: &[Family] = &[
    Family {
        names: &["default"],
        passes: &[(r"[\p{P}$+<=>^~|]+", Spaces::Whole), GPT2, (r"\p{N}+", Spaces::Whole), THREE_DIGITS],
        whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "mellum",
            "modern-bert",
            "exaone4",
            "granite-docling",
        ],
        passes: &[GPT2],
        whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        passes: &[DIGIT, GPT2],
        whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"],
        passes: &[LLAMA3],
        whole_words: true,
        adds_bos: true,
    },
    Family { names: &["dbrx", "smaug-bpe"], passes: &[LLAMA3], whole_words: false, adds_bos: false },
    Family {
        names: &["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open"],
        passes: &[QWEN2],
        whole_words: false,
        adds_bos: false,
    },
    Family { names: &["qwen35"], passes: &[QWEN35], whole_words: false, adds_bos: false },
    Family {
        names: &["falcon"],
        passes: &[(r"[\p{P}$+<=>^~|`]+", Spaces::Whole), GPT2, THREE_DIGITS],
        whole_words: false,
        adds_bos: false,
    },
];

/// The compiled rules of one family.
#[derive(Debug)]
pub(super) struct Splitter {
    passes: Vec<(Regex, Spaces)>,
    /// See [`Family::whole_words`].
    pub(super) whole_words: bool,
    /// See [`Family::adds_bos`].
    pub(super) adds_bos: bool,
}

impl Splitter {
    /// The rules with the name `pre`; an empty name means `"default"`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a name that isn't in the table.
    pub(super) fn new(pre: &str) -> Result<Self> {
        let name = if pre.is_empty() { "default" } else { pre };
        let family = FAMILIES.iter().find(|family| family.names.contains(&name)).ok_or_else(|| {
            Error::Unsupported(format!(
                "pre-tokenizer {} (tokenizer.ggml.pre), so that only token ids can be given",
                quoted(name)
            ))
        })?;
        let passes = family
            .passes
            .iter()
            .map(|&(pattern, spaces)| Ok((Regex::new(pattern).map_err(bad_pattern)?, spaces)))
            .collect::<Result<_>>()?;
        Ok(Self { passes, whole_words: family.whole_words, adds_bos: family.adds_bos })
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
    passes: &[(Regex, Spaces)],
    text: &'t str,
    word: &mut impl FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let Some(((pattern, spaces), rest)) = passes.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut done = 0;
    while let Some(found) = pattern.find_at(text, done) {
        let end = found.end() - given_back(found.as_str(), found.end() < text.len(), *spaces);
        split(rest, &text[done..found.start()], word)?;
        split(rest, &text[found.start()..end], word)?;
        done = end;
    }
    split(rest, &text[done..], word)
}

/// Bytes at the end of a match that belong to the next one. In all patterns, only runs of spaces end with a space, and
/// they are as long as possible, so the character after one is no space.
fn given_back(found: &str, followed: bool, spaces: Spaces) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let leaves = match spaces {
        Spaces::Whole => false,
        Spaces::LeaveOne => last.is_whitespace(),
        Spaces::LeaveOneOnLine => last.is_whitespace() && !matches!(last, '\r' | '\n'),
    };
    if leaves && followed && found.len() > last.len_utf8() { last.len_utf8() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::growth::assert_linear;

    fn words<'t>(pre: &str, text: &'t str) -> Vec<&'t str> {
        let mut words = Vec::new();
        Splitter::new(pre)
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
        let error = Splitter::new("martian").unwrap_err();
        assert_eq!(
            error.to_string(),
            "not supported: pre-tokenizer \"martian\" (tokenizer.ggml.pre), so that only token ids can be given"
        );
    }
}
