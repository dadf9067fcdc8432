//! Divides a window into passes, and estimates which strategy takes less time.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::window::Window;

/// Limits of a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most tokens of several items; a longer item has a pass of its own.
    pub n_batch: usize,
    /// Most items.
    pub n_spans: usize,
    pub workers: usize,
}

/// Fewest tokens that are worth a pass of their own: with fewer, a pass takes hardly less time, as it reads all weights.
const LEAST: usize = 32;

/// What a pass takes beyond its tokens, in tokens: reading the weights, and its steps.
const PASS_TOKENS: f64 = 4.0;

/// The share of their time for which workers in one pass don't wait for each other.
const FINE_EFFICIENCY: f64 = 0.88;

/// Hands out passes of a window, the longest items first.
pub(super) struct Queue<'w> {
    window: &'w Window,
    limits: Limits,
    /// Whether each worker runs passes of its own: then passes get shorter towards the end, so that workers finish
    /// together.
    coarse: bool,
    next: Mutex<Next>,
}

/// The first place that isn't handed out, and the tokens from there on.
#[derive(Clone, Copy)]
struct Next {
    place: usize,
    tokens: usize,
}

impl<'w> Queue<'w> {
    pub fn new(window: &'w Window, limits: Limits, coarse: bool) -> Self {
        let next = Mutex::new(Next { place: 0, tokens: window.n_tokens });
        Queue { window, limits, coarse, next }
    }

    /// The places of the next pass; `None` when all are handed out.
    pub fn take(&self) -> Option<Range<usize>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = next.place;
        let target = match self.coarse {
            true => next.tokens.div_ceil(2 * self.limits.workers).max(LEAST).min(self.limits.n_batch),
            false => self.limits.n_batch,
        };
        let mut tokens = 0;
        let items = self.window.items(begin..self.window.order.len());
        for item in items.take(self.limits.n_spans) {
            if tokens > 0 && tokens + item.len > target {
                break;
            }
            tokens += item.len;
            next.place += 1;
        }
        next.tokens -= tokens;
        (next.place > begin).then_some(begin..next.place)
    }
}

/// Whether passes on each thread are estimated to take less time than passes on all threads.
pub(super) fn coarse_is_faster(window: &Window, limits: Limits, busy: &mut [f64]) -> bool {
    let time = |places: Range<usize>| {
        let tokens: usize = window.items(places).map(|item| item.len).sum();
        tokens as f64 + PASS_TOKENS
    };
    busy.fill(0.0);
    let queue = Queue::new(window, limits, true);
    while let Some(places) = queue.take() {
        if let Some(least) = busy.iter_mut().min_by(|a, b| a.total_cmp(b)) {
            *least += time(places);
        }
    }
    let coarse = busy.iter().copied().fold(0.0, f64::max);
    let queue = Queue::new(window, limits, false);
    let mut fine = 0.0;
    while let Some(places) = queue.take() {
        fine += time(places) / (limits.workers as f64 * FINE_EFFICIENCY);
    }
    coarse < fine
}
