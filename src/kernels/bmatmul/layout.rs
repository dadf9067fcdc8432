//! How bfloat16 weights lie in a panel, packing them, and reading one row back.

use crate::error::{Error, Result};
use crate::kernels::matmul::{Kernel, Source};
use half::bf16;
use std::ops::Range;

/// The layout of packed panels.
#[derive(Clone, Copy, Debug)]
pub enum PanelLayout {
    /// As the f32 kernel has its bfloat16 weights.
    Columns(&'static Kernel),
    /// Pairs: the k of a panel in steps, each of `nr / tile` tiles one after the other; a tile has `step / 2` rows,
    /// and a row the pair of k's for each of `tile` columns.
    Pairs {
        /// Columns of a panel.
        nr: usize,
        /// Columns of a tile.
        tile: usize,
        /// Inputs k of a step.
        step: usize,
    },
}

/// Bytes of an element.
const BYTES: usize = 2;

impl PanelLayout {
    /// Outputs of a panel.
    pub fn nr(&self) -> usize {
        match self {
            PanelLayout::Columns(kernel) => kernel.info.nr,
            PanelLayout::Pairs { nr, .. } => *nr,
        }
    }

    /// Panels that `n` outputs fill.
    pub fn panels(&self, n: usize) -> usize {
        n.div_ceil(self.nr())
    }

    /// Bytes of one panel for sums of length `k`; `None` on overflow.
    pub fn panel_bytes(&self, k: usize) -> Option<usize> {
        match self {
            PanelLayout::Columns(kernel) => kernel.panel_bytes(k),
            PanelLayout::Pairs { nr, step, .. } => k.div_ceil(*step).checked_mul(nr * step * BYTES),
        }
    }

    /// Bytes of all panels of N × K weights; `None` on overflow.
    pub fn packed_bytes(&self, n: usize, k: usize) -> Option<usize> {
        self.panel_bytes(k)?.checked_mul(self.panels(n))
    }

    /// Packs the panels `panels` of bfloat16 weights into `out`, which starts at the first of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the source's elements don't lie inside its data, the panels are not the
    /// source's, or `out` is not exactly their size.
    pub fn pack(&self, source: &Source<'_>, panels: Range<usize>, out: &mut [u8]) -> Result<()> {
        let &PanelLayout::Pairs { nr, tile, step } = self else {
            let PanelLayout::Columns(kernel) = self else { unreachable!() };
            return kernel.pack(source, panels, out);
        };
        source.check(BYTES)?;
        let size = self.panel_bytes(source.k).and_then(|bytes| bytes.checked_mul(panels.len()));
        if panels.end > self.panels(source.n) || size != Some(out.len()) {
            return Err(source.does_not_fill(panels, out.len()));
        }
        let (data, _) = source.data.as_chunks::<BYTES>();
        let (out, _) = out.as_chunks_mut::<{ 2 * BYTES }>();
        let (along_k, along_n) = if source.transposed { (source.ld, 1) } else { (1, source.ld) };
        let panel_pairs = source.k.div_ceil(step) * nr * step / 2;
        if panel_pairs == 0 {
            return Ok(());
        }
        for (panel, out) in panels.zip(out.chunks_exact_mut(panel_pairs)) {
            for (pair, out) in out.chunks_exact_mut(tile).enumerate() {
                // `pair` counts rows of tiles in the order in which they lie.
                let (rows, tiles) = (step / 2, nr / tile);
                let k = pair / (rows * tiles) * step + 2 * (pair % rows);
                let first = panel * nr + pair / rows % tiles * tile;
                for (column, out) in out.iter_mut().enumerate() {
                    let element = |k: usize| {
                        let inside = k < source.k && first + column < source.n;
                        if inside { data[(first + column) * along_n + k * along_k] } else { [0; BYTES] }
                    };
                    let ([a, b], [c, d]) = (element(k), element(k + 1));
                    *out = [a, b, c, d];
                }
            }
        }
        Ok(())
    }

    /// Reads output `n` of the packed weights back as f32. `packed` starts at panel 0 and `out` is as long as the
    /// sums, K.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where that row lies outside `packed`.
    pub fn unpack_row(&self, packed: &[u8], n: usize, out: &mut [f32]) -> Result<()> {
        let &PanelLayout::Pairs { nr, tile, step } = self else {
            let PanelLayout::Columns(kernel) = self else { unreachable!() };
            return kernel.unpack_row(packed, n, out);
        };
        let range = self.panel_bytes(out.len()).and_then(|bytes| {
            let begin = bytes.checked_mul(n / nr)?;
            Some(begin..begin.checked_add(bytes)?)
        });
        let panel = range.and_then(|range| packed.get(range)).ok_or_else(|| {
            Error::invalid(format!("row {n} of length {} is not in {} packed bytes", out.len(), packed.len()))
        })?;
        let (panel, _) = panel.as_chunks::<BYTES>();
        let column = n % nr;
        for (k, out) in out.iter_mut().enumerate() {
            let row = (k / step * (nr / tile) + column / tile) * (step / 2) + k % step / 2;
            *out = bf16::from_le_bytes(panel[2 * (row * tile + column % tile) + k % 2]).to_f32_const();
        }
        Ok(())
    }
}
