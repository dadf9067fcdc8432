//! What each stage leaves, against hand-worked cases (those that llama.cpp tests among them), and the distribution of
//! what chains pick, against probabilities in f64.

use super::tests::{PLAIN, chi_square, softmax};
use super::{Breakers, ChainParts, Dry, Penalties, Sampler, SamplerParams, Stage, StageKind, TokenLogit};
use crate::Result;
use std::sync::{Arc, Mutex};

/// Bounds of χ² that 1 of a million right samplers exceeds, for 0 to 7 degrees of freedom (0 has none).
const BOUNDS: [f64; 8] = [1e-9, 23.93, 27.63, 30.66, 33.38, 35.89, 38.26, 40.52];
const N: usize = 20_000;

/// A chain that ends with a draw at seed 1.
fn chain(mut stages: Vec<Stage>, n_vocab: usize) -> Sampler {
    stages.push(Stage::Draw { seed: 1 });
    Sampler::from_stages(stages, n_vocab).unwrap()
}

fn logs(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|probability| probability.ln()).collect()
}

/// χ² of many picks against the expected probabilities, divided by its bound.
fn misfit(sampler: &mut Sampler, logits: &[f32], expected: &[f64]) -> f64 {
    let mut counts = vec![0.0; logits.len()];
    (0..N).for_each(|_| counts[sampler.sample(logits).unwrap() as usize] += 1.0);
    let possible = expected.iter().filter(|probability| **probability > 0.0).count();
    chi_square(&counts, expected) / BOUNDS[possible - 1]
}

/// The chain's picks have the expected probabilities, up to a factor, and those of a wrong chain haven't.
fn assert_picks(stages: Vec<Stage>, read: &[u32], probabilities: &[f32], expected: &[f64]) {
    let text = format!("{stages:?} after {read:?}");
    let total: f64 = expected.iter().sum();
    let expected: Vec<f64> = expected.iter().map(|probability| probability / total).collect();
    let mut sampler = chain(stages, probabilities.len());
    read.iter().for_each(|&token| sampler.read(token).unwrap());
    let misfit = misfit(&mut sampler, &logs(probabilities), &expected);
    assert!(misfit < 1.0, "{text}: {misfit}");
}

const FOUR: [f32; 4] = [0.1, 0.2, 0.3, 0.4];
const FIFTHS: [f32; 5] = [0.2; 5];

#[test]
fn a_wrong_stage_is_caught() {
    // Planted: a temperature of 1.2 for 1, top choices excluded one time in ten, a bias of 0.2.
    let logits = logs(&FOUR);
    let of = |probabilities: &[f64]| probabilities.to_vec();
    let mut sampler = chain(vec![Stage::Temperature(1.2)], 4);
    assert!(misfit(&mut sampler, &logits, &of(&[0.1, 0.2, 0.3, 0.4])) > 1.0);
    let mut sampler = chain(vec![Stage::Xtc { probability: 0.1, threshold: 0.25 }], 4);
    assert!(misfit(&mut sampler, &logits, &of(&[0.1, 0.2, 0.3, 0.4])) > 1.0);
    let mut sampler = chain(vec![Stage::LogitBias(vec![(0, 0.2)])], 4);
    assert!(misfit(&mut sampler, &logits, &of(&[0.1, 0.2, 0.3, 0.4])) > 1.0);
}

#[test]
fn temperatures() {
    let expected = FOUR.map(f64::from);
    assert_picks(vec![Stage::Temperature(1.0)], &[], &FOUR, &expected);
    assert_picks(vec![Stage::Temperature(0.0)], &[], &FOUR, &[0.0, 0.0, 0.0, 1.0]);
    let dynamic = |temperature, range, exponent| Stage::DynamicTemperature { temperature, range, exponent };
    assert_picks(vec![dynamic(1.0, 0.0, 1.0)], &[], &FOUR, &expected);
    assert_picks(vec![dynamic(0.0, 0.0, 1.0)], &[], &FOUR, &[0.0, 0.0, 0.0, 1.0]);
    // The entropy's share of ln 4, in f64.
    let entropy: f64 = expected.iter().map(|p| -p * p.ln()).sum();
    for (middle, range, exponent) in [(1.0f32, 0.5f32, 1.0f32), (0.7, 2.0, 3.0), (2.0, 1.0, 0.5)] {
        let least = f64::from((middle - range).max(0.0));
        let share = (entropy / 4f64.ln()).powf(exponent.into());
        let temperature = least + (f64::from(middle + range) - least) * share;
        let weights = expected.map(|p| p.powf(1.0 / temperature));
        assert_picks(vec![dynamic(middle, range, exponent)], &[], &FOUR, &weights);
    }
    // All equally likely: the highest temperature. One certain: the lowest, 0.
    assert_picks(vec![dynamic(1.0, 1.0, 1.0)], &[], &FIFTHS, &[1.0; 5]);
    assert_picks(vec![dynamic(0.5, 0.5, 1.0)], &[], &[1.0, 0.0, 0.0], &[1.0, 0.0, 0.0]);
}

