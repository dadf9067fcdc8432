//! Element types of packed weights: how a row of a panel is stored and widened to f32 in registers.
//! A row of a panel is `NV` vectors of columns at one k.
//! bfloat16 stores two vectors woven together, so that a shift and a mask widen both without a shuffle.

use crate::isa::Isa;
use crate::quant::DType;

/// Storage of one element type inside a panel.
pub(crate) trait Weight: 'static {
    /// The type.
    const DTYPE: DType;
    /// Bytes of an element.
    const BYTES: usize;
    /// Place of column `column` within a panel's row, in elements, for vectors of `lanes`.
    fn place(lanes: usize, column: usize) -> usize;
    /// A panel's row widened to f32, vector by vector in column order.
    ///
    /// # Safety
    /// `p` is readable for `NV · LANES` elements, or one vector more where `NV` is odd.
    unsafe fn load<I: Isa, const NV: usize>(isa: I, p: *const u8) -> [I::F32; NV];
}

/// IEEE single.
pub(super) struct F32;
/// IEEE half.
pub(super) struct F16;
/// bfloat16.
pub(crate) struct Bf16;

impl Weight for F32 {
    const DTYPE: DType = DType::F32;
    const BYTES: usize = 4;
    fn place(_lanes: usize, column: usize) -> usize {
        column
    }
    #[inline(always)]
    unsafe fn load<I: Isa, const NV: usize>(isa: I, p: *const u8) -> [I::F32; NV] {
        let mut row = [isa.zero(); NV];
        for (v, x) in row.iter_mut().enumerate() {
            // SAFETY: vector v is inside the row.
            *x = unsafe { isa.load(p.cast::<f32>().add(v * I::LANES)) };
        }
        row
    }
}

impl Weight for F16 {
    const DTYPE: DType = DType::F16;
    const BYTES: usize = 2;
    fn place(_lanes: usize, column: usize) -> usize {
        column
    }
    #[inline(always)]
    unsafe fn load<I: Isa, const NV: usize>(isa: I, p: *const u8) -> [I::F32; NV] {
        let mut row = [isa.zero(); NV];
        for (v, x) in row.iter_mut().enumerate() {
            // SAFETY: vector v is inside the row.
            *x = unsafe { isa.load_f16(p.cast::<u16>().add(v * I::LANES)) };
        }
        row
    }
}

impl Weight for Bf16 {
    const DTYPE: DType = DType::BF16;
    const BYTES: usize = 2;
    fn place(lanes: usize, column: usize) -> usize {
        // 32-bit word l of a pair of vectors holds lane l of the first below and of the second above.
        let (pair, within) = (column / (2 * lanes), column % (2 * lanes));
        pair * 2 * lanes + (within % lanes) * 2 + within / lanes
    }
    #[inline(always)]
    unsafe fn load<I: Isa, const NV: usize>(isa: I, p: *const u8) -> [I::F32; NV] {
        let mut row = [isa.zero(); NV];
        for pair in 0..NV.div_ceil(2) {
            // SAFETY: the pair's words are inside the row.
            let words = unsafe { isa.load_i32(p.cast::<i32>().add(pair * I::LANES)) };
            row[2 * pair] = isa.from_bits(isa.shl::<16>(words));
            if 2 * pair + 1 < NV {
                row[2 * pair + 1] = isa.from_bits(isa.and(words, isa.splat_i32(-0x1_0000)));
            }
        }
        row
    }
}
