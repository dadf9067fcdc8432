//! Matmul in bfloat16: `Y = X · Wᵀ (+ bias) (+ Y)` with X and W rounded to bfloat16 and sums in f32.
//! A mode of lower precision that a caller chooses by name; nothing chooses it by itself.
//! A level has one [`Kernel`]: pack weights once with it, round rows of X with it, run portions with it. [`crate::ops::Matmul`]
//! does all of this on slices.
//!
//! # Contract
//! **X** is m rows that [`Kernel::round_rows`] made from f32, to the nearest, ties to even; [`Kernel::row_bytes`] from one
//! row to the next, which is an odd number of cache lines, so that rows don't fall on each other's places in a
//! cache. A row is K bfloat16 (on levels without a dot product of them, K f32 of the same values), and zeros.
//!
//! **W** (n outputs × k inputs, bfloat16) is packed into ⌈n / nr⌉ panels, see [`PanelLayout`]. Columns past n and inputs
//! past k are zeros in the pack. No pointer needs an alignment; 64 bytes is fastest.
//!
//! **Order.** Products are exact in f32; only their sum is rounded. It starts at `Y (if accumulate) + bias`. Then,
//! for k ascending:
//!
//! | level | step | added to the sum by a step |
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

use super::info::KernelInfo;
use super::portion::Portion;
use super::routine::at_level;
use super::{matmul, table};
use crate::isa::{Isa, IsaId, Scalar};

mod layout;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
mod pairs;
mod rounding;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use layout::PanelLayout;
use rounding::{RoundRow, Rounding};

/// The kernel of one level: how rows are rounded, how weights are packed, and the loops that multiply them.
#[derive(Clone, Copy)]
pub struct Kernel {
    info: KernelInfo,
    engine: Engine,
    round: RoundRow,
}

/// The loops that multiply, and the rows that they read.
#[derive(Clone, Copy)]
enum Engine {
    /// The f32 kernel that widens bfloat16 weights: rows are f32.
    Widening(&'static matmul::Kernel),
    /// The same loops over pairs of bfloat16, which take the place of one f32.
    Pairs(&'static matmul::Blocking),
    /// Tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles(unsafe fn(&Portion)),
}

impl Kernel {
    /// The best kernel that `isa` includes and this CPU has.
    pub fn select(isa: IsaId) -> &'static Kernel {
        table::best(TABLE.iter(), isa).expect("the scalar level runs anywhere")
    }

    /// Name, level, tile.
    pub fn info(&self) -> KernelInfo {
        self.info
    }

    /// How weights are packed for this level.
    pub fn layout(&self) -> PanelLayout {
        match self.engine {
            Engine::Widening(kernel) => PanelLayout::Columns(kernel),
            Engine::Pairs(loops) => PanelLayout::Pairs { nr: loops.nr, tile: loops.nr, step: 2 },
            #[cfg(target_arch = "x86_64")]
            Engine::Tiles(_) => tiles::LAYOUT,
        }
    }

    /// Bytes from one rounded row of `k` elements to the next: an odd number of cache lines, and not one more or
    /// less than a multiple of 64: an L1 has 64 sets, and rows at such a distance would share few of them. `None` on
    /// overflow.
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
    #[doc(hidden)]
    pub unsafe fn round_rows(&self, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
        let row_bytes = self.row_bytes(k).unwrap_or(0);
        for row in 0..rows {
            let (x, out) = (x.wrapping_add(row * ldx), out.wrapping_add(row * row_bytes));
            // SAFETY: this CPU has the level, since `select` chose it; k floats are there, and room for the row.
            unsafe { (self.round)(&Rounding { x, k, out, bytes: row_bytes }) };
        }
    }

    /// Computes a portion: rows that this kernel has rounded, weights that it has packed.
    ///
    /// # Safety
    /// X holds m rounded rows of k, W the panels up to `panel_end`, Y m rows with all columns of the portion's
    /// panels that are below n, bias n floats; Y overlaps none of them, and nothing else writes to its part of Y.
    #[doc(hidden)]
    pub unsafe fn run(&self, portion: &Portion) {
        // SAFETY: this CPU has the level, since `select` chose it; the portion's memory is there.
        unsafe {
            match self.engine {
                Engine::Widening(kernel) => kernel.run(portion),
                Engine::Pairs(loops) => {
                    loops.run(&loops.product(&Portion { k: portion.k.div_ceil(2), ..*portion }));
                }
                #[cfg(target_arch = "x86_64")]
                Engine::Tiles(run) => run(portion),
            }
        }
    }
}

/// A kernel of a level without a dot product of bfloat16.
const fn widening<I: Isa>(kernel: &'static matmul::Kernel) -> Kernel {
    let info = KernelInfo { op: "bmatmul", ..kernel.info };
    Kernel { info, engine: Engine::Widening(kernel), round: at_level::<I, Rounding> }
}

/// Every kernel of the family.
static TABLE: &[Kernel] = &[
    widening::<Scalar>(const { &matmul::scalar::<matmul::Bf16>() }),
    #[cfg(target_arch = "x86_64")]
    widening::<crate::isa::Avx2>(const { &matmul::avx2::<matmul::Bf16>() }),
    #[cfg(target_arch = "x86_64")]
    widening::<crate::isa::Avx512>(const { &matmul::avx512::<matmul::Bf16>() }),
    #[cfg(target_arch = "x86_64")]
    pairs::kernel::<crate::isa::Avx512Bf16>(const { &pairs::blocking::<crate::isa::Avx512Bf16>() }),
    #[cfg(target_arch = "x86_64")]
    tiles::KERNEL,
    #[cfg(target_arch = "aarch64")]
    widening::<crate::isa::Neon>(const { &matmul::neon::<matmul::Bf16>() }),
    #[cfg(target_arch = "aarch64")]
    pairs::kernel::<crate::isa::NeonBf16>(const { &pairs::blocking::<crate::isa::NeonBf16>() }),
];

impl table::Entry for Kernel {
    fn isa(&self) -> IsaId {
        self.info.isa
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.info.fmt(f)
    }
}

/// Name, level and tile of every kernel of the family, whether or not this CPU can run it.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    let rounding =
        |kernel: &Kernel| KernelInfo { op: "round_bf16", dtype: "f32", mr: 1, nr: 1, ..kernel.info };
    TABLE.iter().map(rounding).chain(TABLE.iter().map(|kernel| kernel.info))
}
