//! TQ1_0 and TQ2_0: −1, 0 or 1 times one f16 scale a block of 256; five digits of base 3 a byte, or four of 2 bits.
//! A code of 3 in TQ2_0, which encoders don't write, stands for 2.

use super::fields::unpack;
use super::float::read_f16;
use super::plain::Plain;
use super::{Block, DType, EncodeBlock, Kind};

/// TQ1_0.
pub struct Tq1;
/// TQ2_0.
pub struct Tq2;

/// Where digits are: (first byte, bytes of a run, digits a byte). A run's first digits are its first elements.
const RUNS: [(usize, usize, u32); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

impl Block for Tq1 {
    const DTYPE: DType = DType::TQ1_0;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
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

/// Digit `digit`, the highest being 0, of a byte that stands for the fraction byte/256 in base 3.
fn trit(byte: u8, digit: u32) -> u8 {
    let rest = byte.wrapping_mul(3u8.pow(digit));
    (u16::from(rest) * 3 >> 8) as u8
}

impl Block for Tq2 {
    const DTYPE: DType = DType::TQ2_0;
    const KIND: Kind = Kind::Plain(Self::plain);
    const ENCODE: Option<EncodeBlock> = None;
}

impl Tq2 {
    fn plain(block: &[u8]) -> Plain {
        let q = unpack::<2, 32, 256>(&block[..64]).map(|code| code as i8 - 1);
        Plain { q, scales: [read_f16(&block[64..]).to_f32(); 16] }
    }
}
