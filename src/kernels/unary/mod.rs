//! Elementwise kernels: exp, tanh, erf, sigmoid, GELU, SiLU, ReLU and their derivatives; sums and products; gated
//! pairs, forward and backward.
//!
//! Contract: element i of the output depends on element i of the inputs only, by the same operations wherever it
//! stands, so any split into portions gives the same bits. Any alignment. The output may be one of the inputs, but
//! must not overlap one otherwise. Each function of [`vecmath`] states its error in ULP, and its results for NaN and
//! infinities.
//!
//! `*_backward` takes x and dy, in this order, and gives dy · f'(x). Outputs of [`STREAM_BYTES`] and more that are
//! none of the inputs are written past the caches.

pub(super) mod functions;
mod gradients;
mod map;
mod slopes;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod vecmath;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::routine::{Code, Kernel};
use super::table::{self, Entry};
use super::vectors::Function;
use crate::isa::{Isa, IsaId};
use gradients::Gated;
use map::{Factored, GatedMap, Map, MapArgs, apply, apply_in_place};

pub use map::STREAM_BYTES;

/// `dst[i] = f(src[i])`.
#[derive(Clone, Copy, Debug)]
pub struct Unary {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<MapArgs<1>>,
}

impl Unary {
    const fn at<I: Isa, F: Function<1> + Default>(op: &'static str) -> Self {
        Self { info: KernelInfo::of::<I>(op, "f32"), code: Code::of::<I, Map<F>>() }
    }

    /// `dst[i] = f(src[i])` for as many elements as both slices have; they should have one length.
    pub fn apply(&self, src: &[f32], dst: &mut [f32]) {
        apply(&self.code, 0.0, [src], dst);
    }

    /// `x[i] = f(x[i])`.
    pub fn apply_in_place(&self, x: &mut [f32]) {
        apply_in_place(&self.code, 0.0, x, []);
    }

    /// `dst[i] = f(src[i])` for i < n.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` floats; they are the same or do not overlap.
    #[doc(hidden)]
    pub unsafe fn run(&self, src: *const f32, dst: *mut f32, n: usize) {
        // SAFETY: `select` has proved the level; the caller promises the memory.
        unsafe { self.code.run(&MapArgs { factor: 0.0, src: [src], dst, n }) }
    }
}

/// `dst[i] = f(a[i], b[i])`.
#[derive(Clone, Copy, Debug)]
pub struct Binary {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<MapArgs<2>>,
}

impl Binary {
    const fn at<I: Isa, F: Function<2> + Default>(op: &'static str) -> Self {
        Self { info: KernelInfo::of::<I>(op, "f32"), code: Code::of::<I, Map<F>>() }
    }

    /// `dst[i] = f(a[i], b[i])` for as many elements as all three slices have; they should have one length.
    pub fn apply(&self, a: &[f32], b: &[f32], dst: &mut [f32]) {
        apply(&self.code, 0.0, [a, b], dst);
    }

    /// `a[i] = f(a[i], b[i])` for as many elements as both slices have; they should have one length.
    pub fn apply_in_place(&self, a: &mut [f32], b: &[f32]) {
        apply_in_place(&self.code, 0.0, a, [b]);
    }

    /// `dst[i] = f(a[i], b[i])` for i < n.
    ///
    /// # Safety
    /// `a` and `b` are readable and `dst` writable for `n` floats; `dst` is one of them or overlaps neither.
    #[doc(hidden)]
    pub unsafe fn run(&self, a: *const f32, b: *const f32, dst: *mut f32, n: usize) {
        // SAFETY: `select` has proved the level; the caller promises the memory.
        unsafe { self.code.run(&MapArgs { factor: 0.0, src: [a, b], dst, n }) }
    }
}

/// `dst[i] = factor · src[i]`.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<MapArgs<1>>,
}

impl Scale {
    const fn at<I: Isa>() -> Self {
        let code = Code::of::<I, Factored<functions::Scale>>();
        Self { info: KernelInfo::of::<I>("scale", "f32"), code }
    }

    /// `dst[i] = factor · src[i]` for as many elements as both slices have; they should have one length.
    pub fn apply(&self, src: &[f32], factor: f32, dst: &mut [f32]) {
        apply(&self.code, factor, [src], dst);
    }

    /// `x[i] = factor · x[i]`.
    pub fn apply_in_place(&self, x: &mut [f32], factor: f32) {
        apply_in_place(&self.code, factor, x, []);
    }

