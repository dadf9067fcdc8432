//! Q2_K: 16 bytes of scale (low nibble) and minimum (high), 64 of 2-bit levels, f16 scale, f16 minimum.
//! Sub-blocks of 16; w = d·scale·q − dmin·minimum.

use super::round_ranged;
use crate::quant::fields::{pack, unpack};
use crate::quant::float::read_f16;
use crate::quant::parts::{Codes, Factor, Form, Parts};
use crate::quant::{Block, DType, EncodeBlock, Kind};

/// The type.
pub struct Q2K;

impl Block for Q2K {
    const DTYPE: DType = DType::Q2_K;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 16, bits: 2, minimums: true, levels: Codes::Linear { zero: 0 } },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

impl Q2K {
    fn parts(block: &[u8]) -> Parts {
        Parts {
            codes: unpack::<2, 32, 256>(&block[16..80]),
            scales: std::array::from_fn(|s| (block[s] & 15) as i8),
            minimums: std::array::from_fn(|s| block[s] >> 4),
            d: Factor::Half(read_f16(&block[80..])),
            dmin: read_f16(&block[82..]),
        }
    }
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let rounded = round_ranged::<16>(x, importance, 3.0, 15.0);
    for (byte, (scale, minimum)) in block.iter_mut().zip(rounded.scales.iter().zip(rounded.minimums)) {
        *byte = scale | minimum << 4;
    }
    pack::<2, 32>(&rounded.codes, &mut block[16..80]);
    block[80..82].copy_from_slice(&rounded.d.to_le_bytes());
    block[82..84].copy_from_slice(&rounded.dmin.to_le_bytes());
}
