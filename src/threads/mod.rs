//! One parallel region at a time on a parked team of threads, with a light barrier inside it.
//! Entering a region, waiting and sharing work allocate nothing. A panic in any worker ends the region
//! with an error; the team lives on.
//!
//! A process that forks takes only the calling thread along: a team made before is dead in the child, and
//! using it there waits for ever. Make teams after forking.

mod barrier;
mod gate;
mod os;
mod team;
mod turns;
mod work;

pub use barrier::Poisoned;
pub use team::{MAX_WORKERS, Team, Worker};
pub use work::{Shares, WorkCounter, share};

/// Workers that can run at once: CPUs, less what affinity and control groups take away. At least 1.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
