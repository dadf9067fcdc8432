//! Reductions of a row to one number: sum, largest element, dot product, index of the largest.
//! The two folds, sum and maximum over anything that yields vectors along a row, serve softmax and norms too.

use super::info;
use crate::isa::{Isa, SimdBody};
use crate::kernels::info::KernelInfo;
pub(super) use crate::kernels::vectors::{load, store};

/// Partial results kept side by side, to cover the latency of an addition.
const ACCUMULATORS: usize = 4;

/// Rows that a kernel takes through each of its steps together, so that one row's sums across lanes overlap another's.
pub(super) const GROUP: usize = 4;
/// Up to this width rows go together: what a group reads and writes stays in L1.
pub(super) const GROUP_COLS: usize = 1024;

/// The lengths of the groups that `rows` rows of `cols` are taken in.
#[inline(always)]
pub(super) fn group_len(rows: usize, cols: usize) -> usize {
    if cols <= GROUP_COLS { rows.min(GROUP) } else { 1 }
}

/// What a fold goes over: vectors along a row. Implementations are `#[inline(always)]`.
pub(in crate::kernels) trait Terms {
    /// The terms `i .. i + count`, and anything in the lanes from `count` on; `0 < count ≤ LANES`.
    ///
    /// # Safety
    /// The row that the implementor points to reaches to `i + count`.
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32;
}

/// The first `count` lanes of `x`, and `rest` in the others.
#[inline(always)]
pub(super) fn keep_first<I: Isa>(isa: I, x: I::F32, count: usize, rest: f32) -> I::F32 {
    const LANE: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    const { assert!(I::LANES <= LANE.len()) };
    if count == I::LANES {
        return x;
    }
    // SAFETY: LANE holds at least LANES floats.
    let lane = unsafe { isa.load(LANE.as_ptr()) };
    isa.select(isa.lt(lane, isa.splat(count as f32)), x, isa.splat(rest))
}

/// How partial results combine.
pub(in crate::kernels) trait Monoid {
    /// What combining with changes nothing; it fills the lanes past the end of a row.
    const NEUTRAL: f32;
    /// Takes a term in, lane by lane.
    fn combine<I: Isa>(isa: I, sum: I::F32, term: I::F32) -> I::F32;
    /// Joins two partial results.
    #[inline(always)]
    fn join<I: Isa>(isa: I, a: I::F32, b: I::F32) -> I::F32 {
        Self::combine(isa, a, b)
    }
    /// Combines the lanes.
    fn lanes<I: Isa>(isa: I, sum: I::F32) -> f32;
}

/// Addition.
pub(super) struct Sum;

impl Monoid for Sum {
    const NEUTRAL: f32 = 0.0;
    #[inline(always)]
    fn combine<I: Isa>(isa: I, sum: I::F32, term: I::F32) -> I::F32 {
        isa.add(sum, term)
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, sum: I::F32) -> f32 {
        isa.sum_lanes(sum)
    }
}

/// Addition of squares.
pub(in crate::kernels) struct SumOfSquares;

impl Monoid for SumOfSquares {
    const NEUTRAL: f32 = 0.0;
    #[inline(always)]
    fn combine<I: Isa>(isa: I, sum: I::F32, term: I::F32) -> I::F32 {
        isa.mul_add(term, term, sum)
    }
    #[inline(always)]
    fn join<I: Isa>(isa: I, a: I::F32, b: I::F32) -> I::F32 {
        isa.add(a, b)
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, sum: I::F32) -> f32 {
        isa.sum_lanes(sum)
    }
}

/// The larger one; a NaN may or may not be seen.
pub(super) struct Max;

impl Monoid for Max {
    const NEUTRAL: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn combine<I: Isa>(isa: I, sum: I::F32, term: I::F32) -> I::F32 {
        isa.max(term, sum)
    }
    #[inline(always)]
    fn lanes<I: Isa>(isa: I, sum: I::F32) -> f32 {
        isa.max_lanes(sum)
    }
}

