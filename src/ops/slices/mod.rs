//! Operations on slices for callers that have no model: each checks its arguments, divides its work among the
//! workers of a team, and runs the kernel that this CPU runs best. The C ABI only translates to these functions.
//!
//! # Rules
//! - Every argument is checked before anything is computed: a wrong one is an [`Error::InvalidArgument`] that names
//!   it with the numbers, and no output has been written then.
//! - Where an op can work in place, its input is an [`Input`]: a slice, or [`Input::InPlace`] for the elements that
//!   the output holds already.
//! - With `team`, the team's threads share the work where there is enough of it to gain from that; otherwise, and
//!   with `None`, the calling thread does it all. The results have the same bits either way. A call waits for the
//!   team's other callers; inside a region of a team it is refused with [`Error::Busy`].
//! - Nothing is allocated, except that [`attention()`] lets its workspace grow to the largest call.
//! - NaN and infinities are ordinary values; each kernel's documentation states their results.

mod attention;
mod convert;
mod elementwise;
mod norms;
mod reduce;
mod rope;
mod rows;
#[cfg(test)]
mod tests;
mod transpose;

#[cfg(feature = "capi")]
pub(crate) use attention::Extents;
pub use attention::{Attention, AttentionWorkspace, attention};
pub use convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use elementwise::{
    Function, Gate, GatedInput, Gelu, add, axpy, gated, gated_backward, gelu, map, map_backward, mul, scale,
};
pub use norms::{Norm, NormInput, NormParams, NormStatistics, layer_norm, norm, rms_norm};
pub use reduce::{argmax, dot, max, sum};
pub use rope::{RopeShape, rope, rope_table};
pub use rows::{Softmax, add_row, log_softmax, softmax};
pub use transpose::transpose;

pub use crate::kernels::attention::Strides;
pub use crate::kernels::rope::{Pairing, Scaling};

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::threads::Team;

/// Pieces that each worker should find: enough that a worker that comes late costs little.
const PIECES_PER_WORKER: usize = 4;
/// Floats on a cache line.
const LINE: usize = 16;

/// An input: a slice, or the elements that the output holds before the call.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// These elements.
    Slice(&'a [f32]),
    /// The elements of the output, which are overwritten.
    InPlace,
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for Input<'a> {
    fn from(elements: &'a T) -> Self {
        Input::Slice(elements.as_ref())
    }
}

impl<'a> Input<'a> {
    /// The first `n` elements, and those behind them.
    fn split_at(self, n: usize) -> (Self, Self) {
        match self {
            Input::Slice(elements) => {
                let (first, rest) = elements.split_at(n);
                (Input::Slice(first), Input::Slice(rest))
            }
            Input::InPlace => (Input::InPlace, Input::InPlace),
        }
    }

    /// The address of the first element, given the output's.
    fn pointer(self, output: *mut f32) -> *const f32 {
        match self {
            Input::Slice(elements) => elements.as_ptr(),
            Input::InPlace => output.cast_const(),
        }
    }
}

/// Rows × columns of an input x and an output y, row-major, and the floats from one row to the next in each.
///
/// A slice reaches at least from the first to the last element of its rows. Elements between the rows are neither
/// read nor written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowShape {
    /// Rows of x and y.
    pub rows: usize,
    /// Elements of a row.
    pub cols: usize,
    /// Leading dimension of x: floats from one row to the next, at least `cols`. Not looked at where the op works in
    /// place.
    pub ldx: usize,
    /// Leading dimension of y, at least `cols`.
    pub ldy: usize,
}

impl RowShape {
    /// Rows without gaps between them.
    pub const fn new(rows: usize, cols: usize) -> Self {
        Self { rows, cols, ldx: cols, ldy: cols }
    }

    /// An x of rows × cols and a y of cols × rows, both without gaps: for [`transpose()`].
    pub const fn transposed(rows: usize, cols: usize) -> Self {
        Self { rows, cols, ldx: cols, ldy: rows }
    }

    /// The same with these leading dimensions, in floats.
    pub const fn with_ld(self, ldx: usize, ldy: usize) -> Self {
        Self { ldx, ldy, ..self }
    }

    /// Elements; saturates.
    fn elements(&self) -> usize {
        self.rows.saturating_mul(self.cols)
    }

    /// Checks x and y, and gives the shape with the leading dimension that x has where it is y.
    fn check(mut self, x: Input<'_>, y: &[f32]) -> Result<Self> {
        match x {
            Input::Slice(x) => check_rows("x", x.len(), self.rows, self.cols, self.ldx)?,
            Input::InPlace => self.ldx = self.ldy,
        }
        check_rows("y", y.len(), self.rows, self.cols, self.ldy)?;
        Ok(self)
    }
}

