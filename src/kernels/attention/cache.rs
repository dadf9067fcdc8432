//! Writes to the cache and reads from it: rows of keys and values are rounded to the places that [`Layout`] gives
//! them, and a tile is widened to the same places of an f32 cache where many rows of queries share it.

use super::layout::{Layout, RUN};
use super::stored::Stored;
use super::{CacheType, HeadTiles, TILE};
use crate::isa::Isa;
use crate::kernels::routine::Routine;
use crate::kernels::vectors::Row;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Rows to store, and their places.
#[derive(Clone, Copy)]
pub(super) struct Put {
    pub layout: Layout,
    /// The head's keys or values, which have pages at least for the positions.
    pub to: HeadTiles,
    /// Position of row 0.
    pub position: usize,
    pub rows: *const f32,
    /// Floats between rows.
    pub stride: usize,
    pub count: usize,
}

/// A tile to widen.
#[derive(Clone, Copy)]
pub(super) struct Widen {
    /// The layout of the stored tile.
    pub layout: Layout,
    /// The tile's first panel, or its first span.
    pub from: *const u8,
    /// Positions.
    pub count: usize,
    /// Has room for whole panels, or whole spans, of f32.
    pub to: *mut f32,
}

/// Positions of a panel that are stored together: a key's elements lie a line of the panel apart, so several keys are
/// rounded first, and then the panel is written line by line.
const TOGETHER: usize = 16;

/// Rounded elements of a run, up to a whole vector.
type Rounded<S> = MaybeUninit<[<S as Stored>::Element; RUN]>;

pub(super) struct PutKeys<S>(PhantomData<S>);

impl<S: Stored> Routine<Put> for PutKeys<S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Put) {
        let Put { layout, to, position, rows, stride, count } = *args;
        let mut done = 0;
        while done < count {
            let (tile, place) = ((position + done) / TILE, (position + done) % TILE);
            let (panel, column) = (place / layout.nr, place % layout.nr);
            let together = (layout.nr - column).min(count - done).min(TOGETHER);
            let panel = to.tile(tile).wrapping_add(panel * layout.nr * layout.key_position());
            for d in (0..layout.head_dim).step_by(RUN) {
                let n = (layout.head_dim - d).min(RUN);
                let run = panel.wrapping_add(layout.key_run(d));
                let mut rounded: [Rounded<S>; TOGETHER] = [const { MaybeUninit::uninit() }; TOGETHER];
                for (i, rounded) in rounded.iter_mut().enumerate().take(together) {
                    // SAFETY: the row is there, and its run's place and factor; vectors divide a run.
                    unsafe {
                        let row = Row::new(rows.add((done + i) * stride + d), n);
                        let scale = S::narrow(isa, row, n, rounded.as_mut_ptr().cast());
                        if S::TYPE.scaled() {
                            run.cast::<f32>().wrapping_add(column + i).write_unaligned(scale);
                        }
                    }
                }
                let line = run.wrapping_add(layout.key_factors()).cast::<S::Element>().wrapping_add(column);
                for e in 0..n {
                    for (i, rounded) in rounded.iter().enumerate().take(together) {
                        // SAFETY: element `e` was rounded above, and its place is there.
                        unsafe {
                            let x = rounded.as_ptr().cast::<S::Element>().add(e).read();
                            line.wrapping_add(e * layout.nr + i).write_unaligned(x);
                        }
                    }
                }
            }
            done += together;
        }
    }
}

pub(super) struct PutValues<S>(PhantomData<S>);

impl<S: Stored> Routine<Put> for PutValues<S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Put) {
        let Put { layout, to, position, rows, stride, count } = *args;
        for span in layout.value_spans() {
            let (width, n) = (span.len(), span.end.min(layout.head_dim) - span.start);
            for i in 0..count {
                let (tile, line) = ((position + i) / TILE, (position + i) % TILE);
                let span_at = to.tile(tile).wrapping_add(layout.value_span(span.start));
                let lines = span_at.wrapping_add(layout.value_factors()).cast::<S::Element>();
                // SAFETY: the row is there, and the line, which is whole vectors, belongs to this caller.
                unsafe {
                    let row = Row::new(rows.wrapping_add(i * stride + span.start), n);
                    let scale = S::narrow(isa, row, n, lines.wrapping_add(line * width));
                    if S::TYPE.scaled() {
                        span_at.cast::<f32>().wrapping_add(line).write_unaligned(scale);
                    }
                }
            }
        }
    }
}

pub(super) struct WidenKeys<S>(PhantomData<S>);

impl<S: Stored> Routine<Widen> for WidenKeys<S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Widen) {
        let Widen { layout, from, count, to } = *args;
        let nr = layout.nr;
        for panel in 0..count.div_ceil(nr) {
            let from = from.wrapping_add(panel * nr * layout.key_position());
            let to = to.wrapping_add(panel * nr * layout.head_dim);
            for run in layout.key_runs() {
                let factors = from.wrapping_add(layout.key_run(run.start));
                let lines = factors.wrapping_add(layout.key_factors()).cast::<S::Element>();
                for v in (0..nr).step_by(I::LANES) {
                    // SAFETY: the run's factors and lines are there, and room for them.
                    unsafe {
                        let factor = if S::TYPE.scaled() {
                            isa.load(factors.cast::<f32>().wrapping_add(v))
                        } else {
                            isa.zero()
                        };
                        for d in run.clone() {
                            let x = S::load(isa, lines.wrapping_add((d - run.start) * nr + v));
                            let x = if S::TYPE.scaled() { isa.mul(x, factor) } else { x };
                            isa.store(to.wrapping_add(d * nr + v), x);
                        }
                    }
                }
            }
        }
    }
}

pub(super) struct WidenValues<S>(PhantomData<S>);

impl<S: Stored> Routine<Widen> for WidenValues<S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Widen) {
        let Widen { layout, from, count, to } = *args;
        // Spans of both types are cut at different elements: the elements that two spans share are widened together.
        for wide in (Layout { stored: CacheType::F32, ..layout }).value_spans() {
            for span in layout.value_spans() {
                let both = span.start.max(wide.start)..span.end.min(wide.end);
                if both.is_empty() {
                    continue;
                }
                let factors = from.wrapping_add(layout.value_span(span.start));
                let lines = factors.wrapping_add(layout.value_factors()).cast::<S::Element>();
                let (factors, lines) = (factors.cast::<f32>(), lines.wrapping_add(both.start - span.start));
                let to = to.wrapping_add(wide.start * TILE + both.start - wide.start);
                let (from_lines, to_lines) = ((lines, span.len()), (to, wide.len()));
                widen_lines::<I, S>(isa, from_lines, factors, to_lines, both.len(), count);
            }
        }
    }
}

/// Widens `n` elements, whole vectors, of each of `count` lines, which lie so many elements apart.
#[inline(always)]
fn widen_lines<I: Isa, S: Stored>(
    isa: I,
    (from, from_stride): (*const S::Element, usize),
    factors: *const f32,
    (to, to_stride): (*mut f32, usize),
    n: usize,
    count: usize,
) {
    for line in 0..count {
        // SAFETY: the tile has the line and its factor, and `to` has room for it.
        unsafe {
            let factor = if S::TYPE.scaled() {
                isa.splat(factors.wrapping_add(line).read_unaligned())
            } else {
                isa.zero()
            };
            for i in (0..n).step_by(I::LANES) {
                let x = S::load(isa, from.wrapping_add(line * from_stride + i));
                let x = if S::TYPE.scaled() { isa.mul(x, factor) } else { x };
                isa.store(to.wrapping_add(line * to_stride + i), x);
            }
        }
    }
}
