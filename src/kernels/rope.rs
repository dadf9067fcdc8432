//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pairs of a head's elements turn by an angle that
//! grows with the position. Angles are computed ahead, in f64, into a [`Table`] of cosines and sines.
//! In place on rows `[tokens][n_head][head_dim]` of queries or keys.
//!
//! Contract: any alignment and stride; each row by itself and each head alike, so any split gives the same bits.
//! A pair (a, b) comes out off by at most 3 · 2⁻²⁴ · (|a| + |b|) in each element. Elements from `rot_dim` on, and
//! whatever lies between rows, stay untouched.

#[cfg(test)]
mod tests;

use super::info::KernelInfo;
use super::levels::{self, Levels};
use crate::error::{Error, Result};
use crate::isa::{Isa, IsaId, SimdBody};

/// Which elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Elements 2i and 2i + 1, as in the paper, in GPT-J, and in Llama models stored as GGUF.
    Adjacent,
    /// Elements i and i + rot_dim/2, as in GPT-NeoX and in Llama models of the `transformers` library.
    Halves,
}

/// What changes a model's frequencies; the default changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// Factor on positions; below 1 it is linear interpolation (Chen et al. 2023, arXiv:2306.15595).
    pub freq_scale: f32,
    /// A divisor for each of the `rot_dim / 2` frequencies (Llama 3's `rope_freqs`); absent for 1.
    pub factors: Option<&'a [f32]>,
    /// Which frequencies `freq_scale` holds for; absent for all.
    pub ramp: Option<Ramp>,
    /// Factor on all cosines and sines, hence on whatever is turned.
    pub magnitude: f32,
}

/// A passage from fast frequencies, which stay, to slow ones, which are scaled (YaRN, Peng et al. 2023,
/// arXiv:2309.00071).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Up to this pair frequencies stay.
    pub begin: f64,
    /// From this pair on they are scaled; in between, in part.
    pub end: f64,
    /// How much of a frequency stays at most, 0 to 1.
    pub strength: f64,
}

impl Ramp {
    /// How much of pair `i`'s frequency stays.
    fn kept(&self, i: usize) -> f64 {
        let along = (i as f64 - self.begin) / (self.end - self.begin).max(0.001);
        (1.0 - along.clamp(0.0, 1.0)) * self.strength
    }
}

impl Default for Scaling<'_> {
    fn default() -> Self {
        Self { freq_scale: 1.0, factors: None, ramp: None, magnitude: 1.0 }
    }
}

/// Cosines and sines of positions 0 .. n_ctx.
#[derive(Debug)]
pub struct Table {
    n_ctx: usize,
    rot_dim: usize,
    /// `[position][cosines, then sines][rot_dim / 2]`.
    data: Vec<f32>,
}

/// Cosines and sines of positions, wherever they are kept.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    n_ctx: usize,
    rot_dim: usize,
    data: &'a [f32],
}

impl<'a> Angles<'a> {
    /// Reads `data` as `[position][cosines, then sines][rot_dim / 2]`, which [`fill`] writes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rot_dim` is odd or 0, or `data` no whole number of positions.
    pub fn new(data: &'a [f32], rot_dim: usize) -> Result<Self> {
        if rot_dim == 0 || !rot_dim.is_multiple_of(2) || !data.len().is_multiple_of(rot_dim) {
            let floats = data.len();
            return Err(Error::invalid(format!(
                "{floats} floats are no angles of {rot_dim} elements that turn"
            )));
        }
        Ok(Self { n_ctx: data.len() / rot_dim, rot_dim, data })
    }

    /// Positions that there are.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }
}

/// Positions whose angles are computed together.
const STRETCH: usize = 64;

/// Writes the angles of positions 0, 1, … as [`Angles`] reads them: as many positions as `data` has room for.
/// Pair i at position p turns by `p · freq_scale · base^(−2i/rot_dim) / factors[i]`; with a ramp, what of the
/// frequency stays isn't scaled.
///
/// # Errors
/// [`Error::InvalidArgument`] where `rot_dim` is odd, there is not one factor for each pair, a number is not positive
/// and finite, or `data` holds no whole number of positions; nothing is written then.
pub fn fill(data: &mut [f32], rot_dim: usize, base: f32, scaling: Scaling) -> Result<()> {
    check(rot_dim, base, scaling)?;
    if rot_dim == 0 {
        return Ok(());
    }
    Angles::new(data, rot_dim)?;
    let (scale, magnitude) = (f64::from(scaling.freq_scale), f64::from(scaling.magnitude));
    let half = rot_dim / 2;
    // A frequency is a power, so it serves a stretch of positions, which stays in cache meanwhile.
    for (stretch, lines) in data.chunks_mut(STRETCH * rot_dim).enumerate() {
        for i in 0..half {
            let divisor = scaling.factors.map_or(1.0, |factors| f64::from(factors[i]));
            let power = f64::from(base).powf(-2.0 * i as f64 / rot_dim as f64);
            let scale = scaling.ramp.map_or(scale, |ramp| scale + (1.0 - scale) * ramp.kept(i));
            for (position, line) in lines.chunks_exact_mut(rot_dim).enumerate() {
                let position = (stretch * STRETCH + position) as f64;
                let (sin, cos) = (position * scale * power / divisor).sin_cos();
                (line[i], line[half + i]) = ((cos * magnitude) as f32, (sin * magnitude) as f32);
            }
        }
    }
    Ok(())
}

