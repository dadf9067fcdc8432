//! Where the keys and values of one key/value head stand in their cache.
//! Keys are packed as a matmul's weights are, positions being its outputs; values are plain lines, padded.

use crate::error::{Error, Result};

/// Places of one key/value head's keys and values.
///
/// Keys: panels of `nr` positions, each `head_dim × nr`: element d of position p is at
/// `(p / nr · head_dim + d) · nr + p % nr`. Values: one line of [`Layout::value_stride`] floats a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions in a panel of keys.
    pub nr: usize,
}

impl Layout {
    /// The layout for a kernel with panels of `nr`.
    pub const fn new(head_dim: usize, nr: usize) -> Self {
        Self { head_dim, nr }
    }

    /// Floats from one position's value to the next: `head_dim` rounded up to whole panels.
    pub const fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(self.nr)
    }

    /// Floats that the keys of `n_ctx` positions take (whole panels); `None` on overflow.
    pub fn key_len(&self, n_ctx: usize) -> Option<usize> {
        n_ctx.checked_next_multiple_of(self.nr)?.checked_mul(self.head_dim)
    }

    /// Floats that the values of `n_ctx` positions take; `None` on overflow.
    pub fn value_len(&self, n_ctx: usize) -> Option<usize> {
        n_ctx.checked_mul(self.head_dim.checked_next_multiple_of(self.nr)?)
    }

    /// Stores the key of a position; `keys` is the head's whole buffer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `key` is not `head_dim` long or the position not in the buffer.
    pub fn store_key(&self, keys: &mut [f32], position: usize, key: &[f32]) -> Result<()> {
        let panel = self.nr * self.head_dim;
        let place =
            (position / self.nr).checked_mul(panel).and_then(|start| keys.get_mut(start..)?.get_mut(..panel));
        match place {
            Some(panel) if key.len() == self.head_dim => {
                let column = panel.iter_mut().skip(position % self.nr).step_by(self.nr);
                column.zip(key).for_each(|(place, &x)| *place = x);
                Ok(())
            }
            _ => Err(self.misfit("key", position, key.len())),
        }
    }

    /// Stores the value of a position; `values` is the head's whole buffer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `value` is not `head_dim` long or the position not in the buffer.
    pub fn store_value(&self, values: &mut [f32], position: usize, value: &[f32]) -> Result<()> {
        let stride = self.value_stride();
        let place = position.checked_mul(stride).and_then(|start| values.get_mut(start..)?.get_mut(..stride));
        match place {
            Some(line) if value.len() == self.head_dim => {
                line[..self.head_dim].copy_from_slice(value);
                Ok(())
            }
            _ => Err(self.misfit("value", position, value.len())),
        }
    }

    /// Stores a key where several threads store into one head's buffer, each its own positions.
    ///
    /// # Safety
    /// `keys` has room for the position's panel ([`Layout::key_len`]); no one else touches this position.
    pub unsafe fn write_key(&self, keys: *mut f32, position: usize, key: &[f32]) {
        let column = keys.wrapping_add(position / self.nr * self.nr * self.head_dim + position % self.nr);
        for (d, &x) in key.iter().enumerate() {
            // SAFETY: element `d` of the position, in its panel.
            unsafe { column.add(d * self.nr).write(x) }
        }
    }

    /// Stores a value where several threads store into one head's buffer, each its own positions.
    ///
    /// # Safety
    /// `values` has room for the position's line ([`Layout::value_len`]); no one else touches it.
    pub unsafe fn write_value(&self, values: *mut f32, position: usize, value: &[f32]) {
        let line = values.wrapping_add(position * self.value_stride());
        // SAFETY: the line is there and belongs to this caller.
        unsafe { std::ptr::copy_nonoverlapping(value.as_ptr(), line, value.len()) }
    }

    fn misfit(&self, what: &str, position: usize, len: usize) -> Error {
        Error::invalid(format!(
            "a {what} of {len} elements at position {position} does not fit a cache of heads of {}",
            self.head_dim
        ))
    }
}
