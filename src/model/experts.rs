//! Mixtures of experts (Shazeer et al. 2017): their configuration, their operation in the graph, and how the builder
//! reads it. A router scores the experts for each row; the row goes through the few that score highest.

use std::fmt;

use super::builder::Builder;
use super::config::{Config, MAX_DIM, MAX_LAYERS};
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
    /// The square of `max(x, 0)` of experts without a gate (Nemotron 3).
    SquaredRelu,
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
            Inner::SquaredRelu => f.write_str("relu, squared"),
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

/// What a family reads of its experts, or says of them, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Setting {
    /// The file states how many layers at the beginning have an MLP in place of experts.
    DenseFirst,
    /// Only every layer of so many has experts, as the file states.
    Interleaved,
    /// The file states the width inside an expert; else it is the MLP's, shared among the experts in use. Without this
    /// setting it is the MLP's.
    Width,
    /// The file states the width inside the shared experts.
    SharedWidth,
    /// The same; else it is the MLP's.
    SharedWidthOrMlp,
    /// The file states the number of shared experts and, maybe, the width inside each; else it is another expert's.
    SharedWidthEach,
    /// The file states the number of shared experts, each as wide as another one; their width, if it has been read,
    /// says more.
    SharedCount,
    /// Weights are normalised.
    Normed,
    /// The file states whether weights are normalised.
    NormStated,
    /// The file may state a factor on weights.
    ScaleStated,
    /// The function from scores to weights.
    Gated(Gating),
    /// The file may state the function from scores to weights.
    GatingStated,
}

impl Config {
    /// This configuration with experts, as the file states them and the family's settings say; unchanged for a file
    /// without experts.
    ///
    /// # Errors
    /// [`Error::Format`] where more experts are used than there are, or groups don't divide them.
    pub(super) fn with_experts(mut self, keys: &Keys<'_>, settings: &[Setting]) -> Result<Config> {
        let count = keys.count_below("expert_count", MAX_EXPERTS + 1)?;
        let groups = keys.count_below("expert_group_count", MAX_EXPERTS)?;
        let groups_used = keys.count_below("expert_group_used_count", MAX_EXPERTS)?;
        let n_block = self.n_layer() + self.n_predicting;
        if count == 0 {
            keys.void(&["expert_used_count"]);
            return Ok(self);
        }
        let used = keys.per_layer("expert_used_count", MAX_EXPERTS, n_block)?;
        let used = used.ok_or_else(|| keys.missing("expert_used_count"))?;
        let groups = match (groups, groups_used) {
            (0 | 1, _) => None,
            (groups, used) if count.is_multiple_of(groups) && (1..groups).contains(&used) => {
                Some((groups, used))
            }
            (groups, used) => {
                return Err(Error::format(format!("{used} of {groups} groups of {count} experts")));
            }
        };
        let states = |setting| settings.contains(&setting);
        let dense = match states(Setting::DenseFirst) {
            true => keys.count_below("leading_dense_block_count", MAX_LAYERS + 1)?,
            false => 0,
        };
        let step = match states(Setting::Interleaved) {
            true => keys.required("interleave_moe_layer_step", MAX_LAYERS)?,
            false => 1,
        };
        let widths = match states(Setting::Width) {
            true => keys.per_layer_or_zero("expert_feed_forward_length", MAX_DIM, n_block)?,
            false => None,
        };
        for (i, (layer, used)) in self.layers.iter_mut().zip(used).enumerate() {
            let choice = groups.map_or(count, |(groups, used)| count / groups * used);
            if used > choice {
                return Err(Error::format(format!("layer {i} uses {used} of {choice} experts")));
            }
            if i < dense || (i + 1) % step != 0 {
                continue;
            }
            let n_ff = match &widths {
                _ if !states(Setting::Width) => layer.n_ff,
                Some(widths) if widths[i] > 0 => widths[i],
                _ => (layer.n_ff / used).max(1),
            };
            let (gating, norm, scale) = (Gating::Softmax, false, 1.0);
            let mut experts =
                ExpertsConfig { count, used, n_ff, n_ff_shared: 0, groups, gating, norm, scale };
            settings.iter().try_for_each(|setting| experts.apply(*setting, keys, layer.n_ff))?;
            layer.experts = Some(experts);
        }
        Ok(self)
    }
}

