//! The barrier inside a region: no worker passes until all have arrived.
//! Each worker has a [`Gate`] on a cache line of its own. It raises its gate's number when it arrives at a barrier, and
//! marks it when it leaves the region; it waits by looking at all other gates. With two workers, two cache lines cross
//! between cores for each barrier; a shared count of arrivals would take four transfers of one contended line.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::gate::{Gate, Patience};
use crate::Result;
use crate::memory::reserve::collected;

/// Another worker panicked, left the region early or cancelled it, and will arrive at no barrier. Return from the
/// region: [`Team::run`](super::Team::run) returns the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another worker ended the region")]
pub struct Poisoned;

/// A bit of a gate's number: its worker arrives at no more barriers, but still runs.
const QUIT: u32 = 1;
/// Another bit: its worker has left the region, and uses nothing of it any more.
const LEFT: u32 = 2;
/// The other bits count the barriers at which the worker arrived. So a waiting worker can tell whether another one quit
/// before or after the current barrier.
const STEP: u32 = 4;

fn steps(number: u32) -> u32 {
    number & !(QUIT | LEFT)
}

pub(super) struct Barrier {
    gates: Box<[Gate]>,
    /// Whether the barrier of some worker has failed or will fail.
    broken: AtomicBool,
}

impl Barrier {
    pub fn new(count: usize) -> Result<Self> {
        let gates = collected((0..count).map(|_| Ok(Gate::new())), "a team")?.into_boxed_slice();
        Ok(Self { gates, broken: AtomicBool::new(false) })
    }

    /// Worker `index` waits for all other workers. Afterwards it sees all that they wrote before they arrived.
    pub fn wait(&self, index: usize, patience: &Patience) -> Result<(), Poisoned> {
        let phase = self.gates[index].number();
        if phase & QUIT != 0 {
            return Err(Poisoned);
        }
        let (before, after) = self.gates.split_at(index);
        let [mine, after @ ..] = after else { return Err(Poisoned) };
        mine.change(|number| number.fetch_add(STEP, SeqCst));
        // Each worker begins with the gate after its own, so that not all workers look at the same gate.
        for gate in after.iter().chain(before) {
            if steps(gate.wait_past(phase, patience)) == phase {
                self.broken.store(true, SeqCst);
                return Err(Poisoned);
            }
        }
        Ok(())
    }

    /// Worker `index` ends the region for all: it arrives at no more barriers, so the others' barriers fail.
    pub fn quit(&self, index: usize) {
        self.broken.store(true, SeqCst);
        self.gates[index].change(|number| number.fetch_or(QUIT, SeqCst));
    }

    /// The last call of worker `index` in the region. The barriers of workers that still wait for it fail.
    pub fn leave(&self, index: usize) {
        self.gates[index].change(|number| number.fetch_or(LEFT, SeqCst));
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(SeqCst)
    }

    /// Waits until all workers except worker 0 have left.
    pub fn wait_all_left(&self, patience: &Patience) {
        for gate in self.gates.iter().skip(1) {
            let mut number = gate.number();
            while number & LEFT == 0 {
                number = gate.wait_past(number, patience);
            }
        }
    }

    /// Makes the barrier ready for another region. All workers must have left.
    pub fn renew(&self) {
        self.broken.store(false, SeqCst);
        self.gates.iter().for_each(|gate| gate.set_unwatched(0));
    }
}
