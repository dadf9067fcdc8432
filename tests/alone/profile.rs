//! The profile from outside: known work reads back as what it was, through threads, resets, overflow and
//! misuse.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::recording::{MS, record, spin, spin_ms};
use smallmind::profile::{self, MethodStats, Snapshot, Zone, alloc};
use smallmind::threads::Team;

/// The node at this path from a root.
fn node<'a>(snapshot: &'a Snapshot, path: &[Zone]) -> Option<&'a MethodStats> {
    let mut parent = None;
    for &zone in path {
        parent = Some(snapshot.nodes.iter().position(|n| n.zone == zone && n.parent == parent)?);
    }
    parent.map(|index| &snapshot.nodes[index])
}

/// What must hold of any figures, of whatever moment.
fn check_sane(snapshot: &Snapshot) {
    for (index, n) in snapshot.nodes.iter().enumerate() {
        assert!(n.parent.is_none_or(|parent| parent < index), "a parent stands before its children");
        assert_eq!(n.depth, n.parent.map_or(0, |parent| snapshot.nodes[parent].depth + 1));
    }
    for n in snapshot.nodes.iter().chain(&snapshot.by_zone()) {
        let context = || format!("{n:?}");
        assert!(n.min_ns <= n.mean_ns && n.mean_ns <= n.max_ns, "{}", context());
        assert!(n.min_ns <= n.p50_ns && n.p50_ns <= n.p95_ns, "{}", context());
        assert!(n.p95_ns <= n.p99_ns && n.p99_ns <= n.max_ns, "{}", context());
        assert!(n.self_ns <= n.calls * (n.mean_ns + 1), "{}", context());
        assert!(n.busiest_ns <= n.total_ns && n.self_alloc_bytes <= n.alloc_bytes, "{}", context());
        assert!(n.max_ns <= snapshot.wall_ns + 1, "{}", context());
    }
}

#[test]
fn known_times_read_back() {
    let _recording = record();
    let start = Instant::now();
    for _ in 0..10 {
        let _scope = profile::scope(Zone::Other).work(1000, 500);
        spin_ms(2);
    }
    let outside = start.elapsed().as_nanos() as u64;
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let n = node(&snapshot, &[Zone::Other]).unwrap();
    assert_eq!((n.calls, n.flops, n.bytes, n.threads), (10, 10_000, 5_000, 1));
    // The spin can't be shorter than asked, nor the scopes longer than what was measured around them; 0.1 %
    // for the rate of one clock against the other.
    let off = outside / 1000;
    assert!(n.total_ns + off >= 20 * MS && n.total_ns <= outside + off, "{} of {outside}", n.total_ns);
    assert!(n.min_ns + 2000 >= 2 * MS && n.p50_ns >= 2 * MS * 94 / 100);
    assert!(n.self_ns.abs_diff(n.total_ns) <= 1);
    assert!(snapshot.wall_ns + off >= n.total_ns);
    let gflops = n.flops as f64 / n.total_ns as f64;
    assert!((n.gflops() - gflops).abs() <= gflops * 1e-9);
}

#[test]
fn self_times_sum_to_the_root() {
    let _recording = record();
    for _ in 0..3 {
        let _generate = profile::scope(Zone::Generate);
        spin_ms(1);
        for _ in 0..4 {
            let _decode = profile::scope(Zone::Decode);
            for zone in [Zone::RmsNorm, Zone::LinearQkv, Zone::Attention, Zone::RmsNorm] {
                let _op = profile::scope(zone).work(10, 1);
                spin(Duration::from_micros(50));
            }
        }
        let _sample = profile::scope(Zone::Sample);
        spin(Duration::from_micros(100));
    }
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let root = node(&snapshot, &[Zone::Generate]).unwrap();
    let self_sum: u64 = snapshot.nodes.iter().map(|n| n.self_ns).sum();
    // Exact in ticks; each figure is rounded to a nanosecond by itself.
    assert!(self_sum.abs_diff(root.total_ns) <= snapshot.nodes.len() as u64, "{self_sum} {}", root.total_ns);
    assert_eq!(root.flops, 3 * 4 * 4 * 10, "work of children is in their parents");
    let norm = node(&snapshot, &[Zone::Generate, Zone::Decode, Zone::RmsNorm]).unwrap();
    assert_eq!((norm.calls, norm.depth, norm.flops), (24, 2, 240));
    assert_eq!(node(&snapshot, &[Zone::Generate, Zone::Sample]).unwrap().calls, 3);
    let by_zone: u64 = snapshot.by_zone().iter().map(|n| n.self_ns).sum();
    assert!(by_zone.abs_diff(root.total_ns) <= 10);
}

