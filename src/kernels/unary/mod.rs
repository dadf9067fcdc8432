//! Elementwise kernels: exp, tanh, erf, sigmoid, GELU, SiLU, ReLU and what flows back through them; sums and
//! products; gated pairs, forth and back.
//!
//! Contract: element i of the output depends on element i of the inputs only, by the same operations
//! wherever it stands, so any split into portions gives the same bits. Any alignment. The output may be one
//! of the inputs, but must not overlap one otherwise. Errors are stated in ULP at each function of
//! [`vecmath`]; what happens to NaN and infinities, too.
//!
//! `*_backward` takes x and dy, in this order, and gives dy · f'(x). Outputs of [`STREAM_BYTES`] and more that are
//! none of the inputs go past the caches.

mod functions;
mod gradients;
mod map;
mod slopes;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod vecmath;

use super::info::KernelInfo;
use super::levels::{self, Levels};
use crate::isa::{Isa, IsaId};
use functions::Function;
use gradients::Gated;
use map::{GatedMap, Map};

pub use map::STREAM_BYTES;

/// `dst[i] = f(src[i])`.
#[derive(Clone, Copy)]
pub struct Unary {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(src: *const f32, dst: *mut f32, n: usize),
}

impl Unary {
    /// `dst[i] = f(src[i])` as far as both reach; they should have one length.
    pub fn apply(&self, src: &[f32], dst: &mut [f32]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: both slices hold that many floats.
        unsafe { (self.run)(src.as_ptr(), dst.as_mut_ptr(), src.len().min(dst.len())) }
    }

    /// `x[i] = f(x[i])`.
    pub fn apply_in_place(&self, x: &mut [f32]) {
        // SAFETY: the slice is readable and writable for its length.
        unsafe { (self.run)(x.as_ptr(), x.as_mut_ptr(), x.len()) }
    }

    /// `dst[i] = f(src[i])` for i < n.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` floats; they are the same or do not overlap.
    pub unsafe fn run(&self, src: *const f32, dst: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(src, dst, n) }
    }
}

/// `dst[i] = f(a[i], b[i])`.
#[derive(Clone, Copy)]
pub struct Binary {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(a: *const f32, b: *const f32, dst: *mut f32, n: usize),
}

impl Binary {
    /// `dst[i] = f(a[i], b[i])` as far as all three reach; they should have one length.
    pub fn apply(&self, a: &[f32], b: &[f32], dst: &mut [f32]) {
        debug_assert_eq!((a.len(), b.len()), (dst.len(), dst.len()));
        let n = a.len().min(b.len()).min(dst.len());
        // SAFETY: all three slices hold n floats.
        unsafe { (self.run)(a.as_ptr(), b.as_ptr(), dst.as_mut_ptr(), n) }
    }

    /// `a[i] = f(a[i], b[i])` as far as both reach; they should have one length.
    pub fn apply_in_place(&self, a: &mut [f32], b: &[f32]) {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: both slices hold that many floats, and the output is the first input.
        unsafe { (self.run)(a.as_ptr(), b.as_ptr(), a.as_mut_ptr(), a.len().min(b.len())) }
    }

    /// `dst[i] = f(a[i], b[i])` for i < n.
    ///
    /// # Safety
    /// `a` and `b` are readable and `dst` writable for `n` floats; `dst` is one of them or overlaps neither.
    pub unsafe fn run(&self, a: *const f32, b: *const f32, dst: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(a, b, dst, n) }
    }
}

/// `dst[i] = factor · src[i]`.
#[derive(Clone, Copy)]
pub struct Scale {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(src: *const f32, factor: f32, dst: *mut f32, n: usize),
}

impl Scale {
    /// `dst[i] = factor · src[i]` as far as both reach; they should have one length.
    pub fn apply(&self, src: &[f32], factor: f32, dst: &mut [f32]) {
        debug_assert_eq!(src.len(), dst.len());
        // SAFETY: both slices hold that many floats.
        unsafe { (self.run)(src.as_ptr(), factor, dst.as_mut_ptr(), src.len().min(dst.len())) }
    }

