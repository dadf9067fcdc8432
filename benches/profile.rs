//! What the profile costs a decode step: on and off in turns on one model, and scopes times the price of one.
//! `cargo bench --bench profile -- [THREADS…]`

#[path = "../tests/common/model.rs"]
mod model;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use smallmind::model::{LoadParams, Model};
use smallmind::profile::{self, Counting, Zone};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Pairs of decode steps, one recorded and one not.
const PAIRS: usize = 3000;

fn main() {
    let threads: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let threads = if threads.is_empty() { vec![1, 2] } else { threads };
    let (on, off, counted) = scope_costs();
    println!("a scope: {on:.1} ns on, {off:.3} ns off, {counted:.0} ns with its counters");
    profile::counters::missing().iter().for_each(|missing| println!("{missing}"));
    let model = Model::open(&model::smollm2(), &LoadParams::default()).expect("the model loads");
    for counting in [Counting::Off, Counting::Zones, Counting::Everything] {
        println!("counting {counting:?}");
        profile::set_counting(counting);
        threads.iter().for_each(|&threads| measure(&model, threads, off));
    }
}

/// Nanoseconds of a scope with work declared, recorded, not recorded, and recorded with its counters: the quickest of
/// many rows of them.
fn scope_costs() -> (f64, f64, f64) {
    profile::set_enabled(true);
    let (on, counted) = (cost(profile::scope), cost(profile::counted));
    profile::set_enabled(false);
    (on, cost(profile::scope), counted)
}

fn cost(scope: fn(Zone) -> profile::Scope) -> f64 {
    const CALLS: u64 = 10_000;
    let times = (0..200).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(|i| drop(scope(Zone::Other).work(black_box(i), 1)));
        start.elapsed().as_nanos() as f64 / CALLS as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn measure(model: &Arc<Model>, threads: usize, off_ns: f64) {
    let params = ContextParams::default().with_n_ctx(256).with_threads(threads);
    let mut context = Context::new(Arc::clone(model), &params).expect("a context");
    let prompt: Vec<u32> = (1..65).collect();
    context.decode(&prompt, Logits::Last).expect("a prefill");
    let begin = context.len();
    let mut step = |on: bool| {
        context.rewind(begin).expect("what was filled");
        profile::set_enabled(on);
        let start = Instant::now();
        context.decode(&[7], Logits::Last).expect("a step");
        let seconds = start.elapsed().as_secs_f64();
        profile::set_enabled(false);
        seconds
    };
    step(true);
    profile::reset();
    let mut ratios = Vec::new();
    let mut times = Vec::new();
    for pair in 0..PAIRS {
        // Whoever goes first changes from pair to pair: a slow drift of the machine favours neither.
        let first = step(pair % 2 == 0);
        let second = step(pair % 2 == 1);
        let (on, off) = if pair % 2 == 0 { (first, second) } else { (second, first) };
        ratios.push(on / off);
        times.push(off);
    }
    ratios.sort_by(f64::total_cmp);
    times.sort_by(f64::total_cmp);
    let cost = |place: f64| 100.0 * (ratios[place as usize] - 1.0);
    // The median's own interval: ranks that it keeps within with 95 % (binomial, normal approximation).
    let (middle, off_middle) = (PAIRS as f64 / 2.0, 0.98 * (PAIRS as f64).sqrt());
    let scopes: u64 = profile::snapshot().nodes.iter().map(|node| node.calls).sum();
    let per_token = scopes as f64 / PAIRS as f64;
    let token_ns = 1e9 * times[PAIRS / 2];
    println!(
        "{threads} threads: on costs {:+.2} % ({:+.2} to {:+.2} with 95 %, {PAIRS} pairs of steps); \
         off {per_token:.0} scopes a token × {off_ns:.3} ns = {:.4} % of {:.2} ms",
        cost(middle),
        cost(middle - off_middle),
        cost(middle + off_middle),
        100.0 * per_token * off_ns / token_ns,
        token_ns / 1e6
    );
}
