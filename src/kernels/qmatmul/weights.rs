//! How a tile reads its weights: straight from a packed panel, or from a stretch of one widened beforehand.
//! Both give vectors of bytes, a group of K-steps at a time, and vectors of scales and minimums.

use super::layout::{GROUPS, STEP};
use crate::isa::{DotI8, Isa, IsaId, Kernel};
use crate::quant::BLOCK;
use std::marker::PhantomData;

/// Vectors of a panel.
pub const VECTORS: usize = 2;

/// What distinguishes the block types.
pub trait Format: 'static {
    /// Bits of a level.
    const BITS: usize;
    /// The unsigned level that stands for zero.
    const ZERO: i32;
    /// Whether blocks have a minimum.
    const MINIMUM: bool;
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
    const BITS: usize = 8;
    const ZERO: i32 = 128;
    const MINIMUM: bool = false;
}
impl Format for Q4_0 {
    const BITS: usize = 4;
    const ZERO: i32 = 8;
    const MINIMUM: bool = false;
}
impl Format for Q4_1 {
    const BITS: usize = 4;
    const ZERO: i32 = 0;
    const MINIMUM: bool = true;
}
impl Format for Q5_0 {
    const BITS: usize = 5;
    const ZERO: i32 = 16;
    const MINIMUM: bool = false;
}
impl Format for Q5_1 {
    const BITS: usize = 5;
    const ZERO: i32 = 0;
    const MINIMUM: bool = true;
}

/// Where a tile's weights come from: packed panels, or a widened stretch of one.
pub trait Source<I: DotI8>: 'static {
    /// Bytes of a block.
    const BLOCK_BYTES: usize;
    /// The stored byte that stands for zero.
    const ZERO: i32;
    /// Whether bytes stay below 128, whatever [`DotI8::SIGNED`] is.
    const SMALL: bool;
    /// Whether blocks have a minimum.
    const MINIMUM: bool;
    /// Whether this is [`Wide`].
    const WIDE: bool;
    /// Whether groups differ by more than their nibble.
    const UNROLL: bool;
    /// Bytes of group `group`, vector `v`.
    /// # Safety
    /// `block` is a whole block.
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32;
    /// Scales of vector `v`.
    /// # Safety
    /// As [`Source::bytes`].
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> I::F32;
    /// Minimums of vector `v`.
    /// # Safety
    /// As [`Source::bytes`], of a format that has them.
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32;
}

/// A panel as packed.
pub struct Packed<F>(PhantomData<F>);

impl<F: Format> Packed<F> {
    const fn scales_at<I: Isa>() -> usize {
        VECTORS * I::LANES * F::BITS * BLOCK / 8
    }

    /// Whether it pays to take the levels apart once for more rows than a tile has: it does where a dot
    /// product is one instruction.
    pub const fn widens<I: DotI8>() -> bool {
        F::BITS < 8 && !I::SIGNED
    }
}

impl<I: DotI8, F: Format> Source<I> for Packed<F> {
    const BLOCK_BYTES: usize = Self::scales_at::<I>() + VECTORS * I::LANES * if F::MINIMUM { 4 } else { 2 };
    const ZERO: i32 = if F::BITS == 8 && I::SIGNED { 0 } else { F::ZERO };
    const SMALL: bool = F::BITS < 8;
    const MINIMUM: bool = F::MINIMUM;
    const WIDE: bool = false;
    const UNROLL: bool = F::BITS == 5 && !matches!(I::ID, IsaId::Scalar);

    #[inline(always)]
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32 {
        let vector = I::LANES * STEP;
        // SAFETY: the block has GROUPS (or half as many) rows of VECTORS vectors, and a plane of VECTORS after.
        unsafe {
            if F::BITS == 8 {
                return isa.load_i32(block.wrapping_add((group * VECTORS + v) * vector).cast());
            }
            let both = isa.load_i32(block.wrapping_add((group / 2 * VECTORS + v) * vector).cast());
            let half = if group.is_multiple_of(2) { both } else { isa.shr::<4>(both) };
            let nibbles = isa.and(half, isa.splat_i32(0x0f0f_0f0f));
            if F::BITS == 4 {
                return nibbles;
            }
            let plane = isa.load_i32(block.wrapping_add((GROUPS / 2 * VECTORS + v) * vector).cast());
            let fifth = isa.and(bit_to_fifth(isa, plane, group), isa.splat_i32(0x1010_1010));
            isa.or(nibbles, fifth)
        }
    }

    #[inline(always)]
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: the scales follow the levels.
        unsafe {
            isa.load_f16(block.wrapping_add(Self::scales_at::<I>()).cast::<u16>().wrapping_add(v * I::LANES))
        }
    }

    #[inline(always)]
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: the minimums follow the scales.
        unsafe {
            isa.load_f16(
                block
                    .wrapping_add(Self::scales_at::<I>())
                    .cast::<u16>()
                    .wrapping_add((VECTORS + v) * I::LANES),
            )
        }
    }
}

