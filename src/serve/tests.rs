//! Tests of the server: each request's tokens are those that it has alone, whatever else runs, and nothing that happens to
//! one request touches another.

mod faults;
mod logprobs;
mod schedules;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::{Event, Request, RequestId, Server, ServerParams, Status, Summary};
use crate::error::{Error, Result};
use crate::model::{LoadParams, Model};
use crate::runtime::generation::{self, GenerationParams, StopReason, drive};
use crate::runtime::sampling::{Mask, Sampler, SamplerParams, Stage, TokenSet};
use crate::runtime::{Context, ContextParams};

const N_CTX: usize = 300;

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/gguf/{name}.gguf"));
    Model::open(&path, &LoadParams::default()).unwrap()
}

fn params() -> ServerParams {
    ServerParams::default().with_n_ctx(N_CTX).with_n_sequences(4).with_n_batch(64).with_threads(2)
}

fn server(name: &str, params: &ServerParams) -> Server {
    Server::new(model(name), params).unwrap()
}

/// A request that can be made again.
#[derive(Clone, Debug)]
struct Asked {
    prompt: Vec<u32>,
    max_tokens: usize,
    stops: Vec<&'static str>,
    sampling: SamplerParams,
    priority: i32,
    /// Whether no token may end the text.
    endless: bool,
}

/// Allows all tokens but the first three, which end texts.
struct Endless;

impl Mask for Endless {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        (3..allowed.n_vocab() as u32).for_each(|token| allowed.insert(token));
        Ok(())
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        Ok(())
    }

    fn rollback(&mut self, _: usize) {}

    fn reset(&mut self) {}
}

impl Asked {
    /// A prompt of so many tokens, and so many to generate.
    fn new(n_prompt: usize, max_tokens: usize, seed: u64) -> Self {
        let spread = |i: usize| (i as u64 * 7919 + seed * 104_729) as u32 % 60;
        let sampling = SamplerParams::default().with_seed(seed).with_temperature(1.5).with_min_p(0.0);
        Asked {
            prompt: (0..n_prompt).map(spread).collect(),
            max_tokens,
            stops: Vec::new(),
            sampling,
            priority: 0,
            endless: false,
        }
    }

    fn sampler(&self, model: &Model) -> Sampler {
        let mut stages = self.sampling.stages();
        if self.endless {
            stages.insert(0, Stage::Mask(Box::new(Endless)));
        }
        Sampler::from_stages(stages, model.config().n_vocab).unwrap()
    }

    fn params(&self, model: &Model) -> GenerationParams<'_> {
        let needs_text = model.tokenizer().is_ok();
        let stops: &[&str] = if needs_text { &self.stops } else { &[] };
        GenerationParams::default()
            .with_max_tokens(self.max_tokens)
            .with_stops(stops)
            .with_needs_text(needs_text)
    }

    fn submit(&self, server: &Server) -> Result<RequestId> {
        let model = server.model();
        let request = Request::new(&self.prompt, self.sampler(model));
        server.submit(request.with_params(self.params(model)).with_priority(self.priority))
    }

    /// Its results without a server.
    fn alone(&self, model: &Arc<Model>) -> Given {
        let mut context =
            Context::new(model.clone(), &ContextParams::default().with_n_ctx(N_CTX).with_threads(1)).unwrap();
        let (mut given, mut sampler) = (Given::default(), self.sampler(model));
        let on_event = &mut |event: generation::Event<'_>| {
            if let generation::Event::Output(output) = event {
                given.tokens.extend(output.is_new.then_some(output.token));
                given.text.push_str(output.text);
            }
            ControlFlow::Continue(())
        };
        let summary = drive(&mut context, &mut sampler, &self.prompt, &self.params(model), on_event).unwrap();
        given.end = Some(Ok((summary.reason, summary.n_generated, summary.last_token)));
        given
    }
}

type End = Result<(StopReason, usize, Option<u32>), String>;

/// The results of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Given {
    tokens: Vec<u32>,
    text: String,
    end: Option<End>,
}

/// The results of all requests of a server.
#[derive(Default)]
struct Heard(BTreeMap<RequestId, Given>);

