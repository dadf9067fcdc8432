//! Products with the matrices of experts: rows are sorted by expert, and each expert's rows are one product.
//! A row's results don't depend on the rows beside it, on the worker, or on how rows are cut into batches: each product
//! has the order of additions of its kernel, and a row's experts are added in the order of their numbers.

use std::ops::Range;

use super::Rows;
use super::linear::{self, Beside, Product, Target, Then};
use super::matrix::PackedMatrix;
use crate::kernels::unary::Axpy;
use crate::threads::{Shares, Worker};

/// Bytes of rows that are gathered at once, about: they and an expert's panel fit L2.
const GATHER_BYTES: usize = 256 << 10;
/// Rows that are gathered at once are a multiple of it, which register tiles of 4, 6 and 16 rows divide.
const GATHER_GRAIN: usize = 48;
/// Rows that the columns of an output product are cut for: as many as a block of them has, about.
const OUT_ROWS: usize = 64;

/// The experts that each row chose, and their weights: the first `used` words of a row are numbers of experts, the
/// others floats.
#[derive(Clone, Copy)]
pub struct Routes {
    /// The rows.
    pub rows: Rows,
    /// Experts of a row; each is another one.
    pub used: usize,
}

impl Routes {
    /// Bytes of a row.
    pub fn row_bytes(used: usize) -> Option<usize> {
        used.checked_mul(2 * size_of::<u32>())
    }

    /// Words between rows.
    fn stride(&self) -> usize {
        self.rows.stride() / size_of::<u32>()
    }

    /// The places for the experts of row `r` and for their weights.
    ///
    /// # Safety
    /// The row is there, and nobody else reads or writes it while the slices live.
    pub unsafe fn places<'a>(&self, r: usize) -> (&'a mut [u32], &'a mut [f32]) {
        debug_assert!(r < self.rows.len());
        let row = self.rows.row(r);
        // SAFETY: row r holds `used` numbers and as many floats behind them, which nobody else touches.
        unsafe {
            let experts = std::slice::from_raw_parts_mut(row.cast(), self.used);
            (experts, std::slice::from_raw_parts_mut(row.cast::<f32>().add(self.used), self.used))
        }
    }
}

/// Rows sorted by expert. A position in this order is one expert of one row; an expert's positions follow one another,
/// in the order of their rows.
pub struct Sorted<'a> {
    routes: Routes,
    /// All words of the routes.
    words: &'a [u32],
    /// For each expert, the position behind its last one.
    ends: &'a [u32],
    /// For each position, the entry `row · used + rank`.
    entries: &'a [u32],
    /// The experts that have rows.
    active: &'a [u32],
}

impl<'a> Sorted<'a> {
    /// Words of memory that `rows` rows need; `None` where 32 bits don't number their positions.
    pub fn words(count: usize, used: usize, rows: usize) -> Option<usize> {
        let entries = rows.checked_mul(used).filter(|&entries| u32::try_from(entries).is_ok())?;
        entries.checked_add(2 * count)
    }

    /// Sorts rows in `memory`, of [`Sorted::words`], for `count` experts.
    ///
    /// # Safety
    /// Nobody writes the routes while the value lives, which hold numbers below `count`.
    pub unsafe fn new(routes: Routes, count: usize, memory: &'a mut [u32]) -> Self {
        let Routes { rows, used } = routes;
        let (ends, memory) = memory.split_at_mut(count);
        let (active, entries) = memory.split_at_mut(count);
        ends.fill(0);
        // SAFETY: `Rows::new` was promised a buffer of all rows, which nobody writes while the value lives, as the caller
        // promises; any bytes are words.
        let words: &[u32] =
            unsafe { std::slice::from_raw_parts(rows.row(0).cast(), rows.len() * routes.stride()) };
        let experts = |r: usize| &words[r * routes.stride()..][..used];
        for r in 0..rows.len() {
            experts(r).iter().for_each(|&expert| ends[expert as usize] += 1);
        }
        let (mut begin, mut n_active) = (0, 0);
        for (expert, end) in ends.iter_mut().enumerate() {
            if *end > 0 {
                active[n_active] = expert as u32;
                n_active += 1;
            }
            // For now, an expert's first position, and later the next one to fill.
            (begin, *end) = (begin + *end, begin);
        }
        for r in 0..rows.len() {
            for (rank, &expert) in experts(r).iter().enumerate() {
                let place = &mut ends[expert as usize];
                entries[*place as usize] = (r * used + rank) as u32;
                *place += 1;
            }
        }
        Sorted { routes, words, ends, entries: &entries[..rows.len() * used], active: &active[..n_active] }
    }

    /// An expert's positions.
    fn positions(&self, expert: usize) -> Range<usize> {
        let begin = if expert == 0 { 0 } else { self.ends[expert - 1] };
        begin as usize..self.ends[expert] as usize
    }

