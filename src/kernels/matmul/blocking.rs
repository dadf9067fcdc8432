//! The loops round the register tile: rows, panels and k, cut so that memory that is read again stays in a cache.
//!
//! ```text
//! for rows       a few rows of X, whole, stay in L2 while every panel passes by
//!   for panels
//!     for k        a slice of the panel stays in L1 (L2 where L1 is small) while the rows pass by, their sums, in Y, in L2
//!       for row blocks of MR   (inside the tile)
//! ```
//!
//! No cut changes a bit of the result: sums are kept in Y between the slices of k.

use super::tile::{Block, PanelRows, Tile, Tiles, WidenFn};
use crate::kernels::portion::Portion;
use crate::memory;
use std::mem::MaybeUninit;

/// Bytes of a panel's slice in f32, at most: room for one is taken on the stack. Half of it and twice were both some
/// 4 % slower at 256³ and 128 × 1024 × 1024, with an L1 of 48 KiB.
const SLICE_BYTES: usize = 32 << 10;
/// Rows of k in a slice, at most.
const SLICE_ROWS: usize = 256;
/// An L1 of this size holds too short a slice: what a tile does before its first product and after its last one shows.
/// There a slice stays in L2, which delivers rows as fast as a tile multiplies them, and has so many rows.
const SMALL_L1: usize = 32 << 10;
const L2_SLICE_ROWS: usize = 512;
/// Bytes that a row block prefetches at each k.
const PREFETCHED_BYTES: usize = 128;
/// Up to this many rows of k, rows of a B without panels come from afar, and lower tiles prefetch the next ones.
const SHALLOW: usize = 64;
/// From this many row blocks on it pays to widen a slice of 16-bit weights once, before they meet it.
const WIDEN_BLOCKS: usize = 3;

/// Room for a slice of a panel in f32.
#[repr(align(64))]
struct Slice(MaybeUninit<[f32; SLICE_BYTES / 4]>);

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
    /// Sums start from Y, not from 0.
    pub resume: bool,
    /// Added to the start of each sum: `columns` floats, or null.
    pub bias: *const f32,
}

/// How one kernel cuts its products.
#[derive(Clone, Copy)]
pub(crate) struct Blocking {
    /// Tiles by height.
    pub tiles: Tiles,
    /// Columns of a panel.
    pub nr: usize,
    /// Bytes of a panel's row (NR elements at one k).
    pub row_bytes: usize,
    /// For weights narrower than f32: how to widen a slice, and the tiles to multiply it with.
    pub wide: Option<(WidenFn, Tiles)>,
}

impl Blocking {
    /// Rows of k in a slice.
    pub fn k_slice(&self) -> usize {
        if memory::cache_sizes().l1d <= SMALL_L1 { L2_SLICE_ROWS } else { self.l1_slice() }
    }

    /// Rows of k in a slice that stays in L1.
    fn l1_slice(&self) -> usize {
        // Two thirds of L1 are left to it by the rows and sums that pass.
        let bytes = (memory::cache_sizes().l1d / 3 * 2).min(SLICE_BYTES);
        (bytes / (4 * self.nr)).min(SLICE_ROWS)
    }

    /// A portion of a product with packed panels.
    #[inline]
    pub fn product(&self, portion: &Portion) -> Product {
        let first = portion.panel_begin * self.nr;
        let columns = portion.n.min(portion.panel_end * self.nr).saturating_sub(first);
        let panel_stride = portion.k * self.row_bytes;
        Product {
            x: portion.x,
            ldx: portion.ldx,
            m: portion.m,
            k: portion.k,
            w: portion.w.wrapping_add(portion.panel_begin * panel_stride),
            row_stride: self.row_bytes,
            panel_stride,
            y: portion.y.wrapping_add(first),
            ldy: portion.ldy,
            columns,
            resume: portion.accumulate,
            bias: if portion.bias.is_null() { portion.bias } else { portion.bias.wrapping_add(first) },
        }
    }

    /// Multiplies.
    ///
    /// # Safety
    /// The memory that `product` names is there, Y overlaps nothing, and the CPU has the tiles' instruction set.
    #[inline]
    #[doc(hidden)]
    pub unsafe fn run(&self, product: &Product) {
        let mr = self.tiles.full.len();
        // Rows of X that should stay in L2 while the panels pass by.
        let bytes = memory::cache_sizes().l2 / 4;
        let rows = (bytes / (4 * product.k.max(1))).max(1).next_multiple_of(mr);
        let mut row = 0;
        while row < product.m {
            let part = Product {
                x: product.x.wrapping_add(row * product.ldx),
                m: rows.min(product.m - row),
                y: product.y.wrapping_add(row * product.ldy),
                ..*product
            };
            Part { blocking: self, product: &part }.run();
            row += part.m;
        }
    }
}

/// Rows of a running product that fit a cache. It is made in [`Blocking::run`], whose promise holds as long as the value
/// lives.
struct Part<'a> {
    blocking: &'a Blocking,
    product: &'a Product,
}

