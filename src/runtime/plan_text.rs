//! The text of a plan: a line for each step with its inputs and outputs, the barriers, and a line for each new buffer.
//! Of equal layers only the first is written out, as in a graph's text.

use std::fmt::{self, Write};
use std::ops::Range;

use super::plan::{Buf, BufSpec, CacheGroup, Plan, Planned};
use super::steps::Facts;
use crate::kernels::qmatmul::Activations;
use crate::kv::LayerId;
use crate::model::graph::{Graph, RowSet};
use crate::model::text::{self, Cells, Names, Section, counted, write_sections};

/// A run of steps of one layer, or outside of all layers.
struct Part {
    layer: Option<usize>,
    steps: Range<usize>,
    /// The buffers that are first written here.
    buffers: Vec<usize>,
    base: Base,
}

/// The first numbers of a part, from which relative numbers count.
struct Base {
    step: usize,
    buffer: usize,
    /// Buffers below this number exist before the layers and are used in all of them.
    lasting: usize,
    /// For each group of the cache, the next layer to be stored.
    stored: Vec<usize>,
}

/// The labels of steps and buffers: for readers, or, with a base, relative ones that are the same in equal parts.
struct Labels<'a> {
    names: Names<'a>,
    base: Option<&'a Base>,
}

impl Labels<'_> {
    fn number(&self, number: usize, base: impl Fn(&Base) -> usize) -> String {
        (number as i64 - self.base.map_or(0, base) as i64).to_string()
    }

    fn buf(&self, buf: usize) -> String {
        let base = |base: &Base| if buf < base.lasting { 0 } else { base.buffer };
        let lasts = self.base.is_none_or(|base| buf < base.lasting);
        format!("{}{}", if lasts { "b" } else { "+" }, self.number(buf, base))
    }

    fn bufs(&self, bufs: &[Buf]) -> String {
        let mut bufs = bufs.to_vec();
        bufs.dedup();
        bufs.iter().map(|buf| self.buf(buf.index())).collect::<Vec<_>>().join(" ")
    }

    fn cache(&self, LayerId { group, layer }: LayerId) -> String {
        format!("cache {group}.{}", self.number(layer, |base| base.stored[group]))
    }
}

impl Plan {
    /// The text of the plan. It only depends on the graph and the rounding of activations: steps and bytes of rows are
    /// the same for all instruction sets.
    pub fn text(&self, graph: &Graph) -> String {
        let mut text = String::new();
        // Writing to a string doesn't fail.
        let _ = self.write(&mut text, graph);
        text
    }

    fn write(&self, f: &mut impl Write, graph: &Graph) -> fmt::Result {
        let bits = match self.activations {
            Activations::Bits16 => "16-bit",
            Activations::Adaptive => "16- or 8-bit",
            Activations::Bits8 => "8-bit",
        };
        writeln!(
            f,
            "plan of {} with {bits} activations: {}",
            graph.family,
            self.counts(0..self.steps.len())
        )?;
        writeln!(
            f,
            "║ a barrier after the step, │ but not in a short pass (of up to {} rows), ╎ only there",
            Self::FEW_ROWS
        )?;
        for (i, CacheGroup { layers, n_head_kv, head_dim, reach }) in self.groups.iter().enumerate() {
            let reach = reach.map_or("all positions".to_owned(), |reach| format!("{reach} positions"));
            let layers = counted(*layers, "layer");
            writeln!(f, "cache {i}: {layers} of {} of {head_dim}, {reach}", counted(*n_head_kv, "head"))?;
        }
        if self.state_bytes > 0 {
            writeln!(f, "state of a sequence: {} bytes", self.state_bytes)?;
        }
        for (i, mask) in self.masks.iter().enumerate() {
            writeln!(f, "mask {i}: {mask}")?;
        }
        graph.write_ropes(f)?;
        let span = |items: &Range<usize>| format!("steps {} to {}", items.start, items.end - 1);
        write_sections(f, &self.sections(graph), &graph.weights, span)
    }

