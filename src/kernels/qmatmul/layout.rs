//! Packed weights: panels of NR outputs, read straight through by the kernels; pack and unpack.
//! Nothing is lost: levels and f16 scales stay as the file has them, so a row can be decoded bit for bit.

use super::form::{Form, GROUPS, STEP};
use crate::error::{Error, Result};
use crate::quant::{BLOCK, DType, Levels};
use half::f16;

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
    /// Bytes of one panel for sums of length `k`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `k` is no multiple of 32 or the type has no quantised kernel;
    /// [`Error::InvalidArgument`] where the size overflows.
    pub fn panel_bytes(self, k: usize) -> Result<usize> {
        let form = self.form(k)?;
        let bytes = (k / (form.blocks * BLOCK)).checked_mul(form.unit_bytes(self.nr));
        bytes.ok_or_else(|| Error::invalid("a panel's size overflows"))
    }

    /// What the type is like, if rows of `k` elements can be packed.
    fn form(self, k: usize) -> Result<Form> {
        let form = Form::of(self.dtype).filter(|form| k.is_multiple_of(form.blocks * BLOCK));
        form.ok_or_else(|| {
            Error::Unsupported(format!("rows of {k} elements of {} as panels", self.dtype.name()))
        })
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
        let form = self.form(k)?;
        out.fill(0);
        let file_block = self.dtype.block_bytes();
        for (column, row) in rows.chunks_exact(row_bytes).enumerate() {
            let units = out.chunks_exact_mut(form.unit_bytes(self.nr));
            for (block, unit) in row.chunks_exact(file_block).zip(units) {
                self.put(form, block, column, unit);
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
        let form = self.form(out.len())?;
        let units = panel.chunks_exact(form.unit_bytes(self.nr));
        for (unit, out) in units.zip(out.chunks_exact_mut(form.blocks * BLOCK)) {
            self.get(form, unit, column).decode(out);
        }
        Ok(())
    }

    /// What is stored of an 8-bit level: itself, or its signed value.
    const fn sign_bit(self) -> u8 {
        if self.signed { 0x80 } else { 0 }
    }

    /// Writes a block of the file into column `column` of a unit.
    fn put(self, form: Form, block: &[u8], column: usize, unit: &mut [u8]) {
        let Some(mut levels) = self.dtype.levels(block) else { return };
        if form.bits == 8 {
            levels.q.iter_mut().for_each(|q| *q ^= self.sign_bit());
        }
        self.put_levels(form, &levels.q, column, &mut unit[form.levels_at(self.nr, 0)..]);
        let mut put_half = |at: usize, x: f16| unit[at + 2 * column..][..2].copy_from_slice(&x.to_ne_bytes());
        put_half(form.scales_at(self.nr), levels.d);
        if let Some(m) = levels.m {
            put_half(form.minimums_at(self.nr), m);
        }
    }

    fn get(self, form: Form, unit: &[u8], column: usize) -> Levels {
        let mut q = self.get_levels(form, &unit[form.levels_at(self.nr, 0)..], column);
        if form.bits == 8 {
            q.iter_mut().for_each(|q| *q ^= self.sign_bit());
        }
        let half = |at: usize| f16::from_ne_bytes([unit[at + 2 * column], unit[at + 2 * column + 1]]);
        Levels {
            q,
            offset: form.zero as u8,
            d: half(form.scales_at(self.nr)),
            m: form.minimum.then(|| half(form.minimums_at(self.nr))),
        }
    }

    /// Writes the levels of a block of 32, a word for the four of a group at a time.
    fn put_levels(self, form: Form, levels: &[u8; BLOCK], column: usize, out: &mut [u8]) {
        let (words, _) = levels.as_chunks::<STEP>();
        each_part(form, |below, bits, row| {
            let mut word = 0;
            for (group, at) in groups_of(bits, row) {
                word |= (u32::from_ne_bytes(words[group]) >> below & mask(bits)) << at;
            }
            out[((below + row) * self.nr + column) * STEP..][..STEP].copy_from_slice(&word.to_ne_bytes());
        });
    }

    /// Reads what [`Layout::put_levels`] wrote.
    fn get_levels(self, form: Form, block: &[u8], column: usize) -> [u8; BLOCK] {
        let mut words = [0; GROUPS];
        each_part(form, |below, bits, row| {
            let bytes = &block[((below + row) * self.nr + column) * STEP..][..STEP];
            let word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            for (group, at) in groups_of(bits, row) {
                words[group] |= (word >> at & mask(bits)) << below;
            }
        });
        let mut levels = [0; BLOCK];
        let (fours, _) = levels.as_chunks_mut::<STEP>();
        for (four, word) in fours.iter_mut().zip(words) {
            *four = word.to_ne_bytes();
        }
        levels
    }
}

/// Every row of words of a block's levels: bits of a level below those it holds, how many it holds, its number among
/// the rows that hold those.
fn each_part(form: Form, mut f: impl FnMut(usize, usize, usize)) {
    let [low, high] = form.parts();
    for (below, bits) in [(0, low), (low, high)] {
        for row in 0..bits {
            f(below, bits, row);
        }
    }
}

/// The groups that row `row` of `bits` bits each holds, and at which bit of their bytes.
fn groups_of(bits: usize, row: usize) -> impl Iterator<Item = (usize, usize)> {
    let groups = 8 / bits;
    (0..groups).map(move |i| (row * groups + i, i * bits))
}

/// The lowest `bits` bits of each byte.
fn mask(bits: usize) -> u32 {
    ((1 << bits) - 1) * 0x0101_0101
}
