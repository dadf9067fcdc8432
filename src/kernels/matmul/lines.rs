//! One row of A against lines of B that run along k: a vector of sums for as many lines as it has lanes.
//! Blocks are transposed on the way, so that an output still adds its products for k ascending; at one row
//! transposing is faster than reading the lines from memory.

use crate::isa::{Isa, SimdBody};

/// Lanes of the widest vector.
const WIDEST: usize = 16;

/// A row of C to compute. All memory that it names is there, and Y overlaps none of it.
#[derive(Clone, Copy)]
pub(super) struct Dots {
    /// k floats.
    pub x: *const f32,
    pub k: usize,
    /// Line 0 of B.
    pub b: *const f32,
    /// Floats from one line to the next.
    pub ldb: usize,
    /// Outputs, a multiple of the vector's lanes.
    pub columns: usize,
    pub y: *mut f32,
    /// Sums start from Y, not from 0.
    pub resume: bool,
    /// Added to the start of each sum: `columns` floats, or null.
    pub bias: *const f32,
}

impl SimdBody for &Dots {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const { assert!(I::LANES <= WIDEST) };
        let Dots { x, k, b, ldb, columns, y, resume, bias } = *self;
        let mut block = Block([0.0; WIDEST * WIDEST]);
        let block = block.0.as_mut_ptr();
        for column in (0..columns).step_by(I::LANES) {
            // SAFETY: lines and outputs of whole vectors are there; a block has room for LANES × LANES floats.
            unsafe {
                let lines = b.add(column * ldb);
                let mut sum = if resume { isa.load(y.add(column)) } else { isa.zero() };
                if !bias.is_null() {
                    sum = isa.add(sum, isa.load(bias.add(column)));
                }
                let whole = k - k % I::LANES;
                for at in (0..whole).step_by(I::LANES) {
                    for i in 0..I::LANES {
                        isa.prefetch(lines.wrapping_add(i * ldb + at + super::pack_f32::AHEAD).cast());
                    }
                    isa.transpose_block(lines.add(at), ldb, block, I::LANES);
                    for i in 0..I::LANES {
                        let factor = isa.splat(x.add(at + i).read());
                        sum = isa.mul_add(factor, isa.load(block.add(i * I::LANES)), sum);
                    }
                }
                for at in whole..k {
                    for i in 0..I::LANES {
                        block.add(i).write(lines.add(i * ldb + at).read());
                    }
                    sum = isa.mul_add(isa.splat(x.add(at).read()), isa.load(block), sum);
                }
                isa.store(y.add(column), sum);
            }
        }
    }
}

/// Room for a transposed block.
#[repr(align(64))]
struct Block([f32; WIDEST * WIDEST]);
