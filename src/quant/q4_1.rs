//! Q4_1: f16 scale, f16 minimum, 16 bytes of nibbles; w = d·q + m.
//! Sixteen levels spread evenly from the smallest value to the largest.

use super::float::{read_f16, write_f16};
use super::levels::{Levels, join_nibbles, round_between, split_nibbles};
use super::{Block, DType, EncodeBlock, Kind};

const BYTES: usize = 2 + 2 + 16;
const _: () = assert!(BYTES == DType::Q4_1.block_bytes());

/// The type.
pub struct Q4_1;

/// Levels of one block.
#[inline]
pub fn levels(block: &[u8]) -> Levels {
    let m = Some(read_f16(&block[2..]));
    Levels { q: split_nibbles(&block[4..BYTES]), offset: 0, d: read_f16(block), m }
}

impl Block for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
    const KIND: Kind = Kind::Levels(levels);
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let (q, d, m) = round_between(x, importance, 15);
    write_f16(d, block);
    write_f16(m, &mut block[2..]);
    join_nibbles(&q, &mut block[4..BYTES]);
}
