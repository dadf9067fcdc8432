//! Rotary position embeddings (RoPE): the file's configuration, a caller's overrides, and the table of angles.

use std::fmt;

use super::config::{MAX_CONTEXT, MAX_DIM};
use super::keys::Keys;
use crate::error::{Error, Result, quoted};
use crate::kernels::rope::{Pairing, Ramp, Scaling};
use crate::ops::rotary::RotaryTable;

/// How positions become angles of rotation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Rotated dimensions of each head; the other dimensions stay as they are.
    pub dim: usize,
    /// Base of the geometric frequencies.
    pub base: f32,
    /// Scale of positions, for contexts longer than the model was trained on. Linear scaling divides all positions by
    /// it; [`RopeConfig::yarn`] only divides the positions of slow frequencies. 1 = no scaling.
    pub factor: f32,
    /// YaRN scaling; `None` for linear scaling.
    pub yarn: Option<Yarn>,
    /// Factor on all rotated queries and keys, besides YaRN's own.
    pub magnitude: f32,
    /// Positions that the model was trained on before its context was extended.
    pub n_ctx_original: usize,
    /// Whether the file's divisors of frequencies, if it has any, apply.
    pub divided: bool,
    /// Whether there are other divisors for long contexts than for short ones (LongRoPE).
    pub lengths: bool,
    /// The dimensions that form a pair.
    pub pairing: Pairing,
}

/// YaRN (Peng et al. 2023, arXiv:2309.00071): positions of slow frequencies are divided by the factor, those of fast
/// frequencies are not, and attention is sharpened a little.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Yarn {
    /// A frequency with at least this many rotations within the original positions is not scaled.
    pub beta_fast: f32,
    /// A frequency with at most this many rotations within the original positions is scaled by the whole factor.
    pub beta_slow: f32,
    /// Share of the unscaled angle that is mixed in for fast frequencies, 0 to 1.
    pub strength: f32,
    /// Factor on queries and keys, in addition to YaRN's own.
    pub attention_factor: f32,
    /// Share of YaRN's own factor that is taken back, in its logarithmic part: 1 takes back all of it.
    pub log_multiplier: f32,
}

/// A caller's changes in a model's rotary embedding; 0 keeps the file's value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RopeOverrides {
    /// Replaces [`RopeConfig::base`].
    pub base: f32,
    /// Replaces [`RopeConfig::factor`].
    pub factor: f32,
}

impl RopeOverrides {
    /// Sets [`RopeOverrides::base`].
    pub fn with_base(self, base: f32) -> Self {
        Self { base, ..self }
    }

    /// Sets [`RopeOverrides::factor`].
    pub fn with_factor(self, factor: f32) -> Self {
        Self { factor, ..self }
    }

    /// Checks both values.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a value that is neither 0 nor a finite number above 0.
    pub fn check(&self) -> Result<()> {
        for (what, value) in [("base", self.base), ("scale", self.factor)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!(
                    "rope {what} is {value}; expected a finite number above 0"
                )));
            }
        }
        Ok(())
    }
}

impl RopeConfig {
    /// Reads and checks the file's keys.
    pub(super) fn read(
        keys: &Keys<'_>,
        head_dim: usize,
        n_ctx_train: usize,
        pairing: Pairing,
    ) -> Result<RopeConfig> {
        let dim = keys.optional("rope.dimension_count", MAX_DIM)?.unwrap_or(head_dim);
        if dim > head_dim || dim % 2 != 0 {
            return Err(Error::format(format!("{dim} rotated dimensions in heads of {head_dim}")));
        }
        let kind = keys.text("rope.scaling.type")?;
        let factor = match kind {
            Some("none") => {
                keys.void(&["rope.scale_linear", "rope.scaling.factor"]);
                1.0
            }
            None | Some("linear" | "yarn" | "longrope") => {
                let older = keys.positive_or_unset("rope.scale_linear", 1.0)?;
                keys.positive_or_unset("rope.scaling.factor", older)?
            }
            Some(other) => {
                let key = keys.key("rope.scaling.type");
                return Err(Error::Unsupported(format!("{key} = {}", quoted(other))));
            }
        };
        let yarn = if kind == Some("yarn") { Some(Yarn::read(keys)?) } else { None };
        let n_ctx_original =
            match keys.count_below("rope.scaling.original_context_length", MAX_CONTEXT + 1)? {
                0 => n_ctx_train,
                original => original,
            };
        let lengths = kind == Some("longrope");
        let base = keys.positive("rope.freq_base", 10_000.0)?;
        let magnitude = match yarn {
            Some(_) => 1.0,
            None => keys.positive("rope.scaling.attn_factor", 1.0)?,
        };
        Ok(RopeConfig { dim, base, factor, yarn, magnitude, n_ctx_original, divided: true, lengths, pairing })
    }

