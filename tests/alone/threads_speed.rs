//! What a region and a barrier cost, and that two workers on one core don't collapse.
//! `--nocapture` shows figures.

use std::hint::black_box;
use std::time::Instant;

use smallmind::threads::{Team, available};

/// Shortest of several runs in nanoseconds: what the machine does when nothing else wants it.
fn best_of(runs: usize, clock: impl Fn() -> u64, mut run: impl FnMut()) -> f64 {
    let times = (0..runs).map(|_| {
        let start = clock();
        run();
        (clock() - start) as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn wall() -> impl Fn() -> u64 {
    let start = Instant::now();
    move || start.elapsed().as_nanos() as u64
}

/// Time that all threads of this process together spent on a core.
#[cfg(target_os = "linux")]
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct outlives the call, which fills it.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
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

/// Keeps the calling thread on the `n`-th of the cores it may use.
#[cfg(target_os = "linux")]
fn pin_to_core(n: usize) {
    // SAFETY: a zeroed cpu_set_t is a valid empty one, and both calls stay within the set given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        let core = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).nth(n).unwrap();
        libc::CPU_ZERO(&mut set);
        libc::CPU_SET(core, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0);
    }
}

/// In a thread that may be kept to a core, and never at the same time as another.
fn measure(work: impl FnOnce() + Send + 'static) {
    let _turn = crate::turn();
    std::thread::spawn(work).join().unwrap();
}

#[test]
fn costs() {
    measure(|| {
        let n = available().min(4);
        let team = Team::new(n).unwrap();
        #[cfg(target_os = "linux")]
        team.run(|worker| pin_to_core(worker.index())).unwrap();
        let barriers = 1000;
        let barrier = best_of(20, wall(), || region(&team, barriers, 0)) / barriers as f64;
        let empty = best_of(200, wall(), || team.run(|_| {}).unwrap());
        let alone = Team::new(1).unwrap();
        let empty_alone = best_of(200, wall(), || (0..100).for_each(|_| alone.run(|_| {}).unwrap())) / 100.0;
        println!(
            "{n} threads: barrier {barrier:.0} ns, empty region {empty:.0} ns; alone {empty_alone:.1} ns"
        );
        // A team of one starts no thread and waits for nobody; a mutex and a few flags remain. The bound only
        // tells that from a system call.
        assert!(empty_alone < 500.0);
    });
}

/// CPU time of handing over from one thread to another and back by the standard library's parking.
#[cfg(target_os = "linux")]
fn handover_and_back() -> f64 {
    const ROUNDS: usize = 500;
    let (to, from_here) = std::sync::mpsc::sync_channel(0);
    let (back, from_there) = std::sync::mpsc::sync_channel(0);
    let echo = std::thread::spawn(move || from_here.iter().for_each(|x: usize| back.send(x).unwrap()));
    let best = best_of(5, cpu_time, || {
        for round in 0..ROUNDS {
            to.send(round).unwrap();
            assert_eq!(from_there.recv(), Ok(round));
        }
    });
    drop(to);
    echo.join().unwrap();
    best / ROUNDS as f64
}

#[cfg(target_os = "linux")]
#[test]
fn two_workers_on_one_core_take_turns() {
    measure(|| {
        pin_to_core(0); // the team's threads inherit it
        let (alone, crowded) = (Team::new(1).unwrap(), Team::new(2).unwrap());
        let handover = handover_and_back();
        println!("a handover and back: {handover:.0} ns");
        for steps in [5_000, 20_000, 100_000] {
            const OPS: usize = 100;
            // On one core CPU time is wall time, but for other programs on it.
            let one = best_of(10, cpu_time, || region(&alone, OPS, steps)) / OPS as f64;
            let two = best_of(10, cpu_time, || region(&crowded, OPS, steps)) / OPS as f64;
            println!("ops of {one:.0} ns: two on one core take {:.2} times one", two / one);
            // An op needs one handover, each way by turns. The margin is for a busy machine, which slows one
            // measurement and spares another; spinning out a time slice would cost a thousand handovers.
            assert!(two < 2.0 * one + 10.0 * handover);
        }
    });
}
