//! Q3_K: 32 bytes of third bits, 64 of the two low bits, 12 of 6-bit scales, f16 scale.
//! Sub-blocks of 16; w = d·(scale − 32)·(q − 4).

use super::round_scaled;
use crate::quant::fields::{above, join, pack, unpack};
use crate::quant::float::read_f16;
use crate::quant::parts::{Codes, Factor, Form, Parts};
use crate::quant::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// The stored value of a zero scale.
const ZERO_SCALE: u8 = 32;

/// The type.
pub struct Q3K;

impl Block for Q3K {
    const DTYPE: DType = DType::Q3_K;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 16, bits: 3, minimums: false, levels: Codes::Linear { zero: 4 } },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = Some(encode);
}

impl Q3K {
    fn parts(block: &[u8]) -> Parts {
        let scales = join(unpack::<4, 8, 16>(&block[96..104]), unpack::<2, 4, 16>(&block[104..108]), 4);
        Parts {
            codes: join(unpack::<2, 32, 256>(&block[32..96]), unpack::<1, 32, 256>(&block[..32]), 2),
            scales: scales.map(|scale| scale as i8 - ZERO_SCALE as i8),
            minimums: [0; 16],
            d: Factor::Half(read_f16(&block[108..])),
            dmin: f16::ZERO,
        }
    }
}

fn encode(x: &[f32], importance: Option<&[f32]>, block: &mut [u8]) {
    let rounded = round_scaled::<16>(x, importance, 4, f32::from(ZERO_SCALE));
    pack::<1, 32>(&above(&rounded.codes, 2), &mut block[..32]);
    pack::<2, 32>(&rounded.codes, &mut block[32..96]);
    let scales = rounded.scales.map(|scale| (scale + ZERO_SCALE as i8) as u8);
    pack::<4, 8>(&scales, &mut block[96..104]);
    pack::<2, 4>(&above(&scales, 4), &mut block[104..108]);
    block[108..].copy_from_slice(&rounded.d.to_le_bytes());
}
