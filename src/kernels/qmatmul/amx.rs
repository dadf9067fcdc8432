//! Many rows with two bytes on AMX: tiles multiply 16 rows by 16 columns over a sub-block, vectors scale the integer
//! sums and add them up. Same operations in the same order as the vector tiles do, so the same bits.
//!
//! Tiles and vectors work side by side: products are begun a few ahead of where their sums are scaled, and wait in a
//! ring in L1 meanwhile. While tiles are in use, 512-bit multiplications share one port (on Sapphire Rapids), so
//! sums become floats by an integer addition ([`MAGIC`]), which has two. With one byte, or where most blocks have
//! one, that leaves no gain over the vector tiles.

use super::activations::{HALF_SUMS, MAGIC, RECORD, RowParts, SCALE, SCALED_SUM};
use super::form::{self, Format, STEP};
use super::sweep::Sweep;
use super::tile::word;
use super::wide::{self, BIAS, MAX_VECTORS, SIGNED, VECTORS, Wide, Widen};
use crate::cpu::{Cache, prefetch_line};
use crate::isa::amx::{self, COLUMNS, ROWS, TILE_BYTES};
use crate::isa::{Amx, Isa, SimdBody};
use crate::kernels::portion::Portion;
use crate::quant::BLOCK;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of a vector.
const VECTOR: usize = COLUMNS * STEP;
/// Columns of a panel.
const NR: usize = VECTORS * COLUMNS;
/// Rows of tiles that a widened stretch of a panel serves at once, so that its widening costs little.
const GROUPS: usize = 8;
/// Blocks widened at a time: with the sums of all rows and the ring, they stay in L1.
const CHUNK: usize = 8;
/// Blocks whose products are listed at a time; longer sums are cut there, and wait in Y.
const SLAB: usize = 32;
/// Digits of an activation.
const BYTES: usize = 2;
/// Pairs of products, of both bytes, that the ring has room for.
const RING: usize = 4;
/// Pairs begun before the first one's sums are scaled. The last one isn't stored yet.
const AHEAD: usize = RING - 1;
/// Bytes of the sums of a pair.
const PAIR_BYTES: usize = BYTES * TILE_BYTES;

/// The operands of a pair of products.
#[derive(Clone, Copy)]
struct Operands {
    /// High bytes of the first row; low ones are K bytes after.
    a: *const u8,
    /// Levels.
    b: *const u8,
}

/// Sums of the rows of a task.
type Sums = [[[f32; COLUMNS]; ROWS]; VECTORS];

/// A task's memory on the stack.
#[repr(C, align(4096))]
struct Scratch {
    ring: [[u8; PAIR_BYTES]; RING],
    wide: [u8; CHUNK * MAX_VECTORS * VECTOR],
    sums: [Sums; GROUPS],
    products: [Operands; GROUPS * VECTORS * SLAB * 2 + RING],
}

/// A slab of K: its blocks, and where the products of each stretch begin in the list.
struct Slab {
    begin: usize,
    blocks: usize,
    lists: [usize; SLAB / CHUNK],
}

/// The table entry: as [`Sweep::run`] for rows of two bytes, with `sweep` for those that fill no tile.
///
/// # Safety
/// As [`super::Kernel::run`], and the level is available.
pub unsafe fn entry<F: Format>(portion: &Portion, sweep: &Sweep) {
    let rows = portion.m / ROWS * ROWS;
    // SAFETY: the portion's memory is there, and so is that of some of its rows; the CPU has the level.
    unsafe {
        if rows > 0 {
            tiles::<F>(portion, rows);
        }
        if rows < portion.m {
            let rest = Portion {
                x: portion.x.wrapping_add(rows * portion.ldx),
                m: portion.m - rows,
                y: portion.y.wrapping_add(rows * portion.ldy),
                ..*portion
            };
            sweep.run(&rest, BYTES);
        }
    }
}

/// Multiplies the first `rows` rows, a multiple of [`ROWS`], of a portion.
///
/// # Safety
/// As [`entry`].
unsafe fn tiles<F: Format>(portion: &Portion, rows: usize) {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    // SAFETY: the CPU has the level; the function inside doesn't unwind.
    unsafe {
        amx::with_tiles(ROWS, BLOCK / F::FORM.subs(), || {
            for row in (0..rows).step_by(GROUPS * ROWS) {
                let groups = ((rows - row) / ROWS).min(GROUPS);
                let parts = RowParts::new(BYTES, portion.k);
                Task::<F> { portion, row, groups, parts, scratch, format: PhantomData }.run();
            }
        });
    }
}

/// Some rows against all panels of a portion. It is made where [`entry`]'s promise holds and tiles are set up, and lives
/// no longer; the scratch is its own.
struct Task<'a, F> {
    portion: &'a Portion,
    row: usize,
    /// Rows of tiles.
    groups: usize,
    parts: RowParts,
    scratch: *mut Scratch,
    format: PhantomData<F>,
}

