//! Matmul with block-quantised weights and activations quantised on the fly.
//! Arithmetic is exact within a block of 32 (integers), and in f32 from block to block.
//! A level is a [`Set`]: pack weights once with it, quantise rows of X with it, run portions with it.
//!
//! # Contract
//! `Y = X · Wᵀ (+ bias) (+ Y)`, see [`Portion`]. K is a multiple of the type's block, m and n are anything.
//!
//! **X** is `m` rows in the format of [`activations`], of one or two signed bytes an element, as the set's
//! mode says; [`Set::row_bytes`] from one row to the next. Panels are the same for all modes.
//!
//! **W** is packed into panels of NR = two vectors of outputs ([`Set::nr`]), one after the other. A panel is a run
//! of units, of 32 K-steps where the type's blocks have that many (and for types packed as bytes), else of 256.
//! A unit is
//!
//! | part | bytes | |
//! |---|---|---|
//! | levels of 32 K-steps, one or eight times | 8 groups × NR × 4 | byte `4·c + i` of group g: K-step `4·g + i` of column c |
//! | | or half or a quarter of that | where levels have 4 (2) bits: that many groups share the bytes, the first in the lowest bits |
//! | upper bits | 2 × NR × 4 or NR × 4 | after each 32 K-steps; of 6 bits the upper 2, of 5 and 3 bits the upper one, shared by 4 or 8 groups |
//! | sub-scales | NR for each 16 or 32 K-steps | K-quants and IQ4_XS: signed bytes; then as many minimums. Q2_K has both in one byte |
//! | scales | NR × 2 | f16, as in the file (MXFP4: NR × 1, exponents) |
//! | minimums | NR × 2 | f16, of types that have them |
//!
//! IQ1, IQ2, IQ3, TQ and NVFP4 are packed as levels of 8 bits and an f32 scale for each 16 K-steps: right, not small.
//! Levels of 8 bits are offset by 128 where the instruction multiplies unsigned by signed (VNNI), else signed; others
//! are unsigned codes. Columns past N are zero; their results are computed and not stored. No pointer needs an
//! alignment (panels run fastest from a multiple of 64).
//!
//! **Order.** An output starts as `Y` (with `accumulate`, else 0), plus its bias if there is one. Then for each 32
//! K-steps in order: `y = fma(t, d_x, y)`. With Σ the exact integer sum of (level − zero)·x and s the scale of the
//! weights (a product of at most 22 bits, exact), `t = round(Σ·s)`; with a second digit
//! `t = round(round(256·Σ₀ + Σ₁)·s/256)`, which is the same where the second digit is zero. Types with scales of 16
//! take both halves: `t = fma(Σ'', s'', round(Σ'·s'))`. Then, with minimums, `y = fma(m, d_x·Σx, y)`, for types with
//! scales of 16 once for each half. A scale whose product with 1.5·2²³ overflows makes its outputs NaN.
//! The order is the same for any m and any split into portions, and so are the bits, on all vector levels.
//! (The scalar level, without a fused multiply-add, rounds products too.)

use crate::error::{Error, Result};
use crate::isa::{DotI8, IsaId, Scalar};
use crate::kernels::{KernelInfo, Portion};
use crate::quant::DType;
use std::marker::PhantomData;

pub mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod form;
mod fused;
#[cfg(test)]
mod fused_tests;
mod layout;
mod sweep;
#[cfg(test)]
mod tests;
mod tile;
mod wide;

pub use activations::Activations;
pub use fused::{BlocksArgs, NormQuantizeArgs};
pub use layout::Layout;

/// Types with a quantised kernel; the order of [`Set`]'s entries.
pub const DTYPES: [DType; 23] = [
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
    DType::MXFP4,
    DType::NVFP4,
    DType::IQ1_S,
    DType::IQ1_M,
    DType::IQ2_XXS,
    DType::IQ2_XS,
    DType::IQ2_S,
    DType::IQ3_XXS,
    DType::IQ3_S,
    DType::TQ1_0,
    DType::TQ2_0,
];
/// Modes of activations, in the order of [`Activations::ALL`].
const MODES: usize = Activations::ALL.len();
/// Kernels of a level: the first types of [`DTYPES`] have one each, all from there on share the last.
const KERNELS: usize = 14;

/// Quantises rows of activations, see [`Set::quantize_rows`].
type QuantizeRows =
    unsafe fn(mode: Activations, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8);

/// Computes a portion, see [`Set::run`].
type Run = unsafe fn(&Portion);

/// This family's kernels at one level and for one mode of activations.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    isa: IsaId,
    activations: Activations,
    mr: usize,
    nr: usize,
    signed: bool,
    quantize_rows: QuantizeRows,
    fused: fused::Fused,
    /// For each type and mode.
    run: &'static [[Run; MODES]; KERNELS],
}

