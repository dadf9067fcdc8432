//! The profile's wider reach: zones that a host names, workers that share a call, owners, peaks, timelines.
//! Known work must read back as what it was.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use crate::common::process;
use crate::recording::{MS, record, spin_ms};
use smallmind::Error;
use smallmind::kernels::KernelSet;
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right};
use smallmind::ops::gemm::Workspace;
use smallmind::profile::{self, MethodStats, Owner, Snapshot, Tally, Zone, trace};
use smallmind::report;
use smallmind::threads::Team;

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
    if !process::is_child() {
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
    let mut child = process::child(&format!("profile_zones::{test}"));
    process::succeeds(child.env_remove(profile::VARIABLE).envs(variables.iter().copied()));
}

#[test]
fn the_environment_switches_it_on() {
    const VALUE: &str = "SMALLMIND_TEST_EXPECTED";
    if !process::is_child() {
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
    // The thread's first zone opens its counters.
    profile::zone_begin("another").unwrap();
    assert!(profile::zone_end());
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
    let _turn = crate::turn();
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

/// Pages of `bytes` of new memory, each touched once; none of them a huge one.
#[cfg(target_os = "linux")]
fn touch_new_pages(pages: usize) {
    let bytes = 4096 * pages;
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the system's choice; it is written inside of its length, and then
    // given back by nobody else.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE);
        (0..pages).for_each(|page| start.cast::<u8>().add(4096 * page).write_volatile(1));
        libc::munmap(start, bytes);
    }
}

/// Page faults of a zone that touches 300 new pages on this thread, of which a team of two is part; and of a library's
/// zone in it.
#[cfg(target_os = "linux")]
fn faults_of_zones() -> [Option<u64>; 4] {
    use profile::Counter::MinorFaults;
    let team = Team::new(2).unwrap();
    profile::reset();
    profile::zone_begin("touching").unwrap();
    touch_new_pages(300);
    {
        let _op = profile::scope(Zone::Linear);
        team.run(|worker| {
            if worker.index() == 1 {
                touch_new_pages(500)
            }
        })
        .unwrap();
        touch_new_pages(40);
    }
    assert!(profile::zone_end());
    touch_new_pages(7);
    let snapshot = profile::snapshot();
    let touching = named(&snapshot, "touching");
    let of = |counts: Option<profile::Counts>| counts.and_then(|counts| counts.get(MinorFaults));
    let workers = touching.thread_counts.iter().map(|part| of(Some(part.counts)).unwrap()).max();
    let all = snapshot.threads.iter().map(|thread| of(thread.counts).unwrap()).sum();
    [of(touching.counts), workers, of(named(&snapshot, "linear").counts), Some(all)]
}

#[cfg(target_os = "linux")]
fn assert_faults(counting: profile::Counting) {
    let [zone, worker, op, all] = faults_of_zones();
    // A few pages more are the program's own.
    let near = |found: Option<u64>, touched: u64| {
        assert!(found.is_some_and(|found| (touched..touched + 60).contains(&found)), "{found:?} {touched}");
    };
    near(zone, 840);
    near(worker, 500);
    // The thread has 7 pages more outside of the zone; the run has them all.
    near(all, 847);
    match counting {
        profile::Counting::Everything => near(op, 540),
        _ => assert_eq!(op, None, "a library's zone is counted only where that is asked for"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_zone_counts_the_pages_that_its_threads_touch() {
    let _recording = record();
    for counting in [profile::Counting::Zones, profile::Counting::Everything] {
        profile::set_counting(counting);
        assert_faults(counting);
    }
    profile::set_counting(profile::Counting::Zones);
    let table = profile::render_table(&profile::snapshot());
    assert!(table.contains("minor faults"), "{table}");
    profile::set_counting(profile::Counting::Off);
    assert_eq!(profile::counting(), profile::Counting::Off);
    profile::reset();
    profile::zone_begin("uncounted").unwrap();
    assert!(profile::zone_end());
    let snapshot = profile::snapshot();
    assert_eq!(named(&snapshot, "uncounted").counts, None);
    assert!(snapshot.threads.iter().all(|thread| thread.counts.is_none()));
    profile::set_counting(profile::Counting::Zones);
}

/// From now on the kernel refuses `perf_event_open` to this process, as a container's filter does.
#[cfg(target_os = "linux")]
fn refuse_perf_events() {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_perf_event_open as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its statements live through the call, which copies them.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program))
    };
    assert_eq!(refused, 0, "{}", std::io::Error::last_os_error());
}

#[cfg(target_os = "linux")]
#[test]
fn where_perf_events_are_refused_usage_is_counted_and_the_rest_has_its_reason() {
    use profile::Counter;
    if std::env::var_os("SMALLMIND_TEST_CHILD").is_none() {
        return run_child("where_perf_events_are_refused_usage_is_counted_and_the_rest_has_its_reason", &[]);
    }
    refuse_perf_events();
    profile::set_enabled(true);
    assert_faults(profile::counting());
    let snapshot = profile::snapshot();
    let counts = named(&snapshot, "touching").counts.unwrap();
    assert!(counts.get(Counter::ContextSwitches).is_some() && counts.get(Counter::MajorFaults).is_some());
    assert_eq!(counts.iter().count(), 3, "{counts:?}");
    let missing = profile::counters::missing();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].counters, Counter::ALL[3..]);
    let line = missing[0].to_string();
    assert!(
        line.starts_with("not counted: migrations, cycles") && line.contains("perf_event_paranoid"),
        "{line}"
    );
    assert!(profile::render_table(&snapshot).contains(&line));
}
