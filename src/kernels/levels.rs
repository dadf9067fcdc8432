//! The levels of this architecture that float kernels are compiled for, listed once.
//! A family names its kernels at a level ([`At`]); [`table`] lists them for all levels, at compile time.
//! Kernels that gain from VNNI or dotprod list their own levels.

#[cfg(target_arch = "aarch64")]
use crate::isa::Neon;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Avx512};
use crate::isa::{Isa, Scalar};

/// Kernels that exist at every level.
pub(super) trait At<I: Isa> {
    /// The kernels at level `I`. They may run only where `I` is available.
    const KERNELS: Self;
}

/// Number of levels.
#[cfg(target_arch = "x86_64")]
pub(super) const LEVELS: usize = 3;
/// Number of levels.
#[cfg(target_arch = "aarch64")]
pub(super) const LEVELS: usize = 2;
/// Number of levels.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const LEVELS: usize = 1;

/// A family's kernels at every level, lowest first.
#[cfg(target_arch = "x86_64")]
pub(super) const fn table<K: At<Scalar> + At<Avx2> + At<Avx512>>() -> [K; LEVELS] {
    [<K as At<Scalar>>::KERNELS, <K as At<Avx2>>::KERNELS, <K as At<Avx512>>::KERNELS]
}

/// A family's kernels at every level, lowest first.
#[cfg(target_arch = "aarch64")]
pub(super) const fn table<K: At<Scalar> + At<Neon>>() -> [K; LEVELS] {
    [<K as At<Scalar>>::KERNELS, <K as At<Neon>>::KERNELS]
}

/// A family's kernels at every level: the portable one.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const fn table<K: At<Scalar>>() -> [K; LEVELS] {
    [<K as At<Scalar>>::KERNELS]
}

/// The levels of this CPU that float kernels are compiled for, each once: a level between two of them has the lower
/// one's kernels.
#[cfg(test)]
pub(super) fn here() -> impl DoubleEndedIterator<Item = crate::isa::IsaId> {
    struct Level(crate::isa::IsaId);
    impl<I: Isa> At<I> for Level {
        const KERNELS: Self = Level(I::ID);
    }
    let levels = table::<Level>().into_iter().map(|level| level.0);
    levels.filter(|&isa| isa.is_available() && (isa != crate::isa::IsaId::Scalar || !emulated()))
}

/// Whether tests run under an emulator. There, portable code takes longest and shows nothing that it doesn't show
/// natively.
#[cfg(test)]
pub(super) fn emulated() -> bool {
    std::env::var_os("SMALLMIND_TEST_NO_SCALAR").is_some()
}
