//! The packed matrix: one type for every type of elements, f32, f16, bf16 and quantised, and for arithmetic in bfloat16.
//! It holds the kernel that multiplies with it, which is chosen once, when the matrix is packed.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::kernels::matmul::{Matrix, Source};
use crate::kernels::qmatmul::{Activations, QmatmulKernels};
use crate::kernels::{KernelInfo, KernelSet, Portion, bmatmul, matmul, qmatmul};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::quant::{DType, encode_row};
use crate::threads::Team;

const WHAT: &str = "a packed matrix";
/// Bytes of panels that a thread packs at a time, about.
const PIECE_BYTES: usize = 64 << 10;

/// An element type of float matrices that can be packed: f32, [`half::f16`] or [`half::bf16`].
pub trait Element: sealed::Sealed + Copy + Sync + 'static {
    /// The type.
    const DTYPE: DType;

    /// The same number as an f32.
    fn to_f32(self) -> f32;
}

mod sealed {
    /// # Safety
    /// The type has no padding, so that its bytes may be read.
    pub unsafe trait Sealed {}
}

// SAFETY: four bytes without padding.
unsafe impl sealed::Sealed for f32 {}
// SAFETY: a transparent u16.
unsafe impl sealed::Sealed for f16 {}
// SAFETY: a transparent u16.
unsafe impl sealed::Sealed for bf16 {}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;

    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;

    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}

fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements have no padding (`Sealed`), and bytes need no alignment.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// The kernel of a packed matrix.
#[derive(Clone, Copy, Debug)]
enum Kernel {
    /// Rows are f32; weights are widened to it.
    Float(&'static matmul::Kernel),
    /// Rows are quantised as the level's kernels and their mode say.
    Quantized(&'static qmatmul::Kernel, QmatmulKernels),
    /// Rows are rounded to bfloat16.
    Bf16(&'static bmatmul::Kernel),
}

/// How rows of one length become the panels of one kernel.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    kernel: Kernel,
    /// The f32 kernel of the same set: it finishes products, and gathers rows that don't stand as kernels read them.
    float: &'static matmul::Kernel,
    k: usize,
    row_bytes: usize,
    panel_bytes: usize,
}

impl Packing {
    /// For stored rows of `k` elements of type `dtype`: floats that are widened where they are multiplied, or
    /// quantised weights, which meet activations of the set's mode.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where such rows are no whole blocks or this CPU lacks the set's kernel;
    /// [`Error::Unsupported`] where there is no kernel; [`Error::OutOfMemory`] where no memory could hold a panel.
    pub fn new(kernels: &KernelSet, dtype: DType, k: usize) -> Result<Self> {
        let unsupported = || Error::Unsupported(format!("products with weights of type {}", dtype.name()));
        let kernel = if dtype.is_quantized() {
            let kernel = kernels.qmatmul.kernel(dtype).ok_or_else(unsupported)?;
            Kernel::Quantized(kernel, kernels.qmatmul)
        } else {
            Kernel::Float(kernels.matmul.kernel(dtype).ok_or_else(unsupported)?)
        };
        Self::with(kernel, kernels, dtype, k)
    }

    /// For rows of `k` bfloat16 elements that are multiplied in bfloat16.
    ///
    /// # Errors
    /// As [`Packing::new`].
    pub fn new_bf16(kernels: &KernelSet, k: usize) -> Result<Self> {
        Self::with(Kernel::Bf16(kernels.bmatmul), kernels, DType::BF16, k)
    }

    fn with(kernel: Kernel, kernels: &KernelSet, dtype: DType, k: usize) -> Result<Self> {
        let float = kernels.matmul.f32;
        if ![kernel.info().isa, float.info.isa].iter().all(|isa| isa.is_available()) {
            return Err(Error::invalid("the kernel is not one for this CPU"));
        }
        let too_large = || Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
        if !k.is_multiple_of(dtype.block_len()) {
            return Err(Error::invalid(format!("rows of {k} are no whole {} blocks", dtype.name())));
        }
        let row_bytes = dtype.row_bytes(k).ok_or_else(too_large)?;
        let panel_bytes = match kernel {
            Kernel::Float(kernel) => kernel.panel_bytes(k),
            Kernel::Quantized(kernel, _) => Some(kernel.panel_bytes(k)?),
            Kernel::Bf16(kernel) => kernel.row_bytes(k).and(kernel.layout().panel_bytes(k)),
        };
        Ok(Self { kernel, float, k, row_bytes, panel_bytes: panel_bytes.ok_or_else(too_large)? })
    }

    /// Rows (outputs) of a panel.
    #[inline]
    pub fn panel_rows(&self) -> usize {
        self.kernel.info().nr
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
        checked_bytes(n.div_ceil(self.panel_rows()), self.panel_bytes, WHAT)
    }

    /// Packs stored rows, the first of which begins a panel, into `out`: the whole panels that they fill or begin.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rows` are no whole rows, or `out` has another size than their panels.
    pub fn pack(&self, rows: &[u8], out: &mut [u8]) -> Result<()> {
        let n = rows.len().checked_div(self.row_bytes).unwrap_or(0);
        if n * self.row_bytes != rows.len() || self.bytes(n)? != out.len() {
            let (rows, out) = (rows.len(), out.len());
            return Err(Error::invalid(format!("{rows} bytes of rows do not fill {out} bytes of panels")));
        }
        match self.kernel {
            Kernel::Float(kernel) => {
                kernel.pack(&Source::rows(rows, n, self.k), 0..n.div_ceil(self.panel_rows()), out)
            }
            Kernel::Bf16(kernel) => {
                kernel.layout().pack(&Source::rows(rows, n, self.k), 0..n.div_ceil(self.panel_rows()), out)
            }
            Kernel::Quantized(_, _) if self.row_bytes == 0 => Ok(()),
            Kernel::Quantized(kernel, _) => {
                let rows = rows.chunks(self.panel_rows() * self.row_bytes);
                let mut panels = rows.zip(out.chunks_mut(self.panel_bytes));
                panels.try_for_each(|(rows, panel)| kernel.layout.pack_panel(rows, self.k, panel))
            }
        }
    }
}

impl Kernel {
    fn info(&self) -> KernelInfo {
        match self {
            Kernel::Float(kernel) => kernel.info,
            Kernel::Quantized(kernel, _) => kernel.info,
            Kernel::Bf16(kernel) => kernel.info(),
        }
    }
}

/// A matrix B of K × N in the panels of the kernel that multiplies with it. It keeps nothing of where it was packed
/// from, never changes, and any number of threads may multiply with it at once.
#[derive(Debug)]
pub struct PackedMatrix {
    packing: Packing,
    n: usize,
    panels: AlignedBuf,
}

impl PackedMatrix {
    /// Packs a `k` × `n` matrix of f32, f16 or bf16 elements as they are, on the team's threads or else the caller's.
    /// Halves are widened while they are multiplied; sums are of f32.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `b` doesn't lie inside its slice or this CPU lacks the set's kernel;
    /// [`Error::OutOfMemory`]; the errors of [`Team::run`].
    pub fn pack<T: Element>(
        kernels: &KernelSet,
        k: usize,
        n: usize,
        b: Matrix<'_, T>,
        team: Option<&Team>,
    ) -> Result<Self> {
        b.check("B", k, n)?;
        let mut matrix = Self::zeroed(Packing::new(kernels, T::DTYPE, k)?, n)?;
        let Kernel::Float(kernel) = matrix.packing.kernel else {
            return Err(Error::Internal("floats with a kernel for other types".into()));
        };
        // A kernel's weights are N × K, the transpose of B.
        let source = Source { data: bytes_of(b.data), n, k, ld: b.ld, transposed: !b.transposed };
        matrix.fill(team, |first, panels, _| {
            let count = panels.len() / kernel.panel_bytes(k).unwrap_or(1).max(1);
            kernel.pack(&source, first..first + count, panels)
        })?;
        Ok(matrix)
    }

    /// Rounds a `k` × `n` matrix to bfloat16, to the nearest, and packs it for products in bfloat16, whose activations
    /// are rounded likewise: see [`crate::kernels::bmatmul`]. A lower precision, which nothing chooses by itself.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack`].
    pub fn pack_bf16<T: Element>(
        kernels: &KernelSet,
        k: usize,
        n: usize,
        b: Matrix<'_, T>,
        team: Option<&Team>,
    ) -> Result<Self> {
        b.check("B", k, n)?;
        let mut matrix = Self::zeroed(Packing::new_bf16(kernels, k)?, n)?;
        let packing = matrix.packing;
        matrix.fill_rows(team, |first, rows, panels, scratch| {
            let bytes = scratch.bytes(rows * packing.row_bytes)?;
            for (i, line) in bytes.chunks_exact_mut(packing.row_bytes).enumerate() {
                for (p, element) in line.chunks_exact_mut(2).enumerate() {
                    let value = b.element(p, first + i).to_f32();
                    element.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
                }
            }
            packing.pack(bytes, panels)
        })?;
        Ok(matrix)
    }

    /// Packs `n` rows of `k` elements of any type as a model file stores them, one after the other: B transposed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rows` is not that long or rows are no whole blocks;
    /// [`Error::Unsupported`] for a type without a kernel; else as [`PackedMatrix::pack`].
    pub fn from_rows(
        kernels: &KernelSet,
        dtype: DType,
        k: usize,
        n: usize,
        rows: &[u8],
        team: Option<&Team>,
    ) -> Result<Self> {
        let packing = Packing::new(kernels, dtype, k)?;
        if packing.row_bytes.checked_mul(n) != Some(rows.len()) {
            let (bytes, name) = (rows.len(), dtype.name());
            return Err(Error::invalid(format!("{bytes} bytes are not {n} rows of {k} elements of {name}")));
        }
        let mut matrix = Self::zeroed(packing, n)?;
        matrix.fill_rows(team, |first, count, panels, _| {
            packing.pack(&rows[first * packing.row_bytes..][..count * packing.row_bytes], panels)
        })?;
        Ok(matrix)
    }

    /// Quantises a `k` × `n` matrix, each column by itself, and packs it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a type that the library can only read ([`DType::is_encodable`]);
    /// [`Error::InvalidArgument`] where `k` is no multiple of the type's blocks; else as [`PackedMatrix::pack`].
    pub fn quantize(
        kernels: &KernelSet,
        dtype: DType,
        k: usize,
        n: usize,
        b: Matrix<'_>,
        team: Option<&Team>,
    ) -> Result<Self> {
        if !dtype.is_encodable() {
            return Err(Error::Unsupported(format!("encoding as {}", dtype.name())));
        }
        b.check("B", k, n)?;
        let mut matrix = Self::zeroed(Packing::new(kernels, dtype, k)?, n)?;
        let packing = matrix.packing;
        matrix.fill_rows(team, |first, rows, panels, scratch| {
            let (bytes, floats) = scratch.both(rows * packing.row_bytes, k)?;
            for (i, row) in bytes.chunks_exact_mut(packing.row_bytes).enumerate() {
                floats.iter_mut().enumerate().for_each(|(p, x)| *x = b.element(p, first + i));
                encode_row(dtype, floats, row)?;
            }
            packing.pack(bytes, panels)
        })?;
        Ok(matrix)
    }

    /// The matrix of `n` rows whose panels are (or will be) in `panels`, [`Packing::bytes`] long.
    #[cfg(feature = "models")]
    pub(crate) fn in_buffer(packing: Packing, n: usize, panels: AlignedBuf) -> Result<Self> {
        if packing.bytes(n)? != panels.len() {
            return Err(Error::Internal("a packed matrix with a buffer of another size".into()));
        }
        Ok(Self { packing, n, panels })
    }

    fn zeroed(packing: Packing, n: usize) -> Result<Self> {
        let panels = AlignedBuf::zeroed(packing.bytes(n)?, WHAT)?;
        Ok(Self { packing, n, panels })
    }

    /// Calls `pack` with runs of panels, on the team's threads: the number of the first one, the panels, memory.
    fn fill(
        &mut self,
        team: Option<&Team>,
        pack: impl Fn(usize, &mut [u8], &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        if self.panels.is_empty() {
            return Ok(());
        }
        let count = (PIECE_BYTES / self.packing.panel_bytes).max(1);
        let panels = self.panels.as_mut_slice::<u8>();
        let pieces = Mutex::new(panels.chunks_mut(count * self.packing.panel_bytes).enumerate());
        let outcome = Mutex::new(Ok(()));
        let work = || {
            let mut scratch = Scratch::default();
            loop {
                let piece = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((i, piece)) = piece else { return };
                if let Err(error) = pack(i * count, piece, &mut scratch) {
                    *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
                    return;
                }
            }
        };
        match team {
            Some(team) => team.run(|_| work())?,
            None => work(),
        }
        outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`PackedMatrix::fill`], with the number of the first row and of the rows that the panels hold.
    fn fill_rows(
        &mut self,
        team: Option<&Team>,
        pack: impl Fn(usize, usize, &mut [u8], &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        let (n, packing) = (self.n, self.packing);
        self.fill(team, |panel, panels, scratch| {
            let first = panel * packing.panel_rows();
            let rows = (panels.len() / packing.panel_bytes * packing.panel_rows()).min(n - first);
            pack(first, rows, panels, scratch)
        })
    }

    /// How rows become panels.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// All panels.
    pub fn panels(&self) -> &[u8] {
        self.panels.as_slice()
    }

    /// All panels, to fill.
    #[cfg(feature = "models")]
    pub(crate) fn panels_mut(&mut self) -> &mut [u8] {
        self.panels.as_mut_slice()
    }

    /// Columns N of B: outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Rows K of B: inputs.
    pub fn k(&self) -> usize {
        self.packing.k
    }

    /// Bytes of the panels.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// Name, level and tile of the kernel that multiplies with it.
    pub fn kernel(&self) -> KernelInfo {
        self.packing.kernel.info()
    }

    /// The kernel, where rows of the other matrix are f32 as they stand.
    pub(super) fn float_kernel(&self) -> Option<&'static matmul::Kernel> {
        match self.packing.kernel {
            Kernel::Float(kernel) => Some(kernel),
            _ => None,
        }
    }

    /// The f32 kernel of the set that the matrix was packed with.
    pub(super) fn finishing_kernel(&self) -> &'static matmul::Kernel {
        self.packing.float
    }

    /// How activations are quantised that meet quantised weights; `None` for other types.
    pub fn activations(&self) -> Option<Activations> {
        match self.packing.kernel {
            Kernel::Quantized(_, set) => Some(set.activations()),
            _ => None,
        }
    }

    /// Operations for one row of activations.
    pub fn flops_per_row(&self) -> u64 {
        2 * self.n as u64 * self.k() as u64
    }

    /// Column `n` of B (a row, as weights are stored): the K numbers that the packed elements stand for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is no such column or `out` has another length than K.
    pub fn row(&self, n: usize, out: &mut [f32]) -> Result<()> {
        if n >= self.n || out.len() != self.k() {
            let (rows, k, len) = (self.n, self.k(), out.len());
            return Err(Error::invalid(format!("row {n} in {len} floats, of {rows} rows of {k}")));
        }
        let packed = self.panels();
        match self.packing.kernel {
            Kernel::Float(kernel) => kernel.unpack_row(packed, n, out),
            Kernel::Quantized(kernel, _) => kernel.layout.decode_row(packed, n, out),
            Kernel::Bf16(kernel) => kernel.layout().unpack_row(packed, n, out),
        }
    }

    /// Bytes of one row of activations in the form that the kernel reads, rounded or quantised; `None` on overflow.
    pub(super) fn converted_row_bytes(&self) -> Option<usize> {
        match self.packing.kernel {
            Kernel::Float(_) => self.k().checked_mul(size_of::<f32>()),
            Kernel::Quantized(_, set) => {
                // Elements, and records of them: less than four bytes an element.
                self.k().checked_mul(4)?.checked_add(128).map(|_| set.row_bytes(self.k()))
            }
            Kernel::Bf16(kernel) => kernel.row_bytes(self.k()),
        }
    }

    /// Rounds or quantises `rows` rows of K floats, `ldx` floats apart, into rows of
    /// [`PackedMatrix::converted_row_bytes`] one after the other. Only for matrices that have no
    /// [`PackedMatrix::float_kernel`].
    ///
    /// # Safety
    /// The rows are readable, and `out` is writable for the converted ones.
    pub(super) unsafe fn convert(&self, x: *const f32, ldx: usize, rows: usize, out: *mut u8) {
        // SAFETY: K floats of each row are there, and room for its converted bytes.
        unsafe {
            match self.packing.kernel {
                Kernel::Float(_) => debug_assert!(false, "f32 rows are read as they stand"),
                Kernel::Quantized(_, set) => set.quantize_rows(x, ldx, rows, self.k(), out),
                Kernel::Bf16(kernel) => kernel.round_rows(x, ldx, rows, self.k(), out),
            }
        }
    }

    /// Multiplies rows, in the form that the kernel reads, with panels of this matrix.
    ///
    /// # Safety
    /// X holds `m` rows, Y `m` rows with all columns of the panels that are below N, bias N floats unless it is null; Y
    /// overlaps none of them, and nothing else reads or writes these columns meanwhile. The panels are the matrix's.
    #[inline]
    pub(super) unsafe fn multiply(&self, run: &Run) {
        let portion = Portion {
            x: run.x,
            ldx: run.ldx,
            m: run.m,
            k: self.k(),
            w: self.panels.as_ptr(),
            panel_begin: run.panels.start,
            panel_end: run.panels.end,
            n: self.n,
            y: run.y,
            ldy: run.ldy,
            bias: run.bias,
            accumulate: run.accumulate,
        };
        // SAFETY: X, Y and the bias are there by this function's contract, the panels are the matrix's own, and the
        // CPU has the kernel's level, which was checked when the matrix was packed.
        unsafe {
            match self.packing.kernel {
                Kernel::Float(kernel) => kernel.run(&portion),
                Kernel::Quantized(kernel, set) => kernel.run(set.activations(), &portion),
                Kernel::Bf16(kernel) => kernel.run(&portion),
            }
        }
    }
}

/// Rows to multiply with a run of a matrix's panels; see [`Portion`].
pub(super) struct Run {
    pub x: *const u8,
    pub ldx: usize,
    pub m: usize,
    pub panels: Range<usize>,
    /// Row 0 and column 0 of the whole Y.
    pub y: *mut f32,
    pub ldy: usize,
    pub bias: *const f32,
    pub accumulate: bool,
}

/// Memory of a thread that packs; it grows to the size of the largest run of panels.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

impl Scratch {
    fn bytes(&mut self, len: usize) -> Result<&mut [u8]> {
        grow(&mut self.bytes, len)
    }

    fn both(&mut self, bytes: usize, floats: usize) -> Result<(&mut [u8], &mut [f32])> {
        Ok((grow(&mut self.bytes, bytes)?, grow(&mut self.floats, floats)?))
    }
}

/// The first `len` elements of a vector that is made as long.
fn grow<T: Copy + Default>(vector: &mut Vec<T>, len: usize) -> Result<&mut [T]> {
    if vector.len() < len {
        let refused = |_| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()), what: WHAT };
        vector.try_reserve_exact(len - vector.len()).map_err(refused)?;
        vector.resize(len, T::default());
    }
    Ok(&mut vector[..len])
}
