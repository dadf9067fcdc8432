//! What is left of the vocabulary while a chain runs: all tokens, as a row of logits, or a list of candidates.
//! Stages that change single logits or look at all of them need no list; the first cut makes one, and it passes over
//! the stretches of the row in which no logit is great enough.

use super::blocks::{Blocks, Logits, Scale, Sums};
use super::cut::{self, Candidate};
use super::{is_usable, nothing_left, unusable};
use crate::Result;
use crate::memory::reserve::{filled, with_room};

/// Logits that have a peak in common: few, since all are looked at where one is great enough.
const STRETCH: usize = 256;

/// The tokens that are left, and scratch memory for them. Tokens with a logit of −∞ are never in the list.
pub(super) struct Pool {
    n_vocab: usize,
    /// Logits of all tokens; without room in a chain that changes none of them.
    row: Vec<f32>,
    /// Whether the row is what counts, rather than the logits that were given.
    edited: bool,
    list: Vec<Candidate>,
    /// Whether the list is what counts.
    listed: bool,
    /// The greatest logit of each stretch of the row; empty where they aren't known.
    peaks: Vec<f32>,
    /// Scratch memory: the peaks in another order.
    ranks: Vec<f32>,
    blocks: Blocks,
}

impl Pool {
    /// For `n_vocab` tokens, whose logits change if `edits`.
    pub(super) fn new(n_vocab: usize, edits: bool) -> Result<Self> {
        const WHAT: &str = "the sampler's logits";
        let stretches = n_vocab.div_ceil(STRETCH);
        Ok(Self {
            n_vocab,
            row: filled(0.0, if edits { n_vocab } else { 0 }, WHAT)?,
            edited: false,
            list: with_room(n_vocab, "the sampler's candidates")?,
            listed: false,
            peaks: with_room(stretches, WHAT)?,
            ranks: with_room(stretches, WHAT)?,
            blocks: Blocks::new(n_vocab)?,
        })
    }

    /// All tokens are left, with the logits that the other methods are given. There is one for each token.
    pub(super) fn begin(&mut self) {
        self.edited = false;
        self.listed = false;
        self.peaks.clear();
    }

    /// Whether a list is what is left.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// The logit of a token, while all are left.
    pub(super) fn logit(&self, given: &[f32], token: u32) -> f32 {
        if self.edited { self.row[token as usize] } else { given[token as usize] }
    }

    /// The row to change, while all tokens are left.
    pub(super) fn row(&mut self, given: &[f32]) -> &mut [f32] {
        if !self.edited {
            self.row.copy_from_slice(given);
            self.edited = true;
        }
        self.peaks.clear();
        &mut self.row
    }

    /// Lets `change` change the logits of tokens that are left; other places of the row may have any values behind a
    /// cut.
    ///
    /// # Errors
    /// Behind a cut, [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a logit that is NaN or +∞ now.
    pub(super) fn edit(&mut self, given: &[f32], change: impl FnOnce(&mut [f32])) -> Result<()> {
        if !self.listed {
            change(self.row(given));
            return Ok(());
        }
        for candidate in &self.list {
            self.row[candidate.id() as usize] = candidate.logit();
        }
        change(&mut self.row);
        for candidate in &mut self.list {
            let (id, logit) = (candidate.id(), self.row[candidate.id() as usize]);
            if !is_usable(logit) {
                return Err(unusable(id, logit));
            }
            *candidate = Candidate::new(logit, id);
        }
        self.list.retain(|candidate| candidate.logit() > f32::NEG_INFINITY);
        Ok(())
    }

    /// The list of what is left, in order of id if all tokens are.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a logit that is NaN or +∞, as of all methods below.
    pub(super) fn list(&mut self, given: &[f32]) -> Result<&mut Vec<Candidate>> {
        if !self.listed {
            self.know_peaks(given)?;
            self.gather(given, f32::NEG_INFINITY, usize::MAX);
            self.listed = true;
        }
        Ok(&mut self.list)
    }

    /// The scale of weights at a temperature.
    ///
    /// # Errors
    /// Also where every logit is −∞, as of the three below.
    pub(super) fn scale(&mut self, given: &[f32], temperature: f32) -> Result<Scale> {
        let max = if self.listed {
            self.list.iter().max().map_or(f32::NEG_INFINITY, |best| best.logit())
        } else {
            self.know_peaks(given)?;
            self.peaks.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        };
        if max == f32::NEG_INFINITY {
            return Err(nothing_left());
        }
        Ok(Scale { max, temperature })
    }

    /// The scale of weights at a temperature, and their sum.
    pub(super) fn total(&mut self, given: &[f32], temperature: f32) -> Result<(Scale, f64)> {
        let scale = self.scale(given, temperature)?;
        let (logits, blocks) = self.logits(given);
        Ok((scale, blocks.total(logits, scale)))
    }

    /// What the weights at a temperature add up to.
    pub(super) fn sums(&mut self, given: &[f32], temperature: f32) -> Result<Sums> {
        let scale = self.scale(given, temperature)?;
        let (logits, blocks) = self.logits(given);
        Ok(blocks.sums(logits, scale))
    }

