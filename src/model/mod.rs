//! From a file's configuration to weights and a plan: what a model is, before anything runs.
//! A family is a short builder (`gpt`, `llama`) that emits a [`Plan`] from shared parts; the executor never
//! learns which family it runs.

mod builder;
mod config;
mod gpt;
mod llama;
mod load;
mod plan;
mod random;
mod rope;
mod weights;

pub use config::Config;
pub use load::{LoadParams, Model};
pub use plan::{Buf, BufKind, BufSpec, Part, Plan, PlanLayout, Step, StepKind, Then};
pub use random::{GptConfig, RandomGpt};
pub use rope::{RopeConfig, RopeOverrides, Yarn};
pub use weights::{Weight, WeightId, Weights};
