//! Q5_1: f16 scale, f16 minimum, 4 bytes of fifth bits, 16 bytes of nibbles; w = d·q + m.
//! Thirty-two levels spread evenly from the smallest value to the largest.

use super::float::{read_f16, write_f16};
use super::levels::{Levels, add_fifth_bits, join_nibbles, round_between, split_nibbles, take_fifth_bits};
use super::{Block, DType, EncodeBlock, Kind};

const BYTES: usize = 2 + 2 + 4 + 16;
const _: () = assert!(BYTES == DType::Q5_1.block_bytes());

/// The type.
pub struct Q5_1;

/// Levels of one block.
#[inline]
pub fn levels(block: &[u8]) -> Levels {
    let mut q = split_nibbles(&block[8..BYTES]);
    add_fifth_bits(&mut q, &block[4..8]);
    Levels { q, offset: 0, d: read_f16(block), m: Some(read_f16(&block[2..])) }
}

impl Block for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
    const KIND: Kind = Kind::Levels(levels);
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let (q, d, m) = round_between(x, importance, 31);
    write_f16(d, block);
    write_f16(m, &mut block[2..]);
    take_fifth_bits(&q, &mut block[4..8]);
    join_nibbles(&q, &mut block[8..BYTES]);
}
