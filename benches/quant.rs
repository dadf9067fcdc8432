//! Matmul with quantised weights, every type and mode on every level of this CPU: operations a second (a
//! multiplication and an addition are two), activations quantised beforehand or on the way.
//! N = K = 1024, which stays in L2, and 4096 for some types, which does not; one thread.
//! `cargo bench --bench quant -- 'Q4_1.*avx512vnni'` picks some; `peak` is what the dot product alone reaches.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smallmind::isa::IsaId;
use smallmind::kernels::Portion;
use smallmind::kernels::qmatmul::{Activations, DTYPES, Kernel, QmatmulKernels};
use smallmind::quant::{DType, encode_row};
use std::hint::black_box;
use std::time::Duration;

const ROWS: [usize; 4] = [1, 8, 32, 128];
const ALIGN: usize = 64;

/// Bytes that start on a cache line, as the arena's and the weights' do.
struct Aligned {
    storage: Vec<u8>,
    begin: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let storage = vec![0; len + ALIGN];
        let begin = storage.as_ptr().align_offset(ALIGN);
        Self { storage, begin }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let end = self.storage.len() - ALIGN + self.begin;
        &mut self.storage[self.begin..end]
    }
}

/// Some blocks stand out of their rows, in the same places, as those of models do.
fn activations(m: usize, k: usize) -> Vec<f32> {
    let mut x = values(m * k);
    x.chunks_mut(k).flat_map(|row| row.iter_mut().step_by(8 * 32)).for_each(|x| *x = 9.0);
    x
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
}

/// A layer of `n` outputs and `k` inputs, packed for one set, and `m` rows for it.
struct Layer {
    set: QmatmulKernels,
    kernel: &'static Kernel,
    m: usize,
    n: usize,
    k: usize,
    weights: Aligned,
    input: Vec<f32>,
    x: Aligned,
    y: Vec<f32>,
}

impl Layer {
    fn new(set: QmatmulKernels, dtype: DType, m: usize, n: usize, k: usize) -> Self {
        let kernel = set.kernel(dtype).unwrap();
        let row_bytes = dtype.row_bytes(k).unwrap();
        let mut rows = vec![0; n * row_bytes];
        if dtype.is_encodable() {
            encode_row(dtype, &values(n * k), &mut rows).unwrap();
        }
        let mut weights = Aligned::new(kernel.packed_bytes(n, k).unwrap());
        let panels = weights.bytes().chunks_mut(kernel.panel_bytes(k).unwrap());
        for (rows, panel) in rows.chunks(kernel.nr() * row_bytes).zip(panels) {
            kernel.layout.pack_panel(rows, k, panel).unwrap();
        }
        let x = Aligned::new(m * set.row_bytes(k));
        let mut layer =
            Layer { set, kernel, m, n, k, weights, input: activations(m, k), x, y: vec![0.0; m * n] };
        layer.quantize();
        layer
    }

    fn quantize(&mut self) {
        let Layer { m, k, .. } = *self;
        // SAFETY: `input` has m rows of k, and `x` room for them.
        unsafe { self.set.quantize_rows(self.input.as_ptr(), k, m, k, self.x.bytes().as_mut_ptr()) }
    }

    fn multiply(&mut self) {
        let portion = Portion {
            x: self.x.bytes().as_ptr(),
            ldx: self.set.row_bytes(self.k),
            m: self.m,
            k: self.k,
            w: self.weights.bytes().as_ptr(),
            panel_begin: 0,
            panel_end: self.kernel.panels(self.n),
            n: self.n,
            y: self.y.as_mut_ptr(),
            ldy: self.n,
            bias: std::ptr::null(),
            accumulate: false,
        };
        // SAFETY: all of these have the shapes that the portion states.
        unsafe { self.kernel.run(self.set.activations(), &portion) }
    }

    fn operations(&self) -> Throughput {
        Throughput::Elements(2 * (self.m * self.n * self.k) as u64)
    }
}

fn sets() -> impl Iterator<Item = QmatmulKernels> {
    IsaId::available()
        .flat_map(|isa| Activations::ALL.map(|mode| QmatmulKernels::select(isa).with_activations(mode)))
}

fn bench_layer(c: &mut Criterion, set: QmatmulKernels, dtype: DType, m: usize, size: usize) {
    let mut layer = Layer::new(set, dtype, m, size, size);
    let name = format!("{}/{:?}/{}", dtype.name(), set.activations(), set.isa().name());
    let shape = format!("{m}x{size}x{size}");
    let mut group = c.benchmark_group("qmatmul");
    group.throughput(layer.operations());
    group.bench_function(BenchmarkId::new(&name, &shape), |bencher| bencher.iter(|| layer.multiply()));
    group.bench_function(BenchmarkId::new(format!("{name}/quantizing"), &shape), |bencher| {
        bencher.iter(|| {
            layer.quantize();
            layer.multiply();
        });
    });
}

fn layers(c: &mut Criterion) {
    for set in sets() {
        for dtype in DTYPES {
            for m in ROWS {
                bench_layer(c, set, dtype, m, 1024);
            }
        }
        for dtype in [DType::Q8_0, DType::Q4_1, DType::Q4_K] {
            for m in [1, 128] {
                bench_layer(c, set, dtype, m, 4096);
            }
        }
    }
}

/// Operations of one [`dots`].
#[cfg(target_arch = "x86_64")]
const DOTS: usize = 1000 * 12 * 128;

/// Independent dot products on registers, as fast as they go.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dots(start: i32) -> i32 {
    use std::arch::x86_64::*;
    let bytes = _mm512_set1_epi32(start);
    // Different from each other, or one chain would do for all.
    let mut sums: [__m512i; 12] = std::array::from_fn(|i| _mm512_set1_epi32(i as i32));
    for _ in 0..DOTS / (12 * 128) {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, bytes, bytes);
        }
    }
    sums.into_iter().map(|sum| _mm512_reduce_add_epi32(sum)).fold(0, i32::wrapping_add)
}

fn peak(c: &mut Criterion) {
    #[cfg(target_arch = "x86_64")]
    if IsaId::Avx512Vnni.is_available() {
        let mut group = c.benchmark_group("peak");
        group.throughput(Throughput::Elements(DOTS as u64));
        // SAFETY: the CPU has the instructions.
        group.bench_function("vpdpbusd", |bencher| bencher.iter(|| unsafe { dots(black_box(3)) }));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = c;
}

/// Short runs: what is measured takes microseconds and varies little.
fn quick() -> Criterion {
    let quick = Criterion::default().sample_size(20);
    quick.warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(200))
}

criterion_group! { name = benches; config = quick(); targets = peak, layers }
criterion_main!(benches);
