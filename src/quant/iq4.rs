//! IQ4_NL and IQ4_XS: 4-bit codes into a table of 16 uneven levels, which are dense around zero. IQ4_NL has blocks of
//! 32 and one f16 scale, IQ4_XS blocks of 256 and 6-bit scales of 32; `w = d·(scale − 32)·table[q]`.

use super::fields::{above, join, pack, unpack};
use super::float::read_f16;
use super::parts::{Codes, Factor, Form, Parts, SUPER};
use super::search::{fit_scale, important, in_units, signed_unit};
use super::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// Levels of the codes.
pub static LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The stored value of a zero scale.
const ZERO_SCALE: u8 = 32;

/// IQ4_NL.
pub struct Iq4Nl;
/// IQ4_XS.
pub struct Iq4Xs;

impl Block for Iq4Nl {
    const DTYPE: DType = DType::IQ4_NL;
    const KIND: Kind = Kind::Parts(
        &Form { len: 32, sub: 32, bits: 4, minimums: false, levels: Codes::Table(&LEVELS) },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode_nl);
}

impl Iq4Nl {
    fn parts(block: &[u8]) -> Parts {
        parts_of_32(&block[2..18], Factor::Half(read_f16(block)))
    }
}

impl Block for Iq4Xs {
    const DTYPE: DType = DType::IQ4_XS;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 32, bits: 4, minimums: false, levels: Codes::Table(&LEVELS) },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode_xs);
}

impl Iq4Xs {
    fn parts(block: &[u8]) -> Parts {
        let stored = join(unpack::<4, 1, 8>(&block[4..8]), unpack::<2, 1, 8>(&block[2..4]), 4);
        let mut scales = [0; 16];
        for (scale, stored) in scales.iter_mut().zip(stored) {
            *scale = stored as i8 - ZERO_SCALE as i8;
        }
        Parts {
            codes: unpack::<4, 16, 256>(&block[8..136]),
            scales,
            minimums: [0; 16],
            d: Factor::Half(read_f16(block)),
            dmin: f16::ZERO,
        }
    }
}

/// Unpacks a block of 32 nibbles with one scale.
pub fn parts_of_32(nibbles: &[u8], d: Factor) -> Parts {
    let mut codes = [0; SUPER];
    codes[..32].copy_from_slice(&unpack::<4, 16, 32>(nibbles));
    let mut scales = [0; 16];
    scales[0] = 1;
    Parts { codes, scales, minimums: [0; 16], d, dmin: f16::ZERO }
}

/// The code with the nearest level.
fn nearest(level: f32) -> u8 {
    LEVELS.windows(2).filter(|pair| level > f32::from(i16::from(pair[0]) + i16::from(pair[1])) / 2.0).count()
        as u8
}

/// The scale of 32 values. The value of largest magnitude is mapped to the low end of the table, which is further from
/// zero.
fn fit(x: &[f32], importance: Option<&[f32]>) -> f32 {
    let weights: [f32; 32] = important(x, importance).unwrap_or_else(|| std::array::from_fn(|i| x[i] * x[i]));
    let level = |level| f32::from(LEVELS[usize::from(nearest(level))]);
    fit_scale(x, &weights, f32::from(LEVELS[0]), level)
}

/// Codes for values at scale `scale`.
fn put_codes(x: &[f32], scale: f32, nibbles: &mut [u8]) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let codes: [u8; 32] = std::array::from_fn(|i| nearest(x[i] * inverse));
    pack::<4, 16>(&codes, nibbles);
}

fn encode_nl(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let d = f16::from_f32(fit(x, importance));
    block[..2].copy_from_slice(&d.to_le_bytes());
    put_codes(x, d.to_f32(), &mut block[2..18]);
}

fn encode_xs(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let mut fitted = [0.0; 8];
    for (s, (scale, x)) in fitted.iter_mut().zip(x.chunks_exact(32)).enumerate() {
        *scale = fit(x, importance.map(|importance| &importance[32 * s..][..32]));
    }
    let reach = f32::from(ZERO_SCALE);
    let d = f16::from_f32(signed_unit(&fitted, reach));
    let scales = fitted.map(|scale| in_units(scale, d.to_f32(), -reach, reach - 1.0));
    let stored = scales.map(|scale| (scale + reach) as u8);
    block[..2].copy_from_slice(&d.to_le_bytes());
    pack::<2, 1>(&above(&stored, 4), &mut block[2..4]);
    pack::<4, 1>(&stored, &mut block[4..8]);
    for ((x, scale), nibbles) in x.chunks_exact(32).zip(scales).zip(block[8..].chunks_exact_mut(16)) {
        put_codes(x, d.to_f32() * scale, nibbles);
    }
}
