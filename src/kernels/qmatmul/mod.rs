//! Matmul with block-quantised weights and activations quantised on the fly.
//! Arithmetic is exact within a block of 32 (integers), and in f32 from block to block.
//! A level is a [`Set`]: pack weights once with it, quantise rows of X with it, run portions with it.
//!
//! # Contract
//! `Y = X · Wᵀ (+ bias) (+ Y)`, see [`Portion`]. K is a multiple of 32, m and n are anything.
//!
//! **X** is `m` rows in the format of [`activations`], of one or two signed bytes an element, as the set's
//! mode says; [`Set::row_bytes`] from one row to the next. Panels are the same for both modes.
//!
//! **W** is packed into panels of NR = two vectors of outputs ([`Set::nr`]), one after the other. A panel is
//! K/32 blocks; a block is
//!
//! | part | bytes | |
//! |---|---|---|
//! | levels | 8 groups × NR × 4 | byte `4·c + i` of group g: K-step `4·g + i` of column c |
//! | | or half of that | where levels have 4 or 5 bits: groups 2j and 2j + 1 share the bytes, low nibble first |
//! | fifth bits | NR × 4 | Q5 only: bit g of byte `4·c + i` belongs to K-step `4·g + i` of column c |
//! | scales | NR × 2 | f16, as in the file |
//! | minimums | NR × 2 | f16, Q4_1 and Q5_1 only |
//!
//! Levels of 4 and 5 bits are unsigned. Levels of 8 bits are offset by 128 where the instruction multiplies
//! unsigned by signed (VNNI), else signed. Columns past N are zero; their results are computed and not stored.
//! No pointer needs an alignment (panels run fastest from a multiple of 64).
//!
//! **Order.** An output starts as `Y` (with `accumulate`, else 0), plus its bias if there is one. Then for each
//! block in order: `y = fma(t, d_x, y)`, and with a minimum `y = fma(m, d_x·Σx, y)`, where t is the scale of the
//! weights times Σ, the exact integer sum of (level − zero)·x. With 8-bit activations t is rounded once. With
//! 16-bit ones, x = 256·x₀ + x₁, it is `fma(f₁, d, fma(f₀, 256·d, −257·c·d))`, where f = c + Σ for c = 1.5·2²³,
//! which adds an error of at most 0.75·d, next to nothing against the digits' own.
//! The order is the same for any m and any split into portions, and so are the bits, on all vector levels.
//! (The scalar level, without a fused multiply-add, rounds products too.)

use crate::error::{Error, Result};
use crate::isa::{DotI8, IsaId, Scalar};
use crate::kernels::{KernelInfo, Portion};
use crate::quant::DType;

pub mod activations;
mod fused;
#[cfg(test)]
mod fused_tests;
mod layout;
#[cfg(test)]
mod tests;
mod tile;
mod weights;

pub use activations::Activations;
pub use fused::{GateQuantizeArgs, NormQuantizeArgs};
pub use layout::Layout;

/// Types with a quantised kernel; the order of [`Set`]'s entries.
pub const DTYPES: [DType; 5] = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1];

/// Quantises rows of activations, see [`Set::quantize_rows`].
type QuantizeRows = unsafe fn(x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8);

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
    run: [Run; DTYPES.len()],
}

/// Every level this build has, lowest first, with 16-bit activations and with 8-bit ones.
static LEVELS: &[[Set; 2]] = &[
    Set::of::<Scalar>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx2>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx512>(),
    #[cfg(target_arch = "x86_64")]
    Set::of::<crate::isa::Avx512Vnni>(),
    #[cfg(target_arch = "aarch64")]
    Set::of::<crate::isa::Neon>(),
    #[cfg(target_arch = "aarch64")]
    Set::of::<crate::isa::NeonDotprod>(),
];

impl Set {
    const fn of<I: DotI8>() -> [Self; 2] {
        [Self::with::<I, 2>(Activations::Bits16), Self::with::<I, 1>(Activations::Bits8)]
    }

