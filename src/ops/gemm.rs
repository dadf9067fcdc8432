//! General products shared out over a team, in two dimensions: C is cut into parts of rows × columns whose shape
//! follows the product's. Each worker has its own parts, the same in every call of a shape, so that what it reads stays
//! in its caches from call to call; it takes others' parts when its own are done. Which worker computes a part, and how
//! C is cut, doesn't change a bit.

use std::ops::Range;

use super::scratch::Scratch;
use crate::error::{Error, Result};
use crate::kernels::matmul::{Gemm, Kernel, Right};
use crate::memory::ALIGNMENT;
use crate::threads::{Shares, Team, WorkCounter, Worker};

/// Parts that a worker has of a large product, at most: enough that a late worker costs little.
pub(super) const PARTS_PER_WORKER: usize = 4;
/// Multiply-adds of a worker's share below which it is one part: some 100 µs of a core.
const WORTH_PARTS: usize = 1 << 23;
/// Multiply-adds below which waking a team costs more than it saves: some 5 µs of one core.
const WORTH_SHARING: usize = 1 << 19;
/// Multiply-adds that an element of B costs besides, where few rows meet it.
const READ_COST: usize = 4;
/// Multiply-adds that reading (and packing) one element costs, about: a part's shape is weighed by it.
const ELEMENT_COST: usize = 32;

/// Working memory for products; it grows to what the largest product needs, and stays.
#[derive(Debug, Default)]
pub struct Workspace {
    scratch: Scratch,
    counter: WorkCounter,
    /// For the last number of workers.
    shares: Option<(usize, Shares)>,
}

/// Rows and columns of a part, and how many of each there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    rows: usize,
    columns: usize,
    down: usize,
    across: usize,
}

/// By what a product is cut: rows and columns that aren't divided, and the cost of a column of B, with a row of A as the
/// unit.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub mr: usize,
    pub nr: usize,
    pub b: usize,
}

/// Memory that workers share: one run, or equal runs, each a worker's own.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    begin: *mut u8,
    /// Bytes of a run.
    stride: usize,
}

// SAFETY: an address and a number; writes through it are unsafe operations, whose reasons say why they are disjoint.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// A call's share of a workspace.
pub(super) struct Memory<'a> {
    /// Hands out parts; it is to be reset first.
    pub counter: &'a WorkCounter,
    /// Memory for all workers.
    pub shared: Shared,
    /// A run for each worker.
    pub own: Shared,
}

/// The team, if it has several threads and the product of these sizes is worth waking them.
pub(super) fn worth_sharing(team: Option<&Team>, sizes: [usize; 3]) -> Option<&Team> {
    let work = sizes.into_iter().fold(1, usize::saturating_mul);
    team.filter(|team| team.count() > 1 && work >= WORTH_SHARING)
}

/// Multiply-adds of `count` products, and what reading their B costs.
fn work(gemm: &Gemm<'_>, count: usize) -> usize {
    let rows = gemm.m.saturating_add(READ_COST);
    [rows, gemm.n, gemm.k, count].into_iter().fold(1, usize::saturating_mul)
}

impl Workspace {
    /// Computes one product, on the team's threads or else on the caller's; see [`Gemm::run`].
    ///
    /// # Errors
    /// As [`Gemm::run`]; [`Error::OutOfMemory`]; the errors of [`Team::run`].
    pub fn multiply(
        &mut self,
        team: Option<&Team>,
        kernel: &Kernel,
        gemm: &Gemm<'_>,
        c: &mut [f32],
        ldc: usize,
    ) -> Result<()> {
        gemm.check(kernel)?;
        gemm.check_c(c.len(), ldc)?;
        let target = Shared { begin: c.as_mut_ptr().cast(), stride: 0 };
        // SAFETY: checked, and C is borrowed mutably.
        unsafe { self.multiply_each(team, kernel, 1, |_| (*gemm, target.floats(0)), ldc) }
    }

