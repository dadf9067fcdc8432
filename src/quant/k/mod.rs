//! K-quants: blocks of 256 in which the scales (and in some types minimums) of sub-blocks are quantised too.
//! Encoders search for scales in their own way (see `search`): a scale for each sub-block, then the best of the whole
//! numbers next to it, then the unit that fits best to all codes. So their bytes differ from ggml's.

mod q2;
mod q3;
mod q45;
mod q6;

pub use q2::Q2K;
pub use q3::Q3K;
pub use q6::Q6K;
pub use q45::{Q4K, Q5K};

use super::search::{error, fit_range, fit_scale, important, in_units, rounded, signed_unit, unsigned_unit};
use half::f16;

/// Elements of a block.
const LEN: usize = 256;

/// The numbers of a block with scales only, not packed yet.
struct Scaled<const SUBS: usize> {
    codes: [u8; LEN],
    scales: [i8; SUBS],
    d: f16,
}

/// Rounds to codes below 2·`zero`, of which `zero` is the code of zero, and to scales from `-reach` to below `reach`.
/// Without importances, squared errors are weighted with x².
fn round_scaled<const SUBS: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    zero: u8,
    reach: f32,
) -> Scaled<SUBS> {
    let half = f32::from(zero);
    let levels = (-half, half - 1.0);
    let weights: [f32; LEN] =
        important(x, importance).unwrap_or_else(|| std::array::from_fn(|i| x[i] * x[i]));
    let subs = || x.chunks_exact(LEN / SUBS).zip(weights.chunks_exact(LEN / SUBS));
    let mut fitted = [0.0; SUBS];
    for (scale, (x, weights)) in fitted.iter_mut().zip(subs()) {
        *scale = fit_scale(x, weights, -half, |level| rounded(level.clamp(levels.0, levels.1)));
    }
    let d = f16::from_f32(signed_unit(&fitted, reach));
    let unit = d.to_f32();
    let mut scales = [0; SUBS];
    let mut codes = [0; LEN];
    let parts = codes.chunks_exact_mut(LEN / SUBS).zip(subs()).zip(scales.iter_mut().zip(fitted));
    for ((codes, (x, weights)), (scale, fitted)) in parts {
        let middle = in_units(fitted, unit, -reach, reach - 1.0);
        let candidates = [middle, middle - 1.0, middle + 1.0];
        let candidates = candidates.map(|scale| scale.clamp(-reach, reach - 1.0));
        let found = least(candidates.map(|scale| (scale, error(x, weights, (unit * scale, 0.0), levels))));
        *scale = found as i8;
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = (in_units(x, unit * found, levels.0, levels.1) + half) as u8;
        }
    }
    Scaled { codes, scales, d }
}

/// The candidate with the least error, the first of several.
fn least<T: Copy + Default>(candidates: impl IntoIterator<Item = (T, f64)>) -> T {
    let none = (T::default(), f64::INFINITY);
    candidates.into_iter().fold(none, |best, next| if next.1 < best.1 { next } else { best }).0
}

/// The numbers of a block with scales and minimums, not packed yet.
struct Ranged<const SUBS: usize> {
    codes: [u8; LEN],
    scales: [u8; SUBS],
    minimums: [u8; SUBS],
    d: f16,
    dmin: f16,
}

/// Rounds to codes from 0 to `top`, and to scales and minimums from 0 to `top_scale`. Without importances, squared
/// errors are weighted with the magnitude of x, raised by the root mean square of the sub-block.
fn round_ranged<const SUBS: usize>(
    x: &[f32],
    importance: Option<&[f32]>,
    top: f32,
    top_scale: f32,
) -> Ranged<SUBS> {
    let weights = important(x, importance).unwrap_or_else(|| magnitudes(x, LEN / SUBS));
    let subs = || x.chunks_exact(LEN / SUBS).zip(weights.chunks_exact(LEN / SUBS));
    let (mut fitted, mut lowest) = ([0.0; SUBS], [0.0; SUBS]);
    for ((scale, minimum), (x, weights)) in fitted.iter_mut().zip(&mut lowest).zip(subs()) {
        (*scale, *minimum) = fit_range(x, weights, top);
    }
    let mut ranged = Ranged {
        codes: [0; LEN],
        scales: [0; SUBS],
        minimums: [0; SUBS],
        d: f16::from_f32(unsigned_unit(&fitted, top_scale)),
        dmin: f16::from_f32(unsigned_unit(&lowest, top_scale)),
    };
    let units = (ranged.d.to_f32(), ranged.dmin.to_f32());
    for (s, (x, weights)) in subs().enumerate() {
        let near =
            (in_units(fitted[s], units.0, 0.0, top_scale), in_units(lowest[s], units.1, 0.0, top_scale));
        let (scale, minimum) = near_range(x, weights, units, near, top, top_scale);
        (ranged.scales[s], ranged.minimums[s]) = (scale as u8, minimum as u8);
    }
    ranged.refit(x, &weights, top);
    ranged.encode(x, top);
    ranged
}

