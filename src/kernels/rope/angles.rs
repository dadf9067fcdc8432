//! The angles of rotary position embedding: how they follow from a position, and the cosines and sines that kernels
//! read.

use crate::error::{Error, Result};

/// Changes of a model's frequencies; the default changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// Factor on positions; below 1 it is linear interpolation (Chen et al. 2023, arXiv:2306.15595).
    pub freq_scale: f32,
    /// A divisor for each of the `rot_dim / 2` frequencies (Llama 3's `rope_freqs`); absent for 1.
    pub factors: Option<&'a [f32]>,
    /// The frequencies that `freq_scale` applies to; absent for all.
    pub ramp: Option<Ramp>,
    /// Factor on all cosines and sines, hence on everything that is rotated.
    pub magnitude: f32,
}

impl Default for Scaling<'_> {
    fn default() -> Self {
        Self { freq_scale: 1.0, factors: None, ramp: None, magnitude: 1.0 }
    }
}

/// A passage from fast frequencies, which stay, to slow ones, which are scaled (YaRN, Peng et al. 2023,
/// arXiv:2309.00071).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Up to this pair frequencies stay.
    pub begin: f64,
    /// From this pair on they are scaled; in between, in part.
    pub end: f64,
    /// The largest share of a frequency that stays, 0 to 1.
    pub strength: f64,
}

impl Ramp {
    /// The share of pair `i`'s frequency that stays.
    fn kept(&self, i: usize) -> f64 {
        let along = (i as f64 - self.begin) / (self.end - self.begin).max(0.001);
        (1.0 - along.clamp(0.0, 1.0)) * self.strength
    }
}

/// Cosines and sines of positions 0, 1, …, in memory of the caller.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    n_ctx: usize,
    rot_dim: usize,
    data: &'a [f32],
}

impl<'a> Angles<'a> {
    /// Reads `data` as `[position][cosines, then sines][rot_dim / 2]`, as [`fill`] writes it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `rot_dim` is odd or 0, or `data` holds no whole number of positions.
    pub fn new(data: &'a [f32], rot_dim: usize) -> Result<Self> {
        if rot_dim == 0 || !rot_dim.is_multiple_of(2) || !data.len().is_multiple_of(rot_dim) {
            let floats = data.len();
            return Err(Error::invalid(format!(
                "{floats} floats are no angles of {rot_dim} rotated elements"
            )));
        }
        Ok(Self { n_ctx: data.len() / rot_dim, rot_dim, data })
    }

    /// Angles of `n_ctx` positions at which no element is rotated (`rot_dim` is 0).
    #[inline]
    pub const fn none(n_ctx: usize) -> Self {
        Self { n_ctx, rot_dim: 0, data: &[] }
    }

    /// Number of positions.
    pub const fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Elements of a head that are rotated.
    pub const fn rot_dim(&self) -> usize {
        self.rot_dim
    }

    /// The cosines and sines.
    pub(super) const fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// Positions whose angles are computed together.
const STRETCH: usize = 64;

/// Writes the angles of positions 0, 1, … as [`Angles`] reads them: as many positions as `data` has room for.
/// Pair i at position p is rotated by `p · freq_scale · base^(−2i/rot_dim) / factors[i]`; with a ramp, the share of
/// the frequency that stays isn't scaled.
///
/// # Errors
/// [`Error::InvalidArgument`] where `rot_dim` is odd, there is not one factor for each pair, a factor is 0 or not
/// finite, another number not positive and finite, or `data` holds no whole number of positions; nothing is written then.
pub fn fill(data: &mut [f32], rot_dim: usize, base: f32, scaling: Scaling) -> Result<()> {
    check(rot_dim, base, scaling)?;
    if rot_dim == 0 {
        return Ok(());
    }
    Angles::new(data, rot_dim)?;
    let (scale, magnitude) = (f64::from(scaling.freq_scale), f64::from(scaling.magnitude));
    let half = rot_dim / 2;
    // A frequency is a power, so it is computed once for a stretch of positions, which stays in cache meanwhile.
    for (stretch, rows) in data.chunks_mut(STRETCH * rot_dim).enumerate() {
        for i in 0..half {
            let divisor = scaling.factors.map_or(1.0, |factors| f64::from(factors[i]));
            let power = f64::from(base).powf(-2.0 * i as f64 / rot_dim as f64);
            let scale = scaling.ramp.map_or(scale, |ramp| scale + (1.0 - scale) * ramp.kept(i));
            for (position, row) in rows.chunks_exact_mut(rot_dim).enumerate() {
                let position = (stretch * STRETCH + position) as f64;
                let (sin, cos) = (position * scale * power / divisor).sin_cos();
                (row[i], row[half + i]) = ((cos * magnitude) as f32, (sin * magnitude) as f32);
            }
        }
    }
    Ok(())
}

/// Refuses numbers that make no angles.
///
/// # Errors
/// [`Error::InvalidArgument`] as [`fill`], whatever the length of its output.
pub fn check(rot_dim: usize, base: f32, scaling: Scaling) -> Result<()> {
    let half = rot_dim / 2;
    if !rot_dim.is_multiple_of(2) {
        return Err(Error::invalid(format!("rotary dimension {rot_dim} is odd")));
    }
    let factors = scaling.factors.unwrap_or(&[]);
    if scaling.factors.is_some() && factors.len() != half {
        return Err(Error::invalid(format!("{} rope factors for {half} frequencies", factors.len())));
    }
    for x in [base, scaling.freq_scale, scaling.magnitude] {
        if !(x > 0.0 && x.is_finite()) {
            return Err(Error::invalid(format!("rope frequency parameter {x} is not positive and finite")));
        }
    }
    match factors.iter().find(|factor| !(factor.is_finite() && **factor != 0.0)) {
        Some(factor) => Err(Error::invalid(format!("rope factor {factor} is not finite or 0"))),
        None => Ok(()),
    }
}