#[test]
fn a_zone_inside_itself_counts_once() {
    let _recording = record();
    {
        let _outer = profile::scope(Zone::Load).work(1, 1);
        let _between = profile::scope(Zone::LoadRead);
        let _inner = profile::scope(Zone::Load).work(10, 10);
        let kept = vec![1u8; 1000];
        spin_ms(2);
        black_box(kept);
    }
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let load = snapshot.zone(Zone::Load).unwrap();
    let outer = node(&snapshot, &[Zone::Load]).unwrap();
    assert_eq!((load.calls, outer.calls), (2, 1));
    assert_eq!(load.total_ns, outer.total_ns);
    assert_eq!((load.flops, load.alloc_bytes), (11, 1000));
    assert!(load.mean_ns >= 2 * MS * 999 / 1000, "the mean is of both scopes");
}

#[test]
fn allocations_are_charged_to_the_worker_and_scope_that_made_them() {
    let _recording = record();
    let team = Team::new(3).unwrap();
    let (_, before) = alloc::count_during(|| ());
    assert_eq!(before.count, 0);
    {
        let _decode = profile::scope(Zone::Decode);
        team.run(|worker| {
            let _outer = profile::scope(Zone::Linear);
            black_box(vec![0u8; 100]);
            for _ in 0..5 {
                let _inner = profile::scope(Zone::Quantize);
                black_box(Vec::<u8>::with_capacity(1000 * (worker.index() + 1)));
            }
        })
        .unwrap();
    }
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let at = |path: &[Zone]| node(&snapshot, path).unwrap();
    let inner = at(&[Zone::Decode, Zone::Linear, Zone::Quantize]);
    assert_eq!((inner.alloc_bytes, inner.alloc_count, inner.calls), (5 * 6000, 15, 15));
    let outer = at(&[Zone::Decode, Zone::Linear]);
    assert_eq!((outer.alloc_bytes, outer.self_alloc_bytes, outer.alloc_count), (30_300, 300, 18));
    assert_eq!((outer.calls, outer.threads), (3, 3));
    let root = at(&[Zone::Decode]);
    assert_eq!((root.alloc_bytes, root.self_alloc_bytes, root.calls), (30_300, 0, 1));
}

#[test]
fn mapped_buffers_count_in_their_scope() {
    let _recording = record();
    {
        let _scope = profile::scope(Zone::ContextCreate);
        smallmind::memory::AlignedBuf::zeroed(8 << 20, "a test").unwrap();
        smallmind::memory::AlignedBuf::zeroed(4096, "a test").unwrap();
    }
    let context = profile::snapshot().zone(Zone::ContextCreate).unwrap();
    assert_eq!((context.alloc_bytes, context.alloc_count), ((8 << 20) + 4096, 2));
}