    /// Computes `count` products of one shape; `product` gives the i-th and where its result begins. Allocates
    /// nothing where an earlier call needed as much memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the errors of [`Team::run`].
    ///
    /// # Safety
    /// [`Gemm::check`] has passed for each; results are writable, m × n with `ldc` floats between lines, and
    /// overlap neither each other nor any operand.
    #[doc(hidden)]
    pub unsafe fn multiply_each<'a>(
        &mut self,
        team: Option<&Team>,
        kernel: &Kernel,
        count: usize,
        product: impl Fn(usize) -> (Gemm<'a>, *mut f32) + Sync,
        ldc: usize,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (first, _) = product(0);
        let team = team.filter(|team| team.count() > 1 && work(&first, count) >= WORTH_SHARING);
        let workers = team.map_or(1, Team::count);
        let grid = match team {
            Some(_) => Grid::of(kernel, &first, count, workers),
            None => Grid::whole([first.m, first.n]),
        };
        let part = [grid.rows, grid.columns];
        let scratch = first.scratch_of(kernel, part).checked_mul(size_of::<f32>());
        let own = self.memory(Some(0), workers, scratch)?.own;
        let run = |task: usize, worker: usize| {
            let (gemm, c) = product(task / grid.parts());
            let (rows, columns) = grid.part(task % grid.parts(), [gemm.m, gemm.n]);
            // SAFETY: each part is one worker's, and each worker has scratch memory of its own; the products and results
            // are as this function demands.
            unsafe { gemm.run_part(kernel, part, c, ldc, rows, columns, own.floats(worker)) };
        };
        let tasks = grid.parts().saturating_mul(count);
        let Some(team) = team.filter(|_| tasks > 1) else {
            (0..tasks).for_each(|task| run(task, 0));
            return Ok(());
        };
        let shares = self.shares(workers)?;
        team.run(|worker: &Worker<'_>| {
            while let Some(pieces) = shares.take(worker.index(), tasks) {
                pieces.for_each(|task| run(task, worker.index()));
            }
        })
    }

    /// Shares of so many workers, of which nothing is taken yet.
    fn shares(&mut self, workers: usize) -> Result<&Shares> {
        let shares = match self.shares.take() {
            Some((count, shares)) if count == workers => {
                (0..workers).for_each(|worker| shares.reset(worker));
                shares
            }
            _ => Shares::new(workers)?,
        };
        Ok(&self.shares.insert((workers, shares)).1)
    }

    /// `shared` bytes, and `own` bytes for each worker; `None` is more than can be counted.
    pub(super) fn memory(
        &mut self,
        shared: Option<usize>,
        workers: usize,
        own: Option<usize>,
    ) -> Result<Memory<'_>> {
        const WHAT: &str = "a matrix product";
        // Multiples of a cache line, so that workers don't share one.
        let lines = |bytes: Option<usize>| bytes.and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT));
        let too_large = || Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
        let (shared, own) = lines(shared).zip(lines(own)).ok_or_else(too_large)?;
        let bytes = own.checked_mul(workers).and_then(|own| own.checked_add(shared)).ok_or_else(too_large)?;
        let begin = self.scratch.reserve(bytes, WHAT)?.as_mut_ptr();
        Ok(Memory {
            counter: &self.counter,
            shared: Shared { begin, stride: shared },
            own: Shared { begin: begin.wrapping_add(shared), stride: own },
        })
    }
}

impl Shared {
    /// The address of a byte.
    pub fn byte(&self, at: usize) -> *mut u8 {
        self.begin.wrapping_add(at)
    }

    /// The first float of a worker's run.
    pub fn floats(&self, worker: usize) -> *mut f32 {
        self.byte(worker * self.stride).cast()
    }
}

impl Grid {
    /// The cut of each of `count` products of one shape.
    pub fn of(kernel: &Kernel, gemm: &Gemm<'_>, count: usize, workers: usize) -> Grid {
        let cost = match gemm.b {
            Right::Packed(_) => Cost { mr: kernel.info.mr, nr: kernel.info.nr, b: 1 },
            // A plain one may have to be packed for each part, and begins anywhere.
            Right::Plain(_) => Cost { mr: kernel.info.mr, nr: kernel.lanes(), b: 2 },
        };
        let pieces = if work(gemm, count) / workers < WORTH_PARTS { 1 } else { PARTS_PER_WORKER };
        Grid::new([gemm.m, gemm.n], cost, workers.div_ceil(count), pieces)
    }

    /// One part.
    fn whole([m, n]: [usize; 2]) -> Grid {
        Grid { rows: m, columns: n, down: 1, across: 1 }
    }

    /// The cut of m × n that should take `workers` the least time, at most `pieces` parts for each: parts near to squares,
    /// since the memory that they read grows with their edges.
    pub fn new([m, n]: [usize; 2], cost: Cost, workers: usize, pieces: usize) -> Grid {
        let Cost { mr, nr, b } = cost;
        let (m, n) = (m.max(1), n.max(1));
        let whole = Grid::whole([m, n]);
        if workers == 1 {
            return whole;
        }
        let most = workers.saturating_mul(pieces);
        let cut = |len: usize, parts: usize, grain: usize| {
            let size = len.div_ceil(parts).next_multiple_of(grain);
            (size.min(len), len.div_ceil(size))
        };
        let shapes = (1..=most.min(m.div_ceil(mr)))
            .flat_map(|down| (1..=(most / down).min(n.div_ceil(nr))).map(move |across| (down, across)));
        let grids = shapes.map(|(down, across)| {
            let ((rows, down), (columns, across)) = (cut(m, down, mr), cut(n, across, nr));
            Grid { rows, columns, down, across }
        });
        let time = |grid: &Grid| {
            let edges = grid.rows.saturating_add(b * grid.columns);
            let part = grid.rows.saturating_mul(grid.columns).saturating_add(ELEMENT_COST * edges);
            let rounds = (grid.down * grid.across).div_ceil(workers);
            // A quarter of a part more, which the others wait for the last of them.
            part.saturating_mul(4 * rounds + 1)
        };
        grids.min_by_key(|grid| (time(grid), grid.down * grid.across)).unwrap_or(whole)
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.down * self.across
    }

