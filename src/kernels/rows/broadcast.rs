//! One row added to every row of a matrix.

use super::softmax::whole_rows;
use crate::error::Result;
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::unary::functions::Add;
use crate::kernels::vectors::{Over, Row, Rows, RowsMut, Stored, visit};

/// Rows to add to.
///
/// # Memory
/// Each row of the input and `row` are readable, each row of the output is writable for `cols` floats. Input and
/// output are the same or do not overlap; `row` overlaps no output.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct AddRowArgs {
    /// First row of the input.
    pub src: *const f32,
    /// Floats between rows of the input.
    pub src_stride: usize,
    /// The row that is added, `cols` floats.
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
pub type AddRow = Kernel<AddRowArgs>;

impl Kernel<AddRowArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("add_row", "f32"), code: Code::of::<I, Sums>() }
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
        // SAFETY: `x` holds `rows` rows of `cols` and is borrowed mutably; `row` holds `cols` floats.
        unsafe { self.run(&args) };
        Ok(())
    }
}

struct Sums;

impl Routine<AddRowArgs> for Sums {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &AddRowArgs) {
        let &AddRowArgs { src, src_stride, row, dst, dst_stride, rows, cols } = args;
        // SAFETY: the caller promises all rows.
        let (src, row, dst) = unsafe {
            (
                Rows::new(src, src_stride, rows, cols),
                Row::new(row, cols),
                RowsMut::new(dst, dst_stride, rows, cols),
            )
        };
        for r in 0..rows {
            visit(isa, &Stored(Over(Add, [src.row(r), row]), dst.row(r)), 0, cols);
        }
    }
}
