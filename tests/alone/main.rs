//! Tests that measure time, count threads, or turn the profile on, which are the whole process's: they take turns.

#[path = "../common/mod.rs"]
mod common;

mod profile;
mod recording;
mod threads_speed;
mod zero_alloc;

#[cfg(feature = "models")]
mod embed_alloc;
#[cfg(feature = "models")]
mod gpt_work;
#[cfg(feature = "models")]
mod memory;
#[cfg(feature = "report")]
mod profile_zones;
#[cfg(feature = "models")]
mod serve_alloc;
#[cfg(feature = "models")]
mod shared_team;
#[cfg(feature = "models")]
mod step_alloc;
#[cfg(feature = "models")]
mod train_alloc;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: smallmind::profile::CountingAllocator = smallmind::profile::CountingAllocator;

/// Holds back the other tests of this program while it lives.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Allocations of the whole process while `work` ran: the fewest of three times, since on a busy machine the
/// harness's own thread may still be putting away what it needed to start the test.
#[cfg(feature = "models")]
fn allocations(mut work: impl FnMut()) -> u64 {
    use smallmind::profile::alloc::total_counts;
    let mut once = || {
        let before = total_counts().count;
        work();
        total_counts().count - before
    };
    [once(), once(), once()].into_iter().min().expect("three")
}
