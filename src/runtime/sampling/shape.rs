//! Stages that look at the shape of the distribution: typical, XTC, top-n-sigma behind other cuts, the dynamic
//! temperature, and Mirostat. None sorts all candidates.

use super::cut::{self, Candidate};

/// Sums over candidates at a temperature, relative to the likeliest one.
struct Sums {
    /// Its logit.
    max: f32,
    temperature: f32,
    /// Of the weights w = exp(x), where x is (logit − max) / temperature.
    weights: f64,
    /// The mean of x, weighted by w.
    mean: f64,
    /// Candidates whose logit is above −∞.
    possible: usize,
}

impl Sums {
    /// `None` where no candidate is possible.
    fn of(candidates: &[Candidate], temperature: f32) -> Option<Self> {
        let max = cut::likeliest(candidates).filter(|&max| max > f32::NEG_INFINITY)?;
        let mut sums = Self { max, temperature, weights: 0.0, mean: 0.0, possible: 0 };
        let mut weighted = 0.0;
        for candidate in candidates.iter().filter(|candidate| candidate.logit() > f32::NEG_INFINITY) {
            let weight = candidate.weight(max, temperature);
            sums.weights += weight;
            sums.possible += 1;
            if weight > 0.0 {
                weighted += weight * sums.exponent(*candidate);
            }
        }
        sums.mean = weighted / sums.weights;
        Some(sums)
    }

    fn exponent(&self, candidate: Candidate) -> f64 {
        f64::from((candidate.logit() - self.max) / self.temperature)
    }

    /// The entropy of the distribution, in nats.
    fn entropy(&self) -> f64 {
        self.weights.ln() - self.mean
    }

    /// How far the information content of a candidate is from the entropy, in nats: both are less the same logarithm of
    /// the sum of weights.
    fn distance(&self, candidate: Candidate) -> f64 {
        (self.mean - self.exponent(candidate)).abs()
    }
}

/// Keeps the candidates with an information content nearest to the entropy, as many as it takes for their probability to
/// exceed `p` < 1, nearest first.
pub(super) fn typical(candidates: &mut Vec<Candidate>, p: f32, temperature: f32) {
    let Some(sums) = Sums::of(candidates, temperature) else { return };
    let nearer =
        |a: &Candidate, b: &Candidate| sums.distance(*a).total_cmp(&sums.distance(*b)).then_with(|| b.cmp(a));
    let wanted = f64::from(p) * sums.weights;
    // As for top-p: a stretch at a time, each eight times as long as the one before.
    let (mut sorted, mut reached, mut stretch) = (0, 0.0, 64);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        stretch = rest.len().min(stretch);
        rest.select_nth_unstable_by(stretch - 1, nearer);
        rest[..stretch].sort_unstable_by(nearer);
        for (at, candidate) in rest[..stretch].iter().enumerate() {
            reached += candidate.weight(sums.max, temperature);
            if reached > wanted {
                return candidates.truncate(sorted + at + 1);
            }
        }
        sorted += stretch;
        stretch = stretch.saturating_mul(8);
    }
}

/// Removes all candidates with a probability of at least `threshold` at a temperature, except the least likely of them.
pub(super) fn exclude_top(candidates: &mut Vec<Candidate>, threshold: f32, temperature: f32) {
    let Some(sums) = Sums::of(candidates, temperature) else { return };
    let bar = f64::from(threshold) * sums.weights;
    let is_top = |candidate: &Candidate| {
        candidate.logit() > f32::NEG_INFINITY && candidate.weight(sums.max, temperature) >= bar
    };
    if let Some(least) = candidates.iter().copied().filter(is_top).min() {
        candidates.retain(|candidate| *candidate <= least);
    }
}

/// Keeps the candidates at most `n` > 0 standard deviations below the best one.
pub(super) fn top_n_sigma(candidates: &mut Vec<Candidate>, n: f32) {
    let logits = || candidates.iter().map(|candidate| candidate.logit()).filter(|&logit| logit.is_finite());
    let count = logits().count() as f64;
    let Some(max) = cut::likeliest(candidates).filter(|_| count > 0.0) else { return };
    let mean = logits().map(f64::from).sum::<f64>() / count;
    let squares = logits().map(|logit| (f64::from(logit) - mean).powi(2)).sum::<f64>();
    let bar = (f64::from(max) - f64::from(n) * (squares / count).sqrt()) as f32;
    candidates.retain(|candidate| candidate.logit() >= bar);
}

/// The temperature that follows the candidates' entropy.
pub(super) fn dynamic_temperature(candidates: &[Candidate], middle: f32, range: f32, exponent: f32) -> f32 {
    let Some(sums) = Sums::of(candidates, 1.0).filter(|sums| sums.possible > 1) else { return middle };
    if range == 0.0 {
        return middle;
    }
    let share = (sums.entropy() / (sums.possible as f64).ln()).clamp(0.0, 1.0);
    let least = (middle - range).max(0.0);
    // `middle + range` may be beyond f32; f64 holds it.
    let width = f64::from(middle) + f64::from(range) - f64::from(least);
    (f64::from(least) + width * share.powf(exponent.into())).min(f32::MAX.into()) as f32
}

/// Keeps the candidates with a surprise of at most `most` bits at a temperature, or the likeliest one.
pub(super) fn surprise_at_most(candidates: &mut Vec<Candidate>, most: f64, temperature: f32) {
    let Some(sums) = Sums::of(candidates, temperature) else { return };
    let bar = sums.weights * (-most).exp2();
    if bar > 1.0 {
        // Even the likeliest, whose weight is 1, is more surprising.
        return cut::top_k(candidates, 1);
    }
    candidates.retain(|candidate| candidate.weight(sums.max, temperature) >= bar);
}
