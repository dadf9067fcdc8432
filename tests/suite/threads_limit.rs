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
        Err(Error::OutOfMemory { what: "a thread", .. } | Error::NoThreads { .. }) => {}
        other => panic!("{other:?}"),
    }
    Team::new(4).unwrap().run(|worker| worker.barrier().unwrap()).unwrap();
}

const WANT: &str = "threads_limit::want_of_threads_is_an_error_of_its_own";

/// A stack that no address space holds: every thread is refused. In a process whose test runs on the main thread, since
/// the harness couldn't start one either.
#[test]
fn want_of_threads_is_an_error_of_its_own() {
    if process::is_child() {
        return without_threads();
    }
    let stack = (1_u64 << 46).to_string();
    process::succeeds(process::child(WANT).arg("--test-threads=1").env("RUST_MIN_STACK", stack));
}

fn without_threads() {
    match Team::new(3) {
        Err(Error::NoThreads { wanted: 3, started: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(Team::new(1).unwrap().run(|_| ()).is_ok());
    #[cfg(feature = "capi")]
    in_c();
}

/// The same through the C ABI, where loading wants threads as well.
#[cfg(feature = "capi")]
fn in_c() {
    use smallmind::ffi::{random::sm_model_create_random, status::*, team::sm_team_create};
    use std::ffi::CStr;
    use std::ptr::{null, null_mut};

    let (mut team, mut model) = (null_mut(), null_mut());
    // SAFETY: variables for the handles; NULL stands for the defaults.
    let statuses =
        unsafe { [sm_team_create(2, &mut team), sm_model_create_random(null(), null(), &mut model)] };
    assert_eq!(statuses, [SM_STATUS_NO_THREADS; 2]);
    assert!(team.is_null() && model.is_null());
    // SAFETY: never NULL; copied before anything else fails.
    let message = unsafe { CStr::from_ptr(sm_last_error()) }.to_string_lossy().into_owned();
    assert!(message.contains("fewer threads"), "{message}");
}