    /// `dst[i] = factor · src[i]` for i < n.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` floats; they are the same or do not overlap.
    #[doc(hidden)]
    pub unsafe fn run(&self, src: *const f32, factor: f32, dst: *mut f32, n: usize) {
        // SAFETY: `select` has proved the level; the caller promises the memory.
        unsafe { self.code.run(&MapArgs { factor, src: [src], dst, n }) }
    }
}

/// `y[i] = factor · x[i] + y[i]`.
#[derive(Clone, Copy, Debug)]
pub struct Axpy {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<MapArgs<2>>,
}

impl Axpy {
    const fn at<I: Isa>() -> Self {
        let code = Code::of::<I, Factored<functions::Axpy>>();
        Self { info: KernelInfo::of::<I>("axpy", "f32"), code }
    }

    /// `y[i] = factor · x[i] + y[i]` for as many elements as both slices have; they should have one length.
    pub fn apply(&self, factor: f32, x: &[f32], y: &mut [f32]) {
        apply_in_place(&self.code, factor, y, [x]);
    }

    /// `y[i] = factor · x[i] + y[i]` for i < n, with one rounding at the end, except on the scalar level.
    ///
    /// # Safety
    /// `x` is readable and `y` readable and writable for `n` floats; they are the same or do not overlap.
    #[doc(hidden)]
    pub unsafe fn run(&self, factor: f32, x: *const f32, y: *mut f32, n: usize) {
        // SAFETY: `select` has proved the level; the caller promises the memory.
        unsafe { self.code.run(&MapArgs { factor, src: [y, x], dst: y, n }) }
    }
}

/// The factors of gated pairs y = f(gate) · up, and their gradients. All arrays hold `n` floats.
///
/// # Memory
/// Inputs are readable and outputs writable for `n` floats. An output is one of the inputs or overlaps none, and
/// the outputs do not overlap each other.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct GatedArgs {
    /// Arguments of f.
    pub gate: *const f32,
    /// The other factors.
    pub up: *const f32,
    /// Gradient of y.
    pub dy: *const f32,
    /// Gradient of the gate, dy · up · f'(gate): written.
    pub dgate: *mut f32,
    /// Gradient of `up`, dy · f(gate): written.
    pub dup: *mut f32,
    /// Number of elements.
    pub n: usize,
}

/// The gradients of a gated pair's factors.
pub type GatedBackward = Kernel<GatedArgs>;

impl Kernel<GatedArgs> {
    const fn at<I: Isa, F: Gated>(op: &'static str) -> Self {
        Self { info: KernelInfo::of::<I>(op, "f32"), code: Code::of::<I, GatedMap<F>>() }
    }

