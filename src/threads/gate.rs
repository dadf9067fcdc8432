//! A number that rises, and threads that wait for it: they spin first and sleep then.
//! The length of spinning is adaptive: where waits outlast it, as on an oversubscribed machine, spinning nearly stops.

use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use super::os::Futex;

/// Most looks at the number before a thread goes to sleep. With a pause of 10 to 50 ns between looks, depending on the
/// processor, they take 80 to 400 µs. That is longer than the shares of one op should differ, and longer than a host
/// takes between two calls. With a quarter of it, threads fell asleep between products of 256³: 171 instead of 332
/// GFLOPS on two threads.
const MOST_LOOKS: u32 = 8000;

/// Fewest looks: about the time in which a change arrives from another core, so that a thread never sleeps where the
/// other one is just as fast.
const FEWEST_LOOKS: u32 = 20;

/// Of this many waits with fewer looks than the most, one spins for the most looks after all, to find out whether
/// longer spinning succeeds again.
const PROBE_EVERY: u32 = 32;

/// The number of looks for which one thread spins, adapted to its waits.
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

    /// Notes that a wait ended while spinning, after `used` looks: allow at least twice as many.
    fn succeeded(&self, used: u32) {
        self.looks.set(self.looks.get().max(used.saturating_mul(2)).clamp(FEWEST_LOOKS, MOST_LOOKS));
    }

    /// Notes that a wait outlasted the spinning: allow half as many looks.
    fn failed(&self) {
        self.looks.set((self.looks.get() / 2).max(FEWEST_LOOKS));
    }
}

/// A rising number and the number of threads asleep on it: with none asleep, raising it costs no system call.
/// It has two cache lines of its own, since some processors fetch lines in pairs.
#[repr(align(128))]
pub(super) struct Gate {
    number: Futex,
    sleepers: AtomicU32,
}

impl Gate {
    pub const fn new() -> Self {
        Self { number: Futex::new(0), sleepers: AtomicU32::new(0) }
    }

    /// The current number. The caller sees all that was written before the number was raised to it.
    pub fn number(&self) -> u32 {
        self.number.value().load(SeqCst)
    }

    /// Changes the number and wakes the threads that wait for it.
    #[inline]
    pub fn change(&self, change: impl FnOnce(&AtomicU32) -> u32) {
        change(self.number.value());
        // In the single order of SeqCst operations, either this thread sees the count of a thread about to sleep, or
        // that thread sees the new number, or both.
        if self.sleepers.load(SeqCst) > 0 {
            self.number.wake_all();
        }
    }

    /// Sets the number while no thread waits for it. Another gate, changed later, publishes it.
    pub fn set_unwatched(&self, number: u32) {
        self.number.value().store(number, Relaxed);
    }

    /// Waits until the number differs from `seen`, and returns it.
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
