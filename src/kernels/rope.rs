//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pairs of a head's elements are rotated by an angle
//! that grows with the position. The caller computes the angles ahead, in f64, with [`fill`].
//! In place on rows `[tokens][n_head][head_dim]` of queries or keys.
//!
//! Contract: any alignment and stride; each row by itself and each head alike, so any split gives the same bits.
//! A pair (a, b) comes out off by at most 3 · 2⁻²⁴ · (|a| + |b|) in each element. Elements from `rot_dim` on, and
//! all memory between rows, stay untouched.

mod angles;
#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, At, LEVELS};
use super::routine::{Code, Routine};
use super::table::{self, Entry};
use super::vectors::{Row, RowMut, Rows, RowsMut};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId};
pub use angles::{Angles, Ramp, Scaling, check, fill};
use std::marker::PhantomData;
use std::slice::from_raw_parts;

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Elements 2i and 2i + 1, as in the paper, in GPT-J, and in Llama models stored as GGUF.
    Adjacent,
    /// Elements i and i + rot_dim/2, as in GPT-NeoX and in Llama models of the `transformers` library.
    Halves,
}

/// Rows of queries or keys to rotate.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct RopeArgs {
    /// First row.
    pub x: *mut f32,
    /// Floats between rows.
    pub stride: usize,
    /// The position of each row.
    pub positions: *const u32,
    /// Number of rows.
    pub tokens: usize,
    /// Heads in a row.
    pub n_head: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Rows and angles.
struct Rotation {
    rows: RopeArgs,
    rot_dim: usize,
    /// Cosines and sines, as [`Angles`] has them.
    angles: *const f32,
}

/// A rotary embedding.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<Rotation>,
}

impl Rope {
    const fn at<I: Isa, P: Pairs>(op: &'static str) -> Self {
        Self { info: KernelInfo::of::<I>(op, "f32"), code: Code::of::<I, Rotate<P>>() }
    }

    /// Rotates adjoining rows `[positions.len()][n_head][head_dim]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit, heads are shorter than the angles' `rot_dim`, or a
    /// position has no angles; nothing is changed then.
    pub fn apply(&self, angles: Angles, x: &mut [f32], positions: &[u32], head_dim: usize) -> Result<()> {
        let (rot_dim, n_ctx) = (angles.rot_dim(), angles.n_ctx());
        let heads = x.len().checked_div(head_dim).unwrap_or(0);
        let n_head = heads.checked_div(positions.len()).unwrap_or(0);
        if x.len() != positions.len() * n_head * head_dim {
            let (floats, rows) = (x.len(), positions.len());
            return Err(Error::invalid(format!(
                "{floats} floats are not {rows} rows of heads of {head_dim}"
            )));
        }
        if head_dim < rot_dim && !x.is_empty() {
            return Err(Error::invalid(format!(
                "heads of {head_dim} are shorter than their {rot_dim} rotated elements"
            )));
        }
        if let Some(position) = positions.iter().find(|&&p| p as usize >= n_ctx) {
            return Err(Error::invalid(format!("position {position} of {n_ctx} in the table")));
        }
        let stride = n_head * head_dim;
        let (tokens, positions) = (positions.len(), positions.as_ptr());
        let args = RopeArgs { x: x.as_mut_ptr(), stride, positions, tokens, n_head, head_dim };
        // SAFETY: the slice holds `tokens` rows of `n_head · head_dim`; heads and positions were just checked.
        unsafe { self.run(angles, &args) };
        Ok(())
    }

    /// Rotates the rows that `args` describes.
    ///
    /// # Safety
    /// Rows are readable and writable for `n_head · head_dim` floats; `positions` is readable for `tokens`, each
    /// of them below the angles' `n_ctx`; `rot_dim ≤ head_dim`.
    #[doc(hidden)]
    pub unsafe fn run(&self, angles: Angles, args: &RopeArgs) {
        let (rot_dim, angles) = (angles.rot_dim(), angles.data().as_ptr());
        // SAFETY: `select` has proved the level; the caller promises the rows and positions.
        unsafe { self.code.run(&Rotation { rows: *args, rot_dim, angles }) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy, Debug)]
pub struct RopeKernels {
    /// Pairs of neighbours.
    pub adjacent: Rope,
    /// Pairs across the halves of a head.
    pub halves: Rope,
}

impl<I: Isa> At<I> for RopeKernels {
    const KERNELS: Self = Self {
        adjacent: Rope::at::<I, Adjacent>("rope_adjacent"),
        halves: Rope::at::<I, Halves>("rope_halves"),
    };
}

static TABLE: [RopeKernels; LEVELS] = levels::table();

impl Entry for RopeKernels {
    fn isa(&self) -> IsaId {
        self.adjacent.info.isa
    }
}

impl RopeKernels {
    /// The best kernels that run at `isa` and on this CPU.
    pub fn select(isa: IsaId) -> Self {
        table::choose(&TABLE, isa)
    }

