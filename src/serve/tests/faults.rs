//! Faults of one request: those of its sampler's stages, and of passes. The others go on as if nothing had happened.

use std::sync::Mutex;

use super::*;
use crate::runtime::pass_tests::{Fault, FaultKind};

/// A mask as [`Endless`] that calls this, with the number of the call.
struct Calls<F>(F, usize);

impl<F: FnMut(usize) -> Result<()> + Send> Mask for Calls<F> {
    fn allow(&mut self, allowed: &mut TokenSet) -> Result<()> {
        self.1 += 1;
        Endless.allow(allowed)?;
        (self.0)(self.1)
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        Ok(())
    }

    fn rollback(&mut self, _: usize) {}

    fn reset(&mut self) {}
}

fn sampler(model: &Model, seed: u64, calls: impl FnMut(usize) -> Result<()> + Send + 'static) -> Sampler {
    let stages = vec![Stage::Mask(Box::new(Calls(calls, 0))), Stage::Draw { seed }];
    Sampler::from_stages(stages, model.config().n_vocab).unwrap()
}

#[test]
fn a_stage_that_fails_or_panics_ends_its_own_request_only() {
    let server = server("untied-mixed", &params());
    let model = server.model().clone();
    let asked = [Asked::new(9, 20, 1), Asked::new(80, 20, 2)];
    let ids = asked.clone().map(|asked| asked.submit(&server).unwrap());
    let faulty = |calls: fn(usize) -> Result<()>| {
        let request = Request::new(&[1, 2, 3], sampler(&model, 1, calls));
        server.submit(request.with_params(Asked::new(1, 20, 1).params(&model))).unwrap()
    };
    let fails = faulty(|call| if call == 4 { Err(Error::invalid("planted")) } else { Ok(()) });
    let panics = faulty(|call| if call == 4 { panic!("planted") } else { Ok(()) });
    // Of another vocabulary.
    let other = Sampler::new(SamplerParams::greedy(), 5).unwrap();
    let other = server.submit(Request::new(&[1], other)).unwrap();
    let mut heard = Heard::default();
    heard.finish(&server);
    all_are_as_alone(&server, &asked, &heard, &ids);
    let end = |id| heard.0[&id].end.clone().unwrap().unwrap_err();
    assert_eq!(end(fails), "planted");
    assert!(end(panics).contains("a stage of the request's sampler panicked"), "{}", end(panics));
    assert!([fails, panics].iter().all(|id| heard.0[id].tokens.len() == 3));
    // The first tokens of a prompt may be outside the other vocabulary already.
    assert!(end(other).contains("a vocabulary of 5"), "{}", end(other));
    assert_eq!((server.stats().finished, server.stats().failed), (2, 3));
}

#[test]
fn a_step_within_a_step_is_busy_and_other_calls_are_not() {
    let server = Arc::new(server("untied-mixed", &params()));
    let said = Arc::new(Mutex::new(Vec::new()));
    let (inside, says) = (server.clone(), said.clone());
    let calls = move |_| {
        let error = inside.step().unwrap_err().to_string();
        assert!(inside.poll(&mut String::new()).is_ok() && inside.stats().submitted > 0);
        says.lock().unwrap().push(error);
        Ok(())
    };
    let request = Request::new(&[1, 2, 3], sampler(server.model(), 1, calls)).with_max_tokens(2);
    server.submit(request.with_priority(i32::MIN)).unwrap();
    Heard::default().finish(&server);
    assert_eq!(*said.lock().unwrap(), vec!["busy: the server is in use by another call"; 2]);
}

#[test]
fn a_fault_of_passes_ends_the_requests_in_them_and_the_server_goes_on() {
    for name in ["untied-mixed", "hybrid-quant"] {
        let server = server(name, &params().with_n_sequences(2));
        let asked = [1, 2, 3].map(|i| Asked { endless: true, ..Asked::new(70 * i, 10, i as u64) });
        let ids = asked.clone().map(|asked| asked.submit(&server).unwrap());
        let mut heard = Heard::default();
        steps(&server, 3);
        server.with_engine(|engine| {
            engine.set_fault(Some(Fault { step: 2, worker: 1, kind: FaultKind::Panic }))
        });
        server.step().unwrap();
        server.with_engine(|engine| engine.set_fault(None));
        heard.poll(&server);
        let end = |heard: &Heard, i: usize| heard.0.get(&ids[i]).and_then(|given| given.end.clone());
        for i in 0..2 {
            let error = end(&heard, i).unwrap().unwrap_err();
            assert!(error.starts_with("internal error"), "{error}");
        }
        heard.finish(&server);
        assert_eq!(heard.0[&ids[2]], asked[2].alone(server.model()), "one that waited");
        // A pass that is only interrupted changes nothing, and the next one goes on, behind what a state has lost.
        let id = asked[1].submit(&server).unwrap();
        steps(&server, 5);
        server.with_engine(|engine| {
            engine.set_fault(Some(Fault { step: 2, worker: 1, kind: FaultKind::Cancel }))
        });
        assert!(matches!(server.step(), Err(Error::Cancelled)));
        server.with_engine(|engine| engine.set_fault(None));
        heard.finish(&server);
        assert_eq!(heard.0[&id], asked[1].alone(server.model()), "one that was interrupted");
    }
}
