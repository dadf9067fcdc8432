//! The barrier inside a region: nobody passes until everyone has come.
//! A count of arrivals, and a [`Gate`] whose number names the phase (the "sense" of a sense-reversing
//! barrier, not limited to two). Its lowest bit is poison: set, nobody waits any more.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::gate::{Gate, Patience};

/// A worker panicked, left the region early or cancelled it: the others can't meet it at a barrier.
/// Return from the region; [`Team::run`](super::Team::run) tells the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another worker ended the region")]
pub struct Poisoned;

const POISON: u32 = 1;
const PHASE: u32 = 2;

pub(super) struct Barrier {
    count: u32,
    arrived: AtomicU32,
    gate: Gate,
}

impl Barrier {
    pub const fn new(count: u32) -> Self {
        Self { count, arrived: AtomicU32::new(0), gate: Gate::new() }
    }

    /// Waits for all others. All that any of them wrote before is seen after.
    pub fn wait(&self, patience: &Patience) -> Result<(), Poisoned> {
        let phase = self.gate.number();
        if phase & POISON != 0 {
            return Err(Poisoned);
        }
        if self.arrived.fetch_add(1, SeqCst) + 1 == self.count {
            self.arrived.store(0, SeqCst);
            self.gate.change(|number| {
                number.fetch_add(PHASE, SeqCst);
            });
            return Ok(());
        }
        // Poisoned while still in this phase, the others will not come; poisoned in a later one, they came.
        match self.gate.wait_past(phase, patience) {
            number if number == phase | POISON => Err(Poisoned),
            _ => Ok(()),
        }
    }

    /// Lets nobody wait any more: those waiting for a phase that can't be completed get an error.
    pub fn poison(&self) {
        if !self.is_poisoned() {
            self.gate.change(|number| {
                number.fetch_or(POISON, SeqCst);
            });
        }
    }

    pub fn is_poisoned(&self) -> bool {
        self.gate.number() & POISON != 0
    }

    /// Makes it usable again. Nobody may be in it.
    pub fn renew(&self) {
        self.arrived.store(0, SeqCst);
        self.gate.set_unwatched(0);
    }
}