#[test]
fn cuts() {
    let all = FOUR.map(f64::from);
    let cases = [
        (Stage::TopK(1), [0.0, 0.0, 0.0, 0.4]),
        (Stage::TopK(3), [0.0, 0.2, 0.3, 0.4]),
        (Stage::TopK(4), all),
        (Stage::TopK(0), all),
        (Stage::TopP(1e-6), [0.0, 0.0, 0.0, 0.4]),
        (Stage::TopP(0.69), [0.0, 0.0, 0.3, 0.4]),
        (Stage::TopP(0.8), [0.0, 0.2, 0.3, 0.4]),
        (Stage::TopP(1.0), all),
        (Stage::MinP(0.0), all),
        (Stage::MinP(0.24), all),
        (Stage::MinP(0.26), [0.0, 0.2, 0.3, 0.4]),
        (Stage::MinP(0.49), [0.0, 0.2, 0.3, 0.4]),
        (Stage::MinP(0.51), [0.0, 0.0, 0.3, 0.4]),
        (Stage::MinP(0.74), [0.0, 0.0, 0.3, 0.4]),
        (Stage::MinP(0.76), [0.0, 0.0, 0.0, 0.4]),
        (Stage::MinP(1.0), [0.0, 0.0, 0.0, 0.4]),
        (Stage::TopNSigma(1.0), [0.0, 0.0, 0.3, 0.4]),
        (Stage::TopNSigma(0.0), all),
        (Stage::TopNSigma(-1.0), all),
        (Stage::TopNSigma(3.0), all),
    ];
    for (stage, expected) in cases {
        assert_picks(vec![stage], &[], &FOUR, &expected);
    }
    // Behind another cut, deviations are those of what it left: ln 0.2, ln 0.3 and ln 0.4 have 0.285.
    assert_picks(vec![Stage::TopK(3), Stage::TopNSigma(1.5)], &[], &FOUR, &[0.0, 0.0, 0.3, 0.4]);
    assert_picks(vec![Stage::TopK(3), Stage::TopNSigma(2.5)], &[], &FOUR, &[0.0, 0.2, 0.3, 0.4]);
}

#[test]
fn typical_keeps_what_is_as_surprising_as_the_mean() {
    let certain = [0.97, 0.01, 0.01, 0.01];
    assert_picks(vec![Stage::Typical(0.5)], &[], &certain, &[1.0, 0.0, 0.0, 0.0]);
    // The likeliest token is less typical than the three others, with 0.6 together.
    assert_picks(vec![Stage::Typical(0.5)], &[], &[0.4, 0.2, 0.2, 0.2], &[0.0, 1.0, 1.0, 1.0]);
    assert_picks(vec![Stage::Typical(0.7)], &[], &[0.4, 0.2, 0.2, 0.2], &[2.0, 1.0, 1.0, 1.0]);
    assert_picks(vec![Stage::Typical(1.0)], &[], &FOUR, &FOUR.map(f64::from));
    // A long list, more than one stretch, with impossible tokens: the same as a sort of all.
    let mut logits: Vec<f32> = (0..3000).map(|i| ((i * 7919 % 3001) as f32) / 300.0).collect();
    logits[7] = f32::NEG_INFINITY;
    let p =
        softmax(&logits.iter().map(|&logit| logit.is_finite().then_some(logit.into())).collect::<Vec<_>>());
    let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
    let mut ids: Vec<usize> = (0..3000).filter(|&id| p[id] > 0.0).collect();
    ids.sort_by(|&a, &b| (-p[a].ln() - entropy).abs().total_cmp(&(-p[b].ln() - entropy).abs()));
    let mut reached = 0.0;
    let expected = ids.iter().take_while(|&&id| {
        let needed = reached <= 0.95;
        reached += p[id];
        needed
    });
    let mut expected: Vec<usize> = expected.copied().collect();
    expected.sort_unstable();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let spy = move |tokens: &mut Vec<TokenLogit>| -> Result<()> {
        *sink.lock().unwrap() = tokens.iter().map(|token| token.token as usize).collect();
        Ok(())
    };
    chain(vec![Stage::Typical(0.95), Stage::Custom(Box::new(spy))], 3000).sample(&logits).unwrap();
    let mut kept = seen.lock().unwrap().clone();
    kept.sort_unstable();
    assert_eq!(kept, expected);
}

