//! Conversions between f32 and the 16-bit floats, whose elements are given as their bits.

use super::{LINE, Piece, check_len, divide, kernels};
use crate::error::Result;
use crate::kernels::convert::{Narrow, Widen};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that an element takes, about.
const COST: usize = 100;

/// y = x as IEEE half floats, rounded to nearest, ties to even; numbers that are too large become infinite.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) where x and y differ in length; the errors
/// of [`Team::run`].
pub fn f32_to_f16(x: &[f32], y: &mut [u16], team: Option<&Team>) -> Result<()> {
    convert(&kernels()?.convert.to_f16, x, y, team)
}

/// y = x as bfloat16, rounded to nearest, ties to even.
///
/// # Errors
/// As [`f32_to_f16`].
pub fn f32_to_bf16(x: &[f32], y: &mut [u16], team: Option<&Team>) -> Result<()> {
    convert(&kernels()?.convert.to_bf16, x, y, team)
}

/// y = the IEEE half floats x; exact.
///
/// # Errors
/// As [`f32_to_f16`].
pub fn f16_to_f32(x: &[u16], y: &mut [f32], team: Option<&Team>) -> Result<()> {
    convert(&kernels()?.convert.from_f16, x, y, team)
}

/// y = the bfloat16 numbers x; exact.
///
/// # Errors
/// As [`f32_to_f16`].
pub fn bf16_to_f32(x: &[u16], y: &mut [f32], team: Option<&Team>) -> Result<()> {
    convert(&kernels()?.convert.from_bf16, x, y, team)
}

/// A kernel that turns elements of one type into elements of another.
trait Conversion<T, U>: Sync {
    fn apply(&self, x: &[T], y: &mut [U]);
}

impl Conversion<f32, u16> for Narrow {
    fn apply(&self, x: &[f32], y: &mut [u16]) {
        Narrow::apply(self, x, y);
    }
}

impl Conversion<u16, f32> for Widen {
    fn apply(&self, x: &[u16], y: &mut [f32]) {
        Widen::apply(self, x, y);
    }
}

fn convert<T: Sync, U: Send>(
    kernel: &impl Conversion<T, U>,
    x: &[T],
    y: &mut [U],
    team: Option<&Team>,
) -> Result<()> {
    let n = y.len();
    check_len("x", x.len(), n)?;
    if n == 0 {
        return Ok(());
    }
    let _zone = profile::scope(Zone::Convert).work(0, 6 * n as u64);
    divide(Elements { kernel, x, y }, n.saturating_mul(COST) / 1000, LINE, team)
}

/// Some elements, of equal lengths.
struct Elements<'a, K, T, U> {
    kernel: &'a K,
    x: &'a [T],
    y: &'a mut [U],
}

impl<K: Conversion<T, U>, T: Sync, U: Send> Piece for Elements<'_, K, T, U> {
    fn len(&self) -> usize {
        self.y.len()
    }

    fn split(self, n: usize) -> (Self, Self) {
        let ((first_x, x), (first_y, y)) = (self.x.split_at(n), self.y.split_at_mut(n));
        (Self { x: first_x, y: first_y, ..self }, Self { x, y, ..self })
    }

    fn run(self) {
        self.kernel.apply(self.x, self.y);
    }
}
