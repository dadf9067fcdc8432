//! From a file's configuration to weights and a plan: what a model is, before anything runs.
//! A family is a short builder (`llama`) that emits a [`Plan`] from shared parts; the executor never
//! learns which family it runs.

mod builder;
mod config;
mod llama;
mod load;
mod plan;
mod rope;
mod weights;

pub use config::Config;
pub(crate) use config::MAX_CONTEXT;
pub use load::{LoadParams, Model};
pub use plan::{Buf, BufKind, BufSpec, Part, Plan, PlanLayout, Step, StepKind, Then};
pub use rope::{RopeConfig, RopeOverrides, Yarn};
pub use weights::{Weight, WeightId, Weights};
