//! Products of activation rows with packed weights, shared out over workers by runs of panels.
//! The kernel family (float or quantised) is chosen when a weight is packed and travels with it.

use std::ops::Range;

use crate::threads::{Shares, Worker, share};

use super::Rows;
use super::matrix::{PackedMatrix, Packing, Run};

/// Tasks a worker should find in an op with many rows: enough that a late worker costs little.
const TASKS_PER_WORKER: usize = 12;
/// Rows of a task, at least: for fewer, weights would be taken apart too often.
const LEAST_ROWS: usize = 96;
/// Rows are shared out in multiples of it, which register tiles of 4 or 6 rows divide.
const ROW_GRAIN: usize = 12;
/// Bytes of results that are worked on at once: they are still in L2 then, with weights and activations.
const HOT_BYTES: usize = 128 << 10;

/// One product of an op: `y[:, column..column + N] (+)= scale · (x · Wᵀ) (+ bias)`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Input rows: f32, or quantised where the weight's kernel reads quantised rows.
    pub x: Rows,
    /// The matrix.
    pub weight: &'a PackedMatrix,
    /// N values added to every row.
    pub bias: Option<&'a [f32]>,
    /// Output rows.
    pub y: Rows,
    /// First column written.
    pub column: usize,
    /// Multiplies the sums of products; the bias is added to the result. Not for a product that accumulates.
    pub scale: f32,
    /// Adds to `y` instead of overwriting it.
    pub accumulate: bool,
}

/// A function of columns that the worker that computed them calls as soon as they are computed.
pub struct Then<F> {
    /// Columns that it takes at once: a multiple of so many, but for the last of a part.
    pub unit: usize,
    /// Called with the part, rows of the batch and columns of the part.
    pub call: F,
}

/// The simplest type of such a function.
pub type Call = fn(usize, Range<usize>, Range<usize>);

/// For [`run`] where no such function is to be called.
pub const NOTHING: Option<Then<Call>> = None;

/// This worker's part of some products; every worker calls it with the same arguments and the same
/// shares. Which worker computes a panel doesn't change its bits.
///
/// # Safety
/// The products' rows are valid, `x` is written by no one and the written columns are touched by no one
/// else until the op ends; their shapes fit the weights.
pub unsafe fn run(
    worker: &Worker<'_>,
    shares: &Shares,
    products: &[Product<'_>],
    then: Option<Then<impl Fn(usize, Range<usize>, Range<usize>)>>,
) {
    let columns = |p: &Product<'_>| {
        let nr = p.weight.packing().panel_rows();
        then.as_ref().map_or(nr, |then| common_multiple(nr, then.unit))
    };
    let units = |p: &Product<'_>| p.weight.n().div_ceil(columns(p));
    let total = products.iter().map(units).sum();
    let rows = products.first().map_or(0, |first| first.x.len());
    each_run(worker, shares, rows, total, |run, rows| {
        let mut before = 0;
        for (i, product) in products.iter().enumerate() {
            let own = units(product);
            let (begin, end) = (run.start.max(before), run.end.min(before + own));
            before += own;
            if begin >= end {
                continue;
            }
            let columns = columns(product);
            let most = match &then {
                Some(_) => (HOT_BYTES / size_of::<f32>() / (rows.len() * columns)).max(1),
                None => end - begin,
            };
            let mut at = begin - (before - own);
            let end = end - (before - own);
            while at < end {
                let next = at.saturating_add(most).min(end);
                let columns = at * columns..(next * columns).min(product.weight.n());
                // SAFETY: the shares hand a run of units and rows to one worker; X is written by no one.
                unsafe { product.compute(columns.clone(), rows.clone(), None) };
                if let Some(then) = &then {
                    (then.call)(i, rows.clone(), columns);
                }
                at = next;
            }
        }
    });
}

/// Rows that take what is made of results.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Rows of floats.
    Floats(Rows),
    /// Quantised rows of so many elements.
    Blocks(Rows, usize),
}

impl Target {
    pub(super) fn skip(self, n: usize) -> Target {
        match self {
            Target::Floats(rows) => Target::Floats(rows.skip(n)),
            Target::Blocks(rows, len) => Target::Blocks(rows.skip(n), len),
        }
    }
}

