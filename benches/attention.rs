//! Attention on every level of this CPU, over a packed cache of each type and over plain rows, one thread: GFLOPS over
//! the keys that are seen, with the share of the FMA peak, and for decoding GB/s of keys and values, with the share of
//! a plain read of as many bytes. Then decoding over a small model's layers with one thread and with two, as the
//! executor does it. All limits are measured in the same run.
//! `cargo bench --bench attention -- 'avx512/f16/prefill'` picks some of them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smallmind::isa::limits::{best, flops_per_second as peak};
use smallmind::isa::{Isa, IsaId, SimdBody};
use smallmind::kernels::attention::{
    self, AttentionArgs, AttentionKernels, HeadTiles, Inputs, Kernel, ScoreArgs, ScoreOptions, Shape,
    Strides, TILE, Tensor,
};
use smallmind::kv::{self, Cache, CacheType, Group, LayerId};
use smallmind::ops::Rows;
use smallmind::ops::attention::{self as op, Args, HeadShape, Parts, SpanRows};
use smallmind::threads::{Team, WorkCounter};
use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

const HEAD_DIMS: [usize; 5] = [64, 80, 96, 128, 256];
/// Tokens of a prompt, all new.
const PROMPTS: [usize; 2] = [512, 2048];
/// Keys that a single new token sees.
const PASTS: [usize; 3] = [512, 4096, 16384];
/// Query heads that share the key/value head when one token is decoded.
const GROUP: usize = 4;
/// A small model's heads.
const MODEL: HeadShape = HeadShape { n_head: 9, n_head_kv: 3, head_dim: 64 };
/// Its layers, so many that the cache lies beyond L2.
const LAYERS: usize = 16;
/// Positions that its token sees.
const DEPTHS: [usize; 3] = [512, 2048, 8192];

/// Keys and values up to here count as being in L2.
const L2_BYTES: f64 = (2 << 20) as f64;

/// Reads floats from end to end.
struct Read<'a>(&'a [f32]);

impl SimdBody for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut sums = [isa.zero(); 4];
        for floats in self.0.chunks_exact(4 * I::LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a chunk is four vectors.
                *sum = isa.add(*sum, unsafe { isa.load(floats.as_ptr().add(i * I::LANES)) });
            }
        }
        isa.sum_lanes(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])))
    }
}

/// Floats that start on a cache line.
struct Floats {
    storage: Vec<f32>,
    begin: usize,
}

impl Floats {
    fn new(len: usize) -> Self {
        let storage: Vec<f32> = (0..len + 16).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect();
        let begin = storage.as_ptr().align_offset(64);
        Self { storage, begin }
    }

    fn get(&self) -> &[f32] {
        &self.storage[self.begin..self.storage.len() - 16 + self.begin]
    }

    fn ptr(&self) -> *const f32 {
        self.get().as_ptr()
    }

    fn ptr_mut(&mut self) -> *mut f32 {
        self.storage[self.begin..].as_mut_ptr()
    }
}

/// One key/value head over a packed cache.
struct Case {
    kernel: Kernel,
    tokens: usize,
    heads: usize,
    keys: usize,
    head_dim: usize,
    causal: bool,
}

impl Case {
    fn limits(&self) -> Vec<u32> {
        let past = self.keys - self.tokens;
        let limit = |token| if self.causal { past + token + 1 } else { self.keys };
        (0..self.tokens).map(|token| limit(token) as u32).collect()
    }

    /// Two products for each key that is seen.
    fn flops(&self) -> f64 {
        let seen: f64 = self.limits().iter().map(|&limit| f64::from(limit)).sum();
        4.0 * (self.heads * self.head_dim) as f64 * seen
    }

    /// Bytes of keys and values, each once.
    fn bytes(&self) -> f64 {
        (self.keys * self.kernel.layout(self.head_dim).position_bytes()) as f64
    }

    /// Times it; the best sample, in seconds, or infinity where the filter leaves it out.
    fn measure(&self, criterion: &mut Criterion, kind: &str) -> f64 {
        let &Case { kernel, tokens, heads, keys, head_dim, causal } = self;
        let layout = kernel.layout(head_dim);
        let room = |tile: usize| Floats::new(keys.div_ceil(TILE) * tile / 4);
        let (mut key_room, mut value_room) = (room(layout.key_tile()), room(layout.value_tile()));
        let k = HeadTiles {
            first: key_room.ptr_mut().cast(),
            stride: layout.key_tile(),
            table: std::ptr::null(),
        };
        let v = HeadTiles {
            first: value_room.ptr_mut().cast(),
            stride: layout.value_tile(),
            table: std::ptr::null(),
        };
        let stored = Floats::new(keys * head_dim);
        // SAFETY: the buffers have room for so many positions.
        unsafe {
            let rows = (stored.ptr(), head_dim, keys);
            kernel.store_keys(head_dim, k, 0, rows);
            kernel.store_values(head_dim, v, 0, rows);
        }
        let q = Floats::new(tokens * heads * head_dim);
        let mut out = Floats::new(tokens * heads * head_dim);
        let mut scratch = Floats::new(kernel.scratch_len(head_dim, tokens * heads).unwrap());
        let limits = self.limits();
        let args = AttentionArgs {
            q: q.ptr(),
            q_token_stride: heads * head_dim,
            q_head_stride: head_dim,
            tokens,
            heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            k,
            v,
            limits: limits.as_ptr(),
            starts: std::ptr::null(),
            scores: ScoreArgs::NONE,
            ahead: self.bytes() > L2_BYTES,
            out: out.ptr_mut(),
            out_token_stride: heads * head_dim,
            out_head_stride: head_dim,
            scratch: scratch.ptr_mut(),
        };
        let mask = if causal { "" } else { "/full" };
        let id = BenchmarkId::new(format!("{}/{kind}{mask}/{head_dim}", name(&kernel)), keys);
        // SAFETY: the buffers have these shapes, and the level is available.
        time(criterion, id, self.flops(), || unsafe { kernel.run(black_box(&args)) })
    }
}

