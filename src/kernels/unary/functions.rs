//! The functions that elementwise kernels apply, as types: one a row of the table.
//! The arithmetic is [`vecmath`]'s; here stand only names and numbers of arguments.

use super::vecmath;
use crate::isa::Isa;

/// A function of N numbers, computed on N vectors.
pub(super) trait Function<const N: usize>: Copy {
    /// The operation's name in the table.
    const NAME: &'static str;
    /// The function of each lane. Implementations are `#[inline(always)]`.
    fn call<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

#[derive(Clone, Copy, Default)]
pub(super) struct Exp;

impl Function<1> for Exp {
    const NAME: &'static str = "exp";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::exp(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Tanh;

impl Function<1> for Tanh {
    const NAME: &'static str = "tanh";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::tanh(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Erf;

impl Function<1> for Erf {
    const NAME: &'static str = "erf";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::erf(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Sigmoid;

impl Function<1> for Sigmoid {
    const NAME: &'static str = "sigmoid";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::sigmoid(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluTanh;

impl Function<1> for GeluTanh {
    const NAME: &'static str = "gelu_tanh";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::gelu_tanh(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeluErf;

impl Function<1> for GeluErf {
    const NAME: &'static str = "gelu_erf";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::gelu_erf(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Silu;

impl Function<1> for Silu {
    const NAME: &'static str = "silu";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::silu(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Relu;

impl Function<1> for Relu {
    const NAME: &'static str = "relu";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        vecmath::relu(isa, x)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Add;

impl Function<2> for Add {
    const NAME: &'static str = "add";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.add(a, b)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct Mul;

impl Function<2> for Mul {
    const NAME: &'static str = "mul";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [a, b]: [I::F32; 2]) -> I::F32 {
        isa.mul(a, b)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct SwiGlu;

impl Function<2> for SwiGlu {
    const NAME: &'static str = "swiglu";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::silu(isa, gate), up)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeGlu;

impl Function<2> for GeGlu {
    const NAME: &'static str = "geglu";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::gelu_tanh(isa, gate), up)
    }
}

#[derive(Clone, Copy, Default)]
pub(super) struct GeGluErf;

impl Function<2> for GeGluErf {
    const NAME: &'static str = "geglu_erf";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [gate, up]: [I::F32; 2]) -> I::F32 {
        isa.mul(vecmath::gelu_erf(isa, gate), up)
    }
}

/// factor · x + y.
#[derive(Clone, Copy)]
pub(super) struct Axpy(pub f32);

impl Function<2> for Axpy {
    const NAME: &'static str = "axpy";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, y]: [I::F32; 2]) -> I::F32 {
        isa.mul_add(isa.splat(self.0), x, y)
    }
}

/// Multiplication by a number.
#[derive(Clone, Copy)]
pub(super) struct Scale(pub f32);

impl Function<1> for Scale {
    const NAME: &'static str = "scale";
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.mul(isa.splat(self.0), x)
    }
}
