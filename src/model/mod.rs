//! What a model is: its configuration, the graph of what it computes, its weights, and how a file becomes these.
//! Nothing here knows how a pass runs; `runtime` lowers the graph to what this CPU does.

mod builder;
mod config;
mod families;
pub mod graph;
mod load;
mod pack;
mod random;
mod rope;
pub(crate) mod text;
mod weights;

#[cfg(test)]
pub(crate) use builder::Builder;
pub use config::{Config, LayerConfig, Mask};
#[cfg(test)]
pub(crate) use families::Family;
pub use graph::Graph;
pub use load::{LoadParams, Model};
pub use random::{GptConfig, RandomGpt};
pub use rope::{RopeConfig, RopeOverrides, Yarn};
pub use weights::{MatrixId, TableId, TensorSpec, VectorId, WeightSpecs, Weights};

use crate::error::Result;
use crate::format::gguf::Gguf;

/// What the model in a file computes, without its weights.
///
/// # Errors
/// As [`Model::open`], but for what only weights can cause.
pub fn read_graph(gguf: &Gguf) -> Result<(Config, Graph)> {
    families::read(gguf)
}
