//! The derivatives that elementwise kernels apply: one gradient from `dy`, or two for a gated pair.
//! The slopes are in [`vecmath`]; these types only give them a number of arguments.

use super::vecmath;
use crate::isa::Isa;
use crate::kernels::vectors::Function;

#[derive(Clone, Copy, Default)]
pub(super) struct TanhBackward;

impl Function<2> for TanhBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::tanh_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct SigmoidBackward;

impl Function<2> for SigmoidBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::sigmoid_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluTanhBackward;

impl Function<2> for GeluTanhBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::gelu_tanh_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluErfBackward;

impl Function<2> for GeluErfBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::gelu_erf_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct SiluBackward;

impl Function<2> for SiluBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::silu_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct ReluBackward;

impl Function<2> for ReluBackward {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.select(isa.lt(isa.zero(), x), dy, isa.zero())
    }
}

/// The function f of a gated pair f(gate) · up, and its derivative.
pub(super) trait Gated {
    /// f(gate) and f'(gate). Implementations are `#[inline(always)]`.
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32);
}

#[derive(Clone, Copy)]
pub(super) struct SwiGluBackward;

impl Gated for SwiGluBackward {
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::silu(isa, gate), vecmath::silu_slope(isa, gate))
    }
}

#[derive(Clone, Copy)]
pub(super) struct GeGluBackward;

impl Gated for GeGluBackward {
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::gelu_tanh(isa, gate), vecmath::gelu_tanh_slope(isa, gate))
    }
}

#[derive(Clone, Copy)]
pub(super) struct GeGluErfBackward;

impl Gated for GeGluErfBackward {
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::gelu_erf(isa, gate), vecmath::gelu_erf_slope(isa, gate))
    }
}
