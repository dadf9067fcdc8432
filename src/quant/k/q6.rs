//! Q6_K: 128 bytes of low nibbles, 64 of the two high bits, 16 signed scales, f16 scale.
//! Sub-blocks of 16; w = d·scale·(q − 32).

use super::round_scaled;
use crate::quant::fields::{above, join, pack, unpack};
use crate::quant::float::read_f16;
use crate::quant::parts::{Codes, Factor, Form, Parts};
use crate::quant::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// The type.
pub struct Q6K;

impl Block for Q6K {
    const DTYPE: DType = DType::Q6_K;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 16, bits: 6, minimums: false, levels: Codes::Linear { zero: 32 } },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

impl Q6K {
    fn parts(block: &[u8]) -> Parts {
        Parts {
            codes: join(unpack::<4, 64, 256>(&block[..128]), unpack::<2, 32, 256>(&block[128..192]), 4),
            scales: std::array::from_fn(|s| block[192 + s] as i8),
            minimums: [0; 16],
            d: Factor::Half(read_f16(&block[208..])),
            dmin: f16::ZERO,
        }
    }
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let rounded = round_scaled::<16>(x, importance, 32, 128.0);
    pack::<4, 64>(&rounded.codes, &mut block[..128]);
    pack::<2, 32>(&above(&rounded.codes, 4), &mut block[128..192]);
    for (byte, scale) in block[192..208].iter_mut().zip(rounded.scales) {
        *byte = scale as u8;
    }
    block[208..].copy_from_slice(&rounded.d.to_le_bytes());
}
