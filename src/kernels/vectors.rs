//! Walks along rows of floats, a vector at a time: elementwise and row-wise kernels read and write memory here, and
//! compute [`Function`]s of vectors, which need no `unsafe`.

use crate::isa::Isa;

/// A function of N numbers, computed on N vectors.
pub(super) trait Function<const N: usize>: Copy {
    /// The function of each lane. Implementations are `#[inline(always)]`.
    fn call<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// Vectors along a row. Implementations are `#[inline(always)]`.
pub(super) trait Terms {
    /// The terms `i .. i + count`, and anything in the lanes from `count` on; `count ≤ LANES`.
    ///
    /// # Safety
    /// The rows that the implementor points to reach to `i + count`.
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32;
}

/// A function of the elements of N rows.
#[derive(Clone, Copy)]
pub(super) struct Over<F, const N: usize>(pub F, pub [*const f32; N]);

impl<F: Function<N>, const N: usize> Terms for Over<F, N> {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let mut x = [isa.zero(); N];
        for (j, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller promises that the rows reach to i + count.
            *x = unsafe { load(isa, self.1[j].add(i), count) };
        }
        self.0.call(isa, x)
    }
}

/// Terms that are stored to a row on the way.
#[derive(Clone, Copy)]
pub(super) struct Stored<T>(pub T, pub *mut f32);

impl<T: Terms> Terms for Stored<T> {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller promises that the rows, this one among them, reach to i + count.
        unsafe {
            let x = self.0.at(isa, i, count);
            store(isa, self.1.add(i), x, count);
            x
        }
    }
}

/// Visits the terms `first .. n` a vector at a time, so that they are stored on the way.
///
/// # Safety
/// The rows behind `terms` reach to `n`, and `first ≤ n`.
#[inline(always)]
pub(super) unsafe fn visit<I: Isa>(isa: I, terms: &impl Terms, first: usize, n: usize) {
    // A bound that the compiler can count the steps to, so that it unrolls the loop.
    let whole = n - (n - first) % I::LANES;
    let mut i = first;
    // SAFETY: i + LANES ≤ whole ≤ n in the loop, and i + (n − i) = n behind it.
    unsafe {
        while i < whole {
            terms.at(isa, i, I::LANES);
            i += I::LANES;
        }
        if i < n {
            terms.at(isa, i, n - i);
        }
    }
}

/// Loads `count` lanes; the rest are 0.
///
/// # Safety
/// `p` is readable for `count ≤ LANES` floats.
#[inline(always)]
pub(super) unsafe fn load<I: Isa>(isa: I, p: *const f32, count: usize) -> I::F32 {
    // SAFETY: `p` is readable for `count` floats. With a constant count the branch is decided at compile time.
    unsafe { if count == I::LANES { isa.load(p) } else { isa.load_first(p, count) } }
}

/// Stores the first `count` lanes.
///
/// # Safety
/// `p` is writable for `count ≤ LANES` floats.
#[inline(always)]
pub(super) unsafe fn store<I: Isa>(isa: I, p: *mut f32, x: I::F32, count: usize) {
    // SAFETY: `p` is writable for `count` floats. With a constant count the branch is decided at compile time.
    unsafe { if count == I::LANES { isa.store(p, x) } else { isa.store_first(p, x, count) } }
}
