//! How the types of weights differ: bits of a level, the level of zero, how scales are kept.
//! The offsets within a packed unit follow from that, for packing and for widening.

use crate::quant::{self, BLOCK, Codes, DType};

/// K-steps whose products one `dot` adds up: the bytes of a 32-bit lane.
pub const STEP: usize = 4;
/// Groups of [`STEP`] in a block.
pub const GROUPS: usize = BLOCK / STEP;

/// How scales are kept in a packed unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// An f16 a column, and another one for the minimum if there is one.
    Half,
    /// A signed byte for each sub-block of a column, an unsigned one for each minimum if there are, and the f16s of
    /// which they are multiples.
    Bytes,
    /// As `Bytes`, both in one byte: the scale in the low four bits, the minimum in the high ones.
    Nibbles,
    /// An exponent a column: 2^(e − 128).
    Exponent,
    /// An f32 for each sub-block of a column.
    Single,
}

/// The properties that all blocks of a type share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bits of a level: 8, or the sum of a nibble, a pair and a single bit.
    pub bits: usize,
    /// Whether 4 bits stand for signed levels that a table holds.
    pub table: bool,
    /// The level that stands for zero: a power of two, or 0 where there are minimums.
    pub zero: i32,
    /// Whether there are minimums.
    pub minimum: bool,
    /// Whether each 16 K-steps have a scale, else each 32.
    pub halves: bool,
    /// How scales are kept.
    pub scales: Scales,
    /// Blocks of 32 K-steps in a unit.
    pub blocks: usize,
}

/// A type whose blocks of 32 have an f16 scale each, and with `minimum` an f16 minimum.
const fn of_32(bits: usize, zero: i32, minimum: bool) -> Form {
    Form { bits, table: false, zero, minimum, halves: false, scales: Scales::Half, blocks: 1 }
}

/// A type whose blocks of 256 have integer scales for each 16 or 32.
const fn of_256(bits: usize, zero: i32, minimum: bool, halves: bool) -> Form {
    Form { bits, table: false, zero, minimum, halves, scales: Scales::Bytes, blocks: 8 }
}

/// Types of weights at compile time: the number that [`DType`] gives it.
pub trait Format: 'static {
    /// The type, or one of those that are packed alike.
    const DTYPE: DType;
    /// Its properties.
    const FORM: Form = match Form::of(Self::DTYPE) {
        Some(form) => form,
        None => panic!("a type without a kernel"),
    };
}

/// 8 bits, scale.
pub struct Q8_0;
/// 4 bits, scale.
pub struct Q4_0;
/// 4 bits, scale and minimum.
pub struct Q4_1;
/// 5 bits, scale.
pub struct Q5_0;
/// 5 bits, scale and minimum.
pub struct Q5_1;
/// 2 bits, scales and minimums of 16.
pub struct Q2K;
/// 3 bits, scales of 16.
pub struct Q3K;
/// 4 bits, scales and minimums of 32.
pub struct Q4K;
/// 5 bits, scales and minimums of 32.
pub struct Q5K;
/// 6 bits, scales of 16.
pub struct Q6K;
/// 4 bits into a table, scale.
pub struct Iq4Nl;
/// 4 bits into a table, scales of 32.
pub struct Iq4Xs;
/// 4 bits into a table, exponent.
pub struct Mxfp4;
/// All types that are packed as signed bytes with a scale for each 16.
pub struct Plain;

impl Format for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
}
impl Format for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
}
impl Format for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
}
impl Format for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
}
impl Format for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
}
impl Format for Q2K {
    const DTYPE: DType = DType::Q2_K;
}
impl Format for Q3K {
    const DTYPE: DType = DType::Q3_K;
}
impl Format for Q4K {
    const DTYPE: DType = DType::Q4_K;
}
impl Format for Q5K {
    const DTYPE: DType = DType::Q5_K;
}
impl Format for Q6K {
    const DTYPE: DType = DType::Q6_K;
}
impl Format for Iq4Nl {
    const DTYPE: DType = DType::IQ4_NL;
}
impl Format for Iq4Xs {
    const DTYPE: DType = DType::IQ4_XS;
}
impl Format for Mxfp4 {
    const DTYPE: DType = DType::MXFP4;
}
impl Format for Plain {
    const DTYPE: DType = DType::TQ2_0;
}

