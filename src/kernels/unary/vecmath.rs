//! Elementary functions on one vector, for elementwise kernels, softmax and attention alike.
//! Each states its largest error in ULP of the exact result; `tests/suite/ulp.rs` holds it to that, on every level.
//! NaN gives NaN everywhere. All is `#[inline(always)]`: it belongs inside [`Isa::vectorize`].

pub use super::slopes::{gelu_erf_slope, gelu_tanh_slope, sigmoid_slope, silu_slope, tanh_slope};
use super::tables;
use crate::arrays;
use crate::isa::Isa;
use std::f32::consts::{LN_2, LOG2_E};

/// 1.5 · 2²³: adding it to an |x| < 2²² leaves x, rounded to the nearest integer, in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts. The first has 15 bits, so its products with |n| < 2⁹ are exact even without a fused
/// multiply-add; the sum is ln 2 to 2⁻⁴⁰.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// (eʳ − 1 − r) / r² on |r| ≤ ½ ln 2: minimax for the relative error of eʳ (2⁻²⁸), by Remez exchange.
/// All polynomials stand with the highest power first.
const EXP_TAIL: [f32; 5] = [0.001_381_422_2, 0.008_368_899, 0.041_668_404, 0.166_665_2, 0.499_999_94];

/// (2ᶠ − 1) / f on |f| ≤ ½: minimax for the relative error of 2ᶠ (2⁻²⁶), by Remez exchange.
const EXP2_TAIL: [f32; 6] = [1.535_315_4e-4, 1.339_913_2e-3, 9.618_44e-3, 5.550_332e-2, 2.402_264_8e-1, LN_2];

/// −log₂(erfc x) / x on 0 ≤ x ≤ 5: minimax for the relative error of erf (2⁻²⁵), by Remez exchange.
/// Above 5 it keeps growing, faster than the function.
const ERFC_LOG2: [f64; 10] = [
    9.024_755_559_953_911e-7,
    -1.976_465_663_470_258_3e-5,
    1.822_844_021_047_654_5e-4,
    -9.046_463_410_166_529e-4,
    2.344_517_873_473_373e-3,
    -1.494_080_171_486_290_4e-4,
    -2.768_003_041_218_662_7e-2,
    0.148_289_319_179_980_4,
    0.918_446_531_464_117_3,
    1.627_907_050_020_193,
];
/// The same in f32.
const ERF_EXPONENT: [f32; 10] = stretched(1.0);
/// The same for erfc(x/√2).
const NORMAL_EXPONENT: [f32; 10] = stretched(std::f64::consts::FRAC_1_SQRT_2);

/// The coefficients of p(s·x) · s from those of p(x).
const fn stretched(s: f64) -> [f32; 10] {
    let mut out = [0.0; 10];
    let mut power = s;
    let mut i = out.len();
    while i > 0 {
        i -= 1;
        out[i] = (ERFC_LOG2[i] * power) as f32;
        power *= s;
    }
    out
}

/// Horner's scheme.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = isa.mul_add(sum, x, isa.splat(c));
    }
    sum
}

/// x = n · ln 2 + r with integral n and |r| ≤ ½ ln 2 (and a rounding error), for |x| < 2²¹.
/// Returns ROUNDER + n and r.
#[inline(always)]
fn reduce<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let rounder = isa.splat(ROUNDER);
    let shifted = isa.mul_add(x, isa.splat(LOG2_E), rounder);
    let n = isa.sub(shifted, rounder);
    let r = isa.neg_mul_add(n, isa.splat(LN2_HIGH), x);
    (shifted, isa.neg_mul_add(n, isa.splat(LN2_LOW), r))
}

/// eʳ − 1 + more for |r| ≤ ½ ln 2, with a small relative error even near 0; in two halves, to be quick.
#[inline(always)]
fn exp_m1_reduced<I: Isa>(isa: I, r: I::F32, more: I::F32) -> I::F32 {
    let [a, b, c, d, e] = arrays::map(EXP_TAIL, |c| isa.splat(c));
    let square = isa.mul(r, r);
    let upper = isa.mul_add(a, square, isa.mul_add(b, r, c));
    let tail = isa.mul_add(upper, square, isa.mul_add(d, r, e));
    isa.mul_add(tail, square, isa.add(r, more))
}

