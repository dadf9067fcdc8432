//! A team of threads that runs one parallel region at a time, with a light barrier inside the region. Entering a
//! region, waiting and sharing work allocate nothing. A panic in any worker ends the region with an error; the team
//! stays usable.
//!
//! A fork copies only the calling thread: in the child, a team made before has no threads. It is refused there
//! ([`Error::WrongProcess`](crate::Error::WrongProcess)), and dropping it touches nothing of the parent's threads.

mod barrier;
mod gate;
mod os;
mod start;
mod team;
mod turns;
mod work;

pub use barrier::Poisoned;
#[cfg_attr(
    not(feature = "models"),
    allow(unused_imports, reason = "only contexts and the C ABI keep forks out by it")
)]
pub(crate) use os::Home;
#[cfg_attr(not(feature = "models"), allow(unused_imports, reason = "only models are loaded on a pool"))]
pub(crate) use start::pool;
pub use team::{MAX_WORKERS, Team, Worker};
pub use work::{Shares, WorkCounter, share};

/// Number of threads that can run at the same time: CPUs within the process's affinity and control group. At least 1.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
