//! The general product for direct callers: C = f(α·op(A)·op(B) + β·C + bias), B plain or packed ahead.
//!
//! # Contract
//! - A is m × k or its transpose, B is k × n or its transpose (or packed for the kernel), C is m × n; all f32 and
//!   row-major with any distance between lines. C overlaps nothing. The [`Epilogue`] comes last.
//! - The order of additions is the family's: an output starts at β·C + bias and adds its products for k
//!   ascending. α ≠ 1 multiplies A first, rounded once more: γ(k + 2) instead of γ(k + 1). With β = 0, C is not
//!   read, and may hold NaN.
//! - Nothing is allocated: matrices that have to be packed go to scratch memory of the caller.
//!
//! ```text
//! for columns      a few panels of B, packed slice by slice, stay in L2
//!   for rows       as many of A and C as stay in L2 with them
//!     for k        a slice
//! ```

use super::cuts::Cuts;
use super::epilogue::{self, Epilogue, Finish, Scale};
use super::lines::{Lines, LinesFn};
use super::pack_f32::{LinesPart, PanelPart};
use super::{Kernel, Product};
use crate::error::{Error, Result};
use crate::memory;
use crate::quant::DType;
use std::ops::Range;
use std::ptr;

/// Rows of B that are packed together, where they run along the columns.
const PACKED_LINES: usize = 8;

/// A row-major matrix, or the transpose of one.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T = f32> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from one line to the next, at least a line's own.
    pub ld: usize,
    /// The lines are the matrix's columns.
    pub transposed: bool,
}

/// The right-hand side of a product.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// As it lies in memory.
    Plain(Matrix<'a>),
    /// All panels of the kernel ([`Kernel::pack`]).
    Packed(&'a [u8]),
}

/// A product to compute.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A and rows of B.
    pub k: usize,
    /// α.
    pub alpha: f32,
    /// A.
    pub a: Matrix<'a>,
    /// B.
    pub b: Right<'a>,
    /// β.
    pub beta: f32,
    /// How C is finished.
    pub epilogue: Epilogue<'a>,
}

/// A part of C that [`Gemm::run_part`] computes, whose promise holds as long as the value lives: the operands hold the
/// part, C is writable there, and the scratch memory has room for as much as the cuts say.
struct Part<'a> {
    gemm: &'a Gemm<'a>,
    kernel: &'a Kernel,
    cuts: Cuts,
    c: *mut f32,
    ldc: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    scratch: *mut f32,
}

/// Where panels of B stand, the bytes between their rows and between them, and the scratch memory behind them.
struct Panels {
    w: *const u8,
    row_stride: usize,
    panel_stride: usize,
    scratch: *mut f32,
}