    /// `x[i] = factor · x[i]`.
    pub fn apply_in_place(&self, x: &mut [f32], factor: f32) {
        // SAFETY: the slice is readable and writable for its length.
        unsafe { (self.run)(x.as_ptr(), factor, x.as_mut_ptr(), x.len()) }
    }

    /// `dst[i] = factor · src[i]` for i < n.
    ///
    /// # Safety
    /// `src` is readable and `dst` writable for `n` floats; they are the same or do not overlap.
    pub unsafe fn run(&self, src: *const f32, factor: f32, dst: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(src, factor, dst, n) }
    }
}

/// `y[i] = factor · x[i] + y[i]`.
#[derive(Clone, Copy)]
pub struct Axpy {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(factor: f32, x: *const f32, y: *mut f32, n: usize),
}

impl Axpy {
    /// `y[i] = factor · x[i] + y[i]` as far as both reach; they should have one length.
    pub fn apply(&self, factor: f32, x: &[f32], y: &mut [f32]) {
        debug_assert_eq!(x.len(), y.len());
        // SAFETY: both slices hold that many floats.
        unsafe { (self.run)(factor, x.as_ptr(), y.as_mut_ptr(), x.len().min(y.len())) }
    }

    /// `y[i] = factor · x[i] + y[i]` for i < n, one rounding at the end but on the scalar level.
    ///
    /// # Safety
    /// `x` is readable and `y` readable and writable for `n` floats; they are the same or do not overlap.
    pub unsafe fn run(&self, factor: f32, x: *const f32, y: *mut f32, n: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(factor, x, y, n) }
    }
}

/// Arguments of a gated pair y = f(gate) · up, and what flows back. All hold `n` floats.
#[derive(Clone, Copy, Debug)]
pub struct GatedArgs {
    /// What f was applied to.
    pub gate: *const f32,
    /// The other factor.
    pub up: *const f32,
    /// What comes back from y.
    pub dy: *const f32,
    /// Gets dy · up · f'(gate).
    pub dgate: *mut f32,
    /// Gets dy · f(gate).
    pub dup: *mut f32,
    /// Elements.
    pub n: usize,
}

/// What flows back through a gated pair.
#[derive(Clone, Copy)]
pub struct GatedBackward {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&GatedArgs),
}

impl GatedBackward {
    /// `dgate = dy · up · f'(gate)` and `dup = dy · f(gate)` as far as all reach; they should have one length.
    pub fn apply(&self, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        let n =
            [gate.len(), up.len(), dy.len(), dgate.len(), dup.len()].into_iter().fold(usize::MAX, usize::min);
        debug_assert_eq!([gate.len(), up.len(), dy.len(), dgate.len(), dup.len()], [n; 5]);
        let (gate, up, dy) = (gate.as_ptr(), up.as_ptr(), dy.as_ptr());
        let (dgate, dup) = (dgate.as_mut_ptr(), dup.as_mut_ptr());
        // SAFETY: all five slices hold n floats.
        unsafe { (self.run)(&GatedArgs { gate, up, dy, dgate, dup, n }) }
    }

    /// As `apply`, on pointers.
    ///
    /// # Safety
    /// Inputs are readable and outputs writable for `n` floats. An output is one of the inputs or overlaps none, and
    /// the outputs do not overlap each other.
    pub unsafe fn run(&self, args: &GatedArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
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
    /// Back through `swiglu`.
    pub swiglu_backward: GatedBackward,
    /// Back through `geglu`.
    pub geglu_backward: GatedBackward,
    /// Back through `geglu_erf`.
    pub geglu_erf_backward: GatedBackward,
}

impl UnaryKernels {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        levels::select(isa)
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