impl<F: Format> Task<'_, F> {
    const WIDE: Wide = Wide { halves: F::FORM.halves, minimum: F::FORM.minimum, words: false };
    const WIDE_BYTES: usize = Self::WIDE.vectors() * VECTOR;

    /// The rows against all panels.
    fn run(&self) {
        let blocks = self.portion.k / BLOCK;
        for begin in (0..blocks.max(1)).step_by(SLAB) {
            let mut slab = Slab { begin, blocks: SLAB.min(blocks - begin), lists: [0; SLAB / CHUNK] };
            self.list(&mut slab);
            for panel in self.portion.panel_begin..self.portion.panel_end {
                self.panel(panel, &slab);
            }
        }
    }

    /// A part of the scratch.
    #[inline(always)]
    fn scratch_at<T>(&self, offset: usize) -> *mut T {
        self.scratch.cast::<u8>().wrapping_add(offset).cast()
    }

    /// Row `row` of group `group`.
    #[inline(always)]
    fn x(&self, group: usize, row: usize) -> *const u8 {
        self.portion.x.wrapping_add((self.row + group * ROWS + row) * self.portion.ldx)
    }

    /// Lists the products of each stretch in the order in which their sums are scaled, the same for all panels; and
    /// some more at the end for the pipeline to run out on.
    fn list(&self, slab: &mut Slab) {
        let first = self.scratch_at::<Operands>(offset_of!(Scratch, products));
        let mut next = first;
        let mut listed = 0;
        let mut put = |operands| {
            // SAFETY: the list has room for all products of a slab, and then some.
            unsafe {
                next.write(operands);
                next = next.add(1);
                next.offset_from(first) as usize
            }
        };
        let wide = self.scratch_at::<u8>(offset_of!(Scratch, wide));
        for (at, start) in (0..slab.blocks).step_by(CHUNK).zip(&mut slab.lists) {
            *start = listed;
            for group in 0..self.groups {
                let x = self.x(group, 0).wrapping_add((slab.begin + at) * BLOCK);
                for v in 0..VECTORS {
                    for block in 0..CHUNK.min(slab.blocks - at) {
                        for sub in 0..F::FORM.subs() {
                            let a = x.wrapping_add(block * BLOCK + sub * BLOCK / 2);
                            let level = Self::WIDE.level(sub * form::GROUPS / 2, v);
                            let b = wide.wrapping_add(block * Self::WIDE_BYTES + level * VECTOR);
                            listed = put(Operands { a, b });
                        }
                    }
                }
            }
        }
        for _ in 0..RING {
            put(Operands { a: self.x(0, 0), b: wide });
        }
    }

    /// The rows against one panel.
    fn panel(&self, panel: usize, slab: &Slab) {
        // SAFETY: the CPU has the level; the panel is within W.
        let (isa, w) = unsafe {
            (Amx::new_unchecked(), self.portion.w.add(panel * F::FORM.panel_bytes(NR, self.portion.k)))
        };
        let region = Region {
            y: self.portion.y.wrapping_add(self.row * self.portion.ldy + panel * NR),
            ldy: self.portion.ldy,
            rows: self.groups * ROWS,
            columns: self.portion.n.saturating_sub(panel * NR).min(NR),
            load: self.portion.accumulate || slab.begin > 0,
            bias: match slab.begin {
                0 if !self.portion.bias.is_null() => self.portion.bias.wrapping_add(panel * NR),
                _ => std::ptr::null(),
            },
            sums: self.scratch_at(offset_of!(Scratch, sums)),
        };
        isa.vectorize(Load(&region));
        for (at, &list) in (0..slab.blocks).step_by(CHUNK).zip(&slab.lists) {
            let (begin, blocks) = (slab.begin + at, CHUNK.min(slab.blocks - at));
            let out = self.scratch_at(offset_of!(Scratch, wide));
            let stretch = &wide::Stretch { w, begin, blocks, out, ahead: 0 };
            isa.vectorize(Widen::<_, F, SIGNED> { isa, stretch, format: PhantomData });
            isa.vectorize(Stretch { task: self, begin, blocks, list });
        }
        isa.vectorize(Store(&region));
    }
}

/// The part of Y that a task's rows and a panel meet in, and its sums on the stack.
struct Region {
    y: *mut f32,
    ldy: usize,
    rows: usize,
    columns: usize,
    load: bool,
    /// Bias of the columns, or null.
    bias: *const f32,
    sums: *mut f32,
}

impl Region {
    /// Where vector `v` of row `row` is, in Y and on the stack.
    fn at(&self, row: usize, v: usize) -> (*mut f32, *mut f32) {
        let sum = ((row / ROWS * VECTORS + v) * ROWS + row % ROWS) * COLUMNS;
        (self.y.wrapping_add(row * self.ldy + v * COLUMNS), self.sums.wrapping_add(sum))
    }