/// eʳ for |r| ≤ ½ ln 2: a step less than [`exp_m1_reduced`] and 1.
#[inline(always)]
fn exp_reduced<I: Isa>(isa: I, r: I::F32) -> I::F32 {
    let [a, b, c, d, e] = EXP_TAIL;
    polynomial(isa, r, [a, b, c, d, e, 1.0, 1.0])
}

/// m · 2ⁿ from ROUNDER + n, for m a power of two, where that is normal.
/// The low bits of the sum are n, and all of ROUNDER's lie where the shift drops them.
#[inline(always)]
fn power_of_two<I: Isa>(isa: I, shifted: I::F32, m: f32) -> I::F32 {
    let n = isa.shl::<23>(isa.to_bits(shifted));
    isa.from_bits(isa.add_i32(n, isa.splat_i32(m.to_bits() as i32)))
}

/// eˣ: 1.1 ULP, also among the denormals.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below the first, eˣ rounds to 0; above the second, to ∞. The order of operands lets NaN through.
    let x = isa.min(isa.splat(89.0), isa.max(isa.splat(-104.0), x));
    let (shifted, r) = reduce(isa, x);
    let n = isa.sub(shifted, isa.splat(ROUNDER));
    isa.scale_exp2(exp_reduced(isa, r), n)
}

/// eˣ for x ≤ 88, for softmax, whose exponents are at most about 0.
/// 1.1 ULP; below 2⁻¹²⁶ it may be 0, as it is for −∞.
#[inline(always)]
pub fn exp_flushed<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below −104, eˣ rounds to 0. The order of operands lets NaN through.
    let (shifted, r) = reduce(isa, isa.max(isa.splat(-104.0), x));
    let n = isa.sub(shifted, isa.splat(ROUNDER));
    isa.scale_exp2_flushed(exp_reduced(isa, r), n)
}

/// 2ˣ for x ≤ 127, for attention, whose weights are powers of two. Fewer steps than [`exp_flushed`]: 1.2 ULP,
/// exact for integral x; below 2⁻¹²⁶ it may be 0, as it is for −∞.
#[inline(always)]
pub fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below −150, 2ˣ rounds to 0. The order of operands lets NaN through.
    exp2_bounded(isa, isa.max(isa.splat(-151.0), x))
}

/// [`exp2`] for −2²¹ ≤ x ≤ 127.
#[inline(always)]
fn exp2_bounded<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let rounder = isa.splat(ROUNDER);
    let n = isa.sub(isa.add(x, rounder), rounder);
    let f = isa.sub(x, n);
    let power = isa.mul_add(polynomial(isa, f, EXP2_TAIL), f, isa.splat(1.0));
    isa.scale_exp2_flushed(power, n)
}

/// a · σ(x) = a / (1 + e⁻ˣ), and 0 for x < −87, where it is below |a| · 1.7e-38.
///
/// e⁻ˣ = s·(1 + t) is never rounded itself: the denominator is s·t + (s + 1). Where s + 1 has no room for the 1,
/// it goes into t, as 1/s.
#[inline(always)]
fn logistic<I: Isa>(isa: I, a: I::F32, x: I::F32) -> I::F32 {
    // Above 87, 1 + e⁻ˣ is 1. Results at the other end are dropped later, so it needs no bound.
    let y = isa.max(isa.splat(-87.0), isa.sub(isa.zero(), x));
    let (shifted, r) = reduce(isa, y);
    let n = isa.sub(shifted, isa.splat(ROUNDER));
    let s = power_of_two(isa, shifted, 1.0);
    // 2⁻ⁿ, from the exponents' sum.
    let inverse = isa.from_bits(isa.sub_i32(isa.splat_i32(254 << 23), isa.to_bits(s)));
    let lost = isa.select(isa.lt(isa.splat(23.5), n), inverse, isa.zero());
    let t = exp_m1_reduced(isa, r, lost);
    let denominator = isa.mul_add(s, t, isa.add(s, isa.splat(1.0)));
    isa.select(isa.lt(x, isa.splat(-87.0)), isa.zero(), isa.div(a, denominator))
}

