//! The one way from C into Rust: it runs the body of a function, turns a failure into a status and a message, and
//! stops panics, which must not reach a host.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::log::{SM_LOG_ERROR, log};
use super::status::{Failure, SM_STATUS_INTERNAL, SM_STATUS_OK, SM_STATUS_OUT_OF_MEMORY, sm_status};
use crate::memory::spare;

/// Runs `body`, which allocates in many places that can't fail, and reports. It is refused where memory is so short that
/// there is no [spare] for these.
pub(super) fn call_with_spare(body: impl FnOnce() -> Result<(), Failure>) -> sm_status {
    call(|| {
        if !spare::ready_for_work() {
            return Err(Failure::new(SM_STATUS_OUT_OF_MEMORY, "out of memory: no spare memory for the call"));
        }
        body()
    })
}

/// Runs `body` and reports.
///
/// Asserting unwind safety is sound here: an object that a panic may have left half changed is behind a
/// [`super::handle::Exclusive`], which refuses every later call.
#[inline]
pub(super) fn call(body: impl FnOnce() -> Result<(), Failure>) -> sm_status {
    // A call that needs none goes on without.
    let _ = spare::ready();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SM_STATUS_OK,
        Ok(Err(failure)) => failure.publish(),
        Err(panic) => {
            let failure = caught(panic.as_ref());
            log(SM_LOG_ERROR, &failure.message);
            failure.publish()
        }
    }
}

fn caught(panic: &(dyn Any + Send)) -> Failure {
    let said = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without a message",
    };
    Failure::new(SM_STATUS_INTERNAL, format!("internal error: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::ffi::status::{SM_STATUS_CANCELLED, sm_last_error};
    use std::ffi::CStr;

    fn last_error() -> String {
        // SAFETY: never NULL, and nothing fails on this thread before the text is copied.
        unsafe { CStr::from_ptr(sm_last_error()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_and_the_next_call_works() {
        assert_eq!(call(|| panic!("planted {}", 7)), SM_STATUS_INTERNAL);
        assert_eq!(last_error(), "internal error: planted 7");
        assert_eq!(call(|| std::panic::panic_any(5u8)), SM_STATUS_INTERNAL);
        assert_eq!(last_error(), "internal error: a panic without a message");
        assert_eq!(call(|| Ok(())), SM_STATUS_OK);
    }

    #[test]
    fn errors_carry_their_message_even_with_a_nul_in_it() {
        assert_eq!(call(|| Err(Error::Cancelled.into())), SM_STATUS_CANCELLED);
        assert_eq!(last_error(), "cancelled");
        assert_eq!(call(|| Err(Failure::invalid("a\0b"))), crate::ffi::status::SM_STATUS_INVALID_ARGUMENT);
        assert_eq!(last_error(), "a\u{fffd}b");
    }

    #[test]
    fn the_last_error_belongs_to_its_thread() {
        call(|| Err(Failure::invalid("mine")));
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
        assert_eq!(last_error(), "mine");
    }
}
