//! IQ3_XXS, IQ3_S: groups of 4 on grids of 256 and 512 points; f16 scale, 4-bit scales s of 32 elements.
//! w = d·(s + ½)/2·point, or d·(2s + 1)·point, with a sign each.

use super::{even_signs, grids, put_signed, word};
use crate::quant::fields::unpack;
use crate::quant::float::read_f16;
use crate::quant::plain::Plain;
use crate::quant::{Block, DType, EncodeBlock, Kind};

/// Magnitudes that the digits of an IQ3_XXS point stand for; those of IQ3_S are the odd numbers.
const MAGNITUDES: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// IQ3_XXS.
pub struct Iq3Xxs;
/// IQ3_S.
pub struct Iq3S;

impl Block for Iq3Xxs {
    const DTYPE: DType = DType::IQ3_XXS;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq3Xxs {
    /// 64 bytes of points, then for each 32 a word of four times seven signs and the scale.
    fn plain(block: &[u8]) -> Plain {
        let (d, words) = (read_f16(block).to_f32(), &block[66..98]);
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(4).enumerate() {
            let signs = even_signs(word(words, group / 8) >> (group / 2 % 4 * 7)) >> (group % 2 * 4);
            let point = grids::IQ3_XXS[usize::from(block[2 + group])];
            put_signed(digits(point).map(|digit| MAGNITUDES[digit]), signs, q);
        }
        let scale = |s: usize| d * (0.5 + (word(words, s / 2) >> 28) as f32) * 0.5;
        Plain { q, scales: std::array::from_fn(scale) }
    }
}

impl Block for Iq3S {
    const DTYPE: DType = DType::IQ3_S;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq3S {
    /// 64 bytes of points' low bits, 8 of their ninth bits, 32 of signs, 4 of scales.
    fn plain(block: &[u8]) -> Plain {
        let d = read_f16(block).to_f32();
        let ninth = unpack::<1, 1, 64>(&block[66..74]);
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(4).enumerate() {
            let point = grids::IQ3_S[usize::from(block[2 + group]) | usize::from(ninth[group]) << 8];
            let signs = block[74 + group / 2] >> (group % 2 * 4);
            put_signed(digits(point).map(|digit| 2 * digit as i8 + 1), signs, q);
        }
        let stored = unpack::<4, 1, 8>(&block[106..110]);
        Plain { q, scales: std::array::from_fn(|s| d * f32::from(2 * stored[s / 2] + 1)) }
    }
}

fn digits(point: u16) -> impl Iterator<Item = usize> {
    (0..4).map(move |i| usize::from(point >> (4 * i) & 7))
}
