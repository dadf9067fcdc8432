//! The mode `alloc`: the memory that products with their backward passes, and steps of a training loop, allocate. Working
//! memory is made once and stays, so an iteration should allocate nothing; without reuse each result is new memory.
//!
//! A step of the loop is its forward products and, as the backward pass, the two transposed products of a layer. The
//! predecessor's goes back through the last layer only, and changes no weight: that is a part of its own. The whole goes
//! back through both layers, and AdamW updates them.

use smallmind::Result;
use smallmind::kernels::KernelSet;
use smallmind::kernels::backward::{AdamWConfig, AdamWStep};
use smallmind::memory::AlignedBuf;
use smallmind::profile::{self, Zone, zone};
use smallmind::report::Report;
use smallmind::report::data::Method;

use super::kernels::{Product, Tools, floats};
use crate::profile::modes::plan::{PartPlan, Plan, Workload};

/// Rows of a batch: the samples of a step.
const BATCH: usize = 32;
const MATMUL_ITERATIONS: usize = 100;
const MATMUL_WARM_UPS: usize = 10;
const STEPS: usize = 50;
const WARM_UP_STEPS: usize = 5;

const MATMUL: &str = "MatMulBackward_Iteration";
const STEP: &str = "Training_Step";
const WHOLE_STEP: &str = "Training_WholeStep";
/// The learning rate: small, so that weights stay of the size that they have in practice.
const RATE: f64 = 1e-6;

pub fn plan(threads: usize) -> Result<Plan> {
    let kernels = *KernelSet::default_set()?;
    let layer = |m, n, k, method| Layer::new(m, n, k, method);
    let product = Loop {
        method: zone(MATMUL)?,
        warm_ups: MATMUL_WARM_UPS,
        iterations: MATMUL_ITERATIONS,
        layers: vec![layer(128, 128, 256, "MatMul")?],
        backward_from: 0,
        updates: None,
        tools: Tools::new(&kernels, threads)?,
    };
    let training = |method, backward_from, updates| -> Result<Loop> {
        Ok(Loop {
            method: zone(method)?,
            warm_ups: WARM_UP_STEPS,
            iterations: STEPS,
            layers: vec![layer(BATCH, 256, 256, "Layer1")?, layer(BATCH, 32, 256, "Layer2")?],
            backward_from,
            updates,
            tools: Tools::new(&kernels, threads)?,
        })
    };
    let part = |name, about: &str, work: Loop| PartPlan {
        name: String::from(name),
        about: about.into(),
        workloads: vec![Box::new(work)],
    };
    let parts = vec![
        part(
            "matmul",
            "128 × 256 times 256 × 128 and back: 100 iterations; 256 KB each would be expected without reuse.",
            product,
        ),
        part(
            "training, same work",
            "32 × 256 through 256 × 256 and 256 × 32, gradients cleared, back through the last layer: 50 steps.",
            training(STEP, 1, None)?,
        ),
        part(
            "training, whole",
            "The same, back through both layers, and an update by AdamW: 50 steps.",
            training(WHOLE_STEP, 0, Some(0))?,
        ),
    ];
    Ok(Plan { mode: "alloc", kernels, threads, parts })
}

/// y = x · w and its gradients: dx = dy · wᵀ, dw = xᵀ · dy.
struct Layer {
    forward: Product,
    to_input: Product,
    to_weights: Product,
    methods: [Zone; 4],
    x: AlignedBuf,
    w: AlignedBuf,
    y: AlignedBuf,
    dx: AlignedBuf,
    dw: AlignedBuf,
    moments: [AlignedBuf; 2],
}

impl Layer {
    fn new(m: usize, n: usize, k: usize, name: &str) -> Result<Layer> {
        let method = |piece: &str| zone(&format!("{name}_{piece}"));
        Ok(Layer {
            forward: Product::plain(m, n, k),
            to_input: Product { m, n: k, k: n, transposed: [false, true] },
            to_weights: Product { m: k, n, k: m, transposed: [true, false] },
            methods: [
                method("Forward")?,
                method("BackwardInput")?,
                method("BackwardWeights")?,
                method("Update")?,
            ],
            x: floats(m * k)?,
            w: floats(k * n)?,
            y: floats(m * n)?,
            dx: floats(m * k)?,
            dw: floats(k * n)?,
            moments: [floats(k * n)?, floats(k * n)?],
        })
    }

