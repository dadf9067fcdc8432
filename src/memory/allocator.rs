//! The allocator of the shipped library: the one that counts, with [`spare`](super::spare) memory behind it.
//! An allocation that succeeds costs one comparison more.

use std::alloc::{GlobalAlloc, Layout};

use super::spare;
use crate::profile::CountingAllocator;

/// The counting allocator with spare memory behind it.
struct Allocator;

#[global_allocator]
static INSTALLED: Allocator = Allocator;

/// The allocation that `allocate` makes, with the help of the spare if the system refuses it at first.
#[inline]
fn with_spare(bytes: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let ptr = allocate();
    if ptr.is_null() && spare::give_back_for(bytes) {
        return allocate();
    }
    ptr
}

// SAFETY: every call goes to `CountingAllocator` as it came; what is done when that fails never allocates or unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: `layout` isn't of size 0, by the contract of `GlobalAlloc::alloc`; it goes on unchanged.
        with_spare(layout.size(), || unsafe { CountingAllocator.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: `layout` isn't of size 0, by the contract of `GlobalAlloc::alloc_zeroed`; it goes on unchanged.
        with_spare(layout.size(), || unsafe { CountingAllocator.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `CountingAllocator` by way of this allocator, with this `layout`.
        unsafe { CountingAllocator.dealloc(ptr, layout) };
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `ptr` came from `CountingAllocator` by way of this allocator, with this `layout`, and is still valid
        // after a refusal; `new_size` is valid, by the contract of `GlobalAlloc::realloc`.
        with_spare(new_size, || unsafe { CountingAllocator.realloc(ptr, layout, new_size) })
    }
}
