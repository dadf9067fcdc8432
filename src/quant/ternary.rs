//! TQ1_0 and TQ2_0: blocks of 256 elements −1, 0 or 1 with one f16 scale; a byte has five digits of base 3, or four
//! codes of 2 bits. In TQ2_0 the code 3, which encoders don't write, means 2.

use super::fields::{pack, unpack};
use super::float::{read_f16, write_f16};
use super::plain::Plain;
use super::{Block, DType, EncodeBlock, Kind};

/// TQ1_0.
pub struct Tq1;
/// TQ2_0.
pub struct Tq2;

/// The runs of bytes: (first byte, number of bytes, digits in a byte). The first digits of a run's bytes are its first
/// elements.
const RUNS: [(usize, usize, u32); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

impl Block for Tq1 {
    const DTYPE: DType = DType::TQ1_0;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = Some(encode_tq1);
}

impl Tq1 {
    fn plain(block: &[u8]) -> Plain {
        let digits = RUNS.into_iter().flat_map(|(at, len, digits)| {
            (0..digits).flat_map(move |digit| block[at..at + len].iter().map(move |&byte| trit(byte, digit)))
        });
        let mut q = [0; 256];
        for (q, digit) in q.iter_mut().zip(digits) {
            *q = digit as i8 - 1;
        }
        Plain { q, scales: [read_f16(&block[52..]).to_f32(); 16] }
    }
}

/// Digit number `digit`, counted from the highest, of the fraction byte/256 in base 3.
fn trit(byte: u8, digit: u32) -> u8 {
    let rest = byte.wrapping_mul(3u8.pow(digit));
    ((u16::from(rest) * 3) >> 8) as u8
}

impl Block for Tq2 {
    const DTYPE: DType = DType::TQ2_0;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = Some(encode_tq2);
}

impl Tq2 {
    fn plain(block: &[u8]) -> Plain {
        let q = unpack::<2, 32, 256>(&block[..64]).map(|code| code as i8 - 1);
        Plain { q, scales: [read_f16(&block[64..]).to_f32(); 16] }
    }
}

/// Codes 0 to 2, and the largest magnitude, which is the scale.
fn round(x: &[f32]) -> ([u8; 256], f32) {
    let d = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    (std::array::from_fn(|i| ((x[i] * inverse).round() + 1.0) as u8), d)
}

fn encode_tq1(x: &[f32], _: Option<&[f32]>, block: &mut [u8]) {
    let (codes, d) = round(x);
    let mut codes = &codes[..];
    for (at, len, digits) in RUNS {
        let (these, rest) = codes.split_at(len * digits as usize);
        codes = rest;
        for (i, byte) in block[at..at + len].iter_mut().enumerate() {
            let number =
                (0..digits as usize).fold(0, |n, digit| 3 * n + u16::from(these[digit * len + i].min(2)));
            // Five digits as a fraction of 256, rounded up, so that multiplications by 3 give one digit after the
            // other.
            *byte = (number * 3u16.pow(5 - digits) * 256).div_ceil(243) as u8;
        }
    }
    write_f16(d, &mut block[52..]);
}

fn encode_tq2(x: &[f32], _: Option<&[f32]>, block: &mut [u8]) {
    let (codes, d) = round(x);
    pack::<2, 32>(&codes, &mut block[..64]);
    write_f16(d, &mut block[64..]);
}
