//! The portable level: four lanes in an array, plain Rust, for any CPU.
//! The compiler keeps an array in one register where the baseline has one (SSE2, NEON).
//! Products are rounded before they are added: a fused one would be a library call a lane.

use super::{Isa, IsaId, SimdBody};
use half::{bf16, f16};
use std::array::from_fn;

const LANES: usize = 4;

/// Token of [`IsaId::Scalar`]; every CPU has it.
#[derive(Clone, Copy, Debug)]
pub struct Scalar(());

#[inline(always)]
fn map2<T: Copy, U>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    from_fn(|i| f(a[i], b[i]))
}

impl Isa for Scalar {
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
    unsafe fn load(self, p: *const f32) -> Self::F32 {
        // SAFETY: `p` is readable for `LANES` f32.
        unsafe { p.cast::<Self::F32>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32 {
        // SAFETY: only lanes below n are read.
        from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F32) {
        // SAFETY: `p` is writable for `LANES` f32.
        unsafe { p.cast::<Self::F32>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, x: Self::F32, n: usize) {
        for (i, lane) in x.into_iter().enumerate() {
            if i < n {
                // SAFETY: only lanes below n are written.
                unsafe { p.add(i).write_unaligned(lane) }
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32 {
        // SAFETY: `p` is readable for `LANES` u16.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|bits| f16::from_bits(bits).to_f32_const())
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> Self::F32 {
        // SAFETY: `p` is readable for `LANES` u16.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(|bits| bf16::from_bits(bits).to_f32_const())
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, x: Self::F32) {
        // SAFETY: `p` is writable for `LANES` u16.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(x.map(|x| f16::from_f32_const(x).to_bits())) }
    }
    #[inline(always)]
    unsafe fn store_u16(self, p: *mut u16, x: Self::I32) {
        // SAFETY: `p` is writable for `LANES` u16.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(x.map(|x| x as u16)) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I32 {
        // SAFETY: `p` is readable for `LANES` i8; a byte array needs no alignment.
        unsafe { p.cast::<[i8; LANES]>().read() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32) {
        // SAFETY: `p` is writable for `LANES` i8; a byte array needs no alignment.
        unsafe { p.cast::<[i8; LANES]>().write(x.map(|lane| lane as i8)) }
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F32) -> Self::F32 {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        // An f32 from 2^23 on has no bits for a fraction, so adding 2^23 rounds; SSE2 has no instruction that does.
        let limit = (1u32 << 23) as f32;
        a.map(|x| {
            let rounded = ((x.abs() + limit) - limit).copysign(x);
            if x.abs() < limit { rounded } else { x }
        })
    }
    #[inline(always)]
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        map2(a, b, |a, b| a < b)
    }
    #[inline(always)]
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        map2(a, b, |a, b| a == b)
    }
    #[inline(always)]
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn sum_lanes(self, a: Self::F32) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn max_lanes(self, a: Self::F32) -> f32 {
        let [a, b, c, d] = a;
        a.max(c).max(b.max(d))
    }

    #[inline(always)]
    fn swap_pairs(self, [a, b, c, d]: Self::F32) -> Self::F32 {
        [b, a, d, c]
    }
    #[inline(always)]
    fn dup_pairs(self, [a, b, ..]: Self::F32) -> Self::F32 {
        [a, a, b, b]
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        map2(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        map2(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        map2(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        map2(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        map2(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I32) -> Self::I32 {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I32) -> Self::I32 {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    fn sum_lanes_i32(self, a: Self::I32) -> i32 {
        a.into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F32) -> Self::I32 {
        self.round(a).map(|x| x as i32)
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        a.map(|x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: Self::I32) -> Self::F32 {
        a.map(|x| f32::from_bits(x as u32))
    }
}
