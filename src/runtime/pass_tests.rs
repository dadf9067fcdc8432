//! Faults planted at every step of a pass: a panic of any worker, a cancellation.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::Error;
use crate::model::{LoadParams, Model};
use crate::runtime::{Context, ContextParams, Logits};
use crate::threads::{Poisoned, Team, Worker};

/// A fault: its kind, its step, its worker.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub step: usize,
    pub worker: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    Panic,
    Cancel,
}

/// Triggers the fault at its step and worker.
pub fn happen(fault: Option<Fault>, step: usize, worker: &Worker<'_>) -> Result<(), Poisoned> {
    match fault {
        Some(fault) if (fault.step, fault.worker) == (step, worker.index()) => match fault.kind {
            FaultKind::Panic => panic!("planted at step {step}"),
            FaultKind::Cancel => {
                worker.cancel();
                Err(Poisoned)
            }
        },
        _ => Ok(()),
    }
}

/// A Llama, a GPT, a Qwen and two models with recurrent layers, with quantised and other matrices.
const FILES: [&str; 5] = ["untied-mixed", "gpt-tied-quant", "qwen3-tied-quant", "hybrid-quant", "short-conv"];

fn context(file: &str, threads: usize) -> Context {
    context_on(file, Arc::new(Team::new(threads).unwrap()))
}

fn context_on(file: &str, team: Arc<Team>) -> Context {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/gguf/{file}.gguf"));
    let model = Model::open(&path, &LoadParams::default()).unwrap();
    let team = Some(team);
    let params = ContextParams { n_ctx: 64, n_batch: 16, n_output: 1, team, ..ContextParams::default() };
    Context::new(model, &params).unwrap()
}

const PROMPT: [u32; 20] = [7; 20];

/// Logits after the prompt and one more token.
fn logits(context: &mut Context) -> Vec<u32> {
    context.clear();
    context.decode(&PROMPT, Logits::Last).unwrap();
    context.decode(&[3], Logits::Last).unwrap();
    context.logits().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn an_accident_at_any_step_leaves_a_usable_context() {
    for (file, threads) in FILES.into_iter().flat_map(|file| [1, 2, 3].map(|threads| (file, threads))) {
        let mut context = context(file, threads);
        let wanted = logits(&mut context);
        for step in 0..context.plan().steps.len() {
            for (worker, kind) in [
                (0, FaultKind::Panic),
                (threads - 1, FaultKind::Panic),
                (0, FaultKind::Cancel),
                (threads - 1, FaultKind::Cancel),
            ] {
                context.clear();
                context.decode(&[1, 2], Logits::None).unwrap();
                for tokens in [&PROMPT[..], &PROMPT[..1]] {
                    context.set_fault(Some(Fault { step, worker, kind }));
                    let error = context.decode(tokens, Logits::Last).unwrap_err();
                    match kind {
                        FaultKind::Panic => assert!(error.to_string().contains("planted at step"), "{error}"),
                        FaultKind::Cancel => assert!(matches!(error, Error::Cancelled), "{error}"),
                    }
                    assert_eq!((context.len(), context.logits().len()), (2, 0));
                    context.set_fault(None);
                }
                assert!(
                    logits(&mut context) == wanted,
                    "{file}: after {kind:?} at {step} on {worker} of {threads}"
                );
            }
        }
    }
}

#[test]
fn an_accident_of_one_context_is_none_of_another_on_the_same_team() {
    let team = Arc::new(Team::new(2).unwrap());
    let [mut unlucky, mut lucky, ..] = FILES.map(|file| context_on(file, team.clone()));
    let wanted = logits(&mut lucky);
    std::thread::scope(|scope| {
        let accidents = scope.spawn(|| {
            for step in 0..unlucky.plan().steps.len() {
                for (worker, kind) in [(0, FaultKind::Panic), (1, FaultKind::Panic), (1, FaultKind::Cancel)] {
                    unlucky.set_fault(Some(Fault { step, worker, kind }));
                    assert!(unlucky.decode(&PROMPT, Logits::Last).is_err());
                }
            }
        });
        while !accidents.is_finished() {
            assert!(logits(&mut lucky) == wanted);
        }
    });
}

#[test]
fn a_recurrent_context_returns_to_the_beginning_of_its_last_prompt() {
    for file in ["hybrid-quant", "short-conv"] {
        let mut context = context(file, 2);
        context.decode(&[1, 2, 3], Logits::None).unwrap();
        for token in [4, 5] {
            context.decode(&[token], Logits::None).unwrap();
        }
        // Before the prompt of the next line, the state is copied.
        context.decode(&PROMPT, Logits::Last).unwrap();
        let wanted = context.logits().to_vec();
        context.decode(&[9], Logits::Last).unwrap();
        assert!(context.rewind(6).unwrap_err().to_string().contains("only at 5"));
        assert_eq!((context.len(), context.rewind_at_most(24)), (26, 5));
        assert_eq!(context.tokens(), [1, 2, 3, 4, 5]);
        context.decode(&PROMPT, Logits::Last).unwrap();
        assert!(context.logits() == wanted, "{file}");
        // A failed token takes back those behind the copy, and no more; there is none for fewer positions.
        context.set_fault(Some(Fault { step: 3, worker: 0, kind: FaultKind::Cancel }));
        assert!(matches!(context.decode(&[9], Logits::Last), Err(Error::Cancelled)));
        context.set_fault(None);
        assert_eq!((context.len(), context.tokens().len()), (5, 5));
        assert_eq!(context.rewind_at_most(4), 0);
        assert!(context.is_empty());
    }
}

#[test]
fn a_cancelled_call_ends_and_the_next_one_does_not() {
    let mut context = context(FILES[0], 2);
    let wanted = logits(&mut context);
    let canceller = context.canceller();
    // Without a running call, nothing happens.
    canceller.cancel();
    assert!(logits(&mut context) == wanted);
    // A long prompt in single rows, cancelled from another thread at any point.
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Relaxed) {
                canceller.cancel();
                std::thread::yield_now();
            }
        });
        let error = loop {
            context.clear();
            if let Err(error) = context.decode(&[5; 60], Logits::Last) {
                break error;
            }
        };
        end.store(true, Relaxed);
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(context.is_empty());
    });
    assert!(logits(&mut context) == wanted);
}
