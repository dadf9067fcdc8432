//! Status
//! ======
//! The outcome of a call, and the sentence that explains a failure.

use std::borrow::Cow;
use std::ffi::{CStr, c_char};
use std::ptr;

use super::last_error::{self, LastError};
use crate::Error;

/// The outcome of a call: `SM_STATUS_OK`, or one of the other `SM_STATUS_*` codes.
///
/// The numbers between the codes are reserved: treat an unknown one as a failure.
pub type sm_status = i32;

/// Done.
pub const SM_STATUS_OK: sm_status = 0;
/// An argument is outside the range that the function accepts; nothing was changed.
pub const SM_STATUS_INVALID_ARGUMENT: sm_status = 1;
/// A pointer that must not be NULL is.
pub const SM_STATUS_NULL_POINTER: sm_status = 2;
/// The caller's buffer is too small for the result. The needed count was stored, nothing else.
pub const SM_STATUS_BUFFER_TOO_SMALL: sm_status = 3;
/// The tokens don't fit into the context; nothing was changed.
pub const SM_STATUS_CONTEXT_FULL: sm_status = 4;
/// The object is in use by another thread, by the function whose callback this is, or by a context that holds it;
/// nothing was changed.
pub const SM_STATUS_BUSY: sm_status = 5;
/// The object belongs to the process that made it, and this process is a fork of it: a fork copies no threads. Make another
/// object in this process. Freeing the object here does nothing.
pub const SM_STATUS_WRONG_PROCESS: sm_status = 6;
/// A file can't be opened or read.
pub const SM_STATUS_IO: sm_status = 20;
/// A file's contents contradict its format.
pub const SM_STATUS_FORMAT: sm_status = 21;
/// A valid request or file that this version doesn't handle.
pub const SM_STATUS_UNSUPPORTED: sm_status = 22;
/// The system refused memory; nothing was changed.
pub const SM_STATUS_OUT_OF_MEMORY: sm_status = 40;
/// The system starts no more threads; nothing was changed. Ask for fewer, or raise the limits on threads and memory.
pub const SM_STATUS_NO_THREADS: sm_status = 41;
/// A callback, `sm_context_cancel` or `sm_context_cancel_generation` asked to stop.
pub const SM_STATUS_CANCELLED: sm_status = 60;
/// A step of training gave a loss or a gradient that is infinite or undefined; nothing was changed.
pub const SM_STATUS_NOT_FINITE: sm_status = 61;
/// A defect of the library, caught before it reached the host.
///
/// If it was found on the calling thread, the context, sampler or team of the call is lost: every later call with it
/// returns this status again, with a message that says so, and it can only be freed. If it was found on another thread
/// of a team, these objects stay usable. Everything else stays usable in any case.
pub const SM_STATUS_INTERNAL: sm_status = 80;

/// The name of a status, such as "SM_STATUS_BUSY"; "unknown status" for a number that is none.
/// NUL-terminated, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sm_status_name(status: sm_status) -> *const c_char {
    name(status).as_ptr()
}

/// One line about the last call *on this thread* that failed, in English and UTF-8; "" before the first failure.
///
/// Calls that succeed don't change it. The text belongs to the library and lives until the next failure on this
/// thread. Never NULL. A thread that only asks takes no memory.
#[unsafe(no_mangle)]
pub extern "C" fn sm_last_error() -> *const c_char {
    last_error::with(|last| last.map_or(c"", |last| &*last.text).as_ptr())
}

/// Copies what `sm_last_error` tells, and the status of the call that failed, for hosts that go on on another thread: call
/// it on the thread of the failure, before that thread calls another function, and take the copy along.
///
/// Returns the bytes of the whole text, NUL included. At most `capacity` bytes are written to `text`, which may be NULL for a
/// capacity of 0: a text that is too long is cut between two characters. `status` may be NULL; it gets `SM_STATUS_OK` before
/// the first failure. This function can't fail, and doesn't change the last error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_last_error_copy(
    text: *mut c_char,
    capacity: usize,
    status: *mut sm_status,
) -> usize {
    last_error::with(|last| {
        let (code, message) = last.map_or((SM_STATUS_OK, c""), |last| (last.status, &*last.text));
        if !status.is_null() {
            // SAFETY: by the header, `status` is NULL or writable.
            unsafe { status.write(code) };
        }
        let bytes = message.to_bytes();
        if capacity > 0 && !text.is_null() {
            let most = bytes.len().min(capacity - 1);
            // A byte that continues a character is 10xxxxxx.
            let cut = (0..=most).rev().find(|&at| bytes.get(at).is_none_or(|byte| byte & 0xc0 != 0x80));
            let len = cut.unwrap_or(0);
            // SAFETY: by the header, `text` is writable for `capacity` bytes, and len < capacity; it can't overlap memory
            // of the library.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), text.cast(), len);
                text.add(len).write(0);
            }
        }
        bytes.len() + 1
    })
}

