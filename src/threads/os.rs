//! Sleeping until a number changes: a futex on Linux, a mutex and a condition variable elsewhere.
//! Both behave alike: a wait returns when woken, when the number isn't the expected one, or for no reason.

#[cfg(target_os = "linux")]
pub(super) use linux::Futex;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Futex;

#[cfg(target_os = "linux")]
mod linux {
    use std::ptr::null;
    use std::sync::atomic::AtomicU32;

    /// A number that can be slept on.
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
            // SAFETY: the address is a live, aligned u32; no timeout. Every error (a signal, the number having
            // changed) means what waking for no reason means.
            unsafe {
                let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
                let timeout = null::<libc::timespec>();
                libc::syscall(libc::SYS_futex, self.value.as_ptr(), operation, expected, timeout);
            }
        }

        /// Wakes everyone asleep. Call it after changing the number.
        pub fn wake_all(&self) {
            // SAFETY: the address is a live, aligned u32.
            unsafe {
                let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
                libc::syscall(libc::SYS_futex, self.value.as_ptr(), operation, i32::MAX);
            }
        }
    }
}

#[cfg(any(not(target_os = "linux"), test))]
mod portable {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::sync::{Condvar, Mutex, PoisonError};

    /// A number that can be slept on.
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

        /// Wakes everyone asleep. Call it after changing the number.
        pub fn wake_all(&self) {
            // Taken so that nobody is between looking at the number and going to sleep.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    /// Two threads take turns through a pair of numbers: a lost wake-up would hang.
    macro_rules! takes_turns {
        ($name:ident, $futex:ty) => {
            #[test]
            fn $name() {
                let (ping, pong) = (<$futex>::new(0), <$futex>::new(0));
                let sleep_until = |futex: &$futex, turn: u32| loop {
                    match futex.value().load(SeqCst) {
                        seen if seen == turn => break,
                        seen => futex.wait(seen),
                    }
                };
                std::thread::scope(|s| {
                    s.spawn(|| {
                        for turn in 1..=2000 {
                            sleep_until(&ping, turn);
                            pong.value().store(turn, SeqCst);
                            pong.wake_all();
                        }
                    });
                    for turn in 1..=2000 {
                        ping.value().store(turn, SeqCst);
                        ping.wake_all();
                        sleep_until(&pong, turn);
                    }
                });
                ping.wait(1); // not the number: returns at once
            }
        };
    }
    takes_turns!(portable_takes_turns, super::portable::Futex);
    #[cfg(target_os = "linux")]
    takes_turns!(linux_takes_turns, super::linux::Futex);
}