    /// Rows and columns of a part of m × n.
    pub fn part(&self, index: usize, [m, n]: [usize; 2]) -> (Range<usize>, Range<usize>) {
        let (down, across) = (index / self.across, index % self.across);
        let rows = down * self.rows..m.min((down + 1) * self.rows);
        (rows, across * self.columns..n.min((across + 1) * self.columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::IsaId;
    use crate::kernels::matmul::{Activation, Epilogue, Lines, MatmulKernels, Matrix};
    use crate::testing::noise_vec;

    #[test]
    fn any_team_gives_the_bits_of_one_thread() {
        let kernel = MatmulKernels::select(IsaId::detect()).f32;
        let shapes = [
            (1, 3000, 300),
            (3, 1001, 513),
            (8, 999, 700),
            (200, 7, 900),
            (97, 193, 131),
            (600, 64, 40),
            (5, 5, 5),
        ];
        for (m, n, k) in shapes {
            let (a, b) = (noise_vec(m * k, 1), noise_vec(k * n, 2));
            let (bias, residual) = (noise_vec(n, 3), noise_vec(m * n, 4));
            for transposed in [false, true] {
                let gemm = Gemm {
                    m,
                    n,
                    k,
                    alpha: 1.0,
                    a: Matrix { data: &a, ld: k, transposed: false },
                    b: Right::Plain(Matrix { data: &b, ld: if transposed { k } else { n }, transposed }),
                    beta: 0.5,
                    epilogue: Epilogue {
                        bias: Some(&bias),
                        activation: Activation::GeluTanh,
                        residual: Some(Lines { data: &residual, ld: n }),
                        ..Default::default()
                    },
                };
                let start = noise_vec(m * n, 5);
                let mut want = start.clone();
                Workspace::default().multiply(None, kernel, &gemm, &mut want, n).unwrap();
                for threads in [2, 3, 5] {
                    let team = Team::new(threads).unwrap();
                    let mut workspace = Workspace::default();
                    for _ in 0..2 {
                        let mut got = start.clone();
                        workspace.multiply(Some(&team), kernel, &gemm, &mut got, n).unwrap();
                        assert!(got == want, "{m} × {n} × {k} on {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_cover_c_and_follow_its_shape() {
        let kernel = MatmulKernels::select(IsaId::detect()).f32;
        let cost = Cost { mr: kernel.info.mr, nr: kernel.info.nr, b: 2 };
        let grid_of = |m, n, workers| Grid::new([m, n], cost, workers, PARTS_PER_WORKER);
        for (m, n) in [(1, 1), (1, 4096), (4096, 1), (1000, 1000), (7, 300), (4096, 64), (64, 4096)] {
            for workers in [1, 2, 3, 8, 64] {
                let grid = grid_of(m, n, workers);
                assert!(grid.down * grid.rows >= m && (grid.down - 1) * grid.rows < m, "{grid:?}");
                assert!(grid.across * grid.columns >= n && (grid.across - 1) * grid.columns < n, "{grid:?}");
                assert!(grid.down == 1 || grid.rows.is_multiple_of(kernel.info.mr), "{grid:?}");
                assert!(grid.across == 1 || grid.columns.is_multiple_of(kernel.info.nr), "{grid:?}");
                assert!(grid.down * grid.across <= workers * PARTS_PER_WORKER, "{grid:?}");
            }
        }
        for (m, n, workers) in [(8, 1024, 2), (1, 4096, 3), (512, 64, 4), (96, 768, 8)] {
            let even = Grid::new([m, n], cost, workers, 1);
            assert_eq!(even.parts(), workers, "{even:?} of {m} × {n}");
        }
        assert_eq!(grid_of(4096, 64, 2).across, 1);
        assert_eq!(grid_of(6, 4096, 2).down, 1);
        let square = grid_of(4096, 4096, 8);
        assert!(square.down > 1 && square.across > 1, "{square:?}");
    }
}