#[test]
fn workers_hang_below_the_region_they_serve() {
    let _recording = record();
    let team = Team::new(2).unwrap();
    for zone in [Zone::Prefill, Zone::Decode] {
        let _generate = profile::scope(Zone::Generate);
        let _step = profile::scope(zone);
        team.run(|worker| {
            let _op = profile::scope(Zone::LinearDown).work(1000, 0);
            spin_ms(2);
            let _wait = profile::scope(Zone::Barrier);
            worker.barrier().unwrap();
        })
        .unwrap();
    }
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    assert_eq!(snapshot.nodes.iter().filter(|n| n.parent.is_none()).count(), 1);
    for zone in [Zone::Prefill, Zone::Decode] {
        let op = node(&snapshot, &[Zone::Generate, zone, Zone::LinearDown]).unwrap();
        assert_eq!((op.calls, op.threads), (2, 2));
        assert!(op.total_ns >= 4 * MS * 999 / 1000);
        // Work of both threads over the time of one, since they ran side by side.
        assert!((op.gflops() - 2000.0 / op.busiest_ns as f64).abs() < 1e-9);
        let step = node(&snapshot, &[Zone::Generate, zone]).unwrap();
        assert_eq!((step.calls, step.threads), (1, 1));
        let waits = node(&snapshot, &[Zone::Generate, zone, Zone::LinearDown, Zone::Barrier]).unwrap();
        assert_eq!(waits.calls, 2);
    }
}

#[test]
fn a_reset_while_a_scope_is_open_counts_from_there() {
    let _recording = record();
    let outer = profile::scope(Zone::Generate);
    {
        let _inner = profile::scope(Zone::Decode);
        spin_ms(20);
        black_box(vec![0u8; 5000]);
        profile::reset();
        black_box(vec![0u8; 70]);
    }
    spin_ms(1);
    drop(outer);
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let root = node(&snapshot, &[Zone::Generate]).unwrap();
    assert_eq!(root.calls, 1);
    assert!(root.total_ns >= MS * 999 / 1000 && root.total_ns <= snapshot.wall_ns);
    let self_sum: u64 = snapshot.nodes.iter().map(|n| n.self_ns).sum();
    assert!(self_sum.abs_diff(root.total_ns) <= 2);
    assert!(root.alloc_bytes <= 70, "what came before the reset is gone");
}

#[test]
fn a_path_adopted_before_a_reset_is_left_in_peace() {
    let _recording = record();
    let path = {
        let _load = profile::scope(Zone::Load);
        profile::current_path().unwrap()
    };
    let outer = profile::adopt(Some(&path));
    let inner = profile::adopt(Some(&profile::Path::ROOT));
    profile::reset();
    drop(profile::scope(Zone::Sample)); // nothing is open: the tree goes, and with it the path's node
    drop(inner);
    drop(profile::scope(Zone::Decode));
    drop(outer);
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let mut seen: Vec<_> = snapshot.nodes.iter().map(|n| (n.zone, n.calls, n.parent)).collect();
    seen.sort();
    assert_eq!(seen, [(Zone::Decode, 1, None), (Zone::Sample, 1, None)]);
}

#[test]
fn switching_in_the_middle_of_a_scope_is_harmless() {
    let _recording = record();
    profile::set_enabled(false);
    {
        let _before = profile::scope(Zone::Load);
        profile::set_enabled(true);
        let _within = profile::scope(Zone::LoadOpen);
        profile::set_enabled(false);
        let _unseen = profile::scope(Zone::LoadRead);
    }
    profile::set_enabled(true);
    // The scope ran on while recording stopped, which reads counters: some 0.1 ms that are on nobody's wall.
    spin_ms(1);
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    // Opened while off: not there, even though it ended while on. Opened while on: there.
    let seen: Vec<_> = snapshot.nodes.iter().map(|n| (n.zone, n.calls, n.parent)).collect();
    assert_eq!(seen, [(Zone::LoadOpen, 1, None)]);
    assert_eq!(snapshot.dropped, 0);
}

#[test]
fn time_while_off_is_not_on_the_wall() {
    let _recording = record();
    profile::set_enabled(false);
    spin_ms(50);
    profile::set_enabled(true);
    spin_ms(5);
    let wall = profile::snapshot().wall_ns;
    assert!(wall >= 5 * MS * 999 / 1000);
    profile::set_enabled(false);
    let stopped = profile::snapshot().wall_ns;
    spin_ms(5);
    let later = profile::snapshot().wall_ns;
    // The rate is measured anew each time, over more and more: 0.1 % is far more than it moves.
    assert!(later.abs_diff(stopped) <= stopped / 1000 + 1, "{stopped} {later}");
}

