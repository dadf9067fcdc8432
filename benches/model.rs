//! Tokens a second of the real model: prefill of a page, decode after it, for each activation mode and
//! number of threads. `cargo bench --bench model -- decode` runs the decode ones alone.

#[path = "../tests/common/model.rs"]
mod model;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smallmind::kernels::qmatmul::Activations;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads;

/// Tokens of the page.
const PAGE: usize = 512;

fn speeds(c: &mut Criterion) {
    let path = model::smollm2();
    for activations in [Activations::Bits16, Activations::Bits8] {
        let model = Model::open(&path, &LoadParams::default().with_activations(activations)).unwrap();
        let n_vocab = model.config().n_vocab as u32;
        let tokens: Vec<u32> = (0..PAGE as u32).map(|i| i.wrapping_mul(7919) % n_vocab).collect();
        for threads in [1, threads::available()] {
            let params = ContextParams::default().with_n_ctx(PAGE + 1).with_threads(threads);
            let mut context = Context::new(model.clone(), &params).unwrap();
            let id = |name| BenchmarkId::new(name, format!("{activations:?}/{threads} threads"));

            let mut group = c.benchmark_group("prefill");
            group.sample_size(10).throughput(Throughput::Elements(PAGE as u64));
            group.bench_function(id("512 tokens"), |bencher| {
                bencher.iter(|| {
                    context.clear();
                    context.decode(&tokens, Logits::Last).unwrap();
                });
            });
            group.finish();

            let mut group = c.benchmark_group("decode");
            group.throughput(Throughput::Elements(1));
            group.bench_function(id("after 64 tokens"), |bencher| {
                context.clear();
                context.decode(&tokens[..64], Logits::None).unwrap();
                bencher.iter(|| {
                    context.rewind(64).unwrap();
                    context.decode(&[7], Logits::Last).unwrap();
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, speeds);
criterion_main!(benches);
