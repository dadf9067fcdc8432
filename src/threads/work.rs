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
