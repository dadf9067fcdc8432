//! MXFP4 and NVFP4: 4-bit floats (E2M1) in blocks of 32 with a power of two as scale, or in blocks of 64 with an 8-bit
//! float as scale of each 16. The table has doubled floats, which are integers; scales are halved to match.

use super::fields::{pack, unpack};
use super::iq4::parts_of_32;
use super::parts::{Codes, Factor, Form, Parts, SUPER};
use super::plain::Plain;
use super::{Block, DType, EncodeBlock, Kind};

/// Doubled values of the codes.
pub static LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// MXFP4.
pub struct Mxfp4;
/// NVFP4.
pub struct Nvfp4;

impl Block for Mxfp4 {
    const DTYPE: DType = DType::MXFP4;
    const KIND: Kind = Kind::Parts(
        &Form { len: 32, sub: 32, bits: 4, minimums: false, levels: Codes::Table(&LEVELS) },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

impl Mxfp4 {
    fn parts(block: &[u8]) -> Parts {
        parts_of_32(&block[1..17], Factor::Exponent(block[0]))
    }
}

impl Block for Nvfp4 {
    const DTYPE: DType = DType::NVFP4;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Nvfp4 {
    fn plain(block: &[u8]) -> Plain {
        let mut plain = Plain { q: [0; SUPER], scales: [0.0; 16] };
        for (scale, &byte) in plain.scales.iter_mut().zip(&block[..4]) {
            *scale = half_of_e4m3(byte);
        }
        for (q, code) in plain.q.iter_mut().zip(unpack::<4, 8, 64>(&block[4..36])) {
            *q = LEVELS[usize::from(code)];
        }
        plain
    }
}

/// The scale is the power of two by which the largest magnitude becomes 4 or more; of equally near levels, the first is
/// taken.
fn encode(x: &[f32], _: Option<&[f32]>, block: &mut [u8]) {
    let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    // The reference's logarithm is in f32, where it is rounded up to a whole number just below a power of two.
    let exponent = if peak > 0.0 { (f64::from(peak).log2() as f32).floor() - 2.0 + 127.0 } else { 0.0 };
    block[0] = exponent as u8;
    let d = Factor::Exponent(block[0]).to_f32();
    let codes: [u8; 32] = std::array::from_fn(|i| {
        let distance = |code: usize| (d * f32::from(LEVELS[code]) - x[i]).abs();
        (1..16).fold(0, |best, code| if distance(code) < distance(best) { code } else { best }) as u8
    });
    pack::<4, 16>(&codes, &mut block[1..17]);
}

/// Half of an unsigned E4M3 number. The highest bit is ignored, and the pattern of NaN means zero.
fn half_of_e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (byte >> 3 & 15, f32::from(byte & 7));
    let unit = |exponent: u8| f32::from_bits(u32::from(exponent + 127 - 11) << 23);
    match (byte, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * unit(1),
        _ => (mantissa + 8.0) * unit(exponent),
    }
}
