//! Copies a tile of plain keys and values to where attention's products read them: keys transposed into panels,
//! values into lines without gaps.

use crate::isa::Isa;
use crate::kernels::routine::Routine;
use crate::kernels::vectors::{Row, RowMut};

/// Some rows of a caller's buffer, and the place that they are packed to.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Pack {
    /// Row 0.
    pub rows: *const f32,
    /// Floats between rows.
    pub stride: usize,
    /// Rows.
    pub count: usize,
    /// Elements of a row.
    pub head_dim: usize,
    /// The first panel, or the first line.
    pub to: *mut f32,
    /// Keys of a panel, or floats between lines.
    pub width: usize,
}

/// Floats of the largest square of LANES keys × LANES elements.
const SQUARE: usize = 256;

/// Packs keys into panels, transposed.
pub(in crate::kernels) struct PackKeys;

impl Routine<Pack> for PackKeys {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &pack: &Pack) {
        for key in (0..pack.count).step_by(I::LANES) {
            let keys = (pack.count - key).min(I::LANES);
            let panel = key / pack.width * pack.width * pack.head_dim;
            for d in (0..pack.head_dim).step_by(I::LANES) {
                let elements = (pack.head_dim - d).min(I::LANES);
                let from = pack.rows.wrapping_add(key * pack.stride + d);
                let to = pack.to.wrapping_add(panel + key % pack.width + d * pack.width);
                // SAFETY: so many keys hold so many more elements, and panels have room for whole vectors.
                unsafe {
                    if keys == I::LANES && elements == I::LANES {
                        isa.transpose_block(from, pack.stride, to, pack.width);
                    } else {
                        part(isa, from, pack.stride, keys, elements, to, pack.width);
                    }
                }
            }
        }
    }
}

/// Transposes a part of a square, by way of a whole one; lines are written whole.
///
/// # Safety
/// `keys` rows of `elements` floats are there, and `elements` lines of whole vectors.
#[inline(always)]
unsafe fn part<I: Isa>(
    isa: I,
    from: *const f32,
    stride: usize,
    keys: usize,
    elements: usize,
    to: *mut f32,
    width: usize,
) {
    let (mut square, mut transposed) = ([0.0f32; SQUARE], [0.0f32; SQUARE]);
    let (square, transposed) = (square.as_mut_ptr(), transposed.as_mut_ptr());
    // SAFETY: the caller promises rows and lines; a square has LANES × LANES floats at most.
    unsafe {
        for i in 0..keys {
            let row = Row::new(from.add(i * stride), elements);
            isa.store(square.add(i * I::LANES), row.load(isa, 0, elements));
        }
        isa.transpose_block(square, I::LANES, transposed, I::LANES);
        for i in 0..elements {
            isa.store(to.add(i * width), isa.load(transposed.add(i * I::LANES)));
        }
    }
}

/// Packs values into lines.
pub(in crate::kernels) struct PackValues;

impl Routine<Pack> for PackValues {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, &pack: &Pack) {
        for i in 0..pack.count {
            let to = pack.to.wrapping_add(i * pack.width);
            // SAFETY: `head_dim` elements are there; lines have room for whole vectors.
            let (from, to) = unsafe {
                let from = Row::new(pack.rows.wrapping_add(i * pack.stride), pack.head_dim);
                (from, RowMut::new(to, pack.head_dim.next_multiple_of(I::LANES)))
            };
            for d in (0..pack.head_dim).step_by(I::LANES) {
                let left = (pack.head_dim - d).min(I::LANES);
                to.store(isa, d, from.load(isa, d, left), I::LANES);
            }
        }
    }
}