/// Folds the first `n` terms: vector v goes to partial result v mod 4, and these combine as (0 + 2) + (1 + 3).
///
/// # Safety
/// The row behind `terms` reaches to `n`.
#[inline(always)]
pub(in crate::kernels) unsafe fn fold<M: Monoid, I: Isa>(isa: I, terms: &impl Terms, n: usize) -> f32 {
    let mut partial = [isa.splat(M::NEUTRAL); ACCUMULATORS];
    let step = ACCUMULATORS * I::LANES;
    let whole = n - n % step;
    let mut i = 0;
    while i < whole {
        for partial in &mut partial {
            // SAFETY: i + LANES ≤ whole ≤ n.
            *partial = M::combine(isa, *partial, unsafe { terms.at(isa, i, I::LANES) });
            i += I::LANES;
        }
    }
    for partial in &mut partial {
        if i < n {
            let count = I::LANES.min(n - i);
            // SAFETY: i + count ≤ n.
            let term = unsafe { terms.at(isa, i, count) };
            *partial = M::combine(isa, *partial, keep_first(isa, term, count, M::NEUTRAL));
            i += count;
        }
    }
    let [a, b, c, d] = partial;
    M::lanes(isa, M::join(isa, M::join(isa, a, c), M::join(isa, b, d)))
}

/// Visits the first `n` elements a vector at a time, for what `terms` does on the way (storing).
///
/// # Safety
/// The row behind `terms` reaches to `n`.
#[inline(always)]
pub(super) unsafe fn visit<I: Isa>(isa: I, terms: &impl Terms, n: usize) {
    let whole = n - n % I::LANES;
    let mut i = 0;
    while i < whole {
        // SAFETY: i + LANES ≤ whole ≤ n.
        unsafe { terms.at(isa, i, I::LANES) };
        i += I::LANES;
    }
    if i < n {
        // SAFETY: i + (n − i) = n.
        unsafe { terms.at(isa, i, n - i) };
    }
}

/// The elements themselves.
pub(in crate::kernels) struct Values(pub *const f32);

impl Terms for Values {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { load(isa, self.0.add(i), count) }
    }
}

/// The elements with the other sign.
pub(super) struct Negated(pub *const f32);

impl Terms for Negated {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        isa.sub(isa.zero(), unsafe { load(isa, self.0.add(i), count) })
    }
}

/// Products of two rows.
pub(super) struct Products(pub *const f32, pub *const f32);

impl Terms for Products {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe { isa.mul(load(isa, self.0.add(i), count), load(isa, self.1.add(i), count)) }
    }
}

/// A row to a number.
#[derive(Clone, Copy)]
pub struct Reduce {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(x: *const f32, n: usize) -> f32,
}

impl Reduce {
    pub(super) fn sum<I: Isa>() -> Self {
        Self { info: info::<I>("sum"), run: sum_entry::<I> }
    }

    pub(super) fn max<I: Isa>() -> Self {
        Self { info: info::<I>("max"), run: max_entry::<I> }
    }

    /// Reduces the slice.
    pub fn apply(&self, x: &[f32]) -> f32 {
        // SAFETY: the slice is readable for its length.
        unsafe { (self.run)(x.as_ptr(), x.len()) }
    }

    /// Reduces `n` floats.
    ///
    /// # Safety
    /// `x` is readable for `n` floats.
    pub unsafe fn run(&self, x: *const f32, n: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(x, n) }
    }
}

/// Two rows to a number.
#[derive(Clone, Copy)]
pub struct Dot {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(a: *const f32, b: *const f32, n: usize) -> f32,
}

impl Dot {
    pub(super) fn at<I: Isa>() -> Self {
        Self { info: info::<I>("dot"), run: dot_entry::<I> }
    }

