//! Finds special tokens in a text: the leftmost first, and of several at one place the longest.

use super::MAX_SPECIAL_BYTES;
use super::source::TokenizerSource;
use crate::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};

/// A stretch of text, or a special token found in it.
pub(super) enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

/// A token to find.
struct Wanted {
    id: u32,
    /// Whether spaces before or behind it belong to it.
    strips_left: bool,
    strips_right: bool,
}

/// Finds some of a vocabulary's tokens.
pub(super) struct Finder {
    /// `None` without tokens to find.
    automaton: Option<AhoCorasick>,
    /// Token of each pattern.
    wanted: Vec<Wanted>,
}

impl Finder {
    /// Finds the tokens with these ids, all with a text.
    pub(super) fn new(source: &TokenizerSource, ids: Vec<u32>) -> Result<Self> {
        let texts = || ids.iter().map(|&id| source.tokens[id as usize].as_str());
        if texts().map(str::len).sum::<usize>() > MAX_SPECIAL_BYTES {
            return Err(Error::Unsupported(format!(
                "special tokens with more than {MAX_SPECIAL_BYTES} bytes of text"
            )));
        }
        let automaton = if ids.is_empty() {
            None
        } else {
            let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts());
            Some(built.map_err(|error| Error::format(format!("special tokens: {error}")))?)
        };
        let wanted = |&id: &u32| Wanted {
            id,
            strips_left: source.strips_left.contains(&id),
            strips_right: source.strips_right.contains(&id),
        };
        Ok(Self { automaton, wanted: ids.iter().map(wanted).collect() })
    }

    /// Calls `each` with the pieces of `text` in order.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        mut each: impl FnMut(Piece<'t>) -> Result<()>,
    ) -> Result<()> {
        // Spaces as in C.
        let space = |char: char| matches!(char, ' ' | '\t'..='\r');
        let (mut done, mut strips) = (0, false);
        let stretch = |from: usize, to: usize, left: bool, right: bool| {
            let mut stretch = &text[from..to];
            if left {
                stretch = stretch.trim_start_matches(space);
            }
            if right {
                stretch = stretch.trim_end_matches(space);
            }
            (!stretch.is_empty()).then_some(Piece::Text(stretch))
        };
        for found in self.automaton.iter().flat_map(|automaton| automaton.find_iter(text)) {
            let wanted = &self.wanted[found.pattern().as_usize()];
            stretch(done, found.start(), strips, wanted.strips_left).map_or(Ok(()), &mut each)?;
            each(Piece::Special(wanted.id))?;
            (done, strips) = (found.end(), wanted.strips_right);
        }
        stretch(done, text.len(), strips, false).map_or(Ok(()), each)
    }
}
