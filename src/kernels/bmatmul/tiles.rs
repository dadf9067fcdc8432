//! The loops round tile registers: rows, panels, slices of k. Generic over the dot product that the tiles have.
//!
//! ```text
//! for blocks of k               so that the next two find room in L2; sums between them are kept in Y
//!   for chunks of rows          stay in L2 while every panel passes by
//!     for groups of panels      stay in L2 while the chunk's rows pass by
//!       for pairs of rows of tiles
//!         for slices of k       a slice of the rows stays in L1 while the panels pass by
//!           for panels
//!       an odd row of tiles     against two panels at a time
//! ```
//!
//! Rows of tiles are 16 high, the last one overlaps the one before where m is no multiple of 16, and only its
//! own rows are stored; where m is below 16 all tiles are that low. A tile's rows don't know of each other, so an
//! output has the same bits in any of them. No cut of the loops changes a bit: sums are f32 wherever they are kept.

use super::rounding::to_pairs;
use super::{Engine, Kernel, PanelLayout};
use crate::isa::amx::{
    self, Bf16Tiles, Block, CARRYING_STEPS, COLUMNS, ROW_BYTES, ROWS, TILE_BYTES, TileDot,
};
use crate::isa::{Amx, IsaId};
use crate::kernels::info::KernelInfo;
use crate::kernels::portion::Portion;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

/// Columns of a panel: two tiles.
const NR: usize = 2 * COLUMNS;
/// Inputs of a step.
const STEP: usize = ROW_BYTES / 2;
/// Bytes of a panel that a step takes.
const PANEL_STEP_BYTES: usize = 2 * TILE_BYTES;

pub(super) const LAYOUT: PanelLayout = PanelLayout::Pairs { nr: NR, tile: COLUMNS, step: STEP };

pub(super) const KERNEL: Kernel = Kernel {
    info: KernelInfo { op: "bmatmul", dtype: "bf16", isa: IsaId::Amx, mr: 2 * ROWS, nr: NR },
    engine: Engine::Tiles(run::<Bf16Tiles>),
    round: to_pairs::<Amx>,
};

/// Steps of a slice of k, at most: 40 KiB of a pair of rows of tiles, of the 48 that L1 has on CPUs with AMX.
const SLICE: usize = 20;
/// Steps of a block of k, where the whole is longer than [`WHOLE`].
const BLOCK: usize = 32;
/// Steps that are one block.
const WHOLE: usize = 64;
/// Bytes of rows of X that should stay in L2 (2 MiB on CPUs with AMX) with a group of panels.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a group of panels.
const GROUP_BYTES: usize = 256 << 10;
/// Panels of a group, at most: their sums between slices are kept on the stack.
const MAX_GROUP: usize = 8;
/// Floats of the sums of a pair of rows of tiles, or of one row of tiles and two panels.
const SUMS: usize = 2 * ROWS * NR;
/// From so many bytes on, half of an L2, results are written past the caches, which they would sweep.
const STREAM_BYTES: usize = 1 << 20;

/// Sums between blocks, and a stand-in for memory that tiles mustn't touch. Aligned for the carried sums.
#[repr(align(4096))]
struct Scratch {
    /// Two blocks of finished sums: the next block carries one to Y while it fills the other.
    finished: MaybeUninit<[[f32; SUMS]; 2]>,
    /// For each panel of a group.
    sums: MaybeUninit<[[f32; SUMS]; MAX_GROUP]>,
    /// Where sums start from.
    start: [f32; SUMS],
    /// Finished, where tiles mustn't be stored.
    end: [f32; SUMS],
}

/// Multiplies; see the family's contract.
///
/// # Safety
/// As [`Kernel::run`], and the level is available.
unsafe fn run<D: TileDot>(portion: &Portion) {
    if portion.m == 0 || portion.panel_begin >= portion.panel_end {
        return;
    }
    // SAFETY: the CPU has the level, and the portion's memory is there; nothing inside panics.
    unsafe { amx::with_tiles(portion.m.min(ROWS), ROW_BYTES, || blocks::<D>(portion)) }
}