impl Heard {
    fn hear(&mut self, event: Event, text: &str) {
        let given = self.0.entry(event.request()).or_default();
        assert_eq!(given.end, None, "an event behind the last one");
        match event {
            Event::Output { token, is_new, .. } => {
                given.tokens.extend(is_new.then_some(token));
                given.text.push_str(text);
            }
            Event::Finished { summary: Summary { reason, n_generated, last_token, .. }, .. } => {
                given.end = Some(Ok((reason, n_generated, last_token)));
            }
            Event::Failed { error, .. } => given.end = Some(Err(error.to_string())),
        }
    }

    fn poll(&mut self, server: &Server) {
        let mut text = String::new();
        while let Some(event) = server.poll(&mut text).unwrap() {
            self.hear(event, &text);
        }
    }

    /// Steps until no request is left.
    fn finish(&mut self, server: &Server) {
        let run = server.run(&mut |event, text| {
            let given = self.0.entry(event.request()).or_default();
            match event {
                Event::Output { token, is_new, .. } => {
                    given.tokens.extend(is_new.then_some(*token));
                    given.text.push_str(text);
                }
                Event::Finished { summary, .. } => {
                    given.end = Some(Ok((summary.reason, summary.n_generated, summary.last_token)));
                }
                Event::Failed { error, .. } => given.end = Some(Err(error.to_string())),
            }
            ControlFlow::Continue(())
        });
        run.unwrap();
        assert_eq!(server.stats().n_events, 0);
    }
}

fn steps(server: &Server, count: usize) {
    for _ in 0..count {
        server.step().unwrap();
    }
}

fn all_are_as_alone(server: &Server, asked: &[Asked], heard: &Heard, ids: &[RequestId]) {
    for (asked, id) in asked.iter().zip(ids) {
        assert_eq!(heard.0[id], asked.alone(server.model()), "{id}");
    }
}

#[test]
fn a_few_requests_have_the_results_that_they_have_alone() {
    for name in ["untied-mixed", "hybrid-quant", "short-conv", "qwen3-tied-quant"] {
        let server = server(name, &params());
        let mut asked: Vec<_> = (1..7).map(|i| Asked::new(7 * i, 5 * i, i as u64)).collect();
        // One that fills its sequence, one that only reads, one with stop strings.
        asked.extend([
            Asked { endless: true, ..Asked::new(N_CTX - 5, 50, 7) },
            Asked::new(40, 0, 8),
            Asked::new(1, 60, 9),
        ]);
        asked[8].stops = vec!["e", "a"];
        let ids: Vec<_> = asked.iter().map(|asked| asked.submit(&server).unwrap()).collect();
        assert!(ids.iter().all(|&id| server.status(id) == Some(Status::Waiting)));
        let mut heard = Heard::default();
        heard.finish(&server);
        all_are_as_alone(&server, &asked, &heard, &ids);
        assert_eq!(heard.0[&ids[6]].end.as_ref().unwrap().as_ref().unwrap().0, StopReason::ContextFull);
        assert!(ids.iter().all(|&id| server.status(id).is_none() && !server.cancel(id)));
        let stats = server.stats();
        assert_eq!((stats.submitted, stats.finished, stats.failed, stats.preempted), (9, 9, 0, 0));
    }
}

#[test]
fn texts_are_prompts_too() {
    let server = server("untied-mixed", &params());
    let model = server.model();
    let text = "a b";
    let tokens = model.tokenizer().unwrap().encode(text, false, true).unwrap();
    let asked = Asked { prompt: tokens, ..Asked::new(1, 8, 3) };
    let id = server.submit(Request::new(text, asked.sampler(model)).with_max_tokens(8)).unwrap();
    let mut heard = Heard::default();
    heard.finish(&server);
    assert_eq!(heard.0[&id], asked.alone(model));
}