#[cfg(target_arch = "x86_64")]
const fn tiles<F: form::Format>() -> [Run; MODES] {
    let [_, adaptive, one] = vectors::<crate::isa::Avx512Vnni, F>();
    [amx::entry::<F>, adaptive, one]
}

/// Every level this build has, lowest first.
static LEVELS: &[Set] = &[
    Set::of::<Scalar>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx2>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::AvxVnni>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx512>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx512Vnni>(),
    #[cfg(target_arch = "x86_64")]
    Set::tiles(),
    #[cfg(target_arch = "aarch64")]
    Set::of::<crate::isa::Neon>(),
    #[cfg(target_arch = "aarch64")]
    Set::of::<crate::isa::NeonDotprod>(),
];

/// The kernels of a level.
struct Kernels<I>(PhantomData<I>);

impl<I: DotI8> Kernels<I> {
    const RUN: [[Run; MODES]; KERNELS] = [
        vectors::<I, form::Q8_0>(),
        vectors::<I, form::Q4_0>(),
        vectors::<I, form::Q4_1>(),
        vectors::<I, form::Q5_0>(),
        vectors::<I, form::Q5_1>(),
        vectors::<I, form::Q2K>(),
        vectors::<I, form::Q3K>(),
        vectors::<I, form::Q4K>(),
        vectors::<I, form::Q5K>(),
        vectors::<I, form::Q6K>(),
        vectors::<I, form::Iq4Nl>(),
        vectors::<I, form::Iq4Xs>(),
        vectors::<I, form::Mxfp4>(),
        vectors::<I, form::Plain>(),
    ];
}

/// The kernels that have tiles.
#[cfg(target_arch = "x86_64")]
static TILES: [[Run; MODES]; KERNELS] = [
    tiles::<form::Q8_0>(),
    tiles::<form::Q4_0>(),
    tiles::<form::Q4_1>(),
    tiles::<form::Q5_0>(),
    tiles::<form::Q5_1>(),
    tiles::<form::Q2K>(),
    tiles::<form::Q3K>(),
    tiles::<form::Q4K>(),
    tiles::<form::Q5K>(),
    tiles::<form::Q6K>(),
    tiles::<form::Iq4Nl>(),
    tiles::<form::Iq4Xs>(),
    tiles::<form::Mxfp4>(),
    tiles::<form::Plain>(),
];

impl Set {
    const fn of<I: DotI8>() -> Self {
        Set {
            isa: I::ID,
            activations: Activations::Bits16,
            mr: tile::max_rows::<I>(false),
            nr: wide::VECTORS * I::LANES,
            signed: I::SIGNED,
            quantize_rows: activations::entry::<I>,
            fused: fused::Fused::of::<I>(),
            run: &Kernels::<I>::RUN,
        }
    }

    /// AMX tiles where rows fill them, the vectors of the level below for the rest.
    #[cfg(target_arch = "x86_64")]
    const fn tiles() -> Self {
        Set {
            isa: IsaId::Amx,
            mr: crate::isa::amx::ROWS,
            run: &TILES,
            ..Self::of::<crate::isa::Avx512Vnni>()
        }
    }

    /// The kernels of level `isa`, or of the next lower level that this family has and this CPU can run, with
    /// [`Activations::Bits16`].
    pub fn select(isa: IsaId) -> Self {
        let runs = |set: &&Set| isa.includes(set.isa) && set.isa.is_available();
        *LEVELS.iter().rfind(runs).unwrap_or(&LEVELS[0])
    }

    /// The same level's kernels for activations of that kind.
    pub fn with_activations(self, activations: Activations) -> Self {
        Set { activations, ..self }
    }

    /// How activations are quantised.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Bytes from one quantised row of `k` elements to the next: a multiple of 64.
    pub fn row_bytes(&self, k: usize) -> usize {
        self.activations.row_bytes(k)
    }

    /// The level.
    pub fn isa(&self) -> IsaId {
        self.isa
    }

    /// Outputs of a packed panel.
    pub fn nr(&self) -> usize {
        self.nr
    }

    /// Whether there is a kernel for weights of this type.
    pub fn supports(&self, dtype: DType) -> bool {
        DTYPES.contains(&dtype)
    }

    /// How weights of this type are packed for this level.
    pub fn layout(&self, dtype: DType) -> Layout {
        Layout { dtype, nr: self.nr, signed: self.signed }
    }

    /// Panels of `n` outputs.
    pub fn panels(&self, n: usize) -> usize {
        n.div_ceil(self.nr)
    }

    /// Bytes of one packed panel for sums of length `k`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `k` is no multiple of 32 or the type has no kernel here;
    /// [`Error::InvalidArgument`] where the size overflows.
    pub fn panel_bytes(&self, dtype: DType, k: usize) -> Result<usize> {
        self.layout(dtype).panel_bytes(k)
    }

