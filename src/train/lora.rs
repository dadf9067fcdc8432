//! Training of a low-rank adapter (LoRA, Hu et al. 2021, arXiv:2106.09685) in place of a model's own tensors, which stay
//! as they are: the choice of the matrices that it changes, and its beginning.

use super::plan::WHAT;
use crate::error::{Error, Result, quoted};
use crate::format::gguf::Gguf;
use crate::memory::reserve::{copied_text, reserve};
use crate::model::graph::Op;
use crate::model::{Adapter, FreshTarget, Graph, Source, fresh_adapter};

/// A new low-rank adapter: a matrix W of the model becomes W + alpha / rank · B · A. A has `rank` rows, random ones that
/// follow from [`TrainParams::seed`](super::TrainParams::seed), uniform within ±1/√k for rows of k; B begins with zeros, so
/// that the model is what it was before the first step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LoraParams {
    /// Rows of A: from 1 to the smaller side of each matrix.
    pub rank: usize,
    /// Multiplies the change, divided by the rank.
    pub alpha: f32,
    /// The matrices of each layer that are changed, by their names in GGUF files (`attn_q`, `ffn_down`), and `output` for a
    /// head of its own. Empty: all of attention and MLP.
    pub targets: Vec<String>,
}

impl LoraParams {
    /// An adapter of this rank, with an alpha of twice that, of all matrices of attention and MLP.
    pub fn new(rank: usize) -> Self {
        Self { rank, alpha: 2.0 * rank as f32, targets: Vec::new() }
    }

    /// Sets [`LoraParams::alpha`].
    pub fn with_alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Sets [`LoraParams::targets`].
    pub fn with_targets(self, targets: Vec<String>) -> Self {
        Self { targets, ..self }
    }

    /// The adapter as training begins with it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rank, an alpha or a target that can't be, which it names.
    pub(super) fn fresh(&self, gguf: &Gguf, graph: &Graph, seed: u64) -> Result<Adapter> {
        let alpha = self.alpha;
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(Error::invalid(format!("an adapter's alpha of {alpha}; expected a number above 0")));
        }
        let targets = self.chosen(graph)?;
        for FreshTarget { name, n, k } in &targets {
            let (rank, most) = (self.rank, *n.min(k));
            if !(1..=most).contains(&rank) {
                let name = quoted(name);
                return Err(Error::invalid(format!(
                    "an adapter of rank {rank}; tensor {name} takes ranks from 1 to {most}"
                )));
            }
        }
        let architecture = gguf.metadata().require_str("general.architecture")?;
        fresh_adapter(architecture, &targets, (self.rank, alpha), seed)
    }

    /// The matrices that are to be changed, in the graph's order.
    fn chosen(&self, graph: &Graph) -> Result<Vec<FreshTarget>> {
        let mut chosen: Vec<FreshTarget> = Vec::new();
        let mut known: Vec<&str> = Vec::new();
        for node in &graph.nodes {
            let Op::Linear(_, matrix, ..) = node.op else { continue };
            let spec = graph.weights.matrix(matrix);
            let (Some(part), Source::Rows { of, .. }) = (part(&spec.name), spec.source) else { continue };
            if !known.contains(&part) {
                reserve(&mut known, 1, WHAT)?;
                known.push(part);
            }
            let wanted = match self.targets.is_empty() {
                true => is_usual(part),
                false => self.targets.iter().any(|target| target == part),
            };
            // Rows of one tensor may be several matrices.
            if wanted && !chosen.iter().rev().any(|target| target.name == spec.name) {
                reserve(&mut chosen, 1, WHAT)?;
                chosen.push(FreshTarget { name: copied_text(&spec.name, WHAT)?, n: of, k: spec.k });
            }
        }
        let unknown = self.targets.iter().find(|target| !known.contains(&target.as_str()));
        match unknown {
            Some(unknown) => {
                let (unknown, known) = (quoted(unknown), known.join(", "));
                Err(Error::invalid(format!("{unknown} is no matrix that an adapter can change: {known}")))
            }
            None if chosen.is_empty() => {
                Err(Error::Unsupported(format!("{}: a model without matrices for an adapter", graph.family)))
            }
            None => Ok(chosen),
        }
    }
}

/// The name of a layer's matrix without the layer, or `output`; `None` for any other.
fn part(name: &str) -> Option<&str> {
    let bare = name.strip_suffix(".weight")?;
    match bare.strip_prefix("blk.") {
        Some(rest) => rest.split_once('.').map(|(_, part)| part),
        None => (bare == "output").then_some(bare),
    }
}

/// Whether a part is changed by default.
fn is_usual(part: &str) -> bool {
    part.starts_with("attn_") || part.starts_with("ffn_") && part != "ffn_gate_inp"
}
