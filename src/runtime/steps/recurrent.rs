//! The common part of recurrences over sequences: columns of rows, a place in a sequence's state, and the way in which
//! workers share the work.
//! A piece of work is some channels or heads of one span, with all rows of the span in their order. Pieces share no
//! state, so that workers take them in any order. No other step of a pass uses the same place of the state, and passes
//! are regions of their own, so that the state needs no barrier.

use std::ops::Range;

use super::{At, Walk, Work};
use crate::kernels::recurrence;
use crate::runtime::plan::Buf;
use crate::threads::Worker;

/// Neighbouring columns of a buffer's rows, all f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Columns {
    /// The buffer.
    pub buf: Buf,
    /// The first column.
    pub begin: usize,
}

impl Columns {
    /// The columns' rows from `row` on, for a kernel that reads them.
    pub fn rows(self, walk: &Walk<'_>, worker: &Worker<'_>, row: usize) -> recurrence::Rows {
        let recurrence::RowsMut { first, stride } = rows_mut(walk, worker, self.buf, row);
        recurrence::Rows { first: first.wrapping_add(self.begin), stride }
    }
}

/// Columns in heads that may stand apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadColumns {
    /// The first head's buffer and column.
    pub first: Columns,
    /// Columns of a head.
    pub width: usize,
    /// Columns from one head to the next.
    pub every: usize,
}

impl HeadColumns {
    /// Calls `f` with the first column of each head in a buffer's row, and of it in a row of heads side by side.
    pub fn each(self, width: usize, mut f: impl FnMut(usize, usize)) {
        for head in 0..width / self.width {
            f(self.first.begin + head * self.every, head * self.width);
        }
    }

    /// The text in a plan's text.
    pub fn text(self) -> String {
        let HeadColumns { first: Columns { begin, .. }, width, every } = self;
        let of = if every == width { String::new() } else { format!(" of each {every}") };
        format!("columns {begin} to {}{of}", begin + width - 1)
    }
}

/// A buffer's rows from `row` on, for a kernel that writes them.
pub fn rows_mut(walk: &Walk<'_>, worker: &Worker<'_>, buf: Buf, row: usize) -> recurrence::RowsMut {
    let view = walk.view(buf, worker);
    recurrence::RowsMut { first: view.row_f32(row), stride: view.stride() / size_of::<f32>() }
}

/// A step's place in the state of each sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatePlace {
    /// Byte offset.
    pub offset: usize,
    /// Number of floats.
    pub len: usize,
}

impl StatePlace {
    /// The place in the state of a span's sequence.
    pub fn of(self, walk: &Walk<'_>, span: usize) -> *mut f32 {
        walk.cache.state(walk.batch.sequences[span]).wrapping_add(self.offset).cast()
    }

    /// Reading and writing it once for each span, and `rows` of so many floats and operations.
    pub fn work(self, walk: &Walk<'_>, (rows, floats, flops): (usize, usize, usize)) -> Work {
        let state = 8 * (self.len * walk.batch.spans.len()) as u64;
        Work { flops: (rows * flops) as u64, bytes: (4 * rows * floats) as u64 + state }
    }
}

/// Takes pieces of work and calls `f` with the span and the channels of each. A piece has a multiple of `unit` channels,
/// but for the last of a span.
pub fn share(
    walk: &Walk<'_>,
    at: &At<'_>,
    (channels, unit): (usize, usize),
    mut f: impl FnMut(usize, Range<usize>),
) {
    let (spans, workers) = (walk.batch.spans.len(), at.worker.count());
    let piece = match workers {
        1 => channels,
        _ => channels.div_ceil(4 * workers).next_multiple_of(unit),
    };
    let pieces = channels.div_ceil(piece.max(1));
    while let Some(taken) = at.schedule.counter.take(spans * pieces, 1) {
        for i in taken {
            let begin = i % pieces * piece;
            f(i / pieces, begin..channels.min(begin + piece));
        }
    }
}
