//! The levels of this architecture that float kernels are compiled for, listed once.
//! A family says how its set looks at a level ([`Levels`]); this lists the sets and picks one.
//! Kernels that gain from VNNI or dotprod list their own.

use crate::isa::{Isa, IsaId, Scalar};

/// A set of kernels that exists at every level.
pub(super) trait Levels: Sized {
    /// The set at level `I`. Its kernels may run only where `I` is available.
    fn at<I: Isa>() -> Self;
}

/// The sets of this build with their levels, lowest first.
pub(super) fn all<S: Levels>() -> Vec<(IsaId, S)> {
    vec![
        (IsaId::Scalar, S::at::<Scalar>()),
        #[cfg(target_arch = "x86_64")]
        (IsaId::Avx2, S::at::<crate::isa::Avx2>()),
        #[cfg(target_arch = "x86_64")]
        (IsaId::Avx512, S::at::<crate::isa::Avx512>()),
        #[cfg(target_arch = "aarch64")]
        (IsaId::Neon, S::at::<crate::isa::Neon>()),
    ]
}

/// The best set that runs at `isa`, and on this CPU.
pub(super) fn select<S: Levels>(isa: IsaId) -> S {
    let runs = |level: IsaId| isa.includes(level) && level.is_available();
    let best = all().into_iter().rfind(|(level, _)| runs(*level));
    best.map_or_else(S::at::<Scalar>, |(_, set)| set)
}