/// The scale and the minimum in whole units, out of those next to `near`, that give the least error.
fn near_range(
    x: &[f32],
    weights: &[f32],
    units: (f32, f32),
    near: (f32, f32),
    top: f32,
    top_scale: f32,
) -> (f32, f32) {
    const STEPS: [f32; 3] = [0.0, -1.0, 1.0];
    let clamped = |x: f32| x.clamp(0.0, top_scale);
    let candidates =
        STEPS.into_iter().flat_map(|a| STEPS.map(|b| (clamped(near.0 + a), clamped(near.1 + b))));
    least(candidates.map(|(scale, minimum)| {
        let line = (units.0 * scale, units.1 * minimum);
        ((scale, minimum), error(x, weights, line, (0.0, top)))
    }))
}

impl<const SUBS: usize> Ranged<SUBS> {
    /// Scale and minimum of a sub-block.
    fn line(&self, s: usize) -> (f32, f32) {
        (self.d.to_f32() * f32::from(self.scales[s]), self.dmin.to_f32() * f32::from(self.minimums[s]))
    }

    /// The codes nearest to `x`.
    fn encode(&mut self, x: &[f32], top: f32) {
        for (s, x) in x.chunks_exact(LEN / SUBS).enumerate() {
            let (scale, minimum) = self.line(s);
            let codes = &mut self.codes[s * (LEN / SUBS)..][..LEN / SUBS];
            for (code, &x) in codes.iter_mut().zip(x) {
                *code = in_units(x + minimum, scale, 0.0, top) as u8;
            }
        }
    }

    /// The weighted squared error, with the codes nearest to `x`.
    fn error(&self, x: &[f32], weights: &[f32], top: f32) -> f64 {
        let subs = x.chunks_exact(LEN / SUBS).zip(weights.chunks_exact(LEN / SUBS));
        subs.enumerate().map(|(s, (x, weights))| error(x, weights, self.line(s), (0.0, top))).sum()
    }

    /// Replaces the units by those that fit best to the codes, if that makes the error smaller.
    fn refit(&mut self, x: &[f32], weights: &[f32], top: f32) {
        self.encode(x, top);
        let [mut aa, mut ab, mut bb, mut av, mut bv] = [0.0f64; 5];
        for (i, (&x, &weight)) in x.iter().zip(weights).enumerate() {
            let s = i / (LEN / SUBS);
            let (a, b) = (f32::from(self.scales[s]) * f32::from(self.codes[i]), f32::from(self.minimums[s]));
            aa += f64::from(weight * a * a);
            ab += f64::from(weight * a * b);
            bb += f64::from(weight * b * b);
            av += f64::from(weight * a * x);
            bv += f64::from(weight * b * x);
        }
        let determinant = aa * bb - ab * ab;
        let (d, dmin) = match determinant > 0.0 {
            true => ((av * bb - ab * bv) / determinant, (ab * av - aa * bv) / determinant),
            false => (av / aa, 0.0),
        };
        let before = (self.error(x, weights, top), self.d, self.dmin);
        if d.is_finite() && d >= 0.0 && dmin >= 0.0 {
            (self.d, self.dmin) = (f16::from_f64(d), f16::from_f64(dmin));
            let finite = self.d.is_finite() && self.dmin.is_finite();
            if !finite || self.error(x, weights, top) >= before.0 {
                (self.d, self.dmin) = (before.1, before.2);
            }
        }
    }
}

/// Weights of errors for values of unknown importance: their magnitudes, raised by the root mean square of their run.
fn magnitudes(x: &[f32], run: usize) -> [f32; LEN] {
    let mut weights = [0.0; LEN];
    for (weights, x) in weights.chunks_exact_mut(run).zip(x.chunks_exact(run)) {
        let rms = (x.iter().map(|x| x * x).sum::<f32>() / run as f32).sqrt();
        for (weight, x) in weights.iter_mut().zip(x) {
            *weight = rms + x.abs();
        }
    }
    weights
}
