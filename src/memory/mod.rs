//! Where bytes live: aligned buffers, the arena's plan of offsets, and what the machine has.
//! Everything here fails with a status; nothing aborts, whatever size is asked for.
//! What depends on the operating system stands in `os`.

mod buf;
mod os;
mod plan;

pub use buf::{ALIGNMENT, AlignedBuf, Pod};
pub use os::{CacheSizes, available_memory, cache_sizes, total_memory};
pub use plan::{ArenaPlan, BufferId, Layout};
