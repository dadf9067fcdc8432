//! Elementwise kernels: exp, tanh, erf, sigmoid, GELU, SiLU, ReLU; sums and products; gated pairs.
//!
//! Contract: element i of the output depends on element i of the inputs only, by the same operations
//! wherever it stands, so any split into portions gives the same bits. Any alignment. The output may be one
//! of the inputs, but must not overlap one otherwise. Errors are stated in ULP at each function of
//! [`vecmath`]; what happens to NaN and infinities, too.

mod functions;
#[cfg(test)]
mod tests;
pub(crate) mod vecmath;

use super::KernelInfo;
use super::levels::{self, Levels};
use crate::isa::{Isa, IsaId, Kernel};
use functions::Function;

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

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct Set {
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
    /// factor · x.
    pub scale: Scale,
}

impl Set {
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
    pub fn binary(&self) -> [&Binary; 4] {
        [&self.add, &self.mul, &self.swiglu, &self.geglu]
    }
}

impl Levels for Set {
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
            scale: Scale { info: info::<I>(functions::Scale::NAME), run: scale_entry::<I> },
        }
    }
}

/// Every kernel of the family.
pub fn rows() -> impl Iterator<Item = KernelInfo> {
    levels::all::<Set>().into_iter().flat_map(|(_, set)| {
        let unary = set.unary().map(|kernel| kernel.info);
        let binary = set.binary().map(|kernel| kernel.info);
        unary.into_iter().chain(binary).chain([set.scale.info])
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

/// Walks N inputs and one output together. Its pointers are as the entries' callers promise.
struct Map<F, const N: usize> {
    function: F,
    src: [*const f32; N],
    dst: *mut f32,
    n: usize,
}

impl<F: Function<N>, const N: usize> Kernel for Map<F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { function, src, dst, n } = self;
        let whole = n - n % I::LANES;
        let mut x = [isa.zero(); N];
        let mut i = 0;
        while i < whole {
            for (x, src) in x.iter_mut().zip(src) {
                // SAFETY: i + LANES ≤ n.
                *x = unsafe { isa.load(src.add(i)) };
            }
            // SAFETY: i + LANES ≤ n.
            unsafe { isa.store(dst.add(i), function.call(isa, x)) };
            i += I::LANES;
        }
        let rest = n - whole;
        if rest > 0 {
            for (x, src) in x.iter_mut().zip(src) {
                // SAFETY: i + rest = n.
                *x = unsafe { isa.load_first(src.add(i), rest) };
            }
            // SAFETY: i + rest = n.
            unsafe { isa.store_first(dst.add(i), function.call(isa, x), rest) };
        }
    }
}
