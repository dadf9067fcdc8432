//! Log-probabilities that come with tokens: those of the logits that a context computes for the same tokens, in f64,
//! whatever the sampler, with guessed tokens and without.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::draft::{Drafting, PromptLookup};
use super::{Event, GenerationParams, MAX_LOGPROBS, drive, drive_drafted};
use crate::model::{LoadParams, Model};
use crate::runtime::sampling::{Sampler, SamplerParams, TokenLogprob};
use crate::runtime::{Context, ContextParams, Logits};

fn model() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/untied-mixed.gguf");
    Model::open(&path, &LoadParams::default()).unwrap()
}

fn context(model: &Arc<Model>) -> Context {
    let params = ContextParams::default().with_n_ctx(128).with_n_output(8).with_threads(2);
    Context::new(model.clone(), &params).unwrap()
}

/// Repeats itself, so that a lookup guesses some tokens right.
fn sampler(model: &Model) -> Sampler {
    let params = SamplerParams::default().with_seed(9).with_temperature(0.3).with_repetition_penalty(1.1);
    Sampler::new(params, model.config().n_vocab).unwrap()
}

const PROMPT: [u32; 9] = [7, 8, 9, 10, 7, 8, 9, 10, 7];

fn params(n_best: usize) -> GenerationParams<'static> {
    GenerationParams::default().with_max_tokens(40).with_logprobs(Some(n_best))
}

/// The tokens of a generation, and the log-probabilities of each: its own first.
type Listed = Vec<(u32, Vec<TokenLogprob>)>;

fn listed(model: &Arc<Model>, params: &GenerationParams<'_>, looks_up: bool) -> Listed {
    let (mut listed, mut next) = (Listed::new(), None);
    let mut lookup = PromptLookup::default();
    let drafting = looks_up.then(|| Drafting::new(&mut lookup, 6).unwrap());
    let on_event = &mut |event: Event<'_>| {
        match event {
            Event::Logprobs { token, best } => next = Some([&[token], best].concat()),
            Event::Output(output) if output.is_new => listed.push((output.token, next.take().unwrap())),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let (mut context, mut sampler) = (context(model), sampler(model));
    drive_drafted(&mut context, &mut sampler, &PROMPT, params, drafting, on_event).unwrap();
    listed
}

#[test]
fn log_probabilities_are_those_of_the_models_logits() {
    let model = model();
    let listed = listed(&model, &params(5), false);
    assert!(listed.len() > 10);
    let mut context = context(&model);
    context.decode(&PROMPT, Logits::Last).unwrap();
    for (token, logprobs) in &listed {
        let logits: Vec<f64> = context.logits().iter().copied().map(f64::from).collect();
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let expected = [&[*token as usize], &order[..5]].concat();
        assert_eq!(logprobs.iter().map(|found| found.token as usize).collect::<Vec<_>>(), expected);
        for found in logprobs {
            let exact = logits[found.token as usize] - total;
            // The softmax's error, and roundings of numbers of at most a few dozens.
            assert!((f64::from(found.logprob) - exact).abs() < 1e-5, "{found:?}: {exact}");
        }
        context.decode(&[*token], Logits::Last).unwrap();
    }
    // The text is the one without them.
    let mut plain = Vec::new();
    let params = GenerationParams { logprobs: None, ..params(0) };
    drive(&mut self::context(&model), &mut sampler(&model), &PROMPT, &params, &mut |event| {
        if let Event::Output(output) = event {
            plain.extend(output.is_new.then_some(output.token));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(plain, listed.iter().map(|(token, _)| *token).collect::<Vec<_>>());
}

#[test]
fn guesses_change_no_bit_of_them() {
    let model = model();
    assert_eq!(listed(&model, &params(5), true), listed(&model, &params(5), false));
}

#[test]
fn so_many_are_refused() {
    let model = model();
    let params = params(MAX_LOGPROBS + 1);
    let mut on_event = |_: Event<'_>| ControlFlow::Continue(());
    let error =
        drive(&mut context(&model), &mut sampler(&model), &PROMPT, &params, &mut on_event).unwrap_err();
    assert!(error.to_string().contains("log-probabilities of 101 tokens; at most 100"), "{error}");
}
