//! The mode `deep`: products of 128, 256 and 512, and a medium model: three texts of 50 tokens after a prompt of 32.

use smallmind::Result;
use smallmind::kernels::KernelSet;
use smallmind::model::GptConfig;
use smallmind::profile::zone;

use super::kernels::{self, Counts};
use super::models::{Generation, Methods, Text, Way};
use super::sampling::Picker;
use super::{SAME_WORK, WITH_CACHE};
use crate::profile::modes::plan::{PartPlan, Plan, Workload};

pub fn plan(threads: usize) -> Result<Plan> {
    let kernels = *KernelSet::default_set()?;
    let methods = Methods {
        creation: zone("Transformer_ModelCreation")?,
        setup: None,
        inference: zone("Inference")?,
        prepare: None,
        token: zone("GenerateToken")?,
        forward: zone("Transformer_Forward")?,
    };
    let text = Text { name: "Medium", config: GptConfig::MEDIUM, prompt: 32, tokens: 50, inferences: 3 };
    let model = |way| -> Box<dyn Workload> {
        let picker = |kernels: &KernelSet, _| Ok(Picker::Likeliest(kernels.rows().argmax));
        Box::new(Generation::new(text, methods, way, threads, picker))
    };
    let counts = Counts { warm_ups: 0, iterations: 3 };
    let products = [128, 256, 512].map(|size| kernels::matmul(&kernels, threads, size, counts));
    let mut same = products.into_iter().collect::<Result<Vec<_>>>()?;
    same.push(model(Way::SameWork));
    let about = |before: &str, after: &str| {
        format!("{before}Medium, 3 texts of 50 tokens after a prompt of 32: {after}.")
    };
    let parts = vec![
        PartPlan {
            name: SAME_WORK.into(),
            about: about("Products, 3 each; ", "all positions again for each token, logits at all of them"),
            workloads: same,
        },
        PartPlan {
            name: WITH_CACHE.into(),
            about: about("", "the prompt at once, then one position for each token"),
            workloads: vec![model(Way::WithCache)],
        },
    ];
    Ok(Plan { mode: "deep", kernels, threads, parts })
}