#[test]
fn xtc_excludes_top_choices() {
    let probabilities = [0.4, 0.3, 0.2, 0.1];
    let xtc = |probability, threshold| vec![Stage::Xtc { probability, threshold }];
    assert_picks(xtc(1.0, 0.09), &[], &probabilities, &[0.0, 0.0, 0.0, 1.0]);
    assert_picks(xtc(1.0, 0.19), &[], &probabilities, &[0.0, 0.0, 0.2, 0.1]);
    assert_picks(xtc(1.0, 0.29), &[], &probabilities, &[0.0, 0.3, 0.2, 0.1]);
    for off in [xtc(1.0, 0.39), xtc(1.0, 0.51), xtc(0.0, 0.09)] {
        assert_picks(off, &[], &probabilities, &[0.4, 0.3, 0.2, 0.1]);
    }
    // A quarter of the time, what is left are the last two.
    let mixed = [0.75 * 0.4, 0.75 * 0.3, 0.75 * 0.2 + 0.25 * 2.0 / 3.0, 0.75 * 0.1 + 0.25 / 3.0];
    assert_picks(xtc(0.25, 0.19), &[], &probabilities, &mixed);
}

#[test]
fn penalties() {
    let of = |repetition, frequency, presence, last_n| {
        vec![Stage::Penalties(Penalties { repetition, frequency, presence, last_n })]
    };
    let repeated = of(50.0, 0.0, 0.0, 5);
    assert_picks(repeated, &[0], &FIFTHS, &[0.0, 1.0, 1.0, 1.0, 1.0]);
    assert_picks(of(50.0, 0.0, 0.0, 5), &[0, 1, 2], &FIFTHS, &[0.0, 0.0, 0.0, 1.0, 1.0]);
    assert_picks(of(50.0, 0.0, 0.0, 5), &[0, 1, 2, 0, 0], &FIFTHS, &[0.0, 0.0, 0.0, 1.0, 1.0]);
    let both = |count: f64| (-(0.5 * count) - 1.0).exp();
    assert_picks(of(1.0, 0.5, 1.0, 5), &[0], &FIFTHS, &[both(1.0), 1.0, 1.0, 1.0, 1.0]);
    let counted = [both(3.0), both(1.0), both(1.0), 1.0, 1.0];
    assert_picks(of(1.0, 0.5, 1.0, 5), &[0, 1, 2, 0, 0], &FIFTHS, &counted);
}

#[test]
fn dry() {
    let of = |multiplier, allowed_length, last_n, breakers: &[&[u32]]| {
        let breakers = Breakers::new(breakers);
        vec![Stage::Dry(Dry { multiplier, base: 1.1, allowed_length, last_n, breakers })]
    };
    assert_picks(of(1.0, 2, 4, &[]), &[0, 1], &[0.25; 4], &[1.0; 4]);
    let e = |penalty: f64| (-penalty).exp();
    assert_picks(of(1.0, 2, 5, &[]), &[0, 1, 2, 0, 1], &[0.25; 4], &[1.0, 1.0, e(1.0), 1.0]);
    assert_picks(of(2.0, 2, 5, &[]), &[0, 1, 2, 0, 1], &FIFTHS, &[1.0, 1.0, e(2.0), 1.0, 1.0]);
    assert_picks(of(1.0, 4, 7, &[]), &[0, 1, 2, 3, 4, 0, 1], &FIFTHS, &[1.0; 5]);
    // Three tokens repeated: base^1. Outside the window, nothing is.
    let three = [3, 0, 1, 2, 3, 0, 1];
    assert_picks(of(1.0, 2, 7, &[]), &three, &FIFTHS, &[1.0, 1.0, e(1.1), 1.0, 1.0]);
    assert_picks(of(1.0, 2, 4, &[]), &three, &FIFTHS, &[1.0; 5]);
    // A breaker within the repetition, one that is the next token, one of two tokens, and one that isn't whole.
    assert_picks(of(1.0, 2, 6, &[&[3]]), &[0, 1, 3, 4, 0, 1], &FIFTHS, &[1.0; 5]);
    assert_picks(of(1.0, 2, 9, &[&[0]]), &three, &FIFTHS, &[1.0; 5]);
    assert_picks(of(1.0, 2, 9, &[&[3, 0]]), &three, &FIFTHS, &[1.0; 5]);
    assert_picks(of(1.0, 2, 9, &[&[3, 1]]), &three, &FIFTHS, &[1.0, 1.0, e(1.1), 1.0, 1.0]);
}

