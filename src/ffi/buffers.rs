//! Arrays and strings that cross the boundary. On the way in, a pointer and a count are checked. On the way out, the count
//! is always stored, and the elements only if all of them fit; (NULL, 0) asks for the count only.

use std::ffi::c_char;
use std::mem::{align_of, size_of};
use std::path::PathBuf;
use std::{ptr, slice, str};

use super::params::Versioned;
use super::status::Failure;
use crate::error::{Error, Result};

/// Longest path: no system takes a longer one.
const MAX_PATH_BYTES: usize = 32 << 10;

/// The caller's array. NULL is fine for no elements.
///
/// # Safety
/// `data` is NULL or readable for `len` elements that nobody changes during `'a`.
pub(super) unsafe fn array<'a, T>(
    data: *const T,
    len: usize,
    what: &'static str,
) -> Result<&'a [T], Failure> {
    check::<T>(data, len, what)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: not NULL, aligned, not larger than the address space; the rest is the function's contract.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// The caller's array, to write to. NULL is fine for no elements.
///
/// # Safety
/// `data` is NULL or writable for `len` initialised elements that nobody else uses during `'a`.
pub(super) unsafe fn array_mut<'a, T>(
    data: *mut T,
    len: usize,
    what: &'static str,
) -> Result<&'a mut [T], Failure> {
    check::<T>(data, len, what)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: not NULL, aligned, not larger than the address space; the rest is the function's contract.
    Ok(unsafe { slice::from_raw_parts_mut(data, len) })
}

/// Refuses a pointer that can't be an array of `len` elements.
#[inline]
pub(super) fn check<T>(data: *const T, len: usize, what: &'static str) -> Result<(), Failure> {
    if len == 0 {
        return Ok(());
    }
    if data.is_null() {
        return Err(Failure::null(what));
    }
    if !data.addr().is_multiple_of(align_of::<T>()) {
        return Err(Failure::invalid(format!("{what} is not aligned to {} bytes", align_of::<T>())));
    }
    let end = len.checked_mul(size_of::<T>()).and_then(|bytes| data.addr().checked_add(bytes));
    if end.is_none_or(|end| end > isize::MAX as usize) {
        return Err(Failure::invalid(format!("{what}: {len} elements don't fit into memory")));
    }
    Ok(())
}

/// A length within the library's limit: a longer array is refused before it is read.
pub(super) fn at_most(len: usize, most: usize, what: &'static str) -> Result<usize, Failure> {
    if len > most {
        return Err(Failure::invalid(format!("{what} is {len}; at most {most}")));
    }
    Ok(len)
}

/// The bytes before the NUL, which must come within `most` bytes: what stands behind these is not read.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and unchanged during `'a`.
unsafe fn terminated<'a>(text: *const c_char, most: usize, what: &'static str) -> Result<&'a [u8], Failure> {
    if text.is_null() {
        return Err(Failure::null(what));
    }
    let text = text.cast::<u8>();
    // SAFETY: bytes up to the NUL are readable, and the search ends there.
    let len = (0..=most).find(|&at| unsafe { text.add(at).read() } == 0);
    let len = len.ok_or_else(|| Failure::invalid(format!("{what} is longer than {most} bytes")))?;
    // SAFETY: `len` readable bytes, unchanged during `'a`.
    Ok(unsafe { slice::from_raw_parts(text, len) })
}

/// The caller's NUL-terminated UTF-8 of at most `most` bytes.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and unchanged during `'a`.
pub(super) unsafe fn string<'a>(
    text: *const c_char,
    most: usize,
    what: &'static str,
) -> Result<&'a str, Failure> {
    // SAFETY: the function's contract.
    utf8(unsafe { terminated(text, most, what) }?, what)
}

