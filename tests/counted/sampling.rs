//! Sampling and streaming allocate nothing once made.
//! A planted allocation shows that the counter counts.

use smallmind::profile::alloc::count_during;
use smallmind::runtime::sampling::{
    Breakers, ChainParts, Logprobs, Sampler, SamplerParams, StageKind, TokenLogit,
};
use smallmind::runtime::stream::Utf8Stream;
use std::hint::black_box;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    count_during(work).1.count
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Vec::<u8>::with_capacity(1)))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn sampling_allocates_nothing() {
    let n_vocab = 50_000;
    // A fixed spread of logits; its quality as randomness doesn't matter.
    let logits: Vec<f32> =
        (0..n_vocab as u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 16) as f32 / 4096.0).collect();
    let base = SamplerParams::default().with_top_k(0).with_top_p(1.0).with_min_p(0.0);
    for params in [
        base,
        SamplerParams::greedy(),
        SamplerParams::default(),
        base.with_top_k(40),
        base.with_top_p(0.999),
        base.with_min_p(0.01),
        SamplerParams::default().with_repetition_penalty(1.1).with_presence_penalty(0.5),
        SamplerParams::default().with_top_n_sigma(1.5).with_xtc_probability(0.5).with_temperature_range(0.4),
        base.with_top_n_sigma(1.5),
        base.with_typical_p(0.9),
        base.with_xtc_probability(1.0).with_xtc_threshold(1e-4),
        base.with_temperature_range(0.4),
        base.with_dry_multiplier(0.8).with_dry_allowed_length(1),
        base.with_mirostat(true),
    ] {
        let mut sampler = Sampler::new(params, n_vocab).unwrap();
        let taken = allocations(|| {
            for _ in 0..100 {
                let token = sampler.sample(&logits).unwrap();
                sampler.accept(token).unwrap();
            }
            sampler.reset();
        });
        assert_eq!(taken, 0, "{params:?}");
    }
}

#[test]
fn parts_of_a_chain_and_log_probabilities_allocate_nothing() {
    let n_vocab = 5000;
    let logits: Vec<f32> =
        (0..n_vocab as u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 16) as f32 / 4096.0).collect();
    let host = |tokens: &mut Vec<TokenLogit>| -> smallmind::Result<()> {
        tokens.retain(|token| token.token % 3 > 0);
        Ok(())
    };
    let parts = ChainParts::default()
        .with_logit_bias(vec![(7, 2.0), (8, f32::NEG_INFINITY)])
        .with_breakers(Breakers::new(&[&[1], &[2, 3]]))
        .with_custom(Box::new(host));
    let params = SamplerParams::default().with_top_k(0).with_dry_multiplier(1.0);
    let stages = params.chain(&StageKind::ORDER, parts).unwrap();
    let mut sampler = Sampler::from_stages(stages, n_vocab).unwrap();
    let mut logprobs = Logprobs::new(n_vocab, 20).unwrap();
    let taken = allocations(|| {
        for _ in 0..100 {
            let token = sampler.sample(&logits).unwrap();
            assert!(logprobs.compute(&logits, token).unwrap() < 0.0);
            sampler.accept(token).unwrap();
        }
        sampler.rollback(50).unwrap();
        sampler.reset();
    });
    assert_eq!(taken, 0);
}

#[test]
fn streaming_allocates_nothing_once_the_text_has_room() {
    let mut stream = Utf8Stream::new();
    let mut out = String::with_capacity(64);
    let bytes = "naïve 漢字 😀".as_bytes();
    let taken = allocations(|| {
        for byte in bytes.iter().cycle().take(10_000) {
            stream.push(std::slice::from_ref(byte), &mut out);
            out.clear();
        }
        stream.flush(&mut out);
    });
    assert_eq!(taken, 0);
}