/// Times `work` of `flops` operations: the best sample, in seconds, or infinity where the filter leaves it out.
fn time(criterion: &mut Criterion, id: BenchmarkId, flops: f64, mut work: impl FnMut()) -> f64 {
    let best = Cell::new(f64::INFINITY);
    let mut group = criterion.benchmark_group("attention");
    group.throughput(Throughput::Elements(flops as u64));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                work();
            }
            let elapsed = start.elapsed();
            best.set(best.get().min(elapsed.as_secs_f64() / iterations as f64));
            elapsed
        });
    });
    group.finish();
    best.get()
}

fn levels() -> impl Iterator<Item = Kernel> {
    let own = |isa| Some(AttentionKernels::select(isa)).filter(|set| set.f32.info.isa == isa);
    IsaId::available().filter_map(own).flat_map(|set| CacheType::ALL.map(|stored| *set.of(stored)))
}

fn name(kernel: &Kernel) -> String {
    format!("{}/{}", kernel.info.isa.name(), kernel.info.dtype)
}

fn prefill(criterion: &mut Criterion) {
    for kernel in levels() {
        for head_dim in HEAD_DIMS {
            for keys in PROMPTS {
                for causal in [true, false] {
                    let case = Case { kernel, tokens: keys, heads: 1, keys, head_dim, causal };
                    let rate = case.flops() / case.measure(criterion, "prefill");
                    report(rate, kernel.info.isa);
                }
            }
        }
    }
}

/// Keys and values in plain rows of eight heads, which are packed on the way.
fn plain(criterion: &mut Criterion) {
    let heads = 8;
    for kernel in levels().filter(|kernel| kernel.stored() == CacheType::F32) {
        for head_dim in HEAD_DIMS {
            for tokens_q in [1, PROMPTS[0]] {
                let keys = PROMPTS[0];
                let (q, kv) =
                    (Floats::new(tokens_q * heads * head_dim), Floats::new(keys * heads * head_dim));
                let shape = Shape {
                    batch: 1,
                    n_head: heads,
                    n_head_kv: heads,
                    tokens_q,
                    tokens_kv: keys,
                    head_dim,
                    scale: 1.0 / (head_dim as f32).sqrt(),
                    causal: true,
                    window: None,
                };
                let dense = Strides::dense(keys, heads, head_dim);
                let tensor = |x| Tensor { data: x, strides: dense };
                let (q, kv) = (tensor(q.get()), tensor(kv.get()));
                let inputs = Inputs { q, k: kv, v: kv, mask: None, scores: ScoreOptions::default() };
                let mut out = vec![0.0; q.data.len()];
                let mut scratch = vec![0.0; attention::scratch_len(&kernel, &shape).unwrap()];
                let id = BenchmarkId::new(format!("{}/plain{tokens_q}/{head_dim}", name(&kernel)), keys);
                let flops = shape.flops() as f64;
                let seconds = time(criterion, id, flops, || {
                    attention::attention(&kernel, black_box(&shape), &inputs, &mut out, dense, &mut scratch)
                        .unwrap();
                });
                report(flops / seconds, kernel.info.isa);
            }
        }
    }
}

/// Prints a rate; the peak is measured beside it, since the clock wanders.
fn report(rate: f64, isa: IsaId) {
    if rate > 0.0 {
        println!("    {:.1} GFLOPS at best, {:.0} % of the FMA peak", rate / 1e9, 100.0 * rate / peak(isa));
    }
}

fn decode(criterion: &mut Criterion) {
    for kernel in levels() {
        for head_dim in HEAD_DIMS {
            for keys in PASTS {
                for heads in [1, GROUP] {
                    let case = Case { kernel, tokens: 1, heads, keys, head_dim, causal: true };
                    let seconds = case.measure(criterion, &format!("decode{heads}"));
                    if seconds.is_finite() {
                        let floats = Floats::new(case.bytes() as usize / 4);
                        let stream = best(20, || _ = black_box(kernel.info.isa.run(Read(floats.get()))));
                        println!(
                            "    {:.1} GB/s and {:.1} GFLOPS at best, {:.0} % of a plain read",
                            case.bytes() / seconds / 1e9,
                            case.flops() / seconds / 1e9,
                            100.0 * stream / seconds
                        );
                    }
                }
            }
        }
    }
}

