//! Learning rates by the number of a step.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// How the rate goes on after the warm-up. Steps are counted from the end of the warm-up, and after the last one the rate
/// stays.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Decay {
    /// It stays.
    Constant,
    /// Half a period of a cosine down to a share of the peak (Loshchilov & Hutter 2017, arXiv:1608.03983).
    Cosine {
        /// Steps of the descent.
        steps: u64,
        /// The share of the peak at its end.
        least: f64,
    },
    /// A straight line down to a share of the peak.
    Linear {
        /// Steps of the descent.
        steps: u64,
        /// The share of the peak at its end.
        least: f64,
    },
    /// A factor after each so many steps.
    Step {
        /// Steps of the same rate.
        every: u64,
        /// The factor.
        factor: f64,
    },
    /// A rise from a 25th of the peak over three tenths of the steps, and a descent to a 250,000th of it, both half a
    /// period of a cosine (Smith & Topin 2019, arXiv:1708.07120).
    OneCycle {
        /// Steps of rise and descent.
        steps: u64,
    },
}

/// A schedule: a linear warm-up to the peak, then a decay.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of the warm-up: the first has a rate of `peak / warmup`, the last one of `peak`.
    pub warmup: u64,
    /// What follows.
    pub decay: Decay,
}

/// From `begin` to `end` by half a period of a cosine; `x` goes from 0 to 1.
fn cosine(begin: f64, end: f64, x: f64) -> f64 {
    end + (begin - end) * (1.0 + (PI * x.min(1.0)).cos()) / 2.0
}

impl Schedule {
    /// A rate that never changes.
    pub fn constant(rate: f64) -> Schedule {
        Schedule { peak: rate, warmup: 0, decay: Decay::Constant }
    }

    /// A warm-up, and a cosine down to a tenth of the peak at step `steps`.
    pub fn cosine(peak: f64, warmup: u64, steps: u64) -> Schedule {
        let decay = Decay::Cosine { steps: steps.saturating_sub(warmup), least: 0.1 };
        Schedule { peak, warmup, decay }
    }

    /// Sets [`Schedule::warmup`].
    pub fn with_warmup(self, warmup: u64) -> Schedule {
        Schedule { warmup, ..self }
    }

    /// Sets [`Schedule::decay`].
    pub fn with_decay(self, decay: Decay) -> Schedule {
        Schedule { decay, ..self }
    }

    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        let peak = self.peak;
        if step < self.warmup {
            return peak * (step + 1) as f64 / self.warmup as f64;
        }
        let step = step - self.warmup;
        let along = |steps: u64| if steps == 0 { 1.0 } else { (step as f64 / steps as f64).min(1.0) };
        match self.decay {
            Decay::Constant => peak,
            Decay::Cosine { steps, least } => cosine(peak, peak * least, along(steps)),
            Decay::Linear { steps, least } => peak * (1.0 - (1.0 - least) * along(steps)),
            Decay::Step { every, factor } => peak * factor.powf((step / every.max(1)) as f64),
            Decay::OneCycle { steps } => {
                let (x, rise) = (along(steps), 0.3);
                match x < rise {
                    true => cosine(peak / 25.0, peak, x / rise),
                    false => cosine(peak, peak / 250_000.0, (x - rise) / (1.0 - rise)),
                }
            }
        }
    }

    /// Checks all numbers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rate or a share that is negative or not finite.
    pub fn check(&self) -> Result<()> {
        let share = match self.decay {
            Decay::Cosine { least, .. } | Decay::Linear { least, .. } => least,
            Decay::Step { factor, .. } => factor,
            _ => 0.0,
        };
        for (what, x) in [("learning rate", self.peak), ("decay of the learning rate", share)] {
            if !(x.is_finite() && x >= 0.0) {
                return Err(Error::invalid(format!("{what} is {x}; expected a finite number from 0 on")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12 * b.abs().max(1e-3), "{a} where {b} is right");
    }

    #[test]
    fn rates_go_as_they_are_told() {
        near(Schedule::constant(0.5).rate(1_000_000), 0.5);
        let schedule = Schedule::cosine(1.0, 4, 104);
        [0.25, 0.5, 0.75, 1.0, 1.0].iter().zip(0..).for_each(|(&rate, step)| near(schedule.rate(step), rate));
        near(schedule.rate(54), 0.55);
        near(schedule.rate(104), 0.1);
        near(schedule.rate(9999), 0.1);
        let linear = Schedule::constant(2.0).with_decay(Decay::Linear { steps: 10, least: 0.5 });
        [(0, 2.0), (5, 1.5), (10, 1.0), (11, 1.0)]
            .iter()
            .for_each(|&(step, rate)| near(linear.rate(step), rate));
        let steps = Schedule::constant(1.0).with_warmup(1).with_decay(Decay::Step { every: 3, factor: 0.1 });
        [(0, 1.0), (3, 1.0), (4, 0.1), (7, 0.01)]
            .iter()
            .for_each(|&(step, rate)| near(steps.rate(step), rate));
        let cycle = Schedule::constant(1.0).with_decay(Decay::OneCycle { steps: 100 });
        for (step, rate) in [(0, 0.04), (15, 0.52), (30, 1.0), (65, 0.500_002), (100, 4e-6), (200, 4e-6)] {
            near(cycle.rate(step), rate);
        }
        near(Schedule::cosine(1.0, 0, 0).rate(0), 0.1);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Schedule::constant(wrong).check().is_err());
            let decay = Decay::Linear { steps: 1, least: wrong };
            assert!(Schedule::constant(1.0).with_decay(decay).check().is_err());
        }
        assert!(Schedule::cosine(1.0, 2, 3).check().is_ok());
    }
}
