//! Mixtures of experts (Shazeer et al. 2017): their configuration, their operation in the graph, and how the builder
//! reads it. A router scores the experts for each row; the row goes through the few that score highest.

use std::fmt;

use super::builder::Builder;
use super::config::{Config, MAX_DIM};
use super::graph::{Activation, Op, Value};
use super::keys::Keys;
use super::weights::{ExpertRows, ExpertsId, VectorId};
use crate::error::{Error, Result};

/// Most experts of a layer taken from a file, as in llama.cpp.
pub(super) const MAX_EXPERTS: usize = 1024;

/// The function from a router's scores to the weights of experts. The numbers are those of GGUF files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gating {
    /// Softmax over all experts; 1.
    #[default]
    Softmax,
    /// The sigmoid of each score; 2.
    Sigmoid,
    /// Softmax over the chosen experts; 3.
    SoftmaxOfChosen,
    /// √(ln(1 + eˣ)) of each score; 4.
    SqrtSoftplus,
}

/// The choice of experts for a row, and their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Routing {
    /// Experts that there are.
    pub count: usize,
    /// Experts that a row goes through; from 1 to `count`.
    pub used: usize,
    /// The function from scores to weights.
    pub gating: Gating,
    /// Added to the weights by which experts are chosen, but not to those that multiply their results.
    pub bias: Option<VectorId>,
    /// Groups of experts, and how many of them a row chooses from: those whose two best experts weigh most together.
    pub groups: Option<(usize, usize)>,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

/// The function inside of an expert, between its products.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Inner {
    /// An activation of the gate's product, which multiplies the other product; of the only one where there is no gate.
    Activation(Activation),
    /// The gate of gpt-oss: min(g, limit) · sigmoid(alpha · min(g, limit)) · (u limited to ±limit, plus 1).
    ClampedSwiGlu {
        /// Multiplies the sigmoid's argument.
        alpha: f32,
        /// The limit.
        limit: f32,
    },
}

/// A product with the matrix of each row's expert: scale · (x · Wᵀ) + bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpertsProduct {
    /// The matrices.
    pub matrices: ExpertsId,
    /// A row of biases for each expert.
    pub bias: Option<VectorId>,
    /// A factor for each expert.
    pub scale: Option<VectorId>,
}

/// The sum, over the experts of a row, of weight · down(inner(gate(x), up(x))), in the order of the experts' numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Experts {
    /// The rows that go through the experts.
    pub x: Value,
    /// The router's scores: a column for each expert.
    pub router: Value,
    /// The choice of experts.
    pub routing: Routing,
    /// The gate's product; `None` for experts without a gate.
    pub gate: Option<ExpertsProduct>,
    /// The other product into the expert.
    pub up: ExpertsProduct,
    /// The product out of it.
    pub down: ExpertsProduct,
    /// The function between.
    pub inner: Inner,
    /// Whether the weights multiply an expert's input, and not its result.
    pub weighs_input: bool,
}

impl Experts {
    /// The products into the experts.
    pub fn ins(&self) -> impl Iterator<Item = &ExpertsProduct> {
        self.gate.iter().chain([&self.up])
    }
}

impl Gating {
    /// The name in texts of graphs and plans.
    pub fn name(self) -> &'static str {
        match self {
            Gating::Softmax => "softmax",
            Gating::Sigmoid => "sigmoid",
            Gating::SoftmaxOfChosen => "softmax of the chosen",
            Gating::SqrtSoftplus => "√softplus",
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inner::Activation(function) => f.write_str(function.name()),
            Inner::ClampedSwiGlu { alpha, limit } => write!(f, "silu by {alpha}, limited to {limit}"),
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} by {}", self.used, self.count, self.gating.name())?;
        if let Some((groups, used)) = self.groups {
            write!(f, ", from {used} of {groups} groups")?;
        }
        if self.bias.is_some() {
            write!(f, ", biased")?;
        }
        if self.norm {
            write!(f, ", normalised")?;
        }
        if self.scale != 1.0 {
            write!(f, ", · {}", self.scale)?;
        }
        Ok(())
    }
}

/// The experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExpertsConfig {
    /// Experts that there are.
    pub count: usize,
    /// Experts that a row goes through.
    pub used: usize,
    /// Width inside an expert.
    pub n_ff: usize,
    /// Width inside the experts that every row goes through, all together; 0 where there are none.
    pub n_ff_shared: usize,
    /// Groups of experts, and how many of them a row chooses from.
    pub groups: Option<(usize, usize)>,
    /// The function from scores to weights.
    pub gating: Gating,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub norm: bool,
    /// Multiplies the weights.
    pub scale: f32,
}

