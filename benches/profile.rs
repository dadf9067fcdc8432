//! What the profile costs a decode step: on and off in turns on one model, and scopes times the price of one.
//! `cargo bench --bench profile -- [THREADS…]`

#[path = "../tests/common/model.rs"]
mod model;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use smallmind::model::{LoadParams, Model};
use smallmind::profile::{self, Zone};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Tokens of a measurement, and pairs of them.
const TOKENS: usize = 24;
const ROUNDS: usize = 60;

fn main() {
    let threads: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let threads = if threads.is_empty() { vec![1, 2] } else { threads };
    let (on, off) = scope_costs();
    println!("a scope: {on:.1} ns on, {off:.3} ns off");
    let model = Model::open(&model::smollm2(), &LoadParams::default()).expect("the model loads");
    for threads in threads {
        measure(&model, threads, off);
    }
}

/// Nanoseconds of a scope with work declared, recorded and not: the quickest of many rows of them.
fn scope_costs() -> (f64, f64) {
    const CALLS: u64 = 10_000;
    let cost = || {
        let times = (0..200).map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|i| drop(profile::scope(Zone::Other).work(black_box(i), 1)));
            start.elapsed().as_nanos() as f64 / CALLS as f64
        });
        times.fold(f64::INFINITY, f64::min)
    };
    profile::set_enabled(true);
    let on = cost();
    profile::set_enabled(false);
    (on, cost())
}

fn measure(model: &Arc<Model>, threads: usize, off_ns: f64) {
    let params = ContextParams { n_ctx: 256, threads, ..ContextParams::default() };
    let mut context = Context::new(Arc::clone(model), &params).expect("a context");
    context.decode(&[1, 2, 3, 4, 5, 6, 7, 8], Logits::Last).expect("a prefill");
    let begin = context.len();
    let mut decode = |on: bool| {
        context.rewind(begin).expect("what was filled");
        profile::set_enabled(on);
        let start = Instant::now();
        for token in 0..TOKENS as u32 {
            context.decode(&[token + 10], Logits::Last).expect("a step");
        }
        let seconds = start.elapsed().as_secs_f64();
        profile::set_enabled(false);
        seconds
    };
    decode(true);
    profile::reset();
    let mut ratios = Vec::new();
    let mut quickest = f64::INFINITY;
    for round in 0..ROUNDS {
        // Whoever goes first changes in each round: a slow drift of the machine favours neither.
        let first = decode(round % 2 == 0);
        let second = decode(round % 2 == 1);
        let (on, off) = if round % 2 == 0 { (first, second) } else { (second, first) };
        ratios.push(on / off);
        quickest = quickest.min(off);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |part: f64| 100.0 * (ratios[(part * (ROUNDS - 1) as f64) as usize] - 1.0);
    let scopes: u64 = profile::snapshot().nodes.iter().map(|node| node.calls).sum();
    let per_token = scopes as f64 / (ROUNDS * TOKENS) as f64;
    let token_ns = 1e9 * quickest / TOKENS as f64;
    println!(
        "{threads} threads: on costs {:+.2} % (quartiles {:+.2} to {:+.2}, {ROUNDS} pairs of {TOKENS} tokens); \
         off {per_token:.0} scopes a token × {off_ns:.3} ns = {:.4} % of {:.2} ms",
        at(0.5),
        at(0.25),
        at(0.75),
        100.0 * per_token * off_ns / token_ns,
        token_ns / 1e6
    );
}
