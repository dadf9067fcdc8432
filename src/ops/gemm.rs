//! General products shared out over a team, in two dimensions: C is cut into parts of rows × columns whose shape
//! follows the product's. Which worker computes a part, and how C is cut, doesn't change a bit.

use crate::error::Result;
use crate::kernels::matmul::{Gemm, Right, Row};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::threads::{Team, WorkCounter, Worker};

/// Parts a worker should find, at most: enough that a late worker costs little.
const PARTS_PER_WORKER: usize = 4;
/// Multiply-adds below which waking a team costs more than it saves: some 5 µs of one core.
const WORTH_SHARING: usize = 1 << 19;
/// Multiply-adds that reading (and packing) one element costs, about: what a part's shape is weighed by.
const ELEMENT_COST: usize = 32;

/// Working memory for products; it grows to what the largest has wanted, and stays.
#[derive(Default)]
pub struct Workspace {
    scratch: Option<AlignedBuf>,
    counter: WorkCounter,
}

/// Rows and columns of a part, and how many of each there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    rows: usize,
    columns: usize,
    down: usize,
    across: usize,
}

/// Where the products' results begin.
#[derive(Clone, Copy)]
struct Target {
    c: *mut f32,
    ldc: usize,
}

// SAFETY: an address and a number; who writes through it answers for disjointness.
unsafe impl Sync for Target {}
// SAFETY: as above.
unsafe impl Send for Target {}

impl Workspace {
    /// Computes one product, on the team's threads or else on the caller's; see [`Gemm::run`].
    ///
    /// # Errors
    /// As [`Gemm::run`]; [`Error::OutOfMemory`](crate::Error::OutOfMemory); what [`Team::run`] reports.
    pub fn multiply(
        &mut self,
        team: Option<&Team>,
        row: &Row,
        gemm: &Gemm<'_>,
        c: &mut [f32],
        ldc: usize,
    ) -> Result<()> {
        gemm.check(row)?;
        gemm.check_c(c.len(), ldc)?;
        let target = Target { c: c.as_mut_ptr(), ldc };
        // SAFETY: checked, and C is borrowed mutably.
        unsafe { self.multiply_each(team, row, 1, |_| (*gemm, target.start()), ldc) }
    }

    /// Computes `count` products of one shape; `product` gives the i-th and where its result begins. Allocates
    /// nothing where an earlier call wanted as much memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); what [`Team::run`] reports.
    ///
    /// # Safety
    /// [`Gemm::check`] has passed for each; results are writable, m × n with `ldc` floats between lines, and
    /// overlap neither each other nor any operand.
    pub unsafe fn multiply_each<'a>(
        &mut self,
        team: Option<&Team>,
        row: &Row,
        count: usize,
        product: impl Fn(usize) -> (Gemm<'a>, *mut f32) + Sync,
        ldc: usize,
    ) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let (first, _) = product(0);
        let work = first.m.saturating_mul(first.n).saturating_mul(first.k).saturating_mul(count);
        let team = team.filter(|team| team.count() > 1 && work >= WORTH_SHARING);
        let workers = team.map_or(1, Team::count);
        let grid = Grid::new(&first, row, workers.div_ceil(count));
        // A multiple of a cache line, so that workers don't share one.
        let scratch_len = first.scratch_len(row).next_multiple_of(16);
        let scratch = Target { c: self.scratch(workers, scratch_len)?, ldc: scratch_len };
        self.counter.reset();
        let counter = &self.counter;
        let parts = grid.down * grid.across;
        let share = |worker: usize| {
            while let Some(task) = counter.take(parts * count, 1) {
                let (gemm, c) = product(task.start / parts);
                let (down, across) = (task.start % parts / grid.across, task.start % grid.across);
                let rows = down * grid.rows..gemm.m.min((down + 1) * grid.rows);
                let columns = across * grid.columns..gemm.n.min((across + 1) * grid.columns);
                // SAFETY: the counter hands each part to one worker, and each has scratch memory of its own; the
                // rest is the caller's promise.
                unsafe { gemm.run_part(row, c, ldc, rows, columns, scratch.line(worker)) };
            }
        };
        match team {
            Some(team) => team.run(|worker: &Worker<'_>| share(worker.index())),
            None => {
                share(0);
                Ok(())
            }
        }
    }

    /// Memory for `workers` times `len` floats.
    fn scratch(&mut self, workers: usize, len: usize) -> Result<*mut f32> {
        const WHAT: &str = "a matrix product";
        let bytes = checked_bytes(workers.saturating_mul(len), size_of::<f32>(), WHAT)?;
        let buffer = match self.scratch.take() {
            Some(buffer) if buffer.len() >= bytes => buffer,
            _ => AlignedBuf::zeroed(bytes, WHAT)?,
        };
        Ok(self.scratch.insert(buffer).as_mut_ptr().cast())
    }
}

