//! The common parts of texts of graphs and plans: names of tensors, columns, and a section for each layer. Of equal
//! layers only the first is written out. The texts hold no strings of a file: families choose the names of tensors.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::ops::Range;

use super::experts::{Experts, ExpertsProduct};
use super::graph::{Conv, Norm, Scan, ScanShape};
use super::recurrence::{Delta, DeltaShape};
use super::weights::{MatrixId, TableId, TensorSpec, VectorId, WeightSpecs};

/// Names of tensors in a section: without the prefix of the layer, which is in the section's heading.
#[derive(Debug)]
pub struct Names<'a> {
    weights: &'a WeightSpecs,
    layer: Option<usize>,
    types: bool,
}

impl<'a> Names<'a> {
    /// Names for readers.
    pub(crate) fn shown(weights: &'a WeightSpecs, layer: Option<usize>) -> Self {
        Names { weights, layer, types: true }
    }

    /// Names for the comparison of layers: without types.
    pub(crate) fn compared(weights: &'a WeightSpecs, layer: Option<usize>) -> Self {
        Names { types: false, ..Self::shown(weights, layer) }
    }

    /// `attn_q.weight [64 → 96, Q4_0]`: from rows of 64 to rows of 96.
    pub fn matrix(&self, id: MatrixId) -> String {
        let spec = self.weights.matrix(id);
        self.shaped(spec, &format!("{} → {}", spec.k, spec.n))
    }

    /// `attn_q.weight [64 → 96, Q4_0] · scale + attn_q.bias`: a product with its own factor and bias, if it has them.
    pub fn product(&self, matrix: MatrixId, bias: Option<VectorId>, scale: f32) -> String {
        // The factor of each layer is another one: its number would make all layers different.
        let scale = if scale == 1.0 { "" } else { " · scale" };
        let bias = bias.map_or(String::new(), |bias| format!(" + {}", self.vector(bias)));
        format!("{}{scale}{bias}", self.matrix(matrix))
    }

    /// `ffn_up_exps.weight [8 × 64 → 96, Q4_0]`: the products of experts, as [`Names::product`] does.
    pub fn experts_product(&self, product: &ExpertsProduct) -> String {
        let spec = self.weights.experts(product.matrices);
        let scale = product.scale.map_or(String::new(), |scale| format!(" · {}", self.vector(scale)));
        let bias = product.bias.map_or(String::new(), |bias| format!(" + {}", self.vector(bias)));
        let shape = format!("{} × {} → {}", spec.matrices(), spec.k, spec.n);
        format!("{}{scale}{bias}", self.shaped(spec, &shape))
    }

    /// The choice of experts, and their products.
    pub fn experts(&self, experts: &Experts) -> String {
        let before = if experts.weighs_input { ", inputs weighted" } else { "" };
        let up = self.experts_product(&experts.up);
        let inside = match &experts.gate {
            Some(gate) => format!("{} of {}\n· {up}", experts.inner, self.experts_product(gate)),
            None => format!("{} of {up}", experts.inner),
        };
        format!("{}{before}\n{inside}\n{}", experts.routing, self.experts_product(&experts.down))
    }

    /// `token_embd.weight [288 × 64, F16]`: 288 rows of 64.
    pub fn table(&self, id: TableId) -> String {
        self.rows(self.weights.table(id))
    }

    /// Learned positions, written as [`Names::table`] does.
    pub fn positions(&self, id: VectorId) -> String {
        self.rows(self.weights.vector(id))
    }

