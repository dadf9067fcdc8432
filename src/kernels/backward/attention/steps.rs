//! The steps of attention's gradient round its products: what a row's slopes are relative to, weights and slopes from
//! scores, copies.

use super::{HeadRows, KEYS, LINE};
use crate::isa::Isa;
use crate::kernels::routine::Routine;
use crate::kernels::rows::reduce::{Sum, fold};
use crate::kernels::unary::functions::Mul;
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{Over, Row, RowMut, RowsMut};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Writes Σ o·do of some tokens' rows of one head: what the slopes of its scores are relative to.
pub(super) struct Level {
    pub o: HeadRows,
    pub d_o: HeadRows,
    pub head: usize,
    pub tokens: Range<usize>,
    pub head_dim: usize,
    /// A float for each token.
    pub levels: *mut f32,
}

/// Turns scores and products of the result's gradient with values into weights and the slopes of scores.
pub(super) struct Weigh {
    /// q·k of row 0, at the tile's first key; rows lie [`LINE`] floats apart. Becomes the weights.
    pub scores: *mut f32,
    /// do·v, as the scores. Becomes the slopes.
    pub slopes: *mut f32,
    /// Rows.
    pub rows: usize,
    /// Keys of the tile that row 0 sees.
    pub seen: usize,
    /// Keys that each next row sees more: 1, or 0 where all rows see the same.
    pub more: usize,
    /// Keys of the tile.
    pub keys: usize,
    /// A row's number of zeros behind what it sees, at least, which products may read.
    pub behind: usize,
    /// ln Σ e^score of each row.
    pub lse: *const f32,
    /// Σ o·do of each row.
    pub levels: *const f32,
    /// Factor on the scores.
    pub scale: f32,
}

/// The routines of these steps.
pub(super) struct Steps;

impl Routine<Level> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Level) {
        for token in step.tokens.clone() {
            let (o, d_o) = (step.o.row(token, step.head), step.d_o.row(token, step.head));
            // SAFETY: rows hold `head_dim` floats, and there is a level for each token.
            unsafe {
                let (o, d_o) = (Row::new(o, step.head_dim), Row::new(d_o, step.head_dim));
                let level = fold::<Sum, I>(isa, &Over(Mul, [o, d_o]), step.head_dim);
                step.levels.add(token).write(level);
            }
        }
    }
}

impl Routine<Weigh> for Steps {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, step: &Weigh) {
        // SAFETY: there are a sum, a level and a line of scores and of slopes for each row.
        let (scores, slopes, lse, levels) = unsafe {
            let (scores, slopes) = (
                RowsMut::new(step.scores, LINE, step.rows, LINE),
                RowsMut::new(step.slopes, LINE, step.rows, LINE),
            );
            (scores, slopes, Row::new(step.lse, step.rows), Row::new(step.levels, step.rows))
        };
        for i in 0..step.rows {
            let seen = (step.seen + i * step.more).min(step.keys);
            let row = ScoreRow {
                scores: scores.row(i),
                slopes: slopes.row(i),
                factor: step.scale * LOG2_E,
                lse: lse.get(i) * LOG2_E,
                level: levels.get(i),
                scale: step.scale,
            };
            let (whole, end) =
                (seen / I::LANES * I::LANES, (seen + step.behind).next_multiple_of(I::LANES).min(KEYS));
            for column in (0..whole).step_by(I::LANES) {
                row.store(isa, column, row.weights_and_slopes(isa, column));
            }
            for column in (whole..end).step_by(I::LANES) {
                let (weights, slopes) = row.weights_and_slopes(isa, column);
                let visible = isa.lt(columns_from(isa, column), isa.splat(seen as f32));
                let hide = |x| isa.select(visible, x, isa.zero());
                row.store(isa, column, (hide(weights), hide(slopes)));
            }
        }
    }
}

/// A row of a tile.
#[derive(Clone, Copy)]
struct ScoreRow {
    scores: RowMut,
    slopes: RowMut,
    /// From q·k to a score in units of log₂.
    factor: f32,
    /// log₂ of the sum of the powers.
    lse: f32,
    level: f32,
    scale: f32,
}

impl ScoreRow {
    /// Weights, and slopes of q·k, of a vector of columns.
    #[inline(always)]
    fn weights_and_slopes<I: Isa>(&self, isa: I, column: usize) -> (I::F32, I::F32) {
        let score = self.scores.load(isa, column, I::LANES);
        let product = self.slopes.load(isa, column, I::LANES);
        let exponent = isa.mul_add(score, isa.splat(self.factor), isa.splat(-self.lse));
        let weight = vecmath::exp2(isa, exponent);
        let slope = isa.mul(isa.mul(weight, isa.splat(self.scale)), isa.sub(product, isa.splat(self.level)));
        (weight, slope)
    }

    #[inline(always)]
    fn store<I: Isa>(&self, isa: I, column: usize, (weights, slopes): (I::F32, I::F32)) {
        self.scores.store(isa, column, weights, I::LANES);
        self.slopes.store(isa, column, slopes, I::LANES);
    }
}

/// The numbers of a vector of columns from one on.
#[inline(always)]
fn columns_from<I: Isa>(isa: I, column: usize) -> I::F32 {
    const FIRST: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    isa.add(isa.first_of(&FIRST), isa.splat(column as f32))
}

/// Copies rows of `count` floats from scratch memory, `width` floats apart, to the rows of some tokens of one head.
pub(super) fn scatter(
    from: *const f32,
    width: usize,
    to: &HeadRows,
    head: usize,
    tokens: Range<usize>,
    count: usize,
) {
    for (i, token) in tokens.enumerate() {
        // SAFETY: both places hold rows of so many floats, and scratch memory overlaps no result (see `step`).
        unsafe { to.row(token, head).copy_from_nonoverlapping(from.wrapping_add(i * width), count) };
    }
}

/// Zeroes so many floats of scratch memory.
pub(super) fn clear(first: *mut f32, count: usize) {
    // SAFETY: the scratch memory holds them.
    unsafe { first.write_bytes(0, count) };
}
