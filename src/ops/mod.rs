//! An op is a kernel and its partition over the workers of a parallel region.
//! Every worker calls the op with the same arguments and does its own share; the caller puts the
//! barriers and the profile's zones. Ops know matrices, never a model family.

pub mod attention;
mod converted;
pub mod gemm;
pub mod linear;
pub mod matmul;
pub mod matrix;
pub mod rotary;
pub mod rowwise;

pub use gemm::Workspace;
pub use matmul::{Batch, Matmul, Operand};
pub use matrix::PackedMatrix;

/// Rows of a buffer that workers share: each op writes disjoint parts of it, as its partition says.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    ptr: *mut u8,
    stride: usize,
    n: usize,
}

// SAFETY: a `Rows` is an address and two numbers; every access through it is an unsafe operation whose
// caller answers for disjointness.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    /// `n` rows, `stride` bytes apart.
    ///
    /// # Safety
    /// `ptr` is valid for reads and writes of `n · stride` bytes and 64-byte aligned, `stride` a multiple of 4,
    /// for as long as the value and its copies are used.
    pub unsafe fn new(ptr: *mut u8, stride: usize, n: usize) -> Self {
        Rows { ptr, stride, n }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Bytes between rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Address of a row.
    pub fn row(&self, r: usize) -> *mut u8 {
        debug_assert!(r <= self.n);
        self.ptr.wrapping_add(r * self.stride)
    }

    /// Address of a row of floats.
    pub fn row_f32(&self, r: usize) -> *mut f32 {
        self.row(r).cast()
    }

    /// All but the first `n` rows.
    pub fn skip(&self, n: usize) -> Rows {
        debug_assert!(n <= self.n);
        Rows { ptr: self.row(n), stride: self.stride, n: self.n - n }
    }

    /// A row's first `width` floats.
    ///
    /// # Safety
    /// No one writes them while the slice lives.
    pub unsafe fn floats<'a>(&self, r: usize, width: usize) -> &'a [f32] {
        debug_assert!(r < self.n && width * 4 <= self.stride);
        // SAFETY: inside the buffer by construction; unshared writes are the caller's promise.
        unsafe { std::slice::from_raw_parts(self.row_f32(r), width) }
    }

    /// A row's first `width` floats, to write.
    ///
    /// # Safety
    /// No one else reads or writes them while the slice lives.
    pub unsafe fn floats_mut<'a>(&self, r: usize, width: usize) -> &'a mut [f32] {
        debug_assert!(r < self.n && width * 4 <= self.stride);
        // SAFETY: inside the buffer by construction; exclusivity is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.row_f32(r), width) }
    }
}
