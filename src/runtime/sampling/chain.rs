//! The order of a chain's stages: the customary one, or the caller's.
//! Parameters are numbers; what a host brings beside them (lists, a mask, a stage of its own) are the parts of a chain.

use super::breakers::Breakers;
use super::custom::CustomStage;
use super::mask::Mask;
use super::params::SamplerParams;
use super::stage::Stage;
use crate::{Error, Result};

/// A kind of stage in the order of a chain. The draw isn't one: it is always last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageKind {
    /// [`Stage::LogitBias`]: [`ChainParts::logit_bias`].
    LogitBias,
    /// [`Stage::Mask`]: [`ChainParts::mask`].
    Mask,
    /// [`Stage::Penalties`].
    Penalties,
    /// [`Stage::Dry`].
    Dry,
    /// [`Stage::TopNSigma`].
    TopNSigma,
    /// [`Stage::TopK`].
    TopK,
    /// [`Stage::Typical`].
    Typical,
    /// [`Stage::TopP`].
    TopP,
    /// [`Stage::MinP`].
    MinP,
    /// [`Stage::Xtc`].
    Xtc,
    /// [`Stage::Custom`]: [`ChainParts::custom`].
    Custom,
    /// [`Stage::Temperature`] or [`Stage::DynamicTemperature`].
    Temperature,
}

impl StageKind {
    /// The customary order, which is llama.cpp's, with the stage of the host behind all cuts.
    pub const ORDER: [StageKind; 12] = [
        StageKind::LogitBias,
        StageKind::Mask,
        StageKind::Penalties,
        StageKind::Dry,
        StageKind::TopNSigma,
        StageKind::TopK,
        StageKind::Typical,
        StageKind::TopP,
        StageKind::MinP,
        StageKind::Xtc,
        StageKind::Custom,
        StageKind::Temperature,
    ];

    /// The name, as in llama.cpp where it has the stage.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::LogitBias => "logit_bias",
            StageKind::Mask => "mask",
            StageKind::Penalties => "penalties",
            StageKind::Dry => "dry",
            StageKind::TopNSigma => "top_n_sigma",
            StageKind::TopK => "top_k",
            StageKind::Typical => "typ_p",
            StageKind::TopP => "top_p",
            StageKind::MinP => "min_p",
            StageKind::Xtc => "xtc",
            StageKind::Custom => "custom",
            StageKind::Temperature => "temperature",
        }
    }

    /// The kind with this name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] that lists all names.
    pub fn named(name: &str) -> Result<Self> {
        Self::ORDER.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ORDER.iter().map(|kind| kind.name()).collect();
            Error::invalid(format!("one of {} is needed", names.join(", ")))
        })
    }

    /// Whether Mirostat takes its place.
    fn is_in_mirostat(self) -> bool {
        use StageKind::{MinP, TopK, TopNSigma, TopP, Typical, Xtc};
        matches!(self, TopNSigma | TopK | Typical | TopP | MinP | Xtc)
    }
}

/// What a host brings to a chain in addition to [`SamplerParams`]. The default has nothing.
#[derive(Default)]
#[non_exhaustive]
pub struct ChainParts {
    /// Added to logits: for [`Stage::LogitBias`].
    pub logit_bias: Vec<(u32, f32)>,
    /// What ends a repetition: for [`Stage::Dry`].
    pub breakers: Breakers,
    /// A constraint: for [`Stage::Mask`].
    pub mask: Option<Box<dyn Mask>>,
    /// A stage of the host: for [`Stage::Custom`].
    pub custom: Option<Box<dyn CustomStage>>,
}

impl std::fmt::Debug for ChainParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainParts").field("logit_bias", &self.logit_bias).finish_non_exhaustive()
    }
}

impl ChainParts {
    /// Sets [`ChainParts::logit_bias`].
    pub fn with_logit_bias(self, logit_bias: Vec<(u32, f32)>) -> Self {
        Self { logit_bias, ..self }
    }

    /// Sets [`ChainParts::breakers`].
    pub fn with_breakers(self, breakers: Breakers) -> Self {
        Self { breakers, ..self }
    }

    /// Sets [`ChainParts::mask`].
    pub fn with_mask(self, mask: Box<dyn Mask>) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Sets [`ChainParts::custom`].
    pub fn with_custom(self, custom: Box<dyn CustomStage>) -> Self {
        Self { custom: Some(custom), ..self }
    }
}

impl SamplerParams {
    /// The chain that the parameters and parts stand for, in this order; stages that would change nothing are left out. A
    /// kind that isn't in the order isn't in the chain: without [`StageKind::Temperature`], the temperature is 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where a kind is in the order twice, or the order has no place for one of the parts.
    pub fn chain(&self, order: &[StageKind], parts: ChainParts) -> Result<Vec<Stage>> {
        if let Some(kind) = order.iter().enumerate().find(|(at, kind)| order[..*at].contains(kind)) {
            return Err(Error::invalid(format!("{} is in the order of stages twice", kind.1.name())));
        }
        let brought = [
            (!parts.logit_bias.is_empty(), StageKind::LogitBias),
            (parts.mask.is_some(), StageKind::Mask),
            (parts.custom.is_some(), StageKind::Custom),
        ];
        match brought.iter().find(|(is_there, kind)| *is_there && !order.contains(kind)) {
            Some((_, kind)) => {
                Err(Error::invalid(format!("the order of stages has no place for {}", kind.name())))
            }
            None => Ok(build(self, order, parts)),
        }
    }
}

/// [`SamplerParams::chain`] in an order without faults.
pub(super) fn build(params: &SamplerParams, order: &[StageKind], mut parts: ChainParts) -> Vec<Stage> {
    let kinds = order.iter().filter(|kind| !(params.mirostat && kind.is_in_mirostat()));
    let mut stages: Vec<Stage> = kinds
        .filter_map(|&kind| params.stage(kind, &mut parts))
        .filter(|stage| stage.is_on() || matches!(stage, Stage::Temperature(_)))
        .collect();
    // Typical and XTC may remove the likeliest token, and so may a host. Other cuts don't, so nothing is left of them at
    // temperature 0.
    let removes_best =
        |stage: &Stage| matches!(stage, Stage::Typical(_) | Stage::Xtc { .. } | Stage::Custom(_));
    let is_greedy = stages.iter().any(|stage| matches!(stage, Stage::Temperature(0.0)));
    if is_greedy && !stages.iter().any(removes_best) {
        stages.retain(|stage| {
            !matches!(stage, Stage::TopNSigma(_) | Stage::TopK(_) | Stage::TopP(_) | Stage::MinP(_))
        });
    }
    stages.push(params.last());
    stages
}
