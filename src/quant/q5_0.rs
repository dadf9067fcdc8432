//! Q5_0: f16 scale, 4 bytes of fifth bits, 16 bytes of nibbles; w = d·(q − 16).
//! The value of largest magnitude becomes level 0, which is −16·d, so d has the opposite sign.

use super::float::{read_f16, write_f16};
use super::levels::{Levels, add_fifth_bits, join_nibbles, round_symmetric, split_nibbles, take_fifth_bits};
use super::{Block, DType, EncodeBlock, Kind};

const BYTES: usize = 2 + 4 + 16;
const OFFSET: u8 = 16;
const _: () = assert!(BYTES == DType::Q5_0.block_bytes());

/// The type.
pub struct Q5_0;

/// Levels of one block.
#[inline]
pub fn levels(block: &[u8]) -> Levels {
    let mut q = split_nibbles(&block[6..BYTES]);
    add_fifth_bits(&mut q, &block[2..6]);
    Levels { q, offset: OFFSET, d: read_f16(block), m: None }
}

impl Block for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const KIND: Kind = Kind::Levels(levels);
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let (q, d) = round_symmetric(x, importance, OFFSET);
    write_f16(d, block);
    take_fifth_bits(&q, &mut block[2..6]);
    join_nibbles(&q, &mut block[6..BYTES]);
}