    /// Σ aᵢ·bᵢ as far as both reach; they should have one length.
    pub fn apply(&self, a: &[f32], b: &[f32]) -> f32 {
        debug_assert_eq!(a.len(), b.len());
        // SAFETY: both slices are readable for that many floats.
        unsafe { (self.run)(a.as_ptr(), b.as_ptr(), a.len().min(b.len())) }
    }

    /// Σ aᵢ·bᵢ for i < n.
    ///
    /// # Safety
    /// `a` and `b` are readable for `n` floats.
    pub unsafe fn run(&self, a: *const f32, b: *const f32, n: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(a, b, n) }
    }
}

/// A row to the index of its largest element.
#[derive(Clone, Copy)]
pub struct Argmax {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(x: *const f32, n: usize) -> usize,
}

impl Argmax {
    pub(super) fn at<I: Isa>() -> Self {
        Self { info: info::<I>("argmax"), run: argmax_entry::<I> }
    }

    /// The first index of the largest element. NaN never is the largest; 0 where nothing else is there.
    pub fn apply(&self, x: &[f32]) -> usize {
        // SAFETY: the slice is readable for its length.
        unsafe { (self.run)(x.as_ptr(), x.len()) }
    }

    /// The first index of the largest of `n` elements.
    ///
    /// # Safety
    /// `x` is readable for `n` floats.
    pub unsafe fn run(&self, x: *const f32, n: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(x, n) }
    }
}

/// # Safety
/// `I` is available; `x` is readable for `n` floats.
unsafe fn sum_entry<I: Isa>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(SumOf { terms: Values(x), n })
}

/// # Safety
/// `I` is available; `a` and `b` are readable for `n` floats.
unsafe fn dot_entry<I: Isa>(a: *const f32, b: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(SumOf { terms: Products(a, b), n })
}

/// # Safety
/// `I` is available; `x` is readable for `n` floats.
unsafe fn max_entry<I: Isa>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(MaxOf { x, n })
}

/// # Safety
/// `I` is available; `x` is readable for `n` floats.
unsafe fn argmax_entry<I: Isa>(x: *const f32, n: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(ArgmaxOf { x, n })
}

struct SumOf<T> {
    terms: T,
    n: usize,
}

impl<T: Terms> SimdBody for SumOf<T> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        // SAFETY: the entries' callers promise rows of n.
        unsafe { fold::<Sum, I>(isa, &self.terms, self.n) }
    }
}

struct MaxOf {
    x: *const f32,
    n: usize,
}

impl SimdBody for MaxOf {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        // SAFETY: the entry's caller promises a row of n.
        let nans = unsafe { fold::<Sum, I>(isa, &Unordered(self.x), self.n) };
        if nans != 0.0 {
            return f32::NAN;
        }
        // SAFETY: as above.
        unsafe { fold::<Max, I>(isa, &Values(self.x), self.n) }
    }
}

/// 1 where the element is NaN, else 0.
struct Unordered(*const f32);

impl Terms for Unordered {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        let x = unsafe { load(isa, self.0.add(i), count) };
        isa.select(isa.eq(x, x), isa.zero(), isa.splat(1.0))
    }
}

struct ArgmaxOf {
    x: *const f32,
    n: usize,
}

impl SimdBody for ArgmaxOf {
    type Output = usize;
    /// The largest element first, then where it stands: two quick passes instead of one that carries indices.
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        let Self { x, n } = self;
        // SAFETY: the entry's caller promises a row of n.
        let max = unsafe { fold::<Max, I>(isa, &Numbers(x), n) };
        // SAFETY: as above.
        (0..n).find(|&i| unsafe { *x.add(i) } == max).unwrap_or(0)
    }
}

/// The elements, with −∞ for NaN.
struct Numbers(*const f32);

impl Terms for Numbers {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        let x = unsafe { load(isa, self.0.add(i), count) };
        isa.select(isa.eq(x, x), x, isa.splat(f32::NEG_INFINITY))
    }
}
