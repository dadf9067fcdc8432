//! AVX-512 (F, BW, DQ, VL): sixteen lanes, thirty-two registers, masks; and the same with VNNI, BF16, AMX.
//! All levels share one implementation: [`X512`] is generic over the extensions.
//! Every method is one or a few intrinsics; they run inside [`X512::vectorize`] only.

// SAFETY of every block below: the token proves that the CPU has the features (see `Isa`), and pointers are
// covered by the method's own contract.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::{
    Avx2, Comparison, EachColumn, Float16, Floats, Integer, Isa, IsaId, Kept16, Reduction, Shift, SimdBody,
    avx2,
};
use std::arch::x86_64::*;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

/// Token of [`IsaId::Avx512`] and the levels above it, each of which includes the ones before: see the aliases.
#[derive(Clone, Copy, Debug)]
pub struct X512<const LEVEL: u8>(());

/// Token of [`IsaId::Avx512`].
pub type Avx512 = X512<0>;
/// Token of [`IsaId::Avx512Vnni`].
pub type Avx512Vnni = X512<VNNI>;
/// Token of [`IsaId::Avx512Bf16`].
pub type Avx512Bf16 = X512<BF16>;
/// Token of [`IsaId::Amx`]. Tiles have instructions of their own, see [`super::amx`]; vectors are as below it.
pub type Amx = X512<AMX>;

/// From this level of [`X512`] on there are dot products of bytes.
pub(super) const VNNI: u8 = 1;
/// From this level of [`X512`] on there are dot products of bfloat16.
pub(super) const BF16: u8 = 2;
/// From this level of [`X512`] on there are tiles.
const AMX: u8 = 3;

#[target_feature(enable = "avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
fn enter<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

#[target_feature(enable = "avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn enter_vnni<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

#[target_feature(enable = "avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
fn enter_bf16<B: SimdBody, I: Isa>(isa: I, body: B) -> B::Output {
    body.run(isa)
}

/// Mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