    /// The row of a position.
    fn row(&self, position: usize) -> usize {
        self.entries[position] as usize / self.routes.used
    }

    /// The weight of a position.
    pub fn weight(&self, position: usize) -> f32 {
        let (entry, used) = (self.entries[position] as usize, self.routes.used);
        f32::from_bits(self.words[entry / used * self.routes.stride() + used + entry % used])
    }

    /// The part of an expert's positions whose rows lie in `rows`.
    fn positions_in(&self, expert: usize, rows: &Range<usize>) -> Range<usize> {
        let all = self.positions(expert);
        let behind = |row: usize| {
            let entries = &self.entries[all.clone()];
            all.start + entries.partition_point(|&entry| (entry as usize) < row * self.routes.used)
        };
        behind(rows.start)..behind(rows.end)
    }

    /// The one run of rows that an expert's positions are, if they are one.
    fn run(&self, positions: &Range<usize>) -> Option<Range<usize>> {
        let first = self.row(positions.start);
        let last = self.row(positions.end - 1);
        (last - first + 1 == positions.len()).then(|| first..last + 1)
    }
}

/// Products with the matrices of experts.
#[derive(Clone, Copy)]
pub struct ExpertProducts<'a> {
    /// The rows of the batch, or the sorted positions: f32, or quantised as the kernels read them.
    pub x: Rows,
    /// A matrix for each expert, all of one shape and kernel.
    pub matrices: &'a [PackedMatrix],
    /// Biases, expert by expert.
    pub bias: Option<&'a [f32]>,
    /// A factor for each expert.
    pub scale: Option<&'a [f32]>,
}

impl<'a> ExpertProducts<'a> {
    fn product(&self, expert: usize, x: Rows) -> Product<'a> {
        let weight = &self.matrices[expert];
        let n = weight.n();
        Product {
            x,
            weight,
            bias: self.bias.map(|bias| &bias[expert * n..(expert + 1) * n]),
            y: x,
            column: 0,
            scale: self.scale.map_or(1.0, |scale| scale[expert]),
            accumulate: false,
        }
    }
}

/// Rows that [`beside`] gathers at once, of `stride` bytes.
fn gathered_rows(stride: usize) -> usize {
    (GATHER_BYTES / stride.max(1) / GATHER_GRAIN).max(1) * GATHER_GRAIN
}

/// Floats of memory for gathered rows of `stride` bytes each, a multiple of 64.
pub fn gather_len(stride: usize) -> Option<usize> {
    Some(gathered_rows(stride).checked_mul(stride)?.div_ceil(size_of::<f32>()))
}

/// A worker's memory for [`beside`].
#[derive(Clone, Copy)]
pub struct Memory<const N: usize> {
    /// For results: [`linear::scratch_len`] floats.
    pub results: *mut f32,
    /// For the rows of each product: [`gather_len`] floats each. Products of the same rows share the first.
    pub gathered: [*mut f32; N],
}

