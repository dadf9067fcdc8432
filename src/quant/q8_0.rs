//! Q8_0: f16 scale, 32 signed bytes; w = d·q.
//! Unpacked levels are offset by 128. The encoder writes −127 to 127 only; files may have −128.

use super::float::{read_f16, write_f16};
use super::levels::Levels;
use super::{Block, DType, EncodeBlock, Kind};
use crate::arrays;

const BYTES: usize = 2 + 32;
const OFFSET: u8 = 128;
const _: () = assert!(BYTES == DType::Q8_0.block_bytes());

/// The type.
pub struct Q8_0;

/// Levels of one block.
#[inline]
pub fn levels(block: &[u8]) -> Levels {
    let q = arrays::from_fn(|i| block[2 + i] ^ OFFSET);
    Levels { q, offset: OFFSET, d: read_f16(block), m: None }
}

impl Block for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
    const KIND: Kind = Kind::Levels(levels);
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

fn encode(x: &[f32], _: Option<&[f32]>, block: &mut [u8]) {
    let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let d = peak / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    write_f16(d, block);
    for (byte, x) in block[2..BYTES].iter_mut().zip(x) {
        *byte = (x * inverse).round() as i8 as u8;
    }
}
