//! What depends on the operating system: leave to use the CPU's tile registers, which Linux grants a process that
//! asks for it. Elsewhere there is none: the level that needs it is then not available.

/// Asks for the tile registers, on behalf of the whole process and for good.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) fn permit_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory. A kernel that doesn't know it returns an error;
    // so does one that finds a thread's signal stack too small for the registers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// There is no way to ask.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(super) fn permit_tiles() -> bool {
    false
}
