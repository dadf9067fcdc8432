//! Kernels
//! =======
//! The arithmetic by itself, on your own buffers of 32-bit floats: on the calling thread, or on a team's threads where
//! the parameters name one. The environment variable SMALLMIND_ISA names the instruction set; without it, the CPU's
//! best is used.
//!
//! Matrices are row-major; `lda`, `ldx` and so on are the numbers of floats from one row to the next, at least
//! the number of columns, and what stands between the rows is left alone. A buffer reaches from its first to
//! its last element: an output must not overlap an input, except that functions of one matrix may work in
//! place, on the same pointer with the same `ld`. With no rows or no columns, nothing is done, and pointers
//! may be NULL. NaN and infinities are values like others.

use std::ffi::c_char;

use super::boundary;
use super::buffers;
use super::names::intern;
use super::params::{Versioned, fields};
use super::status::sm_status;
use crate::kernels::KernelSet;
use crate::report::choice::{Choice, Reason, choices};

/// Calls run this kernel: the best of its operation and type for the instruction set that is in use.
pub const SM_KERNEL_CHOSEN: i64 = 0;
/// This CPU, or this build, lacks its instruction set.
pub const SM_KERNEL_CPU_LACKS: i64 = 1;
/// The instruction set in use (SMALLMIND_ISA) doesn't include that of the kernel.
pub const SM_KERNEL_LEVEL_IN_USE: i64 = 2;
/// A kernel for a higher instruction set does the same.
pub const SM_KERNEL_HIGHER: i64 = 3;

/// One kernel of the library: an operation on an element type for an instruction set.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_kernel {
    /// Operation, such as "matmul"; never freed, as the next two.
    pub op: *const c_char,
    /// Element types, such as "f32" or "q4_1".
    pub dtype: *const c_char,
    /// Instruction set that it needs, such as "avx2".
    pub isa: *const c_char,
    /// Rows of its register tile; 1 where that has no meaning.
    pub mr: u64,
    /// Columns of its register tile; 1 where that has no meaning.
    pub nr: u64,
    /// 1 where this CPU can run it.
    pub available: i32,
    /// 1 where calls run it: the best of its operation and type for the instruction set that is in use.
    pub chosen: i32,
    /// Why it is chosen or not: `SM_KERNEL_*`.
    pub reason: i64,
    /// Instruction set of the kernel of this operation and type that is chosen; NULL where none is.
    pub chosen_isa: *const c_char,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_kernel {
    const NAME: &'static str = "sm_kernel";

    fields!(op, dtype, isa, mr, nr, available, chosen, reason, chosen_isa);
}

impl sm_kernel {
    fn new(choice: &Choice) -> Self {
        let kernel = choice.kernel;
        Self {
            op: intern(kernel.op),
            dtype: intern(kernel.dtype),
            isa: intern(kernel.isa.name()),
            mr: kernel.mr as u64,
            nr: kernel.nr as u64,
            available: kernel.isa.is_available().into(),
            chosen: (choice.reason == Reason::Chosen).into(),
            reason: match choice.reason {
                Reason::Chosen => SM_KERNEL_CHOSEN,
                Reason::CpuLacks(_) => SM_KERNEL_CPU_LACKS,
                Reason::LevelInUse { .. } => SM_KERNEL_LEVEL_IN_USE,
                Reason::Higher(_) => SM_KERNEL_HIGHER,
            },
            chosen_isa: choice.chosen.map_or(std::ptr::null(), |isa| intern(isa.name())),
        }
    }
}

/// Lists every kernel of this build, and why each is chosen or not. `stride` is `sizeof(sm_kernel)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_kernel_info(
    out: *mut sm_kernel,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: by the header, `out` is NULL or writable for `capacity` elements, `stride` bytes apart, and `count` is
    // NULL or writable.
    boundary::call_with_spare(|| unsafe {
        let all = choices(KernelSet::default_set()?.isa);
        buffers::give_structs(all.iter().map(sm_kernel::new), out, stride, capacity, count)
    })
}