impl Gemm<'_> {
    /// Floats of scratch memory that [`Gemm::run`] needs.
    pub fn scratch_len(&self, kernel: &Kernel) -> usize {
        self.scratch_of(kernel, [self.m, self.n])
    }

    /// Floats of scratch memory that [`Gemm::run_part`] needs for parts of so many rows and columns, or fewer.
    pub(crate) fn scratch_of(&self, kernel: &Kernel, part: [usize; 2]) -> usize {
        let cuts = self.cuts(kernel, part);
        let [m, n] = part;
        let a = if cuts.pack_a { cuts.rows.min(m) * cuts.depth } else { 0 };
        let nr = kernel.info.nr;
        let b = match self.b {
            Right::Packed(_) => 0,
            Right::Plain(_) if cuts.pack_b => cuts.columns.min(n.next_multiple_of(nr)) * cuts.depth,
            Right::Plain(_) => nr * cuts.rest_depth,
        };
        a + b
    }

    /// Computes C, `ldc` floats between its lines, with `kernel` of a level that this CPU has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where a matrix doesn't fit its slice, `kernel` isn't for these operands or not for
    /// this CPU, or the scratch memory is shorter than [`Gemm::scratch_len`]. Nothing is written then.
    pub fn run(&self, kernel: &Kernel, c: &mut [f32], ldc: usize, scratch: &mut [f32]) -> Result<()> {
        self.check(kernel)?;
        self.check_c(c.len(), ldc)?;
        let needed = self.scratch_len(kernel);
        if scratch.len() < needed {
            let got = scratch.len();
            return Err(Error::invalid(format!("{got} floats of scratch memory where {needed} are needed")));
        }
        // SAFETY: the matrices were checked to lie in their slices; C and the scratch memory are borrowed mutably.
        unsafe {
            let (c, scratch) = (c.as_mut_ptr(), scratch.as_mut_ptr());
            self.run_part(kernel, [self.m, self.n], c, ldc, 0..self.m, 0..self.n, scratch);
        }
        Ok(())
    }

    /// Checks everything but C.
    ///
    /// # Errors
    /// As [`Gemm::run`].
    pub fn check(&self, kernel: &Kernel) -> Result<()> {
        let Self { m, n, k, .. } = *self;
        if !kernel.info.isa.is_available() {
            return Err(Error::invalid("the kernel is not one for this CPU"));
        }
        self.a.check("A", m, k)?;
        match self.b {
            Right::Plain(_) if kernel.weights != DType::F32 => {
                return Err(Error::invalid("a plain matrix B needs a kernel for f32"));
            }
            Right::Plain(b) => b.check("B", k, n)?,
            Right::Packed(panels) if kernel.packed_len(n, k) != Some(panels.len()) => {
                let len = panels.len();
                return Err(Error::invalid(format!("B of {k} × {n} isn't what {len} packed bytes hold")));
            }
            Right::Packed(_) => {}
        }
        self.epilogue.check(m, n)
    }

    /// Checks that C, `ldc` floats between its lines, lies inside a slice of `len` floats.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it doesn't.
    pub fn check_c(&self, len: usize, ldc: usize) -> Result<()> {
        fits("C", len, self.m, self.n, ldc)
    }

    /// Computes some rows and columns of C, which begins at `c` as a whole: at most `part` of them, by which the work
    /// is cut. Columns of a packed B begin at a multiple of the kernel's `nr`; how C is divided makes no difference to
    /// the bits.
    ///
    /// # Safety
    /// [`Gemm::check`] has passed; C is writable there and overlaps no operand; the scratch memory holds
    /// [`Gemm::scratch_of`] floats for `part`, no one else's meanwhile.
    #[allow(clippy::too_many_arguments, reason = "a part of C is six numbers")]
    pub(crate) unsafe fn run_part(
        &self,
        kernel: &Kernel,
        part: [usize; 2],
        c: *mut f32,
        ldc: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: *mut f32,
    ) {
        let cuts = self.cuts(kernel, part);
        let nr = kernel.info.nr;
        let part = |columns| Part { gemm: self, kernel, cuts, c, ldc, rows: rows.clone(), columns, scratch };
        let mut first = columns.start;
        if let (false, Right::Plain(b)) = (cuts.pack_a, self.b)
            && b.transposed
            && let Some(&few_rows) = kernel.lines.get(rows.len().wrapping_sub(1))
        {
            let whole = columns.len() - columns.len() % kernel.lanes;
            let width = if whole > 0 && self.beta == 0.0 { columns.len() } else { whole };
            if width > 0 {
                part(first..first + width).few_rows(&b, few_rows);
                first += width;
            }
        }
        if let (false, Right::Plain(b)) = (cuts.pack_a || cuts.pack_b, self.b)
            && rows.len() <= self.walked_rows(kernel)
            && let Some(&walk) = kernel.walks.get(rows.len().wrapping_sub(1))
        {
            part(first..columns.end).few_rows(&b, walk);
            first = columns.end;
        }
        while first < columns.end {
            let mut width = cuts.columns.min(columns.end - first);
            if !cuts.pack_b && width > nr {
                // Columns that don't fill a panel come by themselves.
                width -= width % nr;
            }
            part(first..first + width).run();
            first += width;
        }
    }
}

