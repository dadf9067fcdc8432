//! Stretches of a panel with a byte for each level and scales in f32, as tiles read them; and how packed ones become
//! that. The only code that knows how a type's levels are packed, so that tiles are the same for all types.

use super::activations::MAGIC;
use super::form::{Format, GROUPS, STEP, Scales};
use crate::isa::{DotI8, Isa, Kernel};
use std::marker::PhantomData;

/// Vectors of a panel.
pub const VECTORS: usize = 2;

/// [`MAGIC`] as a number, 1.5·2²³. Times a scale of up to 22 bits it is exact in f32.
pub const BIAS: f32 = 12_582_912.0;
const _: () = assert!(BIAS.to_bits() as i32 == MAGIC);

/// Where things stand in a widened block of 32 K-steps, in vectors: [`GROUPS`] rows of [`VECTORS`] vectors of
/// levels, then vectors of f32 of the columns: scales, [`BIAS`] times the first scale negated, minimums. With
/// `halves` there are scales and minimums of each half of 16 K-steps, one after the other.
///
/// Levels are signed where [`DotI8::SIGNED`], else unsigned with zero at 128, or at 0 where there are minimums.
/// (For few rows they may be left with another zero, see [`Widen`].)
#[derive(Clone, Copy, Debug)]
pub struct Wide {
    /// Whether each half has a scale of its own.
    pub halves: bool,
    /// Whether there are minimums.
    pub minimum: bool,
}

impl Wide {
    /// Vectors of all the levels.
    pub const LEVELS: usize = GROUPS * VECTORS;

    const fn subs(self) -> usize {
        if self.halves { 2 } else { 1 }
    }

    /// Levels of group `group`, vector `v`.
    pub const fn level(self, group: usize, v: usize) -> usize {
        group * VECTORS + v
    }

    /// Scales of sub-block `sub`, vector `v`.
    pub const fn scale(self, sub: usize, v: usize) -> usize {
        Self::LEVELS + sub * VECTORS + v
    }

    /// Minus [`BIAS`] times the scales of the first sub-block, vector `v`.
    pub const fn bias(self, v: usize) -> usize {
        self.scale(self.subs(), v)
    }

    /// Minimums of sub-block `sub`, vector `v`, to be added.
    pub const fn minimum(self, sub: usize, v: usize) -> usize {
        self.bias(0) + (1 + sub) * VECTORS + v
    }

    /// Vectors of a block.
    pub const fn vectors(self) -> usize {
        if self.minimum { self.minimum(self.subs(), 0) } else { self.bias(VECTORS) }
    }
}

/// Vectors of the largest widened block.
pub const MAX_VECTORS: usize = Wide { halves: true, minimum: true }.vectors();

/// Writes a stretch of a packed panel to `out` as widened blocks.
pub struct Widen<I, F, const LIFT: bool> {
    pub isa: I,
    /// The panel.
    pub w: *const u8,
    /// First block of 32 K-steps.
    pub begin: usize,
    /// Blocks.
    pub blocks: usize,
    pub out: *mut u8,
    /// With LIFT, levels get the zero that [`Wide`] tells of; without, unsigned ones keep their own.
    pub format: PhantomData<F>,
}

impl<I: DotI8, F: Format, const LIFT: bool> Kernel for Widen<I, F, LIFT> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let wide = const { Wide { halves: F::FORM.halves, minimum: F::FORM.minimum } };
        let nr = VECTORS * I::LANES;
        for i in 0..self.blocks {
            let (unit, block) = ((self.begin + i) / F::FORM.blocks, (self.begin + i) % F::FORM.blocks);
            let w = self.w.wrapping_add(unit * F::FORM.unit_bytes(nr));
            let out = self.out.wrapping_add(i * wide.vectors() * I::LANES * STEP);
            // SAFETY: whoever made this said that both sides have that many blocks.
            unsafe {
                widen_levels::<I, F, LIFT>(self.isa, w.wrapping_add(F::FORM.levels_at(nr, block)), out);
                widen_scales::<I, F>(self.isa, w, block, out);
            }
        }
    }
}

/// # Safety
/// `w` is a block's levels, `out` has room for a wide block.
#[inline(always)]
unsafe fn widen_levels<I: DotI8, F: Format, const LIFT: bool>(isa: I, w: *const u8, out: *mut u8) {
    let vector = I::LANES * STEP;
    for v in 0..VECTORS {
        each_group(
            #[inline(always)]
            // SAFETY: the parts of a level are as long as their bits say; stores go where `Wide` reads.
            |group| unsafe {
                let level = level::<I, F>(isa, w.wrapping_add(v * vector), group);
                let level = to_zero::<I, F, LIFT>(isa, level);
                isa.store_i32(out.wrapping_add((group * VECTORS + v) * vector).cast(), level);
            },
        );
    }
}

