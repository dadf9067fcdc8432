//! Training: a model's graph is lowered to a plan of forward and backward steps on one arena, and a [`Trainer`] runs the
//! plan on batches of tokens and updates the weights.
//!
//! All memory is reserved when the trainer is made; a step allocates nothing. A step is one parallel region. Every number
//! is computed by one worker in a fixed order, so the same seed and batches give the same bits for any number of threads.
//! `docs/training.md` describes it.

mod lora;
mod lower;
mod memory;
mod parameters;
mod params;
mod plan;
mod region;
mod save;
mod schedule;
mod steps;
mod trainer;
mod walk;

pub use crate::kernels::backward::NO_TARGET;
pub use lora::LoraParams;
pub use memory::TrainMemory;
pub use parameters::Parameter;
pub use params::{AdamW, Optimizer, Sgd, TrainParams};
pub use save::Sink;
pub use schedule::{Decay, Schedule};
pub use trainer::{StepReport, Trainer};
