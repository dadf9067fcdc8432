//! What attention does between its two products: fetching queries, weighing scores, writing results.
//! Each is one body for every instruction set.

use super::{AttentionArgs, TILE};
use crate::isa::{Isa, Kernel};
use crate::kernels::unary::vecmath;
use std::ops::Range;

/// Some of a call's rows, counted token by token and head by head.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The first one.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// The call.
    pub args: &'a AttentionArgs,
}

impl Rows<'_> {
    /// Token and head of row `i` of these.
    #[inline(always)]
    fn token_head(&self, i: usize) -> (usize, usize) {
        ((self.first + i) / self.args.heads, (self.first + i) % self.args.heads)
    }

    /// The keys that row `i` sees.
    ///
    /// # Safety
    /// The call's limits and starts are there.
    #[inline(always)]
    unsafe fn seen(&self, i: usize) -> Range<usize> {
        let (token, _) = self.token_head(i);
        let args = self.args;
        // SAFETY: one entry a token.
        unsafe {
            let start = if args.starts.is_null() { 0 } else { args.starts.add(token).read_unaligned() };
            start as usize..args.limits.add(token).read_unaligned() as usize
        }
    }

    /// The keys that any of the rows sees.
    ///
    /// # Safety
    /// The call's limits and starts are there.
    pub unsafe fn visible(&self) -> Range<usize> {
        let (mut start, mut end) = (usize::MAX, 0);
        for i in 0..self.count {
            // SAFETY: the caller's promise.
            let seen = unsafe { self.seen(i) };
            if !seen.is_empty() {
                (start, end) = (start.min(seen.start), end.max(seen.end));
            }
        }
        start.min(end)..end
    }
}

/// Fetches the queries of some rows, scaled, and clears their sums.
pub(super) struct Gather<'a> {
    pub rows: Rows<'a>,
    /// Floats between rows of the sums.
    pub width: usize,
    pub queries: *mut f32,
    pub sums: *mut f32,
    pub state: *mut f32,
}

/// Turns scores into weights, and scales down what was summed before.
pub(super) struct Weigh<'a> {
    pub rows: Rows<'a>,
    /// Floats between rows of the sums.
    pub width: usize,
    /// Position of the scores' column 0.
    pub tile: usize,
    /// Columns that were scored.
    pub keys: usize,
    pub scores: *mut f32,
    pub sums: *mut f32,
    pub state: *mut f32,
}

/// Divides the sums by the weights' sum, into the result.
pub(super) struct Scatter<'a> {
    pub rows: Rows<'a>,
    /// Floats between rows of the sums.
    pub width: usize,
    pub sums: *mut f32,
    pub state: *mut f32,
}

/// # Safety
/// The CPU has the level, and the memory is there.
pub(super) unsafe fn gather<I: Isa>(step: &Gather) {
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

impl Kernel for &Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.rows.args;
        for i in 0..self.rows.count {
            let (token, head) = self.rows.token_head(i);
            // SAFETY: the rows of Q and of the scratch memory are there.
            unsafe {
                let q = args.q.add(token * args.q_token_stride + head * args.q_head_stride);
                scale(isa, q, self.queries.add(i * args.head_dim), args.head_dim, args.scale);
                self.sums.add(i * self.width).write_bytes(0, self.width);
                self.state.add(2 * i).write(f32::NEG_INFINITY);
                self.state.add(2 * i + 1).write(0.0);
            }
        }
    }
}

impl Kernel for &Weigh<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for i in 0..self.rows.count {
            // SAFETY: row i of scores, sums and state is there; so are the limits.
            unsafe {
                let seen = self.rows.seen(i);
                let begin = seen.start.clamp(self.tile, self.tile + self.keys) - self.tile;
                let end = seen.end.clamp(self.tile, self.tile + self.keys) - self.tile;
                let scores = self.scores.add(i * TILE);
                if begin >= end {
                    scores.write_bytes(0, self.keys);
                    continue;
                }
                let (largest, sum) = (self.state.add(2 * i), self.state.add(2 * i + 1));
                let before = largest.read();
                // What the row does not see counts as −∞, whose weight is 0.
                let width = self.keys.next_multiple_of(4 * I::LANES).min(TILE);
                fill(scores, 0..begin);
                fill(scores, end..width);
                let now = before.max(max(isa, scores, width));
                let weights = exponentials(isa, scores, width, now);
                if now != before {
                    let shrink = isa.max_lanes(vecmath::exp(isa, isa.splat(before - now)));
                    let sums = self.sums.add(i * self.width);
                    scale(isa, sums, sums, self.width, shrink);
                    sum.write(sum.read() * shrink);
                }
                largest.write(now);
                sum.write(sum.read() + weights);
            }
        }
    }
}

/// −∞ into a range of scores.
///
/// # Safety
/// The range is writable.
#[inline(always)]
unsafe fn fill(scores: *mut f32, range: Range<usize>) {
    for i in range {
        // SAFETY: inside the range.
        unsafe { scores.add(i).write(f32::NEG_INFINITY) };
    }
}

/// The largest of `n` scores, a multiple of four vectors.
///
/// # Safety
/// `scores` is readable for n floats.
#[inline(always)]
unsafe fn max<I: Isa>(isa: I, scores: *const f32, n: usize) -> f32 {
    let mut largest = [isa.splat(f32::NEG_INFINITY); 4];
    for i in (0..n).step_by(4 * I::LANES) {
        for (v, largest) in largest.iter_mut().enumerate() {
            // SAFETY: n is a multiple of four vectors.
            *largest = isa.max(unsafe { isa.load(scores.add(i + v * I::LANES)) }, *largest);
        }
    }
    let [a, b, c, d] = largest;
    isa.max_lanes(isa.max(isa.max(a, b), isa.max(c, d)))
}

/// Replaces `n` scores, a multiple of four vectors, by e^(score − largest), and sums them.
///
/// # Safety
/// `scores` is writable for n floats.
#[inline(always)]
unsafe fn exponentials<I: Isa>(isa: I, scores: *mut f32, n: usize, largest: f32) -> f32 {
    let largest = isa.splat(largest);
    let mut sums = [isa.zero(); 4];
    for i in (0..n).step_by(4 * I::LANES) {
        for (v, sum) in sums.iter_mut().enumerate() {
            // SAFETY: n is a multiple of four vectors.
            unsafe {
                let p = scores.add(i + v * I::LANES);
                let weight = vecmath::exp(isa, isa.sub(isa.load(p), largest));
                isa.store(p, weight);
                *sum = isa.add(*sum, weight);
            }
        }
    }
    let [a, b, c, d] = sums;
    isa.sum_lanes(isa.add(isa.add(a, b), isa.add(c, d)))
}

impl Kernel for &Scatter<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.rows.args;
        for i in 0..self.rows.count {
            let (token, head) = self.rows.token_head(i);
            // SAFETY: the rows of the result and of the scratch memory are there.
            unsafe {
                let out = args.out.add(token * args.out_token_stride + head * args.out_head_stride);
                let sum = self.state.add(2 * i + 1).read();
                let share = if sum == 0.0 { 0.0 } else { 1.0 / sum };
                scale(isa, self.sums.add(i * self.width), out, args.head_dim, share);
            }
        }
    }
}
