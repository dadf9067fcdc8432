//! A zeroed, 64-byte-aligned buffer, reserved fallibly.
//! Small buffers come from the global allocator; large ones are mapped, in huge pages where the system grants them.
//! The profile's allocation counters count both.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use super::reserve::with_room;
use super::{os, spare};
use crate::profile::alloc;
use crate::{Error, Result};

/// Alignment in bytes of every [`AlignedBuf`]: a cache line, and the widest vector register.
pub const ALIGNMENT: usize = 64;

/// From this size on a buffer is a mapping of its own. It is two huge pages: for smaller buffers, rounding up to whole
/// huge pages would waste more memory than it is worth.
const MAP_FROM: usize = 4 << 20;

/// Plain numbers: types as which the bytes of a buffer may be viewed.
///
/// # Safety
/// Every bit pattern is a valid value, there is no padding, and the alignment is at most [`ALIGNMENT`].
pub unsafe trait Pod: sealed::Sealed + Copy + Send + Sync + 'static {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for u8 {}
impl sealed::Sealed for i8 {}
impl sealed::Sealed for u16 {}
impl sealed::Sealed for i32 {}
impl sealed::Sealed for u32 {}
impl sealed::Sealed for f32 {}

// SAFETY: a primitive number: every bit pattern is a value, there is no padding, and the alignment is at most 4.
unsafe impl Pod for u8 {}
// SAFETY: as for `u8`.
unsafe impl Pod for i8 {}
// SAFETY: as for `u8`.
unsafe impl Pod for u16 {}
// SAFETY: as for `u8`.
unsafe impl Pod for i32 {}
// SAFETY: as for `u8`.
unsafe impl Pod for u32 {}
// SAFETY: as for `u8`.
unsafe impl Pod for f32 {}

/// The kind of pages that a large buffer gets from the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages where the system grants them: fewest address translations, for buffers that are used as a whole.
    Huge,
    /// Small pages, each resident from its first use on: for buffers that may stay mostly empty.
    Small,
}

/// Owned bytes, zero at first, aligned to [`ALIGNMENT`]; large ones to 2 MiB.
///
/// The length never changes. Ops that write disjoint parts from several threads use the pointer.
pub struct AlignedBuf {
    ptr: NonNull<u8>,
    len: usize,
    origin: Origin,
}

enum Origin {
    /// An empty buffer: nothing to free.
    Nothing,
    /// The global allocator.
    Heap,
    /// A mapping of its own.
    Mapped { _mapping: os::Mapping },
    /// A part of a larger buffer, which lives as long as its parts; no two parts overlap.
    Part { _whole: Arc<AlignedBuf> },
}

