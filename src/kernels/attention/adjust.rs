//! Changes to the scores that some models have: a soft-cap, ALiBi's slopes, and sinks.
//! Each is a pass of its own over scores or sums that lie in L1, and costs other models two comparisons a tile.

use super::steps::{State, Steps, columns_from, join_largest, map_scores, whole_vectors};
use crate::isa::Isa;
use crate::kernels::routine::Routine;
use crate::kernels::unary::functions::Scale;
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{Over, Stored, visit};
use std::f32::consts::LOG2_E;
use std::ops::{Range, RangeInclusive};
use std::ptr::null;

/// Changes to the scores of all query heads of an attention. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoreOptions<'a> {
    /// cap · tanh(score / cap) replaces each scaled score, before slopes and mask (Gemma 2, Grok): one of
    /// [`SOFT_CAPS`], or 0, the default, for none.
    pub soft_cap: f32,
    /// ALiBi (Press et al. 2021, arXiv:2108.12409): slope · |i − j| is subtracted from the score of the query at
    /// position i and the key at position j. A slope for each query head.
    pub slopes: Option<&'a [f32]>,
    /// Attention sinks (gpt-oss): a logit for each query head, which takes part in the softmax as a score does, but
    /// has no value. −∞ changes nothing; NaN or ∞ makes the results of its head NaN.
    pub sinks: Option<&'a [f32]>,
}

/// The soft-caps that kernels take: others have no inverse, or lose small scores.
pub const SOFT_CAPS: RangeInclusive<f32> = 1e-30..=1e30;

impl<'a> ScoreOptions<'a> {
    /// The options of all query heads but the first `head`.
    pub(crate) fn skip(self, head: usize) -> Self {
        let from = |list: &'a [f32]| list.get(head..).unwrap_or(&[]);
        Self { slopes: self.slopes.map(from), sinks: self.sinks.map(from), ..self }
    }

    /// The arguments for some query heads that share a key/value head, from query head `head` on, where the first
    /// token stands at `position`.
    pub(crate) fn args(&self, head: usize, position: i64) -> ScoreArgs {
        let Self { soft_cap, slopes, sinks } = self.skip(head);
        let first = |list: Option<&[f32]>| list.map_or(null(), <[f32]>::as_ptr);
        ScoreArgs { soft_cap, slopes: first(slopes), position, sinks: first(sinks) }
    }
}

/// [`ScoreOptions`] of the query heads that share one key/value head.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct ScoreArgs {
    /// As [`ScoreOptions::soft_cap`].
    pub soft_cap: f32,
    /// A slope for each head, or null for none.
    pub slopes: *const f32,
    /// Position of the first token; each further one stands one behind. It only counts where there are slopes.
    pub position: i64,
    /// A sink for each head, or null for none.
    pub sinks: *const f32,
}

impl ScoreArgs {
    /// Changes nothing.
    pub const NONE: Self = Self { soft_cap: 0.0, slopes: null(), position: 0, sinks: null() };
}

/// The scores of some rows in a tile.
#[derive(Clone)]
pub(super) struct ScoreRows {
    /// Scores of row 0; rows lie [`TILE`](super::TILE) floats apart.
    pub scores: *mut f32,
    pub rows: usize,
    /// The columns that any of the rows sees.
    pub columns: Range<usize>,
}

impl ScoreRows {
    /// Replaces each vector of row `i`'s scores by a function of it and of its first column.
    #[inline(always)]
    fn map<I: Isa>(&self, isa: I, i: usize, function: impl Fn(I::F32, usize) -> I::F32) {
        map_scores(isa, self.scores, i, whole_vectors::<I>(&self.columns), function);
    }
}

/// Caps the scores, which are in units of log₂.
pub(super) struct Cap {
    pub at: ScoreRows,
    pub soft_cap: f32,
}

/// Subtracts slope · |i − j| from the scores, which are in units of log₂.
pub(super) struct Slope {
    pub at: ScoreRows,
    /// Position of the scores' column 0.
    pub tile: usize,
    /// The row of the call, counted token by token and head by head, that belongs to row 0.
    pub first: usize,
    pub heads: usize,
    /// A slope for each head.
    pub slopes: *const f32,
    /// Position of the call's first token.
    pub position: i64,
}

/// Adds the sinks to the weights of some rows that have met all their keys.
pub(super) struct Sink {
    /// The row of the call that belongs to row 0 of the state.
    pub first: usize,
    pub heads: usize,
    pub count: usize,
    /// A sink for each head.
    pub sinks: *const f32,
    pub state: State,
}

/// A head's number of a list, which needs no alignment.
#[inline(always)]
fn of_head(list: *const f32, head: usize) -> f32 {
    // SAFETY: a list that a step has been given holds a number for each head.
    unsafe { list.add(head).read_unaligned() }
}

impl Routine<Cap> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Cap) {
        let cap = step.soft_cap * LOG2_E;
        let (inverse, cap) = (isa.splat(1.0 / cap), isa.splat(cap));
        for i in 0..step.at.rows {
            step.at.map(
                isa,
                i,
                #[inline(always)]
                |score, _| isa.mul(cap, vecmath::tanh(isa, isa.mul(score, inverse))),
            );
        }
    }
}

impl Routine<Slope> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Slope) {
        for i in 0..step.at.rows {
            let row = step.first + i;
            let (token, head) = (row / step.heads, row % step.heads);
            let slope = isa.splat(of_head(step.slopes, head) * LOG2_E);
            let place = isa.splat((step.position + token as i64 - step.tile as i64) as f32);
            step.at.map(isa, i, |score, column| {
                isa.neg_mul_add(slope, isa.abs(isa.sub(place, columns_from(isa, column))), score)
            });
        }
    }
}

impl Routine<Sink> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Sink) {
        for first in (0..step.count).step_by(I::LANES) {
            let count = (step.count - first).min(I::LANES);
            let state = step.state.from(first, I::LANES);
            let mut sinks = [f32::NEG_INFINITY; 16];
            for (i, sink) in sinks.iter_mut().enumerate().take(count) {
                *sink = of_head(step.sinks, (step.first + first + i) % step.heads) * LOG2_E;
            }
            let (keep, take) = join_largest(isa, state.largest(count), isa.first_of(&sinks), count);
            for (i, &keep) in keep.iter().enumerate().take(count) {
                let state = state.from(i, I::LANES);
                let (weights, sums) = (state.weights(I::LANES), state.sums());
                let kept = isa.mul(weights.load(isa, 0, I::LANES), isa.splat(keep));
                // SAFETY: `take` has element i.
                let taken = unsafe { isa.load_first(take.as_ptr().add(i), 1) };
                weights.store(isa, 0, isa.add(kept, taken), I::LANES);
                visit(isa, &Stored(Over(Scale(keep), [sums.row()]), sums), 0, state.width);
            }
        }
    }
}
