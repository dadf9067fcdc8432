//! Candidates for the next token, and the exact cuts that keep the likely ones, in place.
//! A candidate is an integer. The order of these integers is the rank of candidates, so ties are always broken the same
//! way.

use super::{is_usable, unusable};
use crate::Result;

/// Logits that are compared with the least of a pool at once.
const BLOCK: usize = 256;

/// A token and its logit. The greater of two candidates is the likelier one; among equal logits, the one with the lower
/// id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u64);

impl Candidate {
    /// `logit` is no NaN. −0 becomes +0.
    pub(super) fn new(logit: f32, id: u32) -> Self {
        // Flip all bits of a negative float, and the sign bit of any other: then the bits, as unsigned integers, have
        // the order of the floats.
        let bits = (logit + 0.0).to_bits();
        let ordered = bits ^ ((bits as i32 >> 31) as u32 | 1 << 31);
        Self(u64::from(ordered) << 32 | u64::from(!id))
    }

    pub(super) fn id(self) -> u32 {
        !(self.0 as u32)
    }

    pub(super) fn logit(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }

    /// Probability at a temperature, relative to the probability of a candidate with logit `max`.
    pub(super) fn weight(self, max: f32, temperature: f32) -> f64 {
        f64::from(((self.logit() - max) / temperature).exp())
    }
}

/// Keeps the `k` ≥ 1 best candidates, best first. If there are at most `k`, they stay as they are.
pub(super) fn top_k(candidates: &mut Vec<Candidate>, k: usize) {
    if k >= candidates.len() {
        return;
    }
    // One pass over the candidates with a pool at the front of the list. A candidate enters the pool if it beats the
    // pool's k-th best; a full pool shrinks to its k best. Few candidates enter, so this is far faster than selecting
    // among all.
    let room = candidates.len().min(k.saturating_mul(4).max(256));
    select(&mut candidates[..room], k);
    let mut pooled = k;
    for at in room..candidates.len() {
        if candidates[at] > candidates[k - 1] {
            candidates[pooled] = candidates[at];
            pooled += 1;
            if pooled == room {
                select(&mut candidates[..room], k);
                pooled = k;
            }
        }
    }
    best_first(&mut candidates[..pooled], k);
    candidates.truncate(k);
}

/// Fills `candidates` with the `k` best tokens, best first, as [`top_k`] leaves them of all; 1 ≤ `k` < number of logits.
/// It reads the logits once: mostly no token of a block enters the pool.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a logit that is NaN or +∞.
pub(super) fn best_of(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) -> Result<()> {
    let candidate = |(id, &logit): (u32, &f32)| match is_usable(logit) {
        true => Ok(Candidate::new(logit, id)),
        false => Err(unusable(id, logit)),
    };
    let room = logits.len().min(k.saturating_mul(4).max(BLOCK));
    candidates.clear();
    for token in (0..).zip(&logits[..room]) {
        candidates.push(candidate(token)?);
    }
    let shrink = |candidates: &mut Vec<Candidate>| {
        select(candidates, k);
        candidates.truncate(k);
        candidates[k - 1]
    };
    let mut least = shrink(candidates);
    for (first, block) in (room as u32..).step_by(BLOCK).zip(logits[room..].chunks(BLOCK)) {
        let bar = least.logit();
        // Of equal logits the later token ranks lower. Logits that are no numbers count as above the bar.
        #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "true for NaN")]
        let above: u32 = block.iter().map(|&logit| u32::from(!(logit <= bar))).sum();
        if above == 0 {
            continue;
        }
        for token in (first..).zip(block) {
            let candidate = candidate(token)?;
            if candidate > least {
                candidates.push(candidate);
                if candidates.len() == room {
                    least = shrink(candidates);
                }
            }
        }
    }
    best_first(candidates, k);
    candidates.truncate(k);
    Ok(())
}

/// Fills `candidates` with all tokens in order of id. Those with a logit of −∞ are included unless `possible` leaves them
/// out: they rank last, and their probability is 0.
///
/// # Errors
/// As [`best_of`].
pub(super) fn all_of(logits: &[f32], possible: bool, candidates: &mut Vec<Candidate>) -> Result<()> {
    check_usable(logits)?;
    candidates.clear();
    let tokens = (0..).zip(logits);
    match possible {
        true => candidates.extend(
            tokens
                .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
                .map(|(id, &logit)| Candidate::new(logit, id)),
        ),
        false => candidates.extend(tokens.map(|(id, &logit)| Candidate::new(logit, id))),
    }
    Ok(())
}

