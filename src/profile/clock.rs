//! The profile's clock: the processor's time-stamp counter where it runs at one rate, else the system's.
//! Ticks are read while recording and turned into nanoseconds only when a snapshot is taken.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where counting began, by both clocks: their later distance gives the rate.
struct Anchor {
    instant: Instant,
    ticks: u64,
    counter: bool,
}

/// Over this, reads some 50 ns apart leave the rate right within 10 ppm.
const SHORTEST_CALIBRATION: Duration = Duration::from_millis(5);

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| {
        let (instant, ticks) = both_clocks();
        Anchor { instant, ticks, counter: counter_is_steady() }
    })
}

/// Both clocks at one moment: of a few tries the one that took least, since a thread may lose its core between
/// two reads.
fn both_clocks() -> (Instant, u64) {
    let tries = (0..8).map(|_| {
        let before = counter_ticks();
        let instant = Instant::now();
        let took = counter_ticks().saturating_sub(before);
        (took, instant, before + took / 2)
    });
    let (_, instant, ticks) = tries.min().unwrap_or_else(|| (0, Instant::now(), counter_ticks()));
    (instant, ticks)
}

/// Ticks of a clock that never runs backwards on one thread (up to the processor's word for it).
#[inline(always)]
pub fn now() -> u64 {
    let anchor = anchor();
    if anchor.counter { counter_ticks() } else { system_ticks(anchor) }
}

/// Nanoseconds a tick takes. The first call may wait up to 5 ms, to have something to measure.
pub fn ns_per_tick() -> f64 {
    let anchor = anchor();
    if !anchor.counter {
        return 1.0;
    }
    while anchor.instant.elapsed() < SHORTEST_CALIBRATION {
        std::hint::spin_loop();
    }
    let (instant, ticks) = both_clocks();
    let elapsed = instant.duration_since(anchor.instant);
    elapsed.as_nanos() as f64 / ticks.saturating_sub(anchor.ticks).max(1) as f64
}

/// A span of ticks in nanoseconds.
pub fn ticks_to_ns(ticks: u64) -> u64 {
    (ticks as f64 * ns_per_tick()) as u64
}

#[cold]
fn system_ticks(anchor: &Anchor) -> u64 {
    anchor.instant.elapsed().as_nanos() as u64
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counter_ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// CPUID 0x80000007, EDX bit 8: one rate in every power state ("invariant TSC").
#[cfg(target_arch = "x86_64")]
fn counter_is_steady() -> bool {
    use crate::cpu::cpuid;
    cpuid(0x8000_0000).eax >= 0x8000_0007 && cpuid(0x8000_0007).edx >> 8 & 1 == 1
}

#[cfg(not(target_arch = "x86_64"))]
fn counter_ticks() -> u64 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn counter_is_steady() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_system_clock() {
        let (ticks, instant) = (now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (measured, expected) = (ticks_to_ns(now() - ticks), instant.elapsed().as_nanos() as u64);
        // Being descheduled between the two reads of a pair is the only source of difference: allow for one
        // time slice of a busy machine.
        assert!(measured.abs_diff(expected) < 10_000_000, "{measured} against {expected} ns");
    }

    #[test]
    fn never_runs_backwards() {
        let mut last = now();
        for _ in 0..100_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
