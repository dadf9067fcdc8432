//! The barrier inside a region: nobody passes until everyone has come.
//! Each worker has a [`Gate`] of its own, on its own cache line, that it raises when it comes to a barrier
//! and marks when it leaves the region; waiting is looking at all the others' gates. Two lines cross
//! between cores where a shared count of arrivals takes four, all fought over.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::gate::{Gate, Patience};

/// A worker panicked, left the region early or cancelled it: the others can't meet it at a barrier.
/// Return from the region; [`Team::run`](super::Team::run) tells the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another worker ended the region")]
pub struct Poisoned;

/// Bits of a gate's number. Its worker comes to no more barriers, but still runs:
const QUIT: u32 = 1;
/// It is out of the region, and touches nothing of it any more:
const LEFT: u32 = 2;
/// The other bits count the barriers it came to, so whoever waits can tell "quit before this one" from "came
/// to this one and quit after".
const STEP: u32 = 4;

fn steps(number: u32) -> u32 {
    number & !(QUIT | LEFT)
}

pub(super) struct Barrier {
    gates: Box<[Gate]>,
    /// Somebody's barrier failed, or will.
    broken: AtomicBool,
}

impl Barrier {
    pub fn new(count: usize) -> Self {
        Self { gates: (0..count).map(|_| Gate::new()).collect(), broken: AtomicBool::new(false) }
    }

    /// Worker `index` waits for all others. All that any of them wrote before is seen after.
    pub fn wait(&self, index: usize, patience: &Patience) -> Result<(), Poisoned> {
        let phase = self.gates[index].number();
        if phase & QUIT != 0 {
            return Err(Poisoned);
        }
        let (before, after) = self.gates.split_at(index);
        let [mine, after @ ..] = after else { return Err(Poisoned) };
        mine.change(|number| number.fetch_add(STEP, SeqCst));
        // Each worker starts with its neighbour, so that not all look at the same gate at once.
        for gate in after.iter().chain(before) {
            if steps(gate.wait_past(phase, patience)) == phase {
                self.broken.store(true, SeqCst);
                return Err(Poisoned);
            }
        }
        Ok(())
    }

    /// Worker `index` ends the region for all: it comes to no more barriers, and others learn why.
    pub fn quit(&self, index: usize) {
        self.broken.store(true, SeqCst);
        self.gates[index].change(|number| number.fetch_or(QUIT, SeqCst));
    }

    /// The last thing that worker `index` does in the region. Whoever still waits for it gets an error.
    pub fn leave(&self, index: usize) {
        self.gates[index].change(|number| number.fetch_or(LEFT, SeqCst));
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(SeqCst)
    }

    /// Waits until every worker but 0 has left.
    pub fn wait_all_left(&self, patience: &Patience) {
        for gate in self.gates.iter().skip(1) {
            let mut number = gate.number();
            while number & LEFT == 0 {
                number = gate.wait_past(number, patience);
            }
        }
    }

    /// Makes it usable again. All must have left.
    pub fn renew(&self) {
        self.broken.store(false, SeqCst);
        self.gates.iter().for_each(|gate| gate.set_unwatched(0));
    }
}
