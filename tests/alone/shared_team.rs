//! Contexts on one team: each gets the bits that it gets alone, none gets an error for the others' sake, and ten of
//! them have no more threads than one.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::common::tiny_model;
use crate::turn;
use smallmind::Error;
use smallmind::model::{LoadParams, Model};
use smallmind::profile::{self, Zone};
use smallmind::runtime::generate::{StopReason, generate};
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads::Team;

/// A Llama and a GPT.
const MODELS: [&str; 2] = ["untied-mixed", "gpt-untied"];

fn load(name: &str) -> Arc<Model> {
    let path = tiny_model(name);
    Model::open(&path, &LoadParams::default()).unwrap()
}

/// A context on a team; on one thread of its own without. Long prompts take several passes.
fn context(model: &Arc<Model>, team: Option<&Arc<Team>>) -> Context {
    let params =
        ContextParams::default().with_n_ctx(40).with_n_batch(8).with_threads(1).with_team(team.cloned());
    Context::new(model.clone(), &params).unwrap()
}

/// Logits after a prompt of three passes, and after each of some tokens that follow one by one.
fn logits(context: &mut Context, first: u32) -> Vec<u32> {
    let n_vocab = context.model().config().n_vocab as u32;
    let tokens: Vec<u32> = (0..30).map(|i| (first + i * 37) % n_vocab).collect();
    let mut all = Vec::new();
    context.clear();
    for tokens in std::iter::once(&tokens[..20]).chain(tokens[20..].chunks(1)) {
        context.decode(tokens, Logits::Last).unwrap();
        all.extend(context.logits().iter().map(|x| x.to_bits()));
    }
    all
}

#[test]
fn each_of_four_gets_the_bits_that_it_gets_alone() {
    let _turn = turn();
    let models = MODELS.map(load);
    let team = Arc::new(Team::new(2).unwrap());
    let contexts = [0, 1, 2, 3].map(|first| {
        let model = &models[first as usize % 2];
        (first, logits(&mut context(model, None), first), context(model, Some(&team)))
    });
    std::thread::scope(|s| {
        for (first, wanted, mut context) in contexts {
            s.spawn(move || {
                for round in 0..20 {
                    assert!(logits(&mut context, first) == wanted, "context {first}, round {round}");
                }
            });
        }
    });
}

/// Threads that teams have started and that are there still.
#[cfg(target_os = "linux")]
fn team_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    // A thread that has just ended has no name.
    names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("smallmind-"))).count()
}

