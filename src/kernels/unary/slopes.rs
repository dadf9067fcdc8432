//! Derivatives of the activations on one vector. Each is off by at most 8 · 2⁻²⁴, absolutely; those of tanh and sigmoid
//! by 12 · 2⁻²⁴ of their value down to 1e-37. NaN gives NaN, infinities the limits.

use super::vecmath::{exp_flushed, gelu_tanh_exponent, logistic_tail, normal_tail};
use crate::isa::Isa;

/// From here on, the derivatives of GELU are those of ReLU: an infinity can stop there.
const FAR: f32 = 14.0;

/// σ'(x) = σ(x)·σ(−x), from the smaller of both.
#[inline(always)]
pub fn sigmoid_slope<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let tail = logistic_tail(isa, x);
    let slope = isa.mul(tail, isa.sub(isa.splat(1.0), tail));
    isa.select(isa.eq(x, x), slope, x)
}

/// tanh'(x) = 4·σ'(2x).
#[inline(always)]
pub fn tanh_slope<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    isa.mul(isa.splat(4.0), sigmoid_slope(isa, isa.add(x, x)))
}

/// SiLU's derivative, σ(x) + x·σ'(x).
#[inline(always)]
pub fn silu_slope<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let tail = logistic_tail(isa, x);
    let both = isa.mul(tail, isa.sub(isa.splat(1.0), tail));
    isa.mul_add(clamped(isa, x, 104.0), both, one_sided(isa, x, tail))
}

/// The derivative of GELU's tanh form: σ(2u) + x · σ'(2u) · 2u'.
#[inline(always)]
pub fn gelu_tanh_slope<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = clamped(isa, x, FAR);
    let tail = logistic_tail(isa, gelu_tanh_exponent(isa, x));
    let both = isa.mul(tail, isa.sub(isa.splat(1.0), tail));
    // 2√(2/π), and that times 3 · 0.044715.
    let slope = isa.mul_add(isa.mul(x, x), isa.splat(0.214_064_44), isa.splat(1.595_769));
    isa.mul_add(isa.mul(x, slope), both, one_sided(isa, x, tail))
}

/// The derivative of GELU's erf form: Φ(x) + x · φ(x), φ the density of the normal distribution.
#[inline(always)]
pub fn gelu_erf_slope<I: Isa>(isa: I, x: I::F32) -> I::F32 {
    let x = clamped(isa, x, FAR);
    let power = exp_flushed(isa, isa.mul(isa.mul(x, x), isa.splat(-0.5)));
    // 1/√(2π)
    let density = isa.mul(power, isa.splat(0.398_942_3));
    isa.mul_add(x, density, one_sided(isa, x, normal_tail(isa, x)))
}

/// A distribution's value at x from its tail beyond |x|.
#[inline(always)]
fn one_sided<I: Isa>(isa: I, x: I::F32, tail: I::F32) -> I::F32 {
    isa.select(isa.lt(x, isa.zero()), tail, isa.sub(isa.splat(1.0), tail))
}

/// x between both bounds; NaN stays.
#[inline(always)]
fn clamped<I: Isa>(isa: I, x: I::F32, bound: f32) -> I::F32 {
    isa.min(isa.splat(bound), isa.max(isa.splat(-bound), x))
}
