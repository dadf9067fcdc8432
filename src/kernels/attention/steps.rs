//! What attention does between its two products: fetching queries, weighing scores, writing results.
//! Each is one body for every instruction set.

use super::TILE;
use super::tiles::MAX_ROWS;
use crate::isa::{Isa, SimdBody};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{load, store};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Rows of heads of some tokens in a caller's buffer, counted token by token and head by head.
#[derive(Clone, Copy)]
pub(super) struct HeadRows {
    /// Kernel 0.
    pub first: *mut f32,
    /// Heads of a token.
    pub heads: usize,
    /// Floats from one token to the next.
    pub token_stride: usize,
    /// Floats from one head to the next.
    pub head_stride: usize,
}

impl HeadRows {
    /// Kernel `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> *mut f32 {
        let (token, head) = (i / self.heads, i % self.heads);
        self.first.wrapping_add(token * self.token_stride + head * self.head_stride)
    }
}

/// What is known of a few rows besides their queries, in scratch memory: an entry a row.
#[derive(Clone, Copy)]
pub(super) struct State {
    /// Sums of weight · value.
    pub sums: *mut f32,
    /// Floats between rows of the sums.
    pub width: usize,
    /// Sums of the weights: a vector a row.
    pub weights: *mut f32,
    /// Largest score so far.
    pub largest: *mut f32,
    /// What the sums must be multiplied by since it grew.
    pub shrink: *mut f32,
    /// The first key that the row sees.
    pub starts: *mut u32,
    /// One past the last.
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

    /// The keys that row `i` sees.
    ///
    /// # Safety
    /// There is such a row.
    #[inline(always)]
    pub unsafe fn seen(&self, i: usize) -> Range<usize> {
        // SAFETY: the caller's promise.
        unsafe { self.starts.add(i).read() as usize..self.ends.add(i).read() as usize }
    }
}

/// Fetches the queries of some rows, scaled.
pub(super) struct Gather {
    pub source: HeadRows,
    /// The first row to fetch.
    pub first: usize,
    /// How many.
    pub count: usize,
    pub head_dim: usize,
    /// Factor on the queries.
    pub scale: f32,
    /// Where they go, without gaps.
    pub queries: *mut f32,
}

/// Starts some rows: nothing seen yet.
pub(super) struct Clear {
    pub count: usize,
    pub state: State,
}

/// Adds what some rows have from one part of the sequence to what they have from those before.
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

/// Divides the sums by the weights' sums, into the result.
pub(super) struct Scatter {
    pub target: HeadRows,
    /// The first row to write.
    pub first: usize,
    /// How many.
    pub count: usize,
    pub head_dim: usize,
    pub state: State,
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn gather<I: Isa>(step: &Gather) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(step);
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn clear<I: Isa>(step: &Clear) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(step);
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn join<I: Isa>(step: &Join) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(step);
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn weigh<I: Isa>(step: &Weigh) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(step);
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn scatter<I: Isa>(step: &Scatter) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(step);
}

/// `dst = factor · src`, n floats; they may be the same.
///
/// # Safety
/// `src` is readable and `dst` writable for n floats.
#[inline(always)]
unsafe fn scale<I: Isa>(isa: I, src: *const f32, dst: *mut f32, n: usize, factor: f32) {
    let factor = isa.splat(factor);
    let mut i = 0;
    while i < n {
        let left = (n - i).min(I::LANES);
        // SAFETY: i + left ≤ n.
        unsafe {
            if left == I::LANES {
                isa.store(dst.add(i), isa.mul(isa.load(src.add(i)), factor));
            } else {
                isa.store_first(dst.add(i), isa.mul(isa.load_first(src.add(i), left), factor), left);
            }
        }
        i += I::LANES;
    }
}

impl SimdBody for &Gather {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for i in 0..self.count {
            // SAFETY: the rows of Q and of the scratch memory are there.
            unsafe {
                let q = self.source.row(self.first + i);
                scale(isa, q, self.queries.add(i * self.head_dim), self.head_dim, self.scale);
            }
        }
    }
}

impl SimdBody for &Clear {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for i in 0..self.count {
            let state = self.state.from(i, I::LANES);
            // SAFETY: the rows of the scratch memory are there.
            unsafe {
                state.sums.write_bytes(0, state.width);
                isa.store(state.weights, isa.zero());
                state.largest.write(f32::NEG_INFINITY);
            }
        }
    }
}

/// `total = total · keep + part · take`, for a vector.
///
/// # Safety
/// Both are there.
#[inline(always)]
unsafe fn add<I: Isa>(isa: I, part: *const f32, take: I::F32, total: *mut f32, keep: I::F32) {
    // SAFETY: the caller's promise.
    unsafe { isa.store(total, isa.mul_add(isa.load(part), take, isa.mul(isa.load(total), keep))) }
}

impl SimdBody for &Join {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const { assert!(I::LANES <= 16) };
        for first in (0..self.count).step_by(I::LANES) {
            let count = (self.count - first).min(I::LANES);
            let (part, total) = (self.part.from(first, I::LANES), self.total.from(first, I::LANES));
            let (mut keep, mut take) = ([0.0f32; 16], [0.0f32; 16]);
            // SAFETY: so many more rows of both are there; a vector fits the arrays.
            unsafe {
                let (before, new) = (load(isa, total.largest, count), load(isa, part.largest, count));
                let now = isa.max(before, new);
                // As in `Weigh`: where nothing was seen, −∞ counts relative to 0.
                let base = isa.select(isa.eq(now, isa.splat(f32::NEG_INFINITY)), isa.zero(), now);
                isa.store(keep.as_mut_ptr(), vecmath::exp2(isa, isa.sub(before, base)));
                isa.store(take.as_mut_ptr(), vecmath::exp2(isa, isa.sub(new, base)));
                store(isa, total.largest, now, count);
            }
            for i in 0..count {
                let (part, total) = (part.from(i, I::LANES), total.from(i, I::LANES));
                let (keep, take) = (isa.splat(keep[i]), isa.splat(take[i]));
                // SAFETY: row i of both is there; sums are whole vectors.
                unsafe {
                    add(isa, part.weights, take, total.weights, keep);
                    for d in (0..part.width).step_by(I::LANES) {
                        add(isa, part.sums.add(d), take, total.sums.add(d), keep);
                    }
                }
            }
        }
    }
}

