//! Tests that count allocations, of a thread or of this program with all its tests.

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "models")]
mod bad_data;
#[cfg(feature = "models")]
mod bad_files;
mod gguf_bad;
#[cfg(feature = "models")]
mod sampling;
#[cfg(feature = "models")]
mod split;
#[cfg(feature = "models")]
mod unread;

#[cfg(not(feature = "counting-alloc"))]
#[global_allocator]
static ALLOCATOR: smallmind::profile::CountingAllocator = smallmind::profile::CountingAllocator;
