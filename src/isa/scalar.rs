//! The portable level: four lanes in an array, plain Rust, for any CPU.
//! The compiler keeps an array in one register where the baseline has one (SSE2, NEON).
//! Products are rounded before they are added: a fused one would be a library call a lane.

use super::{Comparison, Float16, Floats, Integer, Isa, IsaId, Kept16, Reduction, Shift, SimdBody};
use crate::arrays::{from_fn, map};
use half::{bf16, f16};

const LANES: usize = 4;

/// Token of [`IsaId::Scalar`]; every CPU has it.
#[derive(Clone, Copy, Debug)]
pub struct Scalar(());

#[inline(always)]
fn map2<T: Copy, U: Copy>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    from_fn(|i| f(a[i], b[i]))
}

/// To the nearest integer, ties to even. An f32 from 2²³ on has no bits for a fraction, so adding 2²³ rounds; SSE2 has
/// no instruction that does.
#[inline(always)]
fn round(x: f32) -> f32 {
    let limit = (1u32 << 23) as f32;
    let rounded = ((x.abs() + limit) - limit).copysign(x);
    if x.abs() < limit { rounded } else { x }
}

// SAFETY: four f32 or i32 are either vector, and plain Rust runs on any CPU.
unsafe impl Isa for Scalar {
    const ID: IsaId = IsaId::Scalar;
    const LANES: usize = LANES;
    const REGISTERS: usize = 16;
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Mask = [bool; LANES];

    #[inline(always)]
    fn new() -> Option<Self> {
        Some(Self(()))
    }
    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        Self(())
    }
    #[inline(always)]
    fn vectorize<B: SimdBody>(self, body: B) -> B::Output {
        body.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_16(self, kind: Float16, p: *const u16) -> Self::F32 {
        // SAFETY: `p` is readable for `LANES` u16.
        let lanes = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        match kind {
            Float16::Half => map(lanes, |bits| f16::from_bits(bits).to_f32_const()),
            Float16::Brain => map(lanes, |bits| bf16::from_bits(bits).to_f32_const()),
        }
    }
    #[inline(always)]
    unsafe fn store_16(self, kept: Kept16, p: *mut u16, x: Self::I32) {
        let lanes = match kept {
            Kept16::Half => map(x, |x| f16::from_f32_const(f32::from_bits(x as u32)).to_bits()),
            Kept16::Low => map(x, |x| x as u16),
        };
        // SAFETY: `p` is writable for `LANES` u16.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(lanes) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I32 {
        // SAFETY: `p` is readable for `LANES` i8; a byte array needs no alignment.
        map(unsafe { p.cast::<[i8; LANES]>().read() }, i32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32) {
        // SAFETY: `p` is writable for `LANES` i8; a byte array needs no alignment.
        unsafe { p.cast::<[i8; LANES]>().write(map(x, |lane| lane as i8)) }
    }

    #[inline(always)]
    fn floats(self, op: Floats, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        match op {
            Floats::Add => map2(a, b, |a, b| a + b),
            Floats::Sub => map2(a, b, |a, b| a - b),
            Floats::Mul => map2(a, b, |a, b| a * b),
            Floats::Div => map2(a, b, |a, b| a / b),
            Floats::Min => map2(a, b, |a, b| if a < b { a } else { b }),
            Floats::Max => map2(a, b, |a, b| if a > b { a } else { b }),
            Floats::MulAdd => from_fn(|i| a[i] * b[i] + c[i]),
            Floats::NegMulAdd => from_fn(|i| c[i] - a[i] * b[i]),
            Floats::Sqrt => map(a, f32::sqrt),
            Floats::Round => map(a, round),
            Floats::SwapPairs => [a[1], a[0], a[3], a[2]],
            Floats::DupPairs => [a[0], a[0], a[1], a[1]],
        }
    }
    #[inline(always)]
    fn compare(self, op: Comparison, a: Self::F32, b: Self::F32) -> Self::Mask {
        match op {
            Comparison::Less => map2(a, b, |a, b| a < b),
            Comparison::Equal => map2(a, b, |a, b| a == b),
        }
    }
    #[inline(always)]
    fn reduce(self, op: Reduction, [a, b, c, d]: Self::F32) -> f32 {
        match op {
            Reduction::Sum => (a + c) + (b + d),
            Reduction::Max => a.max(c).max(b.max(d)),
        }
    }
    #[inline(always)]
    fn integer(self, op: Integer, a: Self::I32, b: Self::I32) -> Self::I32 {
        match op {
            Integer::Add => map2(a, b, i32::wrapping_add),
            Integer::Sub => map2(a, b, i32::wrapping_sub),
            Integer::And => map2(a, b, |a, b| a & b),
            Integer::Or => map2(a, b, |a, b| a | b),
            Integer::Xor => map2(a, b, |a, b| a ^ b),
        }
    }
    #[inline(always)]
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn shift<const N: i32>(self, op: Shift, a: Self::I32) -> Self::I32 {
        match op {
            Shift::Left => map(a, |x| x << N),
            Shift::Right => map(a, |x| x >> N),
        }
    }
    #[inline(always)]
    fn sum_lanes_i32(self, a: Self::I32) -> i32 {
        a.iter().fold(0, |sum: i32, x| sum.wrapping_add(*x))
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        map(a, |x| x as f32)
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F32) -> Self::I32 {
        map(self.round(a), |x| x as i32)
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        map(a, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I32) -> Self::F32 {
        map(a, |x| f32::from_bits(x as u32))
    }
}