/// This worker's part of products of the same rows with their experts' matrices: some columns of some positions of each
/// go into the worker's memory, and from there `then` puts them into the target's rows, which are positions.
///
/// # Safety
/// As [`linear::beside`]: `x` has all rows of the batch, which no one writes until the op ends, and the memory is this
/// worker's own.
pub unsafe fn beside<const N: usize>(
    worker: &Worker<'_>,
    shares: &Shares,
    products: [&ExpertProducts<'_>; N],
    sorted: &Sorted<'_>,
    target: Target,
    memory: Memory<N>,
    then: Then<impl Fn(Beside<N>)>,
) {
    let first = &products[0].matrices[0];
    let packings = products.map(|product| product.matrices[0].packing());
    let unit = linear::unit_of(packings, then.unit);
    let units = first.n().div_ceil(unit);
    let mut gather = Gather { rows: products.map(|product| product.x), memory: memory.gathered, held: 0..0 };
    while let Some(tasks) = shares.take(worker.index(), sorted.active.len() * units) {
        if worker.is_poisoned() {
            return;
        }
        let mut begin = tasks.start;
        while begin < tasks.end {
            let which = begin / units;
            let end = tasks.end.min((which + 1) * units);
            let run = begin - which * units..end - which * units;
            begin = end;
            let expert = sorted.active[which] as usize;
            let positions = sorted.positions(expert);
            let step = if sorted.run(&positions).is_some() { positions.len() } else { gather.most() };
            for first in positions.clone().step_by(step) {
                let block = first..(first + step).min(positions.end);
                // SAFETY: `x` has the rows, and the memory is this worker's own.
                let x = unsafe { gather.block(&block, sorted) };
                let own: [_; N] = std::array::from_fn(|i| products[i].product(expert, x[i]));
                let own = std::array::from_fn(|i| &own[i]);
                let call = |part: Beside<N>| {
                    let rows = first + part.rows.start..first + part.rows.end;
                    (then.call)(Beside { rows, ..part });
                };
                let then = Then { unit, call };
                // SAFETY: the shares hand an expert's columns to one worker; the rest as this function demands.
                unsafe {
                    let target = target.skip(first);
                    linear::pieces(own, run.clone(), 0..block.len(), target, memory.results, then);
                }
            }
        }
    }
}

/// Rows of positions, copied one after the other where they don't stand so.
struct Gather<const N: usize> {
    rows: [Rows; N],
    memory: [*mut f32; N],
    /// The positions whose rows the memory holds.
    held: Range<usize>,
}

impl<const N: usize> Gather<N> {
    /// Most rows that the memory holds.
    fn most(&self) -> usize {
        self.rows.iter().map(|rows| gathered_rows(rows.stride())).min().unwrap_or(1)
    }

    /// The rows of a block of positions, for each product.
    ///
    /// # Safety
    /// The rows are there, and nobody writes them; a block of rows that don't follow one another has at most
    /// [`Gather::most`] rows, and the memory is this worker's own.
    unsafe fn block(&mut self, block: &Range<usize>, sorted: &Sorted<'_>) -> [Rows; N] {
        if let Some(run) = sorted.run(block) {
            return self.rows.map(|rows| rows.skip(run.start));
        }
        let is_copy = |i: usize| i == 0 || self.rows[i].row(0) != self.rows[0].row(0);
        if self.held != *block {
            for i in (0..N).filter(|&i| is_copy(i)) {
                let (rows, stride) = (self.rows[i], self.rows[i].stride());
                for (at, position) in block.clone().enumerate() {
                    let to = self.memory[i].cast::<u8>().wrapping_add(at * stride);
                    // SAFETY: the row is there, `stride` bytes long, and the memory has room for `most` of them.
                    unsafe { std::ptr::copy_nonoverlapping(rows.row(sorted.row(position)), to, stride) };
                }
            }
            self.held = block.clone();
        }
        std::array::from_fn(|i| {
            let from = if is_copy(i) { i } else { 0 };
            // SAFETY: the memory holds the rows of the block, as just copied; its parts are aligned as rows are.
            unsafe { Rows::new(self.memory[from].cast(), self.rows[i].stride(), block.len()) }
        })
    }
}

/// The sums of a product with experts' matrices over each row's experts.
#[derive(Clone, Copy)]
pub struct Combine<'a> {
    /// The product; its `x` has a row for each position.
    pub product: ExpertProducts<'a>,
    /// Output rows.
    pub out: Rows,
    /// Adds to `out` instead of overwriting it.
    pub accumulate: bool,
    /// Whether the routes' weights multiply results.
    pub weighs: bool,
    /// Multiplies and adds.
    pub axpy: &'a Axpy,
}

/// This worker's part of the sums: the columns that it takes from the shares, of all experts one after the other, so
/// that a row's experts are added in the order of their numbers. `results` has [`linear::scratch_len`] floats.
///
/// # Safety
/// As [`linear::run`]; the products' `x` has a row for each position.
pub unsafe fn combine(
    worker: &Worker<'_>,
    shares: &Shares,
    combine: &Combine<'_>,
    sorted: &Sorted<'_>,
    results: &mut [f32],
) {
    let Combine { product, out, accumulate, weighs, axpy } = *combine;
    let first = &product.matrices[0];
    let (n, unit) = (first.n(), first.packing().panel_rows());
    let hot = results.len();
    linear::each_run(worker, shares, out.len(), n.div_ceil(unit), |run, rows| {
        let most = (hot / (unit * rows.len().min(OUT_ROWS))).max(1);
        for begin in run.clone().step_by(most) {
            let columns = begin * unit..((begin + most).min(run.end) * unit).min(n);
            let part = |r| {
                let first = out.row_f32(r).wrapping_add(columns.start);
                // SAFETY: a row of `out` holds N floats, and the shares hand these columns of these rows to this worker
                // alone.
                unsafe { std::slice::from_raw_parts_mut(first, columns.len()) }
            };
            if !accumulate {
                rows.clone().for_each(|r| part(r).fill(0.0));
            }
            for &expert in sorted.active {
                let positions = sorted.positions_in(expert as usize, &rows);
                let own = product.product(expert as usize, product.x);
                for first in positions.clone().step_by(hot / columns.len()) {
                    let block = first..(first + hot / columns.len()).min(positions.end);
                    let place = Some((results.as_mut_ptr(), columns.len()));
                    // SAFETY: the results hold as many rows of these columns as the block has, and X the positions.
                    unsafe { own.compute(columns.clone(), block.clone(), place) };
                    for (position, result) in block.zip(results.chunks_exact(columns.len())) {
                        let weight = if weighs { sorted.weight(position) } else { 1.0 };
                        axpy.apply(weight, result, part(sorted.row(position)));
                    }
                }
            }
        }
    });
}
