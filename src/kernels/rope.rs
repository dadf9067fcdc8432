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
use super::vectors::{load, store};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId};
pub use angles::{Angles, Ramp, Scaling, check, fill};
use std::marker::PhantomData;

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
        let Rotation { rows, rot_dim, angles } = args;
        for t in 0..rows.tokens {
            // SAFETY: there are `tokens` positions and rows, and angles for each position.
            unsafe {
                let position = *rows.positions.add(t) as usize;
                let cos = angles.add(position * rot_dim);
                P::row(isa, rows.x.add(t * rows.stride), cos, rot_dim / 2, rows);
            }
        }
    }
}

/// A way of pairing elements.
trait Pairs {
    /// Rotates the heads of one row: a vector of angles at a time, and all heads by it.
    ///
    /// # Safety
    /// `row` is readable and writable for `n_head · head_dim` floats, `cos` readable for `half` cosines and as many
    /// sines behind them, and `2 · half ≤ head_dim`.
    unsafe fn row<I: Isa>(isa: I, row: *mut f32, cos: *const f32, half: usize, args: &RopeArgs);
}

/// [`Pairing::Adjacent`].
struct Adjacent;

impl Pairs for Adjacent {
    #[inline(always)]
    unsafe fn row<I: Isa>(isa: I, row: *mut f32, cos: *const f32, half: usize, args: &RopeArgs) {
        const SIGNS: [f32; 16] = [-1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1.];
        const { assert!(I::LANES <= SIGNS.len() && I::LANES % 2 == 0) };
        let signs = isa.first_of(&SIGNS);
        let sin = cos.wrapping_add(half);
        let mut i = 0;
        while i < half {
            let pairs = (I::LANES / 2).min(half - i);
            // SAFETY: i + pairs ≤ half, and 2 · half ≤ head_dim.
            unsafe {
                // (a, b) to (a·cos − b·sin, b·cos + a·sin): the swapped vector times (−sin, sin).
                let sin = isa.load_first(sin.add(i), pairs);
                let cos = isa.dup_pairs(isa.load_first(cos.add(i), pairs));
                let sin = isa.mul(signs, isa.dup_pairs(sin));
                for h in 0..args.n_head {
                    let p = row.add(h * args.head_dim + 2 * i);
                    let x = load(isa, p, 2 * pairs);
                    let y = isa.mul_add(isa.swap_pairs(x), sin, isa.mul(x, cos));
                    store(isa, p, y, 2 * pairs);
                }
            }
            i += pairs;
        }
    }
}

/// [`Pairing::Halves`].
struct Halves;

impl Pairs for Halves {
    #[inline(always)]
    unsafe fn row<I: Isa>(isa: I, row: *mut f32, cos: *const f32, half: usize, args: &RopeArgs) {
        let sin = cos.wrapping_add(half);
        let mut i = 0;
        while i < half {
            let count = I::LANES.min(half - i);
            // SAFETY: i + count ≤ half, and 2 · half ≤ head_dim.
            unsafe {
                let (cos, sin) = (isa.load_first(cos.add(i), count), isa.load_first(sin.add(i), count));
                for h in 0..args.n_head {
                    let first = row.add(h * args.head_dim + i);
                    let second = first.add(half);
                    let (a, b) = (isa.load_first(first, count), isa.load_first(second, count));
                    isa.store_first(first, isa.neg_mul_add(b, sin, isa.mul(a, cos)), count);
                    isa.store_first(second, isa.mul_add(a, sin, isa.mul(b, cos)), count);
                }
            }
            i += count;
        }
    }
}
