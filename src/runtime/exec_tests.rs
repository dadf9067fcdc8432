//! Accidents within a pass, planted at every step: a panic of any worker, a cancellation.

use super::*;
use crate::threads::{Poisoned, Worker};

/// What goes wrong, at which step, on which worker.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub step: usize,
    pub worker: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    Panic,
    Cancel,
}

/// Lets the fault happen where it is due.
pub fn happen(fault: Option<Fault>, step: usize, worker: &Worker<'_>) -> Result<(), Poisoned> {
    match fault {
        Some(fault) if (fault.step, fault.worker) == (step, worker.index()) => match fault.kind {
            FaultKind::Panic => panic!("planted at step {step}"),
            FaultKind::Cancel => {
                worker.cancel();
                Err(Poisoned)
            }
        },
        _ => Ok(()),
    }
}