/// The place of |x| in a table of steps: the number of the nearest one (in the low bits), how far |x| is from it,
/// and |x| itself. From the last step on, |x| counts as that.
#[inline(always)]
fn place<I: Isa>(isa: I, x: I::F32, step: f32) -> (I::I32, I::F32, I::F32) {
    let rounder = isa.splat(ROUNDER);
    let a = isa.sub(isa.zero(), isa.negated_clamp(x, 31.0 * step));
    let shifted = isa.mul_add(a, isa.splat(1.0 / step), rounder);
    let r = isa.neg_mul_add(isa.sub(shifted, rounder), isa.splat(step), a);
    (isa.to_bits(shifted), r, a)
}

/// The polynomial of an interval.
#[inline(always)]
fn piece<I: Isa, const N: usize>(isa: I, index: I::I32, r: I::F32, table: &[[f32; 32]; N]) -> I::F32 {
    let mut sum = isa.lookup(&table[0], index);
    for line in &table[1..] {
        sum = isa.mul_add(sum, r, isa.lookup(line, index));
    }
    sum
}

/// An odd function that reaches ±1, from its values on the positive side; NaN stays.
#[inline(always)]
fn odd<I: Isa, const N: usize>(isa: I, x: I::F32, step: f32, table: &[[f32; 32]; N]) -> I::F32 {
    let (index, r, _) = place(isa, x, step);
    isa.select(isa.eq(x, x), isa.copysign(piece(isa, index, r, table), x), x)
}

/// σ(−|x|): 2 ULP, below e⁻⁸⁷ anything down to 0; for a NaN some number or NaN.
#[inline(always)]
pub fn logistic_tail<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        return logistic_piece(isa, x).0;
    }
    let negative = isa.sub(isa.zero(), isa.abs(x));
    logistic(isa, isa.splat(1.0), negative)
}

/// ½ erfc(|x|/√2), the normal distribution beyond |x|: 3 ULP while it is above 0.1, elsewhere 2e-8; for a NaN
/// some number or NaN.
#[inline(always)]
pub fn normal_tail<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        let (index, r, _) = place(isa, x, tables::TAIL_STEP);
        return piece(isa, index, r, &tables::NORMAL_TAIL);
    }
    normal_power(isa, x).0
}

/// σ(−|x|) by polynomials, and −|x|; for a NaN anything.
///
/// With −|x| = n · ln 2 + r it is 2ⁿ · eʳ / (1 + 2ⁿ·eʳ), and there is a polynomial in r for each n down to −31.
#[inline(always)]
fn logistic_piece<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let rounder = isa.splat(ROUNDER);
    let v = isa.negated_clamp(x, 104.5);
    let (shifted, r) = reduce(isa, v);
    let index = isa.to_bits(isa.max(isa.splat(ROUNDER - 31.0), shifted));
    let y = piece(isa, index, r, &tables::LOGISTIC);
    (isa.scale_exp2(y, isa.sub(shifted, rounder)), v)
}

/// max(x, 0) − |x| · tail(|x|).
#[inline(always)]
fn rectified<I: Isa, const N: usize>(isa: I, x: I::F32, tail: &[[f32; 32]; N]) -> I::F32 {
    let (index, r, a) = place(isa, x, tables::TAIL_STEP);
    isa.neg_mul_add(a, piece(isa, index, r, tail), relu(isa, x))
}

/// tanh x: 2 ULP.
///
/// With h = ½(e^(2|x|) − 1), tanh |x| = h / (1 + h); h is built without cancellation as s·t + (s − ½).
/// Levels that look up have polynomials for it.
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        return odd(isa, x, tables::TANH_STEP, &tables::TANH);
    }
    // From 9.01 on, tanh x rounds to 1.
    let doubled = isa.min(isa.splat(20.0), isa.mul(isa.abs(x), isa.splat(2.0)));
    let (shifted, r) = reduce(isa, doubled);
    let s = power_of_two(isa, shifted, 0.5);
    let h = isa.mul_add(s, exp_m1_reduced(isa, r, isa.zero()), isa.sub(s, isa.splat(0.5)));
    let quotient = isa.div(h, isa.add(h, isa.splat(1.0)));
    // The same as h − h · quotient, which rounds less where h is small.
    let small = isa.neg_mul_add(h, quotient, h);
    isa.copysign(isa.select(isa.lt(h, isa.splat(0.5)), small, quotient), x)
}

