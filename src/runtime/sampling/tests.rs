//! Tests of the whole chain: greedy, penalties, distributions, errors, and that nothing is allocated.
//! Tests of the cuts and the window are next to their code.

use super::{MAX_PENALTY_LAST_N, Sampler, SamplerParams};
use proptest::prelude::*;

/// No cut, no penalty, temperature 1.
pub(super) const PLAIN: SamplerParams = SamplerParams {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    penalty_last_n: 0,
    seed: 1,
    temperature_range: 0.0,
    temperature_exponent: 1.0,
    top_n_sigma: 0.0,
    typical_p: 1.0,
    xtc_probability: 0.0,
    xtc_threshold: 0.1,
    dry_multiplier: 0.0,
    dry_base: 1.75,
    dry_allowed_length: 2,
    dry_last_n: 4096,
    mirostat: false,
    mirostat_tau: 5.0,
    mirostat_eta: 0.1,
};

fn sampler(params: SamplerParams, n_vocab: usize) -> Sampler {
    Sampler::new(params, n_vocab).unwrap()
}

/// The number of occurrences of each token in `n` draws.
fn counts(params: SamplerParams, logits: &[f32], n: usize) -> Vec<f64> {
    let mut sampler = sampler(params, logits.len());
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..n {
        counts[sampler.sample(logits).unwrap() as usize] += 1.0;
    }
    counts
}

/// Pearson's statistic of `counts` against probabilities; tokens of probability 0 must not occur.
pub(super) fn chi_square(counts: &[f64], probabilities: &[f64]) -> f64 {
    let n: f64 = counts.iter().sum();
    let mut statistic = 0.0;
    for (&count, &probability) in counts.iter().zip(probabilities) {
        if probability == 0.0 {
            assert_eq!(count, 0.0);
        } else {
            statistic += (count - n * probability).powi(2) / (n * probability);
        }
    }
    statistic
}

/// Softmax in f64 of the logits that aren't `None`.
pub(super) fn softmax(logits: &[Option<f64>]) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|logit| logit.map_or(0.0, f64::exp)).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

const LOGITS: [f32; 8] = [0.5, -1.0, 2.0, 1.25, -0.25, 1.75, -3.0, 0.0];

/// 0.999 quantiles of χ² with 1 to 7 degrees of freedom. Seeds are fixed: a pass or failure repeats.
const CHI2_999: [f64; 8] = [f64::NAN, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32];

/// Draws follow the softmax of `logits` (after division by `temperature`) over `kept`.
fn assert_distribution(params: SamplerParams, kept: &[usize]) {
    let expected: Vec<Option<f64>> = (0..8)
        .map(|id| kept.contains(&id).then(|| f64::from(LOGITS[id]) / f64::from(params.temperature)))
        .collect();
    let statistic = chi_square(&counts(params, &LOGITS, 20_000), &softmax(&expected));
    assert!(statistic < CHI2_999[kept.len() - 1], "{statistic} for {params:?}");
}

#[test]
fn draws_follow_the_softmax() {
    let all: Vec<usize> = (0..8).collect();
    for temperature in [0.5, 1.0, 3.0] {
        assert_distribution(SamplerParams { temperature, ..PLAIN }, &all);
    }
}

#[test]
fn draws_follow_the_softmax_of_what_is_kept() {
    assert_distribution(SamplerParams { top_k: 3, ..PLAIN }, &[2, 5, 3]);
    // Probabilities in percent, best first: 35, 28, 17, 8, 5, 4, 2, 1: 0.75 is reached by the third.
    assert_distribution(SamplerParams { top_p: 0.75, ..PLAIN }, &[2, 5, 3]);
    // Cuts precede the temperature, which doesn't change them.
    assert_distribution(SamplerParams { top_p: 0.75, temperature: 5.0, ..PLAIN }, &[2, 5, 3]);
    // e^−0.75 = 0.47 of the likeliest is token 3's share; e^−1.5 = 0.22 is token 0's.
    assert_distribution(SamplerParams { min_p: 0.3, ..PLAIN }, &[2, 5, 3]);
    // top-p looks at the shares among the top k: 44 %, 35 %, 21 %; so two reach 0.75.
    assert_distribution(SamplerParams { top_k: 3, top_p: 0.75, ..PLAIN }, &[2, 5]);
}

#[test]
fn the_statistic_catches_a_wrong_distribution() {
    // A planted violation: temperature 1 against the expectation at 1.1.
    let expected: Vec<Option<f64>> = LOGITS.iter().map(|&logit| Some(f64::from(logit) / 1.1)).collect();
    assert!(chi_square(&counts(PLAIN, &LOGITS, 20_000), &softmax(&expected)) > CHI2_999[7]);
}

