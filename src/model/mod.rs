//! Models: configuration, computation graph and weights, and how they are read from a file.
//! Nothing here knows how a pass runs; `runtime` lowers the graph to steps for this CPU.

mod adapter;
mod attention;
mod builder;
mod config;
pub mod experts;
mod families;
pub mod foreign;
pub mod graph;
mod keys;
mod load;
pub mod needs;
mod pack;
pub mod pooling;
mod prompt;
pub mod quantize;
mod random;
mod recurrence;
mod rope;
pub(crate) mod text;
mod unread;
mod weights;
mod whole;

pub use adapter::Adapter;
pub(crate) use adapter::{FreshTarget, fresh as fresh_adapter};
#[cfg(test)]
pub(crate) use builder::{Builder, Ends};
pub use config::{Config, LayerConfig, Mask, Scales, Temperature};
pub use experts::ExpertsConfig;
#[cfg(test)]
pub(crate) use families::Family;
pub use graph::Graph;
pub use load::{LoadParams, Model, Progress};
pub use pooling::Pooling;
pub(crate) use random::mix as random_bits;
pub use random::{GptConfig, RandomGpt};
pub use recurrence::{DeltaNet, Recurrence, StateSpace};
pub use rope::{RopeConfig, RopeOverrides, Yarn};
pub use weights::{
    ExpertRows, ExpertsId, MatrixId, Source, TableId, TensorSpec, VectorId, WeightSpecs, Weights,
};

use crate::error::Result;
use crate::format::gguf::Gguf;

/// The configuration and the computation graph of the model in a file, without its weights.
///
/// # Errors
/// As [`Model::open`], except for errors about weights.
pub fn read_graph(gguf: &Gguf) -> Result<(Config, Graph)> {
    families::read(gguf, &[])
}

/// [`read_graph`] with adapters, which the graph applies.
///
/// # Errors
/// As [`read_graph`]; [`Error::Format`](crate::Error::Format) and [`Error::Unsupported`](crate::Error::Unsupported), naming
/// file and tensor, for an adapter of another model or with a tensor that the graph can't apply;
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a scale that isn't finite.
pub fn read_adapted_graph(gguf: &Gguf, adapters: &[Adapter]) -> Result<(Config, Graph)> {
    families::read(gguf, adapters)
}
