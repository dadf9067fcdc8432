//! Element types of tensors: block formats, their sizes, encoding and decoding.
//! The layouts are GGUF's (ggml's block structures), and decoding has the same bits as the reference decoder.
//! A type is an entry in the list in `dtype` and a file that implements [`Block`]; this file has the loops over rows.

use crate::error::{Error, Result};

mod dtype;
mod fields;
mod float;
mod fp4;
mod iq4;
mod k;
mod lattice;
mod levels;
mod parts;
mod plain;
mod q4_0;
mod q4_1;
mod q5_0;
mod q5_1;
mod q8_0;
mod search;
mod ternary;
#[cfg(test)]
mod tests;

pub use dtype::DType;
pub(crate) use levels::{BLOCK, Levels};
#[allow(unused_imports)]
pub(crate) use parts::{Codes, Factor, Form, Parts};
#[allow(unused_imports)]
pub(crate) use plain::Plain;

/// Decodes a block.
type DecodeBlock = fn(block: &[u8], out: &mut [f32]);
/// Encodes `x` as a block, by the format's own rounding rules. Where importances of the values are known, types that
/// search for a scale weigh errors by them; the others leave them out.
type EncodeBlock = fn(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]);

/// [`DecodeBlock`] for any number of blocks.
type DecodeRow = fn(bytes: &[u8], out: &mut [f32]);
/// [`EncodeBlock`] for any number of blocks.
type EncodeRow = fn(x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]);

/// One element type's block: `DTYPE.block_len()` values in `DTYPE.block_bytes()` bytes.
///
/// All functions get slices of exactly those lengths.
trait Block {
    /// The type.
    const DTYPE: DType;
    /// How its blocks are unpacked.
    const KIND: Kind;
    /// How its blocks are encoded; `None` for types that can only be decoded.
    const ENCODE: Option<EncodeBlock>;
}

/// The form into which blocks are unpacked, without rounding. Decoding and repacking start from it.
#[derive(Clone, Copy)]
enum Kind {
    Floats(DecodeBlock),
    Levels(fn(&[u8]) -> Levels),
    Parts(&'static Form, fn(&[u8]) -> Parts),
    Plain(fn(&[u8]) -> Plain),
}

/// The functions of a type.
struct Codec {
    kind: Kind,
    decode: DecodeRow,
    encode: Option<EncodeRow>,
}

impl Codec {
    const fn of<B: Block>() -> Codec {
        let encode: Option<EncodeRow> = match B::ENCODE {
            Some(_) => Some(encode_blocks::<B>),
            None => None,
        };
        Codec { kind: B::KIND, decode: decode_blocks::<B>, encode }
    }
}

impl DType {
    const fn codec(self) -> Codec {
        match self {
            DType::F32 => Codec::of::<float::Single>(),
            DType::F16 => Codec::of::<float::Half>(),
            DType::BF16 => Codec::of::<float::Brain>(),
            DType::Q4_0 => Codec::of::<q4_0::Q4_0>(),
            DType::Q4_1 => Codec::of::<q4_1::Q4_1>(),
            DType::Q5_0 => Codec::of::<q5_0::Q5_0>(),
            DType::Q5_1 => Codec::of::<q5_1::Q5_1>(),
            DType::Q8_0 => Codec::of::<q8_0::Q8_0>(),
            DType::Q2_K => Codec::of::<k::Q2K>(),
            DType::Q3_K => Codec::of::<k::Q3K>(),
            DType::Q4_K => Codec::of::<k::Q4K>(),
            DType::Q5_K => Codec::of::<k::Q5K>(),
            DType::Q6_K => Codec::of::<k::Q6K>(),
            DType::IQ4_NL => Codec::of::<iq4::Iq4Nl>(),
            DType::IQ4_XS => Codec::of::<iq4::Iq4Xs>(),
            DType::MXFP4 => Codec::of::<fp4::Mxfp4>(),
            DType::NVFP4 => Codec::of::<fp4::Nvfp4>(),
            DType::IQ1_S => Codec::of::<lattice::Iq1S>(),
            DType::IQ1_M => Codec::of::<lattice::Iq1M>(),
            DType::IQ2_XXS => Codec::of::<lattice::Iq2Xxs>(),
            DType::IQ2_XS => Codec::of::<lattice::Iq2Xs>(),
            DType::IQ2_S => Codec::of::<lattice::Iq2S>(),
            DType::IQ3_XXS => Codec::of::<lattice::Iq3Xxs>(),
            DType::IQ3_S => Codec::of::<lattice::Iq3S>(),
            DType::TQ1_0 => Codec::of::<ternary::Tq1>(),
            DType::TQ2_0 => Codec::of::<ternary::Tq2>(),
        }
    }

