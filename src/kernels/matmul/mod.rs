//! Matmul with f32 activations and f32, f16 or bf16 weights: `Y = X · Wᵀ (+ bias) (+ Y)`, W packed ahead.
//!
//! # Contract
//! - X is m × k f32, rows `ldx` bytes apart, any alignment. Y is m × n f32, rows `ldy` floats apart.
//! - W (n outputs × k inputs) is packed into ⌈n / nr⌉ panels, each `k × nr` elements of its own type: all nr
//!   columns at k = 0, then at k = 1, and so on. Columns past n are zeros in the pack and never written to Y.
//!   Panels need no alignment; 64 bytes is fastest. (bf16 weaves pairs of vectors: see `weight`.)
//! - Every output is one accumulator that starts at `Y (if accumulate) + bias` and adds `x[k]·w[k]`, fused, for
//!   k ascending: the same bits for every m, every split into portions and every cut of the loops.
//!   (The scalar level rounds the products; its order is the same.)
//! - |error| ≤ γ(k+1) · (|start| + Σ|x·w|) with γ(n) = n·u / (1 − n·u), u = 2⁻²⁴; on the scalar level γ(k+2).
//! - Edges are the kernel's: any m, n, k, also 0. Nothing outside Y's own columns is written.
//!
//! A kernel is a [`Kernel`]; [`MatmulKernels`] holds the best one for each type of weights.

mod blocking;
mod cuts;
mod epilogue;
mod gemm;
#[cfg(test)]
mod gemm_tests;
mod lines;
mod pack;
mod pack_f32;
#[cfg(test)]
mod tests;
mod tile;
mod walk;
mod weight;

use super::info::KernelInfo;
use super::portion::Portion;
use super::routine::{self, at_level};
use super::table;
use crate::isa::{Isa, IsaId, Scalar};
use crate::quant::DType;
pub(crate) use blocking::{Blocking, Product};
pub use epilogue::{Activation, Epilogue, Lines};
pub(crate) use gemm::extent;
pub use gemm::{Gemm, Matrix, Right};
pub use pack::Source;
pub(crate) use tile::{Block, Tile, Tiles, start, store};
use tile::{PanelRows, Widen, WidenFn, tile};
pub(super) use weight::{Bf16, Weight};
use weight::{F16, F32};

/// One kernel: how its weights are packed, and the loops that multiply them.
pub struct Kernel {
    /// Name, level, tile.
    pub info: KernelInfo,
    /// Element type of its weights, in the source and in the panels.
    pub weights: DType,
    blocking: Blocking,
    /// Place of a column within a panel's row.
    place: fn(usize) -> usize,
    pack_panel: unsafe fn(&pack_f32::PanelPart),
    pack_lines: unsafe fn(&pack_f32::LinesPart),
    /// Few rows against lines of B, by the number of rows.
    lines: &'static [lines::LinesFn],
    /// Few rows against rows of B, by the number of rows.
    walks: &'static [lines::LinesFn],
    lanes: usize,
    scale: unsafe fn(&epilogue::Scale),
    finish: unsafe fn(&epilogue::Finish),
}

/// The best kernel for each type of weights at one level.
#[derive(Clone, Copy, Debug)]
pub struct MatmulKernels {
    /// f32 weights.
    pub f32: &'static Kernel,
    /// IEEE half weights.
    pub f16: &'static Kernel,
    /// bfloat16 weights, widened to f32.
    pub bf16: &'static Kernel,
}

impl MatmulKernels {
    /// The best kernels that `isa` includes and this CPU has.
    pub fn select(isa: IsaId) -> Self {
        let best = |weights| {
            let kernels = TABLE.iter().filter(|kernel| kernel.weights == weights);
            table::best(kernels, isa).expect("the scalar level runs anywhere and has every type")
        };
        Self { f32: best(DType::F32), f16: best(DType::F16), bf16: best(DType::BF16) }
    }

    /// The kernel for weights of that type; `None` for a type that this family has no kernel for.
    pub fn kernel(&self, weights: DType) -> Option<&'static Kernel> {
        [self.f32, self.f16, self.bf16].into_iter().find(|kernel| kernel.weights == weights)
    }
}

/// Name, level and tile of every kernel of the family, whether or not this CPU can run it.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().map(|kernel| kernel.info)
}

/// Every kernel of the family, for tests and benches; run only those whose level is available.
pub fn table() -> &'static [Kernel] {
    TABLE
}

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

