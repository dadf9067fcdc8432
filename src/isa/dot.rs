//! The one step of a matmul that instruction sets do differently: four 8-bit products a lane, or two of bfloat16.
//! Sub-traits of [`Isa`]: loops stay generic, only this step is replaced.

use super::register::{Bytes, Products, Sign};
use super::{Isa, Scalar};
use crate::arrays;

/// Dot products of bytes, four a lane, accumulated in i32.
///
/// All methods are `#[inline(always)]` and only meaningful inside [`Isa::vectorize`].
#[doc(hidden)]
pub trait DotI8: Isa {
    /// Whether [`DotI8::dot`] takes its weights as signed bytes, else as unsigned ones.
    const SIGNED: bool;
    /// Whether `mul_add` rounds once.
    const FUSED: bool = true;

    /// acc + the sum of each lane's four products. Bytes of `w` are any i8 or any u8, as [`DotI8::SIGNED`] says, or
    /// [`Bytes::Small`]; those of `x` are i8 in −127..=127. Wraps in i32.
    fn dot_of(self, bytes: Bytes, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32;

    /// [`DotI8::dot_of`] any bytes.
    #[inline(always)]
    fn dot(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.dot_of(Bytes::Any, acc, w, x)
    }

    /// [`DotI8::dot_of`] bytes of `w` in 0..=127.
    #[inline(always)]
    fn dot_small(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.dot_of(Bytes::Small, acc, w, x)
    }

    /// For each byte of `index`, which are in 0..=15, that entry of the table.
    fn lookup_bytes(self, table: &[i8; 16], index: Self::I32) -> Self::I32;

    /// The even bytes of each lane as 16 bits each, and the odd ones.
    #[inline(always)]
    fn split_of(self, sign: Sign, bytes: Self::I32) -> [Self::I32; 2] {
        if let Sign::Unsigned = sign {
            let even = self.splat_i32(0x00ff_00ff);
            return arrays::map([bytes, self.shr::<8>(bytes)], |bytes| self.and(bytes, even));
        }
        let [low, high] = arrays::map([0xffff, 0xffff_0000_u32 as i32], |mask| self.splat_i32(mask));
        arrays::map([self.shl::<8>(bytes), bytes], |bytes| {
            let above = self.and(self.shr::<8>(bytes), high);
            self.or(above, self.and(self.shr::<24>(self.shl::<16>(bytes)), low))
        })
    }

    /// [`DotI8::split_of`] signed bytes.
    #[inline(always)]
    fn split(self, bytes: Self::I32) -> [Self::I32; 2] {
        self.split_of(Sign::Signed, bytes)
    }

    /// [`DotI8::split_of`] unsigned bytes, which takes an operation less.
    #[inline(always)]
    fn split_unsigned(self, bytes: Self::I32) -> [Self::I32; 2] {
        self.split_of(Sign::Unsigned, bytes)
    }
}

/// The steps of levels without an instruction for four products a lane: products of bytes whose pairs are added in 16
/// bits, and products of pairs of 16 bits. Where several pairs fit 16 bits, both cost two operations a product.
///
/// All methods are `#[inline(always)]` and only meaningful inside [`Isa::vectorize`]. The compiler leaves products
/// where they stand.
#[doc(hidden)]
pub trait PairsI8: DotI8 {
    /// The sums of products of `w` and `x`, which are added to `acc` where the operation says so.
    fn products(self, op: Products, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32;

    /// Sums of adjacent products of unsigned bytes of `w` and signed ones of `x`, as 16 bits each. They fit.
    #[inline(always)]
    fn pairs(self, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.products(Products::Pairs, w, w, x)
    }

    /// [`PairsI8::pairs`] of signed bytes of both; those of `x` are in −127..=127.
    #[inline(always)]
    fn signed_pairs(self, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.products(Products::SignedPairs, w, w, x)
    }

    /// acc + [`PairsI8::pairs`], in 16 bits, which it fits.
    #[inline(always)]
    fn add_pairs(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.products(Products::AddedPairs, acc, w, x)
    }

    /// The sum of each lane's two products of signed 16 bits.
    #[inline(always)]
    fn words(self, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.products(Products::Words, w, w, x)
    }

    /// acc + [`PairsI8::words`], wrapping in i32.
    #[inline(always)]
    fn add_words(self, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        self.products(Products::AddedWords, acc, w, x)
    }
}

/// Dot products of bfloat16, two a lane, accumulated in f32. Numbers below 2⁻¹²⁶ may count as 0, in and out.
///
/// All methods are `#[inline(always)]` and only meaningful inside [`Isa::vectorize`].
#[doc(hidden)]
pub trait DotBf16: Isa {
    /// acc + the products of each lane's two pairs of bfloat16, in an order and with roundings of the
    /// instruction's own; each result is off by no more than two roundings to f32, to a neighbour at worst.
    fn dot_bf16(self, acc: Self::F32, w: Self::I32, x: Self::I32) -> Self::F32;

