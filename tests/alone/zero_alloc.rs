//! Regions, barriers, shared work and recorded scopes allocate nothing, on any worker.
//! And the counting that says so sees a single planted byte.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use smallmind::isa::IsaId;
use smallmind::kernels::KernelSet;
use smallmind::kernels::matmul::{Epilogue, Gemm, MatmulKernels, Matrix, Right};
use smallmind::ops::{Matmul, PackedMatrix, Workspace};
use smallmind::profile::{self, Zone, alloc};
use smallmind::quant::DType;
use smallmind::threads::{Team, WorkCounter};

/// Allocations of all workers in a region that does `extra` beside what a step does, and of the caller around it.
fn allocations(team: &Team, extra: impl Fn(usize) + Sync) -> u64 {
    let counters = [WorkCounter::new(), WorkCounter::new()];
    let inside = AtomicU64::new(0);
    let ((), around) = alloc::count_during(|| {
        let _decode = profile::scope(Zone::Decode);
        team.run(|worker| {
            let ((), mine) = alloc::count_during(|| {
                for op in 0..100 {
                    let _scope = profile::scope(Zone::Linear).work(2, 4);
                    if worker.index() == 0 {
                        counters[(op + 1) % 2].reset();
                    }
                    while counters[op % 2].take(50, 8).is_some() {}
                    extra(worker.index());
                    worker.barrier().unwrap();
                }
            });
            if worker.index() > 0 {
                inside.fetch_add(mine.count, SeqCst); // worker 0 is counted around
            }
        })
        .unwrap();
    });
    around.count + inside.load(SeqCst)
}

#[test]
fn a_step_allocates_nothing_and_a_planted_byte_shows() {
    let _turn = crate::turn();
    let team = Team::new(3).unwrap();
    profile::prepare_thread();
    for enabled in [false, true] {
        profile::set_enabled(enabled);
        for _ in 0..10 {
            assert_eq!(allocations(&team, |_| {}), 0, "profile enabled: {enabled}");
        }
        for culprit in 0..3 {
            let planted = allocations(&team, |index| {
                if index == culprit {
                    std::hint::black_box(Box::new(1u8));
                }
            });
            assert_eq!(planted, 100, "worker {culprit}");
        }
    }
    profile::set_enabled(false);
    assert_eq!(profile::snapshot().dropped, 0);
}

#[test]
fn a_product_allocates_only_where_none_before_needed_as_much() {
    let _turn = crate::turn();
    let kernel = MatmulKernels::select(IsaId::detect()).f32;
    let team = Team::new(2).unwrap();
    let mut workspace = Workspace::default();
    let data = vec![0.5f32; 400 * 400];
    let mut c = vec![0.0; 400 * 400];
    // A must be packed, so both its size and its scratch memory's grow with m.
    let mut multiply = |m: usize| {
        let a = Matrix { data: &data, ld: 400, transposed: true };
        let b = Right::Plain(Matrix { data: &data, ld: 400, transposed: true });
        let gemm = Gemm { m, n: 400, k: 400, alpha: 1.0, a, b, beta: 0.0, epilogue: Epilogue::default() };
        let (result, made) =
            alloc::count_during(|| workspace.multiply(Some(&team), kernel, &gemm, &mut c, 400));
        result.unwrap();
        made.count
    };
    assert!(multiply(100) > 0, "the first product takes its memory");
    for m in [100, 7, 100, 1] {
        assert_eq!(multiply(m), 0, "m = {m}");
    }
    assert!(multiply(400) > 0, "a larger one takes more: the counting works");
    assert_eq!(multiply(400), 0);
}

#[test]
fn so_does_a_product_whose_rows_are_converted_first() {
    let _turn = crate::turn();
    let kernels = KernelSet::default_set().unwrap();
    let team = Team::new(2).unwrap();
    profile::prepare_thread();
    let (n, k) = (400, 256);
    let data = vec![0.5f32; 400 * 400];
    let b = Matrix { data: &data[..], ld: k, transposed: true };
    let packed = [
        PackedMatrix::quantize(kernels, DType::Q8_0, k, n, b, None).unwrap(),
        PackedMatrix::pack_bf16(kernels, k, n, b, None).unwrap(),
    ];
    for matrix in &packed {
        let mut workspace = Workspace::default();
        let mut c = vec![0.0; 400 * 400];
        let mut multiply = |m: usize| {
            let product = Matmul::new(m, Matrix { data: &data, ld: 400, transposed: true }, matrix);
            let (result, made) = alloc::count_during(|| product.run(&mut c, n, Some(&team), &mut workspace));
            result.unwrap();
            made.count
        };
        assert!(multiply(100) > 0, "the first product takes its memory");
        for m in [100, 7, 100, 1] {
            assert_eq!(multiply(m), 0, "m = {m}");
        }
        assert!(multiply(400) > 0, "a larger one takes more: the counting works");
        assert_eq!(multiply(400), 0);
    }
}