impl SimdBody for &Weigh {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // Whole vectors round the columns.
        let begin = self.columns.start / I::LANES * I::LANES;
        let end = self.columns.end.next_multiple_of(I::LANES);
        let mut bases = [0.0; MAX_ROWS];
        let mut growth = [0.0; MAX_ROWS + 15];
        for i in 0..self.rows {
            // SAFETY: row i of scores and state is there, and its mask.
            unsafe {
                let scores = self.scores.add(i * TILE);
                let seen = self.state.seen(i);
                if self.mask.is_some() || seen.start > self.tile + begin || seen.end < self.tile + end {
                    self.hide(isa, i, begin..end);
                }
                let before = self.state.largest.add(i);
                let now = before.read().max(largest(isa, scores, begin..end));
                // −∞ is the largest score of a row without any: relative to 0, its weights are 0.
                bases[i] = if now == f32::NEG_INFINITY { 0.0 } else { now };
                growth[i] = before.read() - bases[i];
                before.write(now);
            }
        }
        for i in (0..self.rows).step_by(I::LANES) {
            let left = (self.rows - i).min(I::LANES);
            // SAFETY: `growth` reaches a whole vector further than the rows; a factor a row.
            unsafe {
                let shrink = vecmath::exp2(isa, isa.load(growth.as_ptr().add(i)));
                isa.store_first(self.state.shrink.add(i), shrink, left);
            }
        }
        for (i, &base) in bases.iter().enumerate().take(self.rows) {
            let state = self.state.from(i, I::LANES);
            // SAFETY: row i of scores and state is there.
            unsafe {
                let sum = exponentials(isa, self.scores.add(i * TILE), begin..end, base);
                let shrink = isa.splat(state.shrink.read());
                isa.store(state.weights, isa.mul_add(isa.load(state.weights), shrink, sum));
            }
        }
    }
}

impl Weigh {
    /// Adds the mask to row `i`'s scores in the columns, and puts −∞ where it does not see.
    ///
    /// # Safety
    /// The row's scores, state and mask are there.
    #[inline(always)]
    unsafe fn hide<I: Isa>(&self, isa: I, i: usize, columns: Range<usize>) {
        // SAFETY: the caller's promise.
        let seen = unsafe { self.state.seen(i) };
        let inside = |position: usize| position.clamp(self.tile, self.tile + TILE) - self.tile;
        let (begin, end) = (inside(seen.start), inside(seen.end));
        let mask = self.mask.map(|mask| mask.rows.row(mask.first + i).wrapping_add(self.tile));
        for column in columns.step_by(I::LANES) {
            // SAFETY: a vector of scores, and of the mask what the row sees.
            unsafe {
                let p = self.scores.add(i * TILE + column);
                let mut score = isa.load(p);
                if let Some(mask) = mask {
                    let left = end.saturating_sub(column).min(I::LANES);
                    let mask = isa.load_first(mask.wrapping_add(column), left);
                    score = isa.mul_add(mask, isa.splat(LOG2_E), score);
                }
                let places = isa.load(COLUMNS.as_ptr().add(column));
                let hidden = isa.splat(f32::NEG_INFINITY);
                score = isa.select(isa.lt(places, isa.splat(end as f32)), score, hidden);
                isa.store(p, isa.select(isa.lt(places, isa.splat(begin as f32)), hidden, score));
            }
        }
    }
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

/// The largest of the scores in whole vectors of columns; NaN does not count.
///
/// # Safety
/// `scores` is readable for these.
#[inline(always)]
unsafe fn largest<I: Isa>(isa: I, scores: *const f32, columns: Range<usize>) -> f32 {
    let mut largest = isa.splat(f32::NEG_INFINITY);
    for column in columns.step_by(I::LANES) {
        // SAFETY: the caller's promise.
        largest = isa.max(unsafe { isa.load(scores.add(column)) }, largest);
    }
    isa.max_lanes(largest)
}

/// Replaces the scores in whole vectors of columns by 2^(score − base), and sums them.
///
/// # Safety
/// `scores` is writable for these.
#[inline(always)]
unsafe fn exponentials<I: Isa>(isa: I, scores: *mut f32, columns: Range<usize>, base: f32) -> I::F32 {
    let base = isa.splat(base);
    let mut sum = isa.zero();
    for column in columns.step_by(I::LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let p = scores.add(column);
            let weight = vecmath::exp2(isa, isa.sub(isa.load(p), base));
            isa.store(p, weight);
            sum = isa.add(sum, weight);
        }
    }
    sum
}

impl SimdBody for &Scatter {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for i in 0..self.count {
            let state = self.state.from(i, I::LANES);
            // SAFETY: the rows of the result and of the scratch memory are there.
            unsafe {
                let out = self.target.row(self.first + i);
                let sum = isa.sum_lanes(isa.load(state.weights));
                if sum == 0.0 {
                    out.write_bytes(0, self.head_dim);
                } else {
                    scale(isa, state.sums, out, self.head_dim, 1.0 / sum);
                }
            }
        }
    }
}
