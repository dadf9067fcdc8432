//! Generations that are longer than their context: the tokens of a loop by hand that shifts whenever the context is full,
//! with guesses and without, in pieces of any size; and what can't shift is refused before a token is read.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::draft::{Drafting, PromptLookup};
use super::{Event, GenerationParams, StopReason, drive_drafted};
use crate::kv::CacheType;
use crate::model::{LoadParams, Model};
use crate::runtime::sampling::{Mask, Sampler, SamplerParams, Stage, TokenSet};
use crate::runtime::{Context, ContextParams, Logits};
use crate::{Error, Result};

const N_CTX: usize = 48;
const PROMPT: [u32; 9] = [7, 8, 9, 10, 7, 8, 9, 10, 7];

fn model() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/untied-mixed.gguf");
    Model::open(&path, &LoadParams::default()).unwrap()
}

fn context(model: &Arc<Model>, kv: CacheType) -> Context {
    let params = ContextParams::default().with_n_ctx(N_CTX).with_n_output(7).with_threads(2).with_kv(kv);
    Context::new(model.clone(), &params).unwrap()
}

/// Allows all tokens but the first three, which end texts; of five tokens in a row it tells that they must come.
struct Endless {
    count: usize,
    forces: bool,
}

impl Mask for Endless {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        match self.count % 20 < 5 {
            true => allowed.insert(70 + (self.count % 20) as u32),
            false => (3..allowed.n_vocab() as u32).for_each(|token| allowed.insert(token)),
        }
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        self.count += 1;
        Ok(())
    }

    fn rollback(&mut self, n: usize) {
        self.count -= n;
    }

    fn reset(&mut self) {
        self.count = 0;
    }

    fn forced(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        if self.forces && self.count % 20 < 5 {
            tokens.extend((self.count % 20..5).map(|i| 70 + i as u32));
        }
        Ok(())
    }
}

fn sampler(model: &Model, forces: bool) -> Sampler {
    let params = SamplerParams::default().with_seed(9).with_temperature(0.4);
    let mut stages = params.stages();
    stages.insert(0, Stage::Mask(Box::new(Endless { count: 0, forces })));
    Sampler::from_stages(stages, model.config().n_vocab).unwrap()
}

/// The tokens of a generation, and those that its context holds at its end.
fn driven(n_keep: usize, looks_up: bool, forces: bool) -> (Vec<u32>, Vec<u32>) {
    let model = model();
    let (mut context, mut sampler) = (context(&model, CacheType::F16), sampler(&model, forces));
    let params = GenerationParams::default().with_max_tokens(150).with_context_shift(Some(n_keep));
    let mut lookup = PromptLookup::default();
    let drafting = looks_up.then(|| Drafting::new(&mut lookup, 6).unwrap());
    let mut tokens = Vec::new();
    let on_event = &mut |event: Event<'_>| {
        if let Event::Output(output) = event {
            tokens.extend(output.is_new.then_some(output.token));
        }
        ControlFlow::Continue(())
    };
    let summary = drive_drafted(&mut context, &mut sampler, &PROMPT, &params, drafting, on_event).unwrap();
    assert_eq!((summary.reason, summary.n_generated), (StopReason::Length, 150));
    (tokens, context.tokens().to_vec())
}

#[test]
fn a_generation_goes_on_as_a_loop_by_hand_does() {
    let model = model();
    for n_keep in [0, 1, 9, 40, N_CTX - 2] {
        let (mut context, mut sampler) = (context(&model, CacheType::F16), sampler(&model, false));
        context.decode(&PROMPT, Logits::Last).unwrap();
        PROMPT.iter().try_for_each(|&token| sampler.read(token)).unwrap();
        let (mut tokens, mut shifts) = (Vec::new(), 0);
        loop {
            let token = sampler.sample(context.logits()).unwrap();
            sampler.accept(token).unwrap();
            tokens.push(token);
            if tokens.len() == 150 {
                break;
            }
            if context.len() == N_CTX {
                let dropped = context.shift(n_keep).unwrap();
                assert_eq!(dropped, (N_CTX - n_keep) / 2);
                shifts += 1;
            }
            context.decode(&[token], Logits::Last).unwrap();
        }
        assert!(shifts > 3);
        let expected = (tokens, context.tokens().to_vec());
        assert_eq!(driven(n_keep, false, false), expected, "{n_keep}");
        assert_eq!(driven(n_keep, true, false), expected, "{n_keep}, with guesses");
        assert_eq!(driven(n_keep, false, true).0, expected.0, "{n_keep}, with forced tokens");
    }
}

#[test]
fn what_cannot_shift_is_refused_before_a_token_is_read() {
    let model = model();
    let run = |n_keep, kv| {
        let mut context = context(&model, kv);
        let params = GenerationParams::default().with_context_shift(Some(n_keep));
        let mut on_event = |_: Event<'_>| ControlFlow::Continue(());
        let sampler = &mut sampler(&model, false);
        let error = drive_drafted(&mut context, sampler, &PROMPT, &params, None, &mut on_event).unwrap_err();
        assert!(context.is_empty());
        error
    };
    assert!(run(N_CTX - 1, CacheType::F16).to_string().contains("keeps 47 tokens of a context of 48"));
    assert!(matches!(run(usize::MAX, CacheType::F16), Error::InvalidArgument(_)));
    assert!(matches!(run(0, CacheType::Q8_0), Error::Unsupported(_)));
}