impl Config {
    /// Reads what every mixture states (how many experts, how many of them are used, groups) into the layers from
    /// `dense` on, and lets `family` complete each layer's experts. Experts are as wide as the layer's MLP, unless the
    /// family says otherwise. Nothing happens in a file without experts.
    ///
    /// # Errors
    /// [`Error::Format`] where more experts are used than there are, or groups don't divide them.
    pub(super) fn read_experts(
        &mut self,
        keys: &Keys<'_>,
        dense: usize,
        family: impl Fn(&mut ExpertsConfig, usize) -> Result<()>,
    ) -> Result<()> {
        let count = keys.count_below("expert_count", MAX_EXPERTS + 1)?;
        let groups = keys.count_below("expert_group_count", MAX_EXPERTS)?;
        let groups_used = keys.count_below("expert_group_used_count", MAX_EXPERTS)?;
        if count == 0 {
            return Ok(());
        }
        let n_block = self.n_layer() + self.n_predicting;
        let used = keys
            .per_layer("expert_used_count", MAX_EXPERTS, n_block)?
            .ok_or_else(|| keys.missing("expert_used_count"))?;
        let groups = match (groups, groups_used) {
            (0 | 1, _) => None,
            (groups, used) if count.is_multiple_of(groups) && (1..groups).contains(&used) => {
                Some((groups, used))
            }
            (groups, used) => {
                return Err(Error::format(format!("{used} of {groups} groups of {count} experts")));
            }
        };
        for (i, (layer, used)) in self.layers.iter_mut().zip(used).enumerate().skip(dense) {
            let choice = groups.map_or(count, |(groups, used)| count / groups * used);
            if used > choice {
                return Err(Error::format(format!("layer {i} uses {used} of {choice} experts")));
            }
            let (gating, norm, scale) = (Gating::Softmax, false, 1.0);
            let (n_ff, n_ff_shared) = (layer.n_ff, 0);
            let mut experts = ExpertsConfig { count, used, n_ff, n_ff_shared, groups, gating, norm, scale };
            family(&mut experts, i)?;
            layer.experts = Some(experts);
        }
        Ok(())
    }
}

impl ExpertsConfig {
    /// Reads the width inside an expert. It is the MLP's, shared among the experts in use, where the key is absent.
    pub(super) fn read_width(&mut self, keys: &Keys<'_>, n_block: usize, layer: usize) -> Result<()> {
        let widths = keys.per_layer("expert_feed_forward_length", MAX_DIM, n_block)?;
        self.n_ff = match widths.and_then(|widths| widths.get(layer).copied()) {
            Some(width) => width,
            None => (self.n_ff / self.used).max(1),
        };
        Ok(())
    }

    /// Reads the width inside the shared experts: `expert_shared_feed_forward_length`.
    pub(super) fn read_shared_width(&mut self, keys: &Keys<'_>) -> Result<()> {
        self.n_ff_shared = keys.count_below("expert_shared_feed_forward_length", MAX_DIM)?;
        Ok(())
    }

    /// Reads the number of shared experts, each as wide as a chosen one.
    pub(super) fn read_shared_count(&mut self, keys: &Keys<'_>) -> Result<()> {
        let count = keys.count_below("expert_shared_count", MAX_EXPERTS)?;
        self.n_ff_shared = count * self.n_ff;
        Ok(())
    }

    /// Reads the factor on weights; llama.cpp takes 0 as absent.
    pub(super) fn read_scale(&mut self, keys: &Keys<'_>) -> Result<()> {
        self.scale = keys.positive_or_unset("expert_weights_scale", 1.0)?;
        Ok(())
    }

    /// Reads whether weights are normalised.
    pub(super) fn read_norm(&mut self, keys: &Keys<'_>) -> Result<()> {
        self.norm = keys.flag("expert_weights_norm", false)?;
        Ok(())
    }

    /// Reads the function from scores to weights; the one that is set already where the file states none.
    pub(super) fn read_gating(&mut self, keys: &Keys<'_>) -> Result<()> {
        self.gating = match keys.count_below("expert_gating_func", usize::MAX)? {
            0 => self.gating,
            1 => Gating::Softmax,
            2 => Gating::Sigmoid,
            3 => Gating::SoftmaxOfChosen,
            4 => Gating::SqrtSoftplus,
            number => return Err(Error::Unsupported(format!("gating function {number} of experts"))),
        };
        Ok(())
    }
}