impl Part<'_> {
    /// The rows against all panels.
    #[inline]
    fn run(&self) {
        let Part { blocking, product: part } = *self;
        let (nr, tiles) = (blocking.nr, blocking.tiles);
        if part.row_stride != blocking.row_bytes
            && part.k > SHALLOW
            && let Some(tile) = tiles.tall.get(part.m.wrapping_sub(tiles.full.len() + 1))
            && part.columns >= tiles.tall_columns(nr)
        {
            return self.tall(tile);
        }
        let blocks = part.m.div_ceil(tiles.full.len());
        // A single row block never meets a slice again: k in one piece, and several panels at once.
        let (group, slice) =
            if blocks == 1 { (tiles.full[part.m - 1].group, part.k) } else { (1, blocking.k_slice()) };
        let mut column = 0;
        while column < part.columns {
            let left = part.columns - column;
            let panels = if left > (group - 1) * nr { group } else { 1 };
            let block = Block {
                x: part.x,
                ldx: part.ldx,
                blocks,
                k: part.k,
                w: part.w.wrapping_add(column / nr * part.panel_stride),
                row_stride: part.row_stride,
                panel_stride: part.panel_stride,
                next: part.w,
                next_step: 0,
                next_block: 0,
                y: part.y.wrapping_add(column),
                ldy: part.ldy,
                columns: left.min(panels * nr),
                resume: part.resume,
                bias: if part.bias.is_null() { part.bias } else { part.bias.wrapping_add(column) },
            };
            let last = left <= panels * nr;
            match blocking.wide {
                Some(wide) if blocks >= WIDEN_BLOCKS => self.widened_slices(block, last, wide),
                _ => slices(block, blocking.row_bytes, slice, last, |slice| self.row_blocks(tiles, slice)),
            }
            column += panels * nr;
        }
    }

    /// All rows in one tile, as long as it finds columns; then the rest of the columns.
    fn tall(&self, tile: &Tile) {
        let Part { blocking, product: part } = *self;
        let columns = blocking.tiles.tall_columns(blocking.nr);
        // B isn't in panels, or all of these columns are in one: those of a row of k follow one another.
        let from = |column: usize| Product {
            w: part.w.wrapping_add(column * blocking.row_bytes / blocking.nr),
            y: part.y.wrapping_add(column),
            bias: if part.bias.is_null() { part.bias } else { part.bias.wrapping_add(column) },
            columns: part.columns - column,
            ..*part
        };
        let mut column = 0;
        while part.columns - column >= columns {
            let Product { x, ldx, k, w, row_stride, panel_stride, y, ldy, resume, bias, .. } = from(column);
            let block = Block {
                x,
                ldx,
                blocks: 1,
                k,
                w,
                row_stride,
                panel_stride,
                next: w,
                next_step: 0,
                next_block: 0,
                y,
                ldy,
                columns,
                resume,
                bias,
            };
            // SAFETY: the rows and columns are the product's, whose memory is there, at a level that the CPU has.
            unsafe { (tile.one)(&block) };
            column += columns;
        }
        if column < part.columns {
            Part { blocking, product: &from(column) }.run();
        }
    }

    /// One panel, each slice of it widened to f32 before the rows meet it.
    fn widened_slices(&self, block: Block, last: bool, (widen, tiles): (WidenFn, Tiles)) {
        let blocking = self.blocking;
        let mut wide = Slice(MaybeUninit::uninit());
        let wide: *mut f32 = wide.0.as_mut_ptr().cast();
        slices(block, blocking.row_bytes, blocking.l1_slice(), last, |slice| {
            let rows = PanelRows { src: slice.w, stride: slice.row_stride, rows: slice.k, dst: wide };
            // SAFETY: the panel holds the slice, which has at most l1_slice rows of NR columns: SLICE_BYTES at most.
            unsafe { widen(&rows) };
            self.row_blocks(tiles, Block { w: wide.cast(), row_stride: 4 * blocking.nr, ..slice });
        });
    }

    /// All rows in `block.blocks` row blocks as even as can be; those one row taller come first. The block is a slice of
    /// panels of the product (or of its widened copy): one, or as many as a tile of all rows takes.
    #[inline]
    fn row_blocks(&self, tiles: Tiles, mut block: Block) {
        let (m, nr) = (self.product.m, self.blocking.nr);
        let (height, taller) = (m / block.blocks, m % block.blocks);
        let lower = block.blocks - taller;
        let many = block.columns > nr;
        let tiles = tiles.for_columns(block.columns, nr);
        // SAFETY: each tile gets rows and panels of the block, whose memory is there, at a level that the CPU has.
        unsafe {
            if taller > 0 {
                block.blocks = taller;
                (tiles[height].one)(&block);
                block.x = block.x.wrapping_add(taller * (height + 1) * block.ldx);
                block.y = block.y.wrapping_add(taller * (height + 1) * block.ldy);
                block.next = block.next.wrapping_add(taller * block.next_block);
            }
            block.blocks = lower;
            let tile = &tiles[height - 1];
            if many { (tile.many)(&block) } else { (tile.one)(&block) }
        }
    }
}

/// Calls `multiply` with one slice of `depth` rows of k after the other. Also once for k = 0: the sums of nothing are
/// written too. Nothing behind the `last` panel is prefetched: that memory may belong to
/// another worker, which writes there.
#[inline]
fn slices(mut block: Block, row_bytes: usize, depth: usize, last: bool, mut multiply: impl FnMut(Block)) {
    let mut left = block.k;
    loop {
        block.k = depth.min(left);
        if block.blocks > 1 {
            // Each row block prefetches its share of the rows of k that stand right behind these. In a pack that is
            // the next slice, or the next panel's first one.
            block.next = block.w.wrapping_add(block.k * block.row_stride);
            (block.next_step, block.next_block) = if block.row_stride != row_bytes {
                (block.row_stride, PREFETCHED_BYTES)
            } else if last && left == block.k {
                block.next = block.w;
                (0, 0)
            } else {
                let step = row_bytes / block.blocks;
                (step, block.k * step)
            };
        }
        multiply(block);
        left -= block.k;
        if left == 0 {
            break;
        }
        block.x = block.x.wrapping_add(4 * block.k);
        block.w = block.w.wrapping_add(block.k * block.row_stride);
        block.resume = true;
        block.bias = std::ptr::null();
    }
}
