//! The owners of the objects behind C pointers: owned (a `Box` that was given out and is taken back by `*_free`),
//! borrowed (for the length of one call), or exclusive (one call at a time; other calls get busy). An exclusive object
//! stays usable after any error that a call returns, and is lost after a panic on the calling thread.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::status::{Failure, SM_STATUS_INTERNAL};
use crate::Error;
use crate::threads::Home;

/// Stores a new object in the caller's variable, which owns it until the matching `*_free`. The host may use
/// and free it on any thread, hence the bounds.
///
/// # Safety
/// `out` is writable.
pub(super) unsafe fn give<T: Send + Sync>(out: *mut *mut T, object: T) {
    // SAFETY: the function's contract.
    unsafe { out.write(Box::into_raw(Box::new(object))) }
}

/// Checks the caller's variable for a new object and sets it to NULL, so that a failure leaves no garbage.
///
/// # Safety
/// `out` is NULL or writable.
pub(super) unsafe fn clear_out<T>(out: *mut *mut T, what: &'static str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: not NULL, so writable.
    unsafe { out.write(std::ptr::null_mut()) };
    Ok(())
}

/// Takes an owned object back, to drop it.
///
/// # Safety
/// `object` came from [`give`], isn't NULL, and nobody uses it any more.
pub(super) unsafe fn take<T>(object: *mut T) -> Box<T> {
    // SAFETY: the function's contract.
    unsafe { Box::from_raw(object) }
}

/// The object that a pointer points to, for the length of the call.
///
/// # Safety
/// `object` is NULL or points to a live `T` that nobody changes during `'a`.
pub(super) unsafe fn borrow<'a, T>(object: *const T, what: &'static str) -> Result<&'a T, Failure> {
    // SAFETY: the function's contract.
    unsafe { object.as_ref() }.ok_or_else(|| Failure::null(what))
}

/// An object for one call at a time. A call that comes while another is inside, from a second thread or from the first
/// one's callback, is refused instead of waiting.
///
/// A call that returns an error leaves the object usable, be it [`Error::Internal`]: a panic on
/// another thread of a team ends as that error, and the team has seen to it that the object is whole. A panic on the
/// calling thread unwinds through the object and may leave it half changed: every later call is refused with
/// `SM_STATUS_INTERNAL`, and only freeing it is allowed.
#[derive(Debug)]
pub(super) struct Exclusive<T> {
    state: AtomicU8,
    what: &'static str,
    /// The process that has the object's threads, where it has some: a fork of it doesn't.
    home: Option<Arc<Home>>,
    object: UnsafeCell<T>,
}

const FREE: u8 = 0;
const ENTERED: u8 = 1;
const POISONED: u8 = 2;