    /// Columns of vector `v` that exist.
    #[inline(always)]
    fn width(&self, v: usize) -> usize {
        self.columns.saturating_sub(v * COLUMNS).min(COLUMNS)
    }
}

/// Starts a region's sums.
struct Load<'a>(&'a Region);

impl SimdBody for Load<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let region = self.0;
        for v in 0..VECTORS {
            let width = region.width(v);
            // SAFETY: only columns that exist are read; the sums have room.
            unsafe {
                let has_bias = !region.bias.is_null();
                let bias = if has_bias {
                    isa.load_first(region.bias.wrapping_add(v * COLUMNS), width)
                } else {
                    isa.zero()
                };
                for row in 0..region.rows {
                    let (y, sum) = region.at(row, v);
                    let start = if region.load { isa.load_first(y, width) } else { isa.zero() };
                    isa.store(sum, if has_bias { isa.add(start, bias) } else { start });
                }
            }
        }
    }
}

/// Writes a region's sums to Y.
struct Store<'a>(&'a Region);

impl SimdBody for Store<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for row in 0..self.0.rows {
            for v in 0..VECTORS {
                let (y, sum) = self.0.at(row, v);
                // SAFETY: only columns that exist are written.
                unsafe { isa.store_first(y, isa.load(sum), self.0.width(v)) };
            }
        }
    }
}

/// A task's rows against a widened stretch of a panel.
struct Stretch<'a, F> {
    task: &'a Task<'a, F>,
    /// First block.
    begin: usize,
    blocks: usize,
    /// Where its products begin in the list.
    list: usize,
}

impl<F: Format> Stretch<'_, F> {
    /// Prefetches a group's rows of the stretch: tiles wait for one row after the other.
    #[inline(always)]
    fn prefetch(&self, group: usize) {
        for r in 0..ROWS {
            let row = self.task.x(group, r);
            let fetch = |begin: usize, bytes: usize| {
                for at in (0..bytes).step_by(LINE) {
                    prefetch_line(row.wrapping_add(begin + at), Cache::L1);
                }
            };
            fetch(self.begin * BLOCK, CHUNK * BLOCK);
            fetch(self.task.parts.blocks + self.begin * RECORD, CHUNK * RECORD);
        }
    }
}

impl<F: Format> SimdBody for Stretch<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let task = self.task;
        // SAFETY: the scratch is there; sums are read after they were stored, see `AHEAD`.
        unsafe {
            let mut pipeline = Queue {
                products: task.scratch_at::<Operands>(offset_of!(Scratch, products)).add(self.list),
                ring: task.scratch_at(offset_of!(Scratch, ring)),
                ldx: task.portion.ldx,
                k: task.portion.k,
                begun: 0,
                used: 0,
            };
            let mut sums = task.scratch_at::<f32>(offset_of!(Scratch, sums));
            let wide = task.scratch_at::<u8>(offset_of!(Scratch, wide));
            for group in 0..task.groups {
                if group + 1 < task.groups {
                    self.prefetch(group + 1);
                }
                let record = task.x(group, 0).wrapping_add(task.parts.blocks + self.begin * RECORD);
                let halves = task.x(group, 0).wrapping_add(task.parts.halves + self.begin * RECORD);
                for v in 0..VECTORS {
                    let mut y: [I::F32; ROWS] = [isa.zero(); ROWS];
                    for (r, y) in y.iter_mut().enumerate() {
                        *y = isa.load(sums.add(r * COLUMNS));
                    }
                    for block in 0..self.blocks {
                        let rows = Rows::<F> {
                            record: record.wrapping_add(block * RECORD),
                            halves: halves.wrapping_add(block * RECORD),
                            ldx: task.portion.ldx,
                            w: wide.add(block * Task::<F>::WIDE_BYTES + v * VECTOR),
                            format: PhantomData,
                        };
                        rows.add(isa, &mut pipeline, &mut y);
                    }
                    for (r, y) in y.iter().enumerate() {
                        isa.store(sums.add(r * COLUMNS), *y);
                    }
                    sums = sums.add(ROWS * COLUMNS);
                }
            }
        }
    }
}

/// Pairs of products on their way: begun in the order of the list, used in the same order. It is made where tiles are
/// set up, and the list has [`RING`] pairs more than are used.
struct Queue {
    products: *const Operands,
    ring: *mut u8,
    ldx: usize,
    k: usize,
    begun: usize,
    used: usize,
}

