//! Speculation changes no token: with any drafter, right or wrong, a generation is the one that it is without, and so is
//! the context behind it.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::families::Family;
use smallmind::format::BytesSource;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::generation::draft::{DraftModel, Drafter, Drafting, PromptLookup};
use smallmind::runtime::generation::{Event, GenerationParams, StopReason, Summary, drive_drafted};
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Context, ContextParams};

/// Models whose caches go back in each way: by positions, by pages within a window, by a copy of a state.
const MODELS: [&str; 5] = ["llama-dense", "gemma3-dense", "mamba2-dense", "lfm2-dense", "qwen3moe-moe"];

fn model(name: &str) -> Arc<Model> {
    let source = Arc::new(BytesSource::new(name, Family::read(name).file()));
    Model::from_source(source, &LoadParams::default()).unwrap()
}

fn context(model: &Arc<Model>, n_ctx: usize) -> Context {
    let params = ContextParams::default().with_n_ctx(n_ctx).with_n_output(9).with_threads(2);
    Context::new(model.clone(), &params).unwrap()
}

/// Knows what comes, and is wrong at some places.
struct Oracle {
    all: Vec<u32>,
    wrong_at: fn(usize) -> bool,
}

impl Drafter for Oracle {
    fn propose(&mut self, tokens: &[u32], most: usize, draft: &mut Vec<u32>) -> smallmind::Result<()> {
        let next = (tokens.len()..self.all.len()).take(most);
        draft.extend(next.map(|i| if (self.wrong_at)(i) { self.all[i] ^ 1 } else { self.all[i] }));
        Ok(())
    }
}

/// A generation's tokens, its summary, and the context's tokens behind it.
fn run(
    context: &mut Context,
    params: &GenerationParams<'_>,
    drafter: Option<&mut dyn Drafter>,
    break_at: usize,
) -> (Vec<u32>, Summary, Vec<u32>) {
    context.clear();
    let sampling = SamplerParams::default().with_temperature(0.7).with_repetition_penalty(1.1).with_seed(3);
    let mut sampler = Sampler::new(sampling, context.model().config().n_vocab).unwrap();
    let drafting = drafter.map(|drafter| Drafting::new(drafter, 8).unwrap());
    let mut tokens = Vec::new();
    let prompt = [5, 9, 5, 9, 7];
    let summary = drive_drafted(context, &mut sampler, &prompt, params, drafting, &mut |event| {
        if let Event::Output(output) = event {
            tokens.extend(output.is_new.then_some(output.token));
        }
        if tokens.len() == break_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    (tokens, summary, context.tokens().to_vec())
}

#[test]
fn guesses_change_nothing_but_the_number_of_passes() {
    let params = GenerationParams::default().with_max_tokens(60).with_needs_text(false);
    for name in MODELS {
        let model = model(name);
        let mut context = context(&model, 160);
        let (plain, alone, held) = run(&mut context, &params, None, usize::MAX);
        assert_eq!((plain.len(), alone.n_drafted), (60, 0));
        let all = [&held[..], &plain[59..]].concat();
        let wrong: [fn(usize) -> bool; 4] = [|_| false, |_| true, |i| i % 5 == 0, |i| i % 3 != 1];
        for (place, wrong_at) in wrong.into_iter().enumerate() {
            let mut oracle = Oracle { all: all.clone(), wrong_at };
            let (tokens, summary, after) = run(&mut context, &params, Some(&mut oracle), usize::MAX);
            assert_eq!((&tokens, &after), (&plain, &held), "{name}, {place}");
            match place {
                // The first token comes from the prompt's pass; eight of nine are right guesses.
                0 => assert_eq!((summary.n_accepted, summary.n_drafted), (52, 52), "{name}"),
                1 => assert_eq!(summary.n_accepted, 0, "{name}"),
                _ => assert!(summary.n_accepted > 10 && summary.n_accepted < summary.n_drafted, "{name}"),
            }
        }
        let (tokens, _, after) = run(&mut context, &params, Some(&mut PromptLookup::default()), usize::MAX);
        assert_eq!((&tokens, &after), (&plain, &held), "{name}, lookup");
    }
}

/// Each end comes among guesses that are right.
#[test]
fn a_generation_ends_where_it_does_without_guesses() {
    let model = model("llama-dense");
    let params = GenerationParams::default().with_max_tokens(40).with_needs_text(false);
    for (n_ctx, break_at, reason) in [(160, 7, StopReason::Callback), (20, 99, StopReason::ContextFull)] {
        let mut context = context(&model, n_ctx);
        let (plain, alone, held) = run(&mut context, &params, None, break_at);
        let all = [&held[..], &plain[plain.len() - 1..], &[1; 30]].concat();
        let mut oracle = Oracle { all, wrong_at: |_| false };
        let (tokens, summary, after) = run(&mut context, &params, Some(&mut oracle), break_at);
        assert_eq!((&tokens, &after, summary.reason), (&plain, &held, reason));
        assert_eq!((summary.n_generated, summary.last_token), (alone.n_generated, alone.last_token));
    }
}

/// A model that drafts for itself is right wherever the likeliest token is drawn.
#[test]
fn a_draft_model_guesses_for_another() {
    let model = model("llama-dense");
    let mut context = context(&model, 160);
    let params = GenerationParams::default().with_max_tokens(50).with_needs_text(false);
    let (plain, _, held) = run(&mut context, &params, None, usize::MAX);
    let own = Context::new(model.clone(), &ContextParams::default().with_n_ctx(160).with_threads(1)).unwrap();
    let mut drafter = DraftModel::new(own, &model).unwrap();
    let (tokens, summary, after) = run(&mut context, &params, Some(&mut drafter), usize::MAX);
    assert_eq!((&tokens, &after), (&plain, &held));
    assert!(summary.n_accepted > 0 && summary.n_drafted > summary.n_accepted, "{summary:?}");
    let other = self::model("gpt2-dense");
    let of_other = Context::new(other.clone(), &ContextParams::default().with_n_ctx(32)).unwrap();
    let refused = DraftModel::new(of_other, &model);
    assert_eq!(refused.is_err(), other.config().n_vocab != model.config().n_vocab);
}

/// A drafter is the host's: what it says may be nonsense.
#[test]
fn nonsense_is_no_guess() {
    struct Nonsense;
    impl Drafter for Nonsense {
        fn propose(&mut self, tokens: &[u32], _: usize, draft: &mut Vec<u32>) -> smallmind::Result<()> {
            draft.extend([tokens[0], u32::MAX, 3].into_iter().cycle().take(tokens.len() % 200));
            Ok(())
        }
    }
    let mut context = context(&model("llama-dense"), 160);
    let params = GenerationParams::default().with_max_tokens(30).with_needs_text(false);
    let (plain, _, held) = run(&mut context, &params, None, usize::MAX);
    let (tokens, _, after) = run(&mut context, &params, Some(&mut Nonsense), usize::MAX);
    assert_eq!((tokens, after), (plain, held));
    assert!(Drafting::new(&mut Nonsense, 0).is_err() && Drafting::new(&mut Nonsense, 65).is_err());
}
