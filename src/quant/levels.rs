//! The common form of the block formats of 32 elements: unsigned levels, a scale, an offset or a minimum.
//! Each format is unpacked into [`Levels`]; decoding and repacking start from it.

use super::fields::{above, join, pack, unpack};
use super::search::{fit_range, fit_scale, important, in_units, rounded};
use half::f16;

/// Elements of a block.
pub const BLOCK: usize = 32;

/// An unpacked block of 32: element i is `d·(q[i] − offset) + m`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// Unsigned levels.
    pub q: [u8; BLOCK],
    /// The level of the value 0 (in formats with a minimum, of the value `m`).
    pub offset: u8,
    /// Scale.
    pub d: f16,
    /// Minimum; `None` for formats without one.
    pub m: Option<f16>,
}

impl Levels {
    /// The values in f32, rounded as by the reference decoder: first the product, then the sum.
    #[inline]
    pub fn decode(&self, out: &mut [f32]) {
        let d = self.d.to_f32();
        for (out, &q) in out.iter_mut().zip(&self.q) {
            *out = d * f32::from(i16::from(q) - i16::from(self.offset));
        }
        if let Some(m) = self.m {
            let m = m.to_f32();
            out.iter_mut().for_each(|x| *x += m);
        }
    }
}

/// Low nibbles are elements 0..16, high nibbles 16..32.
#[inline]
pub fn split_nibbles(packed: &[u8]) -> [u8; BLOCK] {
    unpack::<4, 16, BLOCK>(packed)
}

/// Inverse of [`split_nibbles`]; bits above the fourth are left out.
pub fn join_nibbles(q: &[u8; BLOCK], packed: &mut [u8]) {
    pack::<4, 16>(q, packed);
}

/// Adds the fifth bits, bit i of a little-endian u32 for element i.
#[inline]
pub fn add_fifth_bits(q: &mut [u8; BLOCK], bits: &[u8]) {
    *q = join(*q, unpack::<1, 1, BLOCK>(bits), 4);
}

/// Inverse of [`add_fifth_bits`].
pub fn take_fifth_bits(q: &[u8; BLOCK], bits: &mut [u8]) {
    pack::<1, 1>(&above(q, 4), bits);
}

/// The levels and the scale of a format with `offset` as the level of zero and `2·offset − 1` as the highest level. The
/// scale makes the value of largest magnitude (the first one of several) level 0, or has the least error weighed by
/// importances.
pub fn round_symmetric(x: &[f32], importance: Option<&[f32]>, offset: u8) -> ([u8; BLOCK], f32) {
    if let Some(weights) = important::<BLOCK>(x, importance) {
        let (lowest, highest) = (-f32::from(offset), f32::from(offset) - 1.0);
        let d = fit_scale(x, &weights, lowest, |level| rounded(level.clamp(lowest, highest)));
        let d = f16::from_f32(d).to_f32();
        return (std::array::from_fn(|i| (in_units(x[i], d, lowest, highest) - lowest) as u8), d);
    }
    let peak = x.iter().fold(0.0f32, |peak, &x| if x.abs() > peak.abs() { x } else { peak });
    let d = peak / -f32::from(offset);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let half_up = f32::from(offset) + 0.5;
    let q = std::array::from_fn(|i| ((x[i] * inverse + half_up) as u8).min(2 * offset - 1));
    (q, d)
}

/// Levels `0..=top` between the smallest and the largest value, with the scale and the minimum; or those with the least
/// error weighed by importances.
pub fn round_between(x: &[f32], importance: Option<&[f32]>, top: u8) -> ([u8; BLOCK], f32, f32) {
    if let Some(weights) = important::<BLOCK>(x, importance) {
        let (d, minimum) = fit_range(x, &weights, f32::from(top));
        let (d, minimum) = (f16::from_f32(d).to_f32(), f16::from_f32(minimum).to_f32());
        let level = |x: f32| in_units(x + minimum, d, 0.0, f32::from(top)) as u8;
        return (std::array::from_fn(|i| level(x[i])), d, -minimum);
    }
    let (low, high) =
        x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    let d = (high - low) / f32::from(top);
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let q = std::array::from_fn(|i| (((x[i] - low) * inverse + 0.5) as u8).min(top));
    (q, d, low)
}
