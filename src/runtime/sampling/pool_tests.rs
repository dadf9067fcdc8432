//! What is left after cuts of all tokens and of lists, against sorts of all and sums in f64, over many blocks; and that a
//! row and a list of the same tokens leave the same.

use super::blocks::{BLOCK, Sums};
use super::cut::Candidate;
use super::pool::Pool;
use super::shape;
use crate::Result;
use proptest::prelude::*;

pub(super) fn ids(candidates: &[Candidate]) -> Vec<u32> {
    candidates.iter().map(|candidate| candidate.id()).collect()
}

/// Ids by logit, descending, then id: with a stable sort of ids in order.
pub(super) fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap());
    ids
}

/// Few distinct values, so that ties are common; sometimes sorted, the worst order for a pool.
pub(super) fn logits() -> impl Strategy<Value = Vec<f32>> {
    let unordered =
        prop::collection::vec(prop_oneof![(-8i8..8).prop_map(f32::from), -20.0f32..20.0], 1..2000);
    (unordered, any::<bool>()).prop_map(|(mut logits, sorted)| {
        if sorted {
            logits.sort_by(f32::total_cmp);
        }
        logits
    })
}

/// A stage.
type Cut<'a> = dyn Fn(&mut Pool, &[f32]) -> Result<()> + 'a;

fn pool(n_vocab: usize) -> Pool {
    Pool::new(n_vocab, true).unwrap()
}

/// The tokens that a stage leaves of all, and of a list of all.
fn kept(logits: &[f32], stage: impl Fn(&mut Pool, &[f32]) -> Result<()>) -> [Vec<u32>; 2] {
    [false, true].map(|listed| {
        let mut pool = pool(logits.len());
        pool.begin();
        if listed {
            pool.list(logits).unwrap();
        }
        stage(&mut pool, logits).unwrap();
        ids(pool.list(logits).unwrap())
    })
}

/// Relative to the likeliest token.
fn weight(logits: &[f32], token: u32, temperature: f32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    ((f64::from(logits[token as usize]) - f64::from(max)) / f64::from(temperature)).exp()
}

/// What the sums of weights may be off by, relatively. An exponent is at most 80 here where its weight counts; its subtraction
/// and its factor are rounded, 3 · 80 · 2⁻²⁴, the exponential has 2 ULP, and a sum of a block
/// (BLOCK / 4 + 8) · 2⁻²⁴ at most, with one lane.
const OFF: f64 = (3.0 * 80.0 + 2.0 + BLOCK as f64 / 4.0 + 8.0) / (1u64 << 24) as f64;