impl Queue {
    /// The sums of the next pair, after enough of those behind it were begun.
    #[inline(always)]
    fn next(&mut self) -> Pair {
        while self.begun < self.used + AHEAD {
            // Each call stores the sums of the one before; those of none, the first time, go where nobody looks yet.
            let to = self.begun.wrapping_sub(1) % RING;
            // SAFETY: the list has the pair, tiles are set up, and the ring has room for each pair.
            unsafe {
                let Operands { a, b } = *self.products.add(self.begun);
                let a = [a, a.wrapping_add(self.k)];
                amx::dot_bytes(a, self.ldx, b, VECTORS * VECTOR, self.ring.add(to * PAIR_BYTES));
            }
            self.begun += 1;
        }
        let sums = self.ring.wrapping_add(self.used % RING * PAIR_BYTES);
        self.used += 1;
        Pair(sums.cast())
    }
}

/// The rows' records and the columns' scales of a block of a row of tiles, which a [`Stretch`] has, and lives no longer.
struct Rows<F> {
    record: *const u8,
    halves: *const u8,
    ldx: usize,
    /// The widened block, from the columns on.
    w: *const u8,
    format: PhantomData<F>,
}

impl<F: Format> Rows<F> {
    const WIDE: Wide = Wide { halves: F::FORM.halves, minimum: F::FORM.minimum, words: false };

    /// A vector of the widened block.
    #[inline(always)]
    fn vector<I: Isa>(&self, isa: I, vector: usize) -> I::F32 {
        // SAFETY: the widened block is there, and `vector` is one of those that `Wide` counts.
        unsafe { isa.load(self.w.wrapping_add(vector * VECTOR).cast()) }
    }

    /// Adds the products of a block to the rows' sums; the queue's next pairs are the block's.
    #[inline(always)]
    fn add<I: Isa>(&self, isa: I, queue: &mut Queue, y: &mut [I::F32; ROWS]) {
        let float = |p: *const u8, r: usize| {
            isa.splat(f32::from_bits(word(p.wrapping_add(r.wrapping_mul(self.ldx))) as u32))
        };
        let mut minimums = [isa.zero(); 2];
        if F::FORM.minimum {
            for (sub, minimum) in minimums.iter_mut().enumerate().take(F::FORM.subs()) {
                *minimum = self.vector(isa, Self::WIDE.minimum(sub, 0));
            }
        }
        if F::FORM.halves {
            let mut scaled: [I::F32; ROWS] = [isa.zero(); ROWS];
            let sums = queue.next();
            let scale = self.scale(isa, 0);
            for (r, scaled) in scaled.iter_mut().enumerate() {
                *scaled = isa.mul(sums.total(isa, r), scale);
            }
            let sums = queue.next();
            let scale = self.scale(isa, 1);
            for (r, y) in y.iter_mut().enumerate() {
                let scaled = isa.mul_add(sums.total(isa, r), scale, scaled[r]);
                *y = isa.mul_add(scaled, float(self.record.wrapping_add(SCALE), r), *y);
                if F::FORM.minimum {
                    *y = isa.mul_add(minimums[0], float(self.halves.wrapping_add(HALF_SUMS), r), *y);
                    *y = isa.mul_add(minimums[1], float(self.halves.wrapping_add(HALF_SUMS + 4), r), *y);
                }
            }
        } else {
            let sums = queue.next();
            let scale = self.scale(isa, 0);
            for (r, y) in y.iter_mut().enumerate() {
                let scaled = isa.mul(sums.total(isa, r), scale);
                *y = isa.mul_add(scaled, float(self.record.wrapping_add(SCALE), r), *y);
                if F::FORM.minimum {
                    *y = isa.mul_add(minimums[0], float(self.record.wrapping_add(SCALED_SUM), r), *y);
                }
            }
        }
    }

    /// Scales of a sub-block for sums of both bytes.
    #[inline(always)]
    fn scale<I: Isa>(&self, isa: I, sub: usize) -> I::F32 {
        let scale = self.vector(isa, Self::WIDE.scale(sub, 0));
        isa.mul(scale, isa.splat(1.0 / 256.0))
    }
}

/// Sums of a pair of products, in the ring until [`AHEAD`] more pairs were used.
#[derive(Clone, Copy)]
struct Pair(*const i32);

impl Pair {
    /// Row r < [`ROWS`] of the sums in f32: the high byte's 256-fold and the low byte's, rounded once.
    #[inline(always)]
    fn total<I: Isa>(self, isa: I, r: usize) -> I::F32 {
        let exact = |byte: usize| {
            // SAFETY: the pair is in the ring, and both of its tiles have the row.
            let sums = unsafe { isa.load_i32(self.0.add((byte * ROWS + r) * COLUMNS)) };
            isa.sub(isa.from_bits(isa.add_i32(sums, isa.splat_i32(MAGIC))), isa.splat(BIAS))
        };
        isa.mul_add(exact(0), isa.splat(256.0), exact(1))
    }
}