#[test]
fn logit_biases() {
    let biases = vec![(1, 2f32.ln()), (2, f32::NEG_INFINITY), (3, -2.0), (3, 2.0)];
    assert_picks(vec![Stage::LogitBias(biases.clone())], &[], &FOUR, &[0.1, 0.4, 0.0, 0.4]);
    // Behind a cut, too: the lifted token may be gone.
    assert_picks(vec![Stage::TopK(3), Stage::LogitBias(biases)], &[], &FOUR, &[0.0, 0.4, 0.0, 0.4]);
    for bias in [f32::NAN, f32::INFINITY] {
        assert!(
            Sampler::from_stages(vec![Stage::LogitBias(vec![(0, bias)]), Stage::Draw { seed: 0 }], 4)
                .is_err()
        );
    }
    assert!(
        Sampler::from_stages(vec![Stage::LogitBias(vec![(4, 0.0)]), Stage::Draw { seed: 0 }], 4).is_err()
    );
    // Two that add up to more than an f32 holds.
    let mut sampler = chain(vec![Stage::LogitBias(vec![(0, f32::MAX), (0, f32::MAX)])], 4);
    assert_eq!(sampler.sample(&[0.0; 4]).unwrap_err().to_string(), "the logit of token 0 is inf");
}

#[test]
fn mirostat_follows_its_definition() {
    let logits: Vec<f32> = (0..50).map(|i| -0.15 * i as f32).collect();
    let p = softmax(&logits.iter().map(|&logit| Some(logit.into())).collect::<Vec<_>>());
    let (tau, eta) = (2.5f32, 0.3f32);
    let stages = vec![Stage::Mirostat { tau, eta, seed: 4 }];
    let mut sampler = Sampler::from_stages(stages, 50).unwrap();
    let (mut mu, mut surprises) = (2.0 * f64::from(tau), 0.0);
    for _ in 0..4000 {
        let kept = p.iter().take_while(|p| -p.log2() <= mu).count().max(1);
        let token = sampler.sample(&logits).unwrap() as usize;
        assert!(token < kept, "{token} is more surprising than {mu} bits");
        let surprise = -(p[token] / p[..kept].iter().sum::<f64>()).log2();
        mu -= f64::from(eta) * (surprise - f64::from(tau));
        surprises += surprise / 4000.0;
    }
    // The mean of the surprises is what it aims at, up to the distance of μ's ends divided by the steps.
    assert!((surprises - 2.5).abs() < 0.05, "{surprises}");
    let probabilities = [0.1, 0.2, 0.3, 0.4].map(f32::ln);
    let mut cold = Sampler::from_stages(vec![Stage::Mirostat { tau: 0.0, eta: 0.1, seed: 4 }], 4).unwrap();
    assert_eq!((0..50).map(|_| cold.sample(&probabilities).unwrap()).min(), Some(3));
}

/// μ goes back with the random numbers.
#[test]
fn mirostat_and_dry_can_be_taken_back() {
    let logits: Vec<f32> = (0..20).map(|i| (i * 7 % 20) as f32 / 5.0).collect();
    let stages = || {
        let dry = Dry { multiplier: 1.0, last_n: 6, ..Dry::default() };
        vec![Stage::Dry(dry), Stage::Mirostat { tau: 2.0, eta: 0.5, seed: 9 }]
    };
    let picks = |sampler: &mut Sampler, n| -> Vec<u32> {
        let pick = |_| {
            let token = sampler.sample(&logits).unwrap();
            sampler.accept(token % 3).unwrap();
            token
        };
        (0..n).map(pick).collect()
    };
    let (mut plain, mut tried) =
        (Sampler::from_stages(stages(), 20).unwrap(), Sampler::from_stages(stages(), 20).unwrap());
    assert_eq!(picks(&mut plain, 10), picks(&mut tried, 10));
    picks(&mut tried, 7);
    tried.rollback(7).unwrap();
    assert_eq!(picks(&mut plain, 30), picks(&mut tried, 30));
    plain.reset();
    let first = picks(&mut plain, 20);
    assert_eq!(first, picks(&mut Sampler::from_stages(stages(), 20).unwrap(), 20));
}

