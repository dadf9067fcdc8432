//! The register tiles of the five products, and how a product is cut into them.
//! One body for all: some rows of factors, which are broadcast, times lines of vectors.

use crate::isa::{Isa, IsaId};
use crate::kernels::attention::step::Step;
use crate::kernels::routine::{Routine, entry};
use crate::kernels::vectors::{Row, RowsMut};
use std::ops::Range;

/// Rows of the highest tile of any level.
pub(super) const MAX_ROWS: usize = 6;
/// Vectors of the widest tile of any level.
const MAX_WIDTH: usize = 4;

/// c\[i\]\[j\] = Σ a\[i\]\[k\] · b\[k\]\[j\], or c\[i\]\[j\] += it, for some rows i and vectors of columns j, steps k in order.
#[derive(Clone, Copy)]
pub(super) struct Product {
    /// Row 0, step 0 of the factors.
    pub a: *const f32,
    /// Floats from one row of factors to the next.
    pub a_row: usize,
    /// Floats from one step's factors to the next's.
    pub a_step: usize,
    /// The line of step 0.
    pub b: *const f32,
    /// Floats from one line to the next.
    pub b_step: usize,
    /// Steps.
    pub depth: usize,
    /// Row 0 of the sums.
    pub c: *mut f32,
    /// Floats from one row of sums to the next.
    pub c_row: usize,
    /// Adds to the sums there instead of starting at 0.
    pub resume: bool,
}

/// The tiles of one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// Rows of the highest tile.
    pub mr: usize,
    /// Vectors of the widest tile.
    pub width: usize,
    /// Floats of a vector.
    pub lanes: usize,
    /// By rows and vectors, each less one.
    tiles: [[Step<Product>; MAX_WIDTH]; MAX_ROWS],
}

impl Tiles {
    /// The tiles of level `I`: with 32 registers 24 sums, 4 vectors of a line and a factor; with 16 half of that.
    pub const fn of<I: Isa>() -> Self {
        // The scalar level has four lanes in sixteen registers, two of which a rounded product takes.
        let mr = if matches!(I::ID, IsaId::Scalar) { 4 } else { MAX_ROWS };
        let (width, tiles) = if I::REGISTERS >= 32 {
            (
                4,
                [
                    row::<I, 1, 3, 4>(),
                    row::<I, 2, 3, 4>(),
                    row::<I, 3, 3, 4>(),
                    row::<I, 4, 3, 4>(),
                    row::<I, 5, 3, 4>(),
                    row::<I, 6, 3, 4>(),
                ],
            )
        } else {
            // Wider tiles than two vectors are never chosen.
            (
                2,
                [
                    row::<I, 1, 2, 2>(),
                    row::<I, 2, 2, 2>(),
                    row::<I, 3, 2, 2>(),
                    row::<I, 4, 2, 2>(),
                    row::<I, 5, 2, 2>(),
                    row::<I, 6, 2, 2>(),
                ],
            )
        };
        Self { mr, width, lanes: I::LANES, tiles }
    }

    /// Computes `rows` rows, at most the highest tile's, and `vectors` vectors of columns.
    pub fn run(&self, rows: usize, vectors: usize, product: &Product) {
        let mut at = 0;
        while at < vectors {
            let width = self.width.min(vectors - at);
            let (b, c) = (product.b.wrapping_add(at * self.lanes), product.c.wrapping_add(at * self.lanes));
            self.tiles[rows - 1][width - 1].run(&Product { b, c, ..*product });
            at += width;
        }
    }

    /// The blocks of `rows` rows that go through a tile together: as even as can be, those one row higher first.
    pub fn blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let total = rows.div_ceil(self.mr);
        let (height, higher) = (rows / total.max(1), rows % total.max(1));
        (0..total).map(move |b| {
            let first = b * height + b.min(higher);
            first..first + height + usize::from(b < higher)
        })
    }
}

/// The tiles of MR rows and 1, 2, THREE and FOUR vectors.
const fn row<I: Isa, const MR: usize, const THREE: usize, const FOUR: usize>() -> [Step<Product>; MAX_WIDTH] {
    [
        Step::from_function(product::<I, MR, 1>),
        Step::from_function(product::<I, MR, 2>),
        Step::from_function(product::<I, MR, THREE>),
        Step::from_function(product::<I, MR, FOUR>),
    ]
}

/// Enters the tile: a function of its own, by whose name the test of the machine code finds it.
///
/// # Safety
/// The CPU has level `I`, and the memory that `tile` names is there.
unsafe fn product<I: Isa, const MR: usize, const NV: usize>(tile: &Product) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { entry::<I, Product, Tile<MR, NV>>(tile) }
}

/// MR rows of factors times NV vectors of each line.
struct Tile<const MR: usize, const NV: usize>;

impl<const MR: usize, const NV: usize> Routine<Product> for Tile<MR, NV> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &tile: &Product) {
        // SAFETY: the product names sums for these rows and columns.
        let c = unsafe { RowsMut::new(tile.c, tile.c_row, MR, NV * I::LANES) };
        let mut sums = [[isa.zero(); NV]; MR];
        if tile.resume {
            for (i, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = c.row(i).load(isa, v * I::LANES, I::LANES);
                }
            }
        }
        sums = multiply::<I, MR, NV>(isa, &tile, sums);
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                c.row(i).store(isa, v * I::LANES, sum, I::LANES);
            }
        }
    }
}

/// Adds factors · lines to the sums, steps in order.
#[inline(always)]
fn multiply<I: Isa, const MR: usize, const NV: usize>(
    isa: I,
    tile: &Product,
    mut sums: [[I::F32; NV]; MR],
) -> [[I::F32; NV]; MR] {
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.depth {
        // SAFETY: the product names a line of so many vectors for each step.
        let vectors = unsafe { Row::new(b, NV * I::LANES) };
        let mut line = [isa.zero(); NV];
        for (v, x) in line.iter_mut().enumerate() {
            *x = vectors.load(isa, v * I::LANES, I::LANES);
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the product names a factor for each row and step.
            let factor = isa.splat(unsafe { a.wrapping_add(i * tile.a_row).read_unaligned() });
            for v in 0..NV {
                sums[v] = isa.mul_add(factor, line[v], sums[v]);
            }
        }
        (a, b) = (a.wrapping_add(tile.a_step), b.wrapping_add(tile.b_step));
    }
    sums
}
