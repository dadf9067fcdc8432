//! What an x86-64 processor says of itself: the CPUID instruction, safe on every toolchain from the minimum on.

pub(crate) use std::arch::x86_64::CpuidResult;

/// The registers that a leaf of CPUID fills.
pub(crate) fn cpuid(leaf: u32) -> CpuidResult {
    cpuid_count(leaf, 0)
}

/// The registers that a leaf with subleaves fills.
#[allow(unused_unsafe, reason = "the intrinsic is unsafe in Rust 1.89 and safe in later versions")]
pub(crate) fn cpuid_count(leaf: u32, subleaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { std::arch::x86_64::__cpuid_count(leaf, subleaf) }
}
