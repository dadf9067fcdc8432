//! Products of activation rows with packed weights, shared out over workers by runs of panels.
//! The kernel family (float or quantised) is chosen when a weight is packed and travels with it.

use crate::error::{Error, Result};
use crate::kernels::{KernelSet, Portion, matmul, qmatmul};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::quant::DType;
use crate::threads::{WorkCounter, Worker};

use super::Rows;

/// Tasks a worker should find in an op: enough that a late worker costs little, few enough that a
/// task streams tens of kilobytes.
const TASKS_PER_WORKER: usize = 4;

/// The family that multiplies a weight, at the level it was packed for.
#[derive(Clone, Copy)]
enum Kernel {
    Float(&'static matmul::Row),
    Quantized(qmatmul::Set),
}

/// Turns rows as a file stores them into panels.
#[derive(Clone, Copy)]
pub struct Packer {
    kernel: Kernel,
    dtype: DType,
    k: usize,
    row_bytes: usize,
    panel_bytes: usize,
}

impl Packer {
    /// The packer for weights of this type with rows of `k`.
    ///
    /// # Errors
    /// [`Error::Format`] where such rows are no whole blocks, [`Error::Unsupported`] where there is no kernel.
    pub fn new(kernels: &KernelSet, dtype: DType, k: usize) -> Result<Self> {
        let row_bytes = dtype
            .row_bytes(k)
            .ok_or_else(|| Error::format(format!("rows of {k} are no whole {} blocks", dtype.name())))?;
        let (kernel, panel_bytes) = if dtype.is_quantized() {
            (Kernel::Quantized(kernels.qmatmul), kernels.qmatmul.panel_bytes(dtype, k)?)
        } else {
            let row = kernels.matmul.row(dtype).ok_or_else(|| Error::Unsupported(dtype.name().into()))?;
            let bytes =
                row.panel_bytes(k).ok_or(Error::OutOfMemory { bytes: usize::MAX, what: "weights" })?;
            (Kernel::Float(row), bytes)
        };
        Ok(Packer { kernel, dtype, k, row_bytes, panel_bytes })
    }

    /// Rows (outputs) of a panel.
    pub fn panel_rows(&self) -> usize {
        match self.kernel {
            Kernel::Float(row) => row.info.nr,
            Kernel::Quantized(set) => set.nr(),
        }
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// Bytes of all panels of `n` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where no memory could hold them.
    pub fn bytes(&self, n: usize) -> Result<usize> {
        checked_bytes(n.div_ceil(self.panel_rows()), self.panel_bytes, "weights")
    }

    /// Packs stored rows, the first of which begins a panel, into `out`: as many whole panels as they fill
    /// or begin.
    pub fn pack(&self, raw: &[u8], out: &mut [u8]) -> Result<()> {
        match self.kernel {
            Kernel::Float(row) => {
                let n = raw.len() / self.row_bytes;
                row.pack(&matmul::Source::rows(raw, n, self.k), 0..row.panels(n), out)
            }
            Kernel::Quantized(set) => {
                let rows = raw.chunks(self.panel_rows() * self.row_bytes);
                let mut panels = rows.zip(out.chunks_mut(self.panel_bytes));
                panels.try_for_each(|(rows, panel)| set.pack_panel(self.dtype, rows, self.k, panel))
            }
        }
    }
}

/// A weight matrix (N × K) in the panels of the kernel that will read it.
pub struct PackedWeight {
    packer: Packer,
    n: usize,
    data: AlignedBuf,
}

impl PackedWeight {
    /// The matrix whose panels are (or will be) in `data`, [`Packer::bytes`] long.
    pub fn new(packer: Packer, n: usize, data: AlignedBuf) -> Self {
        debug_assert!(packer.bytes(n).is_ok_and(|bytes| bytes == data.len()));
        PackedWeight { packer, n, data }
    }

    /// How rows become panels.
    pub fn packer(&self) -> Packer {
        self.packer
    }