/// erf x: 3 ULP.
///
/// erf |x| = 1 − 2^(−w), w = −log₂ erfc |x| a polynomial; the difference is built without cancellation.
/// Levels that look up have polynomials for it.
#[inline(always)]
pub fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        return odd(isa, x, tables::ERF_STEP, &tables::ERF);
    }
    // From 3.84 on, erf x rounds to 1.
    let a = isa.min(isa.splat(5.0), isa.abs(x));
    let minus_w = isa.neg_mul_add(a, polynomial(isa, a, ERF_EXPONENT), isa.zero());
    let rounder = isa.splat(ROUNDER);
    let shifted = isa.add(minus_w, rounder);
    let f = isa.sub(minus_w, isa.sub(shifted, rounder));
    let t = isa.mul(polynomial(isa, f, EXP2_TAIL), f);
    let s = power_of_two(isa, shifted, 1.0);
    isa.copysign(isa.neg_mul_add(s, t, isa.sub(isa.splat(1.0), s)), x)
}

/// σ(x) = 1 / (1 + e⁻ˣ): 2 ULP from −87 on; 0 below, which is off by less than 1.7e-38.
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        let (tail, _) = logistic_piece(isa, x);
        let y = isa.select(isa.lt(x, isa.zero()), tail, isa.sub(isa.splat(1.0), tail));
        return isa.select(isa.eq(x, x), y, x);
    }
    logistic(isa, isa.splat(1.0), x)
}

/// SiLU, x · σ(x): 2 ULP from −87 on; 0 below, which is off by less than 1.5e-36.
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        let (tail, v) = logistic_piece(isa, x);
        return isa.mul_add(v, tail, relu(isa, x));
    }
    logistic(isa, x, x)
}

/// GELU in its tanh form, x · σ(2u) with u = √(2/π) · (x + 0.044715 x³): 3 ULP from −1 on; below, 5e-8 absolute.
/// (Far down, the result's relative error is 2u's absolute one, which grows.)
#[inline(always)]
pub fn gelu_tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        return rectified(isa, x, &tables::TANH_TAIL);
    }
    logistic(isa, x, gelu_tanh_exponent(isa, x))
}

/// 2u = 2√(2/π) · (x + 0.044715 x³).
#[inline(always)]
pub fn gelu_tanh_exponent<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // 2√(2/π), and that times 0.044715.
    let linear = isa.splat(1.595_769);
    let cubic = isa.splat(0.071_354_814);
    isa.mul(x, isa.mul_add(isa.mul(x, x), cubic, linear))
}

/// GELU in its erf form, ½x · (1 + erf(x/√2)): 3 ULP from −1 on; below, 5e-8 absolute.
///
/// Computed as max(x, 0) − |x| · ½ erfc(|x|/√2), the last factor as 2^(−w − 1): nothing cancels.
#[inline(always)]
pub fn gelu_erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    if I::LOOKS_UP {
        return rectified(isa, x, &tables::NORMAL_TAIL);
    }
    let (tail, a) = normal_power(isa, x);
    isa.neg_mul_add(a, tail, relu(isa, x))
}

/// ½ erfc(|x|/√2) as a power of two, and |x|.
#[inline(always)]
fn normal_power<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    // At 13, w is past 150 and the power 0: an infinity can stop there.
    let a = isa.min(isa.splat(13.0), isa.abs(x));
    let exponent = isa.neg_mul_add(a, polynomial(isa, a, NORMAL_EXPONENT), isa.splat(-1.0));
    (exp2_bounded(isa, exponent), a)
}

/// max(x, 0).
#[inline(always)]
pub fn relu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // The order of operands lets NaN through.
    isa.max(isa.zero(), x)
}
