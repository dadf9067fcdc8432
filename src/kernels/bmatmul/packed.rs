//! Packed weights in memory that the caller brings, with checks instead of promises.

use super::Kernel;
use crate::error::{Error, Result};
use crate::kernels::Portion;

/// Rows that are rounded at a time, at most: more would only take more memory.
const ROWS: usize = 512;

/// N × K weights, packed by one level.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    kernel: &'static Kernel,
    data: &'a [u8],
    n: usize,
    k: usize,
}

/// Y of a product: m rows of n, `ld` floats apart.
pub struct Output<'a> {
    /// From the first to the last element.
    pub data: &'a mut [f32],
    /// Floats between rows.
    pub ld: usize,
    /// n floats added to each row.
    pub bias: Option<&'a [f32]>,
    /// Adds to what `data` holds instead of overwriting it.
    pub accumulate: bool,
}

impl<'a> Packed<'a> {
    /// Weights that [`super::PanelLayout::pack`] has put into `data`, all panels of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `data` isn't as long as they are.
    pub fn new(kernel: &'static Kernel, data: &'a [u8], n: usize, k: usize) -> Result<Self> {
        if kernel.layout().packed_bytes(n, k) != Some(data.len()) || kernel.row_bytes(k).is_none() {
            let bytes = data.len();
            return Err(Error::invalid(format!("{n} × {k} packed weights do not fill {bytes} bytes")));
        }
        Ok(Self { kernel, data, n, k })
    }

    /// Bytes of scratch memory that a product of `m` rows takes; `None` on overflow.
    pub fn scratch_bytes(&self, m: usize) -> Option<usize> {
        self.kernel.row_bytes(self.k)?.checked_mul(m.min(ROWS))
    }

    /// Y = X · Wᵀ for `m` rows of X, `ldx` floats apart. `scratch` is at least `scratch_bytes(m)` long, and fastest
    /// at a multiple of 64.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where a matrix doesn't lie inside its slice, or the scratch is too short.
    pub fn multiply(&self, m: usize, x: &[f32], ldx: usize, y: Output<'_>, scratch: &mut [u8]) -> Result<()> {
        let Self { kernel, n, k, .. } = *self;
        let inside = |len: usize, ld: usize, columns: usize| {
            let needed = match (m, columns) {
                (0, _) | (_, 0) => Some(0),
                _ => (m - 1).checked_mul(ld).and_then(|x| x.checked_add(columns)),
            };
            needed.is_some_and(|needed| needed <= len) && (ld >= columns || m <= 1)
        };
        if !inside(x.len(), ldx, k)
            || !inside(y.data.len(), y.ld, n)
            || y.bias.is_some_and(|bias| bias.len() < n)
        {
            return Err(Error::invalid(format!(
                "{m} rows times {n} × {k} weights do not fit their matrices"
            )));
        }
        if self.scratch_bytes(m).is_none_or(|bytes| bytes > scratch.len()) {
            return Err(Error::invalid(format!(
                "{} bytes of scratch are too few for {m} rows",
                scratch.len()
            )));
        }
        let row_bytes = kernel.row_bytes(k).unwrap_or(0);
        for first in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - first);
            let portion = Portion {
                x: scratch.as_ptr(),
                ldx: row_bytes,
                m: rows,
                k,
                w: self.data.as_ptr(),
                panel_begin: 0,
                panel_end: kernel.layout().panels(n),
                n,
                y: y.data.as_mut_ptr().wrapping_add(first * y.ld),
                ldy: y.ld,
                bias: y.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                accumulate: y.accumulate,
            };
            // SAFETY: checked above; the scratch has room for the rounded rows, the weights are all panels.
            unsafe {
                kernel.round_rows(x.as_ptr().wrapping_add(first * ldx), ldx, rows, k, scratch.as_mut_ptr());
                kernel.run(&portion);
            }
        }
        Ok(())
    }
}
