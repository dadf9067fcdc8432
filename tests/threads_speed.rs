//! What a region and a barrier cost, and that two workers on one core don't collapse.
//! Alone in its process, so that no other test takes the cores; `--nocapture` shows the figures.

use std::hint::black_box;
use std::time::Instant;

use smallmind::threads::{Team, available};

/// Shortest of several runs in nanoseconds: what the machine does when nothing else wants it.
fn best_of(runs: usize, mut run: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos() as f64
        })
        .fold(f64::INFINITY, f64::min)
}

/// Work that a compiler can't shorten and that has no use for memory bandwidth.
fn work(steps: usize) {
    let mut x = 3u64;
    for _ in 0..steps {
        x = black_box(x.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// `ops` ops of `steps` in all, shared out, a barrier after each.
fn region(team: &Team, ops: usize, steps: usize) {
    team.run(|worker| {
        for _ in 0..ops {
            work(worker.share(steps, 1).len());
            worker.barrier().unwrap();
        }
    })
    .unwrap();
}

#[cfg(target_os = "linux")]
fn pin_to_one_core() {
    // SAFETY: a zeroed cpu_set_t is a valid empty one, and both calls stay within the set given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &set)).unwrap();
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(first, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

#[test]
fn costs() {
    let n = available().min(4);
    let team = Team::new(n).unwrap();
    let barriers = 2000;
    let barrier = best_of(20, || region(&team, barriers, 0)) / barriers as f64;
    let empty = best_of(200, || team.run(|_| {}).unwrap());
    let alone = Team::new(1).unwrap();
    let empty_alone = best_of(200, || (0..100).for_each(|_| alone.run(|_| {}).unwrap())) / 100.0;
    println!("{n} threads: barrier {barrier:.0} ns, empty region {empty:.0} ns; alone {empty_alone:.1} ns");
    // A team of one starts no thread and waits for nobody; a mutex and a few flags remain. The bound only
    // tells that from a system call.
    assert!(empty_alone < 500.0);
}

#[cfg(target_os = "linux")]
#[test]
fn two_workers_on_one_core_take_turns() {
    std::thread::spawn(|| {
        pin_to_one_core(); // the team's threads inherit it
        let (alone, crowded) = (Team::new(1).unwrap(), Team::new(2).unwrap());
        for steps in [5_000, 20_000, 100_000] {
            let one = best_of(10, || region(&alone, 100, steps));
            let two = best_of(10, || region(&crowded, 100, steps));
            let per_op = one / 100.0 / 1000.0;
            println!("ops of {per_op:.0} µs: two on one core take {:.2} times one", two / one);
            // Spinning out a time slice at every barrier would cost a hundred times.
            assert!(two / one < 3.0);
        }
    })
    .join()
    .unwrap();
}
