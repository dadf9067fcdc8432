//! Turns of several threads at one thing, in the order in which they came. A mutex would let a thread that has just
//! left enter again before the one that waits has woken: a long prompt, pass after pass, would keep others waiting to
//! its end. Whoever waits sleeps, since the CPUs belong to the one whose turn it is.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out turns.
pub(super) struct Turns {
    numbers: Mutex<Numbers>,
    moved_on: Condvar,
}

/// Of the turns: how many have been asked for, and how many are over.
struct Numbers {
    asked: u64,
    over: u64,
}

/// A turn: until it is dropped, nobody else has one.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    pub const fn new() -> Self {
        Self { numbers: Mutex::new(Numbers { asked: 0, over: 0 }), moved_on: Condvar::new() }
    }

    /// Waits for all that came before. What they did in their turns is seen.
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
        // Nothing panics while it is locked.
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

    /// Waits until so many turns have been asked for.
    fn wait_for(turns: &Turns, asked: u64) {
        while turns.numbers().asked < asked {
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_waits_goes_before_who_comes_again() {
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