fn name(status: sm_status) -> &'static CStr {
    match status {
        SM_STATUS_OK => c"SM_STATUS_OK",
        SM_STATUS_INVALID_ARGUMENT => c"SM_STATUS_INVALID_ARGUMENT",
        SM_STATUS_NULL_POINTER => c"SM_STATUS_NULL_POINTER",
        SM_STATUS_BUFFER_TOO_SMALL => c"SM_STATUS_BUFFER_TOO_SMALL",
        SM_STATUS_CONTEXT_FULL => c"SM_STATUS_CONTEXT_FULL",
        SM_STATUS_BUSY => c"SM_STATUS_BUSY",
        SM_STATUS_WRONG_PROCESS => c"SM_STATUS_WRONG_PROCESS",
        SM_STATUS_IO => c"SM_STATUS_IO",
        SM_STATUS_FORMAT => c"SM_STATUS_FORMAT",
        SM_STATUS_UNSUPPORTED => c"SM_STATUS_UNSUPPORTED",
        SM_STATUS_OUT_OF_MEMORY => c"SM_STATUS_OUT_OF_MEMORY",
        SM_STATUS_NO_THREADS => c"SM_STATUS_NO_THREADS",
        SM_STATUS_CANCELLED => c"SM_STATUS_CANCELLED",
        SM_STATUS_NOT_FINITE => c"SM_STATUS_NOT_FINITE",
        SM_STATUS_INTERNAL => c"SM_STATUS_INTERNAL",
        _ => c"unknown status",
    }
}

/// The reason of a failure, which the boundary turns into a status and `sm_last_error`.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: sm_status,
    pub message: Cow<'static, str>,
}

impl Failure {
    pub fn new(status: sm_status, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(SM_STATUS_INVALID_ARGUMENT, message)
    }

    pub fn null(what: &'static str) -> Self {
        Self::new(SM_STATUS_NULL_POINTER, format!("{what} is NULL"))
    }

    pub fn busy(what: &'static str) -> Self {
        Error::Busy(what).into()
    }

    pub fn too_small(what: &'static str, capacity: usize, needed: usize) -> Self {
        let message = format!("{what}: the buffer has room for {capacity}, {needed} are needed");
        Self::new(SM_STATUS_BUFFER_TOO_SMALL, message)
    }

    /// Makes this the thread's last error.
    pub fn publish(self) -> sm_status {
        last_error::replace(LastError::new(self.status, &self.message));
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::InvalidArgument(_) => SM_STATUS_INVALID_ARGUMENT,
            Error::NotFinite(_) => SM_STATUS_NOT_FINITE,
            Error::Io { .. } => SM_STATUS_IO,
            Error::Format(_) => SM_STATUS_FORMAT,
            Error::Unsupported(_) => SM_STATUS_UNSUPPORTED,
            Error::OutOfMemory { .. } => SM_STATUS_OUT_OF_MEMORY,
            Error::NoThreads { .. } => SM_STATUS_NO_THREADS,
            Error::WrongProcess(_) => SM_STATUS_WRONG_PROCESS,
            Error::ContextFull { .. } => SM_STATUS_CONTEXT_FULL,
            Error::Cancelled => SM_STATUS_CANCELLED,
            Error::Busy(_) => SM_STATUS_BUSY,
            Error::Internal(_) => SM_STATUS_INTERNAL,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_copied_whole_or_cut_between_characters() {
        Failure::new(SM_STATUS_IO, "a\u{e9}\u{1f600}").publish();
        let copy = |capacity: usize| {
            let (mut text, mut status) = ([0x55u8; 12], -1);
            // SAFETY: capacity ≤ 12, and room for a status.
            let needed = unsafe { sm_last_error_copy(text.as_mut_ptr().cast(), capacity, &mut status) };
            assert_eq!((needed, status), (8, SM_STATUS_IO));
            assert!(text[capacity..].iter().all(|&byte| byte == 0x55));
            CStr::from_bytes_until_nul(&text)
                .map(|text| text.to_str().expect("whole characters").to_owned())
                .ok()
        };
        let texts = [None, Some(""), Some("a"), Some("a"), Some("a\u{e9}"), Some("a\u{e9}")];
        for (capacity, text) in texts.into_iter().enumerate() {
            assert_eq!(copy(capacity).as_deref(), text, "{capacity}");
        }
        assert_eq!(copy(7).as_deref(), Some("a\u{e9}"));
        assert_eq!(copy(8).as_deref(), Some("a\u{e9}\u{1f600}"));
        assert_eq!(copy(12).as_deref(), Some("a\u{e9}\u{1f600}"));
        // SAFETY: NULL is allowed.
        assert_eq!(unsafe { sm_last_error_copy(ptr::null_mut(), 0, ptr::null_mut()) }, 8);
        std::thread::spawn(|| {
            let mut status = -1;
            // SAFETY: room for a status.
            assert_eq!(unsafe { sm_last_error_copy(ptr::null_mut(), 5, &mut status) }, 1);
            assert_eq!(status, SM_STATUS_OK);
        })
        .join()
        .unwrap();
    }
}
