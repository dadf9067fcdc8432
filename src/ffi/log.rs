//! Log
//! ===
//! Lines about loads, contexts and defects. The library prints nothing: without a callback the lines are lost.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::{PoisonError, RwLock};

use super::boundary;
use super::status::{Failure, sm_status};

/// A defect of the library.
pub const SM_LOG_ERROR: i32 = 1;
/// A condition that you should look at; the call goes on.
pub const SM_LOG_WARNING: i32 = 2;
/// Something was done: a model loaded, a context made.
pub const SM_LOG_INFO: i32 = 3;

/// Takes one line: NUL-terminated UTF-8 without a line end, which lives until the callback returns.
///
/// `level` is one of `SM_LOG_*`. The callback may be called on any thread that is inside the library, and on several at
/// once. It must return normally: no `longjmp`, no C++ exception.
pub type sm_log_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, message: *const c_char)>;

/// Sends the log to `callback` from now on; NULL sends it nowhere, as at start.
///
/// It waits for lines that are being delivered: after it returns, the former callback isn't running and won't be called
/// again, and its `user_data` may be freed. Inside a log callback, the status is `SM_STATUS_BUSY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_set_log_callback(callback: sm_log_callback, user_data: *mut c_void) -> sm_status {
    boundary::call(|| {
        if DELIVERING.get() {
            return Err(Failure::busy("the log"));
        }
        let mut sink = SINK.write().unwrap_or_else(PoisonError::into_inner);
        *sink = callback.map(|callback| Sink { callback, user_data });
        Ok(())
    })
}

struct Sink {
    callback: unsafe extern "C" fn(*mut c_void, i32, *const c_char),
    user_data: *mut c_void,
}

// SAFETY: the host promises that the callback may be called on any thread, on several at once.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

/// Where the log goes: one place for the process, as errors may come from any object or none.
static SINK: RwLock<Option<Sink>> = RwLock::new(None);

thread_local! {
    /// A callback of this thread is running: it holds the lock, and a second line would wait for itself.
    static DELIVERING: Cell<bool> = const { Cell::new(false) };
}

/// Delivers one line to the host, if it listens. Lines made by the log callback itself are dropped.
pub(super) fn log(level: i32, message: &str) {
    if DELIVERING.get() {
        return;
    }
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
    let (Some(sink), Ok(message)) = (sink.as_ref(), CString::new(message)) else {
        return;
    };
    DELIVERING.set(true);
    // SAFETY: the host gave a function of this signature, and its user_data, for as long as it is set.
    unsafe { (sink.callback)(sink.user_data, level, message.as_ptr()) };
    DELIVERING.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::status::{SM_STATUS_BUSY, SM_STATUS_OK};
    use std::ffi::CStr;
    use std::ptr;

    #[derive(Default)]
    struct Heard {
        lines: Vec<String>,
        status_of_nested_set: sm_status,
    }

    unsafe extern "C" fn hear(heard: *mut c_void, level: i32, message: *const c_char) {
        // SAFETY: the test passes a `Heard` that nobody else uses meanwhile.
        let heard = unsafe { &mut *heard.cast::<Heard>() };
        // SAFETY: NUL-terminated.
        let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
        heard.lines.push(format!("{level} {message}"));
        // SAFETY: NULL is allowed.
        heard.status_of_nested_set = unsafe { sm_set_log_callback(None, ptr::null_mut()) };
        log(SM_LOG_INFO, "from within");
    }

    #[test]
    fn lines_are_delivered_and_a_callback_can_not_lock_itself_out() {
        let mut heard = Heard::default();
        let user_data = ptr::from_mut(&mut heard).cast();
        // SAFETY: `heard` outlives the callback's setting.
        unsafe {
            assert_eq!(sm_set_log_callback(Some(hear), user_data), SM_STATUS_OK);
            log(SM_LOG_WARNING, "planted");
            assert_eq!(sm_set_log_callback(None, ptr::null_mut()), SM_STATUS_OK);
        }
        log(SM_LOG_WARNING, "after");
        // Other tests of this process may log meanwhile; these lines are ours.
        assert_eq!(heard.lines.iter().filter(|l| *l == "2 planted").count(), 1);
        assert!(!heard.lines.iter().any(|l| l.ends_with("after") || l.ends_with("from within")));
        assert_eq!(heard.status_of_nested_set, SM_STATUS_BUSY);
    }
}
