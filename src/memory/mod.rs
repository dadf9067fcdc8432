//! Memory: aligned buffers, the layout of an arena, fallible reservations, and the machine's memory and caches.
//! Any size that can't be had is an error; nothing aborts.
//! Code that depends on the operating system is in `os`.

mod buf;
mod os;
mod plan;
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "models have most sizes from outside"))]
pub(crate) mod reserve;

pub use buf::{ALIGNMENT, AlignedBuf, Pages, Pod};
pub use os::{CacheSizes, available_memory, cache_sizes, give_back_freed, total_memory};
pub use plan::{ArenaLayout, ArenaPlan, BufferId};

/// `count · size` bytes, for sizes that come from outside.
///
/// # Errors
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the product exceeds the largest possible buffer.
pub fn checked_bytes(count: usize, size: usize, what: &'static str) -> crate::Result<usize> {
    let bytes = count.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
    bytes.ok_or(crate::Error::OutOfMemory { bytes: usize::MAX, what })
}
