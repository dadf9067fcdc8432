//! The steps of attention round its two products: fetching queries, turning scores into weights, joining parts of the
//! sequence, writing results. Each is one body for every instruction set.

use super::TILE;
use super::tiles::MAX_ROWS;
use crate::isa::Isa;
use crate::kernels::routine::Routine;
use crate::kernels::unary::functions::Scale;
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{Function, Over, Row, RowMut, RowsMut, Stored, visit};
use std::f32::consts::LOG2_E;
use std::f64::consts::LN_2;
use std::ops::Range;

/// Rows of heads of some tokens in a caller's buffer, counted token by token and head by head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadRows {
    /// Row 0.
    pub first: *mut f32,
    /// Heads of a token.
    pub heads: usize,
    /// Floats from one token to the next.
    pub token_stride: usize,
    /// Floats from one head to the next.
    pub head_stride: usize,
}

impl HeadRows {
    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> *mut f32 {
        let (token, head) = (i / self.heads, i % self.heads);
        self.first.wrapping_add(token * self.token_stride + head * self.head_stride)
    }

    /// Row `i`, of `head_dim` floats.
    #[inline(always)]
    fn floats(&self, i: usize, head_dim: usize) -> RowMut {
        // SAFETY: the rows of a step are there.
        unsafe { RowMut::new(self.row(i), head_dim) }
    }
}

/// The state of some rows, in scratch memory: an entry for each row.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// Sums of weight · value.
    pub sums: *mut f32,
    /// Floats between rows of the sums: whole vectors.
    pub width: usize,
    /// Sums of the weights: a vector for each row.
    pub weights: *mut f32,
    /// Largest score so far.
    pub largest: *mut f32,
    /// The factor that the sums still need for the last growth of the largest score.
    pub shrink: *mut f32,
    /// The first key that the row sees.
    pub starts: *mut u32,
    /// One past the last key that it sees.
    pub ends: *mut u32,
}

impl State {
    /// The entries from row `i` on.
    #[inline(always)]
    pub fn from(&self, i: usize, lanes: usize) -> Self {
        Self {
            sums: self.sums.wrapping_add(i * self.width),
            width: self.width,
            weights: self.weights.wrapping_add(i * lanes),
            largest: self.largest.wrapping_add(i),
            shrink: self.shrink.wrapping_add(i),
            starts: self.starts.wrapping_add(i),
            ends: self.ends.wrapping_add(i),
        }
    }

    /// The floats of the first `count` rows, with `lanes` sums of weights each.
    #[inline(always)]
    fn floats(&self, count: usize, lanes: usize) -> StateFloats {
        // SAFETY: the state has them; factors that aren't there, of a state that is only joined, are not read.
        unsafe {
            StateFloats {
                sums: RowsMut::new(self.sums, self.width, count, self.width),
                weights: RowsMut::new(self.weights, lanes, count, lanes),
                largest: RowMut::new(self.largest, count),
                shrink: RowMut::new(self.shrink, count),
            }
        }
    }

    /// The sums of the first row.
    #[inline(always)]
    pub fn sums(&self) -> RowMut {
        self.floats(1, 0).sums.row(0)
    }

    /// The vector of sums of the first row's weights.
    #[inline(always)]
    pub fn weights(&self, lanes: usize) -> RowMut {
        self.floats(1, lanes).weights.row(0)
    }

    /// The largest scores of the first `count` rows.
    #[inline(always)]
    pub fn largest(&self, count: usize) -> RowMut {
        self.floats(count, 0).largest
    }

    /// The factors of the first `count` rows.
    #[inline(always)]
    fn shrink(&self, count: usize) -> RowMut {
        self.floats(count, 0).shrink
    }

    /// The keys that row `i`, one of the state's rows, sees.
    #[inline(always)]
    fn seen(&self, i: usize) -> Range<usize> {
        // SAFETY: the state has an entry for row i.
        unsafe { self.starts.add(i).read() as usize..self.ends.add(i).read() as usize }
    }
}

/// The floats of some rows' state: see [`State`].
struct StateFloats {
    sums: RowsMut,
    weights: RowsMut,
    largest: RowMut,
    shrink: RowMut,
}

