//! A step in steady state allocates nothing, on any thread: neither decoding nor sampling nor a generation's step
//! with stop strings, with the profile on or off. In a process of its own, because it counts what the whole process
//! allocates.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::allocations;
use crate::common::{golden_path, process};
use smallmind::kv::CacheType;
use smallmind::model::{GptConfig, LoadParams, Model};
use smallmind::profile;
use smallmind::profile::alloc::total_counts;
use smallmind::runtime::generation::{Event, GenerationParams, drive};
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Batch, Context, ContextParams, Engine, EngineParams, Logits, Span};
use smallmind::threads::Team;

#[test]
fn a_step_allocates_nothing() {
    let _turn = crate::turn();
    process::alone("step_alloc::a_step_allocates_nothing", count_everything);
}

fn count_everything() {
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

    let file = |name| {
        let path = golden_path("gguf").join(name);
        Model::open(&path, &LoadParams::default()).unwrap()
    };
    // Beyond two parts of the sequence, which workers share.
    steps(&file("untied-mixed.gguf"), 1024, 600, 50);
    generation(&file("untied-mixed.gguf"));
    shifts(&file("untied-mixed.gguf"));
    batches(&file("qwen3-tied-quant.gguf"));
    shared(&file("qwen3-tied-quant.gguf"));
    steps(&file("gpt-tied-quant.gguf"), 64, 20, 4);
    steps(&file("hybrid-quant.gguf"), 1024, 600, 50);
    batches(&file("short-conv.gguf"));
    let config = GptConfig { context: 1024, ..GptConfig::SMALL };
    steps(&Model::random(&config, 1, &LoadParams::default()).unwrap(), 1024, 600, 50);
}

/// Batches of a prompt's piece beside single tokens, over the edges of pages.
fn batches(model: &Arc<Model>) {
    let params = EngineParams::default().with_n_sequences(3).with_n_ctx(1024).with_n_output(3);
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(2).unwrap())).unwrap();
    let ids = [0; 3].map(|_| engine.create().unwrap());
    let tokens = [7; 42];
    let mut run = || {
        let span = |i: usize, rows| Span::new(ids[i], engine.len(ids[i]).unwrap(), rows);
        let spans = [span(0, 1), span(1, 40), span(2, 1)];
        engine.run(&Batch::new(&tokens, &spans, &[0, 40, 41])).unwrap();
    };
    run();
    assert_eq!(allocations(|| (0..7).for_each(|_| run())), 0, "batches of three sequences");
}

/// Sequences that begin with a known prefix, share pages, copy them, and are told to the index.
fn shared(model: &Arc<Model>) {
    let params = EngineParams::default()
        .with_n_sequences(3)
        .with_n_ctx(512)
        .with_n_positions(1024)
        .with_n_batch(300)
        .with_prefix_index(true);
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(2).unwrap())).unwrap();
    let mut round = |token| {
        let mut tokens = [7; 300];
        tokens[200..].fill(token);
        let (sequence, known) = engine.create_with_prefix(&tokens).unwrap();
        let spans = [Span::new(sequence, known, 300 - known)];
        engine.run(&Batch::new(&tokens[known..], &spans, &[])).unwrap();
        engine.index_prefix(sequence, &tokens).unwrap();
        let fork = engine.fork(sequence, 290).unwrap();
        let spans = [Span::new(fork, 290, 1), Span::new(sequence, 300, 1)];
        engine.run(&Batch::new(&[token, 3], &spans, &[0])).unwrap();
        engine.remove(fork).unwrap();
        engine.release_to_index(sequence, &tokens).unwrap();
        known
    };
    assert_eq!((round(8), round(9)), (0, 128), "the first page is found");
    // More texts than there are pages: those of the index are taken back.
    assert_eq!(allocations(|| (10..20).for_each(|token| _ = round(token))), 0, "sequences that share pages");
}