    /// Both vectors rounded to bfloat16, to the nearest, ties to even: `low` first in memory, then `high`.
    fn round_bf16(self, low: Self::F32, high: Self::F32) -> Self::I32;
}

impl DotI8 for Scalar {
    const SIGNED: bool = true;
    const FUSED: bool = false;

    #[inline(always)]
    fn dot_of(self, _: Bytes, mut acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
        for (i, acc) in acc.iter_mut().enumerate() {
            let (w, x) = (w[i].to_ne_bytes(), x[i].to_ne_bytes());
            for byte in 0..4 {
                *acc += i32::from(w[byte] as i8) * i32::from(x[byte] as i8);
            }
        }
        acc
    }

    #[inline(always)]
    fn lookup_bytes(self, table: &[i8; 16], index: Self::I32) -> Self::I32 {
        arrays::map(index, |four| {
            i32::from_ne_bytes(arrays::map(four.to_ne_bytes(), |i| table[usize::from(i & 15)] as u8))
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    // SAFETY of every block that isn't assembly: the token proves that the CPU has the features (see `Isa`).
    #![allow(clippy::undocumented_unsafe_blocks)]

    use super::{Bytes, DotBf16, DotI8, PairsI8, Products, Sign};
    use crate::arrays;
    use crate::isa::avx512::{BF16, VNNI};
    use crate::isa::{Avx2, Avx512, X256, X512, avx2};
    use std::arch::asm;
    use std::arch::x86_64::*;

    // Operations on registers: safe, since each function has the features that its instructions need.

    #[inline]
    #[target_feature(enable = "avx2")]
    fn products_256(op: Products, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        match op {
            Products::Pairs => _mm256_maddubs_epi16(w, x),
            Products::SignedPairs => _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)),
            Products::Words => _mm256_madd_epi16(w, x),
            Products::AddedPairs => add_pairs_256(acc, w, x),
            Products::AddedWords => add_words_256(acc, w, x),
        }
    }

    /// Pairs added in 16 bits: exact as long as `w` stays below 128, or at 128 while `x` stays above −128
    /// (2·128·127 < 2¹⁵).
    #[inline]
    #[target_feature(enable = "avx2")]
    fn dot_256(bytes: Bytes, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        let pairs = match bytes {
            Bytes::Any => products_256(Products::SignedPairs, acc, w, x),
            Bytes::Small => products_256(Products::Pairs, acc, w, x),
        };
        _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    /// The even bytes of each word, and the odd ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn split_256(sign: Sign, bytes: __m256i) -> [__m256i; 2] {
        match sign {
            Sign::Signed => {
                [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
            }
            Sign::Unsigned => {
                [_mm256_and_si256(bytes, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(bytes)]
            }
        }
    }

    impl<const LEVEL: u8> DotI8 for X256<LEVEL> {
        const SIGNED: bool = LEVEL < avx2::VNNI;

        #[inline(always)]
        fn dot_of(self, bytes: Bytes, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe {
                if LEVEL >= avx2::VNNI {
                    _mm256_dpbusd_avx_epi32(acc, w, x)
                } else {
                    dot_256(bytes, acc, w, x)
                }
            }
        }

        #[inline(always)]
        fn split_of(self, sign: Sign, bytes: Self::I32) -> [Self::I32; 2] {
            unsafe { split_256(sign, bytes) }
        }

        #[inline(always)]
        fn lookup_bytes(self, table: &[i8; 16], index: Self::I32) -> Self::I32 {
            unsafe {
                let table = _mm_loadu_si128(table.as_ptr().cast());
                _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index)
            }
        }
    }

    /// acc + pairs of products, left where it stands, as `dot_in_place` is.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_pairs_256(mut acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        let _pairs: __m256i;
        // SAFETY: the instructions are AVX2's, and change no register but those named.
        unsafe {
            asm!(
                "vpmaddubsw {pairs}, {w}, {x}",
                "vpaddw {acc}, {acc}, {pairs}",
                acc = inout(ymm_reg) acc,
                w = in(ymm_reg) w,
                x = in(ymm_reg) x,
                pairs = out(ymm_reg) _pairs,
                options(nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    /// acc + products of words, left where it stands.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_words_256(mut acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        let _sums: __m256i;
        // SAFETY: the instructions are AVX2's, and change no register but those named.
        unsafe {
            asm!(
                "vpmaddwd {sums}, {w}, {x}",
                "vpaddd {acc}, {acc}, {sums}",
                acc = inout(ymm_reg) acc,
                w = in(ymm_reg) w,
                x = in(ymm_reg) x,
                sums = out(ymm_reg) _sums,
                options(nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    impl PairsI8 for Avx2 {
        #[inline(always)]
        fn products(self, op: Products, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe { products_256(op, acc, w, x) }
        }
    }

    impl<const LEVEL: u8> DotBf16 for X512<LEVEL> {
        #[inline(always)]
        fn dot_bf16(self, acc: Self::F32, w: Self::I32, x: Self::I32) -> Self::F32 {
            const { assert!(LEVEL >= BF16) };
            unsafe {
                let [w, x] = arrays::map([w, x], |pairs| std::mem::transmute::<__m512i, __m512bh>(pairs));
                _mm512_dpbf16_ps(acc, w, x)
            }
        }

        #[inline(always)]
        fn round_bf16(self, low: Self::F32, high: Self::F32) -> Self::I32 {
            const { assert!(LEVEL >= BF16) };
            unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
        }
    }

    /// The instruction itself, which the compiler leaves where it stands: tiles are written in the order that keeps
    /// all sums at work, and it would rather finish one sum after the other.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn dot_in_place(mut acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the instruction is AVX-512 VNNI's, and changes no register but the first.
        unsafe {
            asm!(
                "vpdpbusd {acc}, {w}, {x}",
                acc = inout(zmm_reg) acc,
                w = in(zmm_reg) w,
                x = in(zmm_reg) x,
                options(nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn products_512(op: Products, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        match op {
            Products::Pairs => _mm512_maddubs_epi16(w, x),
            Products::SignedPairs => {
                let negative = _mm512_movepi8_mask(w);
                let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
                _mm512_maddubs_epi16(_mm512_abs_epi8(w), x)
            }
            Products::Words => _mm512_madd_epi16(w, x),
            Products::AddedPairs => add_pairs_512(acc, w, x),
            Products::AddedWords => add_words_512(acc, w, x),
        }
    }

    /// As `dot_256`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn dot_512(bytes: Bytes, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        let pairs = match bytes {
            Bytes::Any => products_512(Products::SignedPairs, acc, w, x),
            Bytes::Small => products_512(Products::Pairs, acc, w, x),
        };
        _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
    }

    /// As `split_256`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn split_512(sign: Sign, bytes: __m512i) -> [__m512i; 2] {
        match sign {
            Sign::Signed => {
                [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes)), _mm512_srai_epi16::<8>(bytes)]
            }
            Sign::Unsigned => {
                [_mm512_and_si512(bytes, _mm512_set1_epi16(255)), _mm512_srli_epi16::<8>(bytes)]
            }
        }
    }

    impl<const LEVEL: u8> DotI8 for X512<LEVEL> {
        const SIGNED: bool = LEVEL < VNNI;

        #[inline(always)]
        fn dot_of(self, bytes: Bytes, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe { if LEVEL >= VNNI { dot_in_place(acc, w, x) } else { dot_512(bytes, acc, w, x) } }
        }

        #[inline(always)]
        fn split_of(self, sign: Sign, bytes: Self::I32) -> [Self::I32; 2] {
            unsafe { split_512(sign, bytes) }
        }

        #[inline(always)]
        fn lookup_bytes(self, table: &[i8; 16], index: Self::I32) -> Self::I32 {
            unsafe {
                let table = _mm_loadu_si128(table.as_ptr().cast());
                _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index)
            }
        }
    }

    /// acc + pairs of products, left where it stands, as `dot_in_place` is.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add_pairs_512(mut acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        let _pairs: __m512i;
        // SAFETY: the instructions are AVX-512 BW's, and change no register but those named.
        unsafe {
            asm!(
                "vpmaddubsw {pairs}, {w}, {x}",
                "vpaddw {acc}, {acc}, {pairs}",
                acc = inout(zmm_reg) acc,
                w = in(zmm_reg) w,
                x = in(zmm_reg) x,
                pairs = out(zmm_reg) _pairs,
                options(nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    /// acc + products of words, left where it stands.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add_words_512(mut acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        let _sums: __m512i;
        // SAFETY: the instructions are AVX-512 BW's, and change no register but those named.
        unsafe {
            asm!(
                "vpmaddwd {sums}, {w}, {x}",
                "vpaddd {acc}, {acc}, {sums}",
                acc = inout(zmm_reg) acc,
                w = in(zmm_reg) w,
                x = in(zmm_reg) x,
                sums = out(zmm_reg) _sums,
                options(nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    impl PairsI8 for Avx512 {
        #[inline(always)]
        fn products(self, op: Products, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe { products_512(op, acc, w, x) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    // SAFETY of every block below: the token proves that the CPU has the features (see `Isa`).
    #![allow(clippy::undocumented_unsafe_blocks)]

    use super::{Bytes, DotBf16, DotI8};
    use crate::isa::neon::DOTPROD;
    use crate::isa::{NeonBf16, NeonX};
    use std::arch::aarch64::*;
    use std::arch::asm;

    impl DotBf16 for NeonBf16 {
        // Its intrinsics are not stable yet.
        #[inline(always)]
        fn dot_bf16(self, mut acc: Self::F32, w: Self::I32, x: Self::I32) -> Self::F32 {
            unsafe {
                asm!(
                    "bfdot {acc:v}.4s, {w:v}.8h, {x:v}.8h",
                    acc = inout(vreg) acc,
                    w = in(vreg) w,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            acc
        }

        #[inline(always)]
        fn round_bf16(self, low: Self::F32, high: Self::F32) -> Self::I32 {
            let pairs: Self::I32;
            unsafe {
                asm!(
                    "bfcvtn {pairs:v}.4h, {low:v}.4s",
                    "bfcvtn2 {pairs:v}.8h, {high:v}.4s",
                    pairs = out(vreg) pairs,
                    low = in(vreg) low,
                    high = in(vreg) high,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            pairs
        }
    }

    impl<const LEVEL: u8> DotI8 for NeonX<LEVEL> {
        const SIGNED: bool = true;

        #[inline(always)]
        fn dot_of(self, _: Bytes, acc: Self::I32, w: Self::I32, x: Self::I32) -> Self::I32 {
            unsafe {
                if LEVEL >= DOTPROD {
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

        #[inline(always)]
        fn lookup_bytes(self, table: &[i8; 16], index: Self::I32) -> Self::I32 {
            unsafe { vreinterpretq_s32_s8(vqtbl1q_s8(vld1q_s8(table.as_ptr()), vreinterpretq_u8_s32(index))) }
        }
    }
}
