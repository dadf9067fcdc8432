//! Candidates for the next token, and the exact cuts that keep the likely ones, in place.
//! A candidate is an integer. The order of these integers is the rank of candidates, so ties are always broken the same
//! way.

use super::blocks::Scale;

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
    select(&mut candidates[..pooled], k);
    candidates.truncate(k);
    best_first(candidates);
}

/// Keeps the fewest best candidates whose weights add up to at least `wanted`, best first; all if these don't.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, wanted: f64, scale: Scale) {
    // Mostly a few candidates suffice: sort a stretch at a time, each eight times as long as the one before.
    let (mut sorted, mut reached, mut stretch) = (0, 0.0, 64);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        stretch = rest.len().min(stretch);
        select(rest, stretch);
        best_first(&mut rest[..stretch]);
        for (at, candidate) in rest[..stretch].iter().enumerate() {
            reached += scale.weight(candidate.logit());
            if reached >= wanted {
                return candidates.truncate(sorted + at + 1);
            }
        }
        sorted += stretch;
        stretch = stretch.saturating_mul(8);
    }
}

/// Moves the `k` best candidates to the front, the worst of them last, which it returns; 1 ≤ `k` ≤ length.
pub(super) fn select(candidates: &mut [Candidate], k: usize) -> Candidate {
    *candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a)).1
}

/// Sorts all candidates, best first.
pub(super) fn best_first(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(|a, b| b.cmp(a));
}

#[cfg(test)]
mod tests {
    use super::super::pool_tests::{ids, logits, ranked};
    use super::*;
    use proptest::prelude::*;

    fn list(logits: &[f32]) -> Vec<Candidate> {
        (0..).zip(logits).map(|(id, &logit)| Candidate::new(logit, id)).collect()
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
    }

    #[test]
    fn minus_zero_ties_with_zero() {
        assert_eq!(Candidate::new(-0.0, 3), Candidate::new(0.0, 3));
    }
}