#[test]
fn scopes_too_deep_are_counted_as_dropped() {
    fn nest(levels: usize) {
        let _scope = profile::scope(Zone::Other);
        if levels > 1 {
            nest(levels - 1);
        }
    }
    let _recording = record();
    nest(72);
    nest(64);
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    assert_eq!(snapshot.dropped, 8);
    assert_eq!(snapshot.nodes.len(), 64);
    assert!(snapshot.nodes.iter().all(|n| n.calls == 2));
    assert!(profile::render_table(&snapshot).contains("8 scopes had no room"));
}

#[test]
fn paths_too_many_are_counted_as_dropped() {
    let _recording = record();
    let mut made = 0;
    for &a in Zone::ALL {
        let _a = profile::scope(a);
        made += 1;
        for &b in Zone::ALL {
            let _b = profile::scope(b);
            made += 1;
        }
    }
    assert!(made > 1023);
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let kept: u64 = snapshot.nodes.iter().map(|n| n.calls).sum();
    assert!(snapshot.dropped > 0 && kept > 1000);
    assert_eq!(kept + snapshot.dropped, made);
    profile::reset();
    assert_eq!(profile::snapshot().dropped, 0);
    assert!(profile::snapshot().nodes.is_empty());
}

#[test]
fn scopes_ended_out_of_order_or_never_do_no_harm() {
    let _recording = record();
    let outer = profile::scope(Zone::Load);
    let inner = profile::scope(Zone::LoadRead);
    drop(outer);
    drop(inner); // ended with its parent already
    std::mem::forget(profile::scope(Zone::Sample));
    {
        let outer = profile::scope(Zone::Decode); // inside the forgotten one
        std::mem::forget(profile::scope(Zone::Embed));
        drop(outer);
    }
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    assert_eq!(snapshot.zone(Zone::Load).unwrap().calls, 1);
    assert_eq!(snapshot.zone(Zone::Decode).unwrap().calls, 1);
    assert!(snapshot.zone(Zone::LoadRead).is_none());
    // The inner one that its parent closed, and the forgotten one in Decode; the other is open still.
    assert_eq!((snapshot.unbalanced, snapshot.dropped), (2, 0));
}

#[test]
fn a_snapshot_beside_writers_is_whole() {
    const EACH: u64 = 50_000;
    let _recording = record();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                s.spawn(|| {
                    for _ in 0..EACH {
                        let _outer = profile::scope(Zone::Linear).work(2, 3);
                        let _inner = profile::scope(Zone::Quantize);
                    }
                })
            })
            .collect();
        let reader = s.spawn(|| {
            let mut last = 0;
            while !done.load(SeqCst) {
                let snapshot = profile::snapshot();
                check_sane(&snapshot);
                if let Some(n) = node(&snapshot, &[Zone::Linear]) {
                    assert!(n.calls >= last);
                    assert_eq!(n.flops, 2 * n.calls, "all of a scope's figures are there or none");
                    last = n.calls;
                }
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        done.store(true, SeqCst);
        reader.join().unwrap();
    });
    let snapshot = profile::snapshot();
    for path in [&[Zone::Linear][..], &[Zone::Linear, Zone::Quantize]] {
        assert_eq!(node(&snapshot, path).unwrap().calls, 3 * EACH);
    }
}

#[test]
fn resets_beside_writers_lose_whole_scopes_only() {
    let _recording = record();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(SeqCst) {
                    let _outer = profile::scope(Zone::Linear).work(2, 3);
                    let _inner = profile::scope(Zone::Quantize);
                }
            });
        }
        for _ in 0..200 {
            profile::reset();
            let snapshot = profile::snapshot();
            check_sane(&snapshot);
            assert!(snapshot.nodes.iter().all(|n| n.zone != Zone::Linear || n.flops == 2 * n.calls));
        }
        done.store(true, SeqCst);
    });
}