/// What a family says of its experts beyond their configuration.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// The function between an expert's products.
    pub inner: Inner,
    /// Whether experts have a gate.
    pub gated: bool,
    /// Whether the weights multiply an expert's input.
    pub weighs_input: bool,
}

impl Form {
    /// SwiGLU.
    pub const SWIGLU: Form = Form::gated(Activation::Silu);

    /// Experts with this activation of the gate.
    pub const fn gated(function: Activation) -> Form {
        Form { inner: Inner::Activation(function), gated: true, weighs_input: false }
    }
}

impl Builder<'_> {
    /// The sum over each row's experts: `{ffn_gate,ffn_up,ffn_down}_exps`, chosen by the router's scores. Biases, factors
    /// of experts and the bias of the choice (`exp_probs_b`) are used where the file has them.
    pub fn experts(&mut self, x: Value, router: Value, config: &ExpertsConfig, form: Form) -> Result<Value> {
        let ExpertsConfig { count, used, n_ff, groups, gating, norm, scale, .. } = *config;
        if self.shape(router).width != count || self.shape(router).rows != self.shape(x).rows {
            let found = self.shape(router);
            return self.fail(format!("a router of {found:?} for {count} experts"));
        }
        let width = self.shape(x).width;
        let bias = match self.has("exp_probs_b.bias") {
            true => Some(self.vector("exp_probs_b.bias", 1, count)?),
            false => None,
        };
        let routing = Routing { count, used, gating, bias, groups, norm, scale };
        let merged = form.gated && self.has("ffn_gate_up_exps.weight");
        let [gate, up] = match merged {
            true => {
                [0, n_ff].map(|first| ("ffn_gate_up_exps", ExpertRows { count, stride: 2 * n_ff, first }))
            }
            false => ["ffn_gate_exps", "ffn_up_exps"]
                .map(|part| (part, ExpertRows { count, stride: n_ff, first: 0 })),
        };
        let gate = if form.gated { Some(self.experts_product(gate, n_ff, width)?) } else { None };
        let up = self.experts_product(up, n_ff, width)?;
        let rows = ExpertRows { count, stride: width, first: 0 };
        let down = self.experts_product(("ffn_down_exps", rows), width, n_ff)?;
        let Form { inner, weighs_input, .. } = form;
        self.map(Op::Experts(Experts { x, router, routing, gate, up, down, inner, weighs_input }), x)
    }

    /// One expert that every row goes through, weighted by the sigmoid of one score: `{ffn_gate,ffn_up,ffn_down}_shexp`
    /// and `ffn_gate_inp_shexp`.
    pub fn shared_expert(&mut self, x: Value, n_ff: usize) -> Result<Value> {
        let width = self.shape(x).width;
        let router = self.linear(x, "ffn_gate_inp_shexp", 1)?;
        let routing = Routing {
            count: 1,
            used: 1,
            gating: Gating::Sigmoid,
            bias: None,
            groups: None,
            norm: false,
            scale: 1.0,
        };
        let rows = |stride| ExpertRows { count: 1, stride, first: 0 };
        let gate = Some(self.experts_product(("ffn_gate_shexp", rows(n_ff)), n_ff, width)?);
        let up = self.experts_product(("ffn_up_shexp", rows(n_ff)), n_ff, width)?;
        let down = self.experts_product(("ffn_down_shexp", rows(width)), width, n_ff)?;
        let inner = Inner::Activation(Activation::Silu);
        self.map(Op::Experts(Experts { x, router, routing, gate, up, down, inner, weighs_input: false }), x)
    }

    /// A product with experts' matrices of `n` rows of `k`.
    fn experts_product(
        &mut self,
        (part, rows): (&str, ExpertRows),
        n: usize,
        k: usize,
    ) -> Result<ExpertsProduct> {
        let matrices = self.expert_matrices(&format!("{part}.weight"), rows, n, k)?;
        let (bias, scale) = (format!("{part}.bias"), format!("{part}.scale"));
        let bias = if self.has(&bias) { Some(self.vector(&bias, rows.count, n)?) } else { None };
        let scale = if self.has(&scale) { Some(self.vector(&scale, 1, rows.count)?) } else { None };
        Ok(ExpertsProduct { matrices, bias, scale })
    }
}