// SAFETY: `enter` lets one thread at a time at the object, as a mutex does.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    pub fn new(what: &'static str, object: T) -> Self {
        Self { state: AtomicU8::new(FREE), what, home: None, object: UnsafeCell::new(object) }
    }

    /// An object that only one process can use.
    pub fn at_home(what: &'static str, object: T, home: &Arc<Home>) -> Self {
        Self { home: Some(home.clone()), ..Self::new(what, object) }
    }

    /// The object alone.
    pub fn into_inner(self) -> T {
        self.object.into_inner()
    }

    /// Refuses a fork of the process that has the object's threads.
    #[inline]
    pub fn check_home(&self) -> Result<(), Failure> {
        match &self.home {
            Some(home) if !home.is_here() => Err(Error::WrongProcess(self.what).into()),
            _ => Ok(()),
        }
    }

    /// The object, until the result is dropped.
    pub fn enter(&self) -> Result<Entered<'_, T>, Failure> {
        self.check_home()?;
        match self.state.compare_exchange(FREE, ENTERED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Entered { exclusive: self, panicking: std::thread::panicking() }),
            Err(POISONED) => {
                let message = format!("{} was lost to an internal error; free it", self.what);
                Err(Failure::new(SM_STATUS_INTERNAL, message))
            }
            Err(_) => Err(Failure::busy(self.what)),
        }
    }

    /// Keeps every later call out, so that the object can be dropped; `Err` while a call is inside.
    pub fn retire(&self) -> Result<(), Failure> {
        match self.enter() {
            Ok(entered) => std::mem::forget(entered),
            Err(failure) if failure.status == SM_STATUS_INTERNAL => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

/// Access to the object of an [`Exclusive`].
pub(super) struct Entered<'a, T> {
    exclusive: &'a Exclusive<T>,
    /// The thread was unwinding already when it came in, so a panic isn't this call's.
    panicking: bool,
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the state is ENTERED on behalf of this value alone.
        unsafe { &*self.exclusive.object.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the state is ENTERED on behalf of this value alone.
        unsafe { &mut *self.exclusive.object.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        let lost = std::thread::panicking() && !self.panicking;
        self.exclusive.state.store(if lost { POISONED } else { FREE }, Ordering::Release);
    }
}

/// Frees an exclusive object: nothing for NULL, refused while a call is inside. In a fork of its process nothing is done:
/// a call may have been inside at the moment of the fork, on a thread that isn't here to leave it.
///
/// # Safety
/// `object` is NULL or came from [`give`]; after success nobody uses it any more.
pub(super) unsafe fn free_exclusive<T, U>(
    object: *mut T,
    exclusive: impl FnOnce(&T) -> &Exclusive<U>,
) -> Result<(), Failure> {
    // SAFETY: NULL or alive.
    if let Some(alive) = unsafe { object.as_ref() } {
        let exclusive = exclusive(alive);
        if exclusive.check_home().is_err() {
            return Ok(());
        }
        exclusive.retire()?;
        // SAFETY: not NULL; no call is inside, and none can enter.
        drop(unsafe { take(object) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::boundary::call;
    use crate::ffi::status::{SM_STATUS_BUSY, SM_STATUS_OK};
    use crate::threads::Team;

    #[test]
    fn a_second_entry_is_busy_and_a_later_one_is_not() {
        let object = Exclusive::new("the context", 5);
        let status = call(|| {
            let mut value = object.enter()?;
            *value += 1;
            std::thread::scope(|s| s.spawn(|| assert_eq!(enter(&object), SM_STATUS_BUSY)).join()).unwrap();
            assert_eq!(object.retire().unwrap_err().status, SM_STATUS_BUSY);
            Ok(())
        });
        assert_eq!(status, SM_STATUS_OK);
        assert_eq!(*object.enter().unwrap(), 6);
    }

    #[test]
    fn a_panic_inside_refuses_the_object_but_lets_it_be_freed() {
        let object = Exclusive::new("the context", ());
        let status = call(|| {
            let _inside = object.enter()?;
            panic!("planted")
        });
        assert_eq!(status, SM_STATUS_INTERNAL);
        assert_eq!(enter(&object), SM_STATUS_INTERNAL);
        let message = object.enter().map(drop).unwrap_err().message;
        assert_eq!(message, "the context was lost to an internal error; free it");
        assert!(object.retire().is_ok());
    }

    #[test]
    fn a_panic_of_a_worker_is_an_error_that_leaves_the_object_usable() {
        let (object, team) = (Exclusive::new("the context", 5), Team::new(2).unwrap());
        for panicking in 0..2 {
            let status = call(|| {
                let _inside = object.enter()?;
                Ok(team.run(|worker| assert_ne!(worker.index(), panicking, "planted"))?)
            });
            assert_eq!(status, SM_STATUS_INTERNAL, "worker {panicking}");
            assert_eq!(object.enter().map(|value| *value).unwrap(), 5, "worker {panicking}");
            assert!(team.run(|_| ()).is_ok());
        }
    }

    fn enter<T>(object: &Exclusive<T>) -> i32 {
        call(|| object.enter().map(drop))
    }
}
