//! Rotary position embedding of rows of heads, and the table of its angles.

use super::{Piece, Scaling, bytes, check_len, check_rows, divide, kernels};
use crate::error::{Error, Result};
use crate::kernels::rope::{Angles, Pairing, Rope, RopeArgs, fill};
use crate::profile::{self, Zone};
use crate::threads::Team;

/// Picoseconds that an element takes, about.
const COST: usize = 200;

/// Rows of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RopeShape {
    /// Rows, one for each position.
    pub rows: usize,
    /// Heads of a row.
    pub n_head: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Leading dimension: floats from one row to the next, at least `n_head · head_dim`.
    pub ldx: usize,
}

impl RopeShape {
    /// Rows without gaps between them.
    pub const fn new(rows: usize, n_head: usize, head_dim: usize) -> Self {
        Self { rows, n_head, head_dim, ldx: n_head.saturating_mul(head_dim) }
    }

    /// The same with this leading dimension, in floats.
    pub const fn with_ld(self, ldx: usize) -> Self {
        Self { ldx, ..self }
    }

    /// Floats of a row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where no memory can hold it.
    pub(crate) fn cols(&self) -> Result<usize> {
        let cols = self.n_head.checked_mul(self.head_dim);
        cols.ok_or_else(|| Error::invalid("n_head times head_dim doesn't fit into memory"))
    }
}

/// Writes the cosines, then the sines, of each position from 0 on: `rot_dim` floats a position, as many positions as
/// the table has room for.
///
/// Pair i of a head rotates by `position · freq_scale · base^(−2i / rot_dim) / factors[i]`.
///
/// # Errors
/// [`Error::InvalidArgument`] where `rot_dim` is odd, the table holds no whole number of positions, there is not one
/// factor for each pair, or a number is not positive and finite. Nothing is written then.
pub fn rope_table(table: &mut [f32], rot_dim: usize, base: f32, scaling: Scaling<'_>) -> Result<()> {
    fill(table, rot_dim, base, scaling)
}

/// Rotates the first `rot_dim` elements of each head of x, in place; row r stands at `positions[r]`. `table` holds
/// `rot_dim` floats for each position, as [`rope_table`] writes them; with 0, nothing is rotated.
///
/// # Errors
/// [`Error::InvalidArgument`] where x is too short for its rows, `ldx` is below the length of a row, `rot_dim` is odd
/// or above `head_dim`, the table holds no whole number of positions, there isn't one position for each row, or the
/// table doesn't have that position; the errors of [`Team::run`]. Nothing is changed then.
pub fn rope(
    pairing: Pairing,
    x: &mut [f32],
    shape: RopeShape,
    positions: &[u32],
    (table, rot_dim): (&[f32], usize),
    team: Option<&Team>,
) -> Result<()> {
    let cols = shape.cols()?;
    check_rows("x", x.len(), shape.rows, cols, shape.ldx)?;
    if shape.rows == 0 || cols == 0 || rot_dim == 0 {
        return Ok(());
    }
    if rot_dim > shape.head_dim {
        let head_dim = shape.head_dim;
        return Err(Error::invalid(format!("rot_dim is {rot_dim}, but heads have {head_dim} elements")));
    }
    check_len("positions", positions.len(), shape.rows)?;
    let angles = Angles::new(table, rot_dim)?;
    if let Some(position) = positions.iter().find(|&&p| p as usize >= angles.n_ctx()) {
        return Err(Error::invalid(format!(
            "position {position}, but the table has {} positions",
            angles.n_ctx()
        )));
    }
    let kernel = kernels()?.rope.of(pairing);
    let elements = shape.rows.saturating_mul(cols);
    let _zone = profile::scope(Zone::Rope).work(0, bytes(elements.saturating_mul(2)));
    divide(Rows { kernel, angles, x, shape, positions }, elements.saturating_mul(COST) / 1000, 1, team)
}

/// Some rows, checked.
struct Rows<'a> {
    kernel: &'static Rope,
    angles: Angles<'a>,
    x: &'a mut [f32],
    shape: RopeShape,
    positions: &'a [u32],
}

impl Piece for Rows<'_> {
    fn len(&self) -> usize {
        self.shape.rows
    }

    fn split(self, n: usize) -> (Self, Self) {
        let (first_x, x) = self.x.split_at_mut(n * self.shape.ldx);
        let (first_positions, positions) = self.positions.split_at(n);
        let rows = |rows| RopeShape { rows, ..self.shape };
        let others = Self { x, positions, shape: rows(self.shape.rows - n), ..self };
        (Self { x: first_x, positions: first_positions, shape: rows(n), ..self }, others)
    }

    fn run(self) {
        let RopeShape { rows, n_head, head_dim, ldx } = self.shape;
        let args = RopeArgs {
            x: self.x.as_mut_ptr(),
            stride: ldx,
            positions: self.positions.as_ptr(),
            tokens: rows,
            n_head,
            head_dim,
        };
        // SAFETY: x holds the rows that the shape says, with a position for each; the table has these positions, and
        // its `rot_dim` is at most `head_dim`, as the op has checked.
        unsafe { self.kernel.run(self.angles, &args) }
    }
}
