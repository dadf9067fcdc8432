//! The team from outside: every worker runs, meets the others at barriers, and no panic, early return or
//! crowd of callers leaves it unusable or hanging.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use smallmind::Error;
use smallmind::threads::{MAX_WORKERS, Poisoned, Team, WorkCounter};

/// Sums with everyone's part visible after the barrier: what a usable team gets right.
fn check_usable(team: &Team) {
    let parts: Vec<AtomicUsize> = (0..team.count()).map(|_| AtomicUsize::new(0)).collect();
    let expected = 1000 * 999 / 2;
    team.run(|worker| {
        let part = worker.share(1000, 7).sum();
        parts[worker.index()].store(part, SeqCst);
        worker.barrier().unwrap();
        assert_eq!(parts.iter().map(|p| p.load(SeqCst)).sum::<usize>(), expected);
    })
    .unwrap();
}

#[test]
fn every_worker_runs_once() {
    for n in [1, 2, 3, 7] {
        let team = Team::new(n).unwrap();
        assert_eq!(team.count(), n);
        for _ in 0..50 {
            let seen = Mutex::new(Vec::new());
            team.run(|worker| {
                assert_eq!(worker.count(), n);
                seen.lock().unwrap().push(worker.index());
            })
            .unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_caller_is_worker_0() {
    let caller = std::thread::current().id();
    let team = Team::new(3).unwrap();
    team.run(|worker| assert_eq!(std::thread::current().id() == caller, worker.index() == 0)).unwrap();
}

#[test]
fn sizes_outside_the_range_are_an_error() {
    for n in [0, MAX_WORKERS + 1, usize::MAX] {
        assert!(matches!(Team::new(n), Err(Error::InvalidArgument(_))), "{n}");
    }
}

#[test]
fn nobody_passes_a_barrier_before_all_have_come() {
    const PHASES: usize = 2000;
    for n in [2, 3, 5] {
        let team = Team::new(n).unwrap();
        let arrivals: Vec<AtomicUsize> = (0..PHASES).map(|_| AtomicUsize::new(0)).collect();
        team.run(|worker| {
            for arrived in &arrivals {
                arrived.fetch_add(1, SeqCst);
                worker.barrier().unwrap();
                assert_eq!(arrived.load(SeqCst), n);
            }
        })
        .unwrap();
    }
}

#[test]
fn plain_writes_are_seen_after_a_barrier() {
    struct Cells(Vec<std::cell::UnsafeCell<u64>>);
    // SAFETY: each cell has one writer, and readers are a barrier away from it.
    unsafe impl Sync for Cells {}
    impl Cells {
        fn at(&self, i: usize) -> *mut u64 {
            self.0[i].get()
        }
    }
    let n = 3;
    let team = Team::new(n).unwrap();
    let cells = Cells((0..n).map(|_| 0.into()).collect());
    team.run(|worker| {
        for round in 1..=500 {
            // SAFETY: this worker's own cell; the others read it only after the barrier.
            unsafe { *cells.at(worker.index()) = round };
            worker.barrier().unwrap();
            for i in 0..n {
                // SAFETY: nobody writes between these two barriers.
                assert_eq!(unsafe { *cells.at(i) }, round);
            }
            worker.barrier().unwrap();
        }
    })
    .unwrap();
}

#[test]
fn a_panic_in_any_worker_at_any_barrier_is_an_error_and_no_more() {
    const BARRIERS: usize = 4;
    for n in 1..=4 {
        let team = Team::new(n).unwrap();
        for (who, at) in (0..n).flat_map(|who| (0..=BARRIERS).map(move |at| (who, at))) {
            let poisoned = AtomicUsize::new(0);
            let result = team.run(|worker| {
                for barrier in 0..=BARRIERS {
                    if (worker.index(), barrier) == (who, at) {
                        panic!("worker {who} at {at}");
                    }
                    if barrier < BARRIERS && worker.barrier() == Err(Poisoned) {
                        assert_eq!(barrier, at, "the barriers before the panic are whole");
                        poisoned.fetch_add(1, SeqCst);
                        return;
                    }
                }
            });
            let Err(Error::Internal(text)) = result else { panic!("{result:?}") };
            assert!(text.contains(&format!("worker {who} at {at}")), "{text}");
            assert_eq!(poisoned.load(SeqCst), if at < BARRIERS { n - 1 } else { 0 });
            check_usable(&team);
        }
    }
}

#[test]
fn all_panicking_at_once_is_one_error() {
    let team = Team::new(4).unwrap();
    for _ in 0..20 {
        assert!(matches!(team.run(|_| panic!("all")), Err(Error::Internal(text)) if text.contains("all")));
    }
    check_usable(&team);
}

#[test]
fn payloads_of_any_kind_are_survived() {
    struct Grenade;
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("in a payload's drop");
        }
    }
    let team = Team::new(2).unwrap();
    for _ in 0..3 {
        let thrown = team.run(|_| std::panic::panic_any(7));
        assert!(matches!(thrown, Err(Error::Internal(_))));
        let thrown = team.run(|_| std::panic::panic_any(Grenade));
        assert!(matches!(thrown, Err(Error::Internal(_))));
    }
    check_usable(&team);
}

#[test]
fn leaving_before_a_barrier_strands_nobody() {
    for (n, leaver) in [(2, 0), (2, 1), (4, 2)] {
        let team = Team::new(n).unwrap();
        let result = team.run(|worker| {
            worker.barrier().unwrap();
            if worker.index() != leaver {
                assert_eq!(worker.barrier(), Err(Poisoned));
            }
        });
        assert!(matches!(result, Err(Error::Internal(text)) if text.contains("barrier")));
        check_usable(&team);
    }
}

#[test]
fn a_cancelled_region_ends_as_such() {
    for n in [1, 2, 4] {
        let team = Team::new(n).unwrap();
        for who in 0..n {
            let rounds = AtomicUsize::new(0);
            let result = team.run(|worker| {
                for round in 0.. {
                    if worker.index() == who && round == 10 {
                        worker.cancel();
                    }
                    if worker.barrier().is_err() {
                        assert!(worker.is_poisoned());
                        return;
                    }
                    rounds.fetch_add(1, SeqCst);
                }
            });
            assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
            assert_eq!(rounds.load(SeqCst), 10 * n);
            check_usable(&team);
        }
    }
}

#[test]
fn a_region_inside_a_region_is_busy_not_stuck() {
    for n in [1, 3] {
        let (team, other) = (Team::new(n).unwrap(), Team::new(2).unwrap());
        let refused = AtomicUsize::new(0);
        team.run(|_| {
            for team in [&team, &other] {
                assert!(matches!(team.run(|_| {}), Err(Error::Busy(_))));
                refused.fetch_add(1, SeqCst);
            }
        })
        .unwrap();
        assert_eq!(refused.load(SeqCst), 2 * n);
        check_usable(&team);
        check_usable(&other);
    }
}

#[test]
fn a_team_of_one_runs_within_the_region_of_several() {
    let (team, ones) = (Team::new(3).unwrap(), [0; 3].map(|_| Team::new(1).unwrap()));
    let ran = AtomicUsize::new(0);
    team.run(|worker| {
        for _ in 0..2 {
            ones[worker.index()]
                .run(|one| {
                    assert_eq!((one.index(), one.count()), (0, 1));
                    one.barrier().unwrap();
                    // Within it, nothing does.
                    for team in [&team, &ones[0], &ones[1]] {
                        assert!(matches!(team.run(|_| {}), Err(Error::Busy(_))));
                    }
                    ran.fetch_add(1, SeqCst);
                })
                .unwrap();
            assert!(matches!(team.run(|_| {}), Err(Error::Busy(_))));
        }
        let panics = ones[worker.index()].run(|_| panic!("planted"));
        assert!(matches!(panics, Err(Error::Internal(_))));
        worker.barrier().unwrap();
    })
    .unwrap();
    assert_eq!(ran.load(SeqCst), 6);
    check_usable(&team);
    ones.iter().for_each(check_usable);
}

#[test]
fn callers_from_several_threads_take_turns() {
    let team = Team::new(3).unwrap();
    let (inside, sum) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..200 {
                    team.run(|worker| {
                        assert!(inside.fetch_add(1, SeqCst) < 3, "two regions at once");
                        worker.barrier().unwrap();
                        sum.fetch_add(1, SeqCst);
                        worker.barrier().unwrap();
                        inside.fetch_sub(1, SeqCst);
                        worker.barrier().unwrap();
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!(sum.into_inner(), 3 * 200 * 3);
}

#[test]
fn regions_after_a_pause_wake_the_parked() {
    let team = Team::new(3).unwrap();
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        check_usable(&team);
    }
}

#[test]
fn teams_come_and_go() {
    for _ in 0..100 {
        check_usable(&Team::new(4).unwrap());
    }
    drop(Team::new(64).unwrap()); // never used
}

#[test]
fn a_counter_hands_every_piece_to_one_worker() {
    let team = Team::new(4).unwrap();
    let counters = [WorkCounter::new(), WorkCounter::new()];
    for (total, grain) in [(0, 1), (1, 8), (1000, 1), (1000, 7)] {
        let taken: Vec<AtomicUsize> = (0..total).map(|_| AtomicUsize::new(0)).collect();
        let rounds = 6;
        counters.iter().for_each(WorkCounter::reset);
        team.run(|worker| {
            for round in 0..rounds {
                if worker.index() == 0 {
                    counters[(round + 1) % 2].reset();
                }
                while let Some(piece) = counters[round % 2].take(total, grain) {
                    assert!(piece.start % grain == 0 && piece.len() <= grain);
                    taken[piece].iter().for_each(|t| _ = t.fetch_add(1, SeqCst));
                }
                worker.barrier().unwrap();
            }
        })
        .unwrap();
        assert!(taken.iter().all(|t| t.load(SeqCst) == rounds));
    }
}

#[test]
fn a_cancelled_region_is_waited_for() {
    let team = Team::new(3).unwrap();
    for who in 0..3 {
        let finished = AtomicUsize::new(0);
        let result = team.run(|worker| {
            if worker.index() == who {
                worker.cancel();
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            finished.fetch_add(1, SeqCst);
        });
        assert!(matches!(result, Err(Error::Cancelled)));
        assert_eq!(finished.load(SeqCst), 3, "run returns when all have, whatever happened");
    }
}
