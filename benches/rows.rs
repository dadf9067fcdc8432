//! Elementwise, row-wise and rotary kernels on every level of this CPU: elements a second.
//! Sizes are 10⁴ (inside L2), 10⁵ and 10⁶ elements, one thread, buffers aligned to 64 bytes.
//! `cargo bench --bench rows -- 'softmax.*avx512'` picks some of them.

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use smallmind::isa::IsaId;
use smallmind::kernels::rope::{self, Scaling, Table};
use smallmind::kernels::rows::{self, Affine};
use smallmind::kernels::unary;
use std::time::Duration;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
const WIDTHS: [usize; 2] = [768, 4096];

/// Floats that start on a cache line, as the arena's do.
struct Aligned {
    storage: Vec<f32>,
    begin: usize,
    len: usize,
}

impl Aligned {
    /// Values between −5 and 5, where no function is at its limit.
    fn new(len: usize) -> Self {
        let mut storage = vec![0.0; len + 16];
        let begin = storage.as_ptr().align_offset(64);
        for (i, x) in storage[begin..begin + len].iter_mut().enumerate() {
            *x = ((i * 7919 % 2003) as f32 / 2003.0 - 0.5) * 10.0;
        }
        Self { storage, begin, len }
    }

    fn get(&self) -> &[f32] {
        &self.storage[self.begin..self.begin + self.len]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.storage[self.begin..self.begin + self.len]
    }
}

fn measure(
    group: &mut BenchmarkGroup<WallTime>,
    op: &str,
    isa: IsaId,
    len: usize,
    mut run: impl FnMut(&[f32], &mut [f32]),
) {
    let (src, mut dst) = (Aligned::new(len), Aligned::new(len));
    group.throughput(Throughput::Elements(len as u64));
    group.bench_function(BenchmarkId::new(format!("{op}/{}", isa.name()), len), |bencher| {
        bencher.iter(|| run(src.get(), dst.get_mut()));
    });
}

/// Levels with kernels of their own.
fn levels() -> impl Iterator<Item = IsaId> {
    IsaId::available().filter(|&isa| unary::Set::select(isa).exp.info.isa == isa)
}

fn elementwise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("elementwise");
    for isa in levels() {
        for len in SIZES {
            let set = unary::Set::select(isa);
            for kernel in set.unary() {
                measure(&mut group, kernel.info.op, isa, len, |src, dst| kernel.apply(src, dst));
            }
            for kernel in set.binary() {
                measure(&mut group, kernel.info.op, isa, len, |src, dst| kernel.apply_in_place(dst, src));
            }
        }
    }
}

fn row_wise(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    for isa in levels() {
        let set = rows::Set::select(isa);
        for (cols, size) in WIDTHS.iter().flat_map(|&cols| SIZES.map(|size| (cols, size))) {
            let len = size / cols * cols;
            let (gamma, beta) = (Aligned::new(cols), Aligned::new(cols));
            let (gamma, beta) = (Some(gamma.get()), Some(beta.get()));
            measure(&mut group, &format!("softmax/{cols}"), isa, len, |src, dst| {
                set.softmax.apply(src, dst, cols, 1.0, None).unwrap();
            });
            measure(&mut group, &format!("layer_norm/{cols}"), isa, len, |src, dst| {
                set.layer_norm.apply(src, dst, cols, Affine { gamma, beta, eps: 1e-5 }).unwrap();
            });
            measure(&mut group, &format!("rms_norm/{cols}"), isa, len, |src, dst| {
                set.rms_norm.apply(src, dst, cols, Affine { gamma, beta: None, eps: 1e-5 }).unwrap();
            });
        }
        for len in SIZES {
            for kernel in [&set.sum, &set.max] {
                measure(&mut group, kernel.info.op, isa, len, |src, dst| dst[0] = kernel.apply(src));
            }
            measure(&mut group, "dot", isa, len, |src, dst| dst[0] = set.dot.apply(src, dst));
        }
    }
}

fn rotary(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rope");
    let (n_head, head_dim) = (9, 64);
    let table = Table::new(2048, head_dim, 10_000.0, Scaling::default()).unwrap();
    for isa in levels() {
        let set = rope::Set::select(isa);
        for kernel in [&set.adjacent, &set.halves] {
            for size in SIZES {
                let tokens = size / (n_head * head_dim);
                let positions: Vec<u32> = (0..tokens as u32).collect();
                measure(&mut group, kernel.info.op, isa, tokens * n_head * head_dim, |_, dst| {
                    kernel.apply(&table, dst, &positions, head_dim).unwrap();
                });
            }
        }
    }
}

fn settings() -> Criterion {
    let (warm_up, time) = (Duration::from_millis(50), Duration::from_millis(200));
    Criterion::default().warm_up_time(warm_up).measurement_time(time).sample_size(20)
}

criterion_group!(name = benches; config = settings(); targets = elementwise, row_wise, rotary);
criterion_main!(benches);