    /// `attn_norm.weight`.
    pub fn vector(&self, id: VectorId) -> &'a str {
        self.short(self.weights.vector(id))
    }

    /// Weights and form of a convolution.
    pub fn conv(&self, conv: &Conv) -> String {
        let bias = conv.bias.map_or(String::new(), |bias| format!(" + {}", self.vector(bias)));
        let behind = match conv {
            Conv { silu: true, .. } => ", silu",
            Conv { gates: Some(_), .. } => ", between gates",
            _ => "",
        };
        format!("{} taps, {}{bias}{behind}", conv.taps, self.vector(conv.weights))
    }

    /// Weights and sizes of a scan.
    pub fn scan(&self, scan: &Scan) -> String {
        let ScanShape { heads, head_dim, d_state, groups } = scan.shape;
        let heads = match head_dim {
            Some(head_dim) => format!("{heads} heads of {head_dim} in {}", counted(groups, "group")),
            None => counted(heads, "channel"),
        };
        let [a, bias, d] = [scan.a, scan.dt_bias, scan.d].map(|id| self.vector(id));
        format!("{heads}, state of {d_state}, decay {a}, step + {bias}, input · {d}")
    }

    /// Weights and sizes of a delta rule.
    pub fn delta(&self, delta: &Delta) -> String {
        let DeltaShape { heads, key_heads, d_k, d_v, .. } = delta.shape;
        let [a, bias] = [delta.a, delta.dt_bias].map(|id| self.vector(id));
        let keys = format!("{} of {d_k}", counted(key_heads, "head"));
        format!("{} of {d_v} on {keys}, decay {a}, step + {bias}", counted(heads, "head"))
    }

    /// Gain, bias and epsilon of a norm.
    pub fn norm(&self, norm: &Norm) -> String {
        match *norm {
            Norm::Rms { gain, eps } => format!("{}, eps {eps:e}", self.vector(gain)),
            Norm::Layer { gain, bias, eps } => {
                format!("{} + {}, eps {eps:e}", self.vector(gain), self.vector(bias))
            }
        }
    }

    fn rows(&self, spec: &TensorSpec) -> String {
        self.shaped(spec, &format!("{} × {}", spec.n, spec.k))
    }

    fn shaped(&self, spec: &TensorSpec, shape: &str) -> String {
        let dtype = if self.types { format!(", {}", spec.dtype.name()) } else { String::new() };
        format!("{} [{shape}{dtype}]", self.short(spec))
    }

    fn short<'b>(&self, spec: &'b TensorSpec) -> &'b str {
        match spec.place() {
            (layer, part) if layer == self.layer => part,
            _ => &spec.name,
        }
    }
}

/// The cells of a line; the last cell may have several lines.
pub(crate) type Cells = Vec<String>;

/// A part of a text: a run of nodes or steps of one layer, or outside of all layers.
pub(crate) struct Section {
    /// The layer.
    pub layer: Option<usize>,
    /// The numbers of the nodes or steps.
    pub items: Range<usize>,
    /// Their counts, for the heading.
    pub about: String,
    /// Two tables, one below the other.
    pub tables: [Vec<Cells>; 2],
    /// A text that equal layers have in common.
    pub likeness: String,
}

/// Divides items into runs of the same layer, given each item's layer.
pub(crate) fn sections(layers: impl Iterator<Item = Option<usize>>) -> Vec<(Option<usize>, Range<usize>)> {
    let mut runs: Vec<(Option<usize>, Range<usize>)> = Vec::new();
    for (i, layer) in layers.enumerate() {
        match runs.last_mut() {
            Some((last, items)) if *last == layer => items.end = i + 1,
            _ => runs.push((layer, i..i + 1)),
        }
    }
    runs
}

/// Writes sections one after the other. For a layer equal to an earlier one, only that layer's number and the different
/// types are written; `span` formats the numbers of items.
pub(crate) fn write_sections(
    f: &mut impl Write,
    sections: &[Section],
    weights: &WeightSpecs,
    span: impl Fn(&Range<usize>) -> String,
) -> fmt::Result {
    let types = Types::new(weights);
    let first = first_alike(sections);
    let is_shown = |&i: &usize| first[i] == i;
    let widths = [0, 1].map(|table| {
        let shown = (0..sections.len()).filter(is_shown).flat_map(|i| &sections[i].tables[table]);
        column_widths(shown)
    });
    let mut i = 0;
    while i < sections.len() {
        let section = &sections[i];
        f.write_char('\n')?;
        if is_shown(&i) {
            writeln!(f, "{}: {}", place(sections, i), section.about)?;
            for (table, widths) in section.tables.iter().zip(&widths) {
                write_table(f, table, widths)?;
            }
            i += 1;
            continue;
        }
        let end = (i..sections.len()).find(|&j| first[j] != first[i]).unwrap_or(sections.len());
        let layers: Vec<usize> = sections[i..end].iter().filter_map(|section| section.layer).collect();
        let like = sections[first[i]].layer.unwrap_or_default();
        let s = if layers.len() > 1 { "s" } else { "" };
        let items = span(&(section.items.start..sections[end - 1].items.end));
        writeln!(f, "layer{s} {}: as layer {like}, {items}", numbers(&layers))?;
        for (layers, differences) in types.differences(like, &layers) {
            writeln!(f, "  but in {}: {}", numbers(&layers), differences.join(", "))?;
        }
        i = end;
    }
    Ok(())
}

