//! Partition of work over workers: static even shares, or pieces that are scheduled dynamically.
//! Both consist of multiples of a grain, so a tile is never split.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::Result;
use crate::memory::reserve::collected;

/// Part `index` of `count` parts of `0..total`: as even as whole multiples of `grain` allow. In order, the parts cover
/// everything once. The first parts are the larger ones; the last one may end with less than a grain.
///
/// A `grain` or `count` of 0 counts as 1.
pub fn share(total: usize, grain: usize, index: usize, count: usize) -> Range<usize> {
    let (grain, count) = (grain.max(1), count.max(1));
    let pieces = total.div_ceil(grain);
    let (each, left) = (pieces / count, pieces % count);
    let first_piece = |index: usize| each * index.min(count) + index.min(left);
    let bound = |index: usize| first_piece(index).saturating_mul(grain).min(total);
    bound(index)..bound(index.saturating_add(1))
}

/// Dynamic scheduling: each call takes the next piece of `0..total`. A counter serves one op at a time. [`reset`] it
/// while no worker takes from it, with a barrier between its last use and the reset, and another one before its next
/// use. Two counters that ops use alternately need no extra barrier: during an op that uses one, any worker may reset
/// the other.
///
/// The worker that takes a piece differs from run to run, so the result must not depend on it.
///
/// [`reset`]: WorkCounter::reset
#[derive(Debug, Default)]
#[repr(align(64))] // a cache line of its own, since all workers write it
pub struct WorkCounter {
    next: AtomicUsize,
}

impl WorkCounter {
    /// A counter of which nothing is taken yet.
    pub const fn new() -> Self {
        Self { next: AtomicUsize::new(0) }
    }

    /// Takes the next `grain` (at least 1) of `0..total`; `None` when all is taken. All callers of one op pass the same
    /// numbers.
    #[inline]
    pub fn take(&self, total: usize, grain: usize) -> Option<Range<usize>> {
        let grain = grain.max(1);
        // Without this look, repeated calls would increment the counter without limit until it overflows.
        if self.next.load(Relaxed) >= total {
            return None;
        }
        let pieces = total.div_ceil(grain);
        let begin = self.next.fetch_add(grain, Relaxed);
        debug_assert!(begin / grain <= pieces.saturating_add(super::MAX_WORKERS));
        (begin < total).then(|| begin..begin.saturating_add(grain).min(total))
    }

    /// Starts over.
    pub fn reset(&self) {
        self.next.store(0, Relaxed);
    }

    /// Takes the next piece of `0..total`; `grain` computes its length (at least 1) from the length that is left.
    #[inline]
    fn take_some(&self, total: usize, grain: impl Fn(usize) -> usize) -> Option<Range<usize>> {
        let mut begin = self.next.load(Relaxed);
        while begin < total {
            let left = total - begin;
            let end = begin + grain(left).clamp(1, left);
            match self.next.compare_exchange_weak(begin, end, Relaxed, Relaxed) {
                Ok(_) => return Some(begin..end),
                Err(now) => begin = now,
            }
        }
        None
    }
}

/// Even shares with work stealing. Each worker takes its own share of `0..total` first, piece by piece and in order; a
/// worker that has finished its share takes pieces of the others'. So the wait for a slow worker is at most one piece,
/// and workers of equal speed read their shares sequentially. Each share's counter has a cache line of its own.
///
/// As with [`WorkCounter`], it serves one op at a time, and the result must not depend on the worker that takes a
/// piece.
#[derive(Debug)]
pub struct Shares {
    taken: Box<[WorkCounter]>,
}

/// A worker takes one of this many parts of the rest of its share, so pieces become finer towards the end.
const PIECES_LEFT: usize = 4;

impl Shares {
    /// Shares of `workers` workers, of which nothing is taken yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(workers: usize) -> Result<Self> {
        let taken = collected((0..workers).map(|_| Ok(WorkCounter::new())), "the shares of a team")?;
        Ok(Self { taken: taken.into_boxed_slice() })
    }

    /// Takes the next piece of `0..total` for worker `index`; `None` when all is taken. All callers of one op pass the
    /// same `total`.
    #[inline]
    pub fn take(&self, index: usize, total: usize) -> Option<Range<usize>> {
        let count = self.taken.len();
        (0..count).find_map(|i| {
            let owner = if index + i < count { index + i } else { index + i - count };
            let share = share(total, 1, owner, count);
            let grain = |left: usize| match (i, count) {
                (_, 1) => left,
                (0, _) => left.div_ceil(PIECES_LEFT),
                _ => 1,
            };
            let piece = self.taken[owner].take_some(share.len(), grain)?;
            Some(share.start + piece.start..share.start + piece.end)
        })
    }

    /// Resets the share of worker `index`. Once all shares are reset, another op may use them.
    pub fn reset(&self, index: usize) {
        self.taken[index].reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_cover_everything_once(
            total in 0usize..2000, grain in 0usize..70, count in 1usize..20
        ) {
            let parts: Vec<_> = (0..count).map(|index| share(total, grain, index, count)).collect();
            let mut next = 0;
            for part in &parts {
                prop_assert_eq!(part.start, next);
                prop_assert!(part.start % grain.max(1) == 0 || part.is_empty());
                next = part.end;
            }
            prop_assert_eq!(next, total);
            let pieces = |part: &Range<usize>| part.len().div_ceil(grain.max(1));
            let (most, least) = (parts.iter().map(pieces).max(), parts.iter().map(pieces).min());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
        }

        #[test]
        fn pieces_cover_everything_once(total in 0usize..500, grain in 0usize..70) {
            let counter = WorkCounter::new();
            let mut next = 0;
            while let Some(piece) = counter.take(total, grain) {
                prop_assert_eq!(piece.start, next);
                prop_assert!(!piece.is_empty());
                next = piece.end;
            }
            prop_assert_eq!(next, total);
        }
    }

    #[test]
    fn other_workers_take_the_share_of_a_missing_one() {
        for (workers, total) in [(1, 9), (2, 0), (2, 1), (3, 100), (5, 3)] {
            let shares = Shares::new(workers).unwrap();
            let mut seen = vec![0; total];
            // The last worker is missing.
            for index in (0..workers.max(2) - 1).cycle().take(2 * total + workers) {
                shares.take(index, total).into_iter().flatten().for_each(|piece| seen[piece] += 1);
            }
            assert!(seen.iter().all(|&times| times == 1), "{workers} workers: {seen:?}");
            assert_eq!(shares.take(0, total), None);
            (0..workers).for_each(|index| shares.reset(index));
            assert_eq!(shares.take(0, total).map(|piece| piece.start), (total > 0).then_some(0));
        }
    }

    #[test]
    fn the_ends_of_the_number_line() {
        assert_eq!(share(0, 8, 0, 4), 0..0);
        assert_eq!(share(10, 8, 7, 4), 10..10);
        assert_eq!(share(10, 0, 0, 0), 0..10);
        let last = share(usize::MAX, 64, 2, 3);
        assert_eq!(last.end, usize::MAX);
        assert_eq!(last.start, share(usize::MAX, 64, 1, 3).end);
        assert_eq!(share(5, usize::MAX, 0, 2), 0..5);
        let counter = WorkCounter::new();
        assert_eq!(counter.take(usize::MAX, usize::MAX), Some(0..usize::MAX));
        assert_eq!(counter.take(usize::MAX, usize::MAX), None);
    }
}
