//! Armv8 Advanced SIMD: four lanes, thirty-two registers; and the same with dotprod, and with bf16.
//! All levels share one implementation: [`NeonX`] is generic over the extensions.
//! Every method is one or a few intrinsics; they run inside [`NeonX::vectorize`] only.

// SAFETY of every block below: the token proves that the CPU has the features (see `Isa`), and pointers are
// covered by the method's own contract.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::{
    Comparison, EachColumn, Float16, Floats, Integer, Isa, IsaId, Kept16, Reduction, Shift, SimdBody,
};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

/// Token of [`IsaId::Neon`] and the levels above it, each of which includes the ones before: see the aliases.
#[derive(Clone, Copy, Debug)]
pub struct NeonX<const LEVEL: u8>(());

/// Token of [`IsaId::Neon`].
pub type Neon = NeonX<0>;
/// Token of [`IsaId::NeonDotprod`].
pub type NeonDotprod = NeonX<DOTPROD>;
/// Token of [`IsaId::NeonBf16`].
pub type NeonBf16 = NeonX<BF16>;

/// From this level of [`NeonX`] on there are dot products of bytes.
pub(super) const DOTPROD: u8 = 1;
/// From this level of [`NeonX`] on there are dot products of bfloat16.
const BF16: u8 = 2;

#[target_feature(enable = "neon")]
fn enter<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

#[target_feature(enable = "neon,dotprod")]
fn enter_dotprod<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

#[target_feature(enable = "neon,dotprod,bf16")]
fn enter_bf16<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

// Operations on registers: safe, since each function has the features that its intrinsics need.

