//! How a kernel is chosen, once for all families: each family has one table, and takes the best entry for a level.
//! An entry is a kernel, or all kernels of one level where a family's are chosen together.

use crate::isa::IsaId;

/// An entry of a family's table.
pub(super) trait Entry {
    /// The level that it needs.
    fn isa(&self) -> IsaId;
}

/// The entry of the highest level that `isa` includes and this CPU has.
pub(super) fn best<'t, E: Entry>(entries: impl Iterator<Item = &'t E>, isa: IsaId) -> Option<&'t E> {
    entries
        .filter(|entry| isa.includes(entry.isa()) && entry.isa().is_available())
        .max_by_key(|entry| entry.isa())
}
