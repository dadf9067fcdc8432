//! Q4_0: f16 scale, 16 bytes of nibbles; w = d·(q − 8).
//! The value of largest magnitude becomes level 0, which is −8·d, so d has the opposite sign.

use super::float::{read_f16, write_f16};
use super::levels::{Levels, join_nibbles, round_symmetric, split_nibbles};
use super::{Block, DType, EncodeBlock, Kind};

const BYTES: usize = 2 + 16;
const OFFSET: u8 = 8;
const _: () = assert!(BYTES == DType::Q4_0.block_bytes());

/// The type.
pub struct Q4_0;

/// Levels of one block.
#[inline]
pub fn levels(block: &[u8]) -> Levels {
    Levels { q: split_nibbles(&block[2..BYTES]), offset: OFFSET, d: read_f16(block), m: None }
}

impl Block for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
    const KIND: Kind = Kind::Levels(levels);
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let (q, d) = round_symmetric(x, importance, OFFSET);
    write_f16(d, block);
    join_nibbles(&q, &mut block[2..BYTES]);
}
