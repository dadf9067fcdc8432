//! IQ2_XXS, IQ2_XS, IQ2_S: groups of 8 on grids of 256, 512 and 1024 points; f16 scale, 4-bit scales s.
//! w = d·(s + ½)/4·point, with a sign each; even numbers of negative signs, or any (IQ2_S).

use super::{even_signs, grids, half_word, put_signed, word};
use crate::quant::fields::unpack;
use crate::quant::float::read_f16;
use crate::quant::plain::Plain;
use crate::quant::{Block, DType, EncodeBlock, Kind};

/// Magnitudes that the digits of a point stand for.
const MAGNITUDES: [i8; 4] = [8, 25, 43, 0];

/// IQ2_XXS.
pub struct Iq2Xxs;
/// IQ2_XS.
pub struct Iq2Xs;
/// IQ2_S.
pub struct Iq2S;

impl Block for Iq2Xxs {
    const DTYPE: DType = DType::IQ2_XXS;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq2Xxs {
    /// For each 32: four bytes of points, then a word of four times seven signs and the scale.
    fn plain(block: &[u8]) -> Plain {
        let (d, words) = (read_f16(block).to_f32(), &block[2..66]);
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(8).enumerate() {
            let signs = even_signs(word(words, group / 4 * 2 + 1) >> (group % 4 * 7));
            put_point(grids::IQ2_XXS[usize::from(words[group / 4 * 8 + group % 4])], signs, q);
        }
        Plain { q, scales: std::array::from_fn(|s| scale(d, (word(words, s / 2 * 2 + 1) >> 28) as u8)) }
    }
}

impl Block for Iq2Xs {
    const DTYPE: DType = DType::IQ2_XS;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq2Xs {
    /// 32 half words of a point and seven signs, 8 bytes of scales of 16 elements.
    fn plain(block: &[u8]) -> Plain {
        let d = read_f16(block).to_f32();
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(8).enumerate() {
            let code = half_word(&block[2..66], group);
            put_point(grids::IQ2_XS[usize::from(code & 511)], even_signs(u32::from(code >> 9)), q);
        }
        Plain { q, scales: unpack::<4, 1, 16>(&block[66..74]).map(|s| scale(d, s)) }
    }
}

impl Block for Iq2S {
    const DTYPE: DType = DType::IQ2_S;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq2S {
    /// 32 bytes of points' low bits, 32 of signs, 8 of points' two high bits, 8 of scales of 16 elements.
    fn plain(block: &[u8]) -> Plain {
        let d = read_f16(block).to_f32();
        let high = unpack::<2, 1, 32>(&block[66..74]);
        let mut q = [0; 256];
        for (group, q) in q.chunks_exact_mut(8).enumerate() {
            let point = usize::from(block[2 + group]) | usize::from(high[group]) << 8;
            put_point(grids::IQ2_S[point], block[34 + group], q);
        }
        Plain { q, scales: unpack::<4, 1, 16>(&block[74..82]).map(|s| scale(d, s)) }
    }
}

fn scale(d: f32, s: u8) -> f32 {
    d * (0.5 + f32::from(s)) * 0.25
}

fn put_point(point: u16, signs: u8, q: &mut [i8]) {
    put_signed((0..8).map(|i| MAGNITUDES[usize::from(point >> (2 * i) & 3)]), signs, q);
}
