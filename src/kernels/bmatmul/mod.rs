//! Matmul in bfloat16: `Y = X · Wᵀ (+ bias) (+ Y)` with X and W rounded to bfloat16 and sums in f32.
//! A mode of lower precision that the caller asks for by name; nothing chooses it by itself.
//! A level is a [`Set`]: pack weights once with it, round rows of X with it, run portions with it; [`Packed`] does
//! the last two for plain slices.
//!
//! # Contract
//! **X** is m rows that [`Set::round_rows`] made from f32, to the nearest, ties to even; [`Set::row_bytes`] from one
//! row to the next, which is an odd number of cache lines, so that rows don't fall on each other's places in a
//! cache. A row is K bfloat16 (on levels without a dot product of them, K f32 of the same values), and zeros.
//!
//! **W** (n outputs × k inputs, bfloat16) is packed into ⌈n / nr⌉ panels, see [`Layout`]. Columns past n and inputs
//! past k are zeros in the pack. No pointer needs an alignment; 64 bytes is fastest.
//!
//! **Order.** Products are exact in f32; what is rounded is their sum. It starts at `Y (if accumulate) + bias`. Then,
//! for k ascending:
//!
//! | level | step | what a step adds to the sum |
//! |---|---|---|
//! | scalar, avx2, avx512, neon | 1 | x₀w₀, fused |
//! | avx512bf16 | 2 | x₁w₁, then x₀w₀, each fused |
//! | neon-bf16 | 2 | x₀w₀ + x₁w₁, rounded (to odd) before and after it is added |
//! | amx | 32 | e + o, where e = fused sum of x₀w₀, x₂w₂ …, and o = of x₁w₁, x₃w₃ … |
//!
//! The order is the same for any m and any split into portions, and so are the bits, at one level. Levels differ.
//!
//! **Error.** Against the exact sum of the rounded inputs, with S = |start| + Σ|x·w|, u = 2⁻²⁴ and
//! γ(n) = n·u / (1 − n·u): γ(k + 2)·S; neon-bf16, whose roundings may go to either neighbour, γ(2·⌈k/2⌉ + 6)·S;
//! amx γ(⌈k/32⌉ + 18)·S. Levels from avx512bf16 on take numbers below 2⁻¹²⁶ for zeros, in and out, also in rounding
//! X: that adds at most 2⁻¹²⁶·(k + 2 + Σ|x| + Σ|w|). The rounding before costs up to 2⁻⁸·|x| and 2⁻⁸·|w|, so up to
//! (2⁻⁷ + 2⁻¹⁶)·Σ|x·w|.
//!
//! NaN and infinities behave as in f32, and stay in their row and column.

use super::levels::{self, LEVELS};
use super::{KernelInfo, Portion, matmul};
use crate::isa::IsaId;
use crate::quant::DType;

mod layout;
mod packed;
mod pairs;
mod rounding;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use layout::Layout;
pub use packed::{Output, Packed};
use rounding::{RoundRows, Rounding};

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct Set {
    info: KernelInfo,
    engine: Engine,
    round: RoundRows,
}

/// What multiplies.
#[derive(Clone, Copy)]
enum Engine {
    /// The f32 kernel that widens bfloat16 weights: rows are f32.
    Widening(&'static matmul::Row),
    /// The same loops over pairs of bfloat16, which take the place of one f32.
    Pairs(&'static matmul::Blocking),
    /// Tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(unsafe fn(&Portion)),
}

impl Set {
    /// The kernels of level `isa`, or of the next lower level that this family has and this CPU can run.
    pub fn select(isa: IsaId) -> Self {
        let runs = |set: &Set| isa.includes(set.info.isa) && set.info.isa.is_available();
        let best = all().filter(runs).max_by_key(|set| set.info.isa);
        best.expect("the scalar level runs anywhere")
    }

    /// Name, level, tile.
    pub fn info(&self) -> KernelInfo {
        self.info
    }

    /// How weights are packed for this level.
    pub fn layout(&self) -> Layout {
        match self.engine {
            Engine::Widening(row) => Layout::Columns(row),
            Engine::Pairs(loops) => Layout::Pairs { nr: loops.nr, tile: loops.nr, step: 2 },
            #[cfg(target_arch = "x86_64")]
            Engine::Tiles(_) => tiles::LAYOUT,
        }
    }

    /// Bytes from one rounded row of `k` elements to the next: an odd number of cache lines, but not one beside a
    /// multiple of 64, since lines of 64 places in L1 are what rows must share; `None` on overflow.
    pub fn row_bytes(&self, k: usize) -> Option<usize> {
        let element: usize = if matches!(self.engine, Engine::Widening(_)) { 4 } else { 2 };
        let mut lines = k.checked_mul(element)?.div_ceil(64) | 1;
        while lines > 64 && matches!(lines % 64, 1 | 63) {
            lines += 2;
        }
        lines.checked_mul(64)
    }

    /// Rounds `rows` rows of `k` f32, `ldx` floats apart, into rows of `row_bytes(k)` bytes one after the other.
    ///
    /// # Safety
    /// `x` is readable for `k` floats at each of `rows` multiples of `ldx`; `out` is writable for
    /// `rows * row_bytes(k)` bytes. No alignment is needed.
    pub unsafe fn round_rows(&self, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
        let row_bytes = self.row_bytes(k).unwrap_or(0);
        for row in 0..rows {
            let (x, out) = (x.wrapping_add(row * ldx), out.wrapping_add(row * row_bytes));
            // SAFETY: the caller's promise; the set was selected for this CPU.
            unsafe { (self.round)(x, k, out, row_bytes) };
        }
    }

    /// Computes a portion: rows that this set has rounded, weights that it has packed.
    ///
    /// # Safety
    /// X holds m rounded rows of k, W the panels up to `panel_end`, Y m rows with all columns of the portion's
    /// panels that are below n, bias n floats; Y overlaps none of them, and nothing else writes to its part of Y.
    pub unsafe fn run(&self, portion: &Portion) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe {
            match self.engine {
                Engine::Widening(row) => row.run(portion),
                Engine::Pairs(loops) => {
                    loops.run_portion(&Portion { k: portion.k.div_ceil(2), ..*portion });
                }
                #[cfg(target_arch = "x86_64")]
                Engine::Tiles(run) => run(portion),
            }
        }
    }
}

/// Every set that this build has, lowest level first.
fn all() -> impl Iterator<Item = Set> {
    let portable = matmul::table().iter().filter(|row| row.weights == DType::BF16).map(|row| {
        let info = KernelInfo { op: "bmatmul", ..row.info };
        Set { info, engine: Engine::Widening(row), round: widened_rounding(row.info.isa) }
    });
    let pairs = pairs::ROWS.iter();
    let pairs =
        pairs.map(|(info, loops, round)| Set { info: *info, engine: Engine::Pairs(loops), round: *round });
    let sets = portable.chain(pairs);
    #[cfg(target_arch = "x86_64")]
    let sets = sets.chain([tiles::SET]);
    sets
}

/// The kernel that rounds to f32 at a level of the f32 kernels.
fn widened_rounding(isa: IsaId) -> RoundRows {
    static TABLE: [Rounding; LEVELS] = levels::table();
    TABLE.iter().find(|rounding| rounding.0 == isa).unwrap_or(&TABLE[0]).1
}

/// Every kernel of the family, whether or not this CPU can run it.
pub fn rows() -> impl Iterator<Item = KernelInfo> {
    let rounding = |info| KernelInfo { op: "round_bf16", dtype: "f32", mr: 1, nr: 1, ..info };
    all().map(move |set| rounding(set.info)).chain(all().map(|set| set.info))
}
