//! Plain floats as blocks of one element, little-endian: F32, F16, BF16.
//! Decoding is exact; encoding rounds to nearest, ties to even.

use super::{Block, DType, EncodeBlock, Kind};
use half::{bf16, f16};

/// IEEE single.
pub struct Single;
/// IEEE half.
pub struct Half;
/// bfloat16.
pub struct Brain;

impl Block for Single {
    const DTYPE: DType = DType::F32;
    const KIND: Kind =
        Kind::Floats(|block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]));
    const ENCODE: Option<EncodeBlock> = Some(|x, _, block| block.copy_from_slice(&x[0].to_le_bytes()));
}

impl Block for Half {
    const DTYPE: DType = DType::F16;
    const KIND: Kind = Kind::Floats(|block, out| out[0] = read_f16(block).to_f32());
    const ENCODE: Option<EncodeBlock> = Some(|x, _, block| write_f16(x[0], block));
}

impl Block for Brain {
    const DTYPE: DType = DType::BF16;
    const KIND: Kind = Kind::Floats(|block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32());
    const ENCODE: Option<EncodeBlock> =
        Some(|x, _, block| block.copy_from_slice(&bf16::from_f32(x[0]).to_le_bytes()));
}

/// The half float in the first two bytes.
#[inline]
pub fn read_f16(bytes: &[u8]) -> f16 {
    f16::from_le_bytes([bytes[0], bytes[1]])
}

/// Writes `x` as a half float into the first two bytes.
pub fn write_f16(x: f32, bytes: &mut [u8]) {
    bytes[..2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
}