    /// What flows back through gated pairs.
    pub fn gated(&self) -> [&GatedBackward; 3] {
        [&self.swiglu_backward, &self.geglu_backward, &self.geglu_erf_backward]
    }
}

impl Levels for UnaryKernels {
    fn at<I: Isa>() -> Self {
        Self {
            exp: unary::<I, functions::Exp>(),
            tanh: unary::<I, functions::Tanh>(),
            erf: unary::<I, functions::Erf>(),
            sigmoid: unary::<I, functions::Sigmoid>(),
            gelu_tanh: unary::<I, functions::GeluTanh>(),
            gelu_erf: unary::<I, functions::GeluErf>(),
            silu: unary::<I, functions::Silu>(),
            relu: unary::<I, functions::Relu>(),
            add: binary::<I, functions::Add>(),
            mul: binary::<I, functions::Mul>(),
            swiglu: binary::<I, functions::SwiGlu>(),
            geglu: binary::<I, functions::GeGlu>(),
            geglu_erf: binary::<I, functions::GeGluErf>(),
            tanh_backward: binary::<I, gradients::TanhBackward>(),
            sigmoid_backward: binary::<I, gradients::SigmoidBackward>(),
            gelu_tanh_backward: binary::<I, gradients::GeluTanhBackward>(),
            gelu_erf_backward: binary::<I, gradients::GeluErfBackward>(),
            silu_backward: binary::<I, gradients::SiluBackward>(),
            relu_backward: binary::<I, gradients::ReluBackward>(),
            scale: Scale { info: info::<I>(functions::Scale::NAME), run: scale_entry::<I> },
            axpy: Axpy { info: info::<I>(functions::Axpy::NAME), run: axpy_entry::<I> },
            swiglu_backward: gated::<I, gradients::SwiGluBackward>(),
            geglu_backward: gated::<I, gradients::GeGluBackward>(),
            geglu_erf_backward: gated::<I, gradients::GeGluErfBackward>(),
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    levels::all::<UnaryKernels>().into_iter().flat_map(|(_, set)| {
        let unary = set.unary().map(|kernel| kernel.info);
        let binary = set.binary().map(|kernel| kernel.info);
        let gated = set.gated().map(|kernel| kernel.info);
        unary.into_iter().chain(binary).chain(gated).chain([set.scale.info, set.axpy.info])
    })
}

fn info<I: Isa>(op: &'static str) -> KernelInfo {
    KernelInfo { op, dtype: "f32", isa: I::ID, mr: 1, nr: 1 }
}

fn unary<I: Isa, F: Function<1> + Default>() -> Unary {
    Unary { info: info::<I>(F::NAME), run: unary_entry::<I, F> }
}

fn binary<I: Isa, F: Function<2> + Default>() -> Binary {
    Binary { info: info::<I>(F::NAME), run: binary_entry::<I, F> }
}

fn gated<I: Isa, F: Gated>() -> GatedBackward {
    GatedBackward { info: info::<I>(F::NAME), run: gated_entry::<I, F> }
}

/// # Safety
/// `I` is available; pointers as [`Unary::run`] says.
unsafe fn unary_entry<I: Isa, F: Function<1> + Default>(src: *const f32, dst: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Map { function: F::default(), src: [src], dst, n })
}

/// # Safety
/// `I` is available; pointers as [`Binary::run`] says.
unsafe fn binary_entry<I: Isa, F: Function<2> + Default>(
    a: *const f32,
    b: *const f32,
    dst: *mut f32,
    n: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Map { function: F::default(), src: [a, b], dst, n })
}

/// # Safety
/// `I` is available; pointers as [`Scale::run`] says.
unsafe fn scale_entry<I: Isa>(src: *const f32, factor: f32, dst: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Map { function: functions::Scale(factor), src: [src], dst, n })
}

/// # Safety
/// `I` is available; pointers as [`Axpy::run`] says.
unsafe fn axpy_entry<I: Isa>(factor: f32, x: *const f32, y: *mut f32, n: usize) {
    let (function, src) = (functions::Axpy(factor), [x, y.cast_const()]);
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Map { function, src, dst: y, n })
}

/// # Safety
/// `I` is available; pointers as [`GatedBackward::run`] says.
unsafe fn gated_entry<I: Isa, F: Gated>(args: &GatedArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(GatedMap { args, function: std::marker::PhantomData::<F> })
}