proptest! {
    #[test]
    fn the_best_are_those_of_all(logits in logits(), k in 1usize..1000, bad in 0usize..2000) {
        prop_assume!(k < logits.len());
        let best = |logits: &[f32]| {
            let mut pool = pool(logits.len());
            pool.begin();
            pool.best(logits, k).map(ids)
        };
        prop_assert_eq!(best(&logits).unwrap(), &ranked(&logits)[..k]);
        let mut logits = logits;
        let bad = bad % logits.len();
        for value in [f32::NAN, f32::INFINITY] {
            logits[bad] = value;
            let error = best(&logits).unwrap_err().to_string();
            prop_assert!(error.contains(&format!("token {bad} is {value}")), "{}", error);
        }
        logits[bad] = f32::NEG_INFINITY;
        let possible = k.min(logits.len() - 1);
        prop_assert_eq!(best(&logits).unwrap(), &ranked(&logits)[..possible]);
    }

    #[test]
    fn top_p_keeps_the_shortest_prefix_that_reaches_p(logits in logits(), p in 0.001f32..0.999) {
        let ranked = ranked(&logits);
        let total: f64 = ranked.iter().map(|&id| weight(&logits, id, 1.0)).sum();
        let sum = |n: usize| ranked[..n].iter().map(|&id| weight(&logits, id, 1.0)).sum::<f64>() / total;
        for kept in kept(&logits, |pool, logits| shape::top_p(pool, logits, p, 1.0)) {
            prop_assert_eq!(&kept, &ranked[..kept.len()]);
            prop_assert!(sum(kept.len()) >= f64::from(p) - 2.0 * OFF);
            prop_assert!(sum(kept.len() - 1) < f64::from(p) + 2.0 * OFF);
        }
    }

    /// The stages that leave out tokens early, because they can't be kept, leave what they leave of all.
    #[test]
    fn a_row_and_a_list_leave_the_same(
        logits in logits(), p in 0.001f32..0.999, temperature in 0.1f32..20.0, most in 0.0f64..12.0,
    ) {
        let stages: [(&str, &Cut<'_>); 6] = [
            ("top-p", &|pool, logits| shape::top_p(pool, logits, p, temperature)),
            ("min-p", &|pool, logits| shape::min_p(pool, logits, p, temperature)),
            ("typical", &|pool, logits| shape::typical(pool, logits, p, temperature)),
            ("xtc", &|pool, logits| shape::exclude_top(pool, logits, p / 50.0, temperature)),
            ("top-n-sigma", &|pool, logits| shape::top_n_sigma(pool, logits, 2.0 * p)),
            ("mirostat", &|pool, logits| shape::surprise_at_most(pool, logits, most, temperature)),
        ];
        for (name, stage) in stages {
            let [row, list] = kept(&logits, stage);
            prop_assert!(!row.is_empty());
            prop_assert_eq!(row, list, "{}", name);
        }
    }

    /// The token that is drawn is the one on which the share of the sum falls.
    #[test]
    fn draws_fall_where_the_sums_say(
        logits in logits(), temperature in 0.5f32..20.0, share in 0.0f64..1.0, listed in any::<bool>(),
    ) {
        let mut pool = pool(logits.len());
        pool.begin();
        if listed {
            pool.list(&logits).unwrap();
        }
        let (token, probability) = pool.draw(&logits, temperature, share).unwrap();
        let weights = (0..logits.len() as u32).map(|id| weight(&logits, id, temperature));
        let (total, before) = (weights.clone().sum::<f64>(), weights.take(token as usize).sum::<f64>());
        let own = weight(&logits, token, temperature);
        prop_assert!(before / total < share + 2.0 * OFF);
        prop_assert!((before + own) / total > share - 2.0 * OFF);
        prop_assert!((probability / (own / total) - 1.0).abs() < 2.0 * OFF);
    }

    #[test]
    fn sums_are_those_in_f64(logits in logits(), temperature in 0.5f32..20.0, hole in 0usize..2000) {
        let mut logits = logits;
        let n = logits.len();
        if n > 1 {
            logits[hole % n] = f32::NEG_INFINITY;
        }
        let finite: Vec<f64> = logits.iter().filter(|l| l.is_finite()).map(|&l| f64::from(l)).collect();
        let mut pool = pool(n);
        pool.begin();
        let Sums { scale, weights, mean, possible } = pool.sums(&logits, temperature).unwrap();
        prop_assert_eq!(possible, finite.len());
        let exponent = |logit: f64| (logit - f64::from(scale.max)) / f64::from(temperature);
        let total: f64 = finite.iter().map(|&l| exponent(l).exp()).sum();
        let weighted: f64 = finite.iter().map(|&l| exponent(l).exp() * exponent(l)).sum();
        prop_assert!((weights / total - 1.0).abs() < OFF, "{} for {}", weights, total);
        let expected = weighted / total;
        prop_assert!((mean - expected).abs() <= 3.0 * OFF * expected.abs(), "{} for {}", mean, expected);

        let middle = finite.iter().sum::<f64>() / finite.len() as f64;
        let squares: f64 = finite.iter().map(|l| (l - middle).powi(2)).sum();
        let deviation = (squares / finite.len() as f64).sqrt();
        // Logits are at most 20 here: what the mean's rounding adds is far less than the sums may be off by.
        prop_assert!((pool.deviation(&logits).unwrap() - deviation).abs() < 20.0 * OFF);
    }
}

#[test]
fn numbers_beyond_the_kernels_have_their_deviation() {
    let logits = [3e38, -3e38, f32::NEG_INFINITY, 0.0];
    let mut pool = pool(4);
    let expected = 3e38 * (2.0f64 / 3.0).sqrt();
    assert!((pool.deviation(&logits).unwrap() / expected - 1.0).abs() < 1e-6);
    assert!(pool.deviation(&[f32::NEG_INFINITY; 4]).is_none());
}

#[test]
fn top_p_that_meets_a_sum_exactly_stops_there() {
    // Four equal weights of 1: a half is reached by the second exactly.
    let kept = kept(&[2.0; 4], |pool, logits| shape::top_p(pool, logits, 0.5, 1.0));
    assert_eq!(kept, [[0, 1]; 2]);
}

#[test]
fn min_p_keeps_those_above_the_ratio_in_their_order() {
    // Probabilities 1 : 1/2 : 1/4 : 1 relative to the likeliest, with logits that are exact.
    let kept = |p| kept(&[-3.0, -1.0, -2.0, -1.0], |pool, logits| shape::min_p(pool, logits, p, 1.0));
    assert_eq!(kept(0.3), [[1, 2, 3]; 2]);
    assert_eq!(kept(1.0), [[1, 3]; 2]);
}

/// The likeliest token has 30 % of the probability, and is farther from the entropy than tokens that are less likely than what
/// is useful: they come before it.
#[test]
fn typical_takes_back_a_cut_that_was_too_early() {
    let mut logits = vec![-8.26; 9_000];
    logits.extend([-11.3; 1_000]);
    logits.push(0.0);
    let [row, list] = kept(&logits, |pool, logits| shape::typical(pool, logits, 0.9, 1.0));
    assert_eq!(row.len(), logits.len());
    assert_eq!(row, list);
}
