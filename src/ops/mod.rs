//! Operations: a kernel, and how its work is divided among the workers of a team.
//! The functions of this module take slices and an optional team, check everything, and are for any caller. The modules
//! below it hold the steps of a model's pass: every worker calls such an op with the same arguments and computes its own
//! share, while the caller places the barriers and the profile's zones. Neither knows a model family.
//!
//! ```
//! use smallmind::ops::{Input, NormParams, RowShape, rms_norm};
//! use smallmind::threads::Team;
//!
//! // 512 rows of 768, normalised in place by two threads.
//! let (mut x, team) = (vec![3.0; 512 * 768], Team::new(2)?);
//! rms_norm(Input::InPlace, &mut x, RowShape::new(512, 768), &NormParams::default(), Some(&team))?;
//! assert!(x.iter().all(|x| (x - 1.0).abs() < 1e-5));
//! # Ok::<(), smallmind::Error>(())
//! ```

#[doc(hidden)]
pub mod attention;
mod converted;
#[doc(hidden)]
pub mod experts;
pub mod gemm;
#[doc(hidden)]
pub mod linear;
pub mod matmul;
pub mod matrix;
#[cfg(feature = "models")]
pub(crate) mod region;
#[doc(hidden)]
pub mod rotary;
#[doc(hidden)]
pub mod rowwise;
mod scratch;
mod slices;

pub use slices::*;

pub use gemm::Workspace;
pub use matmul::{Batch, Matmul, Operand};
pub use matrix::PackedMatrix;

/// Rows of a buffer that workers share: each op writes disjoint parts of it, as its partition says.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    ptr: *mut u8,
    stride: usize,
    n: usize,
}

// SAFETY: an address and two numbers. Reading or writing through the address is unsafe, and each op that does it states
// which rows and columns a worker may touch.
unsafe impl Send for Rows {}
// SAFETY: as for Send; the methods only compute addresses.
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

    /// Each row as `parts` rows, one after the other.
    pub fn divided(&self, parts: usize) -> Rows {
        debug_assert!(self.stride.is_multiple_of(parts));
        Rows { ptr: self.ptr, stride: self.stride / parts, n: self.n * parts }
    }

    /// A row's first `width` floats.
    ///
    /// # Safety
    /// `r` is below the number of rows, a row holds `width` floats, and nobody writes them while the slice lives.
    pub unsafe fn floats<'a>(&self, r: usize, width: usize) -> &'a [f32] {
        debug_assert!(r < self.n && width * 4 <= self.stride);
        // SAFETY: `new` was promised a buffer of all rows; row r holds `width` floats, which nobody writes.
        unsafe { std::slice::from_raw_parts(self.row_f32(r), width) }
    }

    /// A row's first `width` floats, to write.
    ///
    /// # Safety
    /// `r` is below the number of rows, a row holds `width` floats, and nobody else reads or writes them while the slice
    /// lives.
    pub unsafe fn floats_mut<'a>(&self, r: usize, width: usize) -> &'a mut [f32] {
        debug_assert!(r < self.n && width * 4 <= self.stride);
        // SAFETY: `new` was promised a buffer of all rows; row r holds `width` floats, which nobody else touches.
        unsafe { std::slice::from_raw_parts_mut(self.row_f32(r), width) }
    }
}