/// Refuses what makes no angles.
fn check(rot_dim: usize, base: f32, scaling: Scaling) -> Result<()> {
    let half = rot_dim / 2;
    if !rot_dim.is_multiple_of(2) {
        return Err(Error::invalid(format!("rotary dimension {rot_dim} is odd")));
    }
    let factors = scaling.factors.unwrap_or(&[]);
    if scaling.factors.is_some() && factors.len() != half {
        return Err(Error::invalid(format!("{} rope factors for {half} frequencies", factors.len())));
    }
    for &x in [base, scaling.freq_scale, scaling.magnitude].iter().chain(factors) {
        if !(x > 0.0 && x.is_finite()) {
            return Err(Error::invalid(format!("rope frequency parameter {x} is not positive and finite")));
        }
    }
    Ok(())
}

impl Table {
    /// Angles as [`fill`] computes them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`fill`]; [`Error::OutOfMemory`] where the `4 · n_ctx · rot_dim` bytes are not to
    /// be had.
    pub fn new(n_ctx: usize, rot_dim: usize, base: f32, scaling: Scaling) -> Result<Self> {
        check(rot_dim, base, scaling)?;
        let bytes = n_ctx.saturating_mul(rot_dim).saturating_mul(size_of::<f32>());
        let mut data = Vec::new();
        data.try_reserve_exact(bytes / size_of::<f32>())
            .map_err(|_| Error::OutOfMemory { bytes, what: "the rotary table" })?;
        data.resize(n_ctx * rot_dim, 0.0);
        fill(&mut data, rot_dim, base, scaling)?;
        Ok(Self { n_ctx, rot_dim, data })
    }

    /// What the kernels read.
    pub fn angles(&self) -> Angles<'_> {
        Angles { n_ctx: self.n_ctx, rot_dim: self.rot_dim, data: &self.data }
    }

    /// Positions in the table.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Elements of a head that turn.
    pub fn rot_dim(&self) -> usize {
        self.rot_dim
    }

    /// Bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }
}

/// Rows of queries or keys to turn.
#[derive(Clone, Copy, Debug)]
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

/// A rotary embedding.
#[derive(Clone, Copy)]
pub struct Rope {
    /// What the kernel is.
    pub info: KernelInfo,
    run: unsafe fn(Angles<'_>, &RopeArgs),
}

impl Rope {
    /// Turns adjoining rows `[positions.len()][n_head][head_dim]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where lengths do not fit, heads are shorter than the table's `rot_dim`, or a
    /// position is not in the table; nothing is changed then.
    pub fn apply(&self, table: Angles, x: &mut [f32], positions: &[u32], head_dim: usize) -> Result<()> {
        let heads = x.len().checked_div(head_dim).unwrap_or(0);
        let n_head = heads.checked_div(positions.len()).unwrap_or(0);
        if x.len() != positions.len() * n_head * head_dim {
            let (floats, rows) = (x.len(), positions.len());
            return Err(Error::invalid(format!(
                "{floats} floats are not {rows} rows of heads of {head_dim}"
            )));
        }
        if head_dim < table.rot_dim && !x.is_empty() {
            let rot_dim = table.rot_dim;
            return Err(Error::invalid(format!(
                "heads of {head_dim} are shorter than what turns, {rot_dim}"
            )));
        }
        if let Some(position) = positions.iter().find(|&&p| p as usize >= table.n_ctx) {
            return Err(Error::invalid(format!("position {position} of {} in the table", table.n_ctx)));
        }
        let stride = n_head * head_dim;
        let (tokens, positions) = (positions.len(), positions.as_ptr());
        let args = RopeArgs { x: x.as_mut_ptr(), stride, positions, tokens, n_head, head_dim };
        // SAFETY: the slice holds `tokens` rows of `n_head · head_dim`, and all else was just checked.
        unsafe { (self.run)(table, &args) };
        Ok(())
    }