/// Fills `candidates` with the tokens whose logit is at least `bar`, in order of id.
pub(super) fn above(logits: &[f32], bar: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for (first, block) in (0u32..).step_by(BLOCK).zip(logits.chunks(BLOCK)) {
        if block.iter().map(|&logit| u32::from(logit >= bar)).sum::<u32>() > 0 {
            let tokens = (first..).zip(block).filter(|(_, logit)| **logit >= bar);
            candidates.extend(tokens.map(|(id, &logit)| Candidate::new(logit, id)));
        }
    }
}

/// Refuses a row with a logit that is NaN or +∞.
///
/// # Errors
/// As [`best_of`].
pub(super) fn check_usable(logits: &[f32]) -> Result<()> {
    // The compiler can vectorise counting, but not a loop that stops at the first hit.
    if logits.iter().map(|&logit| u32::from(!is_usable(logit))).sum::<u32>() > 0 {
        let bad = (0..).zip(logits).find(|&(_, &logit)| !is_usable(logit));
        return bad.map_or(Ok(()), |(id, &logit)| Err(unusable(id, logit)));
    }
    Ok(())
}

/// The greatest of usable logits.
pub(super) fn greatest(logits: &[f32]) -> f32 {
    // One maximum in each lane of a vector, since the compiler keeps the order of comparisons.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (groups, rest) = logits.as_chunks::<16>();
    for group in groups {
        for (lane, &logit) in lanes.iter_mut().zip(group) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The logit that is `n` standard deviations of the finite logits below the greatest; −∞ without a finite one.
pub(super) fn sigma_bar(logits: &[f32], n: f32) -> f32 {
    let of_finite = |logit: f32, value: f64| if logit > f32::NEG_INFINITY { value } else { 0.0 };
    let count = total(logits, |logit| of_finite(logit, 1.0));
    if count == 0.0 {
        return f32::NEG_INFINITY;
    }
    let mean = total(logits, |logit| of_finite(logit, logit.into())) / count;
    let squares = total(logits, |logit| of_finite(logit, (f64::from(logit) - mean).powi(2)));
    (f64::from(greatest(logits)) - f64::from(n) * (squares / count).sqrt()) as f32
}

/// The sum of values of all logits, in the order of eight lanes.
fn total(logits: &[f32], value: impl Fn(f32) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let (groups, rest) = logits.as_chunks::<8>();
    for group in groups {
        for (lane, &logit) in lanes.iter_mut().zip(group) {
            *lane += value(logit);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&logit| value(logit)).sum::<f64>()
}

/// Keeps the fewest best candidates whose probabilities at a temperature add up to at least `p` < 1, best first.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32, temperature: f32) {
    let Some(max) = likeliest(candidates) else { return };
    let weights = candidates.iter().map(|candidate| candidate.weight(max, temperature));
    let wanted = f64::from(p) * weights.sum::<f64>();
    // Mostly a few candidates suffice: sort a stretch at a time, each eight times as long as the one before.
    let (mut sorted, mut reached, mut stretch) = (0, 0.0, 64);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        stretch = rest.len().min(stretch);
        best_first(rest, stretch);
        for (at, candidate) in rest[..stretch].iter().enumerate() {
            reached += candidate.weight(max, temperature);
            if reached >= wanted {
                return candidates.truncate(sorted + at + 1);
            }
        }
        sorted += stretch;
        stretch = stretch.saturating_mul(8);
    }
}

/// Keeps the candidates that are at least `p` > 0 times as likely at a temperature as the likeliest one, in their
/// order.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32, temperature: f32) {
    let Some(max) = likeliest(candidates) else { return };
    let least = min_p_bar(max, p, temperature);
    candidates.retain(|candidate| candidate.logit() >= least);
}

/// The logit of a token that is `p` > 0 times as likely at a temperature as one with the logit `max`.
pub(super) fn min_p_bar(max: f32, p: f32, temperature: f32) -> f32 {
    max + temperature * p.ln()
}

/// The greatest logit.
pub(super) fn likeliest(candidates: &[Candidate]) -> Option<f32> {
    candidates.iter().max().map(|best| best.logit())
}

/// Moves the `k` best candidates to the front, the worst of them last; 1 ≤ `k` ≤ length.
fn select(candidates: &mut [Candidate], k: usize) {
    candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
}