/// # Safety
/// As [`run`], with tiles set up.
unsafe fn blocks<D: TileDot>(portion: &Portion) {
    let mut scratch = Scratch {
        finished: MaybeUninit::uninit(),
        sums: MaybeUninit::uninit(),
        start: [0.0; SUMS],
        end: [0.0; SUMS],
    };
    let steps = portion.k.div_ceil(STEP);
    let tiles = portion.m.div_ceil(ROWS);
    // Few rows meet each panel once: it isn't read again.
    let depth = if steps <= WHOLE || tiles <= 2 { steps.max(1) } else { BLOCK };
    let chunk = (CHUNK_BYTES / (ROWS * ROW_BYTES * depth)).max(2) & !1;
    let group = (GROUP_BYTES / (PANEL_STEP_BYTES * depth)).clamp(2, MAX_GROUP);
    let mut work = Work {
        portion,
        finished: (&raw mut scratch.finished).cast(),
        sums: (&raw mut scratch.sums).cast(),
        start: &mut scratch.start,
        end: &mut scratch.end,
        // Sums that a later block of k starts from should stay in a cache.
        streams: depth >= steps && streams(portion),
        carried: None,
        filled: 0,
        steps,
        done: 0,
        depth: 0,
        tiles: 0..0,
        panels: 0..0,
    };
    loop {
        work.depth = depth.min(steps - work.done);
        for first in (0..tiles).step_by(chunk) {
            work.tiles = first..tiles.min(first + chunk);
            for panel in (portion.panel_begin..portion.panel_end).step_by(group) {
                work.panels = panel..portion.panel_end.min(panel + group);
                work.run::<D>();
            }
        }
        work.flush();
        work.done += work.depth;
        if work.done == steps {
            break;
        }
    }
    if work.streams {
        amx::settle();
    }
}

/// Whether results are written past the caches: there are many, and they fill cache lines.
fn streams(portion: &Portion) -> bool {
    let columns = portion.n.min(NR * portion.panel_end).saturating_sub(NR * portion.panel_begin);
    let lines = portion.y.addr().is_multiple_of(64) && portion.ldy.is_multiple_of(COLUMNS);
    lines && portion.m.saturating_mul(columns) >= STREAM_BYTES / 4
}

/// Where the two rows of tiles begin in the sums number `index`.
fn halves(sums: *mut u8, index: usize) -> [*mut u8; 2] {
    [2 * index, 2 * index + 1].map(|half| sums.wrapping_add(half * 4 * ROWS * NR))
}

/// A chunk of rows against a group of panels, for a block of k. It is made where [`run`]'s promise holds and tiles are
/// set up, and lives no longer; rows of tiles and panels that its methods are given are the portion's.
struct Work<'a> {
    portion: &'a Portion,
    /// [`Scratch::finished`], which is read and written through this address only.
    finished: *mut f32,
    /// [`Scratch::sums`], likewise.
    sums: *mut u8,
    start: &'a mut [f32; SUMS],
    end: &'a mut [f32; SUMS],
    /// Whether results are written past the caches.
    streams: bool,
    /// Where the finished sums of block `filled` go, if there are any.
    carried: Option<*mut f32>,
    filled: usize,
    /// Steps of a whole panel.
    steps: usize,
    /// Steps before this block; sums start from Y where there are any.
    done: usize,
    /// Steps of this block.
    depth: usize,
    /// Rows of tiles.
    tiles: Range<usize>,
    panels: Range<usize>,
}

/// Part of Y that a register block covers.
#[derive(Clone, Copy)]
struct Region {
    /// First rows of the rows of tiles (twice the same where there is one).
    rows: [usize; 2],
    /// Rows of tiles: 1 or 2.
    tiles: usize,
    /// First column.
    column: usize,
    /// Columns that the block has.
    width: usize,
    /// Columns of them that Y has.
    columns: usize,
}

