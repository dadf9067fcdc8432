//! Counts allocations: of each thread, and of the process.
//! [`CountingAllocator`] is the system's allocator with counters; mapped buffers report here themselves.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The system's allocator, counting. A binary that wants its profile to know allocations installs it:
///
/// ```
/// # #[cfg(not(feature = "counting-alloc"))]
/// #[global_allocator]
/// static ALLOCATOR: smallmind::profile::CountingAllocator = smallmind::profile::CountingAllocator;
/// ```
///
/// The library installs it itself, with spare memory behind it, only with the feature `counting-alloc`; a binary must not
/// do both.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// Allocations of one thread since it began. A reallocation counts as one of its whole new size, since
/// it may be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocCounts {
    /// How many.
    pub count: u64,
    /// Bytes requested.
    pub bytes: u64,
}

impl AllocCounts {
    /// The allocations since `earlier`.
    pub fn since(self, earlier: AllocCounts) -> AllocCounts {
        AllocCounts {
            count: self.count.wrapping_sub(earlier.count),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
        }
    }
}

/// Allocations of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TotalCounts {
    /// Allocations ever made.
    pub count: u64,
    /// Bytes ever requested.
    pub bytes: u64,
    /// Bytes held now.
    pub live_bytes: u64,
    /// Most bytes held at once, ever or since a recording began.
    pub peak_bytes: u64,
}

thread_local! {
    // Const and without a destructor: usable at any moment of a thread's life, and never allocating.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    // Below 0 on a thread that frees memory of others.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static MOST_HELD: Cell<i64> = const { Cell::new(0) };
}

static TOTAL_COUNT: AtomicU64 = AtomicU64::new(0);
static TOTAL_BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Allocations of the calling thread. All zero where no [`CountingAllocator`] is installed and nothing
/// was mapped.
#[inline]
pub fn thread_counts() -> AllocCounts {
    AllocCounts { count: COUNT.get(), bytes: BYTES.get() }
}

/// Bytes that the calling thread holds, and the most that it held since the last call; the next peak counts from here.
#[inline]
pub(super) fn begin_peak() -> (i64, i64) {
    let held = HELD.get();
    (held, MOST_HELD.replace(held))
}

/// Most that the thread held since [`begin_peak`], beyond what it held then; `before` is what that returned.
#[inline]
pub(super) fn end_peak(before: (i64, i64)) -> u64 {
    let most = MOST_HELD.get();
    MOST_HELD.set(most.max(before.1));
    most.saturating_sub(before.0).max(0) as u64
}

/// Lets the process's peak count from the bytes held now.
#[cfg(feature = "report")]
pub(crate) fn reset_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Allocations of the process.
pub fn total_counts() -> TotalCounts {
    TotalCounts {
        count: TOTAL_COUNT.load(Relaxed),
        bytes: TOTAL_BYTES.load(Relaxed),
        live_bytes: LIVE.load(Relaxed),
        peak_bytes: PEAK.load(Relaxed),
    }
}

/// Runs `work`, and returns its result with the allocations that it made on this thread.
pub fn count_during<R>(work: impl FnOnce() -> R) -> (R, AllocCounts) {
    let before = thread_counts();
    let result = work();
    (result, thread_counts().since(before))
}

/// Counts a mapping made past the allocator.
pub(crate) fn record_mapped(bytes: usize) {
    record(bytes, bytes);
}

/// Counts the end of a mapping.
pub(crate) fn record_unmapped(bytes: usize) {
    record_freed(bytes);
}

/// `bytes` fewer are held.
#[inline]
fn record_freed(bytes: usize) {
    LIVE.fetch_sub(bytes as u64, Relaxed);
    HELD.set(HELD.get().wrapping_sub(bytes as i64));
}

/// One allocation of `bytes`, after which `growth` more are held.
#[inline]
fn record(bytes: usize, growth: usize) {
    COUNT.set(COUNT.get().wrapping_add(1));
    BYTES.set(BYTES.get().wrapping_add(bytes as u64));
    let held = HELD.get().wrapping_add(growth as i64);
    HELD.set(held);
    if held > MOST_HELD.get() {
        MOST_HELD.set(held);
    }
    TOTAL_COUNT.fetch_add(1, Relaxed);
    TOTAL_BYTES.fetch_add(bytes as u64, Relaxed);
    let live = LIVE.fetch_add(growth as u64, Relaxed) + growth as u64;
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

// SAFETY: every call goes to `System` as it came; the counters around it never allocate or unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: `layout` isn't of size 0, by the contract of `GlobalAlloc::alloc`; it goes on unchanged.
        let ptr = unsafe { System.alloc(layout) };
        if !ptr.is_null() {
            record(layout.size(), layout.size());
        }
        ptr
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: `layout` isn't of size 0, by the contract of `GlobalAlloc::alloc_zeroed`; it goes on unchanged.
        let ptr = unsafe { System.alloc_zeroed(layout) };
        if !ptr.is_null() {
            record(layout.size(), layout.size());
        }
        ptr
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` by way of this allocator, with this `layout`.
        unsafe { System.dealloc(ptr, layout) };
        record_freed(layout.size());
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: `ptr` came from `System` by way of this allocator, with this `layout`; `new_size` is valid for its
        // alignment and not 0, by the contract of `GlobalAlloc::realloc`.
        let moved = unsafe { System.realloc(ptr, layout, new_size) };
        if !moved.is_null() {
            let shrink = layout.size().saturating_sub(new_size);
            record(new_size, new_size.saturating_sub(layout.size()));
            record_freed(shrink);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_exactly() {
        let (kept, made) = count_during(|| Vec::<u8>::with_capacity(1000));
        assert_eq!(made, AllocCounts { count: 1, bytes: 1000 });
        let (_, made) = count_during(|| drop(kept));
        assert_eq!(made, AllocCounts::default());
        let (_, made) = count_during(|| std::hint::black_box(vec![0u32; 50]));
        assert_eq!(made, AllocCounts { count: 1, bytes: 200 });
        let (_, made) = count_during(|| {
            let mut grown = Vec::<u8>::with_capacity(100);
            grown.reserve_exact(300);
            std::hint::black_box(grown);
        });
        assert_eq!(made, AllocCounts { count: 2, bytes: 400 });
    }

    #[test]
    fn what_is_held_comes_back() {
        // Other tests allocate beside this one, so only a size that towers over theirs shows.
        const BIG: usize = 1 << 30;
        let before = total_counts().live_bytes;
        let held = Vec::<u8>::with_capacity(BIG);
        assert!(total_counts().live_bytes >= before + BIG as u64 / 2);
        assert!(total_counts().peak_bytes >= BIG as u64);
        drop(std::hint::black_box(held));
        assert!(total_counts().live_bytes < before + BIG as u64 / 2);
    }

    #[test]
    fn a_thread_is_not_charged_for_another() {
        let (_, made) = count_during(|| {
            std::thread::scope(|s| {
                let child = s.spawn(|| count_during(|| std::hint::black_box(vec![0u8; 1 << 20])).1);
                assert_eq!(child.join().unwrap().bytes, 1 << 20);
            });
        });
        assert!(made.bytes < 1 << 20);
    }
}
