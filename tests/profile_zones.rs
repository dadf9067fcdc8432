//! The profile's wider reach: zones that a host names, workers that share a call, owners, peaks, timelines.
//! Known work must read back as what it was. The switch is the process's, so the tests take turns.

use std::hint::black_box;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use smallmind::Error;
use smallmind::kernels::KernelSet;
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right};
use smallmind::ops::gemm::Workspace;
use smallmind::profile::{self, MethodStats, Owner, Snapshot, Tally, Zone, trace};
use smallmind::report;
use smallmind::threads::Team;

#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: profile::CountingAllocator = profile::CountingAllocator;

/// Recording on, nothing recorded yet, until dropped.
struct Recording(#[allow(dead_code)] MutexGuard<'static, ()>);

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record() -> Recording {
    let turn = turn();
    profile::set_enabled(true);
    profile::reset();
    Recording(turn)
}

impl Drop for Recording {
    fn drop(&mut self) {
        profile::set_enabled(false);
    }
}

const MS: u64 = 1_000_000;

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn spin_ms(ms: u64) {
    spin(Duration::from_millis(ms));
}

fn named<'a>(snapshot: &'a Snapshot, name: &str) -> &'a MethodStats {
    let mut found = snapshot.nodes.iter().filter(|node| node.name == name);
    let node = found.next().unwrap_or_else(|| panic!("{name} is missing"));
    assert!(found.next().is_none(), "{name} is there twice");
    node
}

fn parent_name(snapshot: &Snapshot, name: &str) -> Option<&'static str> {
    named(snapshot, name).parent.map(|index| snapshot.nodes[index].name)
}

#[test]
fn a_hosts_zones_stand_in_the_same_tree() {
    let _recording = record();
    // A name is kept when it is first met, which allocates.
    for name in ["request", "prepare", "callback"] {
        profile::zone(name).unwrap();
    }
    for _ in 0..3 {
        profile::zone_begin("request").unwrap();
        profile::zone_begin("prepare").unwrap();
        spin_ms(2);
        profile::zone_work(100, 10);
        assert!(profile::zone_end());
        {
            let _decode = profile::scope(Zone::Decode);
            profile::zone_begin("callback").unwrap();
            black_box(vec![0u8; 500]);
            assert!(profile::zone_end());
        }
        assert!(profile::zone_end());
    }
    let snapshot = profile::snapshot();
    assert_eq!((snapshot.dropped, snapshot.unbalanced), (0, 0));
    assert_eq!(parent_name(&snapshot, "prepare"), Some("request"));
    assert_eq!(parent_name(&snapshot, "decode"), Some("request"));
    assert_eq!(parent_name(&snapshot, "callback"), Some("decode"));
    let prepare = named(&snapshot, "prepare");
    assert_eq!((prepare.calls, prepare.flops, prepare.bytes), (3, 300, 30));
    assert!(prepare.min_ns >= 2 * MS * 999 / 1000);
    let request = named(&snapshot, "request");
    assert_eq!((request.alloc_bytes, request.self_alloc_bytes, request.flops), (1500, 0, 300));
    assert!(request.total_ns >= prepare.total_ns);
    let own: u64 = snapshot.nodes.iter().map(|node| node.self_ns).sum();
    assert!(own.abs_diff(request.total_ns) <= snapshot.nodes.len() as u64);
}

#[test]
fn what_a_host_leaves_unbalanced_is_counted_and_harms_nothing() {
    let _recording = record();
    assert!(!profile::zone_end(), "none is open");
    {
        let _decode = profile::scope(Zone::Decode);
        profile::zone_begin("left open inside").unwrap();
    }
    assert!(profile::zone_end(), "its parent has ended, but the host is only late");
    let thread = std::thread::spawn(|| {
        profile::zone_begin("left open by a thread").unwrap();
        profile::zone_begin("closed").unwrap();
        assert!(profile::zone_end());
    });
    thread.join().unwrap();
    profile::zone_begin("fine").unwrap();
    assert!(profile::zone_end());
    let snapshot = profile::snapshot();
    assert_eq!((snapshot.unbalanced, snapshot.dropped), (3, 0));
    for (name, calls) in [("decode", 1), ("closed", 1), ("fine", 1), ("left open by a thread", 0)] {
        assert_eq!(named(&snapshot, name).calls, calls, "{name}");
    }
    assert!(snapshot.nodes.iter().all(|node| node.name != "left open inside"));
}