impl Part<'_> {
    /// The few rows of the part, which meet B's lines as they lie; as many columns as [`Lines::columns`] may be.
    fn few_rows(&self, b: &Matrix<'_>, multiply: LinesFn) {
        let Part { gemm, kernel, c, ldc, ref rows, ref columns, .. } = *self;
        let lines = Lines {
            x: gemm.a.at(rows.start, 0),
            ldx: gemm.a.ld,
            k: gemm.k,
            b: b.at(0, columns.start),
            ldb: b.ld,
            columns: columns.len(),
            y: c.wrapping_add(rows.start * ldc + columns.start),
            ldy: ldc,
            resume: gemm.beta != 0.0,
            bias: self.bias(),
            from_memory: gemm.exceeds(memory::cache_sizes().l3 / 2),
        };
        // SAFETY: A and B hold the rows and the lines, and C is writable there.
        unsafe {
            kernel.scale_block(gemm.beta, c, ldc, rows, columns);
            multiply(&lines);
            kernel.finish_block(&gemm.epilogue, c, ldc, rows, columns);
        }
    }

    /// Slice by slice of k, and for each slice some rows after the other.
    fn run(&self) {
        let Part { gemm, cuts, ref columns, .. } = *self;
        // A rest of columns is packed even where whole panels aren't.
        let whole = columns.len().is_multiple_of(self.kernel.info.nr);
        let pack_b = matches!(gemm.b, Right::Plain(_)) && (cuts.pack_b || !whole);
        let mut k = 0;
        loop {
            let slice = k..gemm.k.min(k + if pack_b && !cuts.pack_b { cuts.rest_depth } else { cuts.depth });
            let right = self.right(pack_b, &slice);
            let mut top = self.rows.start;
            while top < self.rows.end {
                let rows = top..self.rows.end.min(top.saturating_add(cuts.rows));
                top = rows.end;
                self.block(&rows, &slice, &right);
            }
            k = slice.end;
            // One pass even for k = 0: the sums of nothing are written too.
            if k >= gemm.k {
                break;
            }
        }
    }

    /// Some rows at a slice of k.
    fn block(&self, rows: &Range<usize>, slice: &Range<usize>, right: &Panels) {
        let Part { gemm, kernel, cuts, c, ldc, ref columns, .. } = *self;
        let (is_first, is_last) = (slice.start == 0, slice.end == gemm.k);
        // SAFETY: A holds the rows, the panels are there, C is writable, and the scratch memory that the panels leave
        // has room for as many rows as the cuts say.
        unsafe {
            if is_first {
                kernel.scale_block(gemm.beta, c, ldc, rows, columns);
            }
            let (x, ldx) = if cuts.pack_a {
                kernel.gather_rows(&gemm.a, gemm.alpha, rows.clone(), slice.clone(), right.scratch);
                (right.scratch.cast_const(), slice.len())
            } else {
                (gemm.a.at(rows.start, slice.start), gemm.a.ld)
            };
            kernel.multiply(&Product {
                x: x.cast(),
                ldx: 4 * ldx,
                m: rows.len(),
                k: slice.len(),
                w: right.w,
                row_stride: right.row_stride,
                panel_stride: right.panel_stride,
                y: c.wrapping_add(rows.start * ldc + columns.start),
                ldy: ldc,
                columns: columns.len(),
                resume: !is_first || gemm.beta != 0.0,
                bias: if is_first { self.bias() } else { ptr::null() },
            });
            if is_last {
                kernel.finish_block(&gemm.epilogue, c, ldc, rows, columns);
            }
        }
    }

    /// The bias of the part's columns, or null.
    fn bias(&self) -> *const f32 {
        self.gemm.epilogue.bias.map_or(ptr::null(), |bias| bias.as_ptr().wrapping_add(self.columns.start))
    }

    /// Panels of B at a slice of k, packed into the scratch memory where `pack` says so.
    fn right(&self, pack: bool, slice: &Range<usize>) -> Panels {
        let Part { gemm, kernel, scratch, ref columns, .. } = *self;
        let (nr, row_bytes) = (kernel.info.nr, kernel.blocking.row_bytes);
        let b = match gemm.b {
            Right::Plain(b) => b,
            Right::Packed(panels) => {
                let at = columns.start / nr * gemm.k * row_bytes + slice.start * row_bytes;
                let (w, panel_stride) = (panels.as_ptr().wrapping_add(at), gemm.k * row_bytes);
                return Panels { w, row_stride: row_bytes, panel_stride, scratch };
            }
        };
        if !pack {
            let w = b.at(slice.start, columns.start).cast();
            return Panels { w, row_stride: 4 * b.ld, panel_stride: row_bytes, scratch };
        }
        let depth = slice.len();
        // Columns that don't fill a panel get one as wide as they need.
        let width = if self.cuts.pack_b { nr } else { kernel.blocking.tiles.width(columns.len(), nr) };
        let row_bytes = width * size_of::<f32>();
        // Lines along k belong to one panel each; of others, some give all panels a few rows at a time, and are read in
        // order.
        let together = if b.transposed { depth } else { PACKED_LINES };
        for top in (0..depth).step_by(together.max(1)) {
            for (panel, first) in columns.clone().step_by(nr).enumerate() {
                let part = PanelPart {
                    src: b.at(slice.start + top, first),
                    ld: b.ld,
                    along_k: b.transposed,
                    columns: nr.min(columns.end - first),
                    depth: together.min(depth - top),
                    width,
                    dst: scratch.wrapping_add((panel * depth + top) * width),
                };
                // SAFETY: B holds the panel's columns, and the scratch memory has room for the panels of a slice.
                unsafe { (kernel.pack_panel)(&part) };
            }
        }
        let rest = scratch.wrapping_add(columns.len().next_multiple_of(width) * depth);
        Panels { w: scratch.cast(), row_stride: row_bytes, panel_stride: depth * row_bytes, scratch: rest }
    }
}

