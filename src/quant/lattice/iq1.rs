//! IQ1_S, IQ1_M: groups of 8 on a grid of 2048 points of −1, 0, 1, all shifted by ±⅛; f16 scale, 3-bit scales s.
//! w = d·(2s + 1)·(point ± ⅛); levels are eight times that bracket.

use super::{grids, half_word};
use crate::quant::fields::unpack;
use crate::quant::float::read_f16;
use crate::quant::plain::Plain;
use crate::quant::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// IQ1_S.
pub struct Iq1S;
/// IQ1_M.
pub struct Iq1M;

impl Block for Iq1S {
    const DTYPE: DType = DType::IQ1_S;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq1S {
    /// 32 bytes of points' low bits; for each 32 a half word: four times three high bits, scale, shift's sign.
    fn plain(block: &[u8]) -> Plain {
        let (d, heads) = (read_f16(block).to_f32(), &block[34..50]);
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(8).enumerate() {
            let head = half_word(heads, group / 4);
            put_point(block[2 + group], head >> (group % 4 * 3), head >> 15 == 1, q);
        }
        Plain { q, scales: std::array::from_fn(|s| scale(d, half_word(heads, s / 2) >> 12)) }
    }
}

impl Block for Iq1M {
    const DTYPE: DType = DType::IQ1_M;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq1M {
    /// 32 bytes of points' low bits; a nibble a group: three high bits, shift's sign; four half words of four
    /// times three bits of scale and four bits of d.
    fn plain(block: &[u8]) -> Plain {
        let (nibbles, scales) = (unpack::<4, 1, 32>(&block[32..48]), &block[48..56]);
        let d = (0..4).fold(0, |d, i| d | half_word(scales, i) >> 12 << (4 * i));
        let d = f16::from_bits(d).to_f32();
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(8).enumerate() {
            put_point(block[group], u16::from(nibbles[group]), nibbles[group] >> 3 == 1, q);
        }
        Plain { q, scales: std::array::from_fn(|s| scale(d, half_word(scales, s / 4) >> (s % 4 * 3))) }
    }
}

/// An eighth of the scale that the low three bits of `s` mean.
fn scale(d: f32, s: u16) -> f32 {
    d * f32::from(2 * (s & 7) + 1) * 0.125
}

/// Eight times the point of the low byte and the low three bits of `high`, shifted down or up.
fn put_point(low: u8, high: u16, down: bool, q: &mut [i8]) {
    let point = grids::IQ1[usize::from(low) | usize::from(high & 7) << 8];
    let shift = if down { -1 } else { 1 };
    for (i, q) in q.iter_mut().enumerate() {
        *q = 8 * ((point >> (2 * i) & 3) as i8 - 1) + shift;
    }
}
