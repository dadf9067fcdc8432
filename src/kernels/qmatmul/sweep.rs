//! The loops round the tiles: rows and K cut so that memory that is read again stays in a cache, panels widened on the way.
//!
//! ```text
//! for rows         quantised rows that stay in L2 while every panel passes by
//!   for panels
//!     for k          a stretch of the panel, widened into L1 once for all the rows
//!       for tiles of rows
//! ```
//!
//! Two rows take the same way with a stretch of a few blocks; one row reads packed panels straight. No cut changes a
//! bit of the result: sums are kept in Y between stretches.

use super::form::{Format, STEP};
use super::tile::{FEW, Task, line, max_rows, tile};
use super::wide::{LIFTED, MAX_VECTORS, OWN, VECTORS, Wide, Widen};
use crate::isa::{DotI8, IsaId};
use crate::kernels::portion::Portion;
use crate::memory;
use crate::quant::BLOCK;
use std::marker::PhantomData;
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

/// The table entry: [`super::Kernel::run`] of one level and type.
///
/// # Safety
/// As there; and the CPU has the level.
pub unsafe fn entry<I: DotI8, F: Format, const BYTES: usize>(portion: &Portion) {
    // SAFETY: the CPU has the level.
    let isa = unsafe { I::new_unchecked() };
    let most = const { max_rows::<I>(F::FORM.halves) };
    let row_bytes = memory::cache_sizes().l2 / 4;
    let row_block = (row_bytes / portion.ldx.max(1) / most).max(2) * most;
    for row in (0..portion.m).step_by(row_block) {
        let rows = row_block.min(portion.m - row);
        for panel in portion.panel_begin..portion.panel_end {
            let job = Job { isa, portion, row, rows, panel };
            match const { (F::FORM.halves, F::FORM.minimum) } {
                (false, false) => job.run::<F, false, false, BYTES>(),
                (false, true) => job.run::<F, false, true, BYTES>(),
                (true, false) => job.run::<F, true, false, BYTES>(),
                (true, true) => job.run::<F, true, true, BYTES>(),
            }
        }
    }
}

/// Some rows against a panel, of a portion that [`entry`] has; its contract holds as long as the value lives.
struct Job<'a, I> {
    isa: I,
    portion: &'a Portion,
    row: usize,
    rows: usize,
    panel: usize,
}

impl<I: DotI8> Job<'_, I> {
    fn run<F: Format, const HALVES: bool, const MINIMUM: bool, const BYTES: usize>(&self) {
        if const { !matches!(I::ID, IsaId::Scalar) } && self.rows == 1 {
            let nr = VECTORS * I::LANES;
            let w = self.portion.w.wrapping_add(self.panel * F::FORM.panel_bytes(nr, self.portion.k));
            let task = self.task(w, F::FORM.own_shift(), self.portion.k / BLOCK);
            // SAFETY: the row and the panel are there.
            return unsafe { line::<I, F, BYTES>(self.isa, &task, AHEAD) };
        }
        if self.rows <= FEW {
            return self.stretches::<F, HALVES, MINIMUM, BYTES, OWN>(FEW_BLOCKS);
        }
        let bytes = (memory::cache_sizes().l1d / 2).min(STRETCH_BYTES);
        let block_bytes = Wide { halves: HALVES, minimum: MINIMUM }.vectors() * I::LANES * STEP;
        let most = (bytes / block_bytes).max(1);
        self.stretches::<F, HALVES, MINIMUM, BYTES, LIFTED>(most);
    }

    /// The rows against the panel, from the first of `blocks` blocks at `w`.
    #[inline(always)]
    fn task(&self, w: *const u8, zero_shift: u32, blocks: usize) -> Task {
        let p = self.portion;
        let nr = VECTORS * I::LANES;
        let column = self.panel * nr;
        Task {
            x: p.x.wrapping_add(self.row * p.ldx),
            ldx: p.ldx,
            k: p.k,
            begin: 0,
            w,
            blocks,
            zero_shift,
            y: p.y.wrapping_add(self.row * p.ldy + column),
            ldy: p.ldy,
            columns: p.n.saturating_sub(column).min(nr),
            load: p.accumulate,
            bias: if p.bias.is_null() { p.bias } else { p.bias.wrapping_add(column) },
        }
    }

    /// The panel in stretches of up to `most` blocks, each widened for all the rows. Y carries the sums from one to
    /// the next.
    #[inline(always)]
    fn stretches<F: Format, const HALVES: bool, const MINIMUM: bool, const BYTES: usize, const ZERO: u8>(
        &self,
        most: usize,
    ) {
        let Job { isa, portion: p, rows, .. } = *self;
        let blocks = p.k / BLOCK;
        let ahead = if ZERO == OWN { AHEAD } else { 0 };
        let mut stretch = MaybeUninit::<Stretch>::uninit();
        let out = stretch.as_mut_ptr().cast::<u8>();
        let w = p.w.wrapping_add(self.panel * F::FORM.panel_bytes(VECTORS * I::LANES, p.k));
        let mut task = self.task(out, if ZERO == LIFTED { 0 } else { F::FORM.own_shift() }, 0);
        loop {
            task.blocks = most.min(blocks - task.begin);
            let widen = Widen::<I, F, ZERO> {
                isa,
                w,
                begin: task.begin,
                blocks: task.blocks,
                out,
                ahead,
                format: PhantomData,
            };
            isa.vectorize(widen);
            tiles::<I, HALVES, MINIMUM, BYTES>(isa, rows, task);
            task.begin += task.blocks;
            if task.begin == blocks {
                return;
            }
            task.load = true;
            task.bias = std::ptr::null();
        }
    }
}

/// All rows of the task, in tiles as even as can be.
fn tiles<I: DotI8, const HALVES: bool, const MINIMUM: bool, const BYTES: usize>(
    isa: I,
    rows: usize,
    mut task: Task,
) {
    let most = const { max_rows::<I>(HALVES) };
    let mut left = rows;
    while left > 0 {
        let mr = left.div_ceil(left.div_ceil(most));
        // SAFETY: `left` rows of X and Y are there, of which these are the first, and so are the widened blocks.
        unsafe {
            match mr {
                1 => tile::<I, HALVES, MINIMUM, 1, BYTES>(isa, &task),
                2 => tile::<I, HALVES, MINIMUM, 2, BYTES>(isa, &task),
                3 if most >= 3 => tile::<I, HALVES, MINIMUM, 3, BYTES>(isa, &task),
                4 if most >= 4 => tile::<I, HALVES, MINIMUM, 4, BYTES>(isa, &task),
                5 if most >= 5 => tile::<I, HALVES, MINIMUM, 5, BYTES>(isa, &task),
                6 if most >= 6 => tile::<I, HALVES, MINIMUM, 6, BYTES>(isa, &task),
                _ => unreachable!("rows are shared out evenly"),
            }
        }
        task.x = task.x.wrapping_add(mr * task.ldx);
        task.y = task.y.wrapping_add(mr * task.ldy);
        left -= mr;
    }
}