impl Kernel {
    /// Writes `factor` times some rows of A, at a slice of k, one after the other.
    ///
    /// # Safety
    /// The CPU has the kernel's level, A holds the rows, and `out` is writable for as many floats; they don't overlap.
    pub(crate) unsafe fn gather_rows(
        &self,
        a: &Matrix<'_>,
        factor: f32,
        rows: Range<usize>,
        slice: Range<usize>,
        out: *mut f32,
    ) {
        let lines = LinesPart {
            src: a.at(rows.start, slice.start),
            ld: a.ld,
            along_k: !a.transposed,
            rows: rows.len(),
            depth: slice.len(),
            factor,
            dst: out,
        };
        // SAFETY: A holds the part, and `out` has room for it.
        unsafe { (self.pack_lines)(&lines) }
    }

    /// Scales a block of C by β, where that changes anything that is read.
    ///
    /// # Safety
    /// The CPU has the kernel's level, and the block of C, which begins at `c` as a whole, is writable.
    pub(crate) unsafe fn scale_block(
        &self,
        beta: f32,
        c: *mut f32,
        ldc: usize,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) {
        if beta != 0.0 && beta != 1.0 {
            let y = c.wrapping_add(rows.start * ldc + columns.start);
            let scale = Scale { factor: beta, y, ldy: ldc, rows: rows.len(), columns: columns.len() };
            // SAFETY: the block is writable.
            unsafe { (self.scale)(&scale) }
        }
    }

