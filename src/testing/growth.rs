//! How the cost of some work grows with its size, in processor time of this thread: other programs and
//! emulators stretch the wall clock, but not the ratio.

/// Panics where 64 times the size costs more than 640 times as much: linear work (with logarithms, cold
/// caches and noise) stays far below that, quadratic work takes 4096 times.
pub fn assert_linear(what: &str, small: usize, mut work: impl FnMut(usize)) {
    // Whatever is built at first use is not counted.
    work(small);
    let mut seconds = |size| {
        let started = processor_seconds();
        work(size);
        processor_seconds() - started
    };
    let (few, many) = (seconds(small), seconds(64 * small));
    println!("{what}: {:.2} ms for {small}, {:.2} ms for 64 times that", few * 1e3, many * 1e3);
    // Less than a clock tick is no time to compare with.
    assert!(many < 640.0 * few.max(1e-4), "{what}: {few} s grew to {many} s");
}

/// What this thread has used so far.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on all Unix systems, and `time` is valid for writing.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "no clock of the thread's processor time");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
