//! The size of the record, from which follows how much memory a report of it may take.

use super::{pool, trace};

/// Counts of what was recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Nodes of all threads' trees.
    pub nodes: usize,
    /// Scopes in the timeline.
    pub events: usize,
}

/// Counts what was recorded so far.
pub(crate) fn extent() -> Extent {
    let nodes = pool::registry().tables.iter().map(|table| table.n_nodes()).sum();
    Extent { nodes, events: trace::noted() }
}
