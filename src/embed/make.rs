//! Makes a window's items of texts: tokens, cut to what a pass takes. Each worker has a maker of its own.

use super::params::LongTexts;
use super::results::TextStatus;
use super::source::Source;
use super::window::{Item, WHAT};
use crate::memory::reserve::reserve;
use crate::profile::{self, Moment, Zone};
use crate::threads::share;

/// How texts are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut<'a> {
    /// Most tokens of an item.
    pub n_ctx: usize,
    pub long_texts: LongTexts,
    pub n_vocab: usize,
    /// The tokens of a text without content: what it has in common with a text at both ends belongs to every part.
    pub frame: &'a [u32],
}

/// A worker's texts on their way.
#[derive(Debug, Default)]
pub(super) struct Maker {
    text: String,
    pub tokens: Vec<u32>,
    pub items: Vec<Item>,
    pub refused: Vec<(usize, TextStatus)>,
}

impl Maker {
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.items.clear();
        self.refused.clear();
    }

    /// Adds the items of a text, or the reason why it has none.
    pub fn make(&mut self, source: &dyn Source, text: usize, cut: &Cut<'_>) {
        let begin = self.tokens.len();
        if let Err(status) = self.try_make(source, text, cut) {
            self.tokens.truncate(begin);
            if reserve(&mut self.refused, 1, WHAT).is_ok() {
                self.refused.push((text, status));
            }
        }
    }

    fn try_make(&mut self, source: &dyn Source, text: usize, cut: &Cut<'_>) -> Result<(), TextStatus> {
        let begin = self.tokens.len();
        source.tokens(text, &mut self.text, &mut self.tokens)?;
        let tokens = &self.tokens[begin..];
        if tokens.is_empty() {
            return Err(TextStatus::Empty);
        }
        if tokens.iter().any(|&token| token as usize >= cut.n_vocab) {
            return Err(TextStatus::BadToken);
        }
        let len = tokens.len();
        if len <= cut.n_ctx {
            return self.add(Item { text, begin, len, status: TextStatus::Done, slot: None, weight: 0 });
        }
        let lead = common(tokens.iter(), cut.frame.iter());
        let trail = common(tokens[lead..].iter().rev(), cut.frame[lead..].iter().rev());
        if lead + trail >= cut.n_ctx {
            return Err(TextStatus::TooLong);
        }
        match cut.long_texts {
            LongTexts::Refuse => Err(TextStatus::TooLong),
            LongTexts::Truncate => {
                let tokens = &mut self.tokens[begin..];
                tokens.copy_within(len - trail.., cut.n_ctx - trail);
                self.tokens.truncate(begin + cut.n_ctx);
                let status = TextStatus::Truncated;
                self.add(Item { text, begin, len: cut.n_ctx, status, slot: None, weight: 0 })
            }
            LongTexts::Split => self.split(text, begin, lead, trail, cut.n_ctx),
        }
    }

    /// Adds parts of even length behind the whole text.
    fn split(
        &mut self,
        text: usize,
        begin: usize,
        lead: usize,
        trail: usize,
        n_ctx: usize,
    ) -> Result<(), TextStatus> {
        let end = self.tokens.len();
        let content = begin + lead..end - trail;
        let parts = content.len().div_ceil(n_ctx - lead - trail);
        let first = self.items.len();
        let room = content.len() + parts * (lead + trail);
        let reserved = reserve(&mut self.tokens, room, WHAT).and(reserve(&mut self.items, parts, WHAT));
        reserved.map_err(|_| TextStatus::NoMemory)?;
        for part in 0..parts {
            let own = share(content.len(), 1, part, parts);
            let at = self.tokens.len();
            self.tokens.extend_from_within(begin..begin + lead);
            self.tokens.extend_from_within(content.start + own.start..content.start + own.end);
            self.tokens.extend_from_within(end - trail..end);
            let (len, weight) = (self.tokens.len() - at, own.len() as u32);
            self.items.push(Item { text, begin: at, len, status: TextStatus::Split, slot: None, weight });
        }
        debug_assert_eq!(self.items.len(), first + parts);
        Ok(())
    }

    fn add(&mut self, item: Item) -> Result<(), TextStatus> {
        reserve(&mut self.items, 1, WHAT).map_err(|_| TextStatus::NoMemory)?;
        self.items.push(item);
        Ok(())
    }
}

/// Elements that two sequences have in common at their beginning.
fn common<'a>(a: impl Iterator<Item = &'a u32>, b: impl Iterator<Item = &'a u32>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// Makes items of texts that are scheduled dynamically, until none is left; returns the nanoseconds that it took.
pub(super) fn make_all(
    maker: &mut Maker,
    leads: bool,
    source: &dyn Source,
    cut: &Cut<'_>,
    mut next: impl FnMut() -> Option<usize>,
) -> u64 {
    let begin = Moment::now();
    let zone = Zone::Tokenize;
    let _zone = if leads { profile::scope_at(zone, begin) } else { profile::assist_at(zone, begin) };
    let start = std::time::Instant::now();
    while let Some(text) = next() {
        maker.make(source, text, cut);
    }
    start.elapsed().as_nanos() as u64
}
