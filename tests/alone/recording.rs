//! The profile turned on for one test, and work that takes a known time.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use smallmind::profile;

/// Recording on, nothing recorded yet, until dropped.
pub struct Recording(#[allow(dead_code)] MutexGuard<'static, ()>);

pub fn record() -> Recording {
    let turn = crate::turn();
    profile::set_enabled(true);
    profile::reset();
    Recording(turn)
}

impl Drop for Recording {
    fn drop(&mut self) {
        profile::set_enabled(false);
    }
}

/// A millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

pub fn spin_ms(ms: u64) {
    spin(Duration::from_millis(ms));
}

pub fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
