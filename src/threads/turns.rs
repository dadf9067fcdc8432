//! A fair lock: threads get their turns in the order in which they ask for them. A mutex would let a thread that has
//! just released it take it again before a waiting thread has woken: a long prompt, pass after pass, would keep other
//! callers waiting until its end. Waiting threads sleep, since the thread with the turn needs the CPUs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out turns.
pub(super) struct Turns {
    numbers: Mutex<Numbers>,
    moved_on: Condvar,
}

/// The number of turns that have been asked for, and of those that are over.
struct Numbers {
    asked: u64,
    over: u64,
}

/// A turn: until it is dropped, no other thread has one.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub const fn new() -> Self {
        Self { numbers: Mutex::new(Numbers { asked: 0, over: 0 }), moved_on: Condvar::new() }
    }

    /// Waits until all turns asked for earlier are over. The caller sees all that was written during them.
    pub fn take(&self) -> Turn<'_> {
        let mut numbers = self.numbers();
        let before = numbers.asked;
        numbers.asked += 1;
        while numbers.over < before {
            numbers = self.moved_on.wait(numbers).unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // No code panics while it holds the lock.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut numbers = self.0.numbers();
        numbers.over += 1;
        let awaited = numbers.over < numbers.asked;
        drop(numbers);
        if awaited {
            self.0.moved_on.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until this many turns have been asked for.
    fn wait_for(turns: &Turns, asked: u64) {
        while turns.numbers().asked < asked {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_waiting_thread_precedes_one_that_asks_again() {
        let (turns, order) = (Turns::new(), Mutex::new(Vec::new()));
        let mut turn = turns.take();
        std::thread::scope(|s| {
            for waiter in 1..=3 {
                let (turns, order) = (&turns, &order);
                s.spawn(move || {
                    let _turn = turns.take();
                    order.lock().unwrap().push(waiter);
                });
                wait_for(turns, 1 + waiter);
            }
            for again in 4..=6 {
                drop(turn);
                turn = turns.take();
                order.lock().unwrap().push(again);
            }
        });
        assert_eq!(order.into_inner().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn one_at_a_time() {
        let (turns, inside) = (Turns::new(), Mutex::new(()));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..200 {
                        let _turn = turns.take();
                        let _inside = inside.try_lock().expect("nobody else has a turn");
                    }
                });
            }
        });
        assert_eq!(turns.numbers().over, 800);
    }
}