    /// Bytes of a packed matrix of `n` outputs and `k` inputs: all its panels.
    ///
    /// # Errors
    /// As [`Set::panel_bytes`].
    pub fn packed_bytes(&self, dtype: DType, n: usize, k: usize) -> Result<usize> {
        let panel_bytes = self.panel_bytes(dtype, k)?;
        let bytes = panel_bytes.checked_mul(self.panels(n));
        bytes.ok_or_else(|| Error::invalid(format!("the size of {n} × {k} packed weights overflows")))
    }

    /// Packs one panel from its encoded rows as the file has them, one after the other: `nr` rows, or fewer
    /// for the last panel. Panels are independent of each other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rows` is not up to `nr` whole rows of `k` elements, or `out` is not
    /// `panel_bytes` long; and as [`Set::panel_bytes`].
    pub fn pack_panel(&self, dtype: DType, rows: &[u8], k: usize, out: &mut [u8]) -> Result<()> {
        self.layout(dtype).pack_panel(rows, k, out)
    }

    /// Writes row `row` of a packed matrix into `out`, whose length is K: the very bits that
    /// [`crate::quant::decode_row`] gives for the row that was packed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `packed` holds no such row; and as [`Set::panel_bytes`].
    pub fn decode_row(&self, dtype: DType, packed: &[u8], row: usize, out: &mut [f32]) -> Result<()> {
        self.layout(dtype).decode_row(packed, row, out)
    }

    /// Quantises `rows` rows of `k` f32, `ldx` floats apart, into rows of `row_bytes(k)` bytes one after
    /// the other, in the format of [`activations`]. `k` is a multiple of 32 (a rest is left out).
    ///
    /// # Safety
    /// `x` is readable for `k` floats at each of `rows` multiples of `ldx`; `out` is writable for
    /// `rows * row_bytes(k)` bytes. No alignment is needed.
    pub unsafe fn quantize_rows(&self, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.quantize_rows)(self.activations, x, ldx, rows, k, out) }
    }

    /// Normalises rows and quantises them, with the bits of RMSNorm and [`Set::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `x`, and `gamma`, is readable for `k` floats; each of `out` is writable for `row_bytes(k)` bytes
    /// and overlaps nothing else. `k` is a multiple of 32. No alignment is needed.
    pub unsafe fn norm_quantize(&self, args: &NormQuantizeArgs) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.fused.norm)(self.activations, args) }
    }

    /// Multiplies silu(x) by `up` and quantises the products, with the bits of SwiGLU and
    /// [`Set::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `x` and `up`, as far apart, is readable for `len` floats; each of `out` is writable where its
    /// blocks from `block` on are, and overlaps nothing else. `len` and `k` are multiples of 32. No alignment is
    /// needed.
    pub unsafe fn gate_quantize(&self, gate: &BlocksArgs, up: *const f32) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.fused.gate)(self.activations, gate, up) }
    }

    /// Quantises gelu(x), by tanh, with the bits of GELU and [`Set::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// As [`Set::gate_quantize`].
    pub unsafe fn gelu_quantize(&self, args: &BlocksArgs) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.fused.gelu)(self.activations, args) }
    }

    /// Computes a portion with weights of type `dtype`, packed by this very level.
    ///
    /// # Panics
    /// Where the type has no kernel here ([`Set::supports`]).
    ///
    /// # Safety
    /// The portion's pointers are valid for the shapes that the [contract](self) and [`Portion`] state, `k` is a
    /// multiple of 32, and nothing else writes to its part of Y.
    pub unsafe fn run(&self, dtype: DType, portion: &Portion) {
        let index = DTYPES.iter().position(|&d| d == dtype).expect("a type with a quantised kernel");
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.run[index.min(KERNELS - 1)][self.activations as usize])(portion) }
    }
}

/// A type's kernels for each mode of activations.
const fn vectors<I: DotI8, F: form::Format>() -> [Run; MODES] {
    [sweep::entry::<I, F, 2>, sweep::entry::<I, F, 2>, sweep::entry::<I, F, 1>]
}

/// Every kernel of the family that this build has, whether or not this CPU can run it.
pub fn rows() -> impl Iterator<Item = KernelInfo> {
    let info = |set: &Set, op, dtype: &'static str, [mr, nr]: [usize; 2]| KernelInfo {
        op,
        dtype,
        isa: set.isa,
        mr,
        nr,
    };
    LEVELS.iter().flat_map(move |set| {
        let row_wise = ["quantize", "rms_norm_quantize", "swiglu_quantize", "gelu_quantize"];
        let row_wise = row_wise.map(|op| info(set, op, "F32", [1, 1]));
        let matmuls = DTYPES.iter().map(move |dtype| info(set, "qmatmul", dtype.name(), [set.mr, set.nr]));
        row_wise.into_iter().chain(matmuls)
    })
}