    /// This configuration without scaling of positions.
    pub(super) fn unscaled(&self) -> RopeConfig {
        RopeConfig { factor: 1.0, yarn: None, ..self.clone() }
    }

    /// This configuration with a caller's changes.
    pub fn with(&self, overrides: &RopeOverrides) -> RopeConfig {
        let or = |new: f32, old: f32| if new > 0.0 { new } else { old };
        RopeConfig {
            base: or(overrides.base, self.base),
            factor: or(overrides.factor, self.factor),
            ..self.clone()
        }
    }

    /// The angles of `n_ctx` positions; `factors` are the file's divisors of the frequencies, one for each pair of
    /// dimensions.
    ///
    /// # Errors
    /// As [`RotaryTable::new`].
    pub fn table(&self, n_ctx: usize, factors: Option<&[f32]>) -> Result<RotaryTable> {
        let (freq_scale, magnitude) = (1.0 / self.factor, self.magnitude);
        let mut scaling = Scaling { freq_scale, factors, magnitude, ..Scaling::default() };
        if let Some(yarn) = self.yarn.filter(|yarn| yarn.strength > 0.0) {
            scaling.ramp = Some(yarn.ramp(self.dim, self.base, self.n_ctx_original));
            let grown = |share: f32| 1.0 + 0.1 * share * self.factor.ln();
            scaling.magnitude = yarn.attention_factor * grown(1.0) / grown(yarn.log_multiplier);
        }
        RotaryTable::new(n_ctx, self.dim, self.base, scaling)
    }
}

impl fmt::Display for RopeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RopeConfig { dim, base, .. } = self;
        match self.pairing {
            Pairing::Adjacent => write!(f, "{dim} dimensions in adjacent pairs, base {base}")?,
            Pairing::Halves => write!(f, "{dim} dimensions in pairs {} apart, base {base}", dim / 2)?,
        }
        match (&self.yarn, self.factor) {
            (Some(_), factor) => write!(f, ", YaRN by {factor}"),
            (None, 1.0) => Ok(()),
            (None, factor) => write!(f, ", positions divided by {factor}"),
        }
    }
}

