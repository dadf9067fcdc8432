//! The table of angles that rotary embeddings read, computed once for all positions of a context.
//! Kernels only borrow angles; this table owns them.

use crate::error::{Error, Result};
use crate::kernels::rope::{Angles, Scaling, check, fill};

/// Cosines and sines of positions 0 .. n_ctx.
#[derive(Debug)]
pub struct RotaryTable {
    n_ctx: usize,
    rot_dim: usize,
    /// As [`Angles`] reads them.
    data: Vec<f32>,
}

impl RotaryTable {
    /// Angles of `n_ctx` positions, as [`fill`] computes them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as [`fill`]; [`Error::OutOfMemory`] where the `4 · n_ctx · rot_dim` bytes are not to
    /// be had.
    pub fn new(n_ctx: usize, rot_dim: usize, base: f32, scaling: Scaling) -> Result<Self> {
        check(rot_dim, base, scaling)?;
        let bytes = n_ctx.saturating_mul(rot_dim).saturating_mul(size_of::<f32>());
        let mut data = Vec::new();
        data.try_reserve_exact(bytes / size_of::<f32>())
            .map_err(|_| Error::OutOfMemory { bytes, what: "the rotary table" })?;
        data.resize(n_ctx * rot_dim, 0.0);
        fill(&mut data, rot_dim, base, scaling)?;
        Ok(Self { n_ctx, rot_dim, data })
    }

    /// The angles, for a kernel to read.
    #[inline]
    pub fn angles(&self) -> Angles<'_> {
        // `new` has filled whole positions; without rotated elements there are none to read.
        Angles::new(&self.data, self.rot_dim).unwrap_or(Angles::none(self.n_ctx))
    }

    /// Cosines and sines, as [`Angles`] reads them.
    #[cfg(feature = "models")]
    pub(crate) fn data(&self) -> &[f32] {
        &self.data
    }

    /// Bytes that the table takes.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_angles_of_its_positions() {
        let table = RotaryTable::new(3, 4, 100.0, Scaling::default()).unwrap();
        let mut want = [0.0; 12];
        fill(&mut want, 4, 100.0, Scaling::default()).unwrap();
        let angles = table.angles();
        assert_eq!((angles.n_ctx(), angles.rot_dim(), table.bytes()), (3, 4, 48));
        assert_eq!(table.data, want);
        let none = RotaryTable::new(3, 0, 100.0, Scaling::default()).unwrap();
        assert_eq!((none.angles().n_ctx(), none.angles().rot_dim(), none.bytes()), (3, 0, 0));
    }

    #[test]
    fn what_makes_no_table_is_an_error() {
        let new = |n_ctx, rot_dim| RotaryTable::new(n_ctx, rot_dim, 1e4, Scaling::default());
        assert!(matches!(new(8, 5), Err(Error::InvalidArgument(_))));
        assert!(matches!(new(usize::MAX, 4), Err(Error::OutOfMemory { .. })));
        assert!(matches!(new(usize::MAX / 32, 4), Err(Error::OutOfMemory { .. })));
    }
}