/// Levels of a group of one vector as they are stored.
///
/// # Safety
/// `w` is the vector's first byte of a block's levels.
#[inline(always)]
unsafe fn level<I: DotI8, F: Format>(isa: I, w: *const u8, group: usize) -> I::I32 {
    let row = VECTORS * I::LANES * STEP;
    let [low, high] = const { F::FORM.parts() };
    // SAFETY: a part has 8 rows for eight bits, and as many fewer as it has fewer bits.
    let part = |bits: usize, before: usize| unsafe {
        isa.load_i32(w.wrapping_add((before + group * bits / 8) * row).cast())
    };
    if low == 8 {
        return part(8, 0);
    }
    let mask = |bits: usize, up: usize| isa.splat_i32((((1 << bits) - 1) << up) * 0x0101_0101);
    let level = isa.and(shift(isa, part(low, 0), (group * low % 8) as i32), mask(low, 0));
    if high == 0 {
        return level;
    }
    let above = shift(isa, part(high, low), (group * high % 8) as i32 - low as i32);
    isa.or(level, isa.and(above, mask(high, low)))
}

/// Bits moved down by `n`, or up where that is negative; what crosses from byte to byte is for masks to take off.
#[inline(always)]
fn shift<I: Isa>(isa: I, x: I::I32, n: i32) -> I::I32 {
    match n {
        -4 => isa.shl::<4>(x),
        -3 => isa.shl::<3>(x),
        -2 => isa.shl::<2>(x),
        -1 => isa.shl::<1>(x),
        1 => isa.shr::<1>(x),
        2 => isa.shr::<2>(x),
        3 => isa.shr::<3>(x),
        4 => isa.shr::<4>(x),
        5 => isa.shr::<5>(x),
        6 => isa.shr::<6>(x),
        7 => isa.shr::<7>(x),
        _ => x,
    }
}

/// Levels with the zero that [`Wide`] tells of.
#[inline(always)]
fn to_zero<I: DotI8, F: Format, const LIFT: bool>(isa: I, level: I::I32) -> I::I32 {
    let top = isa.splat_i32(i32::from_ne_bytes([0x80; 4]));
    if let Some(table) = F::FORM.table {
        let signed = isa.lookup_bytes(table, level);
        return if I::SIGNED { signed } else { isa.xor(signed, top) };
    }
    if F::FORM.minimum || F::FORM.bits == 8 || !(LIFT || I::SIGNED) {
        return level;
    }
    // Bytes stay below 256, so nothing is carried from one to the next.
    let lifted = isa.add_i32(level, isa.splat_i32((128 - F::FORM.zero) * 0x0101_0101));
    if I::SIGNED { isa.xor(lifted, top) } else { lifted }
}

/// # Safety
/// `w` is a unit that has a block `block`, `out` a wide block.
#[inline(always)]
unsafe fn widen_scales<I: DotI8, F: Format>(isa: I, w: *const u8, block: usize, out: *mut u8) {
    let wide = const { Wide { halves: F::FORM.halves, minimum: F::FORM.minimum } };
    let nr = VECTORS * I::LANES;
    let put = |vector: usize, x: I::F32| {
        // SAFETY: a vector of a wide block.
        unsafe { isa.store(out.wrapping_add(vector * I::LANES * STEP).cast(), x) };
    };
    for v in 0..VECTORS {
        let half = |at: usize| {
            // SAFETY: a unit's scales, or minimums, are f16.
            unsafe { isa.load_f16(w.wrapping_add(at + 2 * v * I::LANES).cast()) }
        };
        match F::FORM.scales {
            Scales::Half => {
                let scale = half(F::FORM.scales_at(nr));
                put(wide.scale(0, v), scale);
                put(wide.bias(v), isa.mul(scale, isa.splat(-BIAS)));
                if F::FORM.minimum {
                    put(wide.minimum(0, v), half(F::FORM.minimums_at(nr)));
                }
            }
        }
    }
    let _ = block;
}

/// All groups of a block in order, their numbers known when this is compiled.
#[inline(always)]
fn each_group(mut f: impl FnMut(usize)) {
    f(0);
    f(1);
    f(2);
    f(3);
    f(4);
    f(5);
    f(6);
    f(7);
}
