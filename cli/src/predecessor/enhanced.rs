//! The mode `enhanced`: single kernels at several sizes, and two models that write 25 tokens after a prompt of 10:
//! 550 positions each when all go through again for each token.

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
    let mut same = single_kernels(&kernels, threads)?;
    same.extend(models(Way::SameWork, threads)?);
    let about = |before: &str, after: &str| {
        format!("{before}Small and Medium, 25 tokens after a prompt of 10: {after}.")
    };
    let parts = vec![
        PartPlan {
            name: SAME_WORK.into(),
            about: about(
                "Products 1 + 3 each, GELU and softmax 1 + 5, tensor operations 10; ",
                "all positions again for each token, logits at all of them",
            ),
            workloads: same,
        },
        PartPlan {
            name: WITH_CACHE.into(),
            about: about("", "the prompt at once, then one position for each token"),
            workloads: models(Way::WithCache, threads)?,
        },
    ];
    Ok(Plan { mode: "enhanced", kernels, threads, parts })
}

/// Everything that isn't a model. The short workloads come first: one of several megabytes drives the recorder's own
/// tables out of the caches, and a method of a microsecond would wait for them.
fn single_kernels(set: &KernelSet, threads: usize) -> Result<Vec<Box<dyn Workload>>> {
    let mut all = Vec::new();
    let ten = Counts { warm_ups: 0, iterations: 10 };
    all.extend(kernels::tensor_add_mul(set, 10_000, ten)?);
    all.push(kernels::broadcast_add(set, 100, ten)?);
    let five = Counts { warm_ups: 1, iterations: 5 };
    for len in [256, 512, 1024, 2048] {
        all.push(kernels::softmax(set, len, five)?);
    }
    for len in [1_000, 10_000] {
        all.push(kernels::gelu(set, len, five)?);
    }
    for size in [64, 128, 256, 512] {
        all.push(kernels::matmul(set, threads, size, Counts { warm_ups: 1, iterations: 3 })?);
    }
    for len in [100_000, 1_000_000] {
        all.push(kernels::gelu(set, len, five)?);
    }
    Ok(all)
}

fn models(way: Way, threads: usize) -> Result<Vec<Box<dyn Workload>>> {
    let of = |name: &'static str, config| -> Result<Box<dyn Workload>> {
        let method = |piece: &str| zone(&format!("Model_{name}_{piece}"));
        let methods = Methods {
            creation: method("Creation")?,
            setup: None,
            inference: method("Inference")?,
            prepare: None,
            token: method("GenerateToken")?,
            forward: method("Forward")?,
        };
        let text = Text { name, config, prompt: 10, tokens: 25, inferences: 1 };
        let picker = |kernels: &KernelSet, _| Ok(Picker::Likeliest(kernels.rows().argmax));
        Ok(Box::new(Generation::new(text, methods, way, threads, picker)))
    };
    Ok(vec![of("Small", GptConfig::SMALL)?, of("Medium", GptConfig::MEDIUM)?])
}