/// The same columns of several matrices' products, side by side in a worker's scratch, and their places in the target.
/// [`beside`] makes it, whose caller promises that both are this worker's alone; it is there while a [`Then`] runs.
#[derive(Debug)]
pub struct Beside<const N: usize> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Columns of each product.
    pub columns: Range<usize>,
    /// First row of each.
    pub(super) first: [*mut f32; N],
    /// Floats between rows of all.
    pub(super) stride: usize,
    /// The target from the first row on.
    pub(super) target: Target,
}

impl<const N: usize> Beside<N> {
    /// The results of row `i` of these rows.
    pub fn results(&mut self, i: usize) -> [&mut [f32]; N] {
        assert!(i < self.rows.len());
        self.first.map(|first| {
            let row = first.wrapping_add(i * self.stride);
            // SAFETY: each product has the row and its columns in scratch memory of this worker, side by side; they are
            // borrowed with the value.
            unsafe { std::slice::from_raw_parts_mut(row, self.columns.len()) }
        })
    }

    /// The results of row `i` of these rows, and their places in a target of floats.
    pub fn row(&mut self, i: usize) -> ([&mut [f32]; N], &mut [f32]) {
        let Target::Floats(out) = self.target else { unreachable!("the target has quantised rows") };
        assert!(i < self.rows.len() && self.columns.end * size_of::<f32>() <= out.stride());
        let place = out.row_f32(i).wrapping_add(self.columns.start);
        // SAFETY: the columns lie in the row of the target, where they are this worker's; they are borrowed with the value.
        let place = unsafe { std::slice::from_raw_parts_mut(place, self.columns.len()) };
        (self.results(i), place)
    }
}

/// Floats of scratch that [`beside`] needs for weights of this kind.
pub fn scratch_len<const N: usize>(packings: [Packing; N], unit: usize) -> usize {
    (HOT_BYTES / size_of::<f32>()).max(N * unit_of(packings, unit))
}

/// Columns that are computed together: whole panels of all weights, and whole units.
pub(super) fn unit_of<const N: usize>(packings: [Packing; N], unit: usize) -> usize {
    packings.iter().fold(unit, |unit, packing| common_multiple(unit, packing.panel_rows()))
}

