//! The register tiles of attention's two products: scores = queries · keysᵀ, and sums + weights · values.
//! One body each for every instruction set and type of storage; [`Tiles`] holds them by height and width.

use super::TILE;
use super::step::Step;
use super::stored::{F32, Stored};
use crate::isa::{Isa, IsaId};
use crate::kernels::routine::{Routine, entry};
use std::marker::PhantomData;

/// Rows of the highest tile of any level.
pub(super) const MAX_ROWS: usize = 6;

/// Scores of a few rows against a panel of keys, or against some neighbouring ones.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    /// First row of the queries.
    pub queries: *const f32,
    /// Floats between rows of the queries.
    pub query_stride: usize,
    /// Elements of a key to multiply.
    pub depth: usize,
    /// The first element of the panel's keys.
    pub keys: *const u8,
    /// The keys' factors, where the type has them.
    pub factors: *const f32,
    /// Keys from one element's line to the next.
    pub key_stride: usize,
    /// Bytes from one panel to the next.
    pub panel_stride: usize,
    /// Kernel 0 of the scores, at the panel's first key; rows lie [`TILE`] floats apart.
    pub scores: *mut f32,
    /// Adds to the scores there (of elements before these) instead of starting at 0.
    pub resume: bool,
    /// The start of the memory that is prefetched, as many bytes as the keys have; or null. The highest tile
    /// prefetches nothing: it has too much to compute to wait for memory.
    pub next: *const u8,
}

/// Sums of a few rows over the keys of a tile, for some vectors of a value's elements.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// Weights of row 0; rows lie [`TILE`] floats apart.
    pub weights: *const f32,
    /// Keys.
    pub keys: usize,
    /// The first value's first element.
    pub values: *const u8,
    /// The values' factors, where the type has them.
    pub factors: *const f32,
    /// Elements between values.
    pub value_stride: usize,
    /// Kernel 0 of the sums.
    pub sums: *mut f32,
    /// Floats between rows of the sums.
    pub sum_stride: usize,
    /// A factor for the present sums of each row.
    pub shrink: *const f32,
    /// The start of the memory that is prefetched, as many bytes as the values have; or null.
    pub next: *const u8,
}

/// The tiles for one number of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Height {
    /// For 1, 2, 3 and 4 vectors of keys, or for as many as a panel has.
    pub scores: [Step<Scores>; 4],
    /// Panels that `panels` takes at once: a low tile has too few sums to keep the FMA units busy.
    pub group: usize,
    /// For `group` panels.
    pub panels: Step<Scores>,
    /// For 1, 2, … `widest` vectors of a value's elements.
    pub sums: [Step<Sums>; 4],
    /// As many as keep their sums in registers, at most.
    pub widest: usize,
}

/// The tiles of one level and type of storage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// Highest tile.
    pub mr: usize,
    /// Keys of a panel.
    pub nr: usize,
    /// Floats of a vector.
    pub lanes: usize,
    /// Tiles for 1, 2, … rows.
    pub heights: &'static [Height],
}

impl Tiles {
    /// The tiles of level `I`: with 32 registers 24 sums, 4 vectors of keys and a factor; with 16 half of that.
    /// Where keys have factors, these take registers too.
    pub const fn of<I: Isa, S: Stored>() -> Self {
        let heights: &'static [Height] = match (I::REGISTERS >= 32, S::TYPE.scaled()) {
            (true, false) => {
                const {
                    &[
                        height::<I, S, 1, 3, 4, 2, 3, 4>(),
                        height::<I, S, 2, 3, 4, 2, 3, 4>(),
                        height::<I, S, 3, 3, 4, 1, 3, 4>(),
                        height::<I, S, 4, 3, 4, 1, 3, 4>(),
                        height::<I, S, 5, 3, 4, 1, 3, 4>(),
                        height::<I, S, 6, 3, 4, 1, 3, 4>(),
                    ]
                }
            }
            (true, true) => {
                const {
                    &[
                        height::<I, S, 1, 3, 4, 2, 3, 4>(),
                        height::<I, S, 2, 3, 4, 1, 3, 4>(),
                        height::<I, S, 3, 3, 4, 1, 3, 4>(),
                        height::<I, S, 4, 3, 4, 1, 3, 4>(),
                    ]
                }
            }
            (false, false) => {
                const {
                    &[
                        height::<I, S, 1, 2, 2, 4, 3, 4>(),
                        height::<I, S, 2, 2, 2, 2, 3, 4>(),
                        height::<I, S, 3, 2, 2, 1, 3, 3>(),
                        height::<I, S, 4, 2, 2, 1, 2, 2>(),
                        height::<I, S, 5, 2, 2, 1, 2, 2>(),
                        height::<I, S, 6, 2, 2, 1, 2, 2>(),
                    ]
                }
            }
            (false, true) => {
                const {
                    &[
                        height::<I, S, 1, 2, 2, 2, 3, 4>(),
                        height::<I, S, 2, 2, 2, 2, 3, 4>(),
                        height::<I, S, 3, 2, 2, 1, 3, 3>(),
                        height::<I, S, 4, 2, 2, 1, 2, 2>(),
                    ]
                }
            }
        };
        // The scalar level has four lanes in sixteen registers, two of which a rounded product takes.
        let mr = if matches!(I::ID, IsaId::Scalar) { 4 } else { heights.len() };
        let nr = if I::REGISTERS >= 32 { 4 * I::LANES } else { 2 * I::LANES };
        Self { mr, nr, lanes: I::LANES, heights }
    }
}