    /// Levels, scale and minimum of one block of 32; `None` for types of another kind.
    #[inline]
    pub(crate) fn levels(self, block: &[u8]) -> Option<Levels> {
        match self.codec().kind {
            Kind::Levels(levels) => Some(levels(block)),
            _ => None,
        }
    }

    /// The properties that all blocks of a type share, if they are unpacked into [`Parts`]; `None` for other types.
    #[allow(dead_code)]
    pub(crate) const fn form(self) -> Option<&'static Form> {
        match self.codec().kind {
            Kind::Parts(form, _) => Some(form),
            _ => None,
        }
    }

    /// Codes, scales and minimums of one block of a type with a [`Form`]; `None` for other types.
    #[allow(dead_code)]
    pub(crate) fn parts(self, block: &[u8]) -> Option<Parts> {
        match self.codec().kind {
            Kind::Parts(_, parts) => Some(parts(block)),
            _ => None,
        }
    }

    /// Integers and scales of one block; `None` for types of another kind.
    #[allow(dead_code)]
    pub(crate) fn plain(self, block: &[u8]) -> Option<Plain> {
        match self.codec().kind {
            Kind::Plain(plain) => Some(plain(block)),
            _ => None,
        }
    }

    /// Whether [`encode_row`] can encode this type.
    pub const fn is_encodable(self) -> bool {
        self.codec().encode.is_some()
    }
}

/// Decodes a row of `dtype`, or several rows one after the other, into `out`.
///
/// # Errors
/// [`Error::InvalidArgument`] where `out` is no whole number of blocks, or where `bytes` isn't as long as `out.len()`
/// elements.
pub fn decode_row(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check_lengths(dtype, bytes.len(), out.len())?;
    (dtype.codec().decode)(bytes, out);
    Ok(())
}

/// Encodes a row, or several rows one after the other, as `dtype` into `bytes`.
///
/// Q4_0 to Q8_0, MXFP4, TQ1_0 and TQ2_0 give the same bytes as the formats' reference encoders. K-quants and IQ4 search
/// for scales in their own way, so their bytes differ. Values that are not finite give a valid block with unspecified
/// contents.
///
/// # Errors
/// [`Error::InvalidArgument`] where `x` is no whole number of blocks, or where `bytes` isn't as long as `x.len()`
/// elements; [`Error::Unsupported`] for types that can only be decoded ([`DType::is_encodable`]).
pub fn encode_row(dtype: DType, x: &[f32], bytes: &mut [u8]) -> Result<()> {
    encode_weighted(dtype, x, None, bytes)
}

/// [`encode_row`] where it is known how much an error at each value matters, as a rule from the squares of activations
/// that the values are multiplied with. K-quants, IQ4 and the types of 4 and 5 bits search for scales with the least
/// weighted error; other types have the bytes that [`encode_row`] gives.
///
/// `importance` is as long as `x`; its numbers aren't negative. A block whose importances are all zero, or not finite, is
/// encoded without.
///
/// # Errors
/// As [`encode_row`]; [`Error::InvalidArgument`] where there are more or fewer importances than values.
pub fn encode_weighted(dtype: DType, x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Result<()> {
    check_lengths(dtype, bytes.len(), x.len())?;
    if let Some(importance) = importance.filter(|importance| importance.len() != x.len()) {
        let text = format!("{} importances can't weigh {} values", importance.len(), x.len());
        return Err(Error::invalid(text));
    }
    let encode = dtype.codec().encode;
    let encode = encode.ok_or_else(|| Error::Unsupported(format!("encoding as {}", dtype.name())))?;
    encode(x, importance, bytes);
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
        match B::KIND {
            Kind::Floats(decode) => decode(block, values),
            Kind::Levels(levels) => levels(block).decode(values),
            Kind::Parts(form, parts) => parts(block).decode(form, values),
            Kind::Plain(plain) => plain(block).decode(values),
        }
    }
}

fn encode_blocks<B: Block>(x: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) {
    let Some(encode) = B::ENCODE else { return };
    let len = B::DTYPE.block_len();
    let blocks = bytes.chunks_exact_mut(B::DTYPE.block_bytes());
    for (i, (block, values)) in blocks.zip(x.chunks_exact(len)).enumerate() {
        encode(values, importance.map(|importance| &importance[i * len..][..len]), block);
    }
}