/// Fetches the queries of some rows, scaled.
pub(super) struct Gather {
    pub source: HeadRows,
    /// The first row to fetch.
    pub first: usize,
    /// Number of rows.
    pub count: usize,
    pub head_dim: usize,
    /// Factor on the queries.
    pub scale: f32,
    /// The scaled queries are written here, without gaps.
    pub queries: *mut f32,
}

/// Resets the state of some rows: nothing seen yet.
pub(super) struct Clear {
    pub count: usize,
    pub state: State,
}

/// Adds the state that some rows have from one part of the sequence to their state from the parts before.
pub(super) struct Join {
    pub part: State,
    pub total: State,
    pub count: usize,
}

/// An additive mask, with a row for each row of queries.
#[derive(Clone, Copy)]
pub(super) struct MaskRows {
    pub rows: HeadRows,
    /// The row that belongs to row 0 of the step.
    pub first: usize,
}

/// Turns the scores of at most [`MAX_ROWS`] rows into weights.
pub(super) struct Weigh {
    /// Scores of row 0 in this tile; rows lie [`TILE`] floats apart.
    pub scores: *mut f32,
    pub rows: usize,
    /// Position of the scores' column 0.
    pub tile: usize,
    /// The columns that any of the rows sees; the others are left alone.
    pub columns: Range<usize>,
    pub mask: Option<MaskRows>,
    pub state: State,
}

/// Divides the sums by the weights' sums, and writes the result.
pub(super) struct Scatter {
    pub target: HeadRows,
    /// The first row to write.
    pub first: usize,
    /// Number of rows.
    pub count: usize,
    pub head_dim: usize,
    pub state: State,
}

/// Writes ln Σ e^score of some rows that have met all their keys.
pub(super) struct LogSums {
    /// The row of the call that belongs to row 0 of the state.
    pub first: usize,
    pub heads: usize,
    pub count: usize,
    /// Of (token, head) at `to + head · stride + token`.
    pub to: *mut f32,
    pub stride: usize,
    pub state: State,
}

/// The routines of all these steps.
pub(super) struct Steps;

impl Routine<Gather> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Gather) {
        for i in 0..step.count {
            // SAFETY: row i of Q, which is only read, and of the scratch memory hold `head_dim` floats.
            let (q, to) = unsafe {
                let to = step.queries.wrapping_add(i * step.head_dim);
                (Row::new(step.source.row(step.first + i), step.head_dim), RowMut::new(to, step.head_dim))
            };
            visit(isa, &Stored(Over(Scale(step.scale), [q]), to), 0, step.head_dim);
        }
    }
}

impl Routine<Clear> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Clear) {
        for i in 0..step.count {
            let state = step.state.from(i, I::LANES);
            state.sums().clear_from(0);
            state.weights(I::LANES).store(isa, 0, isa.zero(), I::LANES);
            state.largest(1).set(0, f32::NEG_INFINITY);
        }
    }
}

/// total · keep + part · take.
#[derive(Clone, Copy)]
struct Joined {
    keep: f32,
    take: f32,
}

impl Function<2> for Joined {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [total, part]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(part, isa.splat(self.take), isa.mul(total, isa.splat(self.keep)))
    }
}

/// The largest score of two states of a row, and the factors on the sums of both.
pub(super) struct JoinFactors<V> {
    pub largest: V,
    pub keep: V,
    pub take: V,
}

/// The factors that join states whose largest scores are `before` and `new`.
#[inline(always)]
pub(super) fn join_factors<I: Isa>(isa: I, before: I::F32, new: I::F32) -> JoinFactors<I::F32> {
    let largest = isa.max(before, new);
    // As in `Weigh`: where nothing was seen, −∞ counts relative to 0.
    let base = isa.select(isa.eq(largest, isa.splat(f32::NEG_INFINITY)), isa.zero(), largest);
    let keep = vecmath::exp2(isa, isa.sub(before, base));
    let take = vecmath::exp2(isa, isa.sub(new, base));
    JoinFactors { largest, keep, take }
}