/// The tiles of MR rows. Keys: panels are PANEL vectors wide, or THREE where that is enough, and GROUP of them go
/// together. Values: up to WIDEST vectors, or NARROWER where these are left.
const fn height<
    I: Isa,
    S: Stored,
    const MR: usize,
    const THREE: usize,
    const PANEL: usize,
    const GROUP: usize,
    const NARROWER: usize,
    const WIDEST: usize,
>() -> Height {
    Height {
        scores: [
            Step::from_function(scores::<I, S, MR, 1, 1>),
            Step::from_function(scores::<I, S, MR, 2, 1>),
            Step::from_function(scores::<I, S, MR, THREE, 1>),
            Step::from_function(scores::<I, S, MR, PANEL, 1>),
        ],
        group: GROUP,
        panels: Step::from_function(scores::<I, S, MR, PANEL, GROUP>),
        sums: [
            Step::from_function(sums::<I, S, MR, 1>),
            Step::from_function(sums::<I, S, MR, 2>),
            Step::from_function(sums::<I, S, MR, NARROWER>),
            Step::from_function(sums::<I, S, MR, WIDEST>),
        ],
        widest: WIDEST,
    }
}

/// Enters the tile of [`ScoresTile`]: a function of its own, by whose name the test of the machine code finds it.
///
/// # Safety
/// The CPU has level `I`, and the memory that `tile` names is there.
unsafe fn scores<I: Isa, S: Stored, const MR: usize, const NV: usize, const P: usize>(tile: &Scores) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { entry::<I, Scores, ScoresTile<S, MR, NV, P>>(tile) }
}

/// Enters the tile of [`SumsTile`], as [`scores`] does.
///
/// # Safety
/// As [`scores`].
unsafe fn sums<I: Isa, S: Stored, const MR: usize, const NV: usize>(tile: &Sums) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { entry::<I, Sums, SumsTile<S, MR, NV>>(tile) }
}

/// A vector of elements at `p`, which lies where a tile's fields say that there are some.
#[inline(always)]
fn load<I: Isa, S: Stored>(isa: I, p: *const S::Element) -> I::F32 {
    // SAFETY: a tile names only memory that is there, see `step`.
    unsafe { S::load(isa, p) }
}

/// A float at `p`, which lies where a tile's fields say that there are some, at any alignment.
#[inline(always)]
fn read(p: *const f32) -> f32 {
    // SAFETY: as in [`load`].
    unsafe { p.read_unaligned() }
}

/// Stores a vector at `p`, which lies where a tile's fields say that there is room.
#[inline(always)]
fn store<I: Isa>(isa: I, p: *mut f32, x: I::F32) {
    // SAFETY: as in [`load`].
    unsafe { isa.store(p, x) }
}

/// MR rows against P panels of NV vectors of keys.
struct ScoresTile<S, const MR: usize, const NV: usize, const P: usize>(PhantomData<S>);

impl<S: Stored, const MR: usize, const NV: usize, const P: usize> Routine<Scores>
    for ScoresTile<S, MR, NV, P>
{
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &tile: &Scores) {
        let mut sums = [[[isa.zero(); NV]; P]; MR];
        let place =
            |i: usize, p: usize, v: usize| tile.scores.wrapping_add(i * TILE + (p * NV + v) * I::LANES);
        if tile.resume {
            for (i, row) in sums.iter_mut().enumerate() {
                for (p, panel) in row.iter_mut().enumerate() {
                    for (v, sum) in panel.iter_mut().enumerate() {
                        *sum = load::<I, F32>(isa, place(i, p, v));
                    }
                }
            }
        }
        sums = if MR == MAX_ROWS || tile.next.is_null() {
            multiply_keys::<I, S, MR, NV, P, false>(isa, &tile, sums)
        } else {
            multiply_keys::<I, S, MR, NV, P, true>(isa, &tile, sums)
        };
        for (i, row) in sums.iter().enumerate() {
            for (p, panel) in row.iter().enumerate() {
                for (v, &sum) in panel.iter().enumerate() {
                    store(isa, place(i, p, v), sum);
                }
            }
        }
    }
}

