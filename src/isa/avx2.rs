//! AVX2 with FMA and F16C: eight lanes, sixteen registers; and the same with AVX-VNNI.
//! Every method is one or a few intrinsics; they run inside [`Avx2::vectorize`] only.
//! Methods carry no `target_feature`: entering a function that has the features is unsafe.

// SAFETY of every block below: the token proves that the CPU has the features (see `Isa`), and pointers are
// covered by the method's own contract.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::{
    Comparison, EachColumn, Float16, Floats, Integer, Isa, IsaId, Kept16, Reduction, Shift, SimdBody,
};
use std::arch::x86_64::*;

/// Token of the levels with eight lanes: [`Avx2`] and, one above it, [`AvxVnni`].
#[derive(Clone, Copy, Debug)]
pub struct X256<const LEVEL: u8>(());

/// Token of [`IsaId::Avx2`].
pub type Avx2 = X256<0>;
/// Token of [`IsaId::AvxVnni`].
pub type AvxVnni = X256<VNNI>;

/// Level of [`AvxVnni`].
pub(super) const VNNI: u8 = 1;

#[target_feature(enable = "avx,avx2,fma,f16c")]
fn enter<const LEVEL: u8, B: SimdBody>(isa: X256<LEVEL>, body: B) -> B::Output {
    body.run(isa)
}

#[target_feature(enable = "avx,avx2,fma,f16c,avxvnni")]
fn enter_vnni<const LEVEL: u8, B: SimdBody>(isa: X256<LEVEL>, body: B) -> B::Output {
    body.run(isa)
}

/// All ones in the first `n` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn first(n: usize) -> __m256i {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane)
}

// Operations on registers: safe, since each function has the features that its intrinsics need.

#[inline]
#[target_feature(enable = "avx2,fma")]
fn floats(op: Floats, a: __m256, b: __m256, c: __m256) -> __m256 {
    match op {
        Floats::Add => _mm256_add_ps(a, b),
        Floats::Sub => _mm256_sub_ps(a, b),
        Floats::Mul => _mm256_mul_ps(a, b),
        Floats::Div => _mm256_div_ps(a, b),
        Floats::Min => _mm256_min_ps(a, b),
        Floats::Max => _mm256_max_ps(a, b),
        Floats::MulAdd => _mm256_fmadd_ps(a, b, c),
        Floats::NegMulAdd => _mm256_fnmadd_ps(a, b, c),
        Floats::Sqrt => _mm256_sqrt_ps(a),
        Floats::Round => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
        Floats::SwapPairs => _mm256_permute_ps::<0b10_11_00_01>(a),
        Floats::DupPairs => _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
    }
}

#[inline]
#[target_feature(enable = "avx")]
fn compare(op: Comparison, a: __m256, b: __m256) -> __m256 {
    match op {
        Comparison::Less => _mm256_cmp_ps::<_CMP_LT_OQ>(a, b),
        Comparison::Equal => _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b),
    }
}

#[inline]
#[target_feature(enable = "avx")]
pub(super) fn reduce(op: Reduction, a: __m256) -> f32 {
    let (low, high) = (_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    match op {
        Reduction::Sum => {
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
        Reduction::Max => {
            let four = _mm_max_ps(low, high);
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn integer(op: Integer, a: __m256i, b: __m256i) -> __m256i {
    match op {
        Integer::Add => _mm256_add_epi32(a, b),
        Integer::Sub => _mm256_sub_epi32(a, b),
        Integer::And => _mm256_and_si256(a, b),
        Integer::Or => _mm256_or_si256(a, b),
        Integer::Xor => _mm256_xor_si256(a, b),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen(kind: Float16, x: __m128i) -> __m256 {
    match kind {
        Float16::Half => _mm256_cvtph_ps(x),
        Float16::Brain => _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(x))),
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn narrow(kept: Kept16, x: __m256i) -> __m128i {
    match kept {
        Kept16::Half => _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_castsi256_ps(x)),
        Kept16::Low => _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x)),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn shift<const N: i32>(op: Shift, a: __m256i) -> __m256i {
    match op {
        Shift::Left => _mm256_slli_epi32::<N>(a),
        Shift::Right => _mm256_srai_epi32::<N>(a),
    }
}

/// Sum of the lanes, wrapping.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_integers(a: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}

// SAFETY: eight f32 or i32 fill either vector; the intrinsics are those of the features that `new` detects.
unsafe impl<const LEVEL: u8> Isa for X256<LEVEL> {
    const ID: IsaId = if LEVEL >= VNNI { IsaId::AvxVnni } else { IsaId::Avx2 };
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256;

    #[inline]
    fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (LEVEL < VNNI || is_x86_feature_detected!("avxvnni"));
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
                _ => enter_vnni(self, body),
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32 {
        unsafe { _mm256_maskload_ps(p, first(n)) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, x: Self::F32) {
        unsafe { _mm256_stream_ps(p, x) }
    }
    #[inline(always)]
    fn fence(self) {
        crate::cpu::store_fence();
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, x: Self::F32, n: usize) {
        unsafe { _mm256_maskstore_ps(p, first(n), x) }
    }
    #[inline(always)]
    unsafe fn columns(self, src: *const f32, src_stride: usize, _: bool, each: &mut impl EachColumn<Self>) {
        // Four columns at a time: rows i and i + 4 meet in vector i while they are loaded, which needs no
        // shuffle unit; then each half is a 4 × 4 block.
        for column in [0, 4] {
            unsafe {
                let half = |row: usize| _mm_loadu_ps(src.add(row * src_stride + column));
                let mut rows = [_mm256_setzero_ps(); 4];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(half(i)), half(i + 4));
                }
                let [a, b, c, d] = rows;
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let columns = [
                    _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
                    _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
                    _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                    _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
                ];
                for (i, x) in columns.iter().enumerate() {
                    each.column(self, column + i, *x);
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn load_16(self, kind: Float16, p: *const u16) -> Self::F32 {
        unsafe { widen(kind, _mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_16(self, kept: Kept16, p: *mut u16, x: Self::I32) {
        unsafe { _mm_storeu_si128(p.cast(), narrow(kept, x)) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I32 {
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32) {
        unsafe {
            let words = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
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
        unsafe { _mm256_blendv_ps(b, a, m) }
    }

    #[inline(always)]
    fn shift<const N: i32>(self, op: Shift, a: Self::I32) -> Self::I32 {
        unsafe { shift::<N>(op, a) }
    }
    #[inline(always)]
    fn sum_lanes_i32(self, a: Self::I32) -> i32 {
        unsafe { sum_integers(a) }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F32) -> Self::I32 {
        unsafe { _mm256_cvtps_epi32(a) }
    }
}