/// Takes new scores of `count ≤ LANES` rows into the largest ones, and returns the factors of what was summed before and
/// of what is new, a row an element.
#[inline(always)]
pub(super) fn join_largest<I: Isa>(
    isa: I,
    largest: RowMut,
    new: I::F32,
    count: usize,
) -> ([f32; 16], [f32; 16]) {
    let factors = join_factors(isa, largest.load(isa, 0, count), new);
    largest.store(isa, 0, factors.largest, count);
    (isa.lanes(factors.keep), isa.lanes(factors.take))
}

impl Routine<Join> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Join) {
        for first in (0..step.count).step_by(I::LANES) {
            let count = (step.count - first).min(I::LANES);
            let (part, total) = (step.part.from(first, I::LANES), step.total.from(first, I::LANES));
            let new = part.largest(count).load(isa, 0, count);
            let (keep, take) = join_largest(isa, total.largest(count), new, count);
            for i in 0..count {
                let (part, total) = (part.from(i, I::LANES), total.from(i, I::LANES));
                let joined = Joined { keep: keep[i], take: take[i] };
                let (weights, sums) = (total.weights(I::LANES), total.sums());
                let joined_weights = Over(joined, [weights.row(), part.weights(I::LANES).row()]);
                visit(isa, &Stored(joined_weights, weights), 0, I::LANES);
                visit(isa, &Stored(Over(joined, [sums.row(), part.sums().row()]), sums), 0, part.width);
            }
        }
    }
}

/// The whole vectors round some columns.
#[inline(always)]
pub(super) fn whole_vectors<I: Isa>(columns: &Range<usize>) -> Range<usize> {
    columns.start / I::LANES * I::LANES..columns.end.next_multiple_of(I::LANES)
}

impl Routine<Weigh> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Weigh) {
        let Range { start: begin, end } = whole_vectors::<I>(&step.columns);
        let mut bases = [0.0; MAX_ROWS];
        let mut growth = [0.0; MAX_ROWS + 15];
        for i in 0..step.rows {
            let seen = step.state.seen(i);
            if step.mask.is_some() || seen.start > step.tile + begin || seen.end < step.tile + end {
                step.hide(isa, i, begin..end);
            }
            let largest = step.largest(isa, i, begin..end);
            let kept = step.state.largest(step.rows);
            let before = kept.get(i);
            let now = before.max(largest);
            // A row without any score has −∞ as its largest: relative to 0, its weights are 0.
            bases[i] = if now == f32::NEG_INFINITY { 0.0 } else { now };
            growth[i] = before - bases[i];
            kept.set(i, now);
        }
        for i in (0..step.rows).step_by(I::LANES) {
            let left = (step.rows - i).min(I::LANES);
            // SAFETY: `growth` reaches a whole vector further than the rows.
            let shrink = vecmath::exp2(isa, unsafe { isa.load(growth.as_ptr().add(i)) });
            step.state.shrink(step.rows).store(isa, i, shrink, left);
        }
        for (i, &base) in bases.iter().enumerate().take(step.rows) {
            let state = step.state.from(i, I::LANES);
            let sum = step.exponentials(isa, i, begin..end, base);
            let (shrink, weights) = (isa.splat(state.shrink(1).get(0)), state.weights(I::LANES));
            let sums = isa.mul_add(weights.load(isa, 0, I::LANES), shrink, sum);
            weights.store(isa, 0, sums, I::LANES);
        }
    }
}

/// Work on row `i`'s scores in whole vectors of columns of the tile.
impl Weigh {
    /// Adds the mask to the scores, and replaces those of keys that the row does not see by −∞.
    #[inline(always)]
    fn hide<I: Isa>(&self, isa: I, i: usize, columns: Range<usize>) {
        let seen = self.state.seen(i);
        let inside = |position: usize| position.clamp(self.tile, self.tile + TILE) - self.tile;
        let (begin, end) = (inside(seen.start), inside(seen.end));
        let mask = self.mask.map(|mask| mask.rows.row(mask.first + i).wrapping_add(self.tile));
        map_scores(isa, self.scores, i, columns, |mut score, column| {
            if let Some(mask) = mask {
                let left = end.saturating_sub(column).min(I::LANES);
                // SAFETY: the row's mask reaches to the last key that it sees.
                let mask = unsafe { isa.load_first(mask.wrapping_add(column), left) };
                score = isa.mul_add(mask, isa.splat(LOG2_E), score);
            }
            let places = columns_from(isa, column);
            let hidden = isa.splat(f32::NEG_INFINITY);
            score = isa.select(isa.lt(places, isa.splat(end as f32)), score, hidden);
            isa.select(isa.lt(places, isa.splat(begin as f32)), hidden, score)
        });
    }

