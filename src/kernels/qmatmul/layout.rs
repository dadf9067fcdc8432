//! Packed weights: panels of NR outputs, read straight through by the kernels; pack and unpack.
//! Nothing is lost: levels and f16 scales stay as the file has them, so a row can be decoded bit for bit.

use crate::error::{Error, Result};
use crate::quant::{BLOCK, DType, Levels};
use half::f16;

/// K-steps whose products one `dot` adds up: the bytes of a 32-bit lane.
pub const STEP: usize = 4;
/// Groups of [`STEP`] in a block.
pub const GROUPS: usize = BLOCK / STEP;

/// How a kernel row wants its weights: the layout that [the family's contract](super) draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Type of the weights.
    pub dtype: DType,
    /// Outputs of a panel.
    pub nr: usize,
    /// Whether 8-bit levels are stored as signed bytes (else offset by 128).
    pub signed: bool,
}

impl Layout {
    /// Bits of a level that are stored as whole bytes or nibbles, bits stored in a plane, f16s of a column.
    const fn parts(self) -> (usize, usize, usize) {
        match self.dtype {
            DType::Q4_0 => (4, 0, 1),
            DType::Q4_1 => (4, 0, 2),
            DType::Q5_0 => (4, 1, 1),
            DType::Q5_1 => (4, 1, 2),
            _ => (8, 0, 1),
        }
    }

    /// Bytes of one block of 32 K-steps of a panel.
    pub const fn block_bytes(self) -> usize {
        let (whole, plane, scales) = self.parts();
        self.nr * ((whole + plane) * BLOCK / 8 + scales * 2)
    }

    /// Byte of a block at which its scales begin.
    const fn scales_at(self) -> usize {
        let (whole, plane, _) = self.parts();
        self.nr * (whole + plane) * BLOCK / 8
    }

    /// Bytes of one panel for sums of length `k`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `k` is no multiple of 32 or the type has no quantised kernel;
    /// [`Error::InvalidArgument`] where the size overflows.
    pub fn panel_bytes(self, k: usize) -> Result<usize> {
        if !super::DTYPES.contains(&self.dtype) || !k.is_multiple_of(BLOCK) {
            return Err(Error::Unsupported(format!(
                "rows of {k} elements of {} as panels",
                self.dtype.name()
            )));
        }
        (k / BLOCK).checked_mul(self.block_bytes()).ok_or_else(|| Error::invalid("a panel's size overflows"))
    }

    /// Packs one panel from up to `nr` encoded rows; columns without a row become zero.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rows` is not 1 to `nr` whole rows or `out` not one panel; and as
    /// [`Layout::panel_bytes`].
    pub fn pack_panel(self, rows: &[u8], k: usize, out: &mut [u8]) -> Result<()> {
        let panel_bytes = self.panel_bytes(k)?;
        let row_bytes = self.dtype.row_bytes(k).filter(|&bytes| bytes > 0).unwrap_or(1);
        let fits = rows.len().is_multiple_of(row_bytes) && rows.len() / row_bytes <= self.nr;
        if !fits || out.len() != panel_bytes {
            return Err(Error::invalid(format!(
                "{} bytes of rows and {} of panel are not one panel of {} rows of {k} elements of {}",
                rows.len(),
                out.len(),
                self.nr,
                self.dtype.name()
            )));
        }
        out.fill(0);
        let file_block = self.dtype.block_bytes();
        for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
            for (block, out) in row.chunks_exact(file_block).zip(out.chunks_exact_mut(self.block_bytes())) {
                if let Some(levels) = self.dtype.levels(block) {
                    self.put(&levels, column, out);
                }
            }
        }
        Ok(())
    }

    /// Writes row `row` of the packed matrix `packed` (panel 0 first) into `out`, whose length is K, with the
    /// very bits that [`crate::quant::decode_row`] gives.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `packed` holds no such row; and as [`Layout::panel_bytes`].
    pub fn decode_row(self, packed: &[u8], row: usize, out: &mut [f32]) -> Result<()> {
        let panel_bytes = self.panel_bytes(out.len())?;
        let (panel, column) = (row / self.nr, row % self.nr);
        let begin = panel.checked_mul(panel_bytes);
        let panel = begin.and_then(|begin| packed.get(begin..)?.get(..panel_bytes)).ok_or_else(|| {
            Error::invalid(format!("row {row} is not within {} bytes of panels", packed.len()))
        })?;
        for (block, out) in panel.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(BLOCK)) {
            self.get(block, column).decode(out);
        }
        Ok(())
    }

    /// What is stored of an 8-bit level: itself, or its signed value.
    const fn sign_bit(self) -> u8 {
        if self.signed { 0x80 } else { 0 }
    }

    fn put(self, levels: &Levels, column: usize, block: &mut [u8]) {
        let (whole, plane, _) = self.parts();
        let (weights, scales) = block.split_at_mut(self.scales_at());
        for (i, &q) in levels.q.iter().enumerate() {
            let (group, byte) = (i / STEP, column * STEP + i % STEP);
            if whole == 8 {
                weights[group * self.nr * STEP + byte] = q ^ self.sign_bit();
            } else {
                weights[group / 2 * self.nr * STEP + byte] |= (q & 15) << (group % 2 * 4);
            }
            if plane == 1 {
                weights[self.nr * BLOCK / 2 + byte] |= (q >> 4) << group;
            }
        }
        for (i, scale) in [Some(levels.d), levels.m].into_iter().flatten().enumerate() {
            scales[(i * self.nr + column) * 2..][..2].copy_from_slice(&scale.to_ne_bytes());
        }
    }

    fn get(self, block: &[u8], column: usize) -> Levels {
        let (whole, plane, scales) = self.parts();
        let q = std::array::from_fn(|i| {
            let (group, byte) = (i / STEP, column * STEP + i % STEP);
            if whole == 8 {
                return block[group * self.nr * STEP + byte] ^ self.sign_bit();
            }
            let low = block[group / 2 * self.nr * STEP + byte] >> (group % 2 * 4) & 15;
            let high = if plane == 1 { block[self.nr * BLOCK / 2 + byte] >> group & 1 } else { 0 };
            low | high << 4
        });
        let scale = |i: usize| {
            let at = self.scales_at() + (i * self.nr + column) * 2;
            f16::from_ne_bytes([block[at], block[at + 1]])
        };
        let offset = match self.dtype {
            DType::Q4_0 => 8,
            DType::Q5_0 => 16,
            DType::Q8_0 => 128,
            _ => 0,
        };
        Levels { q, offset, d: scale(0), m: (scales == 2).then(|| scale(1)) }
    }
}