    /// All panels, to fill.
    pub fn panels_mut(&mut self) -> &mut [u8] {
        self.data.as_mut_slice::<u8>()
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub fn k(&self) -> usize {
        self.packer.k
    }

    /// Bytes of the panels.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Operations for one row of activations.
    pub fn flops_per_row(&self) -> u64 {
        2 * self.n as u64 * self.k() as u64
    }

    fn n_panels(&self) -> usize {
        self.n.div_ceil(self.packer.panel_rows())
    }

    /// Row `n` of the matrix, as the file's values say.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is no such row or `out` has another length.
    pub fn decode_row(&self, n: usize, out: &mut [f32]) -> Result<()> {
        let packed = self.data.as_slice::<u8>();
        match self.packer.kernel {
            Kernel::Float(row) => row.unpack_row(packed, n, out),
            Kernel::Quantized(set) => set.decode_row(self.packer.dtype, packed, n, out),
        }
    }
}

/// One product of an op: `y[:, column..column + N] (+)= x · Wᵀ (+ bias)`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// Input rows: f32, or quantised where the weight wants it.
    pub x: Rows,
    /// The matrix.
    pub weight: &'a PackedWeight,
    /// N values added to every row.
    pub bias: Option<&'a [f32]>,
    /// Output rows.
    pub y: Rows,
    /// First column written.
    pub column: usize,
    /// Adds to `y` instead of overwriting it.
    pub accumulate: bool,
}

/// This worker's part of `n_parts` products; every worker calls it with the same arguments and the same
/// counter. Which worker computes a panel doesn't change its bits.
///
/// # Safety
/// The products' rows are valid, `x` is written by no one and the written columns are touched by no one
/// else until the op ends; their shapes fit the weights.
pub unsafe fn run<'a>(
    worker: &Worker<'_>,
    counter: &WorkCounter,
    n_parts: usize,
    part: impl Fn(usize) -> Option<Product<'a>>,
) {
    let parts = || (0..n_parts).filter_map(&part);
    let panels: usize = parts().map(|p| p.weight.n_panels()).sum();
    let chunk = match worker.count() {
        1 => usize::MAX,
        workers => panels.div_ceil(workers * TASKS_PER_WORKER).max(1),
    };
    let tasks = |p: &Product<'_>| p.weight.n_panels().div_ceil(chunk);
    let total: usize = parts().map(|p| tasks(&p)).sum();
    while let Some(range) = counter.take(total, 1) {
        let mut task = range.start;
        for product in parts() {
            let own = tasks(&product);
            if task < own {
                let begin = task.saturating_mul(chunk);
                let end = begin.saturating_add(chunk).min(product.weight.n_panels());
                // SAFETY: the counter hands each task to one worker; the rest is the caller's promise.
                unsafe { panels_of(&product, begin, end) };
                break;
            }
            task -= own;
        }
    }
}

/// # Safety
/// As [`run`], for panels `begin..end`.
unsafe fn panels_of(product: &Product<'_>, begin: usize, end: usize) {
    let weight = product.weight;
    debug_assert!(product.bias.is_none_or(|bias| bias.len() == weight.n));
    let portion = Portion {
        x: product.x.row(0),
        ldx: product.x.stride(),
        m: product.x.len(),
        k: weight.k(),
        w: weight.data.as_ptr(),
        panel_begin: begin,
        panel_end: end,
        n: weight.n,
        y: product.y.row_f32(0).wrapping_add(product.column),
        ldy: product.y.stride() / size_of::<f32>(),
        bias: product.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
        accumulate: product.accumulate,
    };
    // SAFETY: the portion describes live, large enough rows (caller) and the weight's own panels; the
    // kernel set proved the instruction set when it was chosen.
    unsafe {
        match weight.packer.kernel {
            Kernel::Float(row) => row.run(&portion),
            Kernel::Quantized(set) => set.run(weight.packer.dtype, &portion),
        }
    }
}