    /// Turns the rows that `args` describes.
    ///
    /// # Safety
    /// Rows are readable and writable for `n_head · head_dim` floats; `positions` is readable for `tokens`, each
    /// of them below the table's `n_ctx`; `rot_dim ≤ head_dim`.
    pub unsafe fn run(&self, table: Angles, args: &RopeArgs) {
        // SAFETY: the caller's promise.
        unsafe { (self.run)(table, args) }
    }
}

/// This family's kernels at one level.
#[derive(Clone, Copy)]
pub struct RopeKernels {
    /// Pairs of neighbours.
    pub adjacent: Rope,
    /// Pairs across the halves of a head.
    pub halves: Rope,
}

impl RopeKernels {
    /// The best kernels that run at `isa`.
    pub fn select(isa: IsaId) -> Self {
        levels::select(isa)
    }

    /// The kernel for a pairing.
    pub fn of(&self, pairing: Pairing) -> &Rope {
        match pairing {
            Pairing::Adjacent => &self.adjacent,
            Pairing::Halves => &self.halves,
        }
    }
}

impl Levels for RopeKernels {
    fn at<I: Isa>() -> Self {
        let info = |op| KernelInfo { op, dtype: "f32", isa: I::ID, mr: 1, nr: 1 };
        Self {
            adjacent: Rope { info: info("rope_adjacent"), run: entry::<I, Adjacent> },
            halves: Rope { info: info("rope_halves"), run: entry::<I, Halves> },
        }
    }
}

/// Every kernel of the family.
pub fn kernels() -> impl Iterator<Item = KernelInfo> {
    levels::all::<RopeKernels>().into_iter().flat_map(|(_, set)| [set.adjacent.info, set.halves.info])
}

/// # Safety
/// `I` is available; the rest as [`Rope::run`] says.
unsafe fn entry<I: Isa, T: Turn>(table: Angles<'_>, args: &RopeArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Rows { table, args, turn: std::marker::PhantomData::<T> })
}

struct Rows<'a, T> {
    table: Angles<'a>,
    args: &'a RopeArgs,
    turn: std::marker::PhantomData<T>,
}

impl<T: Turn> SimdBody for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { table, args, .. } = self;
        let half = table.rot_dim / 2;
        for t in 0..args.tokens {
            // SAFETY: `positions` reaches to `tokens`, and what it holds lies in the table; row t is the caller's.
            unsafe {
                let position = *args.positions.add(t) as usize;
                let cos = table.data.as_ptr().add(position * table.rot_dim);
                let row = args.x.add(t * args.stride);
                T::row(isa, row, cos, cos.add(half), half, args);
            }
        }
    }
}

/// A way of pairing elements.
trait Turn {
    /// Turns the heads of one row: a vector of angles at a time, and all heads by it.
    ///
    /// # Safety
    /// `row` is readable and writable for `n_head · head_dim` floats, `cos` and `sin` readable for `half`, and
    /// `2 · half ≤ head_dim`.
    unsafe fn row<I: Isa>(
        isa: I,
        row: *mut f32,
        cos: *const f32,
        sin: *const f32,
        half: usize,
        args: &RopeArgs,
    );
}

/// [`Pairing::Adjacent`].
struct Adjacent;

impl Turn for Adjacent {
    #[inline(always)]
    unsafe fn row<I: Isa>(
        isa: I,
        row: *mut f32,
        cos: *const f32,
        sin: *const f32,
        half: usize,
        args: &RopeArgs,
    ) {
        const SIGNS: [f32; 16] = [-1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1., -1., 1.];
        const { assert!(I::LANES <= SIGNS.len() && I::LANES % 2 == 0) };
        // SAFETY: SIGNS holds at least LANES floats.
        let signs = unsafe { isa.load(SIGNS.as_ptr()) };
        let mut i = 0;
        while i < half {
            let pairs = (I::LANES / 2).min(half - i);
            // SAFETY: i + pairs ≤ half, and 2 · half ≤ head_dim.
            unsafe {
                // (a, b) to (a·cos − b·sin, b·cos + a·sin): the swapped vector times (−sin, sin).
                let cos = isa.dup_pairs(isa.load_first(cos.add(i), pairs));
                let sin = isa.mul(signs, isa.dup_pairs(isa.load_first(sin.add(i), pairs)));
                for h in 0..args.n_head {
                    let p = row.add(h * args.head_dim + 2 * i);
                    if 2 * pairs == I::LANES {
                        let x = isa.load(p);
                        isa.store(p, isa.mul_add(isa.swap_pairs(x), sin, isa.mul(x, cos)));
                    } else {
                        let x = isa.load_first(p, 2 * pairs);
                        let y = isa.mul_add(isa.swap_pairs(x), sin, isa.mul(x, cos));
                        isa.store_first(p, y, 2 * pairs);
                    }
                }
            }
            i += pairs;
        }
    }
}

/// [`Pairing::Halves`].
struct Halves;

impl Turn for Halves {
    #[inline(always)]
    unsafe fn row<I: Isa>(
        isa: I,
        row: *mut f32,
        cos: *const f32,
        sin: *const f32,
        half: usize,
        args: &RopeArgs,
    ) {
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
