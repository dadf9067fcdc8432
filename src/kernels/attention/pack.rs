//! Puts a tile of plain keys and values where attention's products read them: keys into panels, turned round,
//! values into lines without gaps.

use crate::isa::{Isa, Kernel};

/// Some rows of a caller's buffer, and where they go.
#[derive(Clone, Copy)]
pub(super) struct Pack {
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

/// # Safety
/// The CPU has the level, the rows are there, and `to` has room for whole panels.
pub(super) unsafe fn keys<I: Isa>(step: &Pack) {
    // SAFETY: the caller's promise.
    let isa = unsafe { I::new_unchecked() };
    match I::LANES {
        16 => isa.vectorize(Keys::<16>(step)),
        8 => isa.vectorize(Keys::<8>(step)),
        _ => isa.vectorize(Keys::<4>(step)),
    }
}

/// # Safety
/// The CPU has the level, the rows are there, and `to` has room for the lines.
pub(super) unsafe fn values<I: Isa>(step: &Pack) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Values(step));
}

/// Squares of N keys × N elements, N being the lanes of a vector.
struct Keys<'a, const N: usize>(&'a Pack);

impl<const N: usize> Kernel for Keys<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pack = *self.0;
        for key in (0..pack.count).step_by(N) {
            let keys = (pack.count - key).min(N);
            let from = pack.rows.wrapping_add(key * pack.stride);
            let panel = key / pack.width * pack.width * pack.head_dim;
            let to = pack.to.wrapping_add(panel + key % pack.width);
            for d in (0..pack.head_dim).step_by(N) {
                let elements = (pack.head_dim - d).min(N);
                let mut square = [isa.zero(); N];
                for (i, row) in square.iter_mut().enumerate() {
                    let row_from = from.wrapping_add(i * pack.stride + d);
                    // SAFETY: rows below `keys` hold `elements` more floats.
                    unsafe {
                        if keys == N && elements == N {
                            *row = isa.load(row_from);
                        } else if i < keys {
                            *row = isa.load_first(row_from, elements);
                        }
                    }
                }
                let square = transposed(isa, square);
                for (i, &line) in square.iter().enumerate() {
                    if i < elements {
                        // SAFETY: a line of the panel has room for whole vectors.
                        unsafe { isa.store(to.wrapping_add((d + i) * pack.width), line) };
                    }
                }
            }
        }
    }
}

/// Rows become columns: each round weaves the first half of the rows with the second, and moves one bit of an
/// element's column into its row.
#[inline(always)]
fn transposed<I: Isa, const N: usize>(isa: I, mut square: [I::F32; N]) -> [I::F32; N] {
    for _ in 0..N.ilog2() {
        let mut woven = square;
        for i in 0..N / 2 {
            (woven[2 * i], woven[2 * i + 1]) = isa.zip(square[i], square[i + N / 2]);
        }
        square = woven;
    }
    square
}

struct Values<'a>(&'a Pack);

impl Kernel for Values<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pack = *self.0;
        for i in 0..pack.count {
            let (from, to) = (pack.rows.wrapping_add(i * pack.stride), pack.to.wrapping_add(i * pack.width));
            for d in (0..pack.head_dim).step_by(I::LANES) {
                let left = (pack.head_dim - d).min(I::LANES);
                // SAFETY: `left` elements are there; lines have room for whole vectors.
                unsafe {
                    let x = if left == I::LANES {
                        isa.load(from.add(d))
                    } else {
                        isa.load_first(from.add(d), left)
                    };
                    isa.store(to.add(d), x);
                }
            }
        }
    }
}