/// The rows that an op reads and those that it writes, checked.
struct Matrices<'a> {
    x: Input<'a>,
    y: &'a mut [f32],
    shape: RowShape,
}

impl<'a> Matrices<'a> {
    fn new(x: Input<'a>, y: &'a mut [f32], shape: RowShape) -> Result<Self> {
        let shape = shape.check(x, y)?;
        Ok(Self { x, y, shape })
    }

    /// The first `n` rows, and those behind them.
    fn split_at(self, n: usize) -> (Self, Self) {
        let (x, other_x) = self.x.split_at(n * self.shape.ldx);
        let (y, other_y) = self.y.split_at_mut(n * self.shape.ldy);
        let rows = |rows| RowShape { rows, ..self.shape };
        let others = Self { x: other_x, y: other_y, shape: rows(self.shape.rows - n) };
        (Self { x, y, shape: rows(n) }, others)
    }
}

/// Floats from the first to the last element of `rows` rows of `cols`, `ld` floats apart; 0 for none.
///
/// # Errors
/// [`Error::InvalidArgument`] where the rows overlap or no memory can hold them.
pub(crate) fn floats(name: &str, rows: usize, cols: usize, ld: usize) -> Result<usize> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    if ld < cols {
        return Err(Error::invalid(format!("{name}: {cols} columns, but only {ld} floats to the next row")));
    }
    let len = (rows - 1).checked_mul(ld).and_then(|whole| whole.checked_add(cols));
    len.ok_or_else(|| Error::invalid(format!("{name} of {rows} x {cols} doesn't fit into memory")))
}

/// Checks that a slice of `len` floats holds `rows` rows of `cols`, `ld` floats apart.
fn check_rows(name: &str, len: usize, rows: usize, cols: usize, ld: usize) -> Result<()> {
    let needed = floats(name, rows, cols, ld)?;
    if len < needed {
        return Err(Error::invalid(format!(
            "{name}: {rows} rows of {cols}, {ld} floats apart, are {needed} floats; the slice has {len}"
        )));
    }
    Ok(())
}

/// Checks that a vector has as many elements as it must.
fn check_len(name: &str, len: usize, needed: usize) -> Result<()> {
    if len != needed {
        return Err(Error::invalid(format!("{name} has {len} elements; {needed} are needed")));
    }
    Ok(())
}

/// Refuses NaN and infinities.
fn check_finite(name: &str, value: f32) -> Result<()> {
    if !value.is_finite() {
        return Err(Error::invalid(format!("{name} is {value}; it must be finite")));
    }
    Ok(())
}

/// The kernels that are in use.
fn kernels() -> Result<&'static KernelSet> {
    KernelSet::default_set()
}

/// Bytes of so many floats, for the profile.
fn bytes(floats: usize) -> u64 {
    (floats as u64).saturating_mul(size_of::<f32>() as u64)
}

/// Work that can be divided: rows, or single elements.
trait Piece: Send + Sized {
    /// Units that it can be divided into.
    fn len(&self) -> usize;
    /// The first `n` units, and those behind them.
    fn split(self, n: usize) -> (Self, Self);
    /// Computes it.
    fn run(self);
}

/// Computes `whole`: where it takes `nanoseconds` or so, enough to be worth waking them, on the workers of the team, in
/// pieces of whole `grain`s, each of which goes to the next free worker.
fn divide<P: Piece>(whole: P, nanoseconds: usize, grain: usize, team: Option<&Team>) -> Result<()> {
    let Some(team) = worth_sharing(nanoseconds, team.filter(|_| whole.len() > grain)) else {
        whole.run();
        return Ok(());
    };
    let most = whole.len().div_ceil(team.count() * PIECES_PER_WORKER).next_multiple_of(grain);
    let rest = Mutex::new(Some(whole));
    team.run(|_| {
        while let Some(piece) = next(&rest, most) {
            piece.run();
        }
    })
}

/// The team, if it has several workers and they save more time than waking them takes.
fn worth_sharing(nanoseconds: usize, team: Option<&Team>) -> Option<&Team> {
    /// Four times the 5 µs or so that a region costs: half of that is left to gain for two threads.
    const LEAST_NANOSECONDS: usize = 20_000;
    team.filter(|team| team.count() > 1 && nanoseconds >= LEAST_NANOSECONDS)
}

/// Takes up to `most` units from the rest.
fn next<P: Piece>(rest: &Mutex<Option<P>>, most: usize) -> Option<P> {
    let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = rest.take()?;
    if whole.len() <= most {
        return Some(whole);
    }
    let (piece, others) = whole.split(most);
    *rest = Some(others);
    Some(piece)
}
