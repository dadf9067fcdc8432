//! The ways into the cache and out of it: rounding rows of keys and values to where [`Layout`] places them, and
//! widening a tile of them to the same places of an f32 cache, where many rows of queries share it.

use super::layout::{Layout, RUN};
use super::stored::Stored;
use super::{CacheType, HeadTiles, TILE};
use crate::isa::{Isa, SimdBody};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Rows to store, and where.
#[derive(Clone, Copy)]
pub(super) struct Put {
    pub layout: Layout,
    /// The head's keys or values: pages for the positions at least.
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
    /// Of what is stored.
    pub layout: Layout,
    /// The tile's first panel, or its first span.
    pub from: *const u8,
    /// Positions.
    pub count: usize,
    /// Room for whole panels, or whole spans, of f32.
    pub to: *mut f32,
}

/// # Safety
/// The CPU has the level. The rows are there; the head's tiles have pages for the positions, and no one else
/// touches these or writes their entries of the table.
pub(super) unsafe fn put_keys<I: Isa, S: Stored>(step: &Put) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(PutKeys::<S>(step, PhantomData));
}

/// # Safety
/// As [`put_keys`].
pub(super) unsafe fn put_values<I: Isa, S: Stored>(step: &Put) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(PutValues::<S>(step, PhantomData));
}

/// # Safety
/// The CPU has the level; the tile and the room are there.
pub(super) unsafe fn widen_keys<I: Isa, S: Stored>(step: &Widen) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(WidenKeys::<S>(step, PhantomData));
}

/// # Safety
/// As [`widen_keys`].
pub(super) unsafe fn widen_values<I: Isa, S: Stored>(step: &Widen) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(WidenValues::<S>(step, PhantomData));
}

/// Positions of a panel that go in together: a key's elements lie a line of the panel apart, so they are
/// rounded beside each other first, and the panel is written line by line.
const TOGETHER: usize = 16;

/// Rounded elements of a run, up to a whole vector.
type Rounded<S> = MaybeUninit<[<S as Stored>::Element; RUN]>;

struct PutKeys<'a, S>(&'a Put, PhantomData<S>);

impl<S: Stored> SimdBody for PutKeys<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Put { layout, to, position, rows, stride, count } = *self.0;
        let mut done = 0;
        while done < count {
            let (tile, place) = ((position + done) / TILE, (position + done) % TILE);
            let (panel, column) = (place / layout.nr, place % layout.nr);
            let together = (layout.nr - column).min(count - done).min(TOGETHER);
            // SAFETY: the caller of `put_keys` promises the positions' entries of the table.
            let tile = unsafe { to.tile(tile) };
            let panel = tile.wrapping_add(panel * layout.nr * layout.key_position());
            for d in (0..layout.head_dim).step_by(RUN) {
                let n = (layout.head_dim - d).min(RUN);
                let run = panel.wrapping_add(layout.key_run(d));
                let mut rounded: [Rounded<S>; TOGETHER] = [const { MaybeUninit::uninit() }; TOGETHER];
                for (i, rounded) in rounded.iter_mut().enumerate().take(together) {
                    // SAFETY: the row is there, and its run's place and factor; vectors divide a run.
                    unsafe {
                        let row = rows.add((done + i) * stride + d);
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

struct PutValues<'a, S>(&'a Put, PhantomData<S>);

impl<S: Stored> SimdBody for PutValues<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Put { layout, to, position, rows, stride, count } = *self.0;
        for span in layout.value_spans() {
            let (width, n) = (span.len(), span.end.min(layout.head_dim) - span.start);
            for i in 0..count {
                let (tile, line) = ((position + i) / TILE, (position + i) % TILE);
                // SAFETY: the caller of `put_values` promises the positions' entries of the table.
                let tile = unsafe { to.tile(tile) };
                let span_at = tile.wrapping_add(layout.value_span(span.start));
                let lines = span_at.wrapping_add(layout.value_factors()).cast::<S::Element>();
                // SAFETY: the row is there, and the line, which is whole vectors, belongs to this caller.
                unsafe {
                    let row = rows.wrapping_add(i * stride + span.start);
                    let scale = S::narrow(isa, row, n, lines.wrapping_add(line * width));
                    if S::TYPE.scaled() {
                        span_at.cast::<f32>().wrapping_add(line).write_unaligned(scale);
                    }
                }
            }
        }
    }
}

struct WidenKeys<'a, S>(&'a Widen, PhantomData<S>);

impl<S: Stored> SimdBody for WidenKeys<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Widen { layout, from, count, to } = *self.0;
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

struct WidenValues<'a, S>(&'a Widen, PhantomData<S>);

impl<S: Stored> SimdBody for WidenValues<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Widen { layout, from, count, to } = *self.0;
        // Spans of both types are cut at different elements: what lies in both goes over.
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
                // SAFETY: the lines are there, and room for them.
                unsafe {
                    widen_lines::<I, S>(
                        isa,
                        (lines, span.len()),
                        factors,
                        (to, wide.len()),
                        both.len(),
                        count,
                    )
                }
            }
        }
    }
}

/// Widens `n` elements, whole vectors, of each of `count` lines, which lie so many elements apart.
///
/// # Safety
/// The lines are there, factors of theirs where the type has them, and room for them.
#[inline(always)]
unsafe fn widen_lines<I: Isa, S: Stored>(
    isa: I,
    (from, from_stride): (*const S::Element, usize),
    factors: *const f32,
    (to, to_stride): (*mut f32, usize),
    n: usize,
    count: usize,
) {
    for line in 0..count {
        // SAFETY: the caller's promise.
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
