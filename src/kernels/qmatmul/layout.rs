//! Packed weights: panels of NR outputs, read straight through by the kernels; pack and unpack.
//! Nothing is lost: levels and f16 scales stay as the file has them, so a row can be decoded bit for bit.

use super::form::{Form, GROUPS, STEP, Scales};
use crate::arrays;
use crate::error::{Error, Result};
use crate::quant::{BLOCK, DType, Factor, Levels, Parts, Plain};
use half::f16;

/// How a kernel's weights lie in panels: the layout in [the family's contract](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    /// Type of the weights.
    pub dtype: DType,
    /// Outputs of a panel.
    pub nr: usize,
    /// Whether 8-bit levels are stored as signed bytes (else offset by 128).
    pub signed: bool,
}

impl PanelLayout {
    /// Bytes of one panel for sums of length `k`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where `k` is no multiple of 32 or the type has no quantised kernel;
    /// [`Error::InvalidArgument`] where the size overflows.
    pub fn panel_bytes(self, k: usize) -> Result<usize> {
        let form = self.form(k)?;
        let bytes = (k / BLOCK / form.blocks).checked_mul(form.unit_bytes(self.nr));
        bytes.ok_or_else(|| Error::invalid("a panel's size overflows"))
    }

    /// The type's properties, if rows of `k` elements can be packed.
    fn form(self, k: usize) -> Result<Form> {
        let form = Form::of(self.dtype).filter(|_| k.is_multiple_of(self.dtype.block_len()));
        form.ok_or_else(|| {
            Error::Unsupported(format!("rows of {k} elements of {} as panels", self.dtype.name()))
        })
    }