    /// `8 steps, 8 barriers, 5 in a short pass`.
    fn counts(&self, steps: Range<usize>) -> String {
        // The end of the region is the barrier of the last step.
        let before_last = steps.start..steps.end.min(self.steps.len().saturating_sub(1));
        let count = |barrier: fn(&Planned) -> bool| {
            self.steps[before_last.clone()].iter().filter(|planned| barrier(planned)).count()
        };
        let (many, few) = (count(|planned| planned.barrier), count(|planned| planned.barrier_few));
        format!("{}, {}, {few} in a short pass", counted(steps.len(), "step"), counted(many, "barrier"))
    }

    fn sections(&self, graph: &Graph) -> Vec<Section> {
        let section = |part: Part| {
            let shown = Labels { names: Names::shown(&graph.weights, part.layer), base: None };
            let compared =
                Labels { names: Names::compared(&graph.weights, part.layer), base: Some(&part.base) };
            let [tables, likeness] = [shown, compared]
                .map(|labels| [self.step_rows(&part.steps, &labels), self.buffer_rows(&part, &labels)]);
            let (about, likeness) = (self.counts(part.steps.clone()), format!("{likeness:?}"));
            Section { layer: part.layer, items: part.steps, about, tables, likeness }
        };
        self.parts().into_iter().map(section).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let (mut written, mut stored) = (vec![false; self.buffers.len()], vec![0; self.groups.len()]);
        let mut lasting = None;
        let mut parts = Vec::new();
        for (layer, steps) in text::sections(self.steps.iter().map(|planned| planned.layer)) {
            let before = stored.clone();
            let mut buffers = Vec::new();
            for planned in &self.steps[steps.clone()] {
                let out = planned.facts.out.index();
                if !std::mem::replace(&mut written[out], true) {
                    buffers.push(out);
                }
                if let Some((LayerId { group, .. }, true)) = planned.facts.cache {
                    stored[group] += 1;
                }
            }
            let buffer = buffers.first().copied().unwrap_or(0);
            let lasting = match layer {
                Some(_) => *lasting.get_or_insert(buffer),
                None => 0,
            };
            let base = Base { step: steps.start, buffer, lasting, stored: before };
            parts.push(Part { layer, steps, buffers, base });
        }
        parts
    }

    fn step_rows(&self, steps: &Range<usize>, labels: &Labels<'_>) -> Vec<Cells> {
        let row = |i: usize| {
            let planned = &self.steps[i];
            let Facts { zone, rows, reads, out, cache, .. } = &planned.facts;
            let (read, written) = match *cache {
                Some((layer, false)) => (format!(" {}", labels.cache(layer)), String::new()),
                Some((layer, true)) => (String::new(), format!(" {}", labels.cache(layer))),
                None => Default::default(),
            };
            let barrier = match (planned.barrier, planned.barrier_few) {
                _ if i + 1 == self.steps.len() => ' ',
                (true, true) => '║',
                (true, false) => '│',
                (false, true) => '╎',
                (false, false) => ' ',
            };
            let rows = match rows {
                RowSet::Batch => "",
                RowSet::Output => ", output rows",
                RowSet::Span => ", a row a span",
            };
            vec![
                format!("{:>4} {barrier}", labels.number(i, |base| base.step)),
                zone.name().to_owned(),
                format!("{}{read}", labels.bufs(reads)),
                format!("→ {}{written}", labels.buf(out.index())),
                format!("{}{rows}", planned.step.text(&labels.names)),
            ]
        };
        steps.clone().map(row).collect()
    }

    /// The buffers that a part writes first. The comparison of parts only considers lifetimes within the part, not
    /// whether there is a barrier before or after it.
    fn buffer_rows(&self, part: &Part, labels: &Labels<'_>) -> Vec<Cells> {
        let row = |&buf: &usize| {
            let BufSpec { row_bytes, rows, own_copy, mut first, mut last } = self.buffers[buf];
            if labels.base.is_some() {
                (first, last) = (first.max(part.steps.start), last.min(part.steps.end));
            }
            let step = |i| labels.number(i, |base| base.step);
            let end = if last < self.steps.len() { step(last) } else { "the end".into() };
            let own = if own_copy { ", in a short pass a copy for each worker" } else { "" };
            vec![
                format!("{:>9}", labels.buf(buf)),
                format!("{row_bytes:>6} bytes × {}", rows.name()),
                format!("from step {} to {end}{own}", step(first)),
            ]
        };
        part.buffers.iter().map(row).collect()
    }
}