/// Moves bit `group` of each byte to its fifth place; other bits are rubbish.
#[inline(always)]
fn bit_to_fifth<I: Isa>(isa: I, plane: I::I32, group: usize) -> I::I32 {
    match group {
        0 => isa.shl::<4>(plane),
        1 => isa.shl::<3>(plane),
        2 => isa.shl::<2>(plane),
        3 => isa.shl::<1>(plane),
        4 => plane,
        5 => isa.shr::<1>(plane),
        6 => isa.shr::<2>(plane),
        _ => isa.shr::<3>(plane),
    }
}

/// A stretch of a panel with a byte for each level and scales in f32: [`GROUPS`] rows of vectors of levels,
/// the scales, and the minimums if any. Only for levels that [`DotI8`] takes unsigned.
///
/// Without minimums, levels are moved so that zero is at 128: for 128, activations have the start of sums ready.
pub struct Wide<const MINIMUM: bool>;

impl<const MINIMUM: bool> Wide<MINIMUM> {
    /// Float vector `i` after the levels.
    const fn floats<I: Isa>(i: usize) -> usize {
        (GROUPS * VECTORS + i) * I::LANES * STEP
    }
}

impl<I: DotI8, const MINIMUM: bool> Source<I> for Wide<MINIMUM> {
    const BLOCK_BYTES: usize = Self::floats::<I>(if MINIMUM { 2 * VECTORS } else { VECTORS });
    const ZERO: i32 = if MINIMUM { 0 } else { 128 };
    const SMALL: bool = false;
    const MINIMUM: bool = MINIMUM;
    const WIDE: bool = true;
    const UNROLL: bool = false;

    #[inline(always)]
    unsafe fn bytes(isa: I, block: *const u8, group: usize, v: usize) -> I::I32 {
        // SAFETY: the block has GROUPS rows of VECTORS vectors.
        unsafe { isa.load_i32(block.wrapping_add((group * VECTORS + v) * I::LANES * STEP).cast()) }
    }

    #[inline(always)]
    unsafe fn scales(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: the scales follow the levels.
        unsafe { isa.load(block.wrapping_add(Self::floats::<I>(v)).cast()) }
    }

    #[inline(always)]
    unsafe fn minimums(isa: I, block: *const u8, v: usize) -> I::F32 {
        // SAFETY: they follow the scales.
        unsafe { isa.load(block.wrapping_add(Self::floats::<I>(VECTORS + v)).cast()) }
    }
}

/// Writes `blocks` blocks of a packed panel at `w` to `out` as [`Wide`] ones.
pub struct Widen<I, F> {
    pub isa: I,
    pub w: *const u8,
    pub blocks: usize,
    pub out: *mut u8,
    pub format: PhantomData<F>,
}

impl<I: DotI8, F: Format> Kernel for Widen<I, F> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let bytes = if F::MINIMUM {
            <Wide<true> as Source<I>>::BLOCK_BYTES
        } else {
            <Wide<false> as Source<I>>::BLOCK_BYTES
        };
        for b in 0..self.blocks {
            let w = self.w.wrapping_add(b * <Packed<F> as Source<I>>::BLOCK_BYTES);
            // SAFETY: whoever made this said that both sides have that many blocks.
            unsafe { widen_block::<I, F>(self.isa, w, self.out.wrapping_add(b * bytes)) };
        }
    }
}

/// # Safety
/// `w` is a packed block, `out` has room for a wide one.
#[inline(always)]
unsafe fn widen_block<I: DotI8, F: Format>(isa: I, w: *const u8, out: *mut u8) {
    let up = if F::MINIMUM { 0 } else { (128 - F::ZERO) * 0x0101_0101 };
    for v in 0..VECTORS {
        // SAFETY: `w` is a block, and stores go where `Wide` reads.
        each_group(
            <Packed<F> as Source<I>>::UNROLL,
            #[inline(always)]
            |group| unsafe {
                // Bytes stay below 256, so nothing is carried from one to the next.
                let bytes = isa.add_i32(Packed::<F>::bytes(isa, w, group, v), isa.splat_i32(up));
                isa.store_i32(out.wrapping_add((group * VECTORS + v) * I::LANES * STEP).cast(), bytes);
            },
        );
        let put = |i: usize, x: I::F32| {
            let to = out.wrapping_add(Wide::<true>::floats::<I>(i)).cast();
            // SAFETY: floats follow the levels.
            unsafe { isa.store(to, x) };
        };
        // SAFETY: `w` is a block, whose format has minimums if it says so.
        unsafe {
            put(v, Packed::<F>::scales(isa, w, v));
            if F::MINIMUM {
                put(VECTORS + v, Packed::<F>::minimums(isa, w, v));
            }
        }
    }
}

/// All groups of a block in order, two at a time, so that which nibble a group is in is decided at compile time.
/// With `unroll`, all of the group's number is.
#[inline(always)]
pub fn each_group(unroll: bool, mut f: impl FnMut(usize)) {
    if unroll {
        f(0);
        f(1);
        f(2);
        f(3);
        f(4);
        f(5);
        f(6);
        f(7);
        return;
    }
    for pair in 0..GROUPS / 2 {
        f(2 * pair);
        f(2 * pair + 1);
    }
}