#[test]
fn a_stage_of_the_host() {
    let halve = |tokens: &mut Vec<TokenLogit>| -> Result<()> {
        tokens.retain(|token| token.token != 1);
        tokens.iter_mut().filter(|token| token.token == 3).for_each(|token| token.logit -= 2f32.ln());
        tokens.reverse();
        Ok(())
    };
    assert_picks(vec![Stage::Custom(Box::new(halve))], &[], &FOUR, &[0.1, 0.0, 0.3, 0.2]);
    // It sees what the temperature made of the logits.
    let stages = vec![Stage::Temperature(0.5), Stage::Custom(Box::new(halve))];
    assert_picks(stages, &[], &FOUR, &[0.01, 0.0, 0.09, 0.08]);
    let refused = |change: fn(&mut Vec<TokenLogit>)| {
        let stage = move |tokens: &mut Vec<TokenLogit>| -> Result<()> {
            change(tokens);
            Ok(())
        };
        let stages = vec![Stage::TopK(3), Stage::Custom(Box::new(stage))];
        chain(stages, 4).sample(&logs(&FOUR)).unwrap_err().to_string()
    };
    assert!(refused(|tokens| tokens[0].token = 0).contains("gave back token 0"));
    assert!(refused(|tokens| tokens[0].token = u32::MAX).contains("gave back token"));
    assert!(refused(|tokens| tokens.push(tokens[0])).contains("or twice"));
    assert!(refused(|tokens| tokens[1].logit = f32::NAN).contains("is NaN"));
    assert!(refused(|tokens| tokens[1].logit = f32::INFINITY).contains("is inf"));
    assert!(refused(Vec::clear).contains("no token is left"));
    let fails = |_: &mut Vec<TokenLogit>| Err(crate::Error::invalid("no"));
    assert_eq!(
        chain(vec![Stage::Custom(Box::new(fails))], 4).sample(&[0.0; 4]).unwrap_err().to_string(),
        "no"
    );
}

/// Every stage with values that are no use, and every logit.
#[test]
fn hostile_values() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let bad: Vec<Stage> = vec![
        Stage::TopNSigma(nan),
        Stage::TopNSigma(inf),
        Stage::Typical(0.0),
        Stage::Typical(nan),
        Stage::Typical(1.5),
        Stage::Xtc { probability: -0.1, threshold: 0.1 },
        Stage::Xtc { probability: 0.1, threshold: nan },
        Stage::DynamicTemperature { temperature: 1.0, range: -1.0, exponent: 1.0 },
        Stage::DynamicTemperature { temperature: 1.0, range: inf, exponent: 1.0 },
        Stage::DynamicTemperature { temperature: 1.0, range: 1.0, exponent: nan },
        Stage::Dry(Dry { multiplier: -1.0, ..Dry::default() }),
        Stage::Dry(Dry { multiplier: 1.0, base: 0.5, ..Dry::default() }),
        Stage::Dry(Dry { multiplier: 1.0, last_n: usize::MAX, ..Dry::default() }),
    ];
    for stage in bad {
        let text = format!("{stage:?}");
        assert!(Sampler::from_stages(vec![stage, Stage::Draw { seed: 0 }], 4).is_err(), "{text}");
    }
    for (tau, eta) in [(nan, 0.1), (-1.0, 0.1), (1.0, inf)] {
        assert!(Sampler::from_stages(vec![Stage::Mirostat { tau, eta, seed: 0 }], 4).is_err());
    }
    let dynamic = Stage::DynamicTemperature { temperature: 3e38, range: 3e38, exponent: 0.0 };
    let stages = || -> Vec<Vec<Stage>> {
        vec![
            vec![Stage::TopNSigma(1e-30)],
            vec![Stage::Typical(1e-30)],
            vec![Stage::TopK(usize::MAX), Stage::TopNSigma(1.0)],
            vec![Stage::Xtc { probability: 1.0, threshold: 0.0 }],
            vec![Stage::DynamicTemperature { temperature: 1.0, range: 5.0, exponent: 9.0 }],
            vec![Stage::Dry(Dry { multiplier: 3e38, allowed_length: 0, ..Dry::default() })],
        ]
    };
    let with_ends = stages().into_iter().chain([vec![dynamic]]).map(|stages| chain(stages, 4));
    let mirostat = Sampler::from_stages(vec![Stage::Mirostat { tau: 3e38, eta: 3e38, seed: 0 }], 4).unwrap();
    for mut sampler in with_ends.chain([mirostat]) {
        for round in 0..3 {
            for bad in [nan, inf] {
                assert!(sampler.sample(&[0.0, bad, 0.0, 1.0]).is_err(), "{sampler:?}");
            }
            assert!(sampler.sample(&[f32::NEG_INFINITY; 4]).is_err(), "{sampler:?}");
            let only = sampler.sample(&[f32::NEG_INFINITY, f32::NEG_INFINITY, -3e38, f32::NEG_INFINITY]);
            assert_eq!(only.unwrap(), 2, "{sampler:?}");
            let wide = sampler.sample(&[3e38, -3e38, f32::NEG_INFINITY, 0.0]).unwrap();
            assert!(wide != 2 && round < 3, "{sampler:?}");
        }
    }
}