#[inline]
#[target_feature(enable = "neon")]
fn floats(op: Floats, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    match op {
        Floats::Add => vaddq_f32(a, b),
        Floats::Sub => vsubq_f32(a, b),
        Floats::Mul => vmulq_f32(a, b),
        Floats::Div => vdivq_f32(a, b),
        Floats::Min => vbslq_f32(vcltq_f32(a, b), a, b),
        Floats::Max => vbslq_f32(vcltq_f32(b, a), a, b),
        Floats::MulAdd => vfmaq_f32(c, a, b),
        Floats::NegMulAdd => vfmsq_f32(c, a, b),
        Floats::Sqrt => vsqrtq_f32(a),
        Floats::Round => vrndnq_f32(a),
        Floats::SwapPairs => vrev64q_f32(a),
        Floats::DupPairs => vzip1q_f32(a, a),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn compare(op: Comparison, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
    match op {
        Comparison::Less => vcltq_f32(a, b),
        Comparison::Equal => vceqq_f32(a, b),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn reduce(op: Reduction, a: float32x4_t) -> f32 {
    match op {
        Reduction::Sum => {
            let two = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
        Reduction::Max => vmaxvq_f32(a),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn integer(op: Integer, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    match op {
        Integer::Add => vaddq_s32(a, b),
        Integer::Sub => vsubq_s32(a, b),
        Integer::And => vandq_s32(a, b),
        Integer::Or => vorrq_s32(a, b),
        Integer::Xor => veorq_s32(a, b),
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn shift<const N: i32>(op: Shift, a: int32x4_t) -> int32x4_t {
    match op {
        Shift::Left => vshlq_n_s32::<N>(a),
        Shift::Right => vshrq_n_s32::<N>(a),
    }
}

// SAFETY: four f32 or i32 fill either vector; the intrinsics are those of the features that `new` detects.
unsafe impl<const LEVEL: u8> Isa for NeonX<LEVEL> {
    const ID: IsaId = match LEVEL {
        0 => IsaId::Neon,
        DOTPROD => IsaId::NeonDotprod,
        _ => IsaId::NeonBf16,
    };
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    type F32 = float32x4_t;
    type I32 = int32x4_t;
    type Mask = uint32x4_t;

    #[inline]
    fn new() -> Option<Self> {
        let has = is_aarch64_feature_detected!("neon")
            && (LEVEL < DOTPROD || is_aarch64_feature_detected!("dotprod"))
            && (LEVEL < BF16 || is_aarch64_feature_detected!("bf16"));
        has.then_some(Self(()))
    }
    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        Self(())
    }
    #[inline(always)]
    fn vectorize<B: SimdBody>(self, body: B) -> B::Output {
        unsafe {
            match LEVEL {
                0 => enter(self, body),
                DOTPROD => enter_dotprod(self, body),
                _ => enter_bf16(self, body),
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn columns(self, src: *const f32, src_stride: usize, _: bool, each: &mut impl EachColumn<Self>) {
        unsafe {
            let row = |i: usize| vld1q_f32(src.add(i * src_stride));
            let (ab, cd) = (vtrnq_f32(row(0), row(1)), vtrnq_f32(row(2), row(3)));
            let columns = [
                vcombine_f32(vget_low_f32(ab.0), vget_low_f32(cd.0)),
                vcombine_f32(vget_low_f32(ab.1), vget_low_f32(cd.1)),
                vcombine_f32(vget_high_f32(ab.0), vget_high_f32(cd.0)),
                vcombine_f32(vget_high_f32(ab.1), vget_high_f32(cd.1)),
            ];
            for (j, column) in columns.iter().enumerate() {
                each.column(self, j, *column);
            }
        }
    }
    #[inline(always)]
    unsafe fn load_16(self, kind: Float16, p: *const u16) -> Self::F32 {
        unsafe {
            let x = vld1_u16(p);
            match kind {
                Float16::Half => {
                    // The intrinsic needs the half type, which is not stable at our oldest compiler.
                    let wide: float32x4_t;
                    asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags));
                    wide
                }
                Float16::Brain => vreinterpretq_f32_u32(vshll_n_u16::<16>(x)),
            }
        }
    }
    #[inline(always)]
    unsafe fn store_16(self, kept: Kept16, p: *mut u16, x: Self::I32) {
        unsafe {
            let narrow = match kept {
                Kept16::Half => {
                    // The intrinsic needs the half type, which is not stable at our oldest compiler.
                    let half: uint16x4_t;
                    asm!("fcvtn {0:v}.4h, {1:v}.4s", lateout(vreg) half, in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags));
                    half
                }
                Kept16::Low => vmovn_u32(vreinterpretq_u32_s32(x)),
            };
            vst1_u16(p, narrow);
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I32 {
        unsafe {
            let bytes = vreinterpret_s8_s32(vdup_n_s32(p.cast::<i32>().read_unaligned()));
            vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32) {
        unsafe {
            let words = vmovn_s32(x);
            let bytes = vmovn_s16(vcombine_s16(words, words));
            p.cast::<i32>().write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)));
        }
    }

    #[inline(always)]
    fn floats(self, op: Floats, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        unsafe { floats(op, a, b, c) }
    }
    #[inline(always)]
    fn compare(self, op: Comparison, a: Self::F32, b: Self::F32) -> Self::Mask {
        unsafe { compare(op, a, b) }
    }
    #[inline(always)]
    fn reduce(self, op: Reduction, a: Self::F32) -> f32 {
        unsafe { reduce(op, a) }
    }
    #[inline(always)]
    fn integer(self, op: Integer, a: Self::I32, b: Self::I32) -> Self::I32 {
        unsafe { integer(op, a, b) }
    }
    #[inline(always)]
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32 {
        unsafe { vbslq_f32(m, a, b) }
    }

    #[inline(always)]
    fn shift<const N: i32>(self, op: Shift, a: Self::I32) -> Self::I32 {
        unsafe { shift::<N>(op, a) }
    }
    #[inline(always)]
    fn sum_lanes_i32(self, a: Self::I32) -> i32 {
        unsafe { vaddvq_s32(a) }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F32) -> Self::I32 {
        unsafe { vcvtnq_s32_f32(a) }
    }
}
