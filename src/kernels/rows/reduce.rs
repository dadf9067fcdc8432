//! Reductions of a row to one number: sum, largest element, dot product, index of the largest.
//! The fold that they share, over anything that yields vectors along a row, serves softmax and norms too.

use crate::arrays;
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Routine};
use crate::kernels::unary::functions::Mul;
use crate::kernels::vectors::{Function, Over, Row, Terms};
use std::marker::PhantomData;

/// Independent partial results, to cover the latency of an addition.
const ACCUMULATORS: usize = 4;

/// Rows that a kernel takes through each of its steps together, so that one row's sums across lanes overlap another's.
pub(in crate::kernels) const GROUP: usize = 4;
/// Up to this width rows go together: then all that a group reads and writes stays in L1.
pub(super) const GROUP_COLS: usize = 1024;

/// The length of the next group of `rows` rows of `cols`.
#[inline(always)]
pub(in crate::kernels) fn group_len(rows: usize, cols: usize) -> usize {
    if cols <= GROUP_COLS { rows.min(GROUP) } else { 1 }
}

/// The first `count` lanes of `x`, and `rest` in the others.
#[inline(always)]
fn keep_first<I: Isa>(isa: I, x: I::F32, count: usize, rest: f32) -> I::F32 {
    const LANE: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
    if count == I::LANES {
        return x;
    }
    isa.select(isa.lt(isa.first_of(&LANE), isa.splat(count as f32)), x, isa.splat(rest))
}

/// How partial results combine.
pub(in crate::kernels) trait Monoid {
    /// Combining with it changes nothing; it fills the lanes past the end of a row.
    const NEUTRAL: f32;
    /// Combines a partial result with a term, lane by lane.
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
pub(in crate::kernels) struct Sum;

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
pub(in crate::kernels) struct Max;

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

/// Folds the first `n` terms, which there are: vector v goes to partial result v mod 4, and these combine as
/// (0 + 2) + (1 + 3).
#[inline(always)]
pub(in crate::kernels) fn fold<M: Monoid, I: Isa>(isa: I, terms: &impl Terms, n: usize) -> f32 {
    let mut partial = [isa.splat(M::NEUTRAL); ACCUMULATORS];
    let step = ACCUMULATORS * I::LANES;
    let whole = n - n % step;
    let mut i = 0;
    while i < whole {
        for partial in &mut partial {
            *partial = M::combine(isa, *partial, terms.at(isa, i, I::LANES));
            i += I::LANES;
        }
    }
    for partial in &mut partial {
        if i < n {
            let count = I::LANES.min(n - i);
            let term = terms.at(isa, i, count);
            *partial = M::combine(isa, *partial, keep_first(isa, term, count, M::NEUTRAL));
            i += count;
        }
    }
    let [a, b, c, d] = partial;
    M::lanes(isa, M::join(isa, M::join(isa, a, c), M::join(isa, b, d)))
}

/// N rows of `n` floats.
struct RowsArgs<const N: usize> {
    rows: [Row; N],
    n: usize,
}

/// Reduces as many elements as all slices have.
#[inline(always)]
fn apply<const N: usize, R>(code: &Code<RowsArgs<N>, R>, rows: [&[f32]; N]) -> R {
    let mut n = rows[0].len();
    for row in &rows {
        debug_assert!(row.len() == rows[0].len(), "rows of different lengths");
        n = n.min(row.len());
    }
    // SAFETY: `select` has proved the level; all slices hold n floats.
    unsafe { code.run(&RowsArgs { rows: arrays::map(rows, |row| Row::new(row.as_ptr(), n)), n }) }
}

/// A row to a number.
#[derive(Clone, Copy, Debug)]
pub struct Reduce {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<RowsArgs<1>, f32>,
}

impl Reduce {
    pub(super) const fn sum<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("sum", "f32"), code: Code::of::<I, SumOf<Same>>() }
    }

    pub(super) const fn max<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("max", "f32"), code: Code::of::<I, MaxOf>() }
    }

    /// Reduces the slice.
    pub fn apply(&self, x: &[f32]) -> f32 {
        apply(&self.code, [x])
    }
}

/// Two rows to a number.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<RowsArgs<2>, f32>,
}

impl Dot {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("dot", "f32"), code: Code::of::<I, SumOf<Mul>>() }
    }

    /// Σ aᵢ·bᵢ over as many elements as both slices have; they should have one length.
    pub fn apply(&self, a: &[f32], b: &[f32]) -> f32 {
        apply(&self.code, [a, b])
    }
}

/// A row to the index of its largest element.
#[derive(Clone, Copy, Debug)]
pub struct Argmax {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<RowsArgs<1>, usize>,
}

impl Argmax {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("argmax", "f32"), code: Code::of::<I, ArgmaxOf>() }
    }

    /// The first index of the largest element. NaN never is the largest; 0 for a row of nothing else.
    pub fn apply(&self, x: &[f32]) -> usize {
        apply(&self.code, [x])
    }
}

/// The sum of a function of N rows.
struct SumOf<F>(PhantomData<F>);

impl<F: Function<N> + Default, const N: usize> Routine<RowsArgs<N>> for SumOf<F> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(isa: I, &RowsArgs { rows, n }: &RowsArgs<N>) -> f32 {
        fold::<Sum, I>(isa, &Over(F::default(), rows), n)
    }
}

/// The number itself.
#[derive(Clone, Copy, Default)]
pub(in crate::kernels) struct Same;

impl Function<1> for Same {
    #[inline(always)]
    fn call<I: Isa>(self, _isa: I, [x]: [I::F32; 1]) -> I::F32 {
        x
    }
}

struct MaxOf;

impl Routine<RowsArgs<1>> for MaxOf {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(isa: I, &RowsArgs { rows: [x], n }: &RowsArgs<1>) -> f32 {
        if fold::<Sum, I>(isa, &Over(IsNan, [x]), n) != 0.0 {
            return f32::NAN;
        }
        fold::<Max, I>(isa, &x, n)
    }
}

/// 1 for NaN, else 0.
#[derive(Clone, Copy)]
struct IsNan;

impl Function<1> for IsNan {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.select(isa.eq(x, x), isa.zero(), isa.splat(1.0))
    }
}

struct ArgmaxOf;

impl Routine<RowsArgs<1>> for ArgmaxOf {
    type Output = usize;
    /// Finds the largest element, then its place: two quick passes instead of one that carries indices.
    #[inline(always)]
    fn run<I: Isa>(isa: I, &RowsArgs { rows: [x], n }: &RowsArgs<1>) -> usize {
        let max = fold::<Max, I>(isa, &Over(Numbers, [x]), n);
        (0..n).find(|&i| x.get(i) == max).unwrap_or(0)
    }
}

/// −∞ for NaN, numbers as they are.
#[derive(Clone, Copy)]
struct Numbers;

impl Function<1> for Numbers {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x]: [I::F32; 1]) -> I::F32 {
        isa.select(isa.eq(x, x), x, isa.splat(f32::NEG_INFINITY))
    }
}
