//! Runs models. A graph is lowered to a plan of steps, and a pass executes the plan. An engine runs many sequences, a
//! context one; sampling and generation are built on contexts.

mod cancel;
mod context;
mod engine;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod experts_tests;
pub mod generate;
pub mod generation;
#[cfg(test)]
mod golden_tests;
mod lower;
#[cfg(test)]
mod lower_tests;
mod pass;
#[cfg(test)]
pub(crate) mod pass_tests;
mod plan;
mod plan_text;
pub mod sampling;
mod steps;
pub mod stream;

pub use context::{Context, ContextParams, Logits};
pub use engine::{Batch, Canceller, Engine, EngineParams, MemoryEstimate, Output};
pub use lower::lower;
pub use pass::Span;
pub use plan::Plan;
