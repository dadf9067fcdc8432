//! What a head's gates become, for a few tokens at once: steps, decays and factors of the recurrences.

use crate::isa::Isa;
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{Function, Rows};

/// Tokens whose gates are computed together: they fill the vectors, and a head's state stays in the nearest caches.
pub(super) const TILE: usize = 16;

/// A number of each token of a tile.
pub(super) type Tile = [f32; TILE];

/// ln(1 + t) / z with z = t / (1 + ½t), in powers of z² ≤ 4/9: minimax for the relative error (2⁻²⁷), by Lawson's
/// iteration. The highest power comes first.
const LN_1P: [f32; 5] = [5.506_162e-4, 2.184_192_7e-3, 1.250_784_8e-2, 8.333_289e-2, 1.0];

/// Softplus, ln(1 + eˣ): 4 ULP; below −87 it may be 0. NaN stays.
#[inline(always)]
pub(super) fn softplus<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // max(x, 0) + ln(1 + t) with t = e^(−|x|).
    let t = vecmath::exp_flushed(isa, isa.sub(isa.zero(), isa.abs(x)));
    let z = isa.div(t, isa.mul_add(t, isa.splat(0.5), isa.splat(1.0)));
    let square = isa.mul(z, z);
    let mut sum = isa.splat(LN_1P[0]);
    for &c in &LN_1P[1..] {
        sum = isa.mul_add(sum, square, isa.splat(c));
    }
    isa.mul_add(z, sum, vecmath::relu(isa, x))
}

/// Column `i` of `tokens ≤ TILE` rows from `first` on; zeros behind them.
#[inline(always)]
pub(super) fn column(rows: Rows, first: usize, tokens: usize, i: usize) -> Tile {
    let mut column = [0.0; TILE];
    for (t, x) in column.iter_mut().take(tokens).enumerate() {
        *x = rows.row(first + t).get(i);
    }
    column
}

/// A function of each number.
#[inline(always)]
pub(super) fn map<I: Isa>(isa: I, tile: &Tile, f: impl Function<1>) -> Tile {
    const { assert!(TILE.is_multiple_of(I::LANES)) };
    let mut out = [0.0; TILE];
    for i in (0..TILE).step_by(I::LANES) {
        isa.store_slice(&mut out[i..], f.call(isa, [isa.load_slice(&tile[i..])]));
    }
    out
}

/// The step softplus(x + bias).
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub bias: f32,
}

impl Function<1> for Step {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        softplus(isa, isa.add(x, isa.splat(self.bias)))
    }
}

/// The decay e^(a · step).
#[derive(Clone, Copy)]
pub(super) struct Decay {
    pub a: f32,
}

impl Function<1> for Decay {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [step]: [I::F32; 1]) -> I::F32 {
        vecmath::exp(isa, isa.mul(step, isa.splat(self.a)))
    }
}
