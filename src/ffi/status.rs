//! Status
//! ======
//! The outcome of a call, and the sentence that explains a failure.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

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
/// A file can't be opened or read.
pub const SM_STATUS_IO: sm_status = 20;
/// A file's contents contradict its format.
pub const SM_STATUS_FORMAT: sm_status = 21;
/// A valid request or file that this version doesn't handle.
pub const SM_STATUS_UNSUPPORTED: sm_status = 22;
/// The system refused memory; nothing was changed.
pub const SM_STATUS_OUT_OF_MEMORY: sm_status = 40;
/// A callback, or `sm_context_cancel`, asked to stop.
pub const SM_STATUS_CANCELLED: sm_status = 60;
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
/// thread. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn sm_last_error() -> *const c_char {
    // A thread that is being torn down has no message any more.
    let text = LAST_ERROR.try_with(|last| last.borrow().as_deref().map(CStr::as_ptr));
    text.ok().flatten().unwrap_or(c"".as_ptr())
}

thread_local! {
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
}

fn name(status: sm_status) -> &'static CStr {
    match status {
        SM_STATUS_OK => c"SM_STATUS_OK",
        SM_STATUS_INVALID_ARGUMENT => c"SM_STATUS_INVALID_ARGUMENT",
        SM_STATUS_NULL_POINTER => c"SM_STATUS_NULL_POINTER",
        SM_STATUS_BUFFER_TOO_SMALL => c"SM_STATUS_BUFFER_TOO_SMALL",
        SM_STATUS_CONTEXT_FULL => c"SM_STATUS_CONTEXT_FULL",
        SM_STATUS_BUSY => c"SM_STATUS_BUSY",
        SM_STATUS_IO => c"SM_STATUS_IO",
        SM_STATUS_FORMAT => c"SM_STATUS_FORMAT",
        SM_STATUS_UNSUPPORTED => c"SM_STATUS_UNSUPPORTED",
        SM_STATUS_OUT_OF_MEMORY => c"SM_STATUS_OUT_OF_MEMORY",
        SM_STATUS_CANCELLED => c"SM_STATUS_CANCELLED",
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
        let message = CString::new(self.message.replace('\0', "\u{fffd}")).ok();
        // On a thread that is being torn down nobody is left to read it.
        let _ = LAST_ERROR.try_with(|last| last.replace(message));
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::InvalidArgument(_) => SM_STATUS_INVALID_ARGUMENT,
            Error::Io { .. } => SM_STATUS_IO,
            Error::Format(_) => SM_STATUS_FORMAT,
            Error::Unsupported(_) => SM_STATUS_UNSUPPORTED,
            Error::OutOfMemory { .. } => SM_STATUS_OUT_OF_MEMORY,
            Error::ContextFull { .. } => SM_STATUS_CONTEXT_FULL,
            Error::Cancelled => SM_STATUS_CANCELLED,
            Error::Busy(_) => SM_STATUS_BUSY,
            Error::Internal(_) => SM_STATUS_INTERNAL,
        };
        Self::new(status, error.to_string())
    }
}