impl Form {
    /// The form of a type that has a kernel.
    pub const fn of(dtype: DType) -> Option<Form> {
        Some(match dtype {
            DType::Q8_0 => of_32(8, 128, false),
            DType::Q4_0 => of_32(4, 8, false),
            DType::Q4_1 => of_32(4, 0, true),
            DType::Q5_0 => of_32(5, 16, false),
            DType::Q5_1 => of_32(5, 0, true),
            DType::Q2_K => Form { scales: Scales::Nibbles, ..of_256(2, 0, true, true) },
            DType::Q3_K => of_256(3, 4, false, true),
            DType::Q4_K => of_256(4, 0, true, false),
            DType::Q5_K => of_256(5, 0, true, false),
            DType::Q6_K => of_256(6, 32, false, true),
            DType::IQ4_NL => Form { table: true, ..of_32(4, 128, false) },
            DType::IQ4_XS => Form { table: true, ..of_256(4, 128, false, false) },
            DType::MXFP4 => Form { table: true, scales: Scales::Exponent, ..of_32(4, 128, false) },
            DType::F32 | DType::F16 | DType::BF16 => return None,
            _ => Form { scales: Scales::Single, halves: true, ..of_32(8, 128, false) },
        })
    }

    /// How far down to shift the starts of sums, which activations have for a level of zero of 128, for the level that
    /// the type has.
    #[inline(always)]
    pub const fn own_shift(self) -> u32 {
        if self.minimum { 0 } else { 7 - self.zero.trailing_zeros() }
    }

    /// Parts that a level's bits are kept in, lowest first: bits of each, or 0 for none.
    #[inline(always)]
    pub const fn parts(self) -> [usize; 2] {
        match self.bits {
            3 => [2, 1],
            5 => [4, 1],
            6 => [4, 2],
            whole => [whole, 0],
        }
    }

    /// How many products of pairs of unsigned levels and signed bytes add up within 16 bits; 0 for levels that are
    /// signed.
    pub const fn pairs(self) -> usize {
        if self.table || self.bits > 6 {
            return 0;
        }
        let most = i16::MAX as usize / (((1 << self.bits) - 1) * 127 * 2);
        if most < GROUPS { most } else { GROUPS }
    }

    /// Byte of a unit of `nr` columns where the levels of its block `block` are.
    #[inline(always)]
    pub const fn levels_at(self, nr: usize, block: usize) -> usize {
        block * nr * BLOCK * self.bits / 8
    }

    /// Sub-blocks of a block of 32: those that share a scale.
    #[inline(always)]
    pub const fn subs(self) -> usize {
        if self.halves { 2 } else { 1 }
    }

    /// Byte of a unit where the scales of its sub-block `sub` are, if they are kept by sub-block.
    #[inline(always)]
    pub const fn sub_scale_at(self, nr: usize, sub: usize) -> usize {
        self.levels_at(nr, self.blocks) + sub * nr * if matches!(self.scales, Scales::Single) { 4 } else { 1 }
    }

    /// Byte of a unit where the minimums of its sub-block `sub` are, with [`Scales::Bytes`].
    #[inline(always)]
    pub const fn sub_minimum_at(self, nr: usize, sub: usize) -> usize {
        self.sub_scale_at(nr, self.subs() * self.blocks + sub)
    }

    /// Byte of a unit where the scales are that whole columns share: f16s, or exponents.
    #[inline(always)]
    pub const fn scale_at(self, nr: usize) -> usize {
        let subs = self.subs() * self.blocks;
        match self.scales {
            Scales::Half | Scales::Exponent => self.levels_at(nr, self.blocks),
            Scales::Bytes if self.minimum => self.sub_minimum_at(nr, subs),
            Scales::Bytes | Scales::Nibbles | Scales::Single => self.sub_scale_at(nr, subs),
        }
    }

    /// Byte of a unit where the minimums are that whole columns share.
    #[inline(always)]
    pub const fn minimum_at(self, nr: usize) -> usize {
        self.scale_at(nr) + 2 * nr
    }

    /// Bytes of a packed panel of `nr` columns for sums of length `k`.
    #[inline(always)]
    pub const fn panel_bytes(self, nr: usize, k: usize) -> usize {
        k / BLOCK / self.blocks * self.unit_bytes(nr)
    }

    /// Bytes of a unit.
    #[inline(always)]
    pub const fn unit_bytes(self, nr: usize) -> usize {
        match self.scales {
            Scales::Single => self.scale_at(nr),
            Scales::Exponent => self.scale_at(nr) + nr,
            _ if self.minimum => self.minimum_at(nr) + 2 * nr,
            _ => self.scale_at(nr) + 2 * nr,
        }
    }
}

/// The levels that codes of a type with a table stand for.
pub const fn table_of(dtype: DType) -> &'static [i8; 16] {
    match dtype.form() {
        Some(quant::Form { levels: Codes::Table(table), .. }) => table,
        _ => &[0; 16],
    }
}
