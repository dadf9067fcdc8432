//! Where the keys and values of one key/value head stand in their cache.
//! Keys are packed as a matmul's weights are, positions being its outputs; values in tiles, and these in spans.

use super::TILE;
use super::stored::CacheType;
use std::ops::Range;

/// Approximate elements of a value's span: that much of a tile's values stays in L1 while rows pass by.
const SPAN: usize = 80;

/// Elements of a head that share a factor, at most, where the type has factors. Runs of 32 would take a
/// sixteenth more memory.
pub(super) const RUN: usize = 64;

/// Bytes of a factor.
const FACTOR: usize = size_of::<f32>();

/// Places of a key/value head's keys and values in a tile of [`TILE`] positions, in bytes.
///
/// Keys: panels of `nr` positions, each `head_dim × nr` elements: element d of a panel's positions is its line d.
/// Values: the elements are cut into [`Layout::value_spans`], one after the other; in a span each position has its
/// line. Where the type has factors, those of a run of 64 elements stand before the run: `nr` of them in a panel,
/// [`TILE`] in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The type of a stored element.
    pub stored: CacheType,
    /// Elements of a head.
    pub head_dim: usize,
    /// Positions in a panel of keys.
    pub nr: usize,
    /// Spans of values are a multiple of so many elements.
    pub value_step: usize,
}

impl Layout {
    /// Elements that a position's value takes: `head_dim` rounded up to whole steps.
    #[inline(always)]
    pub const fn value_stride(&self) -> usize {
        self.head_dim.next_multiple_of(self.value_step)
    }

    /// Bytes of a tile's keys.
    #[inline(always)]
    pub const fn key_tile(&self) -> usize {
        TILE * self.key_position()
    }

    /// Bytes of a tile's values.
    #[inline(always)]
    pub const fn value_tile(&self) -> usize {
        TILE * self.value_position()
    }

    /// Bytes of a tile's keys and values; `None` on overflow.
    pub fn tile_bytes(&self) -> Option<usize> {
        // Twice four bytes for each of `stride` elements, and factors below, are more than both.
        let stride = self.head_dim.checked_next_multiple_of(self.value_step)?;
        stride.checked_mul(16 * TILE)?;
        Some(self.key_tile() + self.value_tile())
    }

    /// Bytes of the key and the value of a position.
    pub const fn position_bytes(&self) -> usize {
        self.key_position() + self.value_position()
    }

    /// Bytes of the factors of a position's first `elements`, which are whole runs or all.
    #[inline(always)]
    const fn factors(&self, elements: usize) -> usize {
        if self.stored.scaled() { elements.div_ceil(RUN) * FACTOR } else { 0 }
    }

    /// Bytes of a position's keys.
    #[inline(always)]
    pub(super) const fn key_position(&self) -> usize {
        self.head_dim * self.stored.bytes() + self.factors(self.head_dim)
    }

    /// Bytes of a position's values.
    #[inline(always)]
    pub(super) const fn value_position(&self) -> usize {
        self.value_stride() * self.stored.bytes() + self.factors(self.value_stride())
    }

    /// Bytes from a panel's start to the factors of the run that begins at element `d`.
    #[inline(always)]
    pub(super) const fn key_run(&self, d: usize) -> usize {
        self.nr * (d * self.stored.bytes() + self.factors(d))
    }

    /// Bytes of the factors before a run of keys.
    #[inline(always)]
    pub(super) const fn key_factors(&self) -> usize {
        self.nr * self.factors(1)
    }

    /// Bytes from a tile's start to the factors of the span of values that begins at element `d`.
    #[inline(always)]
    pub(super) const fn value_span(&self, d: usize) -> usize {
        TILE * (d * self.stored.bytes() + self.factors(d))
    }

    /// Bytes of the factors before a span of values.
    #[inline(always)]
    pub(super) const fn value_factors(&self) -> usize {
        TILE * self.factors(1)
    }

    /// Runs of a key's elements: those that share a factor, or all.
    #[inline(always)]
    pub(super) fn key_runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, run) = (self.head_dim, if self.stored.scaled() { RUN } else { self.head_dim.max(1) });
        (0..n).step_by(run).map(move |d| d..(d + run).min(n))
    }

    /// The spans of a value's elements, [`Layout::value_stride`] in all: runs where these have factors, else
    /// few, and as even as can be.
    #[inline]
    pub fn value_spans(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (stride, step, scaled) = (self.value_stride(), self.value_step, self.stored.scaled());
        let widest = if scaled { RUN } else { SPAN.next_multiple_of(step) };
        let count = stride.div_ceil(widest);
        (0..count).map(move |i| match scaled {
            true => i * RUN..((i + 1) * RUN).min(stride),
            false => stride / step * i / count * step..stride / step * (i + 1) / count * step,
        })
    }

    /// Calls `each` with the places, in bytes from a tile's start and in ascending order, of the keys and values of the
    /// tile's first `count` positions: [`Layout::position_bytes`] for each position.
    pub fn filled(&self, count: usize, each: &mut impl FnMut(Range<usize>)) {
        let (nr, bytes) = (self.nr, self.stored.bytes());
        let whole = count / nr * nr;
        each(0..whole * self.key_position());
        let rest = count - whole;
        for run in self.key_runs().filter(|_| rest > 0) {
            let factors = whole * self.key_position() + self.key_run(run.start);
            each(factors..factors + rest * self.factors(1));
            let lines = factors + self.key_factors();
            for line in (0..run.len()).map(|line| lines + line * nr * bytes) {
                each(line..line + rest * bytes);
            }
        }
        for span in self.value_spans() {
            let factors = self.key_tile() + self.value_span(span.start);
            each(factors..factors + count * self.factors(1));
            let lines = factors + self.value_factors();
            each(lines..lines + count * span.len() * bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::CacheType;

    /// The bytes that the first `count` positions fill, marked.
    fn marked(layout: &Layout, count: usize) -> Vec<bool> {
        let mut marks = vec![false; layout.tile_bytes().unwrap()];
        let mut end = 0;
        layout.filled(count, &mut |range| {
            assert!(range.start >= end, "in order");
            end = range.end;
            marks[range].fill(true);
        });
        marks
    }

    #[test]
    fn each_position_fills_its_own_bytes_and_all_fill_the_tile() {
        for stored in CacheType::ALL {
            for (head_dim, nr, value_step) in
                [(4, 16, 16), (64, 32, 16), (80, 16, 8), (100, 64, 16), (200, 8, 4)]
            {
                let layout = Layout { stored, head_dim, nr, value_step };
                let mut before = marked(&layout, 0);
                assert!(!before.contains(&true));
                for count in [1, 3, 15, 16, 17, 64, 100, TILE - 1, TILE] {
                    let marks = marked(&layout, count);
                    assert!(before.iter().zip(&marks).all(|(before, mark)| !before || *mark));
                    let filled = marks.iter().filter(|&&mark| mark).count();
                    assert_eq!(filled, count * layout.position_bytes(), "{layout:?}, {count}");
                    before = marks;
                }
                assert!(!before.contains(&false));
            }
        }
    }
}