impl Yarn {
    fn read(keys: &Keys<'_>) -> Result<Yarn> {
        let strength = keys.positive_or_unset("rope.scaling.yarn_ext_factor", 1.0)?;
        if strength > 1.0 {
            return Err(Error::format(format!(
                "rope.scaling.yarn_ext_factor is {strength}; expected up to 1"
            )));
        }
        let log_multiplier = keys.nonzero("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
        if log_multiplier < 0.0 {
            return Err(Error::format(format!(
                "rope.scaling.yarn_log_multiplier is {log_multiplier}; expected 0 or more"
            )));
        }
        Ok(Yarn {
            beta_fast: keys.positive_or_unset("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: keys.positive_or_unset("rope.scaling.yarn_beta_slow", 1.0)?,
            strength,
            attention_factor: keys.positive("rope.scaling.attn_factor", 1.0)?,
            log_multiplier,
        })
    }

    /// The pairs between which frequencies change over from unscaled to wholly scaled.
    fn ramp(&self, dim: usize, base: f32, n_ctx_original: usize) -> Ramp {
        let pair = |rotations: f32| {
            let wavelength = n_ctx_original as f64 / (f64::from(rotations) * std::f64::consts::TAU);
            dim as f64 * wavelength.ln() / (2.0 * f64::from(base).ln())
        };
        let begin = pair(self.beta_fast).floor().max(0.0);
        let end = pair(self.beta_slow).ceil().min(dim as f64 - 1.0);
        Ramp { begin, end, strength: f64::from(self.strength) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::IsaId;
    use crate::kernels::rope::RopeKernels;

    fn config(dim: usize, base: f32, factor: f32, yarn: Option<Yarn>) -> RopeConfig {
        RopeConfig {
            dim,
            base,
            factor,
            yarn,
            magnitude: 1.0,
            n_ctx_original: 4096,
            divided: true,
            lengths: false,
            pairing: Pairing::Adjacent,
        }
    }

    /// Cosine and sine of a pair at a position: (1, 0) rotated.
    fn rotated(config: &RopeConfig, factors: Option<&[f32]>, position: u32, pair: usize) -> (f32, f32) {
        let table = config.table(position as usize + 1, factors).unwrap();
        let mut x = vec![0.0; config.dim];
        x[2 * pair] = 1.0;
        let rope = RopeKernels::select(IsaId::Scalar).adjacent;
        rope.apply(table.angles(), &mut x, &[position], config.dim).unwrap();
        (x[2 * pair], x[2 * pair + 1])
    }

    /// The paper's formulas with the constants of GGUF files, pair by pair.
    #[test]
    fn yarn_is_the_papers() {
        let yarn = Yarn {
            beta_fast: 32.0,
            beta_slow: 1.0,
            strength: 1.0,
            attention_factor: 1.0,
            log_multiplier: 0.0,
        };
        for (dim, base, factor, strength) in
            [(64, 10_000.0f32, 4.0f32, 1.0f32), (128, 500_000.0, 16.0, 1.0), (64, 10_000.0, 8.0, 0.5)]
        {
            let yarn = Yarn { strength, ..yarn };
            let config = config(dim, base, factor, Some(yarn));
            let factors: Vec<f32> = (0..dim / 2).map(|i| 1.0 + i as f32 / 7.0).collect();
            let (mut stay, mut stretched) = (0, 0);
            for pair in 0..dim / 2 {
                let original = 4096.0f64;
                let at = |rotations: f64| {
                    dim as f64 * (original / (rotations * std::f64::consts::TAU)).ln()
                        / (2.0 * f64::from(base).ln())
                };
                let (low, high) = (at(32.0).floor().max(0.0), at(1.0).ceil().min(dim as f64 - 1.0));
                let keep = 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let keep = keep * f64::from(strength);
                let frequency = f64::from(base).powf(-2.0 * pair as f64 / dim as f64);
                for (factors, divisor) in [(None, 1.0), (Some(&factors[..]), f64::from(factors[pair]))] {
                    for position in [0, 1, 777, 9999] {
                        let extrapolated = f64::from(position) * frequency / divisor;
                        let angle = extrapolated / f64::from(factor) * (1.0 - keep) + extrapolated * keep;
                        let magnitude = 1.0 + 0.1 * f64::from(factor).ln();
                        let (cos, sin) = rotated(&config, factors, position, pair);
                        assert!(
                            (f64::from(cos) - angle.cos() * magnitude).abs() < 1e-6,
                            "{pair} at {position}"
                        );
                        assert!(
                            (f64::from(sin) - angle.sin() * magnitude).abs() < 1e-6,
                            "{pair} at {position}"
                        );
                    }
                }
                stay += usize::from(keep == 1.0);
                stretched += usize::from(keep == 0.0);
            }
            assert!(stretched > 0 && (stay > 0 || strength < 1.0), "the ramp has both ends");
        }
    }

    #[test]
    fn overrides_take_the_files_place() {
        let file = config(8, 10_000.0, 4.0, None);
        assert_eq!(file.with(&RopeOverrides::default()), file);
        let with = file.with(&RopeOverrides { base: 500.0, factor: 2.0 });
        assert_eq!((with.base, with.factor), (500.0, 2.0));
        let (cos, sin) = rotated(&with, None, 6, 1);
        let angle = 3.0 * 500f64.powf(-0.25);
        assert!((f64::from(cos) - angle.cos()).abs() < 1e-6 && (f64::from(sin) - angle.sin()).abs() < 1e-6);
        for wrong in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(RopeOverrides { base: wrong, factor: 0.0 }.check().is_err());
            assert!(RopeOverrides { base: 0.0, factor: wrong }.check().is_err());
        }
        assert!(RopeOverrides::default().check().is_ok());
    }
}
