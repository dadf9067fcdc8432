//! Q3_K: 32 bytes of third bits, 64 of the two low bits, 12 of 6-bit scales, f16 scale.
//! Sub-blocks of 16; w = d·(scale − 32)·(q − 4).

use crate::quant::fields::{join, unpack};
use crate::quant::float::read_f16;
use crate::quant::parts::{Codes, Factor, Form, Parts};
use crate::quant::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// Stored for a scale of zero.
const ZERO_SCALE: u8 = 32;

/// The type.
pub struct Q3K;

impl Block for Q3K {
    const DTYPE: DType = DType::Q3_K;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 16, bits: 3, minimums: false, levels: Codes::Linear { zero: 4 } },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = None;
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
