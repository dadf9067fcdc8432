//! Matmul with block-quantised weights and activations quantised on the fly.
//! Arithmetic is exact within a block of 32 (integers), and in f32 from block to block.
//! A level is a [`Set`]: pack weights once with it, quantise rows of X with it, run portions with it.
//!
//! # Contract
//! `Y = X · Wᵀ (+ bias) (+ Y)`, see [`Portion`]. K is a multiple of 32, m and n are anything.
//!
//! **X** is `m` rows in the format of [`q8`], [`q8_row_bytes`]`(k)` bytes from one to the next.
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
//! block b in order: `y = fma(d_w·Σ, d_x, y)`, and with a minimum `y = fma(m, d_x·Σx, y)`. Here Σ is the
//! integer sum of (level − offset)·x and Σx that of x, both exact; `d_w·Σ` is rounded once, as are `d_x·Σx` and
//! each fma. Nothing else is rounded, so the error is below `(2·K/32 + 4)·2⁻²⁴` of the sum of magnitudes, and
//! every vector level gives the same bits as every other, for any m and any split into portions. (The scalar
//! level rounds the products of its `fma`s as well.)

use crate::error::{Error, Result};
use crate::isa::{DotI8, IsaId, Scalar};
use crate::kernels::{KernelInfo, Portion};
use crate::quant::DType;

mod layout;
pub mod q8;
#[cfg(test)]
mod tests;
mod tile;

pub use layout::Layout;
pub use q8::q8_row_bytes;

/// Types with a quantised kernel; the order of [`Set`]'s entries.
pub const DTYPES: [DType; 5] = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1];

/// Quantises rows of activations, see [`Set::quantize_rows`].
pub type QuantizeRows = unsafe fn(x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8);

/// Computes a portion, see [`Set::run`].
pub type Run = unsafe fn(&Portion);

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    isa: IsaId,
    mr: usize,
    nr: usize,
    signed: bool,
    quantize_rows: QuantizeRows,
    run: [Run; DTYPES.len()],
}

/// Every level this build has, lowest first.
static LEVELS: &[Set] = &[
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
    const fn of<I: DotI8>() -> Self {
        Set {
            isa: I::ID,
            mr: tile::max_rows::<I>(),
            nr: 2 * I::LANES,
            signed: I::SIGNED,
            quantize_rows: q8::entry::<I>,
            run: [
                tile::entry::<I, tile::Q8_0>,
                tile::entry::<I, tile::Q4_0>,
                tile::entry::<I, tile::Q4_1>,
                tile::entry::<I, tile::Q5_0>,
                tile::entry::<I, tile::Q5_1>,
            ],
        }
    }

    /// The kernels of level `isa`, or of the next lower level that this family has and this CPU can run.
    pub fn select(isa: IsaId) -> Self {
        let runs = |set: &&Set| isa.includes(set.isa) && set.isa.is_available();
        *LEVELS.iter().rfind(runs).unwrap_or(&LEVELS[0])
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

    /// Quantises `rows` rows of `k` f32, `ldx` floats apart, into rows of [`q8_row_bytes`]`(k)` bytes one
    /// after the other, in the format of [`q8`]. `k` is a multiple of 32 (a rest is left out).
    ///
    /// # Safety
    /// `x` is readable for `k` floats at each of `rows` multiples of `ldx`; `out` is writable for
    /// `rows * q8_row_bytes(k)` bytes. No alignment is needed.
    pub unsafe fn quantize_rows(&self, x: *const f32, ldx: usize, rows: usize, k: usize, out: *mut u8) {
        // SAFETY: the caller's promise; the set was selected for this CPU.
        unsafe { (self.quantize_rows)(x, ldx, rows, k, out) }
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
    LEVELS.iter().flat_map(|set| {
        let info = |op, dtype: &'static str, mr, nr| KernelInfo { op, dtype, isa: set.isa, mr, nr };
        let matmuls = DTYPES.iter().map(move |dtype| info("qmatmul", dtype.name(), set.mr, set.nr));
        std::iter::once(info("quantize_rows", "F32", 1, 1)).chain(matmuls)
    })
}
