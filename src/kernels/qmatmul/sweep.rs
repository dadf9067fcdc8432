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

use super::form::Format;
use super::tile::{FEW, SIGNED_BYTES, Task, Tiles, WORDS};
use super::wide::{LIFTED, MAX_VECTORS, OWN, PAIRED, PAIRED_BYTES, VECTORS, Wide, Widen, wide};
use crate::isa::{Isa, IsaId};
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
pub unsafe fn entry<T: Tiles, F: Format, const BYTES: usize>(portion: &Portion) {
    // SAFETY: the CPU has the level.
    let isa = unsafe { T::Isa::new_unchecked() };
    let most = T::MAX_ROWS[usize::from(F::FORM.halves)];
    let row_bytes = memory::cache_sizes().l2 / 4;
    let row_block = (row_bytes / portion.ldx.max(1) / most).max(2) * most;
    for row in (0..portion.m).step_by(row_block) {
        let rows = row_block.min(portion.m - row);
        for panel in portion.panel_begin..portion.panel_end {
            let job = Job::<T> { isa, portion, row, rows, panel };
            match const { (T::BY_PAIRS, F::FORM.halves, F::FORM.minimum) } {
                (false, false, false) => job.fours::<F, false, false, BYTES>(),
                (false, false, true) => job.fours::<F, false, true, BYTES>(),
                (false, true, false) => job.fours::<F, true, false, BYTES>(),
                (false, true, true) => job.fours::<F, true, true, BYTES>(),
                (true, ..) => job.pairs::<F, BYTES>(),
            }
        }
    }
}

/// Some rows against a panel, of a portion that [`entry`] has; its contract holds as long as the value lives.
struct Job<'a, T: Tiles> {
    isa: T::Isa,
    portion: &'a Portion,
    row: usize,
    rows: usize,
    panel: usize,
}