#[test]
fn zones_nested_too_deep_are_counted() {
    let _recording = record();
    for _ in 0..70 {
        profile::zone_begin("deep").unwrap();
    }
    for _ in 0..70 {
        assert!(profile::zone_end());
    }
    profile::zone_begin("after").unwrap();
    assert!(profile::zone_end());
    let snapshot = profile::snapshot();
    assert_eq!((snapshot.dropped, snapshot.unbalanced), (6, 0));
    assert_eq!(snapshot.nodes.iter().filter(|node| node.name == "deep").count(), 64);
    assert_eq!(named(&snapshot, "after").calls, 1);
}

#[test]
fn bad_names_are_refused_and_names_too_many_are_counted() {
    // In a process of its own: names are never given back.
    if std::env::var_os("SMALLMIND_TEST_CHILD").is_none() {
        return run_child("bad_names_are_refused_and_names_too_many_are_counted", &[]);
    }
    let _recording = record();
    for bad in ["", "a\nb", &"x".repeat(121)] {
        assert!(matches!(profile::zone_begin(bad), Err(Error::InvalidArgument(_))), "{bad:?}");
        assert!(profile::zone_end(), "an end belongs to it all the same");
    }
    assert_eq!(profile::snapshot().dropped, 3);
    profile::reset();
    for i in 0..profile::MAX_NAMED + 5 {
        profile::zone_begin(&format!("zone {i}")).unwrap();
        assert!(profile::zone_end());
    }
    assert!(matches!(profile::zone("one more"), Err(Error::Unsupported(_))));
    let snapshot = profile::snapshot();
    assert_eq!((snapshot.dropped, snapshot.unbalanced), (5, 0));
    assert_eq!(snapshot.nodes.len(), profile::MAX_NAMED);
    assert!(snapshot.nodes.iter().all(|node| node.calls == 1));
}

