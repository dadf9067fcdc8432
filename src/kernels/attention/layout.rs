//! Where the keys and values of one key/value head stand in their cache.
//! Keys are packed as a matmul's weights are, positions being its outputs; values in tiles, and these in spans.

use super::TILE;
use crate::error::{Error, Result};
use std::ops::Range;

/// Elements of a value's span, about: what of a tile's values stays in L1 while rows pass by.
const SPAN: usize = 80;

/// Places of one key/value head's keys and values.
///
/// Keys: panels of `nr` positions, each `head_dim × nr`: element d of position p is at
/// `(p / nr · head_dim + d) · nr + p % nr`. Values: a tile of [`TILE`] positions after the other; in a tile the
/// elements are cut into [`Layout::value_spans`], one after the other; in a span each position has its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions in a panel of keys.
    pub nr: usize,
    /// Spans of values are a multiple of so many floats.
    pub value_step: usize,
}

impl Layout {
    /// Floats that a position's value takes: `head_dim` rounded up to whole steps.
    pub const fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(self.value_step)
    }

    /// Floats that the keys of `n_ctx` positions take (whole panels); `None` on overflow.
    pub fn key_len(&self, n_ctx: usize) -> Option<usize> {
        n_ctx.checked_next_multiple_of(self.nr)?.checked_mul(self.head_dim)
    }

    /// Floats that the values of `n_ctx` positions take; `None` on overflow.
    pub fn value_len(&self, n_ctx: usize) -> Option<usize> {
        let positions = n_ctx.checked_next_multiple_of(TILE)?;
        positions.checked_mul(self.head_dim.checked_next_multiple_of(self.value_step)?)
    }

    /// The spans of a value's elements, [`Layout::value_stride`] in all: few, and as even as can be.
    pub fn value_spans(&self) -> impl Iterator<Item = Range<usize>> {
        let (stride, step) = (self.value_stride(), self.value_step);
        let count = stride.div_ceil(SPAN.next_multiple_of(step)).max(1);
        (0..count).map(move |i| stride / step * i / count * step..stride / step * (i + 1) / count * step)
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
                // SAFETY: the panel is there, exclusively borrowed, and the key is `head_dim` long.
                unsafe { self.write_keys(panel.as_mut_ptr(), position % self.nr, key.as_ptr(), 0, 1) };
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
        let tile = self.value_stride() * TILE;
        let place =
            (position / TILE).checked_mul(tile).and_then(|start| values.get_mut(start..)?.get_mut(..tile));
        match place {
            Some(tile) if value.len() == self.head_dim => {
                // SAFETY: the tile is there, exclusively borrowed, and the value is `head_dim` long.
                unsafe { self.write_values(tile.as_mut_ptr(), position % TILE, value.as_ptr(), 0, 1) };
                Ok(())
            }
            _ => Err(self.misfit("value", position, value.len())),
        }
    }

    /// Stores the keys of `count` adjoining positions, where several threads store into one head's buffer,
    /// each its own positions. A key's elements lie a line of the panel apart, so all positions of a panel
    /// go in together, line by line.
    ///
    /// # Safety
    /// `rows` is readable for `head_dim` floats at each of `count` multiples of `stride`; `keys` has room for
    /// the positions ([`Layout::key_len`]), and no one else touches these.
    pub unsafe fn write_keys(
        &self,
        keys: *mut f32,
        position: usize,
        rows: *const f32,
        stride: usize,
        count: usize,
    ) {
        let mut done = 0;
        while done < count {
            let (panel, column) = ((position + done) / self.nr, (position + done) % self.nr);
            let run = (self.nr - column).min(count - done);
            let to = keys.wrapping_add(panel * self.nr * self.head_dim + column);
            let from = rows.wrapping_add(done * stride);
            for d in 0..self.head_dim {
                for i in 0..run {
                    // SAFETY: element `d` of row `done + i`, and its place in the panel.
                    unsafe { to.add(d * self.nr + i).write(from.add(i * stride + d).read()) }
                }
            }
            done += run;
        }
    }

    /// Stores the values of `count` adjoining positions; the rest as [`Layout::write_keys`].
    ///
    /// # Safety
    /// As [`Layout::write_keys`], with room for [`Layout::value_len`].
    pub unsafe fn write_values(
        &self,
        values: *mut f32,
        position: usize,
        rows: *const f32,
        stride: usize,
        count: usize,
    ) {
        for span in self.value_spans() {
            let (width, elements) = (span.len(), span.end.min(self.head_dim) - span.start);
            for i in 0..count {
                let (tile, line) = ((position + i) / TILE, (position + i) % TILE);
                let place = (tile * self.value_stride() + span.start) * TILE + line * width;
                let from = rows.wrapping_add(i * stride + span.start);
                // SAFETY: the line is there and belongs to this caller.
                unsafe { std::ptr::copy_nonoverlapping(from, values.add(place), elements) }
            }
        }
    }

    fn misfit(&self, what: &str, position: usize, len: usize) -> Error {
        Error::invalid(format!(
            "a {what} of {len} elements at position {position} does not fit a cache of heads of {}",
            self.head_dim
        ))
    }
}