/// The caller's UTF-8 of `len` bytes.
///
/// # Safety
/// As [`array()`].
pub(super) unsafe fn text<'a>(
    text: *const c_char,
    len: usize,
    what: &'static str,
) -> Result<&'a str, Failure> {
    // SAFETY: the function's contract.
    utf8(unsafe { array(text.cast::<u8>(), len, what) }?, what)
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, Failure> {
    str::from_utf8(bytes)
        .map_err(|e| Failure::invalid(format!("{what} is not UTF-8 from byte {} on", e.valid_up_to())))
}

/// The caller's NUL-terminated path: bytes as the system has them on Unix, UTF-8 elsewhere.
///
/// # Safety
/// As [`string`].
pub(super) unsafe fn path(path: *const c_char) -> Result<PathBuf, Failure> {
    // SAFETY: the function's contract.
    let bytes = unsafe { terminated(path, MAX_PATH_BYTES, "path") }?;
    if bytes.is_empty() {
        return Err(Failure::invalid("path is empty"));
    }
    #[cfg(unix)]
    let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
    #[cfg(not(unix))]
    let path = utf8(bytes, "path")?;
    Ok(PathBuf::from(path))
}

/// Stores one value in the caller's variable.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn give_value<T>(value: T, out: *mut T, what: &'static str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: not NULL, so writable.
    unsafe { out.write(value) };
    Ok(())
}

/// Gives out `values`; `*count` gets how many there are.
///
/// # Safety
/// `out` is NULL or writable for `capacity` elements; `count` is NULL or writable.
pub(super) unsafe fn give_array<T: Copy>(
    values: &[T],
    out: *mut T,
    capacity: usize,
    count: *mut usize,
    what: &'static str,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    if !unsafe { fits(values.len(), 0, out.is_null(), capacity, count, what) }? {
        return Ok(());
    }
    // SAFETY: `out` is writable for capacity ≥ len elements, and can't overlap memory of the library.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), out, values.len()) };
    Ok(())
}

/// Gives out `len` bytes that `write` hands out in pieces; `*count` gets their number.
///
/// # Safety
/// `out` is NULL or writable for `capacity` bytes; `count` is NULL or writable.
pub(super) unsafe fn give_pieces(
    len: usize,
    (out, capacity): (*mut u8, usize),
    count: *mut usize,
    what: &'static str,
    write: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    if !unsafe { fits(len, 0, out.is_null(), capacity, count, what) }? {
        return Ok(());
    }
    let mut done = 0;
    write(&mut |piece| {
        if piece.len() > len - done {
            return Err(Error::Internal(format!("more than {len} bytes of {what}")));
        }
        // SAFETY: `out` is writable for capacity ≥ len bytes, of which `done` are written, and can't overlap memory of the
        // library.
        unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), out.add(done), piece.len()) };
        done += piece.len();
        Ok(())
    })?;
    Ok(())
}

/// Gives out text with a NUL behind it; `*length` gets its bytes without the NUL.
///
/// # Safety
/// `out` is NULL or writable for `capacity` bytes; `length` is NULL or writable.
pub(super) unsafe fn give_text(
    text: &[u8],
    out: *mut c_char,
    capacity: usize,
    length: *mut usize,
    what: &'static str,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    if !unsafe { fits(text.len(), 1, out.is_null(), capacity, length, what) }? {
        return Ok(());
    }
    // SAFETY: `out` is writable for capacity ≥ len + 1 bytes, and can't overlap memory of the library.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// Gives out structures that can grow, `stride` bytes apart: the smaller of both sides' sizes is written.
