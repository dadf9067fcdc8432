//! Q4_K and Q5_K: f16 scale, f16 minimum, 12 bytes of 6-bit scales and minimums, fifth bits (Q5_K), 128 of nibbles.
//! Sub-blocks of 32; w = d·scale·q − dmin·minimum.

use super::{Ranged, round_ranged};
use crate::quant::fields::{above, join, pack, unpack};
use crate::quant::float::read_f16;
use crate::quant::parts::{Codes, Factor, Form, Parts};
use crate::quant::{Block, DType, EncodeBlock, Kind};

const SUBS: usize = 8;

/// Q4_K.
pub struct Q4K;
/// Q5_K.
pub struct Q5K;

impl Block for Q4K {
    const DTYPE: DType = DType::Q4_K;
    const KIND: Kind = Kind::Parts(&form(4), Self::parts);
    const ENCODE: Option<EncodeBlock> = Some(encode_q4);
}

impl Q4K {
    fn parts(block: &[u8]) -> Parts {
        parts(block, unpack::<4, 32, 256>(&block[16..144]))
    }
}

impl Block for Q5K {
    const DTYPE: DType = DType::Q5_K;
    const KIND: Kind = Kind::Parts(&form(5), Self::parts);
    const ENCODE: Option<EncodeBlock> = Some(encode_q5);
}

impl Q5K {
    fn parts(block: &[u8]) -> Parts {
        let fifth = unpack::<1, 32, 256>(&block[16..48]);
        parts(block, join(unpack::<4, 32, 256>(&block[48..176]), fifth, 4))
    }
}

const fn form(bits: usize) -> Form {
    Form { len: 256, sub: 32, bits, minimums: true, levels: Codes::Linear { zero: 0 } }
}

/// The head that both types share, with `codes`.
fn parts(block: &[u8], codes: [u8; 256]) -> Parts {
    let (scales, minimums) = split_scales(&block[4..16]);
    let mut parts = Parts {
        codes,
        scales: [0; 16],
        minimums: [0; 16],
        d: Factor::Half(read_f16(block)),
        dmin: read_f16(&block[2..]),
    };
    parts.scales[..SUBS].copy_from_slice(&scales.map(|scale| scale as i8));
    parts.minimums[..SUBS].copy_from_slice(&minimums);
    parts
}

/// Scales and minimums of 6 bits. Those of the first four sub-blocks are the low bits of bytes 0..4 and 4..8;
/// the last four have their low nibbles in bytes 8..12 and two bits above those of the first four.
fn split_scales(packed: &[u8]) -> ([u8; SUBS], [u8; SUBS]) {
    let (first, second, nibbles) = (&packed[..4], &packed[4..8], &packed[8..12]);
    let put =
        |s: usize, six: &[u8], nibble: u8| if s < 4 { six[s] & 63 } else { nibble | six[s - 4] >> 6 << 4 };
    (
        std::array::from_fn(|s| put(s, first, nibbles[s % 4] & 15)),
        std::array::from_fn(|s| put(s, second, nibbles[s % 4] >> 4)),
    )
}

/// Inverse of [`split_scales`].
fn join_scales(scales: [u8; SUBS], minimums: [u8; SUBS], packed: &mut [u8]) {
    for s in 0..4 {
        packed[s] = scales[s] | scales[s + 4] >> 4 << 6;
        packed[s + 4] = minimums[s] | minimums[s + 4] >> 4 << 6;
        packed[s + 8] = scales[s + 4] & 15 | minimums[s + 4] << 4;
    }
}

/// Writes the head that both types share.
fn put_head(rounded: &Ranged<SUBS>, block: &mut [u8]) {
    block[..2].copy_from_slice(&rounded.d.to_le_bytes());
    block[2..4].copy_from_slice(&rounded.dmin.to_le_bytes());
    join_scales(rounded.scales, rounded.minimums, &mut block[4..16]);
}

fn encode_q4(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let rounded = round_ranged(x, importance, 15.0, 63.0);
    put_head(&rounded, block);
    pack::<4, 32>(&rounded.codes, &mut block[16..144]);
}

fn encode_q5(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let rounded = round_ranged(x, importance, 31.0, 63.0);
    put_head(&rounded, block);
    pack::<1, 32>(&above(&rounded.codes, 4), &mut block[16..48]);
    pack::<4, 32>(&rounded.codes, &mut block[48..176]);
}