/// Runs one test of this file in a process of its own.
fn run_child(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env("SMALLMIND_TEST_CHILD", "1").env_remove(profile::VARIABLE);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_environment_switches_it_on() {
    const VALUE: &str = "SMALLMIND_TEST_EXPECTED";
    if std::env::var_os("SMALLMIND_TEST_CHILD").is_none() {
        for (value, on) in [("1", "on"), ("on", "on"), ("0", "off"), ("off", "off"), ("", "off")] {
            run_child("the_environment_switches_it_on", &[(profile::VARIABLE, value), (VALUE, on)]);
        }
        return run_child("the_environment_switches_it_on", &[(VALUE, "off")]);
    }
    let on = std::env::var(VALUE).unwrap() == "on";
    drop(profile::scope(Zone::Sample));
    assert_eq!(profile::enabled(), on);
    assert_eq!(profile::snapshot().nodes.len(), usize::from(on));
    profile::set_enabled(!on);
    assert_eq!(profile::enabled(), !on, "what the program says goes");
}

/// Runs `work` in a scope of this zone, and gives the time by another clock: just inside of the scope, just outside.
fn bracketed(scope: impl FnOnce() -> profile::Scope, work: impl FnOnce()) -> [u64; 2] {
    let outer = Instant::now();
    let scope = scope();
    let inner = Instant::now();
    work();
    let inner = inner.elapsed();
    drop(scope);
    [inner, outer.elapsed()].map(|time| time.as_nanos() as u64)
}

/// Whether a time lies between both clocks', but for 0.1 % that their rates may differ.
fn within(ns: u64, [inner, outer]: [u64; 2]) -> bool {
    ns + ns / 1000 + 2 >= inner && ns <= outer + outer / 1000 + 2
}

#[test]
fn a_call_that_workers_share_is_one_call() {
    let _recording = record();
    let team = Team::new(3).unwrap();
    let worked = Mutex::new([[0; 2]; 3]);
    let waited = Mutex::new([[0; 2]; 3]);
    let shared = Mutex::new([0; 2]);
    let _decode = profile::scope(Zone::Decode);
    team.run(|worker| {
        let index = worker.index();
        let clock = |zone| if index == 0 { profile::scope(zone) } else { profile::assist(zone) };
        let whole = bracketed(
            || clock(Zone::Linear).work(1000, 0),
            || {
                worked.lock().unwrap()[index] = bracketed(
                    || clock(Zone::Quantize),
                    || {
                        spin_ms(2 * (index as u64 + 1));
                        black_box(vec![0u8; 1000]);
                    },
                );
                waited.lock().unwrap()[index] =
                    bracketed(|| clock(Zone::Barrier), || worker.barrier().unwrap());
            },
        );
        if index == 0 {
            *shared.lock().unwrap() = whole;
        }
    })
    .unwrap();
    drop(_decode);
    let snapshot = profile::snapshot();
    let sum = |times: &Mutex<[[u64; 2]; 3]>| {
        times.lock().unwrap().iter().fold([0; 2], |sum, time| [sum[0] + time[0], sum[1] + time[1]])
    };
    let op = named(&snapshot, "linear");
    assert_eq!((op.calls, op.threads, op.flops, op.alloc_bytes), (1, 3, 3000, 3000));
    assert!(within(op.total_ns, *shared.lock().unwrap()), "the leader's clock: {op:?}");
    let work = named(&snapshot, "quantize");
    assert!(
        within(work.total_ns, worked.lock().unwrap()[0]) && within(work.cpu_ns, sum(&worked)),
        "{work:?}"
    );
    assert!(work.cpu_ns >= 12 * MS * 999 / 1000, "2, 4 and 6 ms: {work:?}");
    let wait = named(&snapshot, "barrier");
    assert_eq!((wait.calls, wait.cpu_ns, wait.idle_ns), (1, 0, op.idle_ns));
    assert!(
        within(wait.idle_ns, sum(&waited)) && within(wait.total_ns, waited.lock().unwrap()[0]),
        "{wait:?}"
    );
    assert_eq!((op.lanes.len(), work.lanes.len()), (3, 3));
    assert!(op.cpu_ns >= work.cpu_ns);
    let decode = named(&snapshot, "decode");
    assert_eq!((decode.calls, decode.threads), (1, 1));
    assert!(decode.cpu_ns >= op.cpu_ns && decode.idle_ns == op.idle_ns);
    let own: u64 = snapshot.nodes.iter().map(|node| node.self_ns).sum();
    assert!(own.abs_diff(decode.total_ns) <= 4, "self times are the leader's: {own} {}", decode.total_ns);
}

#[test]
fn pieces_are_one_call() {
    let _recording = record();
    let mut pieces = [0; 2];
    {
        let _op = profile::scope(Zone::Linear).work(1, 1);
        let tally = Tally::of_call(Zone::Rope);
        let _unused = Tally::of_call(Zone::KvStore);
        for _ in 0..5 {
            let outer = Instant::now();
            let inner = tally.piece(10, 20, || {
                let inner = Instant::now();
                spin_ms(1);
                inner.elapsed().as_nanos() as u64
            });
            pieces = [pieces[0] + inner, pieces[1] + outer.elapsed().as_nanos() as u64];
        }
        let help = Tally::of_assist(Zone::Rope);
        help.piece(1, 2, || spin_ms(1));
    }
    let snapshot = profile::snapshot();
    let (op, rope) = (named(&snapshot, "linear"), named(&snapshot, "rope"));
    assert_eq!(snapshot.nodes.len(), 2, "what had no pieces is not there");
    assert_eq!((rope.calls, rope.flops, rope.bytes, rope.depth), (1, 51, 102, 1));
    assert!(within(rope.total_ns, pieces) && rope.min_ns == rope.max_ns, "{rope:?} {pieces:?}");
    assert!(rope.cpu_ns >= rope.total_ns + MS * 999 / 1000);
    // What the op's thread gave to others' calls is neither its own time.
    let own = op.total_ns - rope.cpu_ns;
    assert!(op.self_ns.abs_diff(own) <= 2, "{op:?} {rope:?}");
}

#[test]
fn help_without_a_leader_is_not_lost() {
    let _recording = record();
    {
        let _help = profile::assist(Zone::Rope).work(7, 9);
        spin_ms(1);
    }
    let snapshot = profile::snapshot();
    let rope = named(&snapshot, "rope");
    assert_eq!((rope.calls, rope.total_ns, rope.flops, rope.min_ns), (0, 0, 7, 0));
    assert!(rope.cpu_ns >= MS * 999 / 1000);
    assert_eq!(snapshot.zone(Zone::Rope).unwrap().cpu_ns, rope.cpu_ns);
}

#[test]
fn owners_have_trees_of_their_own_and_the_common_one_has_both() {
    let _recording = record();
    let (first, second) = (Owner::new(), Owner::new());
    let team = Team::new(2).unwrap();
    for (owner, times) in [(&first, 2), (&second, 3)] {
        for _ in 0..times {
            profile::zone_begin("around").unwrap();
            {
                let _owned = owner.enter();
                let _again = owner.enter();
                let _decode = profile::scope(Zone::Decode);
                team.run(|_| drop(profile::scope(Zone::Linear).work(5, 0))).unwrap();
            }
            assert!(profile::zone_end());
        }
    }
    let common = profile::snapshot();
    let shape: Vec<_> = common.nodes.iter().map(|node| (node.name, node.calls, node.depth)).collect();
    assert_eq!(shape, [("around", 5, 0), ("decode", 5, 1), ("linear", 10, 2)]);
    for (owner, calls) in [(&first, 2), (&second, 3)] {
        let own = profile::snapshot_of(owner).unwrap();
        let shape: Vec<_> = own.nodes.iter().map(|node| (node.name, node.calls, node.depth)).collect();
        assert_eq!(shape, [("decode", calls, 0), ("linear", 2 * calls, 1)]);
        assert_eq!(own.nodes[0].flops, 10 * calls);
    }
    assert!(profile::snapshot_of(&Owner::new()).unwrap().nodes.is_empty());
}

#[test]
fn owners_too_many_have_no_tree_of_their_own() {
    let _recording = record();
    let many: Vec<Owner> = (0..40).map(|_| Owner::new()).collect();
    let last = &many[39];
    {
        let _owned = last.enter();
        drop(profile::scope(Zone::Decode));
    }
    assert!(matches!(profile::snapshot_of(last), Err(Error::Unsupported(_))));
    assert_eq!(named(&profile::snapshot(), "decode").calls, 1);
    drop(many);
    assert!(profile::snapshot_of(&Owner::new()).is_err(), "their figures are there still");
    profile::reset();
    assert!(profile::snapshot_of(&Owner::new()).is_ok());
}

#[test]
fn peaks_are_what_was_held_at_once() {
    let _recording = record();
    {
        let _outer = profile::scope(Zone::Load);
        let kept = vec![0u8; 10_000];
        for _ in 0..3 {
            let _inner = profile::scope(Zone::LoadRead);
            let first = vec![0u8; 4_000];
            drop(black_box(first));
            black_box(vec![0u8; 6_000]);
        }
        drop(black_box(kept));
        black_box(vec![0u8; 100]);
    }
    let snapshot = profile::snapshot();
    assert_eq!(named(&snapshot, "load.read").peak_bytes, 6_000);
    assert_eq!(named(&snapshot, "load").peak_bytes, 16_000);
    assert_eq!(named(&snapshot, "load").alloc_bytes, 10_000 + 3 * 10_000 + 100);
}

#[test]
fn a_timeline_has_each_scope_of_its_stretch() {
    let _recording = record();
    drop(profile::scope(Zone::Load));
    let start = Instant::now();
    trace::start(16).unwrap();
    assert!(trace::start(16).is_err(), "one at a time");
    let team = Team::new(2).unwrap();
    {
        let _decode = profile::scope(Zone::Decode);
        team.run(|worker| {
            let _op = profile::scope(Zone::Linear);
            spin_ms(2);
            worker.barrier().unwrap();
        })
        .unwrap();
    }
    let outside = start.elapsed().as_nanos() as u64;
    let seen = trace::stop();
    drop(profile::scope(Zone::Sample));
    assert_eq!(trace::last().events.len(), seen.events.len());
    assert_eq!(seen.dropped, 0);
    let shape: Vec<_> = seen.events.iter().map(|event| (event.zone, event.depth)).collect();
    assert_eq!(shape[0], (Zone::Decode, 0));
    // The other worker's stack begins with its op.
    let depths: Vec<_> = shape[1..].iter().map(|&(zone, depth)| (zone == Zone::Linear, depth)).collect();
    assert!(depths == [(true, 1), (true, 0)] || depths == [(true, 0), (true, 1)], "{shape:?}");
    for event in &seen.events {
        assert!(event.duration_ns >= 2 * MS * 999 / 1000, "{event:?}");
        assert!(event.start_ns + event.duration_ns <= outside * 1001 / 1000, "{event:?} {outside}");
    }
    assert_ne!(seen.events[1].thread, seen.events[2].thread);
    trace::start(4).unwrap();
    (0..20).for_each(|_| drop(profile::scope(Zone::Sample)));
    let full = trace::stop();
    assert_eq!(full.events.len() as u64 + full.dropped, 20);
    assert!(trace::start(0).is_err() && trace::start(trace::MAX_EVENTS + 1).is_err());
}

#[test]
fn a_product_of_known_work_reads_back() {
    let _recording = record();
    let (m, n, k) = (96, 160, 224);
    let (a, b) = (vec![1.0f32; m * k], vec![0.5f32; k * n]);
    let mut c = vec![0.0f32; m * n];
    let row = KernelSet::default_set().unwrap().matmul().f32;
    let gemm = Gemm {
        m,
        n,
        k,
        alpha: 1.0,
        a: Matrix { data: &a, ld: k, transposed: false },
        b: Right::Plain(Matrix { data: &b, ld: n, transposed: false }),
        beta: 0.0,
        epilogue: Epilogue::default(),
    };
    let mut workspace = Workspace::default();
    let mut seconds = 0.0;
    for _ in 0..20 {
        let start = Instant::now();
        profile::zone_begin("a product").unwrap();
        workspace.multiply(None, row, &gemm, &mut c, n).unwrap();
        profile::zone_work(2 * (m * n * k) as u64, 4 * (m * k + k * n + m * n) as u64);
        assert!(profile::zone_end());
        seconds += start.elapsed().as_secs_f64();
    }
    assert_eq!(c[0], 112.0);
    let snapshot = profile::snapshot();
    let product = named(&snapshot, "a product");
    assert_eq!(product.flops, 20 * 2 * 96 * 160 * 224);
    assert_eq!(product.bytes, 20 * 4 * (96 * 224 + 224 * 160 + 96 * 160));
    let outside = product.flops as f64 / seconds / 1e9;
    // What is around the zone is in the outer clock: two clock reads of some tens of µs.
    assert!(product.gflops() >= outside * 0.999, "{} {outside}", product.gflops());
    assert!(product.gflops() <= outside * 1.2 || seconds < 1e-3, "{} {outside}", product.gflops());
}

#[test]
fn a_recorded_run_is_whole() {
    let _turn = turn();
    let ((), run) = report::record(|| {
        for _ in 0..4 {
            profile::zone_begin("step").unwrap();
            {
                let _op = profile::scope(Zone::Linear).work(50, 60);
                black_box(vec![0u8; 3 << 20]);
                spin_ms(3);
            }
            spin_ms(1);
            assert!(profile::zone_end());
        }
    });
    assert!(!profile::enabled());
    assert_eq!((run.dropped, run.unbalanced), (0, 0));
    let own: u64 = run.tree.iter().map(|method| method.self_ns).sum();
    let off = run.wall_ns.abs_diff(own) as f64 / run.wall_ns as f64;
    assert!(own <= run.wall_ns && off < 0.02, "self {own} of {} ns", run.wall_ns);
    assert!(run.alloc_bytes >= 12 << 20 && run.alloc_bytes < 13 << 20, "{}", run.alloc_bytes);
    assert!(run.peak_bytes >= 3 << 20);
    let op = run.methods.iter().find(|method| method.name == "linear").unwrap();
    assert_eq!((op.calls, op.flops, op.bytes, op.peak_bytes), (4, 200, 240, 3 << 20));
    let ((), traced) =
        report::record_traced(100, || drop(profile::scope(Zone::Decode))).expect("no trace is under way");
    assert_eq!((traced.timeline.len(), traced.timeline[0].name.as_str()), (1, "decode"));
}
