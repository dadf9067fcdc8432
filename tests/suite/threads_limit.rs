//! Under a limit on address space, threads and buffers are refused with an error, and nothing aborts.
//! In a process of its own: the limit is the process's.
#![cfg(target_os = "linux")]

use crate::common::process;
use smallmind::Error;
use smallmind::memory::AlignedBuf;
use smallmind::threads::{MAX_WORKERS, Team};

/// Sets the limit, and tells whether it took: user-mode emulators ignore it, and say so.
fn limit_address_space(bytes: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both structs are complete and outlive the calls.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &mut now), 0);
    }
    now.rlim_cur == bytes
}

/// Bytes of address space in use.
fn in_use() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn short_memory_is_a_status() {
    process::alone("threads_limit::short_memory_is_a_status", limited);
}

fn limited() {
    if !limit_address_space(in_use() + (256 << 20)) {
        eprintln!("no limit on address space here: nothing to see");
        return;
    }
    let small_fits = AlignedBuf::zeroed(16 << 20, "a test");
    let large = AlignedBuf::zeroed(1 << 30, "a test");
    let team = Team::new(MAX_WORKERS); // 2 MiB of stack each
    limit_address_space(libc::RLIM_INFINITY);
    assert!(small_fits.is_ok());
    assert!(matches!(large, Err(Error::OutOfMemory { bytes: 0x4000_0000, .. })));
    // The library's own check fails, or the system's, which doesn't say that memory is what it lacks.
    match team {
        Err(Error::OutOfMemory { what: "a thread", .. }) => {}
        Err(Error::Internal(text)) => assert!(text.contains("could not start thread"), "{text}"),
        other => panic!("{other:?}"),
    }
    Team::new(4).unwrap().run(|worker| worker.barrier().unwrap()).unwrap();
}
