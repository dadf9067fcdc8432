//! Samplers at a large vocabulary: the time of a token for each stage on its own and for chains that hosts use.
//! `cargo bench --bench sampling -- top-p` keeps the lines that hold all of these words; docs/sampling.md has the table.

use smallmind::runtime::sampling::{ChainParts, Logprobs, Sampler, SamplerParams, StageKind, TokenLogit};
use std::hint::black_box;
use std::time::{Duration, Instant};

const VOCAB: usize = 262_144;
/// Tokens of a line; the median counts.
const TOKENS: usize = 200;

/// Logits like a model's: a bell about −4 with a deviation of 2, and 200 likely tokens above it.
fn logits(seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    // The sum of twelve uniform numbers is nearly a bell of deviation 1 about 6.
    let mut row: Vec<f32> =
        (0..VOCAB).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 2.0 - 4.0).collect();
    for _ in 0..200 {
        let token = (uniform() * VOCAB as f32) as usize % VOCAB;
        row[token] = 8.0 + uniform() * 8.0;
    }
    row
}

fn chains() -> Vec<(&'static str, SamplerParams)> {
    let default = SamplerParams::default();
    let plain = default.with_top_k(0).with_top_p(1.0).with_min_p(0.0);
    let penalised = default.with_repetition_penalty(1.1).with_presence_penalty(0.5);
    vec![
        ("greedy", SamplerParams::greedy()),
        ("default", default),
        ("default, penalties", penalised),
        ("default, dry", default.with_dry_multiplier(0.8)),
        (
            "default, penalties, dry, typical, xtc, dynamic temperature",
            penalised
                .with_dry_multiplier(0.8)
                .with_typical_p(0.95)
                .with_xtc_probability(0.5)
                .with_temperature_range(0.3),
        ),
        ("default, top-n-sigma", default.with_top_n_sigma(1.5)),
        ("draw", plain),
        ("top-k 1000", plain.with_top_k(1000)),
        ("min-p", plain.with_min_p(0.05)),
        ("top-n-sigma", plain.with_top_n_sigma(1.5)),
        ("top-p", plain.with_top_p(0.95)),
        ("typical", plain.with_typical_p(0.95)),
        ("xtc", plain.with_xtc_probability(1.0)),
        ("dynamic temperature", plain.with_temperature_range(0.3)),
        ("mirostat", plain.with_mirostat(true)),
    ]
}

/// The median of the times of a call.
fn median(mut call: impl FnMut(usize)) -> Duration {
    let mut times: Vec<Duration> = (0..TOKENS)
        .map(|at| {
            let start = Instant::now();
            call(at);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[TOKENS / 2]
}

fn line(name: &str, time: Duration) {
    println!("{name:60} {:8.1} µs", time.as_secs_f64() * 1e6);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.iter().all(|word| name.contains(word.as_str()));
    let rows: Vec<Vec<f32>> = (1..5).map(logits).collect();
    let host = |_: &mut Vec<TokenLogit>| Ok(());
    let biases = (0..100).map(|i| (i * 2_617, 0.5)).collect();
    let parts = [
        ("default, 100 logit biases", ChainParts::default().with_logit_bias(biases)),
        ("default, a stage of the host", ChainParts::default().with_custom(Box::new(host))),
    ];
    let plain = chains().into_iter().map(|(name, params)| (name, params, ChainParts::default()));
    let with_parts = parts.into_iter().map(|(name, parts)| (name, SamplerParams::default(), parts));
    for (name, params, parts) in plain.chain(with_parts).filter(|(name, ..)| wanted(name)) {
        let stages = params.chain(&StageKind::ORDER, parts).expect("a chain");
        let mut sampler = Sampler::from_stages(stages, VOCAB).expect("a sampler");
        let time = median(|at| {
            let token = sampler.sample(black_box(&rows[at % rows.len()])).expect("a token");
            sampler.accept(token).expect("a token of the vocabulary");
        });
        line(name, time);
    }
    if wanted("log-probabilities of 20") {
        let mut logprobs = Logprobs::new(VOCAB, 20).expect("log-probabilities");
        let time = median(|at| {
            black_box(logprobs.compute(black_box(&rows[at % rows.len()]), 7).expect("a logarithm"));
        });
        line("log-probabilities of 20", time);
    }
}
