//! Made-up reports, and damage to files: what tests of reports share. The command line's tests include this file by its
//! path; the module that includes it imports `data`, the module of a report's structures.

use super::data::{FORMAT, Machine, Method, Part, Report, Run, VERSION};

/// A method whose calls all took the same time.
pub fn method(name: &str, calls: u64, total_ns: u64) -> Method {
    let mean_ns = total_ns / calls;
    Method {
        name: name.into(),
        calls,
        total_ns,
        self_ns: total_ns,
        min_ns: mean_ns,
        mean_ns,
        max_ns: mean_ns,
        ..Method::default()
    }
}

/// A report of one part.
pub fn of_runs(runs: Vec<Run>) -> Report {
    Report {
        format: FORMAT.into(),
        version: VERSION,
        counting: None,
        created: "2026-01-02T03:04:05Z".into(),
        mode: "enhanced".into(),
        machine: Machine::default(),
        models: Vec::new(),
        parts: vec![Part { name: "same work".into(), about: String::new(), runs }],
    }
}

/// A report of one part from the methods of each run; a run takes as long as its first method.
pub fn report(runs: Vec<Vec<Method>>) -> Report {
    let run = |methods: Vec<Method>| Run {
        wall_ns: methods[0].total_ns,
        alloc_bytes: 1000,
        alloc_count: 10,
        peak_bytes: 500,
        methods,
        ..Run::default()
    };
    of_runs(runs.into_iter().map(run).collect())
}

/// A generator that is the same everywhere; no quality is needed.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// Calls `f` with 600 damaged copies of each source: bytes cut out, pieces of the formats put in, stretches repeated.
pub fn each_damaged(sources: &[Vec<u8>], mut f: impl FnMut(&[u8])) {
    let pieces: [&[u8]; 12] = [
        b"|",
        b"\n",
        b"-1",
        b"NaN",
        b"1e99",
        b"99999999999999999999",
        b"# ",
        b"```\n",
        b"\\",
        b"`",
        b"\xf0",
        b"{",
    ];
    let mut state = 1;
    for source in sources {
        for _ in 0..600 {
            let mut bytes = source.clone();
            for _ in 0..1 + next(&mut state) % 3 {
                let at = next(&mut state) % bytes.len();
                let end = (at + next(&mut state) % 40).min(bytes.len());
                match next(&mut state) % 3 {
                    0 => drop(bytes.drain(at..end)),
                    1 => drop(bytes.splice(at..at, pieces[next(&mut state) % pieces.len()].iter().copied())),
                    _ => {
                        let copy = bytes[at..end].to_vec();
                        drop(bytes.splice(at..at, copy));
                    }
                }
            }
            f(&bytes);
        }
    }
}
