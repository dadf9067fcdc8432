//! A step of a server allocates nothing once its sequences run, nor does a poll: with sequences that read, write, wait for
//! pages and are preempted, with the profile on or off. In a process of its own, because it counts what the whole process
//! allocates.

use crate::allocations;
use crate::common::{golden_path, process};
use smallmind::model::{LoadParams, Model};
use smallmind::profile;
use smallmind::runtime::generation::GenerationParams;
use smallmind::runtime::sampling::{Mask, Sampler, SamplerParams, Stage, TokenSet};
use smallmind::serve::{Request, Server, ServerParams};

#[test]
fn a_step_of_a_server_allocates_nothing() {
    let _turn = crate::turn();
    process::alone("serve_alloc::a_step_of_a_server_allocates_nothing", count_everything);
}

/// Allows all tokens but the first three, which end texts.
struct Endless {
    /// Whether it allocates.
    planted: bool,
}

impl Mask for Endless {
    fn allow(&mut self, allowed: &mut TokenSet) -> smallmind::Result<()> {
        if self.planted {
            drop(std::hint::black_box(Box::new(1)));
        }
        (3..allowed.n_vocab() as u32).for_each(|token| allowed.insert(token));
        Ok(())
    }

    fn accept(&mut self, _: u32) -> smallmind::Result<()> {
        Ok(())
    }

    fn rollback(&mut self, _: usize) {}

    fn reset(&mut self) {}
}

fn count_everything() {
    for (file, needs_text) in [("untied-mixed.gguf", true), ("hybrid-quant.gguf", false)] {
        let path = golden_path("gguf").join(file);
        let model = Model::open(&path, &LoadParams::default()).unwrap();
        let n_vocab = model.config().n_vocab;
        // Seven pages for four sequences of three.
        let params = ServerParams::default()
            .with_n_sequences(4)
            .with_n_ctx(384)
            .with_n_positions(384)
            .with_n_batch(32)
            .with_threads(2);
        for profiled in [false, true] {
            profile::set_enabled(profiled);
            let server = Server::new(model.clone(), &params).unwrap();
            let limits = GenerationParams::default()
                .with_max_tokens(350)
                .with_needs_text(needs_text)
                .with_logprobs(profiled.then_some(5));
            let submit = |seed: u64, planted| {
                let sampling = SamplerParams::default().with_seed(seed).with_repetition_penalty(1.3);
                let mut stages = sampling.stages();
                stages.insert(0, Stage::Mask(Box::new(Endless { planted })));
                let sampler = Sampler::from_stages(stages, n_vocab).unwrap();
                // Different pages, so that none are shared.
                let prompt = [7 + seed as u32; 20];
                let request = Request::new(&prompt, sampler).with_params(limits);
                server.submit(request.with_priority(planted.into())).unwrap();
            };
            (0..6).for_each(|seed| submit(seed, false));
            let (mut text, mut logprobs) = (String::with_capacity(1 << 12), Vec::with_capacity(8));
            let mut steps = |count: usize| {
                for _ in 0..count {
                    server.step().unwrap();
                    while server.poll_logprobs(&mut text, &mut logprobs).unwrap().is_some() {}
                }
            };
            steps(20);
            let allocated = allocations(|| steps(60));
            let stats = server.stats();
            assert_eq!(allocated, 0, "{file}: steps with the profile {profiled}");
            assert!(stats.sampled > 300 && stats.preempted > 0 && stats.finished == 0, "{stats:?}");
            // The guard sees a planted one.
            submit(7, true);
            steps(5);
            assert!(allocations(|| steps(3)) > 0, "{file}");
        }
        profile::set_enabled(false);
    }
}
