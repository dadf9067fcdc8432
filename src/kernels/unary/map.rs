//! The walks of elementwise kernels along their arrays.
//! Every vector goes through the same operations, and so does a partial one at the end.

use super::GatedArgs;
use super::gradients::Gated;
use crate::arrays;
use crate::isa::Isa;
use crate::kernels::routine::{Code, Routine};
use crate::kernels::vectors::{Function, Over, Row, RowMut, Stored, Terms, visit};
use std::marker::PhantomData;

/// From this size on, an output that is none of the inputs is written past the caches: larger than what a core is
/// likely to find again in them, and far above the sizes at which this would cost time.
pub const STREAM_BYTES: usize = 32 << 20;

/// N inputs and one output, of `n` elements each. The output is one of the inputs or overlaps none.
pub(super) struct MapArgs<const N: usize> {
    /// For functions that have a factor; others ignore it.
    pub factor: f32,
    pub src: [*const f32; N],
    pub dst: *mut f32,
    pub n: usize,
}

/// Maps as many elements as all slices have.
#[inline(always)]
pub(super) fn apply<const N: usize>(code: &Code<MapArgs<N>>, factor: f32, src: [&[f32]; N], dst: &mut [f32]) {
    run(code, factor, arrays::map(src, Some), dst);
}

/// Maps as many elements as all slices have; `x` is the output and the first input, `rest` are the other inputs.
#[inline(always)]
pub(super) fn apply_in_place<const N: usize, const M: usize>(
    code: &Code<MapArgs<N>>,
    factor: f32,
    x: &mut [f32],
    rest: [&[f32]; M],
) {
    const { assert!(N == M + 1) };
    let mut src = [None; N];
    for (src, rest) in src[1..].iter_mut().zip(&rest) {
        *src = Some(*rest);
    }
    run(code, factor, src, x);
}

/// Maps as many elements as all slices have; an input that is `None` is the output.
#[inline(always)]
fn run<const N: usize>(code: &Code<MapArgs<N>>, factor: f32, src: [Option<&[f32]>; N], dst: &mut [f32]) {
    let mut n = dst.len();
    for src in &src {
        let len = src.map_or(dst.len(), <[f32]>::len);
        debug_assert!(len == dst.len(), "arrays of different lengths");
        n = n.min(len);
    }
    // One pointer for reading and writing: another one, from a shared borrow, would end with the first write.
    let dst = dst.as_mut_ptr();
    let src = arrays::map(src, |src| src.map_or(dst.cast_const(), <[f32]>::as_ptr));
    // SAFETY: `select` has proved the level; all slices hold n floats, the output is borrowed mutably, and an input is the
    // output or apart from it.
    unsafe { code.run(&MapArgs { factor, src, dst, n }) }
}

/// Maps by a function without a factor.
pub(super) struct Map<F>(PhantomData<F>);

impl<F: Function<N> + Default, const N: usize> Routine<MapArgs<N>> for Map<F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &MapArgs<N>) {
        map(isa, F::default(), args);
    }
}

/// Maps by a function that has a factor.
pub(super) struct Factored<F>(PhantomData<F>);

impl<F: Function<N> + From<f32>, const N: usize> Routine<MapArgs<N>> for Factored<F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &MapArgs<N>) {
        map(isa, F::from(args.factor), args);
    }
}

/// Writes `function` of the inputs to the output.
#[inline(always)]
fn map<I: Isa, const N: usize>(isa: I, function: impl Function<N>, args: &MapArgs<N>) {
    let &MapArgs { src, dst, n, .. } = args;
    // SAFETY: the caller promises that all arrays hold n elements.
    let (terms, to) = unsafe {
        let rows = arrays::map(src, |src| Row::new(src, n));
        (Over(function, rows), RowMut::new(dst, n))
    };
    let mut first = 0;
    if n >= STREAM_BYTES / size_of::<f32>() && src.iter().all(|&src| src != dst) {
        let head = to.unaligned::<I>();
        if head < I::LANES {
            first = stream(isa, terms, to, head, n);
        }
    }
    visit(isa, &Stored(terms, to), first, n);
}

/// Writes the terms up to the last whole vector past the caches, and returns where that ends. `dst` is aligned to
/// vectors from `head` on, which is less than a vector; `n` is no less.
#[inline(always)]
fn stream<I: Isa>(isa: I, terms: impl Terms, dst: RowMut, head: usize, n: usize) -> usize {
    let mut i = head;
    dst.store(isa, 0, terms.at(isa, 0, head), head);
    while i + I::LANES <= n {
        dst.stream(isa, i, terms.at(isa, i, I::LANES));
        i += I::LANES;
    }
    isa.fence();
    i
}

/// Writes the gradients of a gated pair's factors.
pub(super) struct GatedMap<F>(PhantomData<F>);

impl<F: Gated> Routine<GatedArgs> for GatedMap<F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &GatedArgs) {
        let &GatedArgs { gate, up, dy, dgate, dup, n } = args;
        // SAFETY: the caller promises that all arrays hold n elements.
        let terms = unsafe {
            GatedTerms {
                gate: Row::new(gate, n),
                up: Row::new(up, n),
                dy: Row::new(dy, n),
                dgate: RowMut::new(dgate, n),
                dup: RowMut::new(dup, n),
                function: PhantomData::<F>,
            }
        };
        visit(isa, &terms, 0, n);
    }
}

/// The gradients, which are stored on the way.
struct GatedTerms<F> {
    gate: Row,
    up: Row,
    dy: Row,
    dgate: RowMut,
    dup: RowMut,
    function: PhantomData<F>,
}

impl<F: Gated> Terms for GatedTerms<F> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let gate = self.gate.load(isa, i, count);
        let (up, dy) = (self.up.load(isa, i, count), self.dy.load(isa, i, count));
        let (value, slope) = F::value_and_slope(isa, gate);
        let (dgate, dup) = (isa.mul(isa.mul(dy, up), slope), isa.mul(dy, value));
        self.dgate.store(isa, i, dgate, count);
        self.dup.store(isa, i, dup, count);
        dup
    }
}
