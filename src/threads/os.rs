//! Sleeping until a number changes: by a futex on Linux, by a mutex and a condition variable elsewhere.
//! Both behave alike: a wait returns when woken, when the number isn't the expected one, or spuriously.
//! And [`Home`], which tells a forked child from its parent: by a page that the child finds empty on Linux, by the
//! process's number elsewhere.

#[cfg(target_os = "linux")]
pub(super) use linux::Futex;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Futex;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::memory::Mapping;

/// The process that made an object.
#[derive(Debug)]
pub(crate) struct Home {
    /// A page with a mark that a forked child doesn't see. Asking for the process's number is a system call; a small
    /// kernel takes little longer.
    page: Option<Mapping>,
    process: u32,
}

impl Home {
    /// The calling process.
    pub fn here() -> Self {
        let page = Mapping::wiped_by_forks();
        page.iter().for_each(|page| mark(page).store(1, Relaxed));
        Self { page, process: std::process::id() }
    }

    /// Whether the calling process is the one that made this.
    #[inline]
    pub fn is_here(&self) -> bool {
        match &self.page {
            Some(page) => mark(page).load(Relaxed) != 0,
            None => std::process::id() == self.process,
        }
    }
}

/// The number at the beginning of a page.
#[inline]
fn mark(page: &Mapping) -> &AtomicU32 {
    // SAFETY: a mapping begins at the boundary of a page, and is readable and writable as long as it lives; zeroes are a
    // number, and nobody else uses its bytes.
    unsafe { page.first().cast().as_ref() }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ptr::null;
    use std::sync::atomic::AtomicU32;

    /// A number on which threads can sleep.
    pub struct Futex {
        value: AtomicU32,
    }

    impl Futex {
        pub const fn new(value: u32) -> Self {
            Self { value: AtomicU32::new(value) }
        }

        pub fn value(&self) -> &AtomicU32 {
            &self.value
        }

        /// Sleeps while the number is `expected`.
        pub fn wait(&self, expected: u32) {
            // An error (a signal, a number that has changed already) is a spurious return.
            self.call(libc::FUTEX_WAIT, expected);
        }

        /// Wakes all sleeping threads. Call it after changing the number.
        pub fn wake_all(&self) {
            self.call(libc::FUTEX_WAKE, i32::MAX as u32);
        }

        /// FUTEX_WAIT, or FUTEX_WAKE, which ignores the timeout.
        fn call(&self, operation: libc::c_int, number: u32) {
            let operation = operation | libc::FUTEX_PRIVATE_FLAG;
            let timeout = null::<libc::timespec>();
            // SAFETY: the arguments of both operations: `value` is a live, aligned u32, and a null timeout means none.
            unsafe { libc::syscall(libc::SYS_futex, self.value.as_ptr(), operation, number, timeout) };
        }
    }
}

#[cfg(any(not(target_os = "linux"), test))]
mod portable {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::sync::{Condvar, Mutex, PoisonError};

    /// A number on which threads can sleep.
    pub struct Futex {
        value: AtomicU32,
        lock: Mutex<()>,
        changed: Condvar,
    }

    impl Futex {
        pub const fn new(value: u32) -> Self {
            Self { value: AtomicU32::new(value), lock: Mutex::new(()), changed: Condvar::new() }
        }

        pub fn value(&self) -> &AtomicU32 {
            &self.value
        }

        /// Sleeps while the number is `expected`.
        pub fn wait(&self, expected: u32) {
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            if self.value.load(SeqCst) == expected {
                drop(self.changed.wait(guard));
            }
        }

        /// Wakes all sleeping threads. Call it after changing the number.
        pub fn wake_all(&self) {
            // While this thread has the lock, no thread is between looking at the number and going to sleep.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[cfg(target_os = "linux")]
    #[test]
    fn a_forked_child_is_elsewhere() {
        let (home, plain) = (super::Home::here(), super::Home { page: None, ..super::Home::here() });
        assert!(home.is_here() && plain.is_here());
        // SAFETY: the child only reads memory and ends at once, which is safe after a fork of several threads.
        let status = unsafe {
            match libc::fork() {
                0 => libc::_exit(i32::from(home.is_here()) + 2 * i32::from(plain.is_here())),
                child => {
                    let mut status = -1;
                    assert_eq!(libc::waitpid(child, &mut status, 0), child);
                    status
                }
            }
        };
        assert!(libc::WIFEXITED(status), "{status}");
        assert_eq!(libc::WEXITSTATUS(status), 0);
        assert!(home.is_here() && plain.is_here());
    }

    /// A number on which threads can sleep, of either kind.
    trait Sleep: Sync {
        fn value(&self) -> &AtomicU32;
        fn wait(&self, expected: u32);
        fn wake_all(&self);
    }

    /// Two threads alternate through a pair of numbers: a lost wake-up would hang.
    fn alternate(ping: &impl Sleep, pong: &impl Sleep) {
        fn sleep_until(futex: &impl Sleep, wanted: u32) {
            loop {
                match futex.value().load(SeqCst) {
                    seen if seen == wanted => break,
                    seen => futex.wait(seen),
                }
            }
        }
        std::thread::scope(|s| {
            s.spawn(|| {
                for round in 1..=2000 {
                    sleep_until(ping, round);
                    pong.value().store(round, SeqCst);
                    pong.wake_all();
                }
            });
            for round in 1..=2000 {
                ping.value().store(round, SeqCst);
                ping.wake_all();
                sleep_until(pong, round);
            }
        });
        ping.wait(1); // not the number: returns at once
    }

    impl Sleep for super::portable::Futex {
        fn value(&self) -> &AtomicU32 {
            self.value()
        }
        fn wait(&self, expected: u32) {
            self.wait(expected);
        }
        fn wake_all(&self) {
            self.wake_all();
        }
    }

    #[test]
    fn portable_wakes() {
        alternate(&super::portable::Futex::new(0), &super::portable::Futex::new(0));
    }

    #[cfg(target_os = "linux")]
    impl Sleep for super::linux::Futex {
        fn value(&self) -> &AtomicU32 {
            self.value()
        }
        fn wait(&self, expected: u32) {
            self.wait(expected);
        }
        fn wake_all(&self) {
            self.wake_all();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_wakes() {
        alternate(&super::linux::Futex::new(0), &super::linux::Futex::new(0));
    }
}
