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
//!
//! The loops are compiled once: what differs by level and type are the functions of a [`Sweep`], which they call.

use super::form::Format;
use super::tile::{FEW, SIGNED_BYTES, Task, Tiles, WORDS};
use super::wide::{LIFTED, MAX_VECTORS, OWN, PAIRED, PAIRED_BYTES, Stretch, VECTORS, Wide, Widen, wide};
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
struct Room(#[allow(dead_code)] [u8; STRETCH_BYTES]);

/// [`Tiles::tile`] for some number of rows.
type TileFunction = unsafe fn(&Task);
/// [`Tiles::line`] for a type.
type LineFunction = unsafe fn(&Task, usize);
/// Rows of the largest tile of all levels.
const MAX_ROWS: usize = 6;

/// What the loops need to know of a type of weights at a level.
pub struct Sweep {
    /// Columns of a panel.
    nr: usize,
    /// K-steps and bytes of a panel's unit.
    unit: (usize, usize),
    /// [`own_shift`](super::form::Form::own_shift).
    own_shift: u32,
    /// Rows of the largest tile.
    most: usize,
    /// For one row of one byte an element, and of two.
    lines: [Option<LineFunction>; 2],
    few: Way,
    many: Way,
}

/// How rows are multiplied with a stretch.
#[derive(Clone, Copy)]
struct Way {
    widen: unsafe fn(&Stretch),
    /// Bytes of a widened block.
    block_bytes: usize,
    /// See [`Task::zero_shift`].
    zero_shift: u32,
    /// For one row, two, and so on, with one byte an element and with two; none where rows are never shared out so.
    tiles: [[Option<TileFunction>; 2]; MAX_ROWS],
}

impl Way {
    /// For `least` rows and more, widened with the zero that ZERO says.
    const fn of<
        T: Tiles,
        F: Format,
        const ZERO: u8,
        const HALVES: bool,
        const MINIMUM: bool,
        const PAIRS: usize,
    >(
        least: usize,
    ) -> Self {
        let form = Wide { halves: HALVES, minimum: MINIMUM, words: PAIRS == WORDS && T::BY_PAIRS };
        assert!(form.bytes::<T::Isa>() == wide::<F>(ZERO).bytes::<T::Isa>());
        let most = T::MAX_ROWS[HALVES as usize];
        let all = [
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 1>(),
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 2>(),
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 3>(),
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 4>(),
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 5>(),
            Self::tiles::<T, HALVES, MINIMUM, PAIRS, 6>(),
        ];
        // Only functions that stand in a table are compiled.
        let mut tiles = [[None; 2]; MAX_ROWS];
        let mut rows = least;
        // Of twice as many rows and more, tiles have no number of rows that fewer do without.
        while rows <= if least > FEW { 2 * most + FEW } else { FEW } {
            let mut left = rows;
            while left > 0 {
                let mr = share(left, most);
                tiles[mr - 1] = all[mr - 1];
                left -= mr;
            }
            rows += 1;
        }
        Self {
            widen: widen::<T, F, ZERO>,
            block_bytes: form.bytes::<T::Isa>(),
            zero_shift: if ZERO == LIFTED { 0 } else { F::FORM.own_shift() },
            tiles,
        }
    }

    /// The tiles of MR rows.
    const fn tiles<T: Tiles, const HALVES: bool, const MINIMUM: bool, const PAIRS: usize, const MR: usize>()
    -> [Option<TileFunction>; 2] {
        let low: TileFunction = tile::<T, HALVES, MINIMUM, PAIRS, MR, true>;
        let high: TileFunction = tile::<T, HALVES, MINIMUM, PAIRS, MR, false>;
        [Some(if T::BY_PAIRS { high } else { low }), Some(low)]
    }
}

/// [`Tiles::tile`].
///
/// # Safety
/// The CPU has the level.
unsafe fn tile<
    T: Tiles,
    const HALVES: bool,
    const MINIMUM: bool,
    const PAIRS: usize,
    const MR: usize,
    const LOW: bool,
>(
    task: &Task,
) {
    // SAFETY: the CPU has the level.
    T::tile::<HALVES, MINIMUM, PAIRS, MR, LOW>(unsafe { T::Isa::new_unchecked() }, task);
}

/// [`Tiles::line`].
///
/// # Safety
/// The CPU has the level.
unsafe fn line<T: Tiles, F: Format>(task: &Task, ahead: usize) {
    // SAFETY: the CPU has the level.
    T::line::<F>(unsafe { T::Isa::new_unchecked() }, task, ahead);
}

/// Widens a stretch.
///
/// # Safety
/// The CPU has the level.
unsafe fn widen<T: Tiles, F: Format, const ZERO: u8>(stretch: &Stretch) {
    // SAFETY: the CPU has the level.
    let isa = unsafe { T::Isa::new_unchecked() };
    isa.vectorize(Widen::<_, F, ZERO> { isa, stretch, format: PhantomData });
}

/// Rows of the first tile of `left`, where none has more than `most` and all are as even as can be.
const fn share(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

impl Sweep {
    /// Of type `F` at the level of `T`.
    pub const fn of<T: Tiles, F: Format>() -> Self {
        let form = F::FORM;
        let line: Option<LineFunction> = match T::Isa::ID {
            IsaId::Scalar => None,
            _ => Some(line::<T, F>),
        };
        // Small levels meet words faster by way of a stretch, which is widened in fewer operations.
        let lines = [line, if T::BY_PAIRS && form.pairs() > 0 { None } else { line }];
        let few =
            Self::way::<T, F, OWN, PAIRED_BYTES, SIGNED_BYTES>(if lines[1].is_some() { FEW } else { 1 });
        let many = Self::way::<T, F, LIFTED, PAIRED, WORDS>(FEW + 1);
        let most = T::MAX_ROWS[form.halves as usize];
        let nr = VECTORS * T::Isa::LANES;
        let unit = (form.blocks * BLOCK, form.unit_bytes(nr));
        Self { nr, unit, own_shift: form.own_shift(), most, lines, few, many }
    }

    /// For `least` rows and more, widened as ZERO says where four products are added, and as PAIRED_ZERO, for tiles of
    /// LARGE, where pairs of levels of 8 bits are. Smaller levels are multiplied as unsigned bytes, of which some pairs of
    /// products add up within 16 bits.
    const fn way<T: Tiles, F: Format, const ZERO: u8, const PAIRED_ZERO: u8, const LARGE: usize>(
        least: usize,
    ) -> Way {
        match (T::BY_PAIRS, F::FORM.halves, F::FORM.minimum, F::FORM.pairs()) {
            (false, false, false, _) => Way::of::<T, F, ZERO, false, false, WORDS>(least),
            (false, false, true, _) => Way::of::<T, F, ZERO, false, true, WORDS>(least),
            (false, true, false, _) => Way::of::<T, F, ZERO, true, false, WORDS>(least),
            (false, true, true, _) => Way::of::<T, F, ZERO, true, true, WORDS>(least),
            (true, false, false, 0) => Way::of::<T, F, PAIRED_ZERO, false, false, LARGE>(least),
            (true, true, false, 0) => Way::of::<T, F, PAIRED_ZERO, true, false, LARGE>(least),
            (true, false, false, 8) => Way::of::<T, F, PAIRED, false, false, 8>(least),
            (true, false, true, 8) => Way::of::<T, F, PAIRED, false, true, 8>(least),
            (true, true, false, 8) => Way::of::<T, F, PAIRED, true, false, 8>(least),
            (true, true, true, 8) => Way::of::<T, F, PAIRED, true, true, 8>(least),
            (true, false, false, 4) => Way::of::<T, F, PAIRED, false, false, 4>(least),
            (true, false, true, 4) => Way::of::<T, F, PAIRED, false, true, 4>(least),
            (true, true, false, 2) => Way::of::<T, F, PAIRED, true, false, 2>(least),
            _ => panic!("no type has such levels"),
        }
    }

    /// Computes a portion whose rows have so many bytes an element.
    ///
    /// # Safety
    /// As for [`super::Kernel::run`]; and the CPU has the level.
    pub unsafe fn run(&self, portion: &Portion, bytes: usize) {
        let caches = memory::cache_sizes();
        let row_block = (caches.l2 / 4 / portion.ldx.max(1) / self.most).max(2) * self.most;
        let stretch = (caches.l1d / 2).min(STRETCH_BYTES) / self.many.block_bytes;
        let panel_bytes = portion.k / self.unit.0 * self.unit.1;
        for row in (0..portion.m).step_by(row_block) {
            let rows = row_block.min(portion.m - row);
            let mut task = self.task(portion, bytes, row);
            let (way, most, ahead) = match rows {
                ..=FEW => (&self.few, FEW_BLOCKS, AHEAD),
                _ => (&self.many, stretch.max(1), 0),
            };
            let line = self.lines[bytes - 1].filter(|_| rows == 1);
            for panel in portion.panel_begin..portion.panel_end {
                let w = portion.w.wrapping_add(panel * panel_bytes);
                self.place(&mut task, portion, row, panel);
                if let Some(line) = line {
                    task.w = w;
                    // SAFETY: the CPU has the level. The task has its row and its panel.
                    unsafe { line(&task, ahead) };
                } else {
                    self.stretches(way, rows, w, &mut task, (most, ahead));
                }
            }
        }
    }

    /// The rows from `row` on, with all their blocks, against no panel yet.
    fn task(&self, p: &Portion, bytes: usize, row: usize) -> Task {
        Task {
            x: p.x.wrapping_add(row * p.ldx),
            ldx: p.ldx,
            k: p.k,
            bytes,
            begin: 0,
            w: std::ptr::null(),
            blocks: p.k / BLOCK,
            zero_shift: self.own_shift,
            y: p.y,
            ldy: p.ldy,
            columns: 0,
            load: p.accumulate,
            bias: p.bias,
        }
    }

    /// Moves a task of the rows from `row` on to a panel's outputs.
    fn place(&self, task: &mut Task, p: &Portion, row: usize, panel: usize) {
        let column = panel * self.nr;
        task.y = p.y.wrapping_add(row * p.ldy + column);
        task.columns = p.n.saturating_sub(column).min(self.nr);
        task.load = p.accumulate;
        task.bias = if p.bias.is_null() { p.bias } else { p.bias.wrapping_add(column) };
    }

    /// `rows` rows against the panel at `w`, in stretches of up to `most` blocks, each widened for all the rows while bytes
    /// `ahead` are prefetched. Y carries the sums from one to the next.
    fn stretches(
        &self,
        way: &Way,
        rows: usize,
        w: *const u8,
        task: &mut Task,
        (most, ahead): (usize, usize),
    ) {
        let blocks = task.k / BLOCK;
        let mut room = MaybeUninit::<Room>::uninit();
        let out = room.as_mut_ptr().cast::<u8>();
        (task.w, task.zero_shift, task.begin) = (out, way.zero_shift, 0);
        loop {
            task.blocks = most.min(blocks - task.begin);
            let stretch = Stretch { w, begin: task.begin, blocks: task.blocks, out, ahead };
            // SAFETY: the CPU has the level. The panel has the blocks, and they have room.
            unsafe { (way.widen)(&stretch) };
            self.tiles(way, rows, task);
            task.begin += task.blocks;
            if task.begin == blocks {
                return;
            }
            task.load = true;
            task.bias = std::ptr::null();
        }
    }

    /// All `rows` rows of the task, in tiles as even as can be.
    fn tiles(&self, way: &Way, rows: usize, task: &mut Task) {
        let (x, y) = (task.x, task.y);
        let mut left = rows;
        while left > 0 {
            let mr = share(left, self.most);
            let tile =
                way.tiles[mr - 1][task.bytes - 1].expect("tiles of all numbers of rows that are shared out");
            // SAFETY: the CPU has the level. The task has the first of the rows that are left, and the widened blocks.
            unsafe { tile(task) };
            task.x = task.x.wrapping_add(mr * task.ldx);
            task.y = task.y.wrapping_add(mr * task.ldy);
            left -= mr;
        }
        (task.x, task.y) = (x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Scalar;
    use crate::kernels::qmatmul::form;
    use crate::kernels::qmatmul::tile::Fours;

    fn has_all_tiles<T: Tiles, F: Format>() {
        let sweep = Sweep::of::<T, F>();
        for (rows, bytes) in (1..=500).flat_map(|rows| [(rows, 1), (rows, 2)]) {
            if rows == 1 && sweep.lines[bytes - 1].is_some() {
                continue;
            }
            let way = if rows <= FEW { &sweep.few } else { &sweep.many };
            let mut left = rows;
            while left > 0 {
                let mr = share(left, sweep.most);
                assert!(way.tiles[mr - 1][bytes - 1].is_some(), "{:?}: {mr} of {rows} rows", T::Isa::ID);
                left -= mr;
            }
        }
    }

    fn has_all_types<T: Tiles>() {
        has_all_tiles::<T, form::Q8_0>();
        has_all_tiles::<T, form::Q4_0>();
        has_all_tiles::<T, form::Q6K>();
        has_all_tiles::<T, form::Q4K>();
    }

    #[test]
    fn there_is_a_tile_for_every_share_of_rows() {
        has_all_types::<Fours<Scalar>>();
        #[cfg(target_arch = "x86_64")]
        {
            use crate::isa::{Avx2, Avx512, Avx512Vnni, AvxVnni};
            use crate::kernels::qmatmul::pairs::Pairs;
            has_all_types::<Pairs<Avx2>>();
            has_all_types::<Fours<AvxVnni>>();
            has_all_types::<Pairs<Avx512>>();
            has_all_types::<Fours<Avx512Vnni>>();
        }
        #[cfg(target_arch = "aarch64")]
        {
            has_all_types::<Fours<crate::isa::Neon>>();
            has_all_types::<Fours<crate::isa::NeonDotprod>>();
        }
    }
}
