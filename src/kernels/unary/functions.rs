//! The functions that elementwise kernels apply, as types: one for each kernel.
//! The arithmetic is in [`vecmath`]; these types only give it a number of arguments.

use super::vecmath;
use crate::isa::Isa;
use crate::kernels::vectors::Function;

#[derive(Clone, Copy, Default)]
pub(super) struct Exp;

impl Function<1> for Exp {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::exp(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Tanh;

impl Function<1> for Tanh {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::tanh(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Erf;

impl Function<1> for Erf {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::erf(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Sigmoid;

impl Function<1> for Sigmoid {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::sigmoid(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct GeluTanh;

impl Function<1> for GeluTanh {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::gelu_tanh(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct GeluErf;

impl Function<1> for GeluErf {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::gelu_erf(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Silu;

impl Function<1> for Silu {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::silu(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Relu;

impl Function<1> for Relu {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::relu(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Add;

impl Function<2> for Add {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.add(a, b)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Mul;

impl Function<2> for Mul {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.mul(a, b)
    }
}

#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct SwiGlu;

impl Function<2> for SwiGlu {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::silu(isa, gate), up)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeGlu;

impl Function<2> for GeGlu {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::gelu_tanh(isa, gate), up)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeGluErf;

impl Function<2> for GeGluErf {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::gelu_erf(isa, gate), up)
    }
}

/// factor · x + y, of y and x in this order: the output is y.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Axpy(pub f32);

impl Function<2> for Axpy {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [y, x]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(isa.splat(self.0), x, y)
    }
}

/// factor · x.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Scale(pub f32);

impl Function<1> for Scale {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.mul(isa.splat(self.0), x)
    }
}

impl From<f32> for Axpy {
    #[inline(always)]
    fn from(factor: f32) -> Self {
        Self(factor)
    }
}

impl From<f32> for Scale {
    #[inline(always)]
    fn from(factor: f32) -> Self {
        Self(factor)
    }
}
