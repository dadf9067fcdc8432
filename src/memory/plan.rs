//! The layout of an arena of buffers with known lifetimes: buffers that are never alive together may share bytes.
//! Greedy by size: the largest first, each in the lowest gap that fits, as Pisarchyk and Lee describe in "Efficient
//! Memory Management for Deep Neural Net Inference" (2020). In practice the size is near the lower bound.

use super::buf::ALIGNMENT;
use super::reserve::{filled, reserve, with_room};
use crate::{Error, Result};

/// Names a buffer of an [`ArenaPlan`]: an index into [`ArenaLayout::offsets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(
    /// Position in the order of [`ArenaPlan::buffer`] calls.
    pub usize,
);

/// The purpose of the memory, in errors.
const WHAT: &str = "the activations of a step";

#[derive(Clone, Copy, Debug)]
struct Buffer {
    bytes: usize,
    first_op: usize,
    last_op: usize,
}

impl Buffer {
    fn alive_with(&self, other: &Buffer) -> bool {
        self.first_op <= other.last_op && other.first_op <= self.last_op
    }
}

/// Buffers, each with the first and the last op that use it.
#[derive(Clone, Debug, Default)]
pub struct ArenaPlan {
    buffers: Vec<Buffer>,
}

/// The offset of each buffer, and the size of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaLayout {
    /// Offset in bytes of each buffer, in the order they were declared; multiples of
    /// [`ALIGNMENT`].
    pub offsets: Vec<usize>,
    /// Bytes of the arena: a multiple of the alignment.
    pub total: usize,
}

impl ArenaLayout {
    /// Offset in bytes of a buffer of the plan that this layout was made from.
    pub fn offset(&self, id: BufferId) -> usize {
        self.offsets[id.0]
    }
}

impl ArenaPlan {
    /// A plan without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a buffer of `bytes` that is alive from op `first_op` to op `last_op`, both included: it never shares
    /// bytes with another buffer of these ops. A `last_op` before `first_op` counts as `first_op`.
    pub fn buffer(&mut self, bytes: usize, first_op: usize, last_op: usize) -> BufferId {
        self.buffers.push(Buffer { bytes, first_op, last_op: last_op.max(first_op) });
        BufferId(self.buffers.len() - 1)
    }

    /// Computes the offsets.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where the sum of the sizes is more than an address space holds.
    pub fn layout(&self) -> Result<ArenaLayout> {
        let mut by_size: Vec<usize> = with_room(self.buffers.len(), WHAT)?;
        by_size.extend(0..self.buffers.len());
        by_size.sort_unstable_by_key(|&i| (std::cmp::Reverse(self.buffers[i].bytes), i));

        let mut placed: Vec<(usize, usize, Buffer)> = Vec::new(); // offset, end, buffer; by offset
        let mut offsets = filled(0, self.buffers.len(), WHAT)?;
        let mut total = 0;
        for index in by_size {
            let buffer = self.buffers[index];
            let size = round_up(buffer.bytes)?;
            let mut offset: usize = 0;
            for (begin, end, other) in &placed {
                if !buffer.alive_with(other) {
                    continue;
                }
                if offset.checked_add(size).is_some_and(|until| until <= *begin) {
                    break;
                }
                offset = offset.max(*end);
            }
            let end = offset.checked_add(size).filter(|&e| e <= isize::MAX as usize).ok_or_else(too_large)?;
            offsets[index] = offset;
            total = total.max(end);
            let position = placed.partition_point(|(begin, ..)| *begin <= offset);
            reserve(&mut placed, 1, WHAT)?;
            placed.insert(position, (offset, end, buffer));
        }
        Ok(ArenaLayout { offsets, total })
    }
}

fn round_up(bytes: usize) -> Result<usize> {
    bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::OutOfMemory { bytes: usize::MAX, what: WHAT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first pair of buffers alive together that share a byte: what a layout must never have.
    fn clash(plan: &ArenaPlan, layout: &ArenaLayout) -> Option<(usize, usize)> {
        let n = plan.buffers.len();
        (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).find(|&(i, j)| {
            let (a, b) = (plan.buffers[i], plan.buffers[j]);
            let (at, bt) = (layout.offsets[i], layout.offsets[j]);
            a.alive_with(&b) && at < bt + b.bytes && bt < at + a.bytes
        })
    }

    /// Bytes alive at the busiest op: no layout can need less.
    fn lower_bound(plan: &ArenaPlan) -> usize {
        let at = |op: usize| -> usize {
            let alive = plan.buffers.iter().filter(|b| (b.first_op..=b.last_op).contains(&op));
            alive.map(|b| b.bytes.next_multiple_of(ALIGNMENT)).sum()
        };
        plan.buffers.iter().map(|b| at(b.first_op)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn no_two_alive_together_share_bytes(
            buffers in prop::collection::vec((0usize..5000, 0usize..40, 0usize..8), 0..60)
        ) {
            let mut plan = ArenaPlan::new();
            for (bytes, first, span) in buffers {
                plan.buffer(bytes, first, first + span);
            }
            let layout = plan.layout().unwrap();
            prop_assert_eq!(clash(&plan, &layout), None);
            prop_assert!(layout.offsets.iter().all(|o| o % ALIGNMENT == 0));
            for (offset, buffer) in layout.offsets.iter().zip(&plan.buffers) {
                prop_assert!(offset + buffer.bytes <= layout.total);
            }
            prop_assert!(layout.total >= lower_bound(&plan));
            prop_assert_eq!(layout.total % ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_planted_clash_is_caught() {
        let mut plan = ArenaPlan::new();
        plan.buffer(100, 0, 3);
        plan.buffer(100, 3, 5);
        let planted = ArenaLayout { offsets: vec![0, 64], total: 192 };
        assert_eq!(clash(&plan, &planted), Some((1, 0)));
        assert_eq!(clash(&plan, &plan.layout().unwrap()), None);
    }

    #[test]
    fn a_chain_needs_two_buffers_and_not_more() {
        let mut plan = ArenaPlan::new();
        for op in 0..100 {
            plan.buffer(1000, op, op + 1);
        }
        assert_eq!(plan.layout().unwrap().total, 2 * 1024);
    }

    #[test]
    fn a_gap_between_two_is_filled() {
        let mut plan = ArenaPlan::new();
        let low = plan.buffer(640, 0, 9);
        let gap = plan.buffer(512, 0, 1);
        let high = plan.buffer(320, 0, 9);
        let late = plan.buffer(256, 4, 5);
        let layout = plan.layout().unwrap();
        assert_eq!(layout.offset(low), 0);
        assert_eq!(layout.offset(gap), 640);
        assert_eq!(layout.offset(high), 640 + 512);
        assert_eq!(layout.offset(late), 640);
        assert_eq!(layout.total, 640 + 512 + 320);
    }

    #[test]
    fn nothing_and_empty_buffers_take_nothing() {
        let mut plan = ArenaPlan::new();
        assert_eq!(plan.layout().unwrap(), ArenaLayout { offsets: vec![], total: 0 });
        plan.buffer(0, 7, 3);
        assert_eq!(plan.layout().unwrap(), ArenaLayout { offsets: vec![0], total: 0 });
    }

    #[test]
    fn sums_past_an_address_are_an_error() {
        for sizes in [&[usize::MAX][..], &[usize::MAX / 2, usize::MAX / 2], &[isize::MAX as usize]] {
            let mut plan = ArenaPlan::new();
            for &bytes in sizes {
                plan.buffer(bytes, 0, 0);
            }
            assert!(matches!(plan.layout(), Err(Error::OutOfMemory { .. })), "{sizes:?}");
        }
    }
}