#[test]
fn ruled_out_tokens_never_come() {
    let mut logits = LOGITS;
    for id in [2, 5, 7] {
        logits[id] = f32::NEG_INFINITY;
    }
    let counts = counts(PLAIN, &logits, 2_000);
    assert!([2, 5, 7].iter().all(|&id| counts[id] == 0.0));
    let only = [f32::NEG_INFINITY, f32::NEG_INFINITY, -1e30];
    for params in [PLAIN, SamplerParams::greedy(), SamplerParams::default()] {
        assert_eq!(sampler(params, 3).sample(&only).unwrap(), 2);
    }
}

#[test]
fn greedy_takes_the_likeliest_and_of_equals_the_lowest_id() {
    let mut greedy = sampler(SamplerParams::greedy(), 5);
    assert_eq!(greedy.sample(&[1.0, 3.0, -2.0, 3.0, 0.0]).unwrap(), 1);
    assert_eq!(greedy.sample(&[-0.0, 0.0, -0.0, 0.0, -1.0]).unwrap(), 0);
    assert_eq!(greedy.sample(&[f32::MIN; 5]).unwrap(), 0);
}

#[test]
fn top_k_of_one_and_tiny_temperatures_are_greedy() {
    let equals = [1.0, 3.0, -2.0, 3.0, 0.0];
    assert_eq!(sampler(SamplerParams { top_k: 1, ..PLAIN }, 5).sample(&equals).unwrap(), 1);
    assert_eq!(sampler(SamplerParams { top_p: 1e-9, ..PLAIN }, 5).sample(&equals).unwrap(), 1);
    let cold = SamplerParams { temperature: f32::from_bits(1), ..PLAIN };
    assert_eq!(sampler(cold, 8).sample(&LOGITS).unwrap(), 2);
}

#[test]
fn penalties_change_logits_as_written() {
    let chain = SamplerParams {
        temperature: 0.0,
        repetition_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 0.5,
        penalty_last_n: 3,
        ..PLAIN
    };
    let params = chain.penalties();
    assert_eq!(params.penalised(4.0, 1), 2.0 - 0.25 - 0.5);
    assert_eq!(params.penalised(4.0, 3), 2.0 - 0.75 - 0.5);
    assert_eq!(params.penalised(-4.0, 2), -8.0 - 0.5 - 0.5);
    assert_eq!(params.penalised(0.0, 1), -0.75);

    let logits = [4.0, 1.5, -9.0, -9.0];
    let mut sampler = sampler(chain, 4);
    assert_eq!(sampler.sample(&logits).unwrap(), 0);
    sampler.accept(0).unwrap(); // 4 → 1.25
    assert_eq!(sampler.sample(&logits).unwrap(), 1);
    for _ in 0..3 {
        sampler.accept(2).unwrap(); // token 0 leaves the window
    }
    assert_eq!(sampler.sample(&logits).unwrap(), 0);
    sampler.accept(0).unwrap();
    sampler.reset();
    assert_eq!(sampler.sample(&logits).unwrap(), 0);
}

#[test]
fn penalties_that_overflow_are_an_error() {
    let mut sampler = sampler(SamplerParams { repetition_penalty: 1e-30, penalty_last_n: 8, ..PLAIN }, 2);
    sampler.accept(1).unwrap();
    let message = sampler.sample(&[0.0, 1e20]).unwrap_err().to_string();
    assert_eq!(message, "the logit of token 1 is inf");
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let run = |seed, sampler: &mut Sampler| {
        assert_eq!(sampler.seed(), seed);
        (0..64).map(|_| sampler.sample(&LOGITS).unwrap()).collect::<Vec<_>>()
    };
    let mut one = sampler(SamplerParams { seed: 7, ..PLAIN }, 8);
    let first = run(7, &mut one);
    assert_eq!(run(7, &mut sampler(SamplerParams { seed: 7, ..PLAIN }, 8)), first);
    assert_ne!(run(7, &mut one), first);
    one.reset();
    assert_eq!(run(7, &mut one), first);
    assert_ne!(run(8, &mut sampler(SamplerParams { seed: 8, ..PLAIN }, 8)), first);
}

#[test]
fn bad_logits_are_named() {
    for params in [PLAIN, SamplerParams::greedy()] {
        let mut sampler = sampler(params, 3);
        let mut message = |logits: &[f32]| sampler.sample(logits).unwrap_err().to_string();
        assert_eq!(message(&[0.0, f32::NAN, 0.0]), "the logit of token 1 is NaN");
        assert_eq!(message(&[0.0, 0.0, f32::INFINITY]), "the logit of token 2 is inf");
        assert_eq!(message(&[f32::NEG_INFINITY; 3]), "every logit is −∞: no token is left to pick");
        assert_eq!(message(&[0.0; 2]), "2 logits for a vocabulary of 3");
        assert_eq!(message(&[]), "0 logits for a vocabulary of 3");
        assert!(sampler.accept(3).is_err());
        assert!(sampler.sample(&[0.0, 1.0, 0.0]).is_ok());
    }
}