///
/// # Safety
/// `out` is NULL or writable for `capacity` × `stride` bytes; `count` is NULL or writable.
pub(super) unsafe fn give_structs<T: Versioned>(
    values: impl ExactSizeIterator<Item = T>,
    out: *mut T,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> Result<(), Failure> {
    // SAFETY: the function's contract.
    if !unsafe { fits(values.len(), 0, out.is_null(), capacity, count, T::NAME) }? {
        return Ok(());
    }
    for (i, value) in values.enumerate() {
        // SAFETY: i < capacity, so `stride` bytes from here on are the caller's.
        unsafe { super::params::write(out.byte_add(i * stride), &value, stride) }?;
    }
    Ok(())
}

/// Stores the count; says whether the elements are to be written (and `extra` ones behind them).
///
/// # Safety
/// `count` is NULL or writable.
unsafe fn fits(
    len: usize,
    extra: usize,
    out_is_null: bool,
    capacity: usize,
    count: *mut usize,
    what: &'static str,
) -> Result<bool, Failure> {
    if count.is_null() {
        return Err(Failure::null("the pointer for the count"));
    }
    // SAFETY: not NULL, so writable.
    unsafe { count.write(len) };
    match (out_is_null, capacity) {
        (true, 0) => Ok(false),
        (true, _) => Err(Failure::null(what)),
        (false, _) if len + extra > capacity => Err(Failure::too_small(what, capacity, len + extra)),
        (false, _) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::ffi::status::{
        SM_STATUS_BUFFER_TOO_SMALL, SM_STATUS_INVALID_ARGUMENT, SM_STATUS_NULL_POINTER,
    };

    #[test]
    fn arrays_that_can_not_be_are_refused() {
        let word = 1u64;
        let at = ptr::from_ref(&word);
        let status = |data: *const u64, len| {
            // SAFETY: arrays that aren't readable are refused before they are read.
            unsafe { array(data, len, "data") }.map_or_else(|e| e.status, |a| i32::try_from(a.len()).unwrap())
        };
        assert_eq!(status(at, 1), 1);
        assert_eq!(status(ptr::null(), 0), 0);
        assert_eq!(status(ptr::null(), 1), SM_STATUS_NULL_POINTER);
        assert_eq!(status(at.wrapping_byte_add(1), 1), SM_STATUS_INVALID_ARGUMENT);
        for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize / 8] {
            assert_eq!(status(at, len), SM_STATUS_INVALID_ARGUMENT, "{len}");
        }
    }

    #[test]
    fn text_goes_out_whole_or_not_at_all() {
        let give = |capacity: usize| {
            let (mut out, mut length) = ([0x55u8; 8], 0);
            let at = out.as_mut_ptr().cast();
            // SAFETY: capacity ≤ 8.
            let result = unsafe { give_text(b"abc", at, capacity, &mut length, "text") };
            (result.map_err(|e| e.status), length, out)
        };
        assert_eq!(give(4), (Ok(()), 3, *b"abc\0UUUU"));
        for capacity in 0..4 {
            assert_eq!(give(capacity), (Err(SM_STATUS_BUFFER_TOO_SMALL), 3, [0x55; 8]), "{capacity}");
        }
        let mut length = 0;
        // SAFETY: NULL is allowed for no room.
        unsafe { give_text(b"abc", ptr::null_mut(), 0, &mut length, "text") }.unwrap();
        assert_eq!(length, 3);
        // SAFETY: refused before anything is written.
        let null = unsafe { give_text(b"abc", ptr::null_mut(), 9, &mut length, "text") };
        assert_eq!(null.unwrap_err().status, SM_STATUS_NULL_POINTER);
    }

    #[test]
    fn strings_are_checked() {
        // SAFETY: NUL-terminated.
        let read =
            |bytes: &'static CStr| unsafe { string(bytes.as_ptr(), 6, "prompt") }.map_err(|e| e.message);
        assert_eq!(read(c"na\u{ef}ve"), Ok("na\u{ef}ve"));
        assert_eq!(read(c"ab\xff"), Err("prompt is not UTF-8 from byte 2 on".into()));
        assert_eq!(read(c"1234567"), Err("prompt is longer than 6 bytes".into()));
        assert!(at_most(7, 6, "prompt").is_err() && at_most(6, 6, "prompt").is_ok());
        // SAFETY: NULL is allowed to be passed.
        assert_eq!(unsafe { path(ptr::null()) }.unwrap_err().status, SM_STATUS_NULL_POINTER);
        // SAFETY: NUL-terminated.
        assert_eq!(unsafe { path(c"".as_ptr()) }.unwrap_err().status, SM_STATUS_INVALID_ARGUMENT);
    }
}