/// For each section the number of the first equal section, which may be the section itself.
fn first_alike(sections: &[Section]) -> Vec<usize> {
    let mut known = HashMap::new();
    let first = |(i, section): (usize, &Section)| match section.layer {
        Some(_) => *known.entry(section.likeness.clone()).or_insert(i),
        None => i,
    };
    sections.iter().enumerate().map(first).collect()
}

fn place(sections: &[Section], i: usize) -> String {
    let is_layer = |section: &Section| section.layer.is_some();
    match sections[i].layer {
        Some(layer) => format!("layer {layer}"),
        None if !sections[..i].iter().any(is_layer) => "before the layers".into(),
        None if !sections[i..].iter().any(is_layer) => "after the layers".into(),
        None => "between layers".into(),
    }
}

fn column_widths<'a>(rows: impl Iterator<Item = &'a Cells>) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

fn write_table(f: &mut impl Write, rows: &[Cells], widths: &[usize]) -> fmt::Result {
    for row in rows {
        let Some((last, cells)) = row.split_last() else { continue };
        let mut line = String::from(" ");
        for (cell, width) in cells.iter().zip(widths) {
            write!(line, " {cell:<width$} ")?;
        }
        let indent = line.chars().count();
        for (i, part) in last.split('\n').enumerate() {
            let before = if i == 0 { line.as_str() } else { "" };
            writeln!(f, "{}", format!("{before:<indent$} {part}").trim_end())?;
        }
    }
    Ok(())
}

/// `1 layer`, `2 layers`.
pub(crate) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1, 4 to 6`, from ascending numbers.
fn numbers(list: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in list {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// For each layer, the names (without prefix) and types of its tensors.
struct Types<'a>(HashMap<usize, Vec<(&'a str, &'static str)>>);

impl<'a> Types<'a> {
    fn new(weights: &'a WeightSpecs) -> Self {
        let mut layers: HashMap<usize, Vec<_>> = HashMap::new();
        for spec in weights.tensors() {
            if let (Some(layer), name) = spec.place() {
                layers.entry(layer).or_default().push((name, spec.dtype.name()));
            }
        }
        Types(layers)
    }

    fn of(&self, layer: usize) -> &[(&'a str, &'static str)] {
        self.0.get(&layer).map_or(&[], Vec::as_slice)
    }

    /// The tensors whose types differ between each of `layers` and `like`, a layer with tensors of the same names.
    /// Layers with the same differences are grouped.
    fn differences(&self, like: usize, layers: &[usize]) -> Vec<(Vec<usize>, Vec<String>)> {
        let mut groups: Vec<(Vec<usize>, Vec<String>)> = Vec::new();
        for &layer in layers {
            let pairs = self.of(layer).iter().zip(self.of(like)).filter(|(own, other)| own.1 != other.1);
            let differences: Vec<_> = pairs.map(|((name, dtype), _)| format!("{name} {dtype}")).collect();
            match groups.iter_mut().find(|group| group.1 == differences) {
                _ if differences.is_empty() => {}
                Some((layers, _)) => layers.push(layer),
                None => groups.push((vec![layer], differences)),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_runs() {
        assert_eq!(numbers(&[3]), "3");
        assert_eq!(numbers(&[1, 2]), "1, 2");
        assert_eq!(numbers(&[0, 2, 3, 4, 7, 8]), "0, 2 to 4, 7, 8");
    }

    #[test]
    fn layers_that_do_the_same_are_told_once() {
        let section = |layer, i: usize, likeness: &str| Section {
            layer,
            items: i..i + 1,
            about: "1 step".into(),
            tables: [vec![vec![i.to_string(), format!("{likeness}\nmore")]], vec![]],
            likeness: likeness.into(),
        };
        // As in a model in which every third layer sees all positions, and with a step between two layers.
        let mut all = vec![section(None, 0, "embed")];
        all.extend("aabaab".chars().enumerate().map(|(i, kind)| section(Some(i), i + 1, &kind.to_string())));
        all.insert(5, section(None, 9, "a"));
        let mut text = String::new();
        let span = |items: &Range<usize>| format!("steps {} to {}", items.start, items.end - 1);
        write_sections(&mut text, &all, &WeightSpecs::default(), span).unwrap();
        let wanted = "
before the layers: 1 step
  0  embed
     more

layer 0: 1 step
  1  a
     more

layer 1: as layer 0, steps 2 to 2

layer 2: 1 step
  3  b
     more

layer 3: as layer 0, steps 4 to 4

between layers: 1 step
  9  a
     more

layer 4: as layer 0, steps 5 to 5

layer 5: as layer 2, steps 6 to 6
";
        assert_eq!(text, wanted);
    }
}
