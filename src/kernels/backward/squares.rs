//! Sums of squares, for the norm of a gradient: in blocks of a fixed length, so that the norm doesn't depend on how
//! workers share the blocks.

use crate::error::{Error, Result};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Routine};
use crate::kernels::rows::reduce::{SumOfSquares as Squares, fold};
use crate::kernels::vectors::Row;

/// Floats of a block.
pub const NORM_BLOCK: usize = 1 << 16;
/// Floats whose squares are summed in f32; a block's runs are added in f64, in order.
const RUN: usize = 4096;

/// A block to sum.
struct Block {
    x: Row,
    n: usize,
}

/// Σ x² of each block of a slice.
///
/// Runs of 4,096 squares are summed in f32, in the 4 · LANES partial sums of [`rows`](crate::kernels::rows), and runs in
/// f64, in order: with u = 2⁻²⁴, a sum is off by at most (4096 / (4 · LANES) + 9)·u of itself, and by what squares below
/// 2⁻¹²⁶ add up to. It is NaN or ∞ where an element is, and ∞ where an element is above 1.8e19.
#[derive(Clone, Copy, Debug)]
pub struct SumOfSquares {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<Block, f64>,
}

impl SumOfSquares {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("sum_of_squares", "f32"), code: Code::of::<I, Runs>() }
    }

    /// Sums each block of [`NORM_BLOCK`] floats of the slice; the last one may be shorter.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is not one sum for each block.
    pub fn apply(&self, x: &[f32], sums: &mut [f64]) -> Result<()> {
        let blocks = x.chunks(NORM_BLOCK);
        if blocks.len() != sums.len() {
            return Err(Error::invalid(format!("{} sums for {} blocks", sums.len(), blocks.len())));
        }
        for (block, sum) in blocks.zip(sums) {
            // SAFETY: `select` has proved the level; the block is a slice.
            *sum =
                unsafe { self.code.run(&Block { x: Row::new(block.as_ptr(), block.len()), n: block.len() }) };
        }
        Ok(())
    }
}

/// The norm of the numbers whose squares are summed in blocks: the root of the sums, added in order.
pub fn norm_of(sums: &[f64]) -> f64 {
    sums.iter().sum::<f64>().sqrt()
}

struct Runs;

impl Routine<Block> for Runs {
    type Output = f64;
    #[inline(always)]
    fn run<I: Isa>(isa: I, block: &Block) -> f64 {
        let mut sum = 0.0;
        let mut first = 0;
        while first < block.n {
            let n = RUN.min(block.n - first);
            sum += f64::from(fold::<Squares, I>(isa, &block.x.from(first), n));
            first += n;
        }
        sum
    }
}
