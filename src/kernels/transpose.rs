//! Transposition of an f32 matrix, in tiles that are turned in registers.
//!
//! Contract: any shape, any alignment; strides in floats, at least the length of a line. Input and output do not
//! overlap, and nothing between lines is touched. A copy: every bit stays, NaN's too.

use super::info::KernelInfo;
use super::levels::{self, Levels};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId, SimdBody};

/// Columns of the input that are walked down together: their lines of the output are written on in turns, few enough
/// that each keeps its place in L1 and its page's address at hand.
const STRIP: usize = 16;

/// A matrix and where its transpose goes.
#[derive(Clone, Copy, Debug)]
pub struct TransposeArgs {
    /// First line of the input.
    pub src: *const f32,
    /// Floats between lines of the input.
    pub src_stride: usize,
    /// First line of the output.
    pub dst: *mut f32,
    /// Floats between lines of the output.
    pub dst_stride: usize,
    /// Lines of the input.
    pub rows: usize,
    /// Elements of a line of the input.
    pub cols: usize,
}

/// A transposition.
#[derive(Clone, Copy)]
pub struct Transpose {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(&TransposeArgs),
}

impl Transpose {
    /// Transposes a matrix without gaps between its lines of `cols`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where the lengths differ or are no whole number of lines.
    pub fn apply(&self, src: &[f32], dst: &mut [f32], cols: usize) -> Result<()> {
        let rows = src.len().checked_div(cols).unwrap_or(0);
        if src.len() != dst.len() || rows * cols != src.len() {
            let (a, b) = (src.len(), dst.len());
            return Err(Error::invalid(format!("{a} floats in and {b} out are not lines of {cols}")));
        }
        let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
        // SAFETY: both slices hold rows · cols floats.
        unsafe { (self.run)(&TransposeArgs { src, src_stride: cols, dst, dst_stride: rows, rows, cols }) };
        Ok(())
    }

    /// Transposes what `args` describes.
    ///
    /// # Safety
    /// `rows` lines of `src` are readable for `cols` floats, `cols` lines of `dst` writable for `rows`; they do not
    /// overlap.
    pub unsafe fn run(&self, args: &TransposeArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(args) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct TransposeKernels {
    /// f32.
    pub f32: Transpose,
}

impl TransposeKernels {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        levels::select(isa)
    }
}

impl Levels for TransposeKernels {
    fn at<I: Isa>() -> Self {
        let info = KernelInfo { op: "transpose", dtype: "f32", isa: I::ID, mr: I::LANES, nr: I::LANES };
        Self { f32: Transpose { info, run: entry::<I> } }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    levels::all::<TransposeKernels>().into_iter().map(|(_, set)| set.f32.info)
}

/// # Safety
/// `I` is available; the rest as [`Transpose::run`] says.
unsafe fn entry<I: Isa>(args: &TransposeArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Tiles(args))
}

struct Tiles<'a>(&'a TransposeArgs);

impl SimdBody for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let &TransposeArgs { src, src_stride, dst, dst_stride, rows, cols } = self.0;
        let mut strip = 0;
        while strip < cols {
            let end = cols.min(strip + STRIP);
            let mut i = 0;
            while i < rows {
                let lines = I::LANES.min(rows - i);
                let mut j = strip;
                while j < end {
                    let width = I::LANES.min(end - j);
                    // SAFETY: i + lines ≤ rows and j + width ≤ cols.
                    unsafe {
                        let (from, to) = (src.add(i * src_stride + j), dst.add(j * dst_stride + i));
                        if lines == I::LANES && width == I::LANES {
                            isa.transpose_block(from, src_stride, to, dst_stride);
                        } else {
                            edge(from, src_stride, to, dst_stride, lines, width);
                        }
                    }
                    j += width;
                }
                i += lines;
            }
            strip = end;
        }
    }
}

/// Less than a tile, element by element.
///
/// # Safety
/// `lines` × `width` elements are there on both sides.
#[inline(always)]
unsafe fn edge(
    src: *const f32,
    src_stride: usize,
    dst: *mut f32,
    dst_stride: usize,
    lines: usize,
    width: usize,
) {
    for j in 0..width {
        for i in 0..lines {
            // SAFETY: the caller's promise.
            unsafe { dst.add(j * dst_stride + i).write(src.add(i * src_stride + j).read()) };
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
        for isa in IsaId::available() {
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
