//! Stages that look at the shape of the distribution: top-p, typical, XTC, top-n-sigma, the dynamic temperature, and
//! Mirostat. None sorts all candidates.
//!
//! Where all tokens are left, a stage that keeps a share p of the probability first leaves out those tokens that are less
//! likely than (1 − p) / 2 divided by the size of the vocabulary: together they have less than (1 − p) / 2.

use super::blocks::{Scale, Sums};
use super::cut::{self, Candidate};
use super::pool::Pool;
use crate::Result;

/// The logit below which tokens have less than half of what a share `p` < 1 leaves of `total`, all together.
fn least_useful(scale: Scale, total: f64, given: &[f32], p: f32) -> f32 {
    scale.logit((1.0 - f64::from(p)) / 2.0 * total / given.len() as f64)
}

/// Keeps the fewest best tokens whose probabilities at a temperature add up to at least `p` < 1, best first.
pub(super) fn top_p(pool: &mut Pool, given: &[f32], p: f32, temperature: f32) -> Result<()> {
    let (scale, total) = pool.total(given, temperature)?;
    if !pool.is_listed() {
        pool.cut(given, least_useful(scale, total, given, p))?;
    }
    cut::top_p(pool.list(given)?, f64::from(p) * total, scale);
    Ok(())
}

/// Keeps the tokens that are at least `p` > 0 times as likely at a temperature as the likeliest one, in their order.
pub(super) fn min_p(pool: &mut Pool, given: &[f32], p: f32, temperature: f32) -> Result<()> {
    let scale = pool.scale(given, temperature)?;
    pool.cut(given, scale.logit(p.into()))
}

/// Keeps the tokens with an information content nearest to the entropy, as many as it takes for their probability to
/// exceed `p` < 1, nearest first.
pub(super) fn typical(pool: &mut Pool, given: &[f32], p: f32, temperature: f32) -> Result<()> {
    let sums = pool.sums(given, temperature)?;
    if !pool.is_listed() {
        let bar = least_useful(sums.scale, sums.weights, given, p);
        pool.cut(given, bar)?;
        let list = pool.list(given)?;
        // Tokens below the bar are farther from the entropy than the bar is, if that is below it.
        let bar_is_low = sums.scale.exponent(bar) < sums.mean;
        if nearest(list, p, &sums)
            && bar_is_low
            && list.last().is_some_and(|last| sums.distance(last.logit()) < sums.distance(bar))
        {
            return Ok(());
        }
        pool.take_back_cut();
    }
    nearest(pool.list(given)?, p, &sums);
    Ok(())
}

/// Keeps the candidates nearest to the entropy, nearest first, until their weights exceed a share `p`; returns whether they
/// do.
fn nearest(candidates: &mut Vec<Candidate>, p: f32, sums: &Sums) -> bool {
    let nearer = |a: &Candidate, b: &Candidate| {
        sums.distance(a.logit()).total_cmp(&sums.distance(b.logit())).then_with(|| b.cmp(a))
    };
    let wanted = f64::from(p) * sums.weights;
    // As for top-p: a stretch at a time, each eight times as long as the one before.
    let (mut sorted, mut reached, mut stretch) = (0, 0.0, 64);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        stretch = rest.len().min(stretch);
        rest.select_nth_unstable_by(stretch - 1, nearer);
        rest[..stretch].sort_unstable_by(nearer);
        for (at, candidate) in rest[..stretch].iter().enumerate() {
            reached += sums.scale.weight(candidate.logit());
            if reached > wanted {
                candidates.truncate(sorted + at + 1);
                return true;
            }
        }
        sorted += stretch;
        stretch = stretch.saturating_mul(8);
    }
    false
}

/// Removes all tokens with a probability of at least `threshold` at a temperature, except the least likely of them.
pub(super) fn exclude_top(pool: &mut Pool, given: &[f32], threshold: f32, temperature: f32) -> Result<()> {
    let (scale, total) = pool.total(given, temperature)?;
    pool.remove_top(given, scale.logit(f64::from(threshold) * total))
}

/// Keeps the tokens at most `n` > 0 standard deviations of the finite logits below the best one.
pub(super) fn top_n_sigma(pool: &mut Pool, given: &[f32], n: f32) -> Result<()> {
    let max = pool.scale(given, 1.0)?.max;
    match pool.deviation(given) {
        Some(deviation) => pool.cut(given, (f64::from(max) - f64::from(n) * deviation) as f32),
        None => Ok(()),
    }
}

/// The temperature that follows the entropy of the tokens that are left.
pub(super) fn dynamic_temperature(
    pool: &mut Pool,
    given: &[f32],
    middle: f32,
    range: f32,
    exponent: f32,
) -> Result<f32> {
    let sums = pool.sums(given, 1.0)?;
    if range == 0.0 || sums.possible <= 1 {
        return Ok(middle);
    }
    let share = (sums.entropy() / (sums.possible as f64).ln()).clamp(0.0, 1.0);
    let least = (middle - range).max(0.0);
    // `middle + range` may be beyond f32; f64 holds it.
    let width = f64::from(middle) + f64::from(range) - f64::from(least);
    Ok((f64::from(least) + width * share.powf(exponent.into())).min(f32::MAX.into()) as f32)
}

/// Keeps the tokens with a surprise of at most `most` bits at a temperature, or the likeliest one.
pub(super) fn surprise_at_most(pool: &mut Pool, given: &[f32], most: f64, temperature: f32) -> Result<()> {
    let (scale, total) = pool.total(given, temperature)?;
    let bar = total * (-most).exp2();
    if bar > 1.0 {
        // Even the likeliest, whose weight is 1, is more surprising.
        return pool.top_k(given, 1);
    }
    pool.cut(given, scale.logit(bar))
}