impl Work<'_> {
    /// The chunk of rows against the group of panels.
    fn run<D: TileDot>(&mut self) {
        for tile in self.tiles.clone().step_by(2) {
            if tile + 1 < self.tiles.end {
                self.pair::<D>(tile);
            } else {
                self.panels.clone().step_by(2).for_each(|panel| self.odd::<D>(tile, panel));
            }
        }
    }

    /// First row of a row of tiles: the last one ends with the rows.
    fn row(&self, tile: usize) -> usize {
        (tile * ROWS).min(self.portion.m.saturating_sub(ROWS))
    }

    fn region(&self, tile: usize, tiles: usize, panel: usize, width: usize) -> Region {
        let column = panel * NR;
        let rows = [self.row(tile), self.row(tile + tiles - 1)];
        Region { rows, tiles, column, width, columns: self.portion.n.saturating_sub(column).min(width) }
    }

    fn y(&self, row: usize, column: usize) -> *mut f32 {
        self.portion.y.wrapping_add(row * self.portion.ldy + column)
    }

    /// Part of Y that the next block covers.
    fn after(&self, tile: usize, panel: usize) -> *mut f32 {
        let (tile, panel) =
            if panel + 1 < self.panels.end { (tile, panel + 1) } else { (tile + 2, self.panels.start) };
        self.y(self.row(tile), panel * NR)
    }

    /// A region's rows of X, from a step on.
    fn x(&self, region: Region, step: usize) -> [*const u8; 2] {
        region.rows.map(|row| self.portion.x.wrapping_add(row * self.portion.ldx + step * ROW_BYTES))
    }

    /// A panel, from a step on.
    fn w(&self, panel: usize, step: usize) -> *const u8 {
        self.portion.w.wrapping_add((panel * self.steps + step) * PANEL_STEP_BYTES)
    }

    /// Two rows of tiles against the panels, a slice of k after the other.
    fn pair<D: TileDot>(&mut self, tile: usize) {
        // A single pair streams through the panels, which are read from farther away than its own rows.
        let slices = if self.tiles.len() > 2 { self.depth.div_ceil(SLICE).max(1) } else { 1 };
        let end = self.done + self.depth;
        for slice in 0..slices {
            let steps =
                self.done + self.depth * slice / slices..self.done + self.depth * (slice + 1) / slices;
            for panel in self.panels.clone() {
                self.block::<D>(tile, panel, steps.clone(), steps.end == end);
            }
        }
    }

    /// Two rows of tiles against a panel, for steps that may be the last of this block of k.
    fn block<D: TileDot>(&mut self, tile: usize, panel: usize, steps: Range<usize>, last: bool) {
        let region = self.region(tile, 2, panel, NR);
        let first = steps.start == self.done;
        let carrying = steps.len() >= CARRYING_STEPS;
        let carry = last && carrying && self.streams && self.fits(region);
        let sums = halves(self.sums, panel - self.panels.start);
        // SAFETY: the block's rows, panel and columns are the portion's; other memory is the scratch's.
        unsafe {
            let (from, from_stride) =
                if first { self.start(region) } else { (sums.map(|p| p.cast_const()), 4 * NR) };
            let (to, to_stride) = match (last, carry) {
                (false, _) => (sums, 4 * NR),
                (true, false) => self.end(region),
                (true, true) => (halves(self.finished.cast(), 1 - self.filled), 4 * NR),
            };
            let carried = if carrying { self.carried.take() } else { None };
            let meets_y = (last && !carry) || (first && (self.done > 0 || self.portion.accumulate));
            let (other, other_stride) = match carried {
                Some(y) => (y.cast(), 4 * self.portion.ldy),
                None if meets_y => (self.after(tile, panel).cast(), 4 * self.portion.ldy),
                None => (to[0], to_stride),
            };
            let (next, next_lines) = self.share_of_next(tile, panel, &steps);
            D::two_by_two(&Block {
                a: self.x(region, steps.start),
                a_stride: self.portion.ldx,
                b: [self.w(panel, steps.start); 2],
                steps: steps.len(),
                from,
                from_stride,
                to,
                to_stride,
                next,
                next_lines,
                carried: carried.map_or(ptr::null(), |_| self.finished_sums().cast()),
                other,
                other_stride,
            });
            if carry {
                self.flush();
                self.filled = 1 - self.filled;
                self.carried = Some(self.y(region.rows[0], region.column));
            } else if last {
                self.write(region);
            }
        }
    }

    /// Which of the next group's weights a pair of rows of tiles prefetches, and how many lines a step; none where the
    /// pair is alone, since it is waiting for weights already.
    fn share_of_next(&self, tile: usize, panel: usize, steps: &Range<usize>) -> (*const u8, usize) {
        let pairs = self.tiles.len() / 2;
        let lines = if pairs > 1 { (PANEL_STEP_BYTES / 64).div_ceil(pairs) } else { 0 };
        let pair = (tile - self.tiles.start) / 2;
        (self.w(panel + self.panels.len(), steps.start).wrapping_add(pair * lines * 64 * steps.len()), lines)
    }

    /// One row of tiles against two panels, or the group's last one.
    fn odd<D: TileDot>(&mut self, tile: usize, panel: usize) {
        let two = panel + 1 < self.panels.end;
        let region = self.region(tile, 1, panel, if two { 2 * NR } else { NR });
        // SAFETY: the block's rows, panels and columns are the portion's; other memory is the scratch's.
        unsafe {
            let ((from, from_stride), (to, to_stride)) = (self.start(region), self.end(region));
            let block = Block {
                a: self.x(region, self.done),
                a_stride: self.portion.ldx,
                b: [self.w(panel, self.done), self.w(panel + 1, self.done)],
                steps: self.depth,
                from,
                from_stride,
                to,
                to_stride,
                next: ptr::null(),
                next_lines: 0,
                carried: ptr::null(),
                other: ptr::null_mut(),
                other_stride: 0,
            };
            if two {
                D::one_by_four(&block)
            } else {
                D::one_by_two(&block)
            }
            self.write(region);
        }
    }

    /// Where a region's sums start from, for its rows of tiles, and the bytes between rows.
    fn start(&mut self, region: Region) -> ([*const u8; 2], usize) {
        let resume = self.done > 0;
        let &Portion { y, ldy, .. } = self.portion;
        let accumulate = self.portion.accumulate || resume;
        let bias = if resume { ptr::null() } else { self.portion.bias };
        let Region { rows, column, .. } = region;
        let whole = region.columns == region.width;
        match (bias.is_null(), accumulate) {
            (true, false) => ([ptr::null(); 2], 0),
            (false, false) if whole => ([bias.wrapping_add(column).cast(); 2], 0),
            (true, true) if whole => {
                (rows.map(|row| y.wrapping_add(row * ldy + column).cast_const().cast()), 4 * ldy)
            }
            _ => self.gather(region, accumulate, bias),
        }
    }

    /// Collects the starts of a region's sums in the scratch.
    fn gather(&mut self, region: Region, y: bool, bias: *const f32) -> ([*const u8; 2], usize) {
        let Region { rows, tiles, column, width, columns } = region;
        for (tile, row) in rows.into_iter().enumerate().take(tiles) {
            for i in 0..ROWS.min(self.portion.m) {
                let line = self.portion.y.wrapping_add((row + i) * self.portion.ldy + column);
                for j in 0..columns {
                    // SAFETY: `columns` of Y's rows and of the bias are there.
                    let (y, bias) = unsafe {
                        let y = if y { *line.wrapping_add(j) } else { 0.0 };
                        (y, if bias.is_null() { 0.0 } else { *bias.wrapping_add(column + j) })
                    };
                    self.start[(tile * ROWS + i) * width + j] = y + bias;
                }
            }
        }
        let scratch: *const u8 = self.start.as_ptr().cast();
        ([scratch, scratch.wrapping_add(4 * ROWS * width)], 4 * width)
    }

    /// Whether a region's tiles may be stored straight to Y: all their columns are there, and no row is stored
    /// that another row of tiles has.
    fn fits(&self, region: Region) -> bool {
        region.columns == region.width && region.rows[region.tiles - 1].is_multiple_of(ROWS)
    }

    /// Where a region's sums go, for its rows of tiles, and the bytes between rows.
    fn end(&mut self, region: Region) -> ([*mut u8; 2], usize) {
        let &Portion { y, ldy, .. } = self.portion;
        if self.fits(region) {
            return (region.rows.map(|row| y.wrapping_add(row * ldy + region.column).cast()), 4 * ldy);
        }
        let scratch: *mut u8 = self.end.as_mut_ptr().cast();
        ([scratch, scratch.wrapping_add(4 * ROWS * region.width)], 4 * region.width)
    }

    /// Copies the carried sums to Y.
    fn flush(&mut self) {
        let Some(y) = self.carried.take() else { return };
        let finished = self.finished_sums();
        for i in 0..2 * ROWS {
            // SAFETY: a region that fits has all its rows and columns; a block has filled the sums.
            unsafe {
                ptr::copy_nonoverlapping(
                    finished.wrapping_add(i * NR),
                    y.wrapping_add(i * self.portion.ldy),
                    NR,
                );
            }
        }
    }

    /// The finished sums that aren't in Y yet.
    fn finished_sums(&self) -> *const f32 {
        self.finished.wrapping_add(self.filled * SUMS)
    }

    /// Copies finished sums to Y where they didn't go straight there.
    fn write(&mut self, region: Region) {
        if self.fits(region) {
            return;
        }
        let &Portion { y, ldy, m, .. } = self.portion;
        for tile in 0..region.tiles {
            let row = region.rows[tile];
            // The first row that the row of tiles before this one doesn't have.
            let own = row.next_multiple_of(ROWS) - row;
            for i in own..ROWS.min(m) {
                let line = &self.end[(tile * ROWS + i) * region.width..][..region.columns];
                let y = y.wrapping_add((row + i) * ldy + region.column);
                // SAFETY: `columns` of Y's rows are there, and the scratch isn't among them.
                unsafe { ptr::copy_nonoverlapping(line.as_ptr(), y, line.len()) };
            }
        }
    }
}
