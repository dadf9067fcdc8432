//! Log-probabilities of a request's tokens: to the bit those that it has alone, however many the others ask for.

use super::*;
use crate::runtime::generation::MAX_LOGPROBS;
use crate::runtime::sampling::TokenLogprob;

/// The tokens of a generation, and the log-probabilities of each: its own first.
type Listed = Vec<(u32, Vec<TokenLogprob>)>;

fn alone(model: &Arc<Model>, asked: &Asked) -> Listed {
    let mut context =
        Context::new(model.clone(), &ContextParams::default().with_n_ctx(N_CTX).with_threads(1)).unwrap();
    let (mut listed, mut next) = (Listed::new(), None);
    let params = asked.params(model).with_logprobs(Some(5));
    drive(&mut context, &mut asked.sampler(model), &asked.prompt, &params, &mut |event| {
        match event {
            generation::Event::Logprobs { token, best } => next = Some([&[token], best].concat()),
            generation::Event::Output(output) if output.is_new => {
                listed.push((output.token, next.take().unwrap()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    listed
}

#[test]
fn log_probabilities_are_those_that_a_request_has_alone() {
    let server = server("untied-mixed", &params().with_n_sequences(3));
    let model = server.model();
    let counts = [Some(5), None, Some(0), Some(2)];
    let asked = [1, 2, 3, 4].map(|seed| Asked { endless: true, ..Asked::new(9, 30, seed) });
    let submit = |(asked, count): (&Asked, Option<usize>)| {
        let params = asked.params(model).with_logprobs(count);
        server.submit(Request::new(&asked.prompt, asked.sampler(model)).with_params(params)).unwrap()
    };
    let ids: Vec<_> = asked.iter().zip(counts).map(submit).collect();
    let mut found = [const { Listed::new() }; 4];
    let (mut text, mut logprobs, mut idle) = (String::new(), Vec::new(), false);
    while !idle {
        idle = server.step().unwrap().is_idle();
        while let Some(event) = server.poll_logprobs(&mut text, &mut logprobs).unwrap() {
            match event {
                Event::Output { request, token, is_new: true } => {
                    let of = ids.iter().position(|id| *id == request).unwrap();
                    found[of].push((token, logprobs.clone()));
                }
                _ => assert!(logprobs.is_empty()),
            }
        }
    }
    for ((asked, count), found) in asked.iter().zip(counts).zip(found) {
        let n = count.map_or(0, |count| 1 + count);
        let expected: Listed =
            alone(model, asked).iter().map(|(token, logprobs)| (*token, logprobs[..n].to_vec())).collect();
        assert!(expected.len() == 30 && found == expected, "{count:?}");
    }
}

#[test]
fn so_many_are_refused() {
    let server = server("untied-mixed", &params());
    let asked = Asked::new(5, 5, 1);
    let params = asked.params(server.model()).with_logprobs(Some(MAX_LOGPROBS + 1));
    let sampler = asked.sampler(server.model());
    let error = server.submit(Request::new(&asked.prompt, sampler).with_params(params)).unwrap_err();
    assert!(error.to_string().contains("log-probabilities of 101 tokens; at most 100"), "{error}");
}
