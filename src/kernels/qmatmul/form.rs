//! What distinguishes the types of weights: bits of a level, what stands for zero, how scales are kept.
//! From it follow the offsets within a packed unit, for whoever packs and for whoever widens.

use crate::quant::{BLOCK, DType};

/// K-steps whose products one `dot` adds up: the bytes of a 32-bit lane.
pub const STEP: usize = 4;
/// Groups of [`STEP`] in a block.
pub const GROUPS: usize = BLOCK / STEP;

/// How scales are kept in a packed unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// An f16 a column, and another one for the minimum if there is one.
    Half,
}

/// What is the same for all blocks of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bits of a level: 8, or the sum of a nibble, a pair and a single bit.
    pub bits: usize,
    /// Signed levels that 4 bits stand for, if these aren't levels themselves.
    pub table: Option<&'static [i8; 16]>,
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

const fn simple(bits: usize, zero: i32, minimum: bool) -> Form {
    Form { bits, table: None, zero, minimum, halves: false, scales: Scales::Half, blocks: 1 }
}

/// A type of weights at compile time.
pub trait Format: 'static {
    /// The type.
    const DTYPE: DType;
    /// What it is like.
    const FORM: Form;
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

impl Format for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
    const FORM: Form = simple(8, 128, false);
}
impl Format for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
    const FORM: Form = simple(4, 8, false);
}
impl Format for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
    const FORM: Form = simple(4, 0, true);
}
impl Format for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const FORM: Form = simple(5, 16, false);
}
impl Format for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
    const FORM: Form = simple(5, 0, true);
}

impl Form {
    /// The form of a type that has a kernel.
    pub const fn of(dtype: DType) -> Option<Form> {
        Some(match dtype {
            DType::Q8_0 => Q8_0::FORM,
            DType::Q4_0 => Q4_0::FORM,
            DType::Q4_1 => Q4_1::FORM,
            DType::Q5_0 => Q5_0::FORM,
            DType::Q5_1 => Q5_1::FORM,
            _ => return None,
        })
    }

    /// Parts that a level's bits are kept in, lowest first: bits of each, or 0 for none.
    pub const fn parts(self) -> [usize; 2] {
        match self.bits {
            3 => [2, 1],
            5 => [4, 1],
            6 => [4, 2],
            whole => [whole, 0],
        }
    }

    /// Bytes of the levels of a block, of `nr` columns.
    pub const fn level_bytes(self, nr: usize) -> usize {
        nr * BLOCK * self.bits / 8
    }

    /// Byte of a unit where the levels of its block `block` are.
    pub const fn levels_at(self, nr: usize, block: usize) -> usize {
        block * self.level_bytes(nr)
    }

    /// Sub-blocks of a unit: those that share a scale.
    pub const fn subs(self) -> usize {
        if self.halves { 2 * self.blocks } else { self.blocks }
    }

    /// Byte of a unit where its f16 scales are, or the ones that its sub-blocks' are multiples of.
    pub const fn scales_at(self, nr: usize) -> usize {
        self.levels_at(nr, self.blocks)
    }

    /// Byte of a unit where its minimums are, in the same way.
    pub const fn minimums_at(self, nr: usize) -> usize {
        self.scales_at(nr) + 2 * nr
    }

    /// Bytes of a unit.
    pub const fn unit_bytes(self, nr: usize) -> usize {
        if self.minimum { self.minimums_at(nr) + 2 * nr } else { self.scales_at(nr) + 2 * nr }
    }
}