impl<T: Tiles> Job<'_, T> {
    /// One row, straight from the packed panel.
    fn line<F: Format, const BYTES: usize>(&self) {
        let nr = VECTORS * T::Isa::LANES;
        let w = self.portion.w.wrapping_add(self.panel * F::FORM.panel_bytes(nr, self.portion.k));
        let task = self.task(w, F::FORM.own_shift(), self.portion.k / BLOCK);
        // SAFETY: the row and the panel are there.
        unsafe { T::line::<F, BYTES>(self.isa, &task, AHEAD) };
    }

    fn fours<F: Format, const HALVES: bool, const MINIMUM: bool, const BYTES: usize>(&self) {
        if const { !matches!(T::Isa::ID, IsaId::Scalar) } && self.rows == 1 {
            self.line::<F, BYTES>();
        } else if self.rows <= FEW {
            self.stretches::<F, HALVES, MINIMUM, 0, BYTES, OWN>(FEW_BLOCKS, AHEAD);
        } else {
            self.stretches::<F, HALVES, MINIMUM, 0, BYTES, LIFTED>(self.stretch(wide::<F>(LIFTED)), 0);
        }
    }

    fn pairs<F: Format, const BYTES: usize>(&self) {
        // Small levels meet words faster by way of a stretch, which is widened in fewer operations.
        if self.rows == 1 && const { BYTES == 1 || F::FORM.pairs() == 0 } {
            return self.line::<F, BYTES>();
        }
        match const { (F::FORM.halves, F::FORM.minimum, F::FORM.pairs()) } {
            (false, false, 8) => self.small::<F, false, false, 8, BYTES>(),
            (false, true, 8) => self.small::<F, false, true, 8, BYTES>(),
            (true, false, 8) => self.small::<F, true, false, 8, BYTES>(),
            (true, true, 8) => self.small::<F, true, true, 8, BYTES>(),
            (false, false, 4) => self.small::<F, false, false, 4, BYTES>(),
            (false, true, 4) => self.small::<F, false, true, 4, BYTES>(),
            (true, false, 2) => self.small::<F, true, false, 2, BYTES>(),
            (false, false, 0) => self.large::<F, false, BYTES>(),
            (true, false, 0) => self.large::<F, true, BYTES>(),
            _ => unreachable!("no type has such levels"),
        }
    }

    /// Levels that are multiplied as unsigned bytes, of which PAIRS pairs of products add up within 16 bits.
    fn small<F: Format, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const BYTES: usize>(
        &self,
    ) {
        let few = self.rows <= FEW;
        let (most, ahead) = if few { (FEW_BLOCKS, AHEAD) } else { (self.stretch(wide::<F>(PAIRED)), 0) };
        self.stretches::<F, HALVES, MINIMUM, PAIRS, BYTES, PAIRED>(most, ahead);
    }

    /// Levels of 8 bits.
    fn large<F: Format, const HALVES: bool, const BYTES: usize>(&self) {
        if self.rows <= FEW {
            self.stretches::<F, HALVES, false, SIGNED_BYTES, BYTES, PAIRED_BYTES>(FEW_BLOCKS, AHEAD);
        } else {
            self.stretches::<F, HALVES, false, WORDS, BYTES, PAIRED>(self.stretch(wide::<F>(PAIRED)), 0);
        }
    }

    /// Blocks of a stretch for many rows.
    fn stretch(&self, wide: Wide) -> usize {
        let bytes = (memory::cache_sizes().l1d / 2).min(STRETCH_BYTES);
        (bytes / wide.bytes::<T::Isa>()).max(1)
    }

    /// The rows against the panel, from the first of `blocks` blocks at `w`.
    #[inline(always)]
    fn task(&self, w: *const u8, zero_shift: u32, blocks: usize) -> Task {
        let p = self.portion;
        let nr = VECTORS * T::Isa::LANES;
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
    fn stretches<
        F: Format,
        const HALVES: bool,
        const MINIMUM: bool,
        const PAIRS: usize,
        const BYTES: usize,
        const ZERO: u8,
    >(
        &self,
        most: usize,
        ahead: usize,
    ) {
        let Job { isa, portion: p, rows, .. } = *self;
        let blocks = p.k / BLOCK;
        let mut stretch = MaybeUninit::<Stretch>::uninit();
        let out = stretch.as_mut_ptr().cast::<u8>();
        let w = p.w.wrapping_add(self.panel * F::FORM.panel_bytes(VECTORS * T::Isa::LANES, p.k));
        let mut task = self.task(out, if ZERO == LIFTED { 0 } else { F::FORM.own_shift() }, 0);
        loop {
            task.blocks = most.min(blocks - task.begin);
            let widen = Widen::<T::Isa, F, ZERO> {
                isa,
                w,
                begin: task.begin,
                blocks: task.blocks,
                out,
                ahead,
                format: PhantomData,
            };
            isa.vectorize(widen);
            tiles::<T, HALVES, MINIMUM, PAIRS, BYTES>(isa, rows, task);
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
fn tiles<T: Tiles, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const BYTES: usize>(
    isa: T::Isa,
    rows: usize,
    mut task: Task,
) {
    let most = const { T::MAX_ROWS[HALVES as usize] };
    let mut left = rows;
    while left > 0 {
        let mr = left.div_ceil(left.div_ceil(most));
        // SAFETY: `left` rows of X and Y are there, of which these are the first, and so are the widened blocks.
        unsafe {
            match mr {
                1 => T::tile::<HALVES, MINIMUM, PAIRS, 1, BYTES>(isa, &task),
                2 => T::tile::<HALVES, MINIMUM, PAIRS, 2, BYTES>(isa, &task),
                3 if most >= 3 && PAIRS != SIGNED_BYTES => {
                    T::tile::<HALVES, MINIMUM, PAIRS, 3, BYTES>(isa, &task)
                }
                4 if most >= 4 && PAIRS != SIGNED_BYTES => {
                    T::tile::<HALVES, MINIMUM, PAIRS, 4, BYTES>(isa, &task)
                }
                5 if most >= 5 => T::tile::<HALVES, MINIMUM, PAIRS, 5, BYTES>(isa, &task),
                6 if most >= 6 => T::tile::<HALVES, MINIMUM, PAIRS, 6, BYTES>(isa, &task),
                _ => unreachable!("rows are shared out evenly"),
            }
        }
        task.x = task.x.wrapping_add(mr * task.ldx);
        task.y = task.y.wrapping_add(mr * task.ldy);
        left -= mr;
    }
}