    /// The largest score; NaN does not count.
    #[inline(always)]
    fn largest<I: Isa>(&self, isa: I, i: usize, columns: Range<usize>) -> f32 {
        let mut largest = isa.splat(f32::NEG_INFINITY);
        let scores = score_row(self.scores, i);
        for column in columns.step_by(I::LANES) {
            largest = isa.max(scores.load(isa, column, I::LANES), largest);
        }
        isa.max_lanes(largest)
    }

    /// Replaces the scores by 2^(score − base), and sums these.
    #[inline(always)]
    fn exponentials<I: Isa>(&self, isa: I, i: usize, columns: Range<usize>, base: f32) -> I::F32 {
        let base = isa.splat(base);
        let mut sum = isa.zero();
        map_scores(isa, self.scores, i, columns, |score, _| {
            let weight = vecmath::exp2(isa, isa.sub(score, base));
            sum = isa.add(sum, weight);
            weight
        });
        sum
    }
}

/// Replaces each vector of row `i`'s scores in a tile by a function of it and of its first column.
#[inline(always)]
pub(super) fn map_scores<I: Isa>(
    isa: I,
    scores: *mut f32,
    i: usize,
    columns: Range<usize>,
    mut function: impl FnMut(I::F32, usize) -> I::F32,
) {
    let scores = score_row(scores, i);
    for column in columns.step_by(I::LANES) {
        scores.store(isa, column, function(scores.load(isa, column, I::LANES), column), I::LANES);
    }
}

/// Row `i` of the scores of a step in a tile.
#[inline(always)]
fn score_row(scores: *mut f32, i: usize) -> RowMut {
    // SAFETY: a step has whole rows of scores.
    unsafe { RowMut::new(scores.wrapping_add(i * TILE), TILE) }
}

/// The numbers of a tile's columns from one on, of which there is a whole vector.
#[inline(always)]
pub(super) fn columns_from<I: Isa>(isa: I, column: usize) -> I::F32 {
    debug_assert!(column + I::LANES <= TILE);
    // SAFETY: the tile has a whole vector of columns from this one on.
    unsafe { isa.load(COLUMNS.as_ptr().add(column)) }
}

/// The numbers of a tile's columns.
static COLUMNS: [f32; TILE] = {
    let mut columns = [0.0; TILE];
    let mut i = 0;
    while i < TILE {
        columns[i] = i as f32;
        i += 1;
    }
    columns
};

impl Routine<LogSums> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &LogSums) {
        for i in 0..step.count {
            let state = step.state.from(i, I::LANES);
            let (token, head) = ((step.first + i) / step.heads, (step.first + i) % step.heads);
            let sum = f64::from(isa.sum_lanes(state.weights(I::LANES).load(isa, 0, I::LANES)));
            let log = (f64::from(state.largest(1).get(0)) + sum.log2()) * LN_2;
            // SAFETY: there is a place for each row of the call.
            unsafe { step.to.add(head * step.stride + token).write(log as f32) };
        }
    }
}

impl Routine<Scatter> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Scatter) {
        for i in 0..step.count {
            let state = step.state.from(i, I::LANES);
            let out = step.target.floats(step.first + i, step.head_dim);
            let sum = isa.sum_lanes(state.weights(I::LANES).load(isa, 0, I::LANES));
            if sum == 0.0 {
                out.clear_from(0);
            } else {
                let quotient = Over(Scale(1.0 / sum), [state.sums().row()]);
                visit(isa, &Stored(quotient, out), 0, step.head_dim);
            }
        }
    }
}