#[test]
fn requests_share_the_beginnings_of_their_prompts() {
    let model = model("untied-mixed");
    // Samples of one prompt, a shorter one, and one that differs within the second page.
    let prompt = Asked::new(290, 0, 1).prompt;
    let other = [&prompt[..200], &[1, 2, 3][..], &prompt[203..]].concat();
    let mut asked: Vec<_> = (0..9).map(|i| Asked { prompt: prompt.clone(), ..Asked::new(1, 4, i) }).collect();
    asked.push(Asked { prompt: prompt[..257].to_vec(), ..Asked::new(1, 20, 20) });
    asked.push(Asked { prompt: other, ..Asked::new(1, 20, 21) });
    let [mut computed, mut shared] = [[0; 2]; 2];
    for (i, prefix_index) in [false, true].into_iter().enumerate() {
        let params = params().with_n_sequences(6).with_prefix_index(prefix_index);
        let server = Server::new(model.clone(), &params).unwrap();
        // All at once: nothing has been computed yet.
        let ids: Vec<_> = asked.iter().map(|asked| asked.submit(&server).unwrap()).collect();
        let mut heard = Heard::default();
        heard.finish(&server);
        all_are_as_alone(&server, &asked, &heard, &ids);
        (computed[i], shared[i]) = (server.stats().computed, server.stats().shared);
        // The pages outlive their requests.
        let again = asked[0].submit(&server).unwrap();
        heard.finish(&server);
        assert_eq!(heard.0[&again], heard.0[&ids[0]]);
        assert_eq!(server.stats().shared - shared[i], if prefix_index { 256 } else { 0 });
    }
    // Two whole pages of nine requests, and one of the last one, are computed by another.
    assert_eq!(shared, [0, 9 * 256 + 128]);
    assert_eq!(computed[0] - computed[1], shared[1]);
}

#[test]
fn a_preempted_request_goes_on_exactly() {
    for name in ["untied-mixed", "hybrid-quant"] {
        // Six pages; four sequences would take twelve.
        let server = server(name, &params().with_n_positions(N_CTX));
        let asked = |i: usize| Asked { endless: true, ..Asked::new(20 + 50 * i, 260 - 50 * i, i as u64) };
        let asked: Vec<_> = (0..5).map(asked).collect();
        let ids: Vec<_> = asked.iter().map(|asked| asked.submit(&server).unwrap()).collect();
        let mut heard = Heard::default();
        heard.finish(&server);
        all_are_as_alone(&server, &asked, &heard, &ids);
        let stats = server.stats();
        assert!(stats.preempted > 0 && stats.lost > 0, "{stats:?}");
        // Waiting for pages must not mean that sequences are computed again and again.
        assert!(stats.preempted < 20, "{stats:?}");
    }
}

#[test]
fn higher_priorities_come_first_and_take_the_places_of_others() {
    let server = server("untied-mixed", &params().with_n_sequences(1));
    let asked = [
        Asked { endless: true, ..Asked::new(10, 40, 1) },
        Asked { priority: 5, ..Asked::new(30, 20, 2) },
        Asked { priority: 5, ..Asked::new(30, 20, 3) },
        Asked { priority: 9, ..Asked::new(30, 20, 4) },
    ];
    let mut heard = Heard::default();
    let mut ids = vec![asked[0].submit(&server).unwrap()];
    steps(&server, 5);
    assert_eq!(server.status(ids[0]), Some(Status::Running));
    ids.extend(asked[1..].iter().map(|asked| asked.submit(&server).unwrap()));
    server.step().unwrap();
    assert_eq!(server.status(ids[0]), Some(Status::Waiting));
    assert_eq!(server.status(ids[3]), Some(Status::Running));
    let mut order = Vec::new();
    let mut text = String::new();
    while !server.step().unwrap().is_idle() {
        while let Some(event) = server.poll(&mut text).unwrap() {
            order.extend(matches!(event, Event::Finished { .. }).then_some(event.request()));
            heard.hear(event, &text);
        }
    }
    heard.poll(&server);
    order.push(ids[0]);
    assert_eq!(order, [ids[3], ids[1], ids[2], ids[0]]);
    all_are_as_alone(&server, &asked, &heard, &ids);
}