/// Products over the same rows whose results are only needed together, or in another form: some columns of each
/// go into `scratch`, and from there `then` puts them into the target. Outputs of the products (`y`, `column`) are not
/// used.
///
/// # Safety
/// As [`run`], with the target's rows and columns (or blocks) for those written; `scratch` is this worker's own and holds
/// [`scratch_len`] floats; all weights have as many outputs.
pub unsafe fn beside<const N: usize>(
    worker: &Worker<'_>,
    shares: &Shares,
    products: [&Product<'_>; N],
    target: Target,
    scratch: *mut f32,
    then: Then<impl Fn(Beside<N>)>,
) {
    let (n, rows) = products.first().map_or((0, 0), |first| (first.weight.n(), first.x.len()));
    let unit = unit_of(products.map(|product| product.weight.packing()), then.unit);
    each_run(worker, shares, rows, n.div_ceil(unit), |run, rows| {
        let then = Then { unit: then.unit, call: &then.call };
        // SAFETY: the shares hand a run of units and rows to one worker; the rest as this function demands.
        unsafe { pieces(products, run, rows, target, scratch, then) };
    });
}

/// [`beside`] for one run of units and rows, in pieces that are still in L2 when `then` reads them.
///
/// # Safety
/// As [`beside`]; the run's columns of these rows are this worker's.
#[inline]
pub(super) unsafe fn pieces<const N: usize>(
    products: [&Product<'_>; N],
    run: Range<usize>,
    rows: Range<usize>,
    target: Target,
    scratch: *mut f32,
    then: Then<impl Fn(Beside<N>)>,
) {
    let n = products.first().map_or(0, |first| first.weight.n());
    let packings = products.map(|product| product.weight.packing());
    let (unit, hot) = (unit_of(packings, then.unit), scratch_len(packings, then.unit));
    let most = (hot / (N * unit * rows.len())).max(1);
    for first in run.clone().step_by(most) {
        let columns = first * unit..((first + most).min(run.end) * unit).min(n);
        let most_rows = (hot / (N * columns.len())).max(1);
        for begin in rows.clone().step_by(most_rows) {
            let rows = begin..(begin + most_rows).min(rows.end);
            let stride = N * columns.len();
            let first = std::array::from_fn(|i| {
                let place = scratch.wrapping_add(i * columns.len());
                // SAFETY: the scratch holds these rows of all columns, as was just counted; the rest as in `run`.
                unsafe { products[i].compute(columns.clone(), rows.clone(), Some((place, stride))) };
                place
            });
            (then.call)(Beside {
                target: target.skip(rows.start),
                rows,
                columns: columns.clone(),
                first,
                stride,
            });
        }
    }
}

/// Calls `f` with this worker's runs of `units` and rows. With many rows a unit's are shared out too where there
/// are few units: these stay together as far as can be, so that their weights are read from memory once.
pub(super) fn each_run(
    worker: &Worker<'_>,
    shares: &Shares,
    rows: usize,
    units: usize,
    mut f: impl FnMut(Range<usize>, Range<usize>),
) {
    let wanted = worker.count() * TASKS_PER_WORKER;
    let blocks = match worker.count() {
        1 => 1,
        _ => wanted.div_ceil(units.max(1)).min(rows / LEAST_ROWS).max(1),
    };
    while let Some(tasks) = shares.take(worker.index(), units * blocks) {
        if worker.is_poisoned() {
            return;
        }
        if blocks == 1 {
            f(tasks, 0..rows);
            continue;
        }
        for task in tasks {
            let unit = task / blocks;
            f(unit..unit + 1, share(rows, ROW_GRAIN, task % blocks, blocks));
        }
    }
}

/// The least number that both divide.
fn common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.max(1) / x * b.max(1)
}

impl Product<'_> {
    /// Computes some rows of some columns, whole panels but for the matrix' last. They go into Y, or to a
    /// place for these alone: an address and the floats between rows.
    ///
    /// # Safety
    /// As [`run`]: the rows and columns are this worker's, or the place has room for them.
    pub(super) unsafe fn compute(
        &self,
        columns: Range<usize>,
        rows: Range<usize>,
        place: Option<(*mut f32, usize)>,
    ) {
        let weight = self.weight;
        let nr = weight.packing().panel_rows();
        debug_assert!(self.bias.is_none_or(|bias| bias.len() == weight.n()));
        // The kernel counts columns from the matrix' first.
        let (y, ldy) = match place {
            None => {
                (self.y.row_f32(rows.start).wrapping_add(self.column), self.y.stride() / size_of::<f32>())
            }
            Some((place, stride)) => (place.wrapping_sub(columns.start), stride),
        };
        let scaled = self.scale != 1.0;
        debug_assert!(!(scaled && self.accumulate));
        let bias = self.bias.filter(|_| !scaled);
        let run = Run {
            x: self.x.row(rows.start),
            ldx: self.x.stride(),
            m: rows.len(),
            panels: columns.start / nr..columns.end.div_ceil(nr),
            y,
            ldy,
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            accumulate: self.accumulate,
        };
        // SAFETY: the rows of X are there, and these columns of Y (or the place), which the kernel writes first, are this
        // worker's.
        unsafe {
            weight.multiply(&run);
            for row in 0..if scaled { rows.len() } else { 0 } {
                let sums = y.wrapping_add(row * ldy + columns.start);
                self.scale_sums(std::slice::from_raw_parts_mut(sums, columns.len()), columns.start);
            }
        }
    }

    /// Multiplies sums of products by the scale and adds the bias; `first` is the column of the first sum.
    fn scale_sums(&self, sums: &mut [f32], first: usize) {
        match self.bias {
            None => sums.iter_mut().for_each(|sum| *sum *= self.scale),
            Some(bias) => {
                let pairs = sums.iter_mut().zip(&bias[first..]);
                pairs.for_each(|(sum, bias)| *sum = *sum * self.scale + bias);
            }
        }
    }
}
