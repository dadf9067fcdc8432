//! Requests of random lengths, priorities and arrivals, some of them cancelled, on servers of random sizes with few pages,
//! whose sequences are saved, removed and restored between steps: each has the tokens that it has alone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;

/// A request, the step before which it comes, and the one before which it is cancelled.
#[derive(Clone, Debug)]
struct Planned {
    asked: Asked,
    arrives: usize,
    cancelled: Option<usize>,
}

fn planned() -> impl Strategy<Value = Planned> {
    let lengths = (prop_oneof![1..20usize, 1..290usize], prop_oneof![0..12usize, 0..200usize]);
    let cancelled = prop_oneof![3 => Just(None), 1 => (0..60usize).prop_map(Some)];
    // Few beginnings, which many share.
    (lengths, (any::<u64>(), 0..3u64), -1..2i32, 0..40usize, cancelled, any::<bool>()).prop_map(
        |((n_prompt, max_tokens), (seed, text), priority, arrives, after, stops)| {
            let prompt = Asked::new(n_prompt, 0, text).prompt;
            let mut asked = Asked { priority, prompt, ..Asked::new(1, max_tokens, seed % 1000) };
            if stops {
                asked.stops = vec!["e", "abc"];
                asked.sampling = asked.sampling.with_repetition_penalty(1.3);
            }
            Planned { asked, arrives, cancelled: after.map(|after| arrives + after) }
        },
    )
}

#[derive(Clone, Debug)]
struct Size {
    n_sequences: usize,
    n_batch: usize,
    n_positions: usize,
    threads: usize,
    n_events: usize,
}

fn size() -> impl Strategy<Value = Size> {
    let n_positions = prop_oneof![Just(N_CTX), N_CTX..2 * N_CTX, Just(0)];
    (1..6usize, 1..80usize, n_positions, 1..4usize, prop_oneof![Just(0usize), Just(1000usize)]).prop_map(
        |(n_sequences, n_batch, n_positions, threads, n_events)| {
            let n_positions =
                if n_positions == 0 { 0 } else { n_positions.min(N_CTX * n_sequences).max(N_CTX) };
            Size { n_sequences, n_batch, n_positions, threads, n_events }
        },
    )
}

/// A step before which the sequence of the request in this place is saved, removed and restored.
type Restored = (usize, usize);

/// Runs a schedule; returns how often a request was preempted, how many were cancelled, and how often one was restored.
fn check(name: &str, size: &Size, schedule: &[Planned], restores: &[Restored]) -> [u64; 3] {
    let params = ServerParams::default()
        .with_n_ctx(N_CTX)
        .with_n_sequences(size.n_sequences)
        .with_n_batch(size.n_batch)
        .with_n_positions(size.n_positions)
        .with_n_events(size.n_events)
        .with_threads(size.threads);
    let server = server(name, &params);
    let (mut heard, mut ids, mut restored) = (Heard::default(), BTreeMap::new(), 0);
    for step in 0.. {
        for (_, place) in restores.iter().filter(|(before, _)| *before == step) {
            restored += u64::from(server.save_and_restore(*place).unwrap());
        }
        for (i, planned) in schedule.iter().enumerate() {
            if planned.arrives == step {
                ids.insert(i, planned.asked.submit(&server).unwrap());
            }
            if planned.cancelled == Some(step) {
                server.cancel(ids[&i]);
            }
        }
        let progress = server.step().unwrap();
        assert!(
            progress.n_tokens <= size.n_batch.max(size.n_sequences) && progress.n_running <= size.n_sequences
        );
        // Not after each step, unless that is needed.
        if step % 3 == 0 || progress.must_poll {
            heard.poll(&server);
        }
        if progress.is_idle() && ids.len() == schedule.len() {
            break;
        }
        assert!(step < 20_000, "the server doesn't get on: {progress:?}");
    }
    heard.poll(&server);
    for (i, id) in &ids {
        let (given, alone) = (&heard.0[id], schedule[*i].asked.alone(server.model()));
        match &given.end {
            Some(Err(error)) => {
                assert_eq!(error, "cancelled");
                assert!(schedule[*i].cancelled.is_some());
                assert!(alone.tokens.starts_with(&given.tokens) && alone.text.starts_with(&given.text));
            }
            _ => assert_eq!(*given, alone, "{id}"),
        }
    }
    let stats = server.stats();
    assert_eq!((stats.n_running, stats.n_waiting, stats.n_events), (0, 0, 0));
    assert_eq!(stats.finished + stats.failed, schedule.len() as u64);
    [stats.preempted, stats.cancelled, restored]
}

#[test]
fn any_schedule_gives_each_request_the_tokens_that_it_has_alone() {
    static COUNTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let names = prop::sample::select(vec!["untied-mixed", "hybrid-quant", "qwen3-tied-quant", "short-conv"]);
    proptest!(ProptestConfig::with_cases(40), |(
        name in names, size in size(), schedule in prop::collection::vec(planned(), 1..10),
        restores in prop::collection::vec((0..100usize, 0..4usize), 0..12),
    )| {
        let counts = check(name, &size, &schedule, &restores);
        for (sum, count) in COUNTS.iter().zip(counts) {
            sum.fetch_add(count, Relaxed);
        }
    });
    let [preempted, cancelled, restored] = [0, 1, 2].map(|i| COUNTS[i].load(Relaxed));
    assert!(
        preempted > 10 && cancelled > 10 && restored > 30,
        "{preempted} preempted, {cancelled} cancelled and {restored} restored show little"
    );
}

#[test]
fn requests_are_cancelled_from_another_thread_at_any_moment() {
    let server = server("untied-mixed", &params().with_n_positions(N_CTX));
    let asked: Vec<_> = (0..24).map(|i| Asked::new(10 + 11 * i, 10 + 3 * i, i as u64)).collect();
    let ids: Vec<_> = asked.iter().map(|asked| asked.submit(&server).unwrap()).collect();
    let mut heard = Heard::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (i, &id) in ids.iter().enumerate().filter(|(i, _)| i % 3 == 0) {
                std::thread::sleep(std::time::Duration::from_micros(300 * (i as u64 % 5)));
                server.cancel(id);
                // Submitted meanwhile.
                asked[i].submit(&server).unwrap();
            }
        });
        while server.stats().submitted < 32 || !server.step().unwrap().is_idle() {
            heard.poll(&server);
        }
    });
    heard.poll(&server);
    assert_eq!(heard.0.len(), 32);
    for (i, (id, given)) in heard.0.iter().enumerate() {
        let of = if i < 24 { i } else { 3 * (i - 24) };
        let alone = asked[of].alone(server.model());
        match given.end.as_ref().unwrap() {
            Ok(_) => assert_eq!(*given, alone, "{id}"),
            Err(error) => {
                assert!(error == "cancelled" && i < 24 && i % 3 == 0, "{id}: {error}");
                assert!(alone.tokens.starts_with(&given.tokens));
            }
        }
    }
}