// Operations on registers: safe, since each function has the features that its intrinsics need.

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(op: Floats, a: __m512, b: __m512, c: __m512) -> __m512 {
    match op {
        Floats::Add => _mm512_add_ps(a, b),
        Floats::Sub => _mm512_sub_ps(a, b),
        Floats::Mul => _mm512_mul_ps(a, b),
        Floats::Div => _mm512_div_ps(a, b),
        Floats::Min => _mm512_min_ps(a, b),
        Floats::Max => _mm512_max_ps(a, b),
        Floats::MulAdd => _mm512_fmadd_ps(a, b, c),
        Floats::NegMulAdd => _mm512_fnmadd_ps(a, b, c),
        Floats::Sqrt => _mm512_sqrt_ps(a),
        Floats::Round => _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
        Floats::SwapPairs => _mm512_permute_ps::<0b10_11_00_01>(a),
        Floats::DupPairs => {
            let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            _mm512_permutexvar_ps(twice, a)
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn compare(op: Comparison, a: __m512, b: __m512) -> __mmask16 {
    match op {
        Comparison::Less => _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
        Comparison::Equal => _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn reduce(op: Reduction, a: __m512) -> f32 {
    let (low, high) = (_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
    let eight = match op {
        Reduction::Sum => _mm256_add_ps(low, high),
        Reduction::Max => _mm256_max_ps(low, high),
    };
    avx2::reduce(op, eight)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn integer(op: Integer, a: __m512i, b: __m512i) -> __m512i {
    match op {
        Integer::Add => _mm512_add_epi32(a, b),
        Integer::Sub => _mm512_sub_epi32(a, b),
        Integer::And => _mm512_and_si512(a, b),
        Integer::Or => _mm512_or_si512(a, b),
        Integer::Xor => _mm512_xor_si512(a, b),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn widen(kind: Float16, x: __m256i) -> __m512 {
    match kind {
        Float16::Half => _mm512_cvtph_ps(x),
        Float16::Brain => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x))),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn narrow(kept: Kept16, x: __m512i) -> __m256i {
    match kept {
        Kept16::Half => _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_castsi512_ps(x)),
        Kept16::Low => _mm512_cvtepi32_epi16(x),
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shift<const N: i32>(op: Shift, a: __m512i) -> __m512i {
    // The 512-bit shift by a constant takes its count as u32, which N can't be turned into on stable.
    let by = _mm512_set1_epi32(N);
    match op {
        Shift::Left => _mm512_sllv_epi32(a, by),
        Shift::Right => _mm512_srav_epi32(a, by),
    }
}

/// Of two vectors of floats, lane by lane: methods of [`Isa`] that other levels have no instruction for.
#[derive(Clone, Copy)]
enum Special {
    /// [`Isa::scale_exp2`].
    Scale,
    /// [`Isa::scale_exp2_flushed`].
    ScaleFlushed,
    /// [`Isa::negated_clamp`].
    NegatedClamp,
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn special(op: Special, a: __m512, b: __m512) -> __m512 {
    match op {
        Special::Scale => _mm512_scalef_ps(a, b),
        Special::ScaleFlushed => {
            // A denormal result, and one that rounds to 0, takes the processor over a hundred cycles.
            let normal = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(b, _mm512_set1_ps(-126.0));
            _mm512_maskz_scalef_ps(normal, a, b)
        }
        // The smaller magnitude (0b10), with a set sign (0b11 above).
        Special::NegatedClamp => _mm512_range_ps::<0b1110>(a, b),
    }
}

impl<const LEVEL: u8> X512<LEVEL> {
    #[inline(always)]
    fn special(self, op: Special, a: __m512, b: __m512) -> __m512 {
        unsafe { special(op, a, b) }
    }
}

// SAFETY: sixteen f32 or i32 fill either vector; the intrinsics are those of the features that `new` detects.
unsafe impl<const LEVEL: u8> Isa for X512<LEVEL> {
    const ID: IsaId = match LEVEL {
        0 => IsaId::Avx512,
        VNNI => IsaId::Avx512Vnni,
        BF16 => IsaId::Avx512Bf16,
        _ => IsaId::Amx,
    };
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const LOOKS_UP: bool = true;
    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;

    #[inline]
    fn new() -> Option<Self> {
        let has = Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && (LEVEL < VNNI || is_x86_feature_detected!("avx512vnni"))
            && (LEVEL < BF16 || is_x86_feature_detected!("avx512bf16"))
            && (LEVEL < AMX || super::amx::is_available());
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
                VNNI => enter_vnni(self, body),
                _ => enter_bf16(self, body),
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32 {
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, x: Self::F32) {
        unsafe { _mm512_stream_ps(p, x) }
    }
    #[inline(always)]
    fn fence(self) {
        crate::cpu::store_fence();
    }
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, x: Self::F32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(n), x) }
    }
    #[inline(always)]
    unsafe fn columns(self, src: *const f32, stride: usize, twice: bool, each: &mut impl EachColumn<Self>) {
        // Rows i and i + 4 meet in one vector while they are loaded, eight columns of each; blocks of 4 × 4 are transposed
        // within quarters, whose order is mended at the end: half as many loads as with quarters that go to their places
        // while they are loaded, for half as many shuffles more.
        unsafe {
            let below = src.add(8 * stride);
            let mut low = [quarters(src, stride); 2];
            if !twice {
                low[1] = quarters(src.add(8), stride);
                compiler_fence(SeqCst);
            }
            let mut high = [quarters(below, stride); 2];
            if !twice {
                high[1] = quarters(below.add(8), stride);
            }
            for half in 0..2 {
                if twice && half == 1 {
                    // The compiler would load the second half while columns of the first are still there, and run out of
                    // registers.
                    compiler_fence(SeqCst);
                    low[1] = quarters(src.add(8), stride);
                    high[1] = quarters(below.add(8), stride);
                }
                for i in 0..4 {
                    let (low, high) = (low[half][i], high[half][i]);
                    each.column(self, 8 * half + i, _mm512_shuffle_f32x4::<0b10_00_10_00>(low, high));
                }
                for i in 0..4 {
                    let (low, high) = (low[half][i], high[half][i]);
                    each.column(self, 8 * half + 4 + i, _mm512_shuffle_f32x4::<0b11_01_11_01>(low, high));
                }
            }
            compiler_fence(SeqCst);
        }
    }
    #[inline(always)]
    unsafe fn load_16(self, kind: Float16, p: *const u16) -> Self::F32 {
        unsafe { widen(kind, _mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_16(self, kept: Kept16, p: *mut u16, x: Self::I32) {
        unsafe { _mm256_storeu_si256(p.cast(), narrow(kept, x)) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::I32 {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(x)) }
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
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        self.special(Special::Scale, a, n)
    }
    #[inline(always)]
    fn scale_exp2_flushed(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        self.special(Special::ScaleFlushed, a, n)
    }
    #[inline(always)]
    fn negated_clamp(self, a: Self::F32, bound: f32) -> Self::F32 {
        self.special(Special::NegatedClamp, a, self.splat(bound))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], index: Self::I32) -> Self::F32 {
        unsafe {
            let (low, high) = (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(16)));
            _mm512_permutex2var_ps(low, index, high)
        }
    }

    #[inline(always)]
    fn shift<const N: i32>(self, op: Shift, a: Self::I32) -> Self::I32 {
        unsafe { shift::<N>(op, a) }
    }
    #[inline(always)]
    fn sum_lanes_i32(self, a: Self::I32) -> i32 {
        unsafe {
            let eight = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64::<1>(a));
            avx2::sum_integers(eight)
        }
    }
    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn to_i32(self, a: Self::F32) -> Self::I32 {
        unsafe { _mm512_cvtps_epi32(a) }
    }
}

/// Eight columns of eight rows: a vector for each of columns 0 to 3, with column 4 to 7 behind it, the rows in quarters.
///
/// # Safety
/// The rows are readable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn quarters(src: *const f32, stride: usize) -> [__m512; 4] {
    unsafe {
        let low = |row: usize| _mm512_castpd256_pd512(_mm256_loadu_pd(src.add(row * stride).cast()));
        let high = |row: usize| _mm256_loadu_pd(src.add((row + 4) * stride).cast());
        transpose_quarters([
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low(0), high(0))),
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low(1), high(1))),
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low(2), high(2))),
            _mm512_castpd_ps(_mm512_insertf64x4::<1>(low(3), high(3))),
        ])
    }
}

/// Transposes the 4 × 4 block that each quarter of four vectors makes.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
    [
        _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
        _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
        _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
        _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
    ]
}
