//! Where bytes live: aligned buffers, the arena's plan of offsets, and what the machine has.
//! Everything here fails with a status; nothing aborts, whatever size is asked for.
//! What depends on the operating system stands in `os`.

mod buf;
mod os;
mod plan;
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "models have most sizes from outside"))]
pub(crate) mod reserve;

pub use buf::{ALIGNMENT, AlignedBuf, Pages, Pod};
pub use os::{CacheSizes, available_memory, cache_sizes, give_back_freed, total_memory};
pub use plan::{ArenaPlan, BufferId, Layout};

/// `count · size` bytes, for sizes that come from outside.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the product is more than any buffer can be.
pub fn checked_bytes(count: usize, size: usize, what: &'static str) -> crate::Result<usize> {
    let bytes = count.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
    bytes.ok_or(crate::Error::OutOfMemory { bytes: usize::MAX, what })
}