#[test]
fn threads_that_end_leave_their_figures_and_their_table() {
    let _recording = record();
    let run = || {
        std::thread::spawn(|| drop(profile::scope(Zone::Tokenize))).join().unwrap();
    };
    run();
    let before = alloc::total_counts().live_bytes;
    (0..200).for_each(|_| run());
    let grown = alloc::total_counts().live_bytes.saturating_sub(before);
    // Other tests wait for their turn, and the harness allocates a little; 200 tables would be 80 MB.
    assert!(grown < 4 << 20, "{grown} bytes more are held");
    let tokenize = profile::snapshot().zone(Zone::Tokenize).unwrap();
    assert_eq!(tokenize.calls, 201);
}

#[test]
fn scopes_in_a_dying_thread_are_counted_not_crashed() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            drop(profile::scope(Zone::Callback));
        }
    }
    thread_local!(static LATE: Late = const { Late });
    let _recording = record();
    std::thread::spawn(|| {
        LATE.with(|_| ()); // registered first, so dropped after (or, on some systems, before) the table's return
        drop(profile::scope(Zone::Detokenize));
    })
    .join()
    .unwrap();
    let snapshot = profile::snapshot();
    let late = snapshot.zone(Zone::Callback).map_or(0, |n| n.calls);
    assert_eq!(late + snapshot.dropped, 1);
    assert_eq!(snapshot.zone(Zone::Detokenize).unwrap().calls, 1);
}

#[test]
fn the_table_fits_its_terminal() {
    let _recording = record();
    let team = Team::new(2).unwrap();
    {
        let _generate = profile::scope(Zone::Generate);
        let _decode = profile::scope(Zone::Decode);
        team.run(|_| {
            let _op = profile::scope(Zone::LinearGateUp).work(123_456_789, 1_000_000);
            spin_ms(1);
        })
        .unwrap();
    }
    let snapshot = profile::snapshot();
    let table = profile::render_table(&snapshot);
    println!("{table}");
    let lines: Vec<&str> = table.lines().collect();
    // The tree and a line below it; the threads with their head and an empty line before it. Besides the two workers
    // there may be a thread that another test has just ended with.
    assert!(snapshot.threads.len() >= 2);
    assert_eq!(lines.len(), 2 + snapshot.nodes.len() + 1 + 2 + snapshot.threads.len());
    assert!(lines.iter().all(|line| line.chars().count() <= 100));
    for line in &lines[..2 + snapshot.nodes.len()] {
        assert_eq!(line.chars().count(), 100, "{line}");
    }
    assert!(lines[4].starts_with("    linear.gate_up"));
}

#[test]
fn an_open_parent_still_heads_its_children() {
    let _recording = record();
    let _generate = profile::scope(Zone::Generate);
    drop(profile::scope(Zone::Decode));
    let snapshot = profile::snapshot();
    check_sane(&snapshot);
    let shape: Vec<_> = snapshot.nodes.iter().map(|n| (n.zone, n.calls, n.depth)).collect();
    assert_eq!(shape, [(Zone::Generate, 0, 0), (Zone::Decode, 1, 1)]);
    assert!(profile::render_table(&snapshot).contains("generate"));
}

/// Nanoseconds a call takes, of the quickest of several runs.
fn cost(mut call: impl FnMut(u64)) -> f64 {
    const CALLS: u64 = 10_000;
    let times = (0..50).map(|_| {
        let start = Instant::now();
        (0..CALLS).for_each(&mut call);
        start.elapsed().as_nanos() as f64 / CALLS as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

#[test]
fn a_scope_costs_little() {
    let _recording = record();
    let a_scope = |i| drop(profile::scope(Zone::Other).work(black_box(i), 1));
    let on = cost(a_scope);
    profile::set_enabled(false);
    let off = cost(a_scope);
    let clock = cost(|_| _ = black_box(profile::clock::now()));
    println!("a scope: {on:.1} ns on, {off:.2} ns off; a clock read: {clock:.1} ns");
    // The target is 40 ns on and less than one off. Bounds are in clock reads, of which a scope needs two, since
    // an emulator is slow at everything: ten tell a lock, an allocation or a system call from noise.
    assert!(
        on < 10.0 * clock.max(6.0) && off < clock.max(5.0),
        "{on} ns on, {off} ns off, {clock} ns a clock read"
    );
}
