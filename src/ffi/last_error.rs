//! The last error of each thread. On Unix it is a thread-specific value of POSIX, not a `thread_local!`: a library that
//! was loaded by `dlopen` gets its thread-local variables on a thread when the thread first uses one, from `malloc`, which
//! reserves 64 MiB of address space for the thread's heap. A thread that only asks for its last error reserves nothing.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use super::status::sm_status;

/// The status of a call that failed, and one line about it.
pub(super) struct LastError {
    pub status: sm_status,
    pub text: Cow<'static, CStr>,
}

impl LastError {
    pub fn new(status: sm_status, message: &str) -> Self {
        let text =
            terminated(message).map_or(Cow::Borrowed(c"out of memory, also for the message"), Cow::Owned);
        Self { status, text }
    }
}

/// The text with a NUL behind it, and U+FFFD for each NUL within; `None` without memory for it.
fn terminated(text: &str) -> Option<CString> {
    const MARK: &str = "\u{fffd}";
    let nuls = text.bytes().filter(|&byte| byte == 0).count();
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(text.len() + nuls * (MARK.len() - 1) + 1).ok()?;
    for (i, part) in text.split('\0').enumerate() {
        bytes.extend_from_slice(if i > 0 { MARK.as_bytes() } else { b"" });
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(0);
    CString::from_vec_with_nul(bytes).ok()
}

#[cfg(unix)]
pub(super) use posix::{replace, with};
#[cfg(not(unix))]
pub(super) use std_only::{replace, with};

#[cfg(unix)]
mod posix {
    use std::alloc::{Layout, alloc};
    use std::ffi::c_void;
    use std::sync::OnceLock;

    use super::LastError;

    /// The key of the thread-specific value; `None` where the system has no more keys.
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

    fn key() -> Option<libc::pthread_key_t> {
        *KEY.get_or_init(|| {
            let mut key = 0;
            // SAFETY: a variable for the key, and a function of the type that POSIX wants.
            let refused = unsafe { libc::pthread_key_create(&mut key, Some(forget)) } != 0;
            (!refused).then_some(key)
        })
    }

    /// Drops the value of a thread that ends.
    ///
    /// # Safety
    /// `value` is the thread's value, which isn't NULL, and which nobody uses any more.
    unsafe extern "C" fn forget(value: *mut c_void) {
        // SAFETY: `replace` allocated it as a box of this type is allocated.
        drop(unsafe { Box::from_raw(value.cast::<LastError>()) });
    }

    fn value(key: libc::pthread_key_t) -> *mut LastError {
        // SAFETY: `key` was created and is never deleted.
        unsafe { libc::pthread_getspecific(key) }.cast()
    }

    /// Looks at the calling thread's last error.
    pub fn with<R>(look: impl FnOnce(Option<&LastError>) -> R) -> R {
        // SAFETY: NULL, or the value that this thread alone uses, and that only `replace` changes.
        look(key().and_then(|key| unsafe { value(key).as_ref() }))
    }

    /// Sets the calling thread's last error. Without memory for the first one, the thread has none.
    pub fn replace(error: LastError) {
        let Some(key) = key() else { return };
        let place = value(key);
        if !place.is_null() {
            // SAFETY: this thread's value, which nobody looks at now.
            unsafe { *place = error };
            return;
        }
        // SAFETY: the layout isn't of size 0.
        let place = unsafe { alloc(Layout::new::<LastError>()) }.cast::<LastError>();
        if place.is_null() {
            return;
        }
        // SAFETY: memory of this layout, just allocated.
        unsafe { place.write(error) };
        // SAFETY: `key` was created and is never deleted.
        if unsafe { libc::pthread_setspecific(key, place.cast()) } != 0 {
            // SAFETY: the value just written, which didn't become the thread's.
            drop(unsafe { Box::from_raw(place) });
        }
    }
}

#[cfg(not(unix))]
mod std_only {
    use std::cell::RefCell;

    use super::LastError;

    thread_local! {
        static LAST: RefCell<Option<LastError>> = const { RefCell::new(None) };
    }

    /// Looks at the calling thread's last error.
    pub fn with<R>(look: impl FnOnce(Option<&LastError>) -> R) -> R {
        let mut look = Some(look);
        let seen = LAST.try_with(|last| look.take().map(|look| look(last.borrow().as_ref())));
        // A thread that is being torn down has no message any more.
        seen.ok().flatten().or_else(|| look.take().map(|look| look(None))).expect("called once")
    }

    /// Sets the calling thread's last error.
    pub fn replace(error: LastError) {
        let _ = LAST.try_with(|last| last.replace(Some(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        with(|last| last.map_or(String::new(), |last| last.text.to_string_lossy().into_owned()))
    }

    #[test]
    fn each_thread_has_its_own_and_an_end_frees_it() {
        replace(LastError::new(7, "a\0b\0"));
        std::thread::spawn(|| {
            assert_eq!(text(), "");
            replace(LastError::new(1, "first"));
            replace(LastError::new(2, "second"));
            assert_eq!(text(), "second");
        })
        .join()
        .unwrap();
        assert_eq!(text(), "a\u{fffd}b\u{fffd}");
        assert_eq!(with(|last| last.map(|last| last.status)), Some(7));
    }
}
