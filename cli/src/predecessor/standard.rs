//! The mode `standard`: a small model, three texts of 50 tokens after a prompt of 10, sampled at a temperature of 0.8.

use smallmind::Result;
use smallmind::kernels::KernelSet;
use smallmind::model::GptConfig;
use smallmind::profile::zone;

use super::models::{Generation, Methods, SEED, Text, Way};
use super::sampling::Picker;
use super::{SAME_WORK, WITH_CACHE};
use crate::profile::modes::plan::{PartPlan, Plan};

pub fn plan(threads: usize) -> Result<Plan> {
    let kernels = *KernelSet::default_set()?;
    let methods = Methods {
        creation: zone("ModelCreation")?,
        setup: Some(zone("BuilderSetup")?),
        inference: zone("InferenceComplete")?,
        prepare: Some(zone("PrepareInput")?),
        token: zone("GenerateToken")?,
        forward: zone("ForwardPass")?,
    };
    let text = Text { name: "Small", config: GptConfig::SMALL, prompt: 10, tokens: 50, inferences: 3 };
    let picker = |kernels: &KernelSet, n_vocab| Picker::drawing(kernels, n_vocab, SEED);
    let part = |name, way, about: &str| PartPlan {
        name: String::from(name),
        about: format!("Small, 3 texts of 50 tokens after a prompt of 10, temperature 0.8: {about}."),
        workloads: vec![Box::new(Generation::new(text, methods, way, threads, picker))],
    };
    let parts = vec![
        part(SAME_WORK, Way::SameWork, "all positions again for each token, logits at all of them"),
        part(WITH_CACHE, Way::WithCache, "the prompt at once, then one position for each token"),
    ];
    Ok(Plan { mode: "standard", kernels, threads, parts })
}
