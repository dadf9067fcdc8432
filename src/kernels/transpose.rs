//! Transposition of an f32 matrix, in square tiles that are transposed in registers.
//!
//! Contract: any shape, any alignment; strides in floats, at least the length of a row. Input and output do not
//! overlap, and nothing between rows is written. A copy: every bit stays, NaN's too.

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::routine::{Code, Kernel, Routine};
use super::table::{self, Entry};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId};

/// Columns of the input that are taken together, from its first row to its last. Each is a row of the output; they
/// are few enough that the end of each stays in L1 and its page's address in the TLB.
const STRIP: usize = 16;

/// A matrix and where its transpose goes.
///
/// # Memory
/// `rows` rows of `src` are readable for `cols` floats, `cols` rows of `dst` writable for `rows`; they do not
/// overlap.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct TransposeArgs {
    /// First row of the input.
    pub src: *const f32,
    /// Floats between rows of the input.
    pub src_stride: usize,
    /// First row of the output.
    pub dst: *mut f32,
    /// Floats between rows of the output.
    pub dst_stride: usize,
    /// Rows of the input.
    pub rows: usize,
    /// Columns of the input.
    pub cols: usize,
}

/// A transposition.
pub type Transpose = Kernel<TransposeArgs>;

impl Kernel<TransposeArgs> {
    /// Transposes a matrix of rows of `cols` floats without gaps between them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of rows.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize) -> Result<()> {
        let rows = src.len().checked_div(cols).unwrap_or(0);
        if src.len() != dst.len() || rows * cols != src.len() {
            let (a, b) = (src.len(), dst.len());
            return Err(Error::invalid(format!("{a} floats in and {b} out are not rows of {cols}")));
        }
        let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
        // SAFETY: both slices hold rows · cols floats, and the output is borrowed mutably.
        unsafe { self.run(&TransposeArgs { src, src_stride: cols, dst, dst_stride: rows, rows, cols }) };
        Ok(())
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct TransposeKernels {
    /// f32.
    pub f32: Transpose,
}

impl<I: Isa> At<I> for TransposeKernels {
    const KERNELS: Self = {
        let info = KernelInfo { mr: I::LANES, nr: I::LANES, ..KernelInfo::of::<I>("transpose", "f32") };
        Self { f32: Transpose { info, code: Code::of::<I, Tiles>() } }
    };
}

static TABLE: [TransposeKernels; LEVELS] = levels::table();

impl Entry for TransposeKernels {
    fn isa(&self) -> IsaId {
        self.f32.info.isa
    }
}

impl TransposeKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().map(|kernels| kernels.f32.info)
}

/// Transposes tile by tile.
struct Tiles;

impl Routine<TransposeArgs> for Tiles {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &TransposeArgs) {
        let &TransposeArgs { src, src_stride, dst, dst_stride, rows, cols } = args;
        let mut strip = 0;
        while strip < cols {
            let end = cols.min(strip + STRIP);
            let mut i = 0;
            while i < rows {
                let height = I::LANES.min(rows - i);
                let mut j = strip;
                while j < end {
                    let width = I::LANES.min(end - j);
                    // SAFETY: i + height ≤ rows and j + width ≤ cols.
                    unsafe {
                        let (from, to) = (src.add(i * src_stride + j), dst.add(j * dst_stride + i));
                        if height == I::LANES && width == I::LANES {
                            isa.transpose_block(from, src_stride, to, dst_stride);
                        } else {
                            for j in 0..width {
                                for i in 0..height {
                                    to.add(j * dst_stride + i).write(from.add(i * src_stride + j).read());
                                }
                            }
                        }
                    }
                    j += width;
                }
                i += height;
            }
            strip = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_gets_to_its_place_and_nothing_else_changes() {
        const CANARY: f32 = -7777.0;
        let sizes: Vec<usize> = (0..=18).chain([31, 33, 50]).collect();
        for isa in levels::here() {
            let kernel = TransposeKernels::select(isa).f32;
            for &rows in &sizes {
                for &cols in &sizes {
                    for gap in [0, 3] {
                        let (src_stride, dst_stride) = (cols + gap, rows + 2 * gap);
                        let src: Vec<f32> = (0..rows * src_stride + 1).map(|i| i as f32).collect();
                        let mut dst = vec![CANARY; cols * dst_stride + 2];
                        let args = TransposeArgs {
                            src: src.as_ptr().wrapping_add(1),
                            src_stride,
                            dst: dst.as_mut_ptr().wrapping_add(1),
                            dst_stride,
                            rows,
                            cols: cols.min(src_stride),
                        };
                        if rows > 0 && cols > 0 {
                            // SAFETY: both buffers hold the lines, one float in.
                            unsafe { kernel.run(&args) };
                        }
                        for (at, &got) in dst.iter().enumerate() {
                            let place = at.wrapping_sub(1);
                            let (j, i) = (place / dst_stride.max(1), place % dst_stride.max(1));
                            let inside = at > 0 && j < cols && i < rows;
                            let want = if inside { (i * src_stride + j + 1) as f32 } else { CANARY };
                            assert_eq!(got, want, "{isa:?} {rows} x {cols}, gap {gap}, ({j}, {i})");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_errors() {
        let kernel = TransposeKernels::select(IsaId::Scalar).f32;
        let mut dst = [0.0; 6];
        assert!(kernel.apply(&[0.0; 6], &mut dst, 4).is_err());
        assert!(kernel.apply(&[0.0; 3], &mut dst, 3).is_err());
        kernel.apply(&[1., 2., 3., 4., 5., 6.], &mut dst, 3).unwrap();
        assert_eq!(dst, [1., 4., 2., 5., 3., 6.]);
    }
}
