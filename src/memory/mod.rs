//! Memory: aligned buffers, the layout of an arena, fallible reservations, and the machine's memory and caches.
//! Any size that can't be had is an error; nothing aborts.
//! Code that depends on the operating system is in `os`.

#[cfg(any(feature = "counting-alloc", test))]
mod allocator;
mod buf;
#[cfg_attr(
    not(any(feature = "counting-alloc", test)),
    allow(dead_code, reason = "only the library's own allocator asks for the size of its spare")
)]
mod os;
mod plan;
#[cfg_attr(not(feature = "models"), allow(dead_code, reason = "models have most sizes from outside"))]
pub(crate) mod reserve;
#[cfg_attr(
    not(all(feature = "capi", any(feature = "counting-alloc", test))),
    allow(dead_code, reason = "the C ABI takes the spare, the library's own allocator gives it back")
)]
pub(crate) mod spare;

pub use buf::{ALIGNMENT, AlignedBuf, Pages, Pod};
pub(crate) use os::Mapping;
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
