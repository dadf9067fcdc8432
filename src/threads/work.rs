//! Who does what: even shares known ahead, or the next piece to whoever is free.
//! Both hand out multiples of a grain, so a tile is never split.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Part `index` of `count` of `0..total`: as even as whole multiples of `grain` allow, in order, together
/// covering everything once. The first parts are the larger ones; the last piece may be short of a grain.
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

/// Hands out `0..total` in pieces, to whoever asks next. One serves one op at a time: [`reset`] it while
/// nobody takes from it, that is, with a barrier between its last use, the reset, and its next use. Two in
/// turns need no barrier of their own: during an op that uses one, any worker may reset the other.
///
/// Which worker gets what differs from run to run: use it only where that can't change the result.
///
/// [`reset`]: WorkCounter::reset
#[derive(Debug, Default)]
#[repr(align(64))] // a line of its own: it is fought over
pub struct WorkCounter {
    next: AtomicUsize,
}

impl WorkCounter {
    /// Nothing handed out yet.
    pub const fn new() -> Self {
        Self { next: AtomicUsize::new(0) }
    }

    /// The next `grain` (at least 1) of `0..total`; `None` when all is handed out. All callers of one op pass
    /// the same numbers.
    pub fn take(&self, total: usize, grain: usize) -> Option<Range<usize>> {
        let grain = grain.max(1);
        // Looking first keeps the counter from running on, and over, when asked again and again.
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

    /// The next so many of `0..total`, as `grain` chooses from how many are left (at least 1).
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

/// Hands out `0..total` to workers, to each its even share first, in order and on a cache line of its own; who is
/// done with that takes from the others' shares. So nobody waits for a late worker longer than for one piece, and
/// as long as all keep step, each reads on where it stopped.
///
/// As for [`WorkCounter`]: one op at a time, and use it only where who gets what can't change the result.
#[derive(Debug)]
pub struct Shares {
    taken: Box<[WorkCounter]>,
}

/// A worker takes one piece of so many of what is left of its share: the later, the finer.
const PIECES_LEFT: usize = 4;

impl Shares {
    /// For `workers` workers, nothing handed out yet.
    pub fn new(workers: usize) -> Self {
        Self { taken: (0..workers).map(|_| WorkCounter::new()).collect() }
    }

    /// What worker `index` does next of `0..total`; `None` when all is handed out. All callers of one op pass the
    /// same `total`.
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

    /// Starts worker `index`'s share over; when all workers' are, the whole starts over.
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
    fn what_one_leaves_the_others_take() {
        for (workers, total) in [(1, 9), (2, 0), (2, 1), (3, 100), (5, 3)] {
            let shares = Shares::new(workers);
            let mut seen = vec![0; total];
            // The last worker never comes.
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
