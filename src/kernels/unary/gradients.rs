//! The derivatives that elementwise kernels apply: one value back from `dy`, or two for a gated pair.
//! The slopes are [`vecmath`]'s; here stand only names and numbers of arguments.

use super::functions::Function;
use super::vecmath;
use crate::isa::Isa;

#[derive(Clone, Copy, Default)]
pub(super) struct TanhBackward;

impl Function<2> for TanhBackward {
    const NAME: &'static str = "tanh_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::tanh_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct SigmoidBackward;

impl Function<2> for SigmoidBackward {
    const NAME: &'static str = "sigmoid_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::sigmoid_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluTanhBackward;

impl Function<2> for GeluTanhBackward {
    const NAME: &'static str = "gelu_tanh_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::gelu_tanh_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluErfBackward;

impl Function<2> for GeluErfBackward {
    const NAME: &'static str = "gelu_erf_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::gelu_erf_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct SiluBackward;

impl Function<2> for SiluBackward {
    const NAME: &'static str = "silu_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.mul(dy, vecmath::silu_slope(isa, x))
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct ReluBackward;

impl Function<2> for ReluBackward {
    const NAME: &'static str = "relu_backward";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, dy]: [I::F32; 2]) -> I::F32 {
        isa.select(isa.lt(isa.zero(), x), dy, isa.zero())
    }
}

/// What flows back into both arguments of a gated pair, f(gate) · up.
pub(super) trait Gated: Copy {
    /// The operation's name in the table.
    const NAME: &'static str;
    /// f(gate) and f'(gate). Implementations are `#[inline(always)]`.
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32);
}

#[derive(Clone, Copy)]
pub(super) struct SwiGluBackward;

impl Gated for SwiGluBackward {
    const NAME: &'static str = "swiglu_backward";
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::silu(isa, gate), vecmath::silu_slope(isa, gate))
    }
}

#[derive(Clone, Copy)]
pub(super) struct GeGluBackward;

impl Gated for GeGluBackward {
    const NAME: &'static str = "geglu_backward";
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::gelu_tanh(isa, gate), vecmath::gelu_tanh_slope(isa, gate))
    }
}

#[derive(Clone, Copy)]
pub(super) struct GeGluErfBackward;

impl Gated for GeGluErfBackward {
    const NAME: &'static str = "geglu_erf_backward";
    #[inline(always)]
    fn value_and_slope<I: Isa>(isa: I, gate: I::F32) -> (I::F32, I::F32) {
        (vecmath::gelu_erf(isa, gate), vecmath::gelu_erf_slope(isa, gate))
    }
}
