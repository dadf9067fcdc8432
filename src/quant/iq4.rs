//! IQ4_NL and IQ4_XS: 4-bit codes into a table of 16 uneven levels, dense around zero.
//! IQ4_NL has blocks of 32 and one f16 scale, IQ4_XS blocks of 256 and 6-bit scales of 32; w = d·(scale − 32)·table[q].

use super::fields::{join, unpack};
use super::float::read_f16;
use super::parts::{Codes, Factor, Form, Parts, SUPER};
use super::{Block, DType, EncodeBlock, Kind};
use half::f16;

/// Levels of the codes.
pub static LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Stored for a scale of zero.
const ZERO_SCALE: u8 = 32;

/// IQ4_NL.
pub struct Iq4Nl;
/// IQ4_XS.
pub struct Iq4Xs;

impl Block for Iq4Nl {
    const DTYPE: DType = DType::IQ4_NL;
    const KIND: Kind = Kind::Parts(
        &Form { len: 32, sub: 32, bits: 4, minimums: false, levels: Codes::Table(&LEVELS) },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq4Nl {
    fn parts(block: &[u8]) -> Parts {
        parts_of_32(&block[2..18], Factor::Half(read_f16(block)))
    }
}

impl Block for Iq4Xs {
    const DTYPE: DType = DType::IQ4_XS;
    const KIND: Kind = Kind::Parts(
        &Form { len: 256, sub: 32, bits: 4, minimums: false, levels: Codes::Table(&LEVELS) },
        Self::parts,
    );
    const ENCODE: Option<EncodeBlock> = None;
}

impl Iq4Xs {
    fn parts(block: &[u8]) -> Parts {
        let stored = join(unpack::<4, 1, 8>(&block[4..8]), unpack::<2, 1, 8>(&block[2..4]), 4);
        let mut scales = [0; 16];
        for (scale, stored) in scales.iter_mut().zip(stored) {
            *scale = stored as i8 - ZERO_SCALE as i8;
        }
        Parts {
            codes: unpack::<4, 16, 256>(&block[8..136]),
            scales,
            minimums: [0; 16],
            d: Factor::Half(read_f16(block)),
            dmin: f16::ZERO,
        }
    }
}

/// A block of 32 nibbles with one scale.
pub fn parts_of_32(nibbles: &[u8], d: Factor) -> Parts {
    let mut codes = [0; SUPER];
    codes[..32].copy_from_slice(&unpack::<4, 16, 32>(nibbles));
    let mut scales = [0; 16];
    scales[0] = 1;
    Parts { codes, scales, minimums: [0; 16], d, dmin: f16::ZERO }
}