    /// The kernel for a pairing.
    pub fn of(&self, pairing: Pairing) -> &Rope {
        match pairing {
            Pairing::Adjacent => &self.adjacent,
            Pairing::Halves => &self.halves,
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    TABLE.iter().flat_map(|RopeKernels { adjacent, halves }| [adjacent.info, halves.info])
}

/// Rotates row by row.
struct Rotate<P>(PhantomData<P>);

impl<P: Pairs> Routine<Rotation> for Rotate<P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Rotation) {
        let &Rotation { rows: RopeArgs { x, stride, positions, tokens, n_head, head_dim }, rot_dim, angles } =
            args;
        // SAFETY: the caller promises positions and rows, and angles for each position, of which only those are read.
        let (positions, x, angles) = unsafe {
            let x = RowsMut::new(x, stride, tokens, n_head * head_dim);
            (from_raw_parts(positions, tokens), x, Rows::new(angles, rot_dim, usize::MAX, rot_dim))
        };
        for (t, &position) in positions.iter().enumerate() {
            P::row(isa, x.row(t), angles.row(position as usize), rot_dim / 2, args);
        }
    }
}

/// A way of pairing elements.
trait Pairs {
    /// Rotates the heads of one row: a vector of angles at a time, and all heads by it. There are `half` cosines and as many
    /// sines behind them, and `2 · half ≤ head_dim`.
    fn row<I: Isa>(isa: I, row: RowMut, cos: Row, half: usize, args: &Rotation);
}

/// [`Pairing::Adjacent`].
struct Adjacent;

impl Pairs for Adjacent {
    #[inline(always)]
    fn row<I: Isa>(isa: I, row: RowMut, cos: Row, half: usize, args: &Rotation) {
        const SIGNS: [f32; 16] = [-1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1.];
        const { assert!(I::LANES <= SIGNS.len() && I::LANES % 2 == 0) };
        let signs = isa.first_of(&SIGNS);
        let (sin, heads) = (cos.from(half), &args.rows);
        let mut i = 0;
        while i < half {
            let pairs = (I::LANES / 2).min(half - i);
            // (a, b) to (a·cos − b·sin, b·cos + a·sin): the swapped vector times (−sin, sin).
            let sin = sin.load(isa, i, pairs);
            let cos = isa.dup_pairs(cos.load(isa, i, pairs));
            let sin = isa.mul(signs, isa.dup_pairs(sin));
            for h in 0..heads.n_head {
                let at = h * heads.head_dim + 2 * i;
                let x = row.load(isa, at, 2 * pairs);
                let y = isa.mul_add(isa.swap_pairs(x), sin, isa.mul(x, cos));
                row.store(isa, at, y, 2 * pairs);
            }
            i += pairs;
        }
    }
}

/// [`Pairing::Halves`].
struct Halves;

impl Pairs for Halves {
    #[inline(always)]
    fn row<I: Isa>(isa: I, row: RowMut, cos: Row, half: usize, args: &Rotation) {
        let mut i = 0;
        while i + I::LANES <= half {
            across_halves(isa, row, cos, half, (i, I::LANES), args);
            i += I::LANES;
        }
        if i < half {
            across_halves(isa, row, cos, half, (i, half - i), args);
        }
    }
}

/// Rotates `count ≤ LANES` pairs of each head from `i` on.
#[inline(always)]
fn across_halves<I: Isa>(
    isa: I,
    row: RowMut,
    cos: Row,
    half: usize,
    (i, count): (usize, usize),
    args: &Rotation,
) {
    let (cos, sin) = (cos.load(isa, i, count), cos.load(isa, half + i, count));
    for h in 0..args.rows.n_head {
        let first = h * args.rows.head_dim + i;
        let second = first + half;
        let (a, b) = (row.load(isa, first, count), row.load(isa, second, count));
        row.store(isa, first, isa.neg_mul_add(b, sin, isa.mul(a, cos)), count);
        row.store(isa, second, isa.mul_add(a, sin, isa.mul(b, cos)), count);
    }
}
