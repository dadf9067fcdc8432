//! Elementary functions on one vector, for elementwise kernels, softmax and attention alike.
//! Each says its largest error over all f32 inputs in ULP of the result; `tests/ulp.rs` measures them.
//! NaN gives NaN everywhere. Everything is `#[inline(always)]`: it belongs inside [`Isa::vectorize`].

use crate::isa::Isa;
use std::f32::consts::LOG2_E;

/// 1.5 · 2²³: adding it to an |x| < 2²² leaves x, rounded to the nearest integer, in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts. The first has 15 bits, so its products with |n| < 2⁹ are exact even without a fused
/// multiply-add; the sum is ln 2 to 2⁻⁴⁰.
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_8e-6;

/// The coefficients of (eʳ − 1 − r) / r² on |r| ≤ ½ ln 2, highest power first.
/// Minimax for the relative error of eʳ (2⁻²⁸), found by Remez exchange.
const EXP_TAIL: [f32; 5] = [0.001_381_422_2, 0.008_368_899, 0.041_668_404, 0.166_665_2, 0.499_999_94];

/// Horner's scheme, highest power first.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(isa: I, x: I::F32, coefficients: [f32; N]) -> I::F32 {
    let mut sum = isa.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        sum = isa.mul_add(sum, x, isa.splat(c));
    }
    sum
}

/// x as n · ln 2 + r with integral n and |r| ≤ ½ ln 2 (and a rounding error). For |x| < 2²¹.
#[inline(always)]
fn reduce<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let rounder = isa.splat(ROUNDER);
    let n = isa.sub(isa.mul_add(x, isa.splat(LOG2_E), rounder), rounder);
    let r = isa.neg_mul_add(n, isa.splat(LN2_HIGH), x);
    (n, isa.neg_mul_add(n, isa.splat(LN2_LOW), r))
}

/// eʳ for |r| ≤ ½ ln 2.
#[inline(always)]
fn exp_reduced<I: Isa>(isa: I, r: I::F32) -> I::F32 {
    let one = isa.splat(1.0);
    let tail = polynomial(isa, r, EXP_TAIL);
    isa.mul_add(isa.mul_add(tail, r, one), r, one)
}

/// eˣ.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below the first, eˣ rounds to 0; above the second, to ∞. The order of operands lets NaN through.
    let x = isa.min(isa.splat(89.0), isa.max(isa.splat(-104.0), x));
    let (n, r) = reduce(isa, x);
    isa.scale_exp2(exp_reduced(isa, r), n)
}

/// The coefficients of (2ᶠ − 1) / f on |f| ≤ ½, highest power first.
/// Minimax for the relative error of 2ᶠ (2⁻²⁶), found by Remez exchange.
const EXP2_TAIL: [f32; 6] =
    [1.535_315_4e-4, 1.339_913_2e-3, 9.618_44e-3, 5.550_332e-2, 2.402_264_8e-1, 6.931_471_8e-1];

/// 2ˣ for x ≤ 127: what softmax and attention need, whose exponents are at most about 0.
/// One step less than [`exp`], and exact for integral x. −∞ gives 0.
#[inline(always)]
pub fn exp2<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // Below −150, 2ˣ rounds to 0. The order of operands lets NaN through.
    let x = isa.max(isa.splat(-151.0), x);
    let rounder = isa.splat(ROUNDER);
    let n = isa.sub(isa.add(x, rounder), rounder);
    let f = isa.sub(x, n);
    let power = isa.mul_add(polynomial(isa, f, EXP2_TAIL), f, isa.splat(1.0));
    isa.scale_exp2(power, n)
}

/// tanh x.
///
/// With e = e^(2|x|) − 1, tanh |x| = e / (e + 2); e is built without cancellation as 2ⁿ·(eʳ − 1) + (2ⁿ − 1).
#[inline(always)]
pub fn tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // From 9.01 on, tanh x rounds to 1.
    let doubled = isa.min(isa.splat(20.0), isa.mul(isa.abs(x), isa.splat(2.0)));
    let (n, r) = reduce(isa, doubled);
    let square = isa.mul(r, r);
    let reduced = isa.mul_add(polynomial(isa, r, EXP_TAIL), square, r);
    let power = isa.exp2_integral(n);
    let e = isa.mul_add(power, reduced, isa.sub(power, isa.splat(1.0)));
    isa.copysign(isa.div(e, isa.add(e, isa.splat(2.0))), x)
}

/// Numerator and denominator of erf x / x in x², highest power first: minimax for the relative error
/// (1.1e-7) on |x| ≤ 3.9, found by Remez exchange. All positive, so nothing cancels.
const ERF_NUMERATOR: [f32; 6] =
    [1.922_517_5e-6, 2.792_687_7e-4, 3.879_535_3e-3, 5.311_011_6e-2, 1.942_576_6e-1, 1.128_379_2];
const ERF_DENOMINATOR: [f32; 6] =
    [3.645_382_8e-5, 1.173_993_3e-3, 1.521_713_6e-2, 1.155_650_7e-1, 5.054_896_4e-1, 1.0];

/// erf x.
#[inline(always)]
pub fn erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // From 3.84 on, erf x rounds to 1.
    let bound = isa.splat(3.9);
    let x = isa.min(bound, isa.max(isa.splat(-3.9), x));
    let square = isa.mul(x, x);
    let numerator = polynomial(isa, square, ERF_NUMERATOR);
    let denominator = polynomial(isa, square, ERF_DENOMINATOR);
    isa.div(isa.mul(x, numerator), denominator)
}

/// Numerator and denominator of σ(x) = s / t, both in [0, 2]: e^(−|x|) or 1, over 1 + e^(−|x|).
#[inline(always)]
fn sigmoid_parts<I: Isa>(isa: I, x: I::F32) -> (I::F32, I::F32) {
    let one = isa.splat(1.0);
    let negative = isa.from_bits(isa.or(isa.to_bits(x), isa.splat_i32(i32::MIN)));
    let e = exp(isa, negative);
    (isa.select(isa.lt(x, isa.zero()), e, one), isa.add(one, e))
}

/// σ(x) = 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (numerator, denominator) = sigmoid_parts(isa, x);
    isa.div(numerator, denominator)
}

/// SiLU: x · σ(x).
#[inline(always)]
pub fn silu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let (numerator, denominator) = sigmoid_parts(isa, x);
    isa.div(isa.mul(x, numerator), denominator)
}

/// GELU in its tanh form: x · σ(2u), u = √(2/π) · (x + 0.044715 x³).
#[inline(always)]
pub fn gelu_tanh<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // 2√(2/π), and that times 0.044715.
    let linear = isa.splat(1.595_769_1);
    let cubic = isa.splat(0.071_354_814);
    let u = isa.mul(x, isa.mul_add(isa.mul(x, x), cubic, linear));
    let (numerator, denominator) = sigmoid_parts(isa, u);
    isa.div(isa.mul(x, numerator), denominator)
}

/// GELU in its erf form: ½x · (1 + erf(x/√2)).
#[inline(always)]
pub fn gelu_erf<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let half = isa.mul(x, isa.splat(0.5));
    let erf = erf(isa, isa.mul(x, isa.splat(std::f32::consts::FRAC_1_SQRT_2)));
    isa.mul_add(half, erf, half)
}

/// max(x, 0).
#[inline(always)]
pub fn relu<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    // The order of operands lets NaN through.
    isa.max(isa.zero(), x)
}