// SAFETY: the buffer owns its bytes (of a part: no other buffer has the same bytes), and they are not tied to a thread.
unsafe impl Send for AlignedBuf {}
// SAFETY: a shared reference only reads the bytes.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer of `bytes` zeros; `what` names its purpose in the error.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the operating system refuses, or for a size that no address space holds.
    pub fn zeroed(bytes: usize, what: &'static str) -> Result<Self> {
        Self::zeroed_in(Pages::Huge, bytes, what)
    }

    /// [`AlignedBuf::zeroed`] with a choice of pages for large sizes.
    ///
    /// # Errors
    /// As [`AlignedBuf::zeroed`].
    pub fn zeroed_in(pages: Pages, bytes: usize, what: &'static str) -> Result<Self> {
        let refused = || Error::OutOfMemory { bytes, what };
        if bytes == 0 {
            // An aligned address that nobody reads.
            let ptr =
                NonNull::without_provenance(std::num::NonZeroUsize::new(ALIGNMENT).ok_or_else(refused)?);
            return Ok(Self { ptr, len: 0, origin: Origin::Nothing });
        }
        if spare::is_short() {
            return Err(refused());
        }
        if os::CAN_MAP && bytes >= MAP_FROM {
            let mapping = os::Mapping::zeroed(bytes, pages).ok_or_else(refused)?;
            alloc::record_mapped(bytes);
            let ptr = mapping.first();
            return Ok(Self { ptr, len: bytes, origin: Origin::Mapped { _mapping: mapping } });
        }
        let layout = Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| refused())?;
        // SAFETY: the layout's size is not zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(refused)?;
        Ok(Self { ptr, len: bytes, origin: Origin::Heap })
    }

    /// Buffers of these sizes, one after the other in one piece of memory, so that many small buffers share huge pages.
    ///
    /// # Errors
    /// As [`AlignedBuf::zeroed`], for all of them together.
    pub fn zeroed_together(sizes: &[usize], what: &'static str) -> Result<Vec<Self>> {
        let overflow = Error::OutOfMemory { bytes: usize::MAX, what };
        let padded = |size: usize| size.checked_next_multiple_of(ALIGNMENT);
        let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(padded(size)?));
        let mut whole = Self::zeroed(total.ok_or(overflow)?, what)?;
        let base = whole.as_mut_ptr();
        let whole = Arc::new(whole);
        let mut at = 0;
        let mut parts = with_room(sizes.len(), what)?;
        for &len in sizes {
            // The padded sizes add up to the whole, so the part lies inside it.
            let ptr = NonNull::new(base.wrapping_add(at)).ok_or(Error::OutOfMemory { bytes: len, what })?;
            at += len.next_multiple_of(ALIGNMENT);
            parts.push(Self { ptr, len, origin: Origin::Part { _whole: whole.clone() } });
        }
        Ok(parts)
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Pointer to the first byte. Dangling, but aligned, if the buffer is empty.
    pub fn as_ptr(&self) -> *const u8 {
        self.ptr.as_ptr()
    }

    /// Pointer to the first byte, for writing.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// The bytes as `len / size_of::<T>()` numbers; a remainder is left out.
    pub fn as_slice<T: Pod>(&self) -> &[T] {
        // SAFETY: `len` initialised bytes, aligned to `ALIGNMENT`, which `Pod` promises is enough for T; `Pod` promises
        // that any bytes are a T. The buffer stays borrowed as long as the slice lives.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().cast(), self.len / size_of::<T>()) }
    }

    /// The bytes as numbers, for writing; see [`AlignedBuf::as_slice`].
    pub fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; `Pod` promises that any T is valid bytes, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().cast(), self.len / size_of::<T>()) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        match self.origin {
            Origin::Nothing | Origin::Part { .. } => {}
            Origin::Heap => {
                // `zeroed_in` made the same layout, so it is valid.
                if let Ok(layout) = Layout::from_size_align(self.len, ALIGNMENT) {
                    // SAFETY: `zeroed_in` allocated this pointer with this layout; the buffer, its owner, is dropped.
                    unsafe { dealloc(self.ptr.as_ptr(), layout) };
                }
            }
            Origin::Mapped { .. } => alloc::record_unmapped(self.len),
        }
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuf").field("ptr", &self.ptr).field("len", &self.len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_apart_and_outlive_each_other() {
        let sizes = [1, 0, 64, 65, MAP_FROM, 7];
        let mut parts = AlignedBuf::zeroed_together(&sizes, "a test").unwrap();
        for (i, part) in parts.iter_mut().enumerate() {
            assert_eq!(part.as_ptr() as usize % ALIGNMENT, 0);
            part.as_mut_slice::<u8>().fill(i as u8 + 1);
        }
        let last = parts.pop().unwrap();
        for (i, (part, size)) in parts.iter().zip(sizes).enumerate() {
            assert_eq!(part.len(), size);
            assert!(part.as_slice::<u8>().iter().all(|&b| b == i as u8 + 1));
        }
        drop(parts);
        assert_eq!(last.as_slice::<u8>(), [6; 7]);
        assert!(AlignedBuf::zeroed_together(&[], "a test").unwrap().is_empty());
        for absurd in [&[usize::MAX][..], &[usize::MAX - 100, 200]] {
            assert!(matches!(
                AlignedBuf::zeroed_together(absurd, "a test"),
                Err(Error::OutOfMemory { what: "a test", .. })
            ));
        }
    }

    #[test]
    fn every_size_is_zero_aligned_and_writable_to_its_last_byte() {
        for bytes in [0, 1, 63, 64, 65, 4096, MAP_FROM - 1, MAP_FROM, MAP_FROM + 1, (6 << 20) + 12345] {
            let mut buf = AlignedBuf::zeroed(bytes, "a test").unwrap();
            assert_eq!(buf.len(), bytes);
            assert_eq!(buf.is_empty(), bytes == 0);
            assert_eq!(buf.as_ptr() as usize % ALIGNMENT, 0);
            assert!(buf.as_slice::<u8>().iter().all(|&b| b == 0));
            buf.as_mut_slice::<u8>().fill(0xa5);
            assert!(buf.as_slice::<u8>().iter().all(|&b| b == 0xa5));
        }
    }

    #[test]
    fn large_ones_start_on_a_huge_page() {
        if os::CAN_MAP {
            let buf = AlignedBuf::zeroed(MAP_FROM, "a test").unwrap();
            assert_eq!(buf.as_ptr() as usize % (2 << 20), 0);
        }
    }

    #[test]
    fn views_leave_the_remainder_out() {
        let mut buf = AlignedBuf::zeroed(11, "a test").unwrap();
        buf.as_mut_slice::<f32>().copy_from_slice(&[1.0, -2.0]);
        assert_eq!(buf.as_slice::<u32>(), [1.0f32.to_bits(), (-2.0f32).to_bits()]);
        assert_eq!(buf.as_slice::<u16>().len(), 5);
        assert_eq!(buf.as_slice::<u8>()[8..], [0, 0, 0]);
    }

    #[test]
    fn absurd_sizes_are_an_error_that_names_them() {
        for bytes in [usize::MAX, usize::MAX - 63, isize::MAX as usize, 1 << 60] {
            let error = AlignedBuf::zeroed(bytes, "the arena").unwrap_err();
            assert!(matches!(error, Error::OutOfMemory { bytes: b, what: "the arena" } if b == bytes));
        }
    }

    #[test]
    fn mapped_bytes_count_as_allocated() {
        if os::CAN_MAP {
            let before = alloc::thread_counts();
            let buf = AlignedBuf::zeroed(MAP_FROM, "a test").unwrap();
            let made = alloc::thread_counts().since(before);
            assert_eq!((made.count, made.bytes), (1, MAP_FROM as u64));
            drop(buf);
            assert_eq!(alloc::thread_counts().since(before).count, 1);
        }
    }
}