impl ExpertsConfig {
    /// Applies a setting to the experts of a layer whose MLP would be `n_ff` wide.
    fn apply(&mut self, setting: Setting, keys: &Keys<'_>, n_ff: usize) -> Result<()> {
        match setting {
            Setting::DenseFirst | Setting::Interleaved | Setting::Width => {}
            Setting::SharedWidth | Setting::SharedWidthOrMlp => {
                let width = keys.count_below("expert_shared_feed_forward_length", MAX_DIM)?;
                let other = if setting == Setting::SharedWidth { 0 } else { n_ff };
                self.n_ff_shared = if width == 0 { other } else { width };
            }
            Setting::SharedWidthEach => {
                let width = keys.count_below("expert_shared_feed_forward_length", MAX_DIM)?;
                let count = keys.count_below("expert_shared_count", MAX_EXPERTS)?;
                self.n_ff_shared = count * if width == 0 { self.n_ff } else { width };
            }
            Setting::SharedCount if self.n_ff_shared > 0 => keys.void(&["expert_shared_count"]),
            Setting::SharedCount => {
                self.n_ff_shared = keys.count_below("expert_shared_count", MAX_EXPERTS)? * self.n_ff;
            }
            Setting::Normed => self.norm = true,
            Setting::NormStated => self.norm = keys.flag("expert_weights_norm", false)?,
            // As in llama.cpp, 0 counts as absent.
            Setting::ScaleStated => self.scale = keys.positive_or_unset("expert_weights_scale", 1.0)?,
            Setting::Gated(gating) => self.gating = gating,
            Setting::GatingStated => {
                self.gating = match keys.count_below("expert_gating_func", usize::MAX)? {
                    0 => self.gating,
                    1 => Gating::Softmax,
                    2 => Gating::Sigmoid,
                    3 => Gating::SoftmaxOfChosen,
                    4 => Gating::SqrtSoftplus,
                    number => {
                        return Err(Error::Unsupported(format!("gating function {number} of experts")));
                    }
                };
            }
        }
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
    /// Whether the factors of experts (`ffn_up_exps.scale`) count; llama.cpp ignores them in many families.
    pub scaled: bool,
    /// Whether those of a shared expert with a gate do (`ffn_up_shexp.scale`).
    pub scaled_shared: bool,
}

impl Form {
    /// SwiGLU.
    pub const SWIGLU: Form = Form::gated(Activation::Silu);

    /// SwiGLU, with the factors of experts.
    pub const SCALED: Form = Form { scaled: true, ..Form::SWIGLU };

    /// Experts with this activation of the gate.
    pub const fn gated(function: Activation) -> Form {
        Form {
            inner: Inner::Activation(function),
            gated: true,
            weighs_input: false,
            scaled: false,
            scaled_shared: false,
        }
    }
}

impl Builder<'_> {
    /// The sum over each row's experts: `{ffn_gate,ffn_up,ffn_down}_exps`, chosen by the router's scores. Biases, factors
    /// of experts and the bias of the choice (`exp_probs_b`) are used where the file has them.
    pub fn experts(&mut self, x: Value, router: Value, config: &ExpertsConfig, form: Form) -> Result<Value> {
        let ExpertsConfig { count, used, n_ff, groups, gating, norm, scale, .. } = *config;
        let Form { inner, gated, weighs_input, scaled, .. } = form;
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
        if gated && inner == Inner::SquaredRelu {
            return self.fail("a gate of squares".into());
        }
        let merged = gated && self.has("ffn_gate_up_exps.weight");
        let [gate, up] = match merged {
            true => {
                [0, n_ff].map(|first| ("ffn_gate_up_exps", ExpertRows { count, stride: 2 * n_ff, first }))
            }
            false => ["ffn_gate_exps", "ffn_up_exps"]
                .map(|part| (part, ExpertRows { count, stride: n_ff, first: 0 })),
        };
        let gate = if gated { Some(self.experts_product(gate, (n_ff, width), scaled)?) } else { None };
        let up = self.experts_product(up, (n_ff, width), scaled)?;
        let rows = ExpertRows { count, stride: width, first: 0 };
        let down = self.experts_product(("ffn_down_exps", rows), (width, n_ff), scaled)?;
        self.map(Op::Experts(Experts { x, router, routing, gate, up, down, inner, weighs_input }), x)
    }

    /// One expert that every row goes through, weighted by the sigmoid of one score: `{ffn_gate,ffn_up,ffn_down}_shexp`
    /// and `ffn_gate_inp_shexp`; with the factors of the three matrices if `scaled`.
    pub fn shared_expert(&mut self, x: Value, n_ff: usize, scaled: bool) -> Result<Value> {
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
        let gate = Some(self.experts_product(("ffn_gate_shexp", rows(n_ff)), (n_ff, width), scaled)?);
        let up = self.experts_product(("ffn_up_shexp", rows(n_ff)), (n_ff, width), scaled)?;
        let down = self.experts_product(("ffn_down_shexp", rows(width)), (width, n_ff), scaled)?;
        let inner = Inner::Activation(Activation::Silu);
        self.map(Op::Experts(Experts { x, router, routing, gate, up, down, inner, weighs_input: false }), x)
    }