    /// `dgate = dy · up · f'(gate)` and `dup = dy · f(gate)` for as many elements as all slices have; they should have
    /// one length.
    pub fn apply(&self, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let lengths = [gate.len(), up.len(), dy.len(), dgate.len(), dup.len()];
        let n = lengths.into_iter().fold(usize::MAX, usize::min);
        debug_assert_eq!(lengths, [n; 5]);
        let (gate, up, dy) = (gate.as_ptr(), up.as_ptr(), dy.as_ptr());
        let (dgate, dup) = (dgate.as_mut_ptr(), dup.as_mut_ptr());
        // SAFETY: all five slices hold n floats, and the outputs are borrowed mutably.
        unsafe { self.run(&GatedArgs { gate, up, dy, dgate, dup, n }) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct UnaryKernels {
    /// eˣ; see [`vecmath::exp`].
    pub exp: Unary,
    /// tanh x; see [`vecmath::tanh`].
    pub tanh: Unary,
    /// erf x; see [`vecmath::erf`].
    pub erf: Unary,
    /// σ(x) = 1 / (1 + e⁻ˣ); see [`vecmath::sigmoid`].
    pub sigmoid: Unary,
    /// GELU in its tanh form; see [`vecmath::gelu_tanh`].
    pub gelu_tanh: Unary,
    /// GELU in its erf form; see [`vecmath::gelu_erf`].
    pub gelu_erf: Unary,
    /// x · σ(x); see [`vecmath::silu`].
    pub silu: Unary,
    /// max(x, 0); NaN stays.
    pub relu: Unary,
    /// a + b.
    pub add: Binary,
    /// a · b.
    pub mul: Binary,
    /// silu(gate) · up, in this order of arguments.
    pub swiglu: Binary,
    /// gelu(gate) · up, in this order of arguments, with the tanh form of GELU.
    pub geglu: Binary,
    /// gelu(gate) · up, in this order of arguments, with the erf form of GELU.
    pub geglu_erf: Binary,
    /// dy · tanh'(x).
    pub tanh_backward: Binary,
    /// dy · σ'(x).
    pub sigmoid_backward: Binary,
    /// dy · gelu'(x), tanh form.
    pub gelu_tanh_backward: Binary,
    /// dy · gelu'(x), erf form.
    pub gelu_erf_backward: Binary,
    /// dy · silu'(x).
    pub silu_backward: Binary,
    /// dy where x is above 0, else 0.
    pub relu_backward: Binary,
    /// factor · x.
    pub scale: Scale,
    /// factor · x + y.
    pub axpy: Axpy,
    /// Gradients of `swiglu`.
    pub swiglu_backward: GatedBackward,
    /// Gradients of `geglu`.
    pub geglu_backward: GatedBackward,
    /// Gradients of `geglu_erf`.
    pub geglu_erf_backward: GatedBackward,
}

impl<I: Isa> At<I> for UnaryKernels {
    const KERNELS: Self = Self {
        exp: Unary::at::<I, functions::Exp>("exp"),
        tanh: Unary::at::<I, functions::Tanh>("tanh"),
        erf: Unary::at::<I, functions::Erf>("erf"),
        sigmoid: Unary::at::<I, functions::Sigmoid>("sigmoid"),
        gelu_tanh: Unary::at::<I, functions::GeluTanh>("gelu_tanh"),
        gelu_erf: Unary::at::<I, functions::GeluErf>("gelu_erf"),
        silu: Unary::at::<I, functions::Silu>("silu"),
        relu: Unary::at::<I, functions::Relu>("relu"),
        add: Binary::at::<I, functions::Add>("add"),
        mul: Binary::at::<I, functions::Mul>("mul"),
        swiglu: Binary::at::<I, functions::SwiGlu>("swiglu"),
        geglu: Binary::at::<I, functions::GeGlu>("geglu"),
        geglu_erf: Binary::at::<I, functions::GeGluErf>("geglu_erf"),
        tanh_backward: Binary::at::<I, gradients::TanhBackward>("tanh_backward"),
        sigmoid_backward: Binary::at::<I, gradients::SigmoidBackward>("sigmoid_backward"),
        gelu_tanh_backward: Binary::at::<I, gradients::GeluTanhBackward>("gelu_tanh_backward"),
        gelu_erf_backward: Binary::at::<I, gradients::GeluErfBackward>("gelu_erf_backward"),
        silu_backward: Binary::at::<I, gradients::SiluBackward>("silu_backward"),
        relu_backward: Binary::at::<I, gradients::ReluBackward>("relu_backward"),
        scale: Scale::at::<I>(),
        axpy: Axpy::at::<I>(),
        swiglu_backward: GatedBackward::at::<I, gradients::SwiGluBackward>("swiglu_backward"),
        geglu_backward: GatedBackward::at::<I, gradients::GeGluBackward>("geglu_backward"),
        geglu_erf_backward: GatedBackward::at::<I, gradients::GeGluErfBackward>("geglu_erf_backward"),
    };
}

static TABLE: [UnaryKernels; LEVELS] = levels::table();

impl Entry for UnaryKernels {
    fn isa(&self) -> IsaId {
        self.exp.info.isa
    }
}

impl UnaryKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    /// The functions of one argument.
    pub fn unary(&self) -> [&Unary; 8] {
        [
            &self.exp,
            &self.tanh,
            &self.erf,
            &self.sigmoid,
            &self.gelu_tanh,
            &self.gelu_erf,
            &self.silu,
            &self.relu,
        ]
    }

    /// The functions of two arguments.
    pub fn binary(&self) -> [&Binary; 11] {
        [
            &self.add,
            &self.mul,
            &self.swiglu,
            &self.geglu,
            &self.geglu_erf,
            &self.tanh_backward,
            &self.sigmoid_backward,
            &self.gelu_tanh_backward,
            &self.gelu_erf_backward,
            &self.silu_backward,
            &self.relu_backward,
        ]
    }

    /// The gradients of gated pairs.
    pub fn gated(&self) -> [&GatedBackward; 3] {
        [&self.swiglu_backward, &self.geglu_backward, &self.geglu_erf_backward]
    }

    fn infos(&self) -> impl Iterator<Item = KernelInfo> + use<> {
        let unary = self.unary().map(|kernel| kernel.info);
        let binary = self.binary().map(|kernel| kernel.info);
        let gated = self.gated().map(|kernel| kernel.info);
        unary.into_iter().chain(binary).chain(gated).chain([self.scale.info, self.axpy.info])
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(UnaryKernels::infos)
}
