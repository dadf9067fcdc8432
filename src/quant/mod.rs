//! Element types of tensors: block formats, their sizes, encode and decode.
//! Layouts follow the GGUF format's own (ggml's block structs); decoding is bit-equal to its reference.
//! A type is one file that implements [`Block`]; this one holds the list and the row loops.

use crate::error::{Error, Result};

mod float;
mod levels;
mod q4_0;
mod q4_1;
mod q5_0;
mod q5_1;
mod q8_0;
#[cfg(test)]
mod tests;

pub(crate) use levels::{BLOCK, Levels};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 32 × 4 bits, one scale: w = d·(q − 8).
    Q4_0,
    /// 32 × 4 bits, scale and minimum: w = d·q + m.
    Q4_1,
    /// 32 × 5 bits, one scale: w = d·(q − 16).
    Q5_0,
    /// 32 × 5 bits, scale and minimum: w = d·q + m.
    Q5_1,
    /// 32 × 8 bits, one scale: w = d·q.
    Q8_0,
}

impl DType {
    /// Every type.
    pub const ALL: [DType; 8] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
    ];

    /// Name as files and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "F32",
            DType::F16 => "F16",
            DType::BF16 => "BF16",
            DType::Q4_0 => "Q4_0",
            DType::Q4_1 => "Q4_1",
            DType::Q5_0 => "Q5_0",
            DType::Q5_1 => "Q5_1",
            DType::Q8_0 => "Q8_0",
        }
    }

    /// The type that a GGUF tensor entry means by `id`; `None` for types that this crate does not know.
    pub const fn from_gguf(id: u32) -> Option<DType> {
        Some(match id {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Q4_0,
            3 => DType::Q4_1,
            6 => DType::Q5_0,
            7 => DType::Q5_1,
            8 => DType::Q8_0,
            30 => DType::BF16,
            _ => return None,
        })
    }

    /// The id that a GGUF tensor entry writes for this type.
    pub const fn gguf_id(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q5_0 => 6,
            DType::Q5_1 => 7,
            DType::Q8_0 => 8,
            DType::BF16 => 30,
        }
    }

    /// Whether values are stored as levels of a scale that a block shares.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Elements in a block (1 for plain floats).
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 => 1,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
        }
    }

    /// Bytes of a row of `len` elements; `None` where `len` is no whole number of blocks or it overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Levels, scale and minimum of one block of 32; `None` for types that are not of that kind.
    pub(crate) fn levels(self, block: &[u8]) -> Option<Levels> {
        Some(match self {
            DType::Q4_0 => q4_0::levels(block),
            DType::Q4_1 => q4_1::levels(block),
            DType::Q5_0 => q5_0::levels(block),
            DType::Q5_1 => q5_1::levels(block),
            DType::Q8_0 => q8_0::levels(block),
            DType::F32 | DType::F16 | DType::BF16 => return None,
        })
    }
}

/// One element type's block: `DTYPE.block_len()` values in `DTYPE.block_bytes()` bytes.
///
/// Both functions get slices of exactly those lengths.
trait Block {
    /// The type.
    const DTYPE: DType;
    /// Values of a block.
    fn decode(block: &[u8], out: &mut [f32]);
    /// The block whose values come close to `x`, by the format's own rounding rules.
    fn encode(x: &[f32], block: &mut [u8]);
}

/// Decodes a row (or several rows one after the other) of `dtype` into `out`.
///
/// # Errors
/// [`Error::InvalidArgument`] where `out` is no whole number of blocks, or `bytes` has another length than
/// `out.len()` elements take.
pub fn decode_row(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check_lengths(dtype, bytes.len(), out.len())?;
    match dtype {
        DType::F32 => decode_blocks::<float::Single>(bytes, out),
        DType::F16 => decode_blocks::<float::Half>(bytes, out),
        DType::BF16 => decode_blocks::<float::Brain>(bytes, out),
        DType::Q4_0 => decode_blocks::<q4_0::Q4_0>(bytes, out),
        DType::Q4_1 => decode_blocks::<q4_1::Q4_1>(bytes, out),
        DType::Q5_0 => decode_blocks::<q5_0::Q5_0>(bytes, out),
        DType::Q5_1 => decode_blocks::<q5_1::Q5_1>(bytes, out),
        DType::Q8_0 => decode_blocks::<q8_0::Q8_0>(bytes, out),
    }
    Ok(())
}

/// Encodes a row (or several rows one after the other) as `dtype` into `bytes`.
///
/// Quantised types round as ggml's reference encoders do. Values that are not finite give a valid block
/// whose contents are unspecified.
///
/// # Errors
/// [`Error::InvalidArgument`] where `x` is no whole number of blocks, or `bytes` has another length than
/// `x.len()` elements take.
pub fn encode_row(dtype: DType, x: &[f32], bytes: &mut [u8]) -> Result<()> {
    check_lengths(dtype, bytes.len(), x.len())?;
    match dtype {
        DType::F32 => encode_blocks::<float::Single>(x, bytes),
        DType::F16 => encode_blocks::<float::Half>(x, bytes),
        DType::BF16 => encode_blocks::<float::Brain>(x, bytes),
        DType::Q4_0 => encode_blocks::<q4_0::Q4_0>(x, bytes),
        DType::Q4_1 => encode_blocks::<q4_1::Q4_1>(x, bytes),
        DType::Q5_0 => encode_blocks::<q5_0::Q5_0>(x, bytes),
        DType::Q5_1 => encode_blocks::<q5_1::Q5_1>(x, bytes),
        DType::Q8_0 => encode_blocks::<q8_0::Q8_0>(x, bytes),
    }
    Ok(())
}

fn check_lengths(dtype: DType, bytes: usize, len: usize) -> Result<()> {
    if dtype.row_bytes(len) == Some(bytes) {
        return Ok(());
    }
    Err(Error::invalid(format!("{bytes} bytes can't hold {len} elements of {} exactly", dtype.name())))
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.chunks_exact(B::DTYPE.block_bytes());
    for (block, values) in blocks.zip(out.chunks_exact_mut(B::DTYPE.block_len())) {
        B::decode(block, values);
    }
}

fn encode_blocks<B: Block>(x: &[f32], bytes: &mut [u8]) {
    let blocks = bytes.chunks_exact_mut(B::DTYPE.block_bytes());
    for (block, values) in blocks.zip(x.chunks_exact(B::DTYPE.block_len())) {
        B::encode(values, block);
    }
}