    fn forward(&mut self, tools: &mut Tools) -> Result<()> {
        let _zone = self.forward.scope(self.methods[0]);
        self.forward.run(tools, &self.x, &self.w, &mut self.y)
    }

    /// Takes y itself as the gradient of y: the values don't change the work.
    fn backward(&mut self, tools: &mut Tools) -> Result<()> {
        {
            let _zone = self.to_input.scope(self.methods[1]);
            self.to_input.run(tools, &self.y, &self.w, &mut self.dx)?;
        }
        let _zone = self.to_weights.scope(self.methods[2]);
        self.to_weights.run(tools, &self.x, &self.y, &mut self.dw)
    }

    /// A step of AdamW.
    fn update(&mut self, tools: &Tools, step: u64) -> Result<()> {
        let elements = self.w.as_slice::<f32>().len();
        // Weights and moments are read and written, gradients read.
        let _zone = profile::scope(self.methods[3]).work(0, 4 * 7 * elements as u64);
        let factors = AdamWStep::new(&AdamWConfig::default(), RATE, step, 1.0);
        let ([first, second], dw) = (&mut self.moments, self.dw.as_slice());
        let (w, first, second) = (self.w.as_mut_slice(), first.as_mut_slice(), second.as_mut_slice());
        tools.kernels().backward().adamw.apply(&factors, w, dw, first, second)
    }

    fn clear_gradients(&mut self) {
        self.dx.as_mut_slice::<f32>().fill(0.0);
        self.dw.as_mut_slice::<f32>().fill(0.0);
    }
}

/// Layers run forward and back again and again.
struct Loop {
    method: Zone,
    warm_ups: usize,
    iterations: usize,
    layers: Vec<Layer>,
    /// The first layer that the backward pass goes through.
    backward_from: usize,
    /// The updates so far, where weights are updated.
    updates: Option<u64>,
    tools: Tools,
}

impl Loop {
    fn step(&mut self) -> Result<()> {
        let _step = profile::scope(self.method);
        // A layer reads an input of its own, as large as the output of the layer before it.
        self.layers.iter_mut().try_for_each(|layer| layer.forward(&mut self.tools))?;
        let back = &mut self.layers[self.backward_from..];
        back.iter_mut().for_each(Layer::clear_gradients);
        back.iter_mut().rev().try_for_each(|layer| layer.backward(&mut self.tools))?;
        let Some(step) = &mut self.updates else { return Ok(()) };
        *step += 1;
        self.layers.iter_mut().try_for_each(|layer| layer.update(&self.tools, *step))
    }
}

impl Workload for Loop {
    fn name(&self) -> &str {
        self.method.name()
    }

    fn prepare(&mut self) -> Result<()> {
        (0..self.warm_ups).try_for_each(|_| self.step())
    }

    fn run(&mut self) -> Result<()> {
        (0..self.iterations).try_for_each(|_| self.step())
    }
}

/// A line for each loop: bytes allocated and speed.
pub fn summary(report: &Report) -> String {
    let mut text = String::from("\n## Iterations\n\n");
    let runs = report.parts.iter().flat_map(|part| &part.runs);
    let loops: Vec<&Method> = runs
        .flat_map(|run| &run.methods)
        .filter(|method| [MATMUL, STEP, WHOLE_STEP].contains(&method.name.as_str()))
        .collect();
    for method in loops {
        let (calls, seconds) = (method.calls.max(1), method.total_ns as f64 / 1e9);
        let samples = match method.name.as_str() {
            MATMUL => String::new(),
            _ => format!(", {:.0} samples/s", (method.calls as usize * BATCH) as f64 / seconds),
        };
        text.push_str(&format!(
            "- {}: {} bytes allocated an iteration, {:.4} ms{samples}\n",
            method.name,
            method.alloc_bytes / calls,
            1e3 * seconds / calls as f64
        ));
    }
    text
}