#[test]
fn a_long_prompt_keeps_neither_short_ones_nor_texts_waiting() {
    let server = server("untied-mixed", &params());
    let writes = Asked { endless: true, ..Asked::new(3, 100, 1) }.submit(&server).unwrap();
    server.step().unwrap();
    let long = Asked::new(290, 2, 2).submit(&server).unwrap();
    let short =
        [3, 4].map(|seed| Asked { endless: true, ..Asked::new(12, 4, seed) }.submit(&server).unwrap());
    let mut heard = Heard::default();
    for step in 1..=2 {
        let progress = server.step().unwrap();
        assert!(progress.n_tokens <= 64, "{progress:?}");
        heard.poll(&server);
        assert_eq!(heard.0[&writes].tokens.len(), 1 + step, "the one that writes has a token each step");
        assert!(short.iter().all(|id| heard.0[id].tokens.len() == step), "short prompts are read at once");
    }
    assert!(!heard.0.contains_key(&long));
    heard.finish(&server);
    assert!(heard.0[&long].end.as_ref().unwrap().is_ok());
}

#[test]
fn a_host_that_does_not_poll_stops_the_steps() {
    let server = server("untied-mixed", &params().with_n_sequences(1).with_n_events(0));
    let asked = Asked { endless: true, ..Asked::new(5, 30, 1) };
    let id = asked.submit(&server).unwrap();
    let progress = (0..50).map(|_| server.step().unwrap()).find(|progress| progress.must_poll).unwrap();
    assert_eq!((progress.n_tokens, progress.n_running), (0, 1));
    assert!(server.stats().n_events <= 4);
    let mut heard = Heard::default();
    heard.poll(&server);
    heard.finish(&server);
    assert_eq!(heard.0[&id], asked.alone(server.model()));
}

#[test]
fn what_can_never_run_is_refused_when_it_is_submitted() {
    let server = server("untied-mixed", &params().with_n_requests(2));
    let submit = |asked: Asked| asked.submit(&server);
    let refused = |asked: Asked| submit(asked).unwrap_err().to_string();
    assert!(refused(Asked::new(0, 1, 1)).contains("the prompt is empty"));
    let error = submit(Asked::new(N_CTX + 1, 1, 1)).unwrap_err();
    assert!(matches!(error, Error::ContextFull { n_ctx: N_CTX, needed } if needed == N_CTX + 1), "{error}");
    assert!(
        refused(Asked { prompt: vec![1, u32::MAX], ..Asked::new(1, 1, 1) }).contains("token 1 is 4294967295")
    );
    assert!(refused(Asked { stops: vec![""], ..Asked::new(1, 1, 1) }).contains("stop string 0 is empty"));
    let shifting = Asked::new(5, 1, 1);
    let shifts = shifting.params(server.model()).with_context_shift(Some(0));
    let request = Request::new(&shifting.prompt, shifting.sampler(server.model())).with_params(shifts);
    assert!(matches!(server.submit(request), Err(Error::Unsupported(_))));
    assert_eq!(server.stats().submitted, 0);
    let first = submit(Asked::new(5, 1, 1)).unwrap();
    submit(Asked::new(5, 1, 1)).unwrap();
    assert!(refused(Asked::new(5, 1, 1)).contains("2 requests wait or run already"));
    assert!(server.cancel(first));
    Heard::default().finish(&server);
    submit(Asked::new(N_CTX, 1, 1)).unwrap();
    for (bad, says) in [
        (params().with_n_positions(N_CTX - 1), "n_positions is 299, fewer than the 300"),
        (params().with_n_sequences(0), "n_sequences is 0"),
        (params().with_n_requests(0), "n_requests is 0"),
        (params().with_n_events(usize::MAX), "n_events is"),
        (params().with_threads(0), "threads is 0"),
    ] {
        let error = Server::new(server.model().clone(), &bad).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(Server::memory(server.model(), &bad).is_err());
    }
    let whole = Server::memory(server.model(), &params()).unwrap();
    let few = Server::memory(server.model(), &params().with_n_positions(N_CTX)).unwrap();
    assert_eq!(few.cache_bytes * 2, whole.cache_bytes, "6 pages of 12");
}