    /// Packs one panel from up to `nr` encoded rows; columns without a row become zero.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rows` is not 1 to `nr` whole rows or `out` not one panel; and as
    /// [`PanelLayout::panel_bytes`].
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
            let units = self.dtype.block_len() / BLOCK / form.blocks;
            let blocks = out.chunks_exact_mut(units * form.unit_bytes(self.nr));
            for (i, units) in blocks.enumerate().take(row.len() / file_block) {
                self.put(form, &row[i * file_block..][..file_block], column, units);
            }
        }
        Ok(())
    }

    /// Writes row `row` of the packed matrix `packed` (panel 0 first) into `out`, whose length is K, with the
    /// very bits that [`crate::quant::decode_row`] gives.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `packed` holds no such row; and as [`PanelLayout::panel_bytes`].
    pub fn decode_row(self, packed: &[u8], row: usize, out: &mut [f32]) -> Result<()> {
        let panel_bytes = self.panel_bytes(out.len())?;
        let (panel, column) = (row / self.nr, row % self.nr);
        let begin = panel.checked_mul(panel_bytes);
        let panel = begin.and_then(|begin| packed.get(begin..)?.get(..panel_bytes)).ok_or_else(|| {
            Error::invalid(format!("row {row} is not within {} bytes of panels", packed.len()))
        })?;
        let form = self.form(out.len())?;
        let units = self.dtype.block_len() / BLOCK / form.blocks;
        let blocks = panel.chunks_exact(units * form.unit_bytes(self.nr));
        for (units, out) in blocks.zip(out.chunks_exact_mut(self.dtype.block_len())) {
            self.get(form, units, column, out);
        }
        Ok(())
    }

    /// The bit that turns an 8-bit level into its stored form: itself, or its signed value.
    const fn sign_bit(self) -> u8 {
        if self.signed { 0x80 } else { 0 }
    }

    /// Writes a block of the file into column `column` of its unit or units.
    #[inline]
    fn put(self, form: Form, block: &[u8], column: usize, units: &mut [u8]) {
        if let Some(mut levels) = self.dtype.levels(block) {
            if form.bits == 8 {
                levels.q.iter_mut().for_each(|q| *q ^= self.sign_bit());
            }
            self.put_levels(form, &levels.q, column, units);
            put_half(units, form.scale_at(self.nr), column, levels.d);
            if let Some(m) = levels.m {
                put_half(units, form.minimum_at(self.nr), column, m);
            }
        } else if let Some(parts) = self.dtype.parts(block) {
            self.put_parts(form, &parts, column, units);
        } else if let Some(plain) = self.dtype.plain(block) {
            self.put_plain(form, &plain, column, units);
        }
    }

    fn put_parts(self, form: Form, parts: &Parts, column: usize, unit: &mut [u8]) {
        let nr = self.nr;
        let (blocks, _) = parts.codes.as_chunks::<BLOCK>();
        for (i, codes) in blocks.iter().take(form.blocks).enumerate() {
            self.put_levels(form, codes, column, &mut unit[form.levels_at(nr, i)..]);
        }
        for sub in 0..form.subs() * form.blocks {
            let (scale, minimum) = (parts.scales[sub] as u8, parts.minimums[sub]);
            let at = form.sub_scale_at(nr, sub) + column;
            match form.scales {
                Scales::Nibbles => unit[at] = scale | minimum << 4,
                Scales::Bytes => {
                    unit[at] = scale;
                    if form.minimum {
                        unit[form.sub_minimum_at(nr, sub) + column] = minimum;
                    }
                }
                _ => {}
            }
        }
        match parts.d {
            Factor::Half(d) => put_half(unit, form.scale_at(nr), column, d),
            Factor::Exponent(e) => unit[form.scale_at(nr) + column] = e,
        }
        if form.minimum {
            put_half(unit, form.minimum_at(nr), column, parts.dmin);
        }
    }

    fn put_plain(self, form: Form, plain: &Plain, column: usize, units: &mut [u8]) {
        let (blocks, _) = plain.q.as_chunks::<BLOCK>();
        let units = units.chunks_exact_mut(form.unit_bytes(self.nr));
        for ((unit, q), scales) in units.zip(blocks).zip(plain.scales.chunks_exact(2)) {
            let levels = arrays::map(*q, |q| q as u8 ^ 0x80 ^ self.sign_bit());
            self.put_levels(form, &levels, column, unit);
            for (sub, scale) in scales.iter().enumerate() {
                let at = form.sub_scale_at(self.nr, sub) + 4 * column;
                unit[at..at + 4].copy_from_slice(&scale.to_ne_bytes());
            }
        }
    }

    /// Decodes column `column` of the unit or units that a block of the file has become.
    fn get(self, form: Form, units: &[u8], column: usize, out: &mut [f32]) {
        match form.scales {
            Scales::Half if !form.table => self.get_block(form, units, column).decode(out),
            Scales::Single => self.get_plain(form, units, column, out),
            _ => {
                let (parts, of_type) = (self.get_parts(form, units, column), self.dtype.form());
                if let Some(of_type) = of_type {
                    parts.decode(of_type, out);
                }
            }
        }
    }

    fn get_block(self, form: Form, unit: &[u8], column: usize) -> Levels {
        let mut q = self.get_levels(form, unit, column);
        if form.bits == 8 {
            q.iter_mut().for_each(|q| *q ^= self.sign_bit());
        }
        Levels {
            q,
            offset: form.zero as u8,
            d: get_half(unit, form.scale_at(self.nr), column),
            m: form.minimum.then(|| get_half(unit, form.minimum_at(self.nr), column)),
        }
    }

    fn get_parts(self, form: Form, unit: &[u8], column: usize) -> Parts {
        let nr = self.nr;
        let d = match form.scales {
            Scales::Exponent => Factor::Exponent(unit[form.scale_at(nr) + column]),
            _ => Factor::Half(get_half(unit, form.scale_at(nr), column)),
        };
        let dmin = if form.minimum { get_half(unit, form.minimum_at(nr), column) } else { f16::ZERO };
        let mut parts = Parts { codes: [0; 256], scales: [1; 16], minimums: [0; 16], d, dmin };
        let (blocks, _) = parts.codes.as_chunks_mut::<BLOCK>();
        for (i, codes) in blocks.iter_mut().take(form.blocks).enumerate() {
            *codes = self.get_levels(form, &unit[form.levels_at(nr, i)..], column);
        }
        for sub in 0..form.subs() * form.blocks {
            let byte = || unit[form.sub_scale_at(nr, sub) + column];
            match form.scales {
                Scales::Nibbles => {
                    parts.scales[sub] = (byte() & 15) as i8;
                    parts.minimums[sub] = byte() >> 4;
                }
                Scales::Bytes => {
                    parts.scales[sub] = byte() as i8;
                    if form.minimum {
                        parts.minimums[sub] = unit[form.sub_minimum_at(nr, sub) + column];
                    }
                }
                _ => {}
            }
        }
        parts
    }

    fn get_plain(self, form: Form, units: &[u8], column: usize, out: &mut [f32]) {
        let mut plain = Plain { q: [0; 256], scales: [0.0; 16] };
        let (blocks, _) = plain.q.as_chunks_mut::<BLOCK>();
        let units = units.chunks_exact(form.unit_bytes(self.nr));
        for ((unit, q), scales) in units.zip(blocks).zip(plain.scales.chunks_exact_mut(2)) {
            *q = arrays::map(self.get_levels(form, unit, column), |q| (q ^ 0x80 ^ self.sign_bit()) as i8);
            for (sub, scale) in scales.iter_mut().enumerate() {
                let at = form.sub_scale_at(self.nr, sub) + 4 * column;
                *scale = f32::from_ne_bytes([unit[at], unit[at + 1], unit[at + 2], unit[at + 3]]);
            }
        }
        plain.decode(out);
    }

    /// Writes the levels of a block of 32, a word for the four of a group at a time.
    #[inline]
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

    /// The inverse of [`PanelLayout::put_levels`].
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
        for (four, word) in fours.iter_mut().zip(&words) {
            *four = word.to_ne_bytes();
        }
        levels
    }
}

/// Every row of words of a block's levels: bits of a level below those it holds, how many it holds, its number among
/// the rows that hold those.
#[inline]
fn each_part(form: Form, mut f: impl FnMut(usize, usize, usize)) {
    let [low, high] = form.parts();
    (0..low).for_each(|row| f(0, low, row));
    (0..high).for_each(|row| f(low, high, row));
}

/// The groups that row `row` of `bits` bits each holds, and at which bit of their bytes.
#[inline]
fn groups_of(bits: usize, row: usize) -> impl Iterator<Item = (usize, usize)> {
    let groups = 8 / bits;
    (0..groups).map(move |i| (row * groups + i, i * bits))
}

/// The lowest `bits` bits of each byte.
#[inline]
fn mask(bits: usize) -> u32 {
    ((1 << bits) - 1) * 0x0101_0101
}

/// The f16 of a column, in the part of a unit that begins at `at`.
#[inline]
fn get_half(unit: &[u8], at: usize, column: usize) -> f16 {
    f16::from_ne_bytes([unit[at + 2 * column], unit[at + 2 * column + 1]])
}

/// Inverse of [`get_half`].
#[inline]
fn put_half(unit: &mut [u8], at: usize, column: usize, x: f16) {
    unit[at + 2 * column..][..2].copy_from_slice(&x.to_ne_bytes());
}
