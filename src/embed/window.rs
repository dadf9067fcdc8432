//! A window of a call's texts: their tokens, and the order in which passes take them.

use std::sync::{Mutex, PoisonError};

use super::make::Maker;
use super::results::TextStatus;
use crate::error::Result;
use crate::memory::reserve::reserve;
use crate::sort;

/// The purpose of the memory, in errors.
pub(super) const WHAT: &str = "the tokens of texts";

/// A window has more tokens only if its last text is long, or texts are split into many parts.
const USUAL_TOKENS: usize = 1 << 20;

/// A run of tokens that is one span of a pass: a text, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Index of the text in the call.
    pub text: usize,
    /// First token, and number of tokens.
    pub begin: usize,
    pub len: usize,
    /// The text's status when the item is done.
    pub status: TextStatus,
    /// The place of a part's pooled row.
    pub slot: Option<u32>,
    /// Tokens of its own: without special tokens and prompt.
    pub weight: u32,
}

/// A text in several parts, whose slots follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub text: usize,
    pub slot: usize,
    pub parts: usize,
}

/// The window's texts; its memory is kept from window to window.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub tokens: Vec<u32>,
    pub items: Vec<Item>,
    /// Indices of `items`, the longest first.
    pub order: Vec<u32>,
    pub splits: Vec<Split>,
    /// The weight of each slot.
    pub weights: Vec<u32>,
    /// Texts without tokens to run.
    pub refused: Vec<(usize, TextStatus)>,
    /// Tokens of all items.
    pub n_tokens: usize,
}

impl Window {
    fn clear(&mut self) {
        self.tokens.clear();
        self.items.clear();
        self.order.clear();
        self.splits.clear();
        self.weights.clear();
        self.refused.clear();
        self.n_tokens = 0;
    }

    /// Takes what all makers have made, and leaves them empty; each has room for a window like this one, unless it has
    /// huge texts, since which texts a maker gets differs from call to call.
    pub fn gather(&mut self, makers: &mut [Mutex<Maker>]) -> Result<()> {
        self.clear();
        for maker in makers.iter_mut().map(unlocked) {
            let first = self.tokens.len();
            reserve(&mut self.tokens, maker.tokens.len(), WHAT)?;
            self.tokens.extend_from_slice(&maker.tokens);
            reserve(&mut self.items, maker.items.len(), WHAT)?;
            for item in &maker.items {
                self.add(Item { begin: first + item.begin, ..*item })?;
            }
            reserve(&mut self.refused, maker.refused.len(), WHAT)?;
            self.refused.extend_from_slice(&maker.refused);
            maker.clear();
        }
        if self.tokens.len() <= USUAL_TOKENS {
            for maker in makers.iter_mut().map(unlocked) {
                reserve(&mut maker.tokens, self.tokens.len(), WHAT)?;
                reserve(&mut maker.items, self.items.len(), WHAT)?;
                reserve(&mut maker.refused, self.refused.len(), WHAT)?;
            }
        }
        reserve(&mut self.order, self.items.len(), WHAT)?;
        self.order.extend(0..self.items.len() as u32);
        let items = &self.items;
        let key = |i: u32| (std::cmp::Reverse(items[i as usize].len), items[i as usize].text, i);
        sort::numbers(&mut self.order, &|a, b| key(a).cmp(&key(b)));
        Ok(())
    }

    fn add(&mut self, mut item: Item) -> Result<()> {
        self.n_tokens += item.len;
        if item.status == TextStatus::Split {
            let slot = self.weights.len();
            reserve(&mut self.weights, 1, WHAT)?;
            self.weights.push(item.weight);
            item.slot = Some(slot as u32);
            match self.splits.last_mut().filter(|split| split.text == item.text) {
                Some(split) => split.parts += 1,
                None => {
                    reserve(&mut self.splits, 1, WHAT)?;
                    self.splits.push(Split { text: item.text, slot, parts: 1 });
                }
            }
        }
        self.items.push(item);
        Ok(())
    }

    /// The items at these places of the order.
    pub fn items(&self, places: std::ops::Range<usize>) -> impl Iterator<Item = &Item> {
        self.order[places].iter().map(|&i| &self.items[i as usize])
    }

    /// The tokens of an item.
    pub fn tokens_of(&self, item: &Item) -> &[u32] {
        &self.tokens[item.begin..item.begin + item.len]
    }
}

/// The value behind a lock that nobody holds.
pub(super) fn unlocked<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}
