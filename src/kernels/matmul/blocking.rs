//! The loops round the register tile: rows, k and panels, cut so that what is read again stays in a cache.
//!
//! ```text
//! for rows  (ROWS at a time: their slice of X stays in L2 while every panel passes by)
//!   for k     (a slice of a panel stays in L1 while every row block passes by)
//!     for panels
//!       for row blocks of MR   (inside the tile)
//! ```
//!
//! No cut changes a bit of the result: sums are kept in Y between the slices of k.

use super::tile::{Block, Tiles};

/// Bytes of a panel's slice that shall stay in L1 (32 to 48 KiB on today's cores) beside the rows of X.
const SLICE_BYTES: usize = 24 << 10;
/// Bytes of X's slice that shall stay in L2 (1 MiB and more on today's cores) beside the panels passing by.
const ROWS_BYTES: usize = 512 << 10;

/// A product of rows with a run of panels, wherever the panels stand.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    /// First row of X.
    pub x: *const u8,
    /// Bytes between rows of X.
    pub ldx: usize,
    /// Rows of X and Y.
    pub m: usize,
    /// Length of the sums.
    pub k: usize,
    /// First panel.
    pub w: *const u8,
    /// Bytes between a panel's rows of k: NR elements where it is packed.
    pub row_stride: usize,
    /// Bytes between panels.
    pub panel_stride: usize,
    /// First row of Y, at the first panel's first column.
    pub y: *mut f32,
    /// Floats between rows of Y.
    pub ldy: usize,
    /// Columns of Y to write, which is how many panels are read.
    pub columns: usize,
    /// Sums start from what Y holds, not from 0.
    pub resume: bool,
    /// Added to the start of each sum: `columns` floats, or null.
    pub bias: *const f32,
}

/// How one kernel cuts its products.
#[derive(Clone, Copy)]
pub(super) struct Blocking {
    /// Tiles by height.
    pub tiles: Tiles,
    /// Columns of a panel.
    pub nr: usize,
    /// Bytes of a panel's row (NR elements at one k).
    pub row_bytes: usize,
}

impl Blocking {
    /// Rows of k that are cut off a panel at a time.
    pub fn k_slice(&self) -> usize {
        SLICE_BYTES / self.row_bytes
    }

    /// # Safety
    /// The memory that `product` names is there, Y overlaps nothing, and the CPU has the tiles' instruction set.
    #[inline]
    pub unsafe fn run(&self, product: &Product) {
        let mr = self.tiles.len();
        // A single row block never meets a panel again: k in one piece.
        let slice = if product.m <= mr { product.k.max(1) } else { self.k_slice() };
        let rows = (ROWS_BYTES / (4 * slice)).max(mr);
        let mut row = 0;
        while row < product.m {
            let m = rows.min(product.m - row);
            let mut k = 0;
            loop {
                let part = Product {
                    x: product.x.wrapping_add(row * product.ldx + k * 4),
                    m,
                    k: slice.min(product.k - k),
                    w: product.w.wrapping_add(k * product.row_stride),
                    y: product.y.wrapping_add(row * product.ldy),
                    resume: product.resume || k > 0,
                    bias: if k > 0 { std::ptr::null() } else { product.bias },
                    ..*product
                };
                // SAFETY: a part of the product.
                unsafe { self.panels(&part) };
                k += part.k;
                // One pass even for k = 0: the sums of nothing are written too.
                if k >= product.k {
                    break;
                }
            }
            row += m;
        }
    }

    /// All panels against one slice of rows and k. The rows are cut into blocks as even as can be.
    ///
    /// # Safety
    /// As `run`.
    #[inline]
    unsafe fn panels(&self, part: &Product) {
        let blocks = part.m.div_ceil(self.tiles.len());
        let (height, taller) = (part.m / blocks, part.m % blocks);
        let group = if blocks == 1 { self.tiles[height - 1].group } else { 1 };
        let mut column = 0;
        while column < part.columns {
            let left = part.columns - column;
            let panels = if left.div_ceil(self.nr) >= group { group } else { 1 };
            let panel = column / self.nr;
            let mut block = Block {
                x: part.x,
                ldx: part.ldx,
                blocks: taller,
                k: part.k,
                w: part.w.wrapping_add(panel * part.panel_stride),
                row_stride: part.row_stride,
                panel_stride: part.panel_stride,
                y: part.y.wrapping_add(column),
                ldy: part.ldy,
                columns: left.min(panels * self.nr),
                resume: part.resume,
                bias: if part.bias.is_null() { part.bias } else { part.bias.wrapping_add(column) },
            };
            // SAFETY: each block is a part of the product.
            unsafe {
                if taller > 0 {
                    (self.tiles[height].one)(&block);
                    block.x = block.x.wrapping_add(taller * (height + 1) * part.ldx);
                    block.y = block.y.wrapping_add(taller * (height + 1) * part.ldy);
                }
                block.blocks = blocks - taller;
                let tile = &self.tiles[height - 1];
                if panels > 1 { (tile.many)(&block) } else { (tile.one)(&block) }
            }
            column += panels * self.nr;
        }
    }
}
