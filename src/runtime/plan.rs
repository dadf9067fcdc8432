//! The plan: one forward pass as a list of steps on buffers, made by lowering a graph.
//! The arena is laid out from the buffers' lifetimes, barriers stand where workers meet; the pass walks the steps.

use super::steps::{Facts, Step};
use crate::error::Result;
use crate::kernels::qmatmul::Activations;
use crate::memory::ArenaPlan;
use crate::model::Mask;
use crate::model::graph::RowSet;
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
    /// Bytes of a row: a multiple of 64, but for what goes out.
    pub row_bytes: usize,
    /// Which rows it has.
    pub rows: RowSet,
    /// First step that writes it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
    /// Made row by row from what all workers can see: in a short pass ([`Plan::FEW_ROWS`]) every worker makes a copy
    /// of its own, which costs less than waiting for each other.
    pub own_copy: bool,
}

/// A step in its place.
pub struct Planned {
    /// What is done.
    pub step: Box<dyn Step>,
    /// What it says of itself.
    pub facts: Facts,
    /// The transformer block that it is for, if it is for one.
    pub layer: Option<usize>,
    /// Whether workers wait for each other before the next step, in a pass of many rows.
    pub barrier: bool,
    /// The same in a pass of up to [`Plan::FEW_ROWS`] rows.
    pub barrier_few: bool,
    /// Whether, in such a pass, every worker makes its own copy of what the step writes.
    pub own_copy: bool,
}

impl Planned {
    /// A step whose place is not found yet.
    pub(super) fn new(step: impl Step + 'static, layer: Option<usize>) -> Planned {
        let facts = step.facts();
        Planned { step: Box::new(step), facts, layer, barrier: true, barrier_few: true, own_copy: false }
    }
}

/// Layers that share pages of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheGroup {
    /// How many layers.
    pub layers: usize,
    /// Key/value heads of each.
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// How many positions up to its own a token sees; none for all.
    pub reach: Option<usize>,
}

/// A model's forward pass.
#[derive(Default)]
pub struct Plan {
    /// How finely rows are rounded for quantised weights.
    pub activations: Activations,
    /// The steps, in order.
    pub steps: Vec<Planned>,
    /// The buffers they work on.
    pub buffers: Vec<BufSpec>,
    /// The buffer that holds the results at the end: f32, no gaps between rows.
    pub output: Option<Buf>,
    /// Groups of layers, by number, as steps name them.
    pub groups: Vec<CacheGroup>,
    /// Which positions tokens see, by number, as steps name it.
    pub masks: Vec<Mask>,
    /// Shapes of heads that attention meets.
    pub heads: Vec<HeadShape>,
}

/// Where each buffer lies.
#[derive(Clone, Debug)]
pub struct PlanLayout {
    /// Byte offset of each buffer in the arena.
    pub offsets: Vec<usize>,
    /// Bytes of the arena.
    pub total: usize,
    /// Byte offset, in a worker's own memory, of its copy of each buffer that has such copies.
    pub own_offsets: Vec<usize>,
    /// Bytes of all copies of one worker.
    pub own_total: usize,
}

/// Most rows of each kind in a pass.
#[derive(Clone, Copy, Debug)]
pub struct MostRows {
    /// Tokens.
    pub batch: usize,
    /// Tokens whose output is wanted.
    pub output: usize,
    /// Spans.
    pub spans: usize,
}

impl MostRows {
    fn of(&self, rows: RowSet) -> usize {
        match rows {
            RowSet::Batch => self.batch,
            RowSet::Output => self.output,
            RowSet::Span => self.spans,
        }
    }
}

impl std::fmt::Debug for Plan {
    /// How large it is; [`Plan::text`] has the rest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan of {} steps on {} buffers", self.steps.len(), self.buffers.len())
    }
}

impl Plan {
    /// Most rows of a pass in which workers do row-wise work each for itself. For so few, that takes less time
    /// than a barrier.
    pub const FEW_ROWS: usize = 4;

    /// Whether `later` may only begin when all workers are done with `earlier`.
    fn conflict(&self, earlier: &Planned, later: &Planned, few: bool) -> bool {
        let by_row = |planned: &Planned| !(planned.facts.dynamic || few && planned.own_copy);
        let (a, b) = (&earlier.facts, &later.facts);
        if a.dynamic && b.dynamic {
            // They take turns with two sets of counters, see the pass.
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

    /// Places the barriers: as late as can be, and only where a step meets what other workers do since the last
    /// one. To be called once, when all steps are there.
    pub(super) fn place_barriers(&mut self) {
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
        self.widen_lifetimes(|planned| planned.barrier);
        self.widen_lifetimes(|planned| planned.barrier_few);
    }

    /// Between two barriers workers are at different steps: a buffer that one of them still reads must not
    /// share bytes with one that another writes already. So lifetimes reach from barrier to barrier.
    fn widen_lifetimes(&mut self, barrier: impl Fn(&Planned) -> bool) {
        let mut spans = Vec::with_capacity(self.steps.len());
        let mut begin = 0;
        for (i, planned) in self.steps.iter().enumerate() {
            if barrier(planned) || i + 1 == self.steps.len() {
                spans.resize(i + 1, (begin, i));
                begin = i + 1;
            }
        }
        for spec in &mut self.buffers {
            spec.first = spans.get(spec.first).map_or(spec.first, |span| span.0);
            spec.last = spans.get(spec.last).map_or(spec.last, |span| span.1);
        }
    }

    /// Lays the buffers out for passes of up to so many rows.
    pub fn layout(&self, most: MostRows) -> Result<PlanLayout> {
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
        plan.place_barriers();
        plan
    }

    #[test]
    fn barriers_stand_only_where_workers_meet() {
        let plan = layer();
        let places = |barrier: &dyn Fn(&Planned) -> bool| -> Vec<usize> {
            (0..plan.steps.len() - 1).filter(|&i| barrier(&plan.steps[i])).collect()
        };
        // Many rows: the norm after the embedding has the same rows; everything else waits.
        assert_eq!(places(&|planned| planned.barrier), [1, 2, 3, 4, 5, 6, 7]);
        // Few: each worker normalises for itself what all have written.
        assert_eq!(places(&|planned| planned.barrier_few), [0, 2, 3, 4, 6, 7]);
    }
}
