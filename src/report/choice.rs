//! Which kernel of each operation and type runs at an instruction-set level, and why the others don't.
//! Worked out from the list of kernels and from what the levels include, as the tables of kernels are read.

use std::fmt;

use crate::isa::IsaId;
use crate::kernels::{self, KernelInfo};

/// A kernel, and why it is chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kernel.
    pub kernel: KernelInfo,
    /// Why.
    pub reason: Reason,
    /// The level of the kernel of this operation and type that is chosen; none where no kernel runs.
    pub chosen: Option<IsaId>,
}

/// Why a kernel is chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is chosen: none of a higher level runs.
    Chosen,
    /// This CPU, or this build, lacks its level.
    CpuLacks(IsaId),
    /// The level in use doesn't include its level.
    LevelInUse {
        /// The level in use.
        used: IsaId,
        /// The kernel's level.
        needed: IsaId,
    },
    /// A kernel of a higher level does the same.
    Higher(IsaId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Chosen => write!(f, "chosen"),
            Reason::CpuLacks(needed) => write!(f, "this CPU lacks {}", needed.name()),
            Reason::LevelInUse { used, needed } => {
                write!(f, "{} is in use, which doesn't include {}", used.name(), needed.name())
            }
            Reason::Higher(chosen) => write!(f, "the kernel for {} is chosen", chosen.name()),
        }
    }
}

/// Every kernel of this build, with the reason why it is chosen or not at a level.
pub fn choices(used: IsaId) -> Vec<Choice> {
    let all = kernels::enumerate();
    let chosen = |kernel: &KernelInfo| {
        let same = all.iter().filter(|other| (other.op, other.dtype) == (kernel.op, kernel.dtype));
        same.map(|other| other.isa).filter(|isa| used.includes(*isa) && isa.is_available()).max()
    };
    let choice = |kernel: &KernelInfo| {
        let (needed, chosen) = (kernel.isa, chosen(kernel));
        let reason = match chosen {
            Some(isa) if isa == needed => Reason::Chosen,
            _ if !needed.is_available() => Reason::CpuLacks(needed),
            Some(isa) if used.includes(needed) => Reason::Higher(isa),
            _ => Reason::LevelInUse { used, needed },
        };
        Choice { kernel: *kernel, reason, chosen }
    };
    all.iter().map(choice).collect()
}

/// A kernel's name within its operation: type, level and register tile, such as "f32.avx512.14x32".
pub fn tile_name(kernel: &KernelInfo) -> String {
    let tile = match kernel.mr * kernel.nr {
        0 | 1 => String::new(),
        _ => format!(".{}x{}", kernel.mr, kernel.nr),
    };
    format!("{}.{}{tile}", kernel.dtype, kernel.isa.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_has_one_kernel_chosen_and_a_reason_for_the_others() {
        for used in IsaId::available() {
            let all = choices(used);
            assert_eq!(all.len(), kernels::enumerate().len());
            for choice in &all {
                let KernelInfo { op, dtype, isa, .. } = choice.kernel;
                let same = || all.iter().filter(|c| (c.kernel.op, c.kernel.dtype) == (op, dtype));
                assert_eq!(same().filter(|c| c.reason == Reason::Chosen).count(), 1, "{op} {dtype} {used:?}");
                match choice.reason {
                    Reason::Chosen => assert!(used.includes(isa) && choice.chosen == Some(isa)),
                    Reason::CpuLacks(lacked) => assert!(!lacked.is_available() && lacked == isa),
                    Reason::LevelInUse { needed, .. } => assert!(needed == isa && !used.includes(isa)),
                    Reason::Higher(higher) => {
                        assert!(higher > isa && choice.chosen == Some(higher));
                        assert!(same().any(|c| c.kernel.isa == higher && c.reason == Reason::Chosen));
                    }
                }
                assert!(!choice.reason.to_string().is_empty());
            }
            if used == IsaId::Scalar {
                assert!(all.iter().all(|c| (c.reason == Reason::Chosen) == (c.kernel.isa == IsaId::Scalar)));
            }
        }
    }
}