#[test]
fn orders_of_stages() {
    let params = SamplerParams { top_k: 3, top_p: 0.75, ..PLAIN };
    let kept = |order: &[StageKind]| {
        let mut sampler =
            Sampler::from_stages(params.chain(order, ChainParts::default()).unwrap(), 4).unwrap();
        let mut came: Vec<u32> = (0..2000).map(|_| sampler.sample(&logs(&FOUR)).unwrap()).collect();
        came.sort_unstable();
        came.dedup();
        came
    };
    use StageKind::{Custom, Mask, Temperature, TopK, TopP};
    // 0.3 and 0.4 are 0.78 of what top-k keeps, and 0.7 of all.
    assert_eq!(kept(&[TopK, TopP]), [2, 3]);
    assert_eq!(kept(&[TopP, TopK]), [1, 2, 3]);
    assert_eq!(kept(&[Temperature]), [0, 1, 2, 3]);
    let twice = params.chain(&[TopK, TopP, TopK], ChainParts::default()).unwrap_err().to_string();
    assert_eq!(twice, "top_k is in the order of stages twice");
    let custom = |_: &mut Vec<TokenLogit>| -> Result<()> { Ok(()) };
    let parts = || ChainParts::default().with_custom(Box::new(custom));
    assert_eq!(
        params.chain(&[TopK, Mask], parts()).unwrap_err().to_string(),
        "the order of stages has no place for custom"
    );
    assert!(params.chain(&[TopK, Custom], parts()).is_ok());
    for kind in StageKind::ORDER {
        assert_eq!(StageKind::named(kind.name()).unwrap(), kind);
    }
    assert!(StageKind::named("top-k").unwrap_err().to_string().starts_with("one of logit_bias, mask"));
}

#[test]
fn what_parameters_stand_for() {
    let text = |params: SamplerParams| format!("{:?}", params.stages());
    assert_eq!(
        text(SamplerParams::default()),
        "[TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8), Draw { seed: 0 }]"
    );
    assert_eq!(text(SamplerParams::greedy()), "[Temperature(0.0), Draw { seed: 0 }]");
    let all = SamplerParams {
        top_n_sigma: 2.0,
        typical_p: 0.9,
        xtc_probability: 0.5,
        temperature_range: 0.5,
        presence_penalty: 1.0,
        dry_multiplier: 0.8,
        ..SamplerParams::default()
    };
    let stages = text(all);
    assert!(stages.starts_with("[Penalties(") && stages.contains(", Dry(Dry {"), "{stages}");
    assert!(
        stages.ends_with(
            ", TopNSigma(2.0), TopK(40), Typical(0.9), TopP(0.95), MinP(0.05), Xtc(0.5, 0.1), \
             DynamicTemperature(0.8, 0.5, 1.0), Draw { seed: 0 }]"
        ),
        "{stages}"
    );
    let mirostat = text(SamplerParams { mirostat: true, dry_multiplier: 0.0, presence_penalty: 0.0, ..all });
    assert_eq!(mirostat, "[DynamicTemperature(0.8, 0.5, 1.0), Mirostat(5.0, 0.1, 0)]");
    // A cut that may remove the likeliest token counts at temperature 0 as well.
    let greedy = SamplerParams { xtc_probability: 1.0, ..SamplerParams::greedy() };
    assert!(text(greedy).contains("TopK(40)"));
}
