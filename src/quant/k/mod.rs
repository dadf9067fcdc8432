//! K-quants: blocks of 256 in which the scales (and in some types minimums) of sub-blocks are quantised too.
//! Encoders search for scales in their own way (see `search`), so their bytes differ from ggml's.

mod q2;
mod q3;
mod q45;
mod q6;

pub use q2::Q2K;
pub use q3::Q3K;
pub use q6::Q6K;
pub use q45::{Q4K, Q5K};

use super::search::{fit_range, fit_scale, in_units, signed_unit, unsigned_unit};
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
fn round_scaled<const SUBS: usize>(x: &[f32], zero: u8, reach: f32) -> Scaled<SUBS> {
    let half = f32::from(zero);
    let nearest = |level: f32| level.round().clamp(-half, half - 1.0);
    let subs = || x.chunks_exact(LEN / SUBS);
    let mut fitted = [0.0; SUBS];
    for (scale, x) in fitted.iter_mut().zip(subs()) {
        *scale = fit_scale(x, -half, nearest);
    }
    let d = f16::from_f32(signed_unit(&fitted, reach));
    let scales = fitted.map(|scale| in_units(scale, d.to_f32(), -reach, reach - 1.0) as i8);
    let mut codes = [0; LEN];
    for ((codes, x), scale) in codes.chunks_exact_mut(LEN / SUBS).zip(subs()).zip(scales) {
        let scale = d.to_f32() * f32::from(scale);
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = (in_units(x, scale, -half, half - 1.0) + half) as u8;
        }
    }
    Scaled { codes, scales, d }
}

/// The numbers of a block with scales and minimums, not packed yet.
struct Ranged<const SUBS: usize> {
    codes: [u8; LEN],
    scales: [u8; SUBS],
    minimums: [u8; SUBS],
    d: f16,
    dmin: f16,
}

/// Rounds to codes from 0 to `top`, and to scales and minimums from 0 to `top_scale`.
fn round_ranged<const SUBS: usize>(x: &[f32], top: f32, top_scale: f32) -> Ranged<SUBS> {
    let subs = || x.chunks_exact(LEN / SUBS);
    let (mut fitted, mut lowest) = ([0.0; SUBS], [0.0; SUBS]);
    for ((scale, minimum), x) in fitted.iter_mut().zip(&mut lowest).zip(subs()) {
        (*scale, *minimum) = fit_range(x, top);
    }
    let d = f16::from_f32(unsigned_unit(&fitted, top_scale));
    let dmin = f16::from_f32(unsigned_unit(&lowest, top_scale));
    let scales = fitted.map(|scale| in_units(scale, d.to_f32(), 0.0, top_scale) as u8);
    let minimums = lowest.map(|minimum| in_units(minimum, dmin.to_f32(), 0.0, top_scale) as u8);
    let mut codes = [0; LEN];
    for (s, (codes, x)) in codes.chunks_exact_mut(LEN / SUBS).zip(subs()).enumerate() {
        let scale = d.to_f32() * f32::from(scales[s]);
        let minimum = dmin.to_f32() * f32::from(minimums[s]);
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = in_units(x + minimum, scale, 0.0, top) as u8;
        }
    }
    Ranged { codes, scales, minimums, d, dmin }
}
