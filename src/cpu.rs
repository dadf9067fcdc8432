//! Instructions that any program may use: hints to the caches, a fence, and what an x86-64 processor says of itself.
//! They are safe here on every toolchain from the minimum on.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

/// A cache that a line is prefetched into.
#[derive(Clone, Copy)]
pub(crate) enum Cache {
    /// The first level.
    L1,
    /// The second level.
    L2,
}

/// Prefetches the cache line at `p`. Any address is allowed: none is read. `cache` should be a constant.
#[inline(always)]
pub(crate) fn prefetch_line<T>(p: *const T, cache: Cache) {
    // SAFETY: every x86-64 has the instruction, and it never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        match cache {
            Cache::L1 => arch::_mm_prefetch::<{ arch::_MM_HINT_T0 }>(p.cast()),
            Cache::L2 => arch::_mm_prefetch::<{ arch::_MM_HINT_T1 }>(p.cast()),
        }
    }
    // SAFETY: every aarch64 has the instruction, and it never faults.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        match cache {
            Cache::L1 => {
                std::arch::asm!("prfm pldl1keep, [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
            }
            Cache::L2 => {
                std::arch::asm!("prfm pldl2keep, [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
            }
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (p, cache);
}

/// Orders all stores that went past the caches before all later ones.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn store_fence() {
    // SAFETY: every x86-64 has the instruction.
    unsafe { arch::_mm_sfence() }
}

/// Whether the processor is one of AMD's. These fetch a matrix's rows ahead where a loop reads some columns of one row after
/// the other; others need the rows in order, or prefetches. And their L3 delivers what is prefetched nearly as fast as L2.
pub(crate) fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static AMD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *AMD.get_or_init(|| cpuid(0).ebx == u32::from_le_bytes(*b"Auth")) // of AuthenticAMD
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The registers that a leaf of CPUID fills.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cpuid(leaf: u32) -> arch::CpuidResult {
    cpuid_count(leaf, 0)
}

/// The registers that a leaf with subleaves fills.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "the intrinsic is unsafe in Rust 1.89 and safe in later versions")]
pub(crate) fn cpuid_count(leaf: u32, subleaf: u32) -> arch::CpuidResult {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { arch::__cpuid_count(leaf, subleaf) }
}
