//! The part that depends on the operating system: permission to use the CPU's tile registers, which Linux grants to a
//! process that requests it. Other systems grant none: there the level that needs it is not available.

/// Requests the tile registers for the whole process, for good.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) fn permit_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory. A kernel that doesn't know it returns an error;
    // so does one that finds a thread's signal stack too small for the registers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// There is no such request.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(super) fn permit_tiles() -> bool {
    false
}
