//! The one step of a quantised matmul that instruction sets do differently: four 8-bit products a lane.
//! A sub-trait of [`Isa`]: loops stay generic, only this step is replaced.

use super::{Isa, Scalar};

/// Dot products of bytes, four a lane, accumulated in i32.
///
/// All methods are `#[inline(always)]` and only meaningful inside [`Isa::vectorize`].
pub trait DotI8: Isa {
    /// Whether [`DotI8::dot`] takes its weights as signed bytes, else as unsigned ones.
    const SIGNED: bool;
    /// Whether `mul_add` rounds once.
    const FUSED: bool = true;

    /// acc + the sum of each lane's four products. Bytes of `w` are any i8 or any u8, as
    /// [`DotI8::SIGNED`] says; those of `x` are i8 in −127..=127. Wraps in i32.
    fn dot(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32;

    /// [`DotI8::dot`] for bytes of `w` in 0..=127, where some instruction sets have less to do.
    #[inline(always)]
    fn dot_small(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.dot(acc, w, x)
    }
}

impl DotI8 for Scalar {
    const SIGNED: bool = true;
    const FUSED: bool = false;

    #[inline(always)]
    fn dot(self, mut acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        for (acc, (w, x)) in acc.iter_mut().zip(w.into_iter().zip(x)) {
            let products = w.to_ne_bytes().into_iter().zip(x.to_ne_bytes());
            *acc += products.map(|(w, x)| i32::from(w as i8) * i32::from(x as i8)).sum::<i32>();
        }
        acc
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    // SAFETY of every block below: the token proves that the CPU has the features (see `Isa`).
    #![allow(clippy::undocumented_unsafe_blocks)]

    use super::DotI8;
    use crate::isa::{Avx2, X512};
    use std::arch::x86_64::*;

    /// Unsigned by signed bytes, pairs added in 16 bits: exact as long as `w` stays below 128, or at 128 while
    /// `x` stays above −128 (2·128·127 < 2¹⁵).
    #[inline(always)]
    unsafe fn pairs_then_fours(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, x);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    impl DotI8 for Avx2 {
        const SIGNED: bool = true;

        #[inline(always)]
        fn dot(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe { pairs_then_fours(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) }
        }

        #[inline(always)]
        fn dot_small(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe { pairs_then_fours(acc, w, x) }
        }
    }

    impl<const VNNI: bool> DotI8 for X512<VNNI> {
        const SIGNED: bool = !VNNI;

        #[inline(always)]
        fn dot(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe {
                if VNNI {
                    _mm512_dpbusd_epi32(acc, w, x)
                } else {
                    let negative = _mm512_movepi8_mask(w);
                    let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
                    self.dot_small(acc, _mm512_abs_epi8(w), x)
                }
            }
        }

        #[inline(always)]
        fn dot_small(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe {
                if VNNI {
                    _mm512_dpbusd_epi32(acc, w, x)
                } else {
                    let pairs = _mm512_maddubs_epi16(w, x);
                    _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
                }
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    // SAFETY of every block below: the token proves that the CPU has the features (see `Isa`).
    #![allow(clippy::undocumented_unsafe_blocks)]

    use super::DotI8;
    use crate::isa::NeonX;
    use std::arch::aarch64::*;
    use std::arch::asm;

    impl<const DOTPROD: bool> DotI8 for NeonX<DOTPROD> {
        const SIGNED: bool = true;

        #[inline(always)]
        fn dot(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe {
                if DOTPROD {
                    // Its intrinsic is not stable yet.
                    let mut acc = acc;
                    asm!(
                        "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
                        acc = inout(vreg) acc,
                        w = in(vreg) w,
                        x = in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                    acc
                } else {
                    let (w, x) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
                    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
                    let high = vmull_high_s8(w, x);
                    // Pairs stay within 16 bits: 2·128·127 < 2¹⁵.
                    vpadalq_s16(acc, vpaddq_s16(low, high))
                }
            }
        }
    }
}
