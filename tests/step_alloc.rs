//! A step in steady state allocates nothing, on any thread: neither decoding nor sampling, with the
//! profile on or off. The one test of its binary, because it counts what the whole process allocates.

use std::path::Path;

use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::profile;
use smallmind::profile::alloc::{CountingAllocator, total_counts};
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads::Team;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of the whole process while `work` ran: the fewest of three times, since on a busy machine the
/// harness's own thread may still be putting away what it needed to start the test.
fn allocations(mut work: impl FnMut()) -> u64 {
    let mut once = || {
        let before = total_counts().count;
        work();
        total_counts().count - before
    };
    [once(), once(), once()].into_iter().min().expect("three")
}

#[test]
fn a_step_allocates_nothing() {
    // The guard sees what it must: one allocation here, one on a worker of a team.
    assert!(allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0);
    let team = Team::new(2).unwrap();
    let planted = allocations(|| {
        let on_worker = |index| drop(std::hint::black_box(vec![index; 3]));
        team.run(|worker| {
            if worker.index() == 1 {
                on_worker(1)
            }
        })
        .unwrap();
    });
    assert!(planted > 0);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/untied-mixed.gguf");
    let model = Model::open(&path, &LoadParams::default()).unwrap();
    let params = SamplerParams { temperature: 0.9, repetition_penalty: 1.1, ..SamplerParams::default() };
    let mut sampler = Sampler::new(params, model.config().n_vocab).unwrap();

    // Beyond two parts of the sequence, which workers share.
    let mut contexts = CacheType::ALL.map(|kv| {
        let params = ContextParams { n_ctx: 1024, n_batch: 16, threads: 2, kv, ..ContextParams::default() };
        Context::new(model.clone(), &params).unwrap()
    });
    for (i, profiled) in (0..contexts.len()).flat_map(|i| [(i, false), (i, true)]) {
        let context = &mut contexts[i];
        profile::set_enabled(profiled);
        context.clear();
        context.decode(&[7; 600], Logits::Last).unwrap();
        let mut step = || {
            let token = sampler.sample(context.logits()).unwrap();
            sampler.accept(token).unwrap();
            context.decode(&[token], Logits::Last).unwrap();
        };
        step();
        let count = allocations(|| (0..50).for_each(|_| step()));
        assert_eq!(count, 0, "50 steps with the profile {}", if profiled { "on" } else { "off" });
        let count = allocations(|| context.decode(&[9; 40], Logits::Last).unwrap());
        assert_eq!(count, 0, "a prompt of three batches");
    }
}
