//! Matmul kernels of this CPU: GFLOPS (shown as elements a second), and the share of the FMA peak, which
//! is measured in the same run with a loop that touches registers only. One thread, packed weights.
//! `cargo bench --bench kernels -- 'matmul/avx512/f32'` picks some of them.

use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use smallmind::isa::limits::flops_per_second as peak;
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right};
use smallmind::kernels::{Portion, matmul};
use smallmind::quant::DType;
use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// M × N × K: square, a prompt, a few rows, one row; from L1 to beyond L2.
const SHAPES: [[usize; 3]; 7] = [
    [64, 64, 64],
    [256, 256, 256],
    [512, 512, 512],
    [512, 576, 1536],
    [32, 1024, 1024],
    [8, 1024, 1024],
    [1, 1024, 1024],
];

/// Times `work` of `flops` operations and prints the best sample's share of the peak.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    id: String,
    flops: usize,
    peak: f64,
    mut work: impl FnMut(),
) {
    let best = Cell::new(f64::INFINITY);
    let mut timed = |bencher: &mut Bencher<'_>| {
        bencher.iter_custom(|iterations| {
            let start = Instant::now();
            for _ in 0..iterations {
                work();
            }
            let elapsed = start.elapsed();
            best.set(best.get().min(elapsed.as_secs_f64() / iterations as f64));
            elapsed
        })
    };
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(flops as u64));
    group.bench_function(BenchmarkId::from_parameter(&id), &mut timed);
    group.finish();
    if best.get().is_finite() {
        let rate = flops as f64 / best.get();
        println!("    {:.1} GFLOPS at best, {:.0} % of the FMA peak", rate / 1e9, 100.0 * rate / peak);
    }
}

fn matmuls(criterion: &mut Criterion) {
    for row in matmul::table().iter().filter(|row| row.info.isa.is_available()) {
        let peak = peak(row.info.isa);
        let name = format!("matmul/{}/{}", row.info.isa.name(), row.info.dtype);
        for [m, n, k] in SHAPES {
            let x = vec![0.5f32; m * k];
            let source = vec![0u8; n * k * row.weights.block_bytes()];
            let mut storage = vec![0u8; row.packed_len(n, k).unwrap() + 64];
            let begin = storage.as_ptr().align_offset(64);
            let packed = &mut storage[begin..][..row.packed_len(n, k).unwrap()];
            row.pack(&matmul::Source::rows(&source, n, k), 0..row.panels(n), packed).unwrap();
            let mut y = vec![0f32; m * n];
            let portion = Portion {
                x: x.as_ptr().cast(),
                ldx: 4 * k,
                m,
                k,
                w: packed.as_ptr(),
                panel_begin: 0,
                panel_end: row.panels(n),
                n,
                y: y.as_mut_ptr(),
                ldy: n,
                bias: std::ptr::null(),
                accumulate: false,
            };
            // SAFETY: the buffers have these shapes, and the level is available.
            measure(criterion, &name, format!("{m}x{n}x{k}"), 2 * m * n * k, peak, || unsafe {
                row.run(black_box(&portion));
            });
        }
    }
}

/// Plain f32 operands, B as stored or transposed, packed on the way where that pays.
fn gemms(criterion: &mut Criterion) {
    for row in matmul::table().iter().filter(|row| row.info.isa.is_available() && row.weights == DType::F32) {
        let peak = peak(row.info.isa);
        for (name, transposed) in [("gemm", false), ("gemm_bt", true)] {
            for [m, n, k] in SHAPES {
                let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
                let mut c = vec![0f32; m * n];
                let gemm = Gemm {
                    m,
                    n,
                    k,
                    alpha: 1.0,
                    a: Matrix { data: &a, ld: k, transposed: false },
                    b: Right::Plain(Matrix { data: &b, ld: if transposed { k } else { n }, transposed }),
                    beta: 0.0,
                    epilogue: Epilogue::default(),
                };
                let mut scratch = vec![0f32; gemm.scratch_len(row)];
                let group = format!("{name}/{}/f32", row.info.isa.name());
                measure(criterion, &group, format!("{m}x{n}x{k}"), 2 * m * n * k, peak, || {
                    gemm.run(row, black_box(&mut c), n, &mut scratch).expect("the shapes fit");
                });
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    targets = matmuls, gemms
}
criterion_main!(benches);
