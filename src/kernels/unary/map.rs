//! The walks of elementwise kernels along their arrays.
//! Every vector goes through the same operations, and a partial one at the end through them too.

use super::GatedArgs;
use super::functions::Function;
use super::gradients::Gated;
use crate::isa::{Isa, SimdBody};
use crate::kernels::vectors::{load, store};
use std::marker::PhantomData;

/// From this size on, an output that is none of the inputs goes past the caches: larger than what a core is likely
/// to find again in them, and far above where it would hurt.
pub const STREAM_BYTES: usize = 32 << 20;

/// Walks N inputs and one output together. Its pointers are as the entries' callers promise.
pub(super) struct Map<F, const N: usize> {
    pub function: F,
    pub src: [*const f32; N],
    pub dst: *mut f32,
    pub n: usize,
}

impl<F: Function<N>, const N: usize> Map<F, N> {
    /// Elements `i .. i + count`, at most a vector, and their function.
    ///
    /// # Safety
    /// `i + count ≤ n`.
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let mut x = [isa.zero(); N];
        for (x, src) in x.iter_mut().zip(self.src) {
            // SAFETY: the caller's promise.
            *x = unsafe { load(isa, src.add(i), count) };
        }
        self.function.call(isa, x)
    }

    /// Elements `begin .. end`, to a destination that is aligned to vectors at `begin`; returns where whole vectors end.
    #[inline(always)]
    fn stream<I: Isa>(&self, isa: I, begin: usize) -> usize {
        let mut i = begin;
        while i + I::LANES <= self.n {
            // SAFETY: i + LANES ≤ n, and the destination is aligned.
            unsafe { isa.stream(self.dst.add(i), self.at(isa, i, I::LANES)) };
            i += I::LANES;
        }
        isa.fence();
        i
    }
}

impl<F: Function<N>, const N: usize> SimdBody for Map<F, N> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (dst, n) = (self.dst, self.n);
        let mut i = 0;
        if n >= STREAM_BYTES / size_of::<f32>() && self.src.iter().all(|&src| src != dst) {
            let head = dst.align_offset(I::LANES * size_of::<f32>());
            if head < I::LANES {
                // SAFETY: head < LANES ≤ n.
                unsafe { isa.store_first(dst, self.at(isa, 0, head), head) };
                i = self.stream(isa, head);
            }
        }
        while i + I::LANES <= n {
            // SAFETY: i + LANES ≤ n.
            unsafe { isa.store(dst.add(i), self.at(isa, i, I::LANES)) };
            i += I::LANES;
        }
        if i < n {
            // SAFETY: i + (n − i) = n.
            unsafe { store(isa, dst.add(i), self.at(isa, i, n - i), n - i) };
        }
    }
}

/// Walks the arrays of a gated pair.
pub(super) struct GatedMap<'a, F> {
    pub args: &'a GatedArgs,
    pub function: PhantomData<F>,
}

impl<F: Gated> GatedMap<'_, F> {
    /// What flows back to elements `i .. i + count`, at most a vector.
    ///
    /// # Safety
    /// `i + count ≤ n`.
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) {
        let args = self.args;
        // SAFETY: the caller's promise.
        unsafe {
            let gate = load(isa, args.gate.add(i), count);
            let (up, dy) = (load(isa, args.up.add(i), count), load(isa, args.dy.add(i), count));
            let (value, slope) = F::value_and_slope(isa, gate);
            let (dgate, dup) = (isa.mul(isa.mul(dy, up), slope), isa.mul(dy, value));
            store(isa, args.dgate.add(i), dgate, count);
            store(isa, args.dup.add(i), dup, count);
        }
    }
}

impl<F: Gated> SimdBody for GatedMap<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let n = self.args.n;
        let mut i = 0;
        while i + I::LANES <= n {
            // SAFETY: i + LANES ≤ n.
            unsafe { self.at(isa, i, I::LANES) };
            i += I::LANES;
        }
        if i < n {
            // SAFETY: i + (n − i) = n.
            unsafe { self.at(isa, i, n - i) };
        }
    }
}