/// Moves the `k` best candidates to the front and sorts them; 1 ≤ `k` ≤ length.
fn best_first(candidates: &mut [Candidate], k: usize) {
    select(candidates, k);
    candidates[..k].sort_unstable_by(|a, b| b.cmp(a));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(logits: &[f32]) -> Vec<Candidate> {
        (0..).zip(logits).map(|(id, &logit)| Candidate::new(logit, id)).collect()
    }

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| candidate.id()).collect()
    }

    /// Ids by logit, descending, then id: with a stable sort of ids in order.
    fn ranked(logits: &[f32]) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap());
        ids
    }

    /// Few distinct values, so that ties are common; sometimes sorted, the worst order for a pool.
    fn logits() -> impl Strategy<Value = Vec<f32>> {
        let unordered =
            prop::collection::vec(prop_oneof![(-8i8..8).prop_map(f32::from), -20.0f32..20.0], 1..2000);
        (unordered, any::<bool>()).prop_map(|(mut logits, sorted)| {
            if sorted {
                logits.sort_by(f32::total_cmp);
            }
            logits
        })
    }

    proptest! {
        #[test]
        fn a_candidate_gives_back_what_it_holds(logit in any::<f32>(), id in any::<u32>()) {
            prop_assume!(!logit.is_nan());
            let candidate = Candidate::new(logit, id);
            prop_assert_eq!(candidate.id(), id);
            prop_assert_eq!(candidate.logit(), logit);
        }

        #[test]
        fn order_is_by_logit_then_by_lower_id(a in any::<(f32, u32)>(), b in any::<(f32, u32)>()) {
            prop_assume!(!a.0.is_nan() && !b.0.is_nan());
            let expected = a.0.partial_cmp(&b.0).unwrap().then(b.1.cmp(&a.1));
            prop_assert_eq!(Candidate::new(a.0, a.1).cmp(&Candidate::new(b.0, b.1)), expected);
        }

        #[test]
        fn top_k_keeps_exactly_the_k_best(logits in logits(), k in 1usize..1000) {
            let mut kept = list(&logits);
            top_k(&mut kept, k);
            if k < logits.len() {
                prop_assert_eq!(ids(&kept), &ranked(&logits)[..k]);
            } else {
                prop_assert_eq!(kept, list(&logits));
            }
        }

        #[test]
        fn the_best_are_those_of_all(logits in logits(), k in 1usize..1000, bad in 0usize..2000) {
            prop_assume!(k < logits.len());
            let mut expected = list(&logits);
            top_k(&mut expected, k);
            let mut kept = Vec::new();
            best_of(&logits, k, &mut kept).unwrap();
            prop_assert_eq!(&kept, &expected);
            let mut logits = logits;
            let bad = bad % logits.len();
            for value in [f32::NAN, f32::INFINITY] {
                logits[bad] = value;
                let error = best_of(&logits, k, &mut kept).unwrap_err().to_string();
                prop_assert!(error.contains(&format!("token {bad} is {value}")), "{}", error);
            }
            logits[bad] = f32::NEG_INFINITY;
            best_of(&logits, k, &mut kept).unwrap();
            let mut expected = list(&logits);
            top_k(&mut expected, k);
            prop_assert_eq!(&kept, &expected);
        }

        #[test]
        fn top_p_keeps_the_shortest_prefix_that_reaches_p(logits in logits(), p in 0.001f32..0.999) {
            let mut kept = list(&logits);
            top_p(&mut kept, p, 1.0);
            let ranked = ranked(&logits);
            prop_assert_eq!(ids(&kept), &ranked[..kept.len()]);
            // In f64. Each weight carries a relative error of at most 2 roundings of its exponent's
            // absolute value (≤ 40 · 2⁻²⁴ each) and 1 ULP of exp, and so do both sums: < 1e-5 in all.
            let weight = |id: u32| (f64::from(logits[id as usize]) - f64::from(logits[ranked[0] as usize])).exp();
            let total: f64 = ranked.iter().map(|&id| weight(id)).sum();
            let sum = |n: usize| ranked[..n].iter().map(|&id| weight(id)).sum::<f64>() / total;
            prop_assert!(sum(kept.len()) >= f64::from(p) - 1e-5);
            prop_assert!(sum(kept.len() - 1) < f64::from(p) + 1e-5);
        }
    }

    #[test]
    fn minus_zero_ties_with_zero() {
        assert_eq!(Candidate::new(-0.0, 3), Candidate::new(0.0, 3));
    }

    #[test]
    fn top_p_that_meets_a_sum_exactly_stops_there() {
        // Four equal weights of 1: a half is reached by the second exactly.
        let mut kept = list(&[2.0; 4]);
        top_p(&mut kept, 0.5, 1.0);
        assert_eq!(ids(&kept), [0, 1]);
    }

    #[test]
    fn min_p_keeps_those_above_the_ratio_in_their_order() {
        // Probabilities 1 : 1/2 : 1/4 : 1 relative to the likeliest, with logits that are exact.
        let mut kept = list(&[-3.0, -1.0, -2.0, -1.0]);
        min_p(&mut kept, 0.3, 1.0);
        assert_eq!(ids(&kept), [1, 2, 3]);
        min_p(&mut kept, 1.0, 1.0);
        assert_eq!(ids(&kept), [1, 3]);
    }
}
