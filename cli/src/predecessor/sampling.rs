//! How a profiled generation picks its next token.

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use smallmind::kernels::KernelSet;
use smallmind::kernels::rows::{Argmax, Weighing};
use smallmind::memory::AlignedBuf;
use smallmind::profile::{self, Zone, zone};
use smallmind::{Error, Result};

/// Divides logits in the mode `standard`.
const TEMPERATURE: f32 = 0.8;

/// Picks tokens.
pub enum Picker {
    /// The likeliest, so that every run writes the same.
    Likeliest(Argmax),
    /// Drawn by probability.
    Drawn(Box<Draw>),
}

/// The three steps of a draw, each a method. The library's sampler does them in one pass over the logits, so they
/// are done here with its kernels, as a host would.
pub struct Draw {
    kernels: KernelSet,
    sample: Zone,
    temperature: Zone,
    softmax: Zone,
    multinomial: Zone,
    probabilities: AlignedBuf,
    random: Pcg64Mcg,
}

impl Picker {
    /// A picker that draws from a vocabulary, beginning at `seed`.
    pub fn drawing(kernels: &KernelSet, n_vocab: usize, seed: u64) -> Result<Self> {
        Ok(Picker::Drawn(Box::new(Draw {
            kernels: *kernels,
            sample: zone("SampleToken")?,
            temperature: zone("ApplyTemperature")?,
            softmax: zone("Softmax")?,
            multinomial: zone("MultinomialSample")?,
            probabilities: AlignedBuf::zeroed(4 * n_vocab, "probabilities")?,
            random: Pcg64Mcg::seed_from_u64(seed),
        })))
    }

    /// The next token.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32> {
        match self {
            Picker::Likeliest(argmax) => {
                let _zone = profile::scope(Zone::Sample);
                Ok(argmax.apply(logits) as u32)
            }
            Picker::Drawn(draw) => draw.pick(logits),
        }
    }
}

impl Draw {
    fn pick(&mut self, logits: &[f32]) -> Result<u32> {
        let _sample = profile::scope(self.sample);
        let len = logits.len() as u64;
        let row = self.probabilities.as_mut_slice::<f32>();
        if row.len() != logits.len() {
            return Err(Error::Internal("logits of another vocabulary".into()));
        }
        {
            let _zone = profile::scope(self.temperature).work(len, 8 * len);
            self.kernels.unary().scale.apply(logits, 1.0 / TEMPERATURE, row);
        }
        {
            let _zone = profile::scope(self.softmax).work(5 * len, 8 * len);
            self.kernels.rows().softmax.apply_in_place(row, logits.len(), Weighing::default())?;
        }
        let _zone = profile::scope(self.multinomial).work(len, 4 * len);
        // 24 random bits: a float in [0, 1).
        let mut left = (self.random.next_u64() >> 40) as f32 / (1 << 24) as f32;
        let last = row.len() - 1;
        let drawn = row.iter().position(|&probability| {
            left -= probability;
            left < 0.0
        });
        Ok(drawn.unwrap_or(last) as u32)
    }
}
