//! How a kernel is chosen, once for all families: each family has one table, and takes the best entry for a level.
//! An entry is a kernel, or all kernels of one level where a family chooses these together.
//!
//! Tables are private to their families, and [`best`] is the only way to an entry. So a kernel that came out of a
//! family's `select` is the proof that this CPU can run it.

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

/// The best entry of a table that has one for the scalar level, which every CPU has and every level includes.
pub(super) fn choose<E: Entry + Copy>(table: &[E], isa: IsaId) -> E {
    *best(table.iter(), isa).expect("the table has an entry for the scalar level")
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Entry for IsaId {
        fn isa(&self) -> IsaId {
            *self
        }
    }

    /// A table of all levels gives each level of this CPU itself, and for the others the best that there is below.
    #[test]
    fn the_best_entry_is_included_and_available() {
        for isa in IsaId::ALL {
            let got = choose(&IsaId::ALL, isa);
            assert!(isa.includes(got) && got.is_available(), "{isa:?} gives {got:?}");
            assert!(!isa.is_available() || got == isa, "{isa:?} gives {got:?}");
        }
    }

    #[test]
    fn no_entry_is_no_kernel() {
        assert!(best::<IsaId>([].iter(), IsaId::Scalar).is_none());
        assert!(best([IsaId::Avx2, IsaId::Neon].iter(), IsaId::Scalar).is_none());
    }
}