    /// Finishes a block of C, whose sums are complete.
    ///
    /// # Safety
    /// As [`Kernel::scale_block`]; gate and residual hold the block, and don't overlap C.
    pub(crate) unsafe fn finish_block(
        &self,
        epilogue: &Epilogue<'_>,
        c: *mut f32,
        ldc: usize,
        rows: &Range<usize>,
        columns: &Range<usize>,
    ) {
        if epilogue.is_empty() {
            return;
        }
        let at = |lines: Option<epilogue::Lines<'_>>| match lines {
            Some(epilogue::Lines { data, ld }) => {
                (data.as_ptr().wrapping_add(rows.start * ld + columns.start), ld)
            }
            None => (ptr::null(), 0),
        };
        let (gate, ld_gate) = at(epilogue.gate);
        let (residual, ld_residual) = at(epilogue.residual);
        let (activation, y) = (epilogue.activation, c.wrapping_add(rows.start * ldc + columns.start));
        let (rows, columns) = (rows.len(), columns.len());
        let block = Finish { activation, gate, ld_gate, residual, ld_residual, y, ldy: ldc, rows, columns };
        // SAFETY: the block lies inside C, the gate and the residual.
        unsafe { (self.finish)(&block) }
    }
}

impl Epilogue<'_> {
    /// Checks that bias, gate and residual fit an m × n product.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it doesn't.
    pub(crate) fn check(&self, m: usize, n: usize) -> Result<()> {
        if self.bias.is_some_and(|bias| bias.len() != n) {
            return Err(Error::invalid(format!("the bias isn't {n} floats")));
        }
        for (name, lines) in [("the gate", self.gate), ("the residual", self.residual)] {
            if let Some(epilogue::Lines { data, ld }) = lines {
                fits(name, data.len(), m, n, ld)?;
            }
        }
        Ok(())
    }
}

impl<T: Copy> Matrix<'_, T> {
    /// Checks that a matrix of `rows` × `columns` lies inside the data.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where it doesn't.
    pub(crate) fn check(&self, name: &str, rows: usize, columns: usize) -> Result<()> {
        let (lines, line) = self.lines(rows, columns);
        fits(name, self.data.len(), lines, line, self.ld)
    }

    /// Elements from the first to the last of a matrix of `rows` × `columns`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lines overlap, or where they don't fit into memory.
    pub(crate) fn extent(&self, name: &str, rows: usize, columns: usize) -> Result<usize> {
        let (lines, line) = self.lines(rows, columns);
        extent(name, lines, line, self.ld)
    }

    /// The address of element (`row`, `column`).
    fn at(&self, row: usize, column: usize) -> *const T {
        let at = if self.transposed { column * self.ld + row } else { row * self.ld + column };
        self.data.as_ptr().wrapping_add(at)
    }

    /// Element (`row`, `column`).
    pub(crate) fn element(&self, row: usize, column: usize) -> T {
        self.data[if self.transposed { column * self.ld + row } else { row * self.ld + column }]
    }

    /// How many lines the storage of `rows` × `columns` has, and the elements of each.
    fn lines(&self, rows: usize, columns: usize) -> (usize, usize) {
        if self.transposed { (columns, rows) } else { (rows, columns) }
    }
}

/// Elements from the first to the last of `lines` × `line`, `ld` apart; 0 where there are none.
///
/// # Errors
/// [`Error::InvalidArgument`] where lines overlap, or where they don't fit into memory.
pub(crate) fn extent(name: &str, lines: usize, line: usize, ld: usize) -> Result<usize> {
    if lines == 0 || line == 0 {
        return Ok(0);
    }
    let len = (lines - 1).checked_mul(ld).and_then(|whole| whole.checked_add(line));
    len.filter(|_| ld >= line || lines == 1).ok_or_else(|| {
        Error::invalid(format!("{name} of {lines} lines of {line}, {ld} apart, fits no memory"))
    })
}

/// Checks that `lines` × `line` elements lie inside a slice of `len` of them.
fn fits(name: &str, len: usize, lines: usize, line: usize, ld: usize) -> Result<()> {
    if extent(name, lines, line, ld)? <= len {
        return Ok(());
    }
    Err(Error::invalid(format!("{name} of {lines} lines of {line}, {ld} apart, does not fit {len} elements")))
}