#[test]
fn bad_parameters_are_named() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let refused = |params: SamplerParams| {
        Sampler::new(params, 8).err().map(|error| error.to_string()).unwrap_or_default()
    };
    for temperature in [nan, inf, -inf, -0.5] {
        assert!(refused(SamplerParams { temperature, ..PLAIN }).starts_with("temperature is "));
    }
    for top_p in [nan, inf, 0.0, -0.5, 1.5] {
        assert!(refused(SamplerParams { top_p, ..PLAIN }).starts_with("top_p is "));
    }
    for min_p in [nan, inf, -0.5, 1.5] {
        assert!(refused(SamplerParams { min_p, ..PLAIN }).starts_with("min_p is "));
    }
    for repetition_penalty in [nan, inf, 0.0, -1.0] {
        assert!(refused(SamplerParams { repetition_penalty, ..PLAIN }).starts_with("repetition_penalty is "));
    }
    for penalty in [nan, inf, -inf] {
        let frequency = SamplerParams { frequency_penalty: penalty, ..PLAIN };
        assert!(refused(frequency).starts_with("frequency_penalty is "));
        assert!(
            refused(SamplerParams { presence_penalty: penalty, ..PLAIN }).starts_with("presence_penalty is ")
        );
    }
    let penalty_last_n = MAX_PENALTY_LAST_N + 1;
    assert!(refused(SamplerParams { penalty_last_n, ..PLAIN }).starts_with("penalty_last_n is "));
    assert!(Sampler::new(PLAIN, 0).is_err());
    assert!(Sampler::new(PLAIN, usize::MAX).is_err());
    assert!(Sampler::new(SamplerParams { top_k: usize::MAX, ..PLAIN }, 8).is_ok());
}

proptest! {
    #[test]
    fn any_finite_logits_and_valid_parameters_pick_a_token(
        logits in prop::collection::vec(prop_oneof![-1e38f32..1e38, -30f32..30.0, Just(f32::NEG_INFINITY)], 1..300),
        temperature in 0f32..10.0, top_k in 0usize..400, top_p in 0.001f32..=1.0, min_p in 0f32..=1.0,
        seed in any::<u64>(),
    ) {
        let finite = logits.iter().any(|logit| logit.is_finite());
        let params = SamplerParams { temperature, top_k, top_p, min_p, seed, ..PLAIN };
        match sampler(params, logits.len()).sample(&logits) {
            Ok(token) => prop_assert!(logits[token as usize].is_finite()),
            Err(_) => prop_assert!(!finite),
        }
    }
}

/// A seed promises the same tokens in later versions: these were recorded before chains of stages existed.
#[test]
fn the_default_chain_picks_what_it_always_picked() {
    let logits = |step: u32| -> Vec<f32> {
        // Fixed values within ±8, different ones in each step.
        let spread = |id: u32| (id * 7 + step * 13 + 1).wrapping_mul(2_654_435_761) >> 16;
        (0..500).map(|id| spread(id) as f32 / 4096.0 - 8.0).collect()
    };
    let penalised = SamplerParams {
        repetition_penalty: 1.3,
        frequency_penalty: 0.25,
        presence_penalty: 0.5,
        penalty_last_n: 5,
        ..PLAIN
    };
    let cases: [(SamplerParams, [u32; 12]); 7] = [
        (PLAIN, [424, 59, 237, 375, 191, 286, 200, 384, 68, 206, 30, 40]),
        (
            SamplerParams { seed: 9, ..SamplerParams::default() },
            [464, 136, 476, 194, 4, 473, 197, 387, 206, 396, 206, 209],
        ),
        (
            SamplerParams { top_k: 5, temperature: 2.5, ..PLAIN },
            [464, 369, 421, 93, 191, 332, 243, 56, 13, 295, 65, 65],
        ),
        (
            SamplerParams { top_p: 0.6, temperature: 0.7, ..PLAIN },
            [47, 182, 470, 50, 427, 53, 10, 482, 295, 62, 206, 206],
        ),
        (
            SamplerParams { min_p: 0.4, temperature: 3.0, ..PLAIN },
            [421, 90, 234, 332, 151, 286, 197, 344, 65, 203, 25, 25],
        ),
        (
            SamplerParams { top_k: 7, top_p: 0.9, min_p: 0.1, temperature: 1.5, ..penalised },
            [136, 369, 93, 375, 332, 4, 384, 479, 154, 436, 65, 206],
        ),
        (
            SamplerParams { temperature: 0.0, ..penalised },
            [369, 41, 139, 280, 50, 191, 102, 243, 13, 154, 65, 206],
        ),
    ];
    for (params, expected) in cases {
        let mut sampler = sampler(params, 500);
        let picks = std::array::from_fn::<u32, 12, _>(|step| {
            // The same logits twice, so that penalties change something.
            let token = sampler.sample(&logits(step as u32 / 2)).unwrap();
            sampler.accept(token).unwrap();
            token
        });
        assert_eq!(picks, expected, "{params:?}");
    }
}