    const fn with<I: DotI8, const DIGITS: usize>(activations: Activations) -> Self {
        Set {
            isa: I::ID,
            activations,
            mr: tile::max_rows::<I>(DIGITS),
            nr: 2 * I::LANES,
            signed: I::SIGNED,
            quantize_rows: activations::entry::<I, DIGITS>,
            fused: fused::Fused::of::<I, DIGITS>(),
            run: [
                tile::entry::<I, weights::Q8_0, DIGITS>,
                tile::entry::<I, weights::Q4_0, DIGITS>,
                tile::entry::<I, weights::Q4_1, DIGITS>,
                tile::entry::<I, weights::Q5_0, DIGITS>,
                tile::entry::<I, weights::Q5_1, DIGITS>,
            ],
        }
    }

    /// The kernels of level `isa`, or of the next lower level that this family has and this CPU can run, with
    /// [`Activations::Bits16`].
    pub fn select(isa: IsaId) -> Self {
        let runs = |level: &&[Set; 2]| isa.includes(level[0].isa) && level[0].isa.is_available();
        LEVELS.iter().rfind(runs).unwrap_or(&LEVELS[0])[0]
    }

    /// The same level's kernels for activations of that kind.
    pub fn with_activations(self, activations: Activations) -> Self {
        let same = |set: &&Set| set.isa == self.isa && set.activations == activations;
        LEVELS.iter().flatten().find(same).copied().unwrap_or(self)
    }

    /// How activations are quantised.
    pub fn activations(&self) -> Activations {
        self.activations
    }

    /// Bytes from one quantised row of `k` elements to the next: a multiple of 64.
    pub fn row_bytes(&self, k: usize) -> usize {
        self.activations.row_bytes(k)
    }

    /// Bytes of one block of 32 elements of a quantised row.
    pub fn block_bytes(&self) -> usize {
        activations::block_bytes(self.activations.digits())
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
        unsafe { (self.quantize_rows)(x, ldx, rows, k, out) }
    }

    /// Normalises rows and quantises them, with the bits of RMSNorm and [`Set::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `x`, and `gamma`, is readable for `k` floats; each of `out` is writable for `row_bytes(k)` bytes
    /// and overlaps nothing else. `k` is a multiple of 32. No alignment is needed.
    pub unsafe fn norm_quantize(&self, args: &NormQuantizeArgs) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.fused.norm)(args) }
    }

    /// Multiplies silu(gate) by up and quantises the products, with the bits of SwiGLU and
    /// [`Set::quantize_rows`] one after the other.
    ///
    /// # Safety
    /// Each row of `gate` and `up` is readable for `k` floats; each of `out` is writable for k / 32 blocks and
    /// overlaps nothing else. `k` is a multiple of 32. No alignment is needed.
    pub unsafe fn gate_quantize(&self, args: &GateQuantizeArgs) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.fused.gate)(args) }
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
        unsafe { (self.run[index])(portion) }
    }
}

/// Every kernel of the family that this build has, whether or not this CPU can run it.
pub fn rows() -> impl Iterator<Item = KernelInfo> {
    LEVELS.iter().flatten().flat_map(|set| {
        let [quantize, norm, gate, matmul] = match set.activations {
            Activations::Bits16 => ["quantize_x16", "rms_norm_x16", "swiglu_x16", "qmatmul_x16"],
            Activations::Bits8 => ["quantize_x8", "rms_norm_x8", "swiglu_x8", "qmatmul_x8"],
        };
        let info = |op, dtype: &'static str, mr, nr| KernelInfo { op, dtype, isa: set.isa, mr, nr };
        let matmuls = DTYPES.iter().map(move |dtype| info(matmul, dtype.name(), set.mr, set.nr));
        [quantize, norm, gate].map(|op| info(op, "F32", 1, 1)).into_iter().chain(matmuls)
    })
}
