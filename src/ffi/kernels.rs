//! Kernels
//! =======
//! The arithmetic by itself, on your own buffers of 32-bit floats, on the calling thread. They run on the
//! instruction set that the environment variable SMALLMIND_ISA names, or else on the CPU's best.
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
use super::params::Versioned;
use super::status::sm_status;
use crate::isa::IsaId;
use crate::kernels::{self, KernelInfo, KernelSet};

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
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_kernel {
    const NAME: &'static str = "sm_kernel";
}

/// What the header says of a kernel among `all`, with `used` as the instruction set in use.
fn described(info: KernelInfo, all: &[KernelInfo], used: IsaId) -> sm_kernel {
    let runs = |isa: IsaId| isa.is_available() && used.includes(isa);
    let better = |other: &KernelInfo| {
        (other.op, other.dtype) == (info.op, info.dtype) && other.isa > info.isa && runs(other.isa)
    };
    sm_kernel {
        op: intern(info.op),
        dtype: intern(info.dtype),
        isa: intern(info.isa.name()),
        mr: info.mr as u64,
        nr: info.nr as u64,
        available: info.isa.is_available().into(),
        chosen: (runs(info.isa) && !all.iter().any(better)).into(),
    }
}

/// Lists every kernel of this build. `stride` is `sizeof(sm_kernel)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_kernel_info(
    out: *mut sm_kernel,
    stride: usize,
    capacity: usize,
    count: *mut usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe {
        let all = kernels::enumerate();
        let used = KernelSet::default_set()?.isa;
        let described = all.iter().map(|&info| described(info, &all, used));
        buffers::give_structs(described, out, stride, capacity, count)
    })
}
