//! The plan: a forward pass as a list of steps on buffers, made by lowering a graph.
//! Lifetimes of buffers determine the layout of the arena, and conflicts between steps determine the barriers.

use super::steps::{Facts, Step};
use crate::error::Result;
use crate::kernels::qmatmul::Activations;
use crate::kernels::rope::Pairing;
use crate::kv::LayerId;
use crate::memory::ArenaPlan;
use crate::memory::reserve::filled;
use crate::model::Mask;
use crate::model::graph::{RopeId, RowSet};
use crate::ops::attention::HeadShape;

/// A buffer of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf(pub(crate) u32);

impl Buf {
    /// Index into [`Plan::buffers`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Shape and lifetime of a buffer.
#[derive(Clone, Copy, Debug)]
pub struct BufSpec {
    /// Bytes of a row: a multiple of 64, except in the output buffer.
    pub row_bytes: usize,
    /// Its rows.
    pub rows: RowSet,
    /// First step that writes it.
    pub first: usize,
    /// Last step that uses it.
    pub last: usize,
    /// Whether each worker computes a copy of its own in a short pass ([`Plan::FEW_ROWS`]), which takes less time than
    /// a barrier. Only for rows that are computed one by one from data that all workers see.
    pub own_copy: bool,
}

/// A step in its place in a plan.
pub struct Planned {
    /// The step.
    pub step: Box<dyn Step>,
    /// Its facts.
    pub facts: Facts,
    /// Its transformer block; `None` outside of all blocks.
    pub layer: Option<usize>,
    /// Whether a barrier follows the step in a pass of many rows.
    pub barrier: bool,
    /// Whether a barrier follows the step in a pass of up to [`Plan::FEW_ROWS`] rows.
    pub barrier_few: bool,
    /// Whether, in such a short pass, each worker computes its own copy of the step's output.
    pub own_copy: bool,
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planned")
            .field("facts", &self.facts)
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}

impl Planned {
    /// A step whose barriers are not known yet.
    pub(super) fn new(step: impl Step + 'static, layer: Option<usize>) -> Planned {
        let facts = step.facts();
        Planned { step: Box::new(step), facts, layer, barrier: true, barrier_few: true, own_copy: false }
    }
}

/// Layers that share pages of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGroup {
    /// Number of layers.
    pub layers: usize,
    /// Key/value heads of each layer.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Length of the window that ends with a token's own position; `None` where a token sees every position before it.
    pub reach: Option<usize>,
}

/// A model's forward pass. [`Plan::text`] shows it.
#[derive(Default)]
pub struct Plan {
    /// How finely activations are rounded before they are multiplied with quantised weights.
    pub(crate) activations: Activations,
    /// The steps, in order.
    pub(crate) steps: Vec<Planned>,
    /// The buffers they work on.
    pub(crate) buffers: Vec<BufSpec>,
    /// The buffer with the results at the end: f32, without gaps between rows.
    pub(crate) output: Option<Buf>,
    /// Groups of layers in the cache; steps refer to them by number.
    pub(crate) groups: Vec<CacheGroup>,
    /// Bytes of a sequence's state, in which steps have their places.
    pub(crate) state_bytes: usize,
    /// Masks of attention; steps refer to them by number.
    pub(crate) masks: Vec<Mask>,
    /// Shapes of heads in attention, each once.
    pub(crate) heads: Vec<HeadShape>,
    /// The layers that store keys, and what positions do to these.
    pub(crate) keys: Vec<(LayerId, Turned)>,
}

/// How a layer's keys depend on their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// Not at all.
    Never,
    /// By a rotation, which comes last.
    By(RopeId, Pairing),
    /// In another way.
    Otherwise,
}

/// The place of each buffer.
#[derive(Clone, Debug)]
pub struct PlanLayout {
    /// Byte offset of each buffer in the arena.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub total: usize,
    /// Byte offset of a worker's copy of each buffer, in the worker's own memory.
    pub own_offsets: Vec<usize>,
    /// Bytes of one worker's copies.
    pub own_total: usize,
}

