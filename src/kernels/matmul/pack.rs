//! Packing of weights into panels, any run of panels at a time, and reading one row back.
//! Elements are copied as they are, bytes in, bytes out; only their places change.

use super::Kernel;
use crate::error::{Error, Result};
use std::ops::Range;

/// Weights as they are stored: N outputs × K inputs of the kernel's element type, little-endian bytes.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The elements' bytes; any alignment.
    pub data: &'a [u8],
    /// Outputs N.
    pub n: usize,
    /// Inputs K.
    pub k: usize,
    /// Elements from one line of the storage to the next: at least k, or n where `transposed`.
    pub ld: usize,
    /// Storage is K lines of N elements (B as a matmul has it), not N lines of K.
    pub transposed: bool,
}

impl<'a> Source<'a> {
    /// N lines of K elements, without gaps: how model files store a linear layer.
    pub fn rows(data: &'a [u8], n: usize, k: usize) -> Self {
        Self { data, n, k, ld: k, transposed: false }
    }

    /// Checks that every element lies inside `data`.
    pub(crate) fn check(&self, bytes: usize) -> Result<()> {
        let (lines, line) = if self.transposed { (self.k, self.n) } else { (self.n, self.k) };
        let needed = match (lines, line) {
            (0, _) | (_, 0) => Some(0),
            _ => (lines - 1).checked_mul(self.ld).and_then(|x| x.checked_add(line)?.checked_mul(bytes)),
        };
        match needed {
            Some(needed) if needed <= self.data.len() && (self.ld >= line || lines <= 1) => Ok(()),
            _ => Err(Error::invalid(format!(
                "weights of {} × {} with {} elements between lines do not fit {} bytes",
                self.n,
                self.k,
                self.ld,
                self.data.len()
            ))),
        }
    }
}

impl Source<'_> {
    /// That these panels of the source are not `bytes` bytes.
    pub(crate) fn does_not_fill(&self, panels: Range<usize>, bytes: usize) -> Error {
        let Self { n, k, .. } = self;
        Error::invalid(format!("panels {panels:?} of {n} × {k} weights do not fill {bytes} bytes"))
    }
}

/// Rows of k that are packed together, so that the lines written stay in L1.
const K_STEP: usize = 64;

impl Kernel {
    /// Panels that `n` outputs fill.
    pub fn panels(&self, n: usize) -> usize {
        n.div_ceil(self.info.nr)
    }

    /// Bytes of one panel for sums of length `k`; `None` on overflow.
    pub fn panel_bytes(&self, k: usize) -> Option<usize> {
        k.checked_mul(self.blocking.row_bytes)
    }

    /// Bytes of all panels of N × K weights; `None` on overflow.
    pub fn packed_len(&self, n: usize, k: usize) -> Option<usize> {
        self.panel_bytes(k)?.checked_mul(self.panels(n))
    }

    /// Packs the panels `panels` of `source` into `out`, which starts at the first of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the source's elements don't lie inside its data, the panels are not the
    /// source's, or `out` is not exactly their size.
    pub fn pack(&self, source: &Source<'_>, panels: Range<usize>, out: &mut [u8]) -> Result<()> {
        match self.weights.block_bytes() {
            2 => self.pack_elements::<2>(source, panels, out),
            _ => self.pack_elements::<4>(source, panels, out),
        }
    }

    fn pack_elements<const BYTES: usize>(
        &self,
        source: &Source<'_>,
        panels: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        source.check(BYTES)?;
        let size = self.panel_bytes(source.k).and_then(|bytes| bytes.checked_mul(panels.len()));
        if panels.end > self.panels(source.n) || size != Some(out.len()) {
            return Err(source.does_not_fill(panels, out.len()));
        }
        let (data, _) = source.data.as_chunks::<BYTES>();
        let (out, _) = out.as_chunks_mut::<BYTES>();
        let nr = self.info.nr;
        if source.k == 0 {
            return Ok(());
        }
        for (panel, out) in panels.zip(out.chunks_exact_mut(source.k * nr)) {
            let first = panel * nr;
            let columns = nr.min(source.n - first);
            for (step, out) in out.chunks_mut(K_STEP * nr).enumerate() {
                let depth = step * K_STEP..step * K_STEP + out.len() / nr;
                if columns < nr {
                    out.fill([0; BYTES]);
                }
                if source.transposed {
                    for (out, k) in out.chunks_exact_mut(nr).zip(depth) {
                        let line = &data[k * source.ld + first..][..columns];
                        line.iter().enumerate().for_each(|(column, &x)| out[(self.place)(column)] = x);
                    }
                } else {
                    for column in 0..columns {
                        let line = &data[(first + column) * source.ld..][depth.clone()];
                        let place = (self.place)(column);
                        out.chunks_exact_mut(nr).zip(line).for_each(|(out, &x)| out[place] = x);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads output `n` of the packed weights back as f32: an embedding that shares its weights with the head.
    /// `packed` starts at panel 0 and `out` is as long as the sums, K.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where that row lies outside `packed`.
    pub fn unpack_row(&self, packed: &[u8], n: usize, out: &mut [f32]) -> Result<()> {
        let (k, nr) = (out.len(), self.info.nr);
        let range = self.panel_bytes(k).and_then(|bytes| {
            let begin = bytes.checked_mul(n / nr)?;
            Some(begin..begin.checked_add(bytes)?)
        });
        let panel = range.and_then(|range| packed.get(range)).ok_or_else(|| {
            Error::invalid(format!("row {n} of length {k} is not in {} packed bytes", packed.len()))
        })?;
        let place = (self.place)(n % nr) * self.weights.block_bytes();
        for (out, row) in out.iter_mut().zip(panel.chunks_exact(self.blocking.row_bytes)) {
            *out = self.weights_to_f32(&row[place..]);
        }
        Ok(())
    }

    /// The element that `bytes` begin with.
    fn weights_to_f32(&self, bytes: &[u8]) -> f32 {
        use crate::quant::DType;
        let half = u16::from_le_bytes([bytes[0], bytes[1]]);
        match self.weights {
            DType::F16 => half::f16::from_bits(half).to_f32_const(),
            DType::BF16 => half::bf16::from_bits(half).to_f32_const(),
            _ => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }
}
