//! One row added to every row of a matrix.

use super::info;
use super::reduce::{Terms, load, store, visit};
use super::softmax::whole_rows;
use crate::error::Result;
use crate::isa::{Isa, SimdBody};
use crate::kernels::info::KernelInfo;

/// Rows to add to.
#[derive(Clone, Copy, Debug)]
pub struct AddRowArgs {
    /// First row of the input.
    pub src: *const f32,
    /// Floats between rows of the input.
    pub src_stride: usize,
    /// What is added to each row, `cols` floats.
    pub row: *const f32,
    /// First row of the output; may be `src`, with the same stride.
    pub dst: *mut f32,
    /// Floats between rows of the output.
    pub dst_stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
}

/// `dst[r][j] = src[r][j] + row[j]`, rounded once.
#[derive(Clone, Copy)]
pub struct AddRow {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&AddRowArgs),
}

impl AddRow {
    pub(super) fn at<I: Isa>() -> Self {
        Self { info: info::<I>("add_row"), run: entry::<I> }
    }

    /// Adds `row` to each adjoining row of its length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where the length is no whole number of rows.
    pub fn apply_in_place(&self, x: &mut [f32], row: &[f32]) -> Result<()> {
        let cols = row.len();
        let rows = whole_rows(x.len(), x.len(), cols)?;
        let (dst, src_stride, dst_stride) = (x.as_mut_ptr(), cols, cols);
        let args = AddRowArgs { src: dst, src_stride, row: row.as_ptr(), dst, dst_stride, rows, cols };
        // SAFETY: the slices hold `rows` rows of `cols`, and one.
        unsafe { (self.run)(&args) };
        Ok(())
    }

    /// Adds to the rows that `args` describes.
    ///
    /// # Safety
    /// Each row of the input and `row` are readable, each row of the output is writable for `cols` floats. Input and
    /// output are the same or do not overlap; `row` overlaps no output.
    pub unsafe fn run(&self, args: &AddRowArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// # Safety
/// `I` is available; `args` as [`AddRow::run`] says.
unsafe fn entry<I: Isa>(args: &AddRowArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Rows(args))
}

struct Rows<'a>(&'a AddRowArgs);

impl SimdBody for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let &AddRowArgs { src, src_stride, row, dst, dst_stride, rows, cols } = self.0;
        for r in 0..rows {
            // SAFETY: row r lies inside what the caller promised.
            unsafe {
                let (src, dst) = (src.add(r * src_stride), dst.add(r * dst_stride));
                visit(isa, &Sums { src, row, dst }, cols);
            }
        }
    }
}

/// src + row, stored to dst.
struct Sums {
    src: *const f32,
    row: *const f32,
    dst: *mut f32,
}

impl Terms for Sums {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let sum = isa.add(load(isa, self.src.add(i), count), load(isa, self.row.add(i), count));
            store(isa, self.dst.add(i), sum, count);
            sum
        }
    }
}