/// Most rows of each kind in a pass.
#[derive(Clone, Copy, Debug)]
pub struct MostRows {
    /// Tokens.
    pub batch: usize,
    /// Output tokens.
    pub output: usize,
    /// Spans.
    pub spans: usize,
}

impl MostRows {
    /// Most rows of one kind.
    pub fn of(&self, rows: RowSet) -> usize {
        match rows {
            RowSet::Batch => self.batch,
            RowSet::Output => self.output,
            RowSet::Span => self.spans,
        }
    }
}

impl std::fmt::Debug for Plan {
    /// Its size; [`Plan::text`] writes the whole plan.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan of {} steps on {} buffers", self.steps.len(), self.buffers.len())
    }
}

impl Plan {
    /// Most rows of a short pass, in which each worker does row-wise work for itself: with so few rows, this takes less
    /// time than a barrier.
    pub const FEW_ROWS: usize = 4;

    /// Whether `later` may only begin after all workers have finished `earlier`.
    fn conflict(&self, earlier: &Planned, later: &Planned, few: bool) -> bool {
        let by_row = |planned: &Planned| !(planned.facts.dynamic || few && planned.own_copy);
        let (a, b) = (&earlier.facts, &later.facts);
        if a.dynamic && b.dynamic {
            // Dynamic steps use two sets of counters alternately, see the pass.
            return true;
        }
        if by_row(earlier) && by_row(later) && a.rows == b.rows {
            return false;
        }
        let meet = |written: Buf, other: &Facts| {
            let own = few && self.buffers[written.index()].own_copy;
            !own && (other.reads.contains(&written) || other.out == written)
        };
        let same_layer = a.cache.zip(b.cache).is_some_and(|(a, b)| a.0 == b.0 && (a.1 || b.1));
        meet(a.out, b) || meet(b.out, a) || same_layer
    }

    /// Places the barriers: as late as possible, and only before a step that conflicts with a step since the last
    /// barrier. Called once, when the plan has all its steps.
    pub(super) fn place_barriers(&mut self) -> Result<()> {
        for planned in &mut self.steps {
            planned.own_copy = !planned.facts.dynamic && self.buffers[planned.facts.out.index()].own_copy;
        }
        for few in [false, true] {
            let mut since = 0;
            for i in 1..self.steps.len() {
                let barrier = (since..i).any(|j| self.conflict(&self.steps[j], &self.steps[i], few));
                let planned = &mut self.steps[i - 1];
                *if few { &mut planned.barrier_few } else { &mut planned.barrier } = barrier;
                if barrier {
                    since = i;
                }
            }
        }
        self.widen_lifetimes(|planned| planned.barrier)?;
        self.widen_lifetimes(|planned| planned.barrier_few)
    }

    /// Whether a barrier stands between any two steps that use the cache for different layers, so that these can use the
    /// same memory one after the other.
    pub(super) fn layers_take_turns(&self) -> bool {
        let (mut last, mut barriers) = (None, [false; 2]);
        for planned in &self.steps {
            if let Some((layer, _)) = planned.facts.cache {
                if last.is_some_and(|last| last != layer) && barriers != [true; 2] {
                    return false;
                }
                (last, barriers) = (Some(layer), [false; 2]);
            }
            barriers = [barriers[0] || planned.barrier, barriers[1] || planned.barrier_few];
        }
        true
    }

    /// Extends the lifetimes of buffers to whole runs of steps between barriers. Within such a run workers are at
    /// different steps, so a buffer that one worker still reads must not share bytes with one that another worker
    /// writes already.
    fn widen_lifetimes(&mut self, barrier: impl Fn(&Planned) -> bool) -> Result<()> {
        let mut spans = filled((0, 0), self.steps.len(), "a plan")?;
        let mut begin = 0;
        for (i, planned) in self.steps.iter().enumerate() {
            if barrier(planned) || i + 1 == self.steps.len() {
                spans[begin..=i].fill((begin, i));
                begin = i + 1;
            }
        }
        for spec in &mut self.buffers {
            spec.first = spans.get(spec.first).map_or(spec.first, |span| span.0);
            spec.last = spans.get(spec.last).map_or(spec.last, |span| span.1);
        }
        Ok(())
    }