/// Adds queries · keys to the sums, elements in order; `AHEAD` prefetches from `next` on.
#[inline(always)]
fn multiply_keys<I: Isa, S: Stored, const MR: usize, const NV: usize, const P: usize, const AHEAD: bool>(
    isa: I,
    tile: &Scores,
    mut sums: [[[I::F32; NV]; P]; MR],
) -> [[[I::F32; NV]; P]; MR] {
    let (mut keys, mut query, mut next) = (tile.keys, tile.queries, tile.next);
    let mut factors = [[isa.zero(); NV]; P];
    if S::TYPE.scaled() {
        for (p, factors) in factors.iter_mut().enumerate() {
            let panel = tile.factors.wrapping_byte_add(p * tile.panel_stride);
            for (v, factor) in factors.iter_mut().enumerate() {
                *factor = load::<I, F32>(isa, panel.wrapping_add(v * I::LANES));
            }
        }
    }
    for _ in 0..tile.depth {
        for p in 0..P {
            let mut row = [isa.zero(); NV];
            for (v, x) in row.iter_mut().enumerate() {
                let panel = keys.wrapping_add(p * tile.panel_stride).cast::<S::Element>();
                *x = load::<I, S>(isa, panel.wrapping_add(v * I::LANES));
                if S::TYPE.scaled() {
                    *x = isa.mul(*x, factors[p][v]);
                }
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let factor = isa.splat(read(query.wrapping_add(i * tile.query_stride)));
                for v in 0..NV {
                    sums[p][v] = isa.mul_add(factor, row[v], sums[p][v]);
                }
            }
        }
        if AHEAD {
            next = ahead(isa, next, P * NV * I::LANES * size_of::<S::Element>());
        }
        keys = keys.wrapping_add(tile.key_stride * size_of::<S::Element>());
        query = query.wrapping_add(1);
    }
    sums
}

/// Prefetches the cache lines of `bytes` bytes from `next` on, and returns their end.
#[inline(always)]
fn ahead<I: Isa>(isa: I, next: *const u8, bytes: usize) -> *const u8 {
    for line in 0..bytes.div_ceil(64) {
        isa.prefetch(next.wrapping_add(64 * line));
    }
    next.wrapping_add(bytes)
}

/// MR rows against NV vectors of a value's elements.
struct SumsTile<S, const MR: usize, const NV: usize>(PhantomData<S>);

impl<S: Stored, const MR: usize, const NV: usize> Routine<Sums> for SumsTile<S, MR, NV> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &tile: &Sums) {
        let place = |i: usize, v: usize| tile.sums.wrapping_add(i * tile.sum_stride + v * I::LANES);
        let mut sums = [[isa.zero(); NV]; MR];
        for (i, row) in sums.iter_mut().enumerate() {
            let shrink = isa.splat(read(tile.shrink.wrapping_add(i)));
            for (v, sum) in row.iter_mut().enumerate() {
                *sum = isa.mul(load::<I, F32>(isa, place(i, v)), shrink);
            }
        }
        sums = if MR == MAX_ROWS || tile.next.is_null() {
            multiply_values::<I, S, MR, NV, false>(isa, &tile, sums)
        } else {
            multiply_values::<I, S, MR, NV, true>(isa, &tile, sums)
        };
        for (i, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                store(isa, place(i, v), sum);
            }
        }
    }
}

/// Adds weights · values to the sums, keys in order; `AHEAD` prefetches from `next` on.
#[inline(always)]
fn multiply_values<I: Isa, S: Stored, const MR: usize, const NV: usize, const AHEAD: bool>(
    isa: I,
    tile: &Sums,
    mut sums: [[I::F32; NV]; MR],
) -> [[I::F32; NV]; MR] {
    let (mut values, mut weight, mut next) = (tile.values, tile.weights, tile.next);
    for key in 0..tile.keys {
        let mut row = [isa.zero(); NV];
        for (v, x) in row.iter_mut().enumerate() {
            *x = load::<I, S>(isa, values.cast::<S::Element>().wrapping_add(v * I::LANES));
        }
        if S::TYPE.scaled() {
            let factor = isa.splat(read(tile.factors.wrapping_add(key)));
            for x in &mut row {
                *x = isa.mul(*x, factor);
            }
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let factor = isa.splat(read(weight.wrapping_add(i * TILE)));
            for v in 0..NV {
                sums[v] = isa.mul_add(factor, row[v], sums[v]);
            }
        }
        if AHEAD {
            next = ahead(isa, next, NV * I::LANES * size_of::<S::Element>());
        }
        values = values.wrapping_add(tile.value_stride * size_of::<S::Element>());
        weight = weight.wrapping_add(1);
    }
    sums
}