    /// A product with experts' matrices of `n` rows of `k`.
    fn experts_product(
        &mut self,
        (part, rows): (&str, ExpertRows),
        (n, k): (usize, usize),
        scaled: bool,
    ) -> Result<ExpertsProduct> {
        let matrices = self.expert_matrices(&format!("{part}.weight"), rows, n, k)?;
        let (bias, scale) = (format!("{part}.bias"), format!("{part}.scale"));
        let bias = if self.has(&bias) { Some(self.vector(&bias, rows.count, n)?) } else { None };
        if !scaled {
            self.ignore(&scale);
        }
        let scale = match self.has(&scale) {
            true if scaled => Some(self.vector(&scale, 1, rows.count)?),
            _ => None,
        };
        Ok(ExpertsProduct { matrices, bias, scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gguf;
    use crate::format::gguf::Metadata;

    fn read(numbers: &[(&str, u32)], settings: &[Setting]) -> Result<Config> {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture".into(), gguf::Value::Str("llama".into()))?;
        let plain = [
            ("block_count", 3),
            ("context_length", 64),
            ("embedding_length", 32),
            ("feed_forward_length", 48),
            ("attention.head_count", 2),
        ];
        for (key, value) in plain.iter().chain(numbers) {
            metadata.insert(format!("llama.{key}"), gguf::Value::U32(*value))?;
        }
        let keys = Keys::new(&metadata)?;
        Config::read(&keys, 16, super::super::config::RMS_EPS)?.with_experts(&keys, settings)
    }

    const SOME: [(&str, u32); 2] = [("expert_count", 8), ("expert_used_count", 2)];

    fn with<'a>(more: &[(&'a str, u32)]) -> Vec<(&'a str, u32)> {
        SOME.into_iter().chain(more.iter().copied()).collect()
    }

    #[test]
    fn layers_have_experts_as_the_file_states() {
        let of = |config: Config| -> Vec<_> { config.layers.iter().map(|layer| layer.experts).collect() };
        assert_eq!(of(read(&[], &[]).unwrap()), [None; 3]);
        assert_eq!(of(read(&[("expert_used_count", 0)], &[]).unwrap()), [None; 3]);
        let experts = of(read(&SOME, &[]).unwrap())[2].unwrap();
        assert_eq!((experts.count, experts.used, experts.n_ff, experts.n_ff_shared), (8, 2, 48, 0));
        let settings = [Setting::DenseFirst, Setting::Width, Setting::SharedCount];
        let more = with(&[("leading_dense_block_count", 2), ("expert_shared_count", 3)]);
        let experts = of(read(&more, &settings).unwrap());
        assert_eq!(experts[..2], [None; 2]);
        assert_eq!((experts[2].unwrap().n_ff, experts[2].unwrap().n_ff_shared), (24, 72));
        let more = with(&[("interleave_moe_layer_step", 2), ("expert_feed_forward_length", 7)]);
        let experts = of(read(&more, &[Setting::Interleaved, Setting::Width]).unwrap());
        assert_eq!(experts.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(experts[1].unwrap().n_ff, 7);
    }

    #[test]
    fn impossible_numbers_are_named() {
        let cases: [(&[(&str, u32)], &str); 7] = [
            (&[("expert_used_count", 9)], "layer 0 uses 9 of 8 experts"),
            (&[("expert_used_count", 0)], "llama.expert_used_count is 0"),
            (&[("expert_count", 5000)], "llama.expert_count is 5000"),
            (&[("expert_group_count", 3), ("expert_group_used_count", 1)], "1 of 3 groups of 8 experts"),
            (&[("expert_group_count", 4), ("expert_group_used_count", 4)], "4 of 4 groups of 8 experts"),
            (&[("expert_group_count", 8), ("expert_group_used_count", 1)], "layer 0 uses 2 of 1 experts"),
            (&[("expert_gating_func", 9)], "gating function 9 of experts"),
        ];
        for (numbers, wanted) in cases {
            let rest = SOME.into_iter().filter(|(key, _)| numbers.iter().all(|(other, _)| other != key));
            let numbers: Vec<_> = numbers.iter().copied().chain(rest).collect();
            let error = read(&numbers, &[Setting::GatingStated]).unwrap_err().to_string();
            assert!(error.contains(wanted), "{numbers:?}: {error}");
        }
        let error = read(&[("expert_count", 8)], &[]).unwrap_err().to_string();
        assert!(error.contains("llama.expert_used_count is missing"), "{error}");
    }
}