    /// Computes the places of buffers for passes of up to `most` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) where the sizes overflow.
    pub(super) fn layout(&self, most: MostRows) -> Result<PlanLayout> {
        let (mut arena, mut own) = (ArenaPlan::new(), ArenaPlan::new());
        for spec in &self.buffers {
            let rows = most.of(spec.rows);
            let bytes = crate::memory::checked_bytes(spec.row_bytes, rows, "activations")?;
            arena.buffer(bytes, spec.first, spec.last);
            let own_rows = if spec.own_copy { rows.min(Self::FEW_ROWS) } else { 0 };
            own.buffer(spec.row_bytes * own_rows, spec.first, spec.last);
        }
        let (arena, own) = (arena.layout()?, own.layout()?);
        let (own_offsets, own_total) = (own.offsets, own.total);
        Ok(PlanLayout { offsets: arena.offsets, total: arena.total, own_offsets, own_total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::LayerId;
    use crate::model::text::Names;
    use crate::profile::Zone;
    use crate::runtime::steps::{At, Walk, Work};

    /// A step that only says what it touches.
    struct Touch(Facts);

    impl Step for Touch {
        fn facts(&self) -> Facts {
            self.0.clone()
        }
        fn work(&self, _: &Walk<'_>) -> Work {
            Work::default()
        }
        unsafe fn run(&self, _: &Walk<'_>, _: &At<'_>) {}
        fn text(&self, _: &Names<'_>) -> String {
            String::new()
        }
    }

    /// One layer as a Llama has it, over buffers 0 residual, 1 and 4 normed, 2 qkv, 3 heads, 5 gated.
    fn layer() -> Plan {
        let step = |dynamic, reads: &[u32], out: u32, cache| {
            let reads = reads.iter().map(|&buf| Buf(buf)).collect();
            let (zone, rows, out) = (Zone::Other, RowSet::Batch, Buf(out));
            Planned::new(Touch(Facts { zone, rows, reads, out, cache, dynamic }), None)
        };
        let layer = LayerId { group: 0, layer: 0 };
        let steps = vec![
            step(false, &[], 0, None),
            step(false, &[0], 1, None),
            step(true, &[1], 2, Some((layer, true))),
            step(true, &[2], 3, Some((layer, false))),
            step(true, &[3], 0, None),
            step(false, &[0], 4, None),
            step(true, &[4], 5, None),
            step(true, &[5], 0, None),
            step(false, &[0], 1, None),
        ];
        let spec = |i| BufSpec {
            row_bytes: 64,
            rows: RowSet::Batch,
            first: 0,
            last: 8,
            own_copy: [1, 4].contains(&i),
        };
        let mut plan = Plan { steps, buffers: (0..6).map(spec).collect(), ..Plan::default() };
        plan.place_barriers().unwrap();
        plan
    }

    #[test]
    fn barriers_stand_only_where_workers_meet() {
        let plan = layer();
        let places = |barrier: &dyn Fn(&Planned) -> bool| -> Vec<usize> {
            (0..plan.steps.len() - 1).filter(|&i| barrier(&plan.steps[i])).collect()
        };
        // Many rows: the norm after the embedding works on the same rows; every other step needs a barrier before it.
        assert_eq!(places(&|planned| planned.barrier), [1, 2, 3, 4, 5, 6, 7]);
        // Few rows: each worker normalises all rows for itself.
        assert_eq!(places(&|planned| planned.barrier_few), [0, 2, 3, 4, 6, 7]);
    }

    #[test]
    fn layers_take_turns_where_barriers_keep_their_steps_apart() {
        let mut plan = layer();
        let next = LayerId { group: 0, layer: 1 };
        // Another layer's keys and values follow the product that reads the heads.
        plan.steps[8].facts.cache = Some((next, true));
        assert!(plan.layers_take_turns());
        // Without the barriers behind attention they don't, be it in one kind of passes only.
        for without in [[true, false], [false, true]] {
            let mut plan = layer();
            plan.steps[8].facts.cache = Some((next, true));
            for planned in &mut plan.steps[3..] {
                planned.barrier &= !without[0];
                planned.barrier_few &= !without[1];
            }
            assert!(!plan.layers_take_turns(), "{without:?}");
        }
    }
}
