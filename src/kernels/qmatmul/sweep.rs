//! The loops round the tiles: rows and K cut so that memory that is read again stays in a cache, panels widened on the way.
//!
//! ```text
//! for rows         quantised rows that stay in L2 while every panel passes by
//!   for panels
//!     for k          a stretch of the panel, widened into L1 once for all the rows
//!       for tiles of rows
//! ```
//!
//! One or two rows take the same way with a stretch of a few blocks. No cut changes a bit of the result: sums are
//! kept in Y between stretches. The loops are compiled once for all levels, types and modes: code that knows these is
//! called once a stretch.

use super::form::{Format, STEP};
use super::tile::{FEW, Task, TileFn, Tiles, max_rows, tiles};
use super::wide::{LIFTED, MAX_VECTORS, OWN, Packed, VECTORS, Wide, WidenFn, widen};
use crate::isa::DotI8;
use crate::kernels::portion::Portion;
use crate::memory;
use crate::quant::BLOCK;
use std::mem::MaybeUninit;

/// Bytes of a stretch, at most.
const STRETCH_BYTES: usize = 24 << 10;
/// Blocks of a stretch for few rows.
const FEW_BLOCKS: usize = 8;
/// How many bytes ahead of their use packed bytes are prefetched.
const AHEAD: usize = 8 << 10;
/// Bytes of the widest vector.
const MAX_VECTOR: usize = 64;
const _: () = assert!(FEW_BLOCKS * MAX_VECTORS * MAX_VECTOR <= STRETCH_BYTES);

/// Where a stretch is widened to: on whole cache lines.
#[repr(align(64))]
struct Stretch(#[allow(dead_code)] [u8; STRETCH_BYTES]);

/// The code that the loops call for one level, type of weights and mode of activations, and what they must know of it.
struct Code {
    /// Columns of a panel.
    nr: usize,
    /// Bytes of a panel's unit, and blocks of 32 K-steps in it.
    unit_bytes: usize,
    unit_blocks: usize,
    /// Bytes of a widened block.
    block_bytes: usize,
    /// [`Task::zero_shift`] for few rows.
    zero_shift: u32,
    /// Rows of the largest tile.
    most: usize,
    /// Widens with the type's own zero, for few rows.
    own: WidenFn,
    /// Widens with the zero of all types.
    lifted: WidenFn,
    /// The tile of one row, of two, and so on.
    tiles: Tiles,
}

impl Code {
    const fn of<I: DotI8, F: Format, const BYTES: usize>() -> Self {
        let (form, nr) = (F::FORM, VECTORS * I::LANES);
        let wide = Wide { halves: form.halves, minimum: form.minimum };
        Code {
            nr,
            unit_bytes: form.unit_bytes(nr),
            unit_blocks: form.blocks,
            block_bytes: wide.vectors() * I::LANES * STEP,
            zero_shift: if form.minimum { 0 } else { 7 - form.zero.trailing_zeros() },
            most: max_rows::<I>(form.halves),
            own: widen::<I, F, OWN>,
            lifted: widen::<I, F, LIFTED>,
            tiles: tiles::<I, F, BYTES>(),
        }
    }
}

/// The table entry: [`super::Kernel::run`] of one level, type and mode.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8, F: Format, const BYTES: usize>(portion: &Portion) {
    sweep(portion, const { &Code::of::<I, F, BYTES>() });
}

/// The loops, for a portion that [`entry`] has.
fn sweep(portion: &Portion, code: &Code) {
    let row_bytes = memory::cache_sizes().l2 / 4;
    let row_block = (row_bytes / portion.ldx.max(1) / code.most).max(2) * code.most;
    let stretch = (memory::cache_sizes().l1d / 2).min(STRETCH_BYTES) / code.block_bytes;
    let panel_bytes = portion.k / BLOCK / code.unit_blocks * code.unit_bytes;
    for row in (0..portion.m).step_by(row_block) {
        let rows = row_block.min(portion.m - row);
        for panel in portion.panel_begin..portion.panel_end {
            let w = portion.w.wrapping_add(panel * panel_bytes);
            let job = Job { code, portion, row, rows, column: panel * code.nr, w };
            match rows <= FEW {
                true => job.stretches(FEW_BLOCKS, code.own, code.zero_shift, AHEAD),
                false => job.stretches(stretch.max(1), code.lifted, 0, 0),
            }
        }
    }
}

/// Some rows against a panel, of a portion that [`entry`] has; its contract holds as long as the value lives.
struct Job<'a> {
    code: &'a Code,
    portion: &'a Portion,
    row: usize,
    rows: usize,
    /// The panel's first column.
    column: usize,
    /// The panel.
    w: *const u8,
}

impl Job<'_> {
    /// The panel in stretches of up to `most` blocks, each widened for all the rows, with packed bytes prefetched `ahead`
    /// of that. Y carries the sums from one to the next.
    fn stretches(&self, most: usize, widen: WidenFn, zero_shift: u32, ahead: usize) {
        let Job { portion: p, column, w, .. } = *self;
        let blocks = p.k / BLOCK;
        let mut stretch = MaybeUninit::<Stretch>::uninit();
        let out = stretch.as_mut_ptr().cast::<u8>();
        let mut task = Task {
            x: p.x.wrapping_add(self.row * p.ldx),
            ldx: p.ldx,
            k: p.k,
            begin: 0,
            w: out,
            blocks: 0,
            zero_shift,
            y: p.y.wrapping_add(self.row * p.ldy + column),
            ldy: p.ldy,
            columns: p.n.saturating_sub(column).min(self.code.nr),
            load: p.accumulate,
            bias: if p.bias.is_null() { p.bias } else { p.bias.wrapping_add(column) },
        };
        loop {
            task.blocks = most.min(blocks - task.begin);
            let packed = Packed { w, begin: task.begin, blocks: task.blocks, out, ahead };
            // SAFETY: the portion has the panel, a stretch has room for as many widened blocks, and the CPU has the level.
            unsafe { widen(&packed) };
            self.tiles(task);
            task.begin += task.blocks;
            if task.begin == blocks {
                return;
            }
            task.load = true;
            task.bias = std::ptr::null();
        }
    }

    /// All rows of the task, in tiles as even as can be.
    fn tiles(&self, mut task: Task) {
        let mut left = self.rows;
        while left > 0 {
            let mr = if left <= self.code.most { left } else { left.div_ceil(left.div_ceil(self.code.most)) };
            let tile: TileFn = self.code.tiles[mr - 1];
            // SAFETY: `left` rows of X and Y are there, of which these are the first, and so are the widened blocks; the
            // CPU has the level.
            unsafe { tile(&task) };
            task.x = task.x.wrapping_add(mr * task.ldx);
            task.y = task.y.wrapping_add(mr * task.ldy);
            left -= mr;
        }
    }
}