impl Kernel {
    /// Multiplies; see the module's contract and [`Portion`].
    ///
    /// # Safety
    /// The CPU has `info.isa`. X holds m rows of k floats, W the panels up to `panel_end` (of `k × nr` each), Y
    /// m rows with all columns of the portion's panels that are below n, bias n floats; Y overlaps none of them.
    #[doc(hidden)]
    pub unsafe fn run(&self, portion: &Portion) {
        // SAFETY: the CPU has the tiles' level, and all memory that the portion names is there.
        unsafe { self.blocking.run(&self.blocking.product(portion)) }
    }

    /// Lanes of a vector: how finely columns of a plain B are divided.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Multiplies rows with panels that stand anywhere.
    ///
    /// # Safety
    /// As [`Kernel::run`], for the memory that `product` names.
    #[inline]
    pub(crate) unsafe fn multiply(&self, product: &Product) {
        // SAFETY: the CPU has the tiles' level, and all memory that the product names is there.
        unsafe { self.blocking.run(product) }
    }
}

/// A kernel whose tiles are `NV` vectors wide; `wide` are the tiles of the same size for f32 weights.
const fn kernel<I: Isa, W: Weight, const NV: usize>(
    tiles: Tiles,
    wide: Tiles,
    lines: &'static [lines::LinesFn],
    walks: &'static [lines::LinesFn],
) -> Kernel {
    let nr = NV * I::LANES;
    assert!(tiles.narrow.is_empty() || tiles.narrow.len() == NV - 1);
    let widen: WidenFn = routine::entry::<I, PanelRows, Widen<W, NV>>;
    let wide = if W::BYTES < 4 { Some((widen, wide)) } else { None };
    let dtype = match W::DTYPE {
        DType::F32 => "f32",
        DType::F16 => "f16",
        _ => "bf16",
    };
    Kernel {
        info: KernelInfo { op: "matmul", dtype, isa: I::ID, mr: tiles.full.len(), nr },
        weights: W::DTYPE,
        blocking: Blocking { tiles, nr, row_bytes: nr * W::BYTES, wide },
        place: |column| W::place(I::LANES, column),
        pack_panel: at_level::<I, pack_f32::PanelPart>,
        pack_lines: at_level::<I, pack_f32::LinesPart>,
        lines,
        walks,
        lanes: I::LANES,
        scale: at_level::<I, epilogue::Scale>,
        finish: at_level::<I, epilogue::Finish>,
    }
}

/// 4 rows × 2 vectors: 8 sums, 2 weights, a factor and a product of 16 registers.
pub(super) const fn scalar<W: Weight>() -> Kernel {
    let lines = const { &[lines::entry::<Scalar, 1, 1, false> as lines::LinesFn] };
    kernel::<Scalar, W, 2>(scalar_tiles::<W>(), scalar_tiles::<F32>(), lines, few_walks::<Scalar>())
}

const fn scalar_tiles<W: Weight>() -> Tiles {
    type I = Scalar;
    let full = const {
        &[tile::<I, W, 1, 2, 4>(), tile::<I, W, 2, 2, 2>(), tile::<I, W, 3, 2, 1>(), tile::<I, W, 4, 2, 1>()]
    };
    Tiles { full, narrow: &[], tall: &[] }
}

/// Tiles of one panel of `NV` vectors.
const fn six_tiles<I: Isa, W: Weight, const NV: usize>() -> [Tile; 6] {
    [
        tile::<I, W, 1, NV, 1>(),
        tile::<I, W, 2, NV, 1>(),
        tile::<I, W, 3, NV, 1>(),
        tile::<I, W, 4, NV, 1>(),
        tile::<I, W, 5, NV, 1>(),
        tile::<I, W, 6, NV, 1>(),
    ]
}

/// 6 rows × 2 vectors: 12 sums, 2 weights and a factor of 16 registers.
#[cfg(target_arch = "x86_64")]
pub(super) const fn avx2<W: Weight>() -> Kernel {
    type I = crate::isa::Avx2;
    let lines = const {
        &[
            lines::entry::<I, 1, 4, true> as lines::LinesFn,
            lines::entry::<I, 2, 2, true>,
            lines::entry::<I, 3, 2, true>,
            lines::entry::<I, 4, 1, true>,
            lines::entry::<I, 5, 1, true>,
            lines::entry::<I, 6, 1, true>,
        ]
    };
    kernel::<I, W, 2>(avx2_tiles::<W>(), avx2_tiles::<F32>(), lines, few_walks::<I>())
}

