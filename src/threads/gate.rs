//! A number that rises, and waiting for it: spinning first, sleeping then.
//! How long to spin is learnt: where waits outlast it (an oversubscribed machine), spinning nearly stops.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use super::os::Futex;

/// Looks at the number before going to sleep, at most. With a pause of 10 to 50 ns between looks (it depends
/// on the processor) this is 80 to 400 µs: longer than the shares of one op should differ, and than a host takes from
/// one call to the next. A quarter of it let products of 256³ on two threads fall asleep between calls: 171 GFLOPS
/// instead of 332.
const MOST_LOOKS: u32 = 8000;

/// And at least: about what crossing over from another core takes, so that a fast partner is never missed.
const FEWEST_LOOKS: u32 = 20;

/// While less than the most is allowed, one wait in so many spins that long all the same, to learn whether it
/// would do again.
const PROBE_EVERY: u32 = 32;

/// How long one thread spins.
pub(super) struct Patience {
    looks: Cell<u32>,
    since_probe: Cell<u32>,
}

impl Patience {
    pub fn new() -> Self {
        Self { looks: Cell::new(MOST_LOOKS), since_probe: Cell::new(0) }
    }

    /// Looks allowed for the next wait.
    fn looks(&self) -> u32 {
        if self.looks.get() < MOST_LOOKS && self.since_probe.get() >= PROBE_EVERY {
            self.since_probe.set(0);
            return MOST_LOOKS;
        }
        self.since_probe.set(self.since_probe.get() + 1);
        self.looks.get()
    }

    /// The wait ended while spinning, after `used` looks: twice as many are worth it.
    fn succeeded(&self, used: u32) {
        self.looks.set(self.looks.get().max(used.saturating_mul(2)).clamp(FEWEST_LOOKS, MOST_LOOKS));
    }

    /// The wait outlasted the spinning.
    fn failed(&self) {
        self.looks.set((self.looks.get() / 2).max(FEWEST_LOOKS));
    }
}

/// A rising number with a count of those asleep on it, so that raising it costs no system call where nobody is.
/// On cache lines of its own: two, as some processors fetch them in pairs.
#[repr(align(128))]
pub(super) struct Gate {
    number: Futex,
    sleepers: AtomicU32,
}

impl Gate {
    pub const fn new() -> Self {
        Self { number: Futex::new(0), sleepers: AtomicU32::new(0) }
    }

    /// The number now. Sees all that was written before it was raised to that.
    pub fn number(&self) -> u32 {
        self.number.value().load(SeqCst)
    }

    /// Changes the number and wakes those who wait for it.
    pub fn change(&self, change: impl FnOnce(&AtomicU32) -> u32) {
        change(self.number.value());
        // Either this sees the sleeper's count, or the sleeper sees the new number (both in the one order
        // of SeqCst), or both: never neither.
        if self.sleepers.load(SeqCst) > 0 {
            self.number.wake_all();
        }
    }

    /// Sets the number where nobody waits for it, and before something that others do wait for.
    pub fn set_unwatched(&self, number: u32) {
        self.number.value().store(number, Relaxed);
    }

    /// Waits until the number isn't `seen` any more, and returns it.
    pub fn wait_past(&self, seen: u32, patience: &Patience) -> u32 {
        let looks = patience.looks();
        for look in 0..looks {
            let number = self.number();
            if number != seen {
                patience.succeeded(look);
                return number;
            }
            spin_loop();
        }
        patience.failed();
        self.sleepers.fetch_add(1, SeqCst);
        let number = loop {
            let number = self.number();
            if number != seen {
                break number;
            }
            self.number.wait(seen);
        };
        self.sleepers.fetch_sub(1, SeqCst);
        number
    }
}