/// A layer after the other of a small model, one token, with one thread and with two.
fn layers(criterion: &mut Criterion) {
    for kernel in levels().filter(|kernel| kernel.info.isa >= IsaId::Avx2) {
        for depth in DEPTHS {
            for threads in [1, 2] {
                let seconds = measure_layers(criterion, &kernel, depth, threads);
                if seconds.is_finite() {
                    let bytes =
                        (LAYERS * MODEL.n_head_kv * depth * kernel.layout(MODEL.head_dim).position_bytes())
                            as f64;
                    let read = read_shared(bytes as usize / 4, threads, kernel.info.isa);
                    println!(
                        "    {:.1} GB/s at best, {:.0} % of a plain read by as many threads ({:.1})",
                        bytes / seconds / 1e9,
                        100.0 * read / seconds,
                        bytes / read / 1e9
                    );
                }
            }
        }
    }
}

/// The best time of a plain read that threads share.
fn read_shared(len: usize, threads: usize, isa: IsaId) -> f64 {
    let (floats, team) = (Floats::new(len), Team::new(threads).unwrap());
    let floats = floats.get();
    best(20, || {
        team.run(|worker| _ = black_box(isa.run(Read(&floats[worker.share(floats.len(), 16)])))).unwrap();
    })
}

fn measure_layers(criterion: &mut Criterion, kernel: &Kernel, depth: usize, threads: usize) -> f64 {
    let layout = kernel.layout(MODEL.head_dim);
    let group = Group { layers: LAYERS, n_head_kv: MODEL.n_head_kv, layout, reach: None };
    let shape = kv::Shape {
        groups: vec![group],
        state_bytes: 0,
        n_sequences: 1,
        n_ctx: depth,
        n_positions: depth,
        n_batch: depth,
        prefix_index: false,
    };
    let mut cache = Cache::new(shape).unwrap();
    let sequence = cache.create().unwrap();
    cache.reserve([(sequence, 0, depth)].into_iter()).unwrap();
    let width = (MODEL.n_head + 2 * MODEL.n_head_kv) * MODEL.head_dim;
    let mut qkv = Floats::new(depth * width);
    let mut out = Floats::new(MODEL.n_head * MODEL.head_dim);
    // SAFETY: the buffers hold so many rows.
    let (all, result) = unsafe {
        (Rows::new(qkv.ptr_mut().cast(), 4 * width, depth), Rows::new(out.ptr_mut().cast(), 4 * 576, 1))
    };
    let cache = cache.view();
    let heads = 0..MODEL.n_head_kv;
    for layer in 0..LAYERS {
        // SAFETY: the cache has room for `depth` positions.
        unsafe {
            let cache = cache.layer(LayerId { group: 0, layer }, sequence);
            let rows = SpanRows { rows: 0..depth, position: 0 };
            op::store(kernel, &cache, &rows, all, &MODEL, (heads.clone(), heads.clone()))
        };
    }
    let limits = [depth as u32];
    let team = Team::new(threads).unwrap();
    let bytes = Parts::bytes(kernel, &MODEL, depth, threads).unwrap();
    let parts = Parts::new(bytes, MODEL.n_head_kv, depth, threads).unwrap();
    let spans = [SpanRows { rows: 0..1, position: depth - 1 }];
    let counters: Vec<_> = (0..LAYERS).map(|_| WorkCounter::new()).collect();
    let scratch_len = op::scratch_len(kernel, &MODEL).unwrap().next_multiple_of(16);
    let scratch = Floats::new(threads * scratch_len);
    let scratch = scratch.ptr() as usize;
    let id = BenchmarkId::new(format!("{}/layers/{threads}", name(kernel)), depth);
    let flops = (4 * LAYERS * MODEL.n_head * MODEL.head_dim * depth) as f64;
    time(criterion, id, flops, || {
        counters.iter().for_each(WorkCounter::reset);
        team.run(|worker| {
            let scratch = (scratch as *mut f32).wrapping_add(worker.index() * scratch_len);
            for (layer, counter) in counters.iter().enumerate() {
                let args = Args {
                    qkv: all.skip(depth - 1),
                    out: result,
                    spans: &spans,
                    cache: |_| cache.layer(LayerId { group: 0, layer }, sequence),
                    shape: MODEL,
                    limits: &limits,
                    starts: None,
                    scale: 0.125,
                    scores: ScoreOptions::default(),
                    parts: &parts,
                };
                // SAFETY: every worker has its scratch memory; a barrier ends each layer.
                unsafe { op::run(kernel, worker, counter, &args, scratch) };
                worker.barrier().unwrap();
            }
        })
        .unwrap();
    })
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(150));
    targets = prefill, decode, layers, plain
}
criterion_main!(benches);