#[cfg(target_arch = "x86_64")]
const fn avx2_tiles<W: Weight>() -> Tiles {
    type I = crate::isa::Avx2;
    Tiles {
        full: const {
            &[
                tile::<I, W, 1, 2, 4>(),
                tile::<I, W, 2, 2, 2>(),
                tile::<I, W, 3, 2, 1>(),
                tile::<I, W, 4, 2, 1>(),
                tile::<I, W, 5, 2, 1>(),
                tile::<I, W, 6, 2, 1>(),
            ]
        },
        narrow: const { &[&six_tiles::<I, W, 1>()] },
        tall: &[],
    }
}

/// 6 rows × 4 vectors: 24 sums, 4 weights and a factor of 32 registers.
#[cfg(target_arch = "x86_64")]
pub(super) const fn avx512<W: Weight>() -> Kernel {
    type I = crate::isa::Avx512;
    kernel::<I, W, 4>(wide_tiles::<I, W>(), wide_tiles::<I, F32>(), wide_lines::<I>(), wide_walks::<I>())
}

/// 6 rows × 4 vectors: 24 sums, 4 weights and a factor of 32 registers.
#[cfg(target_arch = "aarch64")]
pub(super) const fn neon<W: Weight>() -> Kernel {
    type I = crate::isa::Neon;
    kernel::<I, W, 4>(wide_tiles::<I, W>(), wide_tiles::<I, F32>(), wide_lines::<I>(), wide_walks::<I>())
}

/// Tiles for 32 registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn wide_tiles<I: Isa, W: Weight>() -> Tiles {
    Tiles {
        full: const {
            &[
                tile::<I, W, 1, 4, 4>(),
                tile::<I, W, 2, 4, 3>(),
                tile::<I, W, 3, 4, 2>(),
                tile::<I, W, 4, 4, 1>(),
                tile::<I, W, 5, 4, 1>(),
                tile::<I, W, 6, 4, 1>(),
            ]
        },
        narrow: const { &[&six_tiles::<I, W, 1>(), &six_tiles::<I, W, 2>(), &six_tiles::<I, W, 3>()] },
        tall: const { &[tile::<I, W, 7, 3, 1>(), tile::<I, W, 8, 3, 1>()] },
    }
}

/// Few rows against lines, for 32 registers. Two vectors of lines hide the multiply-add's latency where sums are few; more
/// would be more lines than prefetchers follow.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn wide_lines<I: Isa>() -> &'static [lines::LinesFn] {
    const {
        &[
            lines::entry::<I, 1, 2, false> as lines::LinesFn,
            lines::entry::<I, 2, 2, false>,
            lines::entry::<I, 3, 2, false>,
            lines::entry::<I, 4, 1, false>,
            lines::entry::<I, 5, 2, true>,
            lines::entry::<I, 6, 2, true>,
            lines::entry::<I, 7, 2, true>,
            lines::entry::<I, 8, 2, true>,
        ]
    }
}

/// Few rows against rows of B, for 16 registers. The factors of four rows come from memory: that costs less than more ways
/// through C.
const fn few_walks<I: Isa>() -> &'static [lines::LinesFn] {
    const {
        &[
            walk::entry::<I, 1, 8, 2> as lines::LinesFn,
            walk::entry::<I, 2, 4, 2>,
            walk::entry::<I, 3, 4, 1>,
            walk::entry::<I, 4, 8, 2>,
            walk::entry::<I, 5, 8, 2>,
            walk::entry::<I, 6, 8, 1>,
            walk::entry::<I, 7, 4, 1>,
            walk::entry::<I, 8, 4, 1>,
        ]
    }
}

/// The same for 32 registers.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const fn wide_walks<I: Isa>() -> &'static [lines::LinesFn] {
    const {
        &[
            walk::entry::<I, 1, 8, 2> as lines::LinesFn,
            walk::entry::<I, 2, 8, 1>,
            walk::entry::<I, 3, 8, 1>,
            walk::entry::<I, 4, 4, 2>,
        ]
    }
}

static TABLE: &[Kernel] = &[
    scalar::<F32>(),
    scalar::<F16>(),
    scalar::<Bf16>(),
    #[cfg(target_arch = "x86_64")]
    avx2::<F32>(),
    #[cfg(target_arch = "x86_64")]
    avx2::<F16>(),
    #[cfg(target_arch = "x86_64")]
    avx2::<Bf16>(),
    #[cfg(target_arch = "x86_64")]
    avx512::<F32>(),
    #[cfg(target_arch = "x86_64")]
    avx512::<F16>(),
    #[cfg(target_arch = "x86_64")]
    avx512::<Bf16>(),
    #[cfg(target_arch = "aarch64")]
    neon::<F32>(),
    #[cfg(target_arch = "aarch64")]
    neon::<F16>(),
    #[cfg(target_arch = "aarch64")]
    neon::<Bf16>(),
];
