//! Recurrences over the tokens of one sequence: causal convolution with a short kernel, the selective scans of Mamba
//! (Gu & Dao 2023, arXiv:2312.00752) and Mamba-2 (Dao & Gu 2024, arXiv:2405.21060), and the gated delta rule (Yang et
//! al. 2024, arXiv:2412.06464). Rows of tokens come in order, and the state of the sequence goes in and out.
//!
//! Contract: rows and state are f32, anywhere; strides are in floats. Every kernel takes a range of channels or
//! heads, and reads and writes nothing of the others but rows that they share (B, C, q, k), so workers can share a
//! span by such ranges. A token changes the state by the same operations in the same order wherever spans end and
//! wherever ranges do, so any split of tokens, channels or heads gives the same bits. Sums over a head's state run in
//! index order. Channels and the columns of a head's state adjoin in memory: the state is transposed, compared with
//! llama.cpp's, and so are the weights of a convolution and Mamba's A.
//!
//! A NaN or infinity stays within its channel (convolution, Mamba), or its head from that token on. A product below
//! 2⁻¹²⁶ may be slow, as with all kernels. Each kernel states its error; u is 2⁻²⁴.

mod conv;
mod delta;
mod gates;
mod scan1;
mod scan2;
#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::table::{self, Entry};
use super::vectors;
use crate::isa::{Isa, IsaId};

pub use conv::{Conv, ConvArgs, Gates, TAPS};
pub use delta::{Delta, DeltaArgs, KeyHeads};
pub use scan1::{Scan1, Scan1Args};
pub use scan2::{Scan2, Scan2Args};

/// Rows that are read, one a token.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Rows {
    /// First element of the first row.
    pub first: *const f32,
    /// Floats between rows.
    pub stride: usize,
}

impl Rows {
    /// `rows` rows of `cols` floats.
    ///
    /// # Safety
    /// As [`vectors::Rows::new`].
    #[inline(always)]
    unsafe fn of(self, rows: usize, cols: usize) -> vectors::Rows {
        // SAFETY: the caller promises the rows.
        unsafe { vectors::Rows::new(self.first, self.stride, rows, cols) }
    }
}

/// Rows that are written, one a token.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct RowsMut {
    /// First element of the first row.
    pub first: *mut f32,
    /// Floats between rows.
    pub stride: usize,
}

impl RowsMut {
    /// `rows` rows of `cols` floats.
    ///
    /// # Safety
    /// As [`vectors::RowsMut::new`].
    #[inline(always)]
    unsafe fn of(self, rows: usize, cols: usize) -> vectors::RowsMut {
        // SAFETY: the caller promises the rows.
        unsafe { vectors::RowsMut::new(self.first, self.stride, rows, cols) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct RecurrenceKernels {
    /// Causal convolution, alone or between two gates.
    pub conv: Conv,
    /// Causal convolution with SiLU behind it.
    pub conv_silu: Conv,
    /// The scan of Mamba.
    pub scan1: Scan1,
    /// The scan of Mamba-2.
    pub scan2: Scan2,
    /// The gated delta rule.
    pub delta: Delta,
}

impl<I: Isa> At<I> for RecurrenceKernels {
    const KERNELS: Self = Self {
        conv: Conv::plain::<I>(),
        conv_silu: Conv::silu::<I>(),
        scan1: Scan1::at::<I>(),
        scan2: Scan2::at::<I>(),
        delta: Delta::at::<I>(),
    };
}

static TABLE: [RecurrenceKernels; LEVELS] = levels::table();

impl Entry for RecurrenceKernels {
    fn isa(&self) -> IsaId {
        self.conv.info.isa
    }
}

impl RecurrenceKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    fn infos(&self) -> [KernelInfo; 5] {
        let Self { conv, conv_silu, scan1, scan2, delta } = self;
        [conv.info, conv_silu.info, scan1.info, scan2.info, delta.info]
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(RecurrenceKernels::infos)
}