impl Target {
    fn start(&self) -> *mut f32 {
        self.c
    }

    fn line(&self, line: usize) -> *mut f32 {
        self.c.wrapping_add(line * self.ldc)
    }
}

impl Grid {
    /// The cut that should take `workers` the least time: parts near to squares, since what they read grows with
    /// their edges, and as many as keep everyone busy.
    fn new(gemm: &Gemm<'_>, row: &Row, workers: usize) -> Grid {
        let (m, n) = (gemm.m.max(1), gemm.n.max(1));
        let whole = Grid { rows: m, columns: n, down: 1, across: 1 };
        if workers == 1 {
            return whole;
        }
        let most = workers.saturating_mul(PARTS_PER_WORKER);
        let cut = |len: usize, parts: usize, grain: usize| {
            let size = len.div_ceil(parts).next_multiple_of(grain);
            (size.min(len), len.div_ceil(size))
        };
        let shapes = (1..=most.min(m.div_ceil(row.info.mr))).flat_map(|down| {
            (1..=(most / down).min(n.div_ceil(row.info.nr))).map(move |across| (down, across))
        });
        let grids = shapes.map(|(down, across)| {
            let ((rows, down), (columns, across)) = (cut(m, down, row.info.mr), cut(n, across, row.info.nr));
            Grid { rows, columns, down, across }
        });
        // A packed B is read as it is; a plain one may have to be packed for each part.
        let b_cost = if matches!(gemm.b, Right::Packed(_)) { 1 } else { 2 };
        let time = |grid: &Grid| {
            let edges = grid.rows.saturating_add(b_cost * grid.columns);
            let part = grid.rows.saturating_mul(grid.columns).saturating_add(ELEMENT_COST * edges);
            let rounds = (grid.down * grid.across).div_ceil(workers);
            // A quarter of a part more: what the others wait for the last of them.
            part.saturating_mul(4 * rounds + 1)
        };
        grids.min_by_key(|grid| (time(grid), grid.down * grid.across)).unwrap_or(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::IsaId;
    use crate::kernels::matmul::{Activation, Epilogue, Lines, Matrix, Set};
    use crate::testing::noise_vec;

    #[test]
    fn any_team_gives_the_bits_of_one_thread() {
        let row = Set::select(IsaId::detect()).f32;
        for (m, n, k) in [(1, 3000, 300), (200, 7, 900), (97, 193, 131), (600, 64, 40), (5, 5, 5)] {
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
                Workspace::default().multiply(None, row, &gemm, &mut want, n).unwrap();
                for threads in [2, 3, 5] {
                    let team = Team::new(threads).unwrap();
                    let mut workspace = Workspace::default();
                    for _ in 0..2 {
                        let mut got = start.clone();
                        workspace.multiply(Some(&team), row, &gemm, &mut got, n).unwrap();
                        assert!(got == want, "{m} × {n} × {k} on {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn parts_cover_c_and_follow_its_shape() {
        let row = Set::select(IsaId::detect()).f32;
        let data = [0.0];
        let empty = Matrix { data: &data, ld: 1, transposed: false };
        let gemm = |m, n| Gemm {
            m,
            n,
            k: 1,
            alpha: 1.0,
            a: empty,
            b: Right::Plain(empty),
            beta: 0.0,
            epilogue: Epilogue::default(),
        };
        for (m, n) in [(1, 1), (1, 4096), (4096, 1), (1000, 1000), (7, 300), (4096, 64), (64, 4096)] {
            for workers in [1, 2, 3, 8, 64] {
                let grid = Grid::new(&gemm(m, n), row, workers);
                assert!(grid.down * grid.rows >= m && (grid.down - 1) * grid.rows < m, "{grid:?}");
                assert!(grid.across * grid.columns >= n && (grid.across - 1) * grid.columns < n, "{grid:?}");
                assert!(grid.down == 1 || grid.rows.is_multiple_of(row.info.mr), "{grid:?}");
                assert!(grid.across == 1 || grid.columns.is_multiple_of(row.info.nr), "{grid:?}");
                assert!(grid.down * grid.across <= workers * PARTS_PER_WORKER, "{grid:?}");
            }
        }
        assert_eq!(Grid::new(&gemm(4096, 64), row, 2).across, 1);
        assert_eq!(Grid::new(&gemm(6, 4096), row, 2).down, 1);
        let square = Grid::new(&gemm(4096, 4096), row, 8);
        assert!(square.down > 1 && square.across > 1, "{square:?}");
    }
}