    /// One of the tokens by probability at a temperature, and its probability: that which `share` in \[0, 1) falls upon.
    pub(super) fn draw(&mut self, given: &[f32], temperature: f32, share: f64) -> Result<(u32, f64)> {
        let scale = self.scale(given, temperature)?;
        let (logits, blocks) = self.logits(given);
        Ok(blocks.draw(logits, scale, share))
    }

    /// The standard deviation of the logits.
    pub(super) fn deviation(&mut self, given: &[f32]) -> Option<f64> {
        let (logits, blocks) = self.logits(given);
        blocks.deviation(logits)
    }

    /// Keeps the tokens whose logit is at least `bar`, in their order.
    pub(super) fn cut(&mut self, given: &[f32], bar: f32) -> Result<()> {
        if self.listed {
            self.list.retain(|candidate| candidate.logit() >= bar);
        } else {
            self.know_peaks(given)?;
            self.gather(given, bar, usize::MAX);
            self.listed = true;
        }
        Ok(())
    }

    /// Keeps the `k` ≥ 1 best tokens, best first. If there are at most `k`, they stay as they are.
    pub(super) fn top_k(&mut self, given: &[f32], k: usize) -> Result<()> {
        if self.listed {
            cut::top_k(&mut self.list, k);
        } else if k < self.n_vocab {
            self.best(given, k)?;
        }
        Ok(())
    }

    /// Keeps the `k` ≥ 1 best of all tokens, best first; fewer if the others are impossible.
    pub(super) fn best(&mut self, given: &[f32], k: usize) -> Result<&[Candidate]> {
        self.know_peaks(given)?;
        // The k-th greatest peak is no greater than the k-th best logit, and mostly not much less.
        let bar = if k <= self.peaks.len() {
            self.ranks.clone_from(&self.peaks);
            *self.ranks.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        } else {
            f32::NEG_INFINITY
        };
        self.gather(given, bar, k);
        self.listed = true;
        cut::top_k(&mut self.list, k);
        cut::best_first(&mut self.list);
        Ok(&self.list)
    }

    /// Removes all tokens whose logit is at least `bar` except the least likely of them.
    pub(super) fn remove_top(&mut self, given: &[f32], bar: f32) -> Result<()> {
        if self.listed {
            let top = self.list.iter().copied().filter(|candidate| candidate.logit() >= bar);
            if let Some(least) = top.min() {
                self.list.retain(|candidate| *candidate <= least);
            }
            return Ok(());
        }
        // Mostly these are few, and what is left is nearly all: it stays a row.
        self.know_peaks(given)?;
        self.gather(given, bar, usize::MAX);
        if self.list.len() > 1 {
            let least = self.list.iter().copied().min();
            let top = std::mem::take(&mut self.list);
            let row = self.row(given);
            for candidate in top.iter().filter(|candidate| Some(**candidate) > least) {
                row[candidate.id() as usize] = f32::NEG_INFINITY;
            }
            self.list = top;
        }
        Ok(())
    }

    /// All tokens are left again, after a cut of all.
    pub(super) fn take_back_cut(&mut self) {
        self.listed = false;
    }

    fn logits<'a>(&'a mut self, given: &'a [f32]) -> (Logits<'a>, &'a mut Blocks) {
        let logits = match (self.listed, self.edited) {
            (true, _) => Logits::List(&self.list),
            (false, true) => Logits::Row(&self.row),
            (false, false) => Logits::Row(given),
        };
        (logits, &mut self.blocks)
    }

    /// Sees to it that the peaks are known, while all tokens are left.
    fn know_peaks(&mut self, given: &[f32]) -> Result<()> {
        let row = if self.edited { &self.row[..] } else { given };
        if self.peaks.is_empty() {
            for (at, stretch) in row.chunks(STRETCH).enumerate() {
                let peak = self.blocks.greatest(stretch);
                if !is_usable(peak) {
                    self.peaks.clear();
                    let bad = (at * STRETCH..).zip(stretch).find(|&(_, &logit)| !is_usable(logit));
                    return bad.map_or(Ok(()), |(id, &logit)| Err(unusable(id as u32, logit)));
                }
                self.peaks.push(peak);
            }
        }
        Ok(())
    }

    /// Fills the list with the possible tokens whose logit is at least `bar`, in order of id. If they are many times `k`, it
    /// has only the `k` best of them and some others, in any order. The peaks are known.
    fn gather(&mut self, given: &[f32], bar: f32, k: usize) {
        let row = if self.edited { &self.row[..] } else { given };
        let mut bar = bar.max(f32::MIN);
        let room = k.saturating_mul(4).max(4 * STRETCH);
        let mut found = [0; STRETCH];
        self.list.clear();
        for (at, peak) in self.peaks.iter().enumerate() {
            if *peak < bar {
                continue;
            }
            let first = at * STRETCH;
            let stretch = &row[first..row.len().min(first + STRETCH)];
            // Without a branch, which would be mispredicted often.
            let mut n = 0;
            for (within, logit) in stretch.iter().enumerate() {
                found[n] = within;
                n += usize::from(*logit >= bar);
            }
            let candidates =
                found[..n].iter().map(|within| Candidate::new(stretch[*within], (first + within) as u32));
            self.list.extend(candidates);
            if self.list.len() >= room {
                let least = cut::select(&mut self.list, k);
                self.list.truncate(k);
                // Of equal logits the later token ranks lower.
                bar = least.logit().next_up();
            }
        }
    }
}
