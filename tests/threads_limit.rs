//! Under a limit on address space, threads and buffers are refused with an error, and nothing aborts.
//! Alone in its process: the limit is the process's.
#![cfg(target_os = "linux")]

use smallmind::Error;
use smallmind::memory::AlignedBuf;
use smallmind::threads::{MAX_WORKERS, Team};

fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the struct is complete and outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Bytes of address space in use.
fn in_use() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn short_memory_is_a_status() {
    limit_address_space(in_use() + (256 << 20));
    let small_fits = AlignedBuf::zeroed(16 << 20, "a test");
    let large = AlignedBuf::zeroed(1 << 30, "a test");
    let team = Team::new(MAX_WORKERS); // 2 MiB of stack each
    limit_address_space(libc::RLIM_INFINITY);
    if std::env::var_os("QEMU_LD_PREFIX").is_some() || large.is_ok() {
        // User-mode emulators don't pass the limit on: there is nothing to see here.
        eprintln!("this system doesn't enforce RLIMIT_AS");
        assert!(cfg!(not(target_arch = "x86_64")));
        return;
    }
    assert!(small_fits.is_ok());
    assert!(matches!(large, Err(Error::OutOfMemory { bytes: 0x4000_0000, .. })));
    let Err(Error::Internal(text)) = team else { panic!("{team:?}") };
    assert!(text.contains("thread"), "{text}");
    Team::new(4).unwrap().run(|worker| worker.barrier().unwrap()).unwrap();
}