/// Waits until there are so many: a thread that was joined is still listed for a moment.
#[cfg(target_os = "linux")]
fn wait_for_threads(count: usize) {
    let start = Instant::now();
    while team_threads() != count {
        assert!(start.elapsed() < Duration::from_secs(10), "{} threads, not {count}", team_threads());
        std::thread::yield_now();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ten_contexts_have_one_team_which_lives_as_long_as_they_do() {
    let _turn = turn();
    let model = load(MODELS[0]);
    let wanted = logits(&mut context(&model, None), 1);
    wait_for_threads(0);
    let team = Arc::new(Team::new(2).unwrap());
    let mut contexts: Vec<Context> = (0..10).map(|_| context(&model, Some(&team))).collect();
    drop(team);
    for context in &mut contexts {
        assert_eq!(context.threads(), 2, "the team's, not the parameters'");
        assert!(logits(context, 1) == wanted);
    }
    // A team's threads have taken part in a pass, so they have their names.
    wait_for_threads(1);
    contexts.truncate(1);
    assert!(logits(&mut contexts[0], 1) == wanted);
    drop(contexts);
    wait_for_threads(0);
}

#[test]
fn a_team_counts_and_threads_do_not() {
    let _turn = turn();
    let model = load(MODELS[0]);
    let team = Arc::new(Team::new(3).unwrap());
    let of = |threads, team| ContextParams::default().with_n_ctx(64).with_threads(threads).with_team(team);
    let own = Context::memory(&model, &of(3, None)).unwrap();
    assert_ne!(own, Context::memory(&model, &of(2, None)).unwrap(), "workers have memory of their own");
    for threads in [0, 2, usize::MAX] {
        let params = of(threads, Some(team.clone()));
        assert_eq!(Context::memory(&model, &params).unwrap(), own);
        assert_eq!(Context::new(model.clone(), &params).unwrap().threads(), 3);
    }
}

/// What a generation of eight tokens writes; `between` is called after each.
fn write(context: &mut Context, between: &mut dyn FnMut()) -> Result<Vec<u32>, Error> {
    let n_vocab = context.model().config().n_vocab;
    let mut sampler = Sampler::new(SamplerParams::greedy(), n_vocab).unwrap();
    let mut written = Vec::new();
    let summary = generate(context, &mut sampler, &[5, 6, 7], 8, &mut |token, _| {
        written.push(token);
        between();
        ControlFlow::Continue(())
    })?;
    assert_eq!((summary.reason, summary.n_generated), (StopReason::Length, 8));
    Ok(written)
}

#[test]
fn a_callback_may_run_another_context_of_the_team() {
    let _turn = turn();
    let [outer, inner] = MODELS.map(load);
    let written = write(&mut context(&outer, None), &mut || {}).unwrap();
    let wanted = logits(&mut context(&inner, None), 1);
    let team = Arc::new(Team::new(2).unwrap());
    let (mut outer, mut inner) = (context(&outer, Some(&team)), context(&inner, Some(&team)));
    let mut between = || assert!(logits(&mut inner, 1) == wanted);
    assert_eq!(write(&mut outer, &mut between).unwrap(), written);
}

#[test]
fn who_is_cancelled_while_waiting_ends_when_the_turn_comes() {
    const HELD: Duration = Duration::from_millis(50);
    let _turn = turn();
    let model = load(MODELS[0]);
    let wanted = logits(&mut context(&model, None), 1);
    let team = Arc::new(Team::new(2).unwrap());
    let mut context = context(&model, Some(&team));
    let canceller = context.canceller();
    let mut since = None;
    std::thread::scope(|s| {
        let mut between = || {
            // Somebody else has the team when the next pass wants it.
            let (holds, held) = channel();
            let team = &team;
            s.spawn(move || {
                team.run(|worker| {
                    if worker.index() == 0 {
                        holds.send(()).unwrap();
                        std::thread::sleep(HELD);
                    }
                })
                .unwrap();
            });
            held.recv().unwrap();
            since = Some(Instant::now());
            canceller.cancel();
        };
        assert!(matches!(write(&mut context, &mut between), Err(Error::Cancelled)));
    });
    assert!(since.expect("a token was written").elapsed() >= HELD / 2, "it did not wait for its turn");
    assert_eq!(context.len(), 3, "the prompt alone");
    assert!(logits(&mut context, 1) == wanted);
}

#[test]
fn a_profile_tells_apart_contexts_that_share_a_team() {
    let _turn = turn();
    let models = MODELS.map(load);
    let team = Arc::new(Team::new(2).unwrap());
    // Calls and work of prompts and single tokens, of so many rounds.
    let count = |context: &mut Context, rounds: u32| {
        (0..rounds).for_each(|first| drop(logits(context, first)));
        let own = profile::snapshot_of(context.owner()).unwrap();
        [Zone::Prefill, Zone::Decode].map(|zone| {
            let stats = own.zone(zone).unwrap();
            (stats.calls, stats.flops)
        })
    };
    profile::set_enabled(true);
    profile::reset();
    let rounds = [5, 3];
    let alone = [0, 1].map(|i| count(&mut context(&models[i], None), rounds[i]));
    let contexts = [0, 1].map(|i| (rounds[i], context(&models[i], Some(&team))));
    let shared = std::thread::scope(|s| {
        let threads = contexts.map(|(rounds, mut context)| s.spawn(move || count(&mut context, rounds)));
        threads.map(|thread| thread.join().unwrap())
    });
    profile::set_enabled(false);
    for (i, [prefill, decode]) in shared.into_iter().enumerate() {
        assert_eq!([prefill, decode], alone[i]);
        assert_eq!((prefill.0, decode.0), (rounds[i].into(), 10 * u64::from(rounds[i])));
        assert!(prefill.1 > 0 && decode.1 > 0);
    }
}