/// Steps behind a prompt of so many tokens.
fn steps(model: &Arc<Model>, n_ctx: usize, prompt: usize, count: usize) {
    let params = SamplerParams::default().with_temperature(0.9).with_repetition_penalty(1.1);
    let mut sampler = Sampler::new(params, model.config().n_vocab).unwrap();
    let mut contexts = CacheType::ALL.map(|kv| {
        let params = ContextParams::default().with_n_ctx(n_ctx).with_n_batch(16).with_threads(2).with_kv(kv);
        Context::new(model.clone(), &params).unwrap()
    });
    for (i, profiled) in (0..contexts.len()).flat_map(|i| [(i, false), (i, true)]) {
        let context = &mut contexts[i];
        profile::set_enabled(profiled);
        context.clear();
        context.decode(&vec![7; prompt], Logits::Last).unwrap();
        context.keep().unwrap();
        let mut step = || {
            let token = sampler.sample(context.logits()).unwrap();
            sampler.accept(token).unwrap();
            context.decode(&[token], Logits::Last).unwrap();
        };
        step();
        let architecture = &model.config().architecture;
        let state = if profiled { "on" } else { "off" };
        let allocated = allocations(|| (0..count).for_each(|_| step()));
        assert_eq!(allocated, 0, "{architecture}: {count} steps with the profile {state}");
        context.rewind(prompt).unwrap();
        let allocated = allocations(|| {
            context.decode(&[9; 40], Logits::Last).unwrap();
            context.rewind(prompt).unwrap();
        });
        assert_eq!(allocated, 0, "{architecture}: a prompt of three batches with the profile {state}");
    }
}

/// Contexts that are full again and again: the first shift reserves what turns keys and carries values.
fn shifts(model: &Arc<Model>) {
    for kv in [CacheType::F32, CacheType::F16] {
        let params = ContextParams::default().with_n_ctx(300).with_n_batch(64).with_threads(2).with_kv(kv);
        let mut context = Context::new(model.clone(), &params).unwrap();
        context.decode(&[7; 300], Logits::Last).unwrap();
        let mut round = || {
            let dropped = context.shift(10).unwrap();
            assert_eq!(dropped, 145);
            context.decode(&[9; 145], Logits::Last).unwrap();
        };
        round();
        assert_eq!(allocations(|| (0..5).for_each(|_| round())), 0, "{kv:?}: shifts of a full context");
    }
}

/// Whole generations with stop strings: from the tenth output on nothing is allocated.
fn generation(model: &Arc<Model>) {
    let sampling = SamplerParams::default().with_repetition_penalty(1.3);
    let mut sampler = Sampler::new(sampling, model.config().n_vocab).unwrap();
    let mut context =
        Context::new(model.clone(), &ContextParams::default().with_n_ctx(512).with_threads(2)).unwrap();
    // Beginnings of these come; the whole of them doesn't.
    let stops = ["e\0", " \0\0", "a long stop string\0", "\u{fffd}\u{fffd}\0"];
    let params = GenerationParams::default().with_max_tokens(400).with_stops(&stops);
    for profiled in [false, true] {
        profile::set_enabled(profiled);
        let (mut fewest, mut most_outputs) = (u64::MAX, 0);
        for _ in 0..3 {
            context.clear();
            let (mut outputs, mut first, mut last) = (0, 0, 0);
            let summary = drive(&mut context, &mut sampler, &[7; 20], &params, &mut |event| {
                if let Event::Output(_) = event {
                    outputs += 1;
                    first = if outputs <= 10 { total_counts().count } else { first };
                    last = total_counts().count;
                }
                ControlFlow::Continue(())
            });
            summary.unwrap();
            (fewest, most_outputs) = (fewest.min(last - first), most_outputs.max(outputs));
        }
        assert!(most_outputs > 60, "{most_outputs} outputs show little");
        assert_eq!(fewest, 0, "a generation with the profile {}", if profiled { "on" } else { "off" });
    }
    profile::set_enabled(false);
}
