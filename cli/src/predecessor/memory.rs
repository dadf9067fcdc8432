//! The mode `memory`: a thousand times each, allocating against reusing: a tensor, the result of a sum; and a LayerNorm
//! that makes no tensors on the way. Calls take nanoseconds, so a method is all thousand of them.

use std::hint::black_box;

use smallmind::Result;
use smallmind::kernels::KernelSet;
use smallmind::kernels::rows::Affine;
use smallmind::memory::AlignedBuf;
use smallmind::profile::{self, Zone, zone};
use smallmind::report::Report;

use super::kernels::{Work, floats};
use crate::profile::modes::plan::{PartPlan, Plan, Workload};

/// Times that each is done.
const TIMES: usize = 1000;
/// Floats of a tensor.
const TENSOR: usize = 512;
/// Rows that are normalised.
const ROWS: usize = 32;
/// Operations that an element of a LayerNorm counts as.
const LAYER_NORM_FLOPS: usize = 8;

/// One way of doing something, a thousand times.
struct Thousand<F> {
    method: Zone,
    work: Work,
    once: F,
}

impl<F: FnMut() -> Result<()>> Workload for Thousand<F> {
    fn name(&self) -> &str {
        self.method.name()
    }

    fn run(&mut self) -> Result<()> {
        let (flops, bytes) = (TIMES * self.work.flops, TIMES * self.work.bytes);
        let _method = profile::scope(self.method).work(flops as u64, bytes as u64);
        (0..TIMES).try_for_each(|_| (self.once)())
    }
}

fn thousand(name: &str, work: Work, once: impl FnMut() -> Result<()> + 'static) -> Result<Box<dyn Workload>> {
    Ok(Box::new(Thousand { method: zone(name)?, work, once }))
}

fn tensor() -> Result<AlignedBuf> {
    AlignedBuf::zeroed(4 * TENSOR, "a tensor")
}

pub fn plan(threads: usize) -> Result<Plan> {
    let kernels = *KernelSet::default_set()?;
    let mut workloads = tensors()?;
    workloads.extend(adds(&kernels)?);
    workloads.push(layer_norm(&kernels)?);
    let about = "1000 times each: a tensor of 512 zeros, new and the same one cleared; two tensors of 512 added, into \
                 a new one and into a given one; LayerNorm of 32 × 512 in one kernel.";
    let parts = vec![PartPlan { name: "memory".into(), about: about.into(), workloads }];
    Ok(Plan { mode: "memory", kernels, threads, parts })
}

fn tensors() -> Result<Vec<Box<dyn Workload>>> {
    let mut pooled = tensor()?;
    let work = Work { flops: 0, bytes: 4 * TENSOR };
    Ok(vec![
        thousand("Tensor_New", work, || {
            black_box(tensor()?);
            Ok(())
        })?,
        thousand("Tensor_Reused", work, move || {
            black_box(&mut pooled).as_mut_slice::<f32>().fill(0.0);
            Ok(())
        })?,
    ])
}

fn adds(kernels: &KernelSet) -> Result<Vec<Box<dyn Workload>>> {
    let add = kernels.unary().add;
    let (a, b) = (floats(TENSOR)?, floats(TENSOR)?);
    let (c, d, mut given) = (floats(TENSOR)?, floats(TENSOR)?, tensor()?);
    let work = Work { flops: TENSOR, bytes: 12 * TENSOR };
    Ok(vec![
        thousand("Add_New", work, move || {
            let mut sum = tensor()?;
            add.apply(a.as_slice(), b.as_slice(), sum.as_mut_slice());
            black_box(sum);
            Ok(())
        })?,
        thousand("Add_Given", work, move || {
            add.apply(c.as_slice(), d.as_slice(), black_box(&mut given).as_mut_slice());
            Ok(())
        })?,
    ])
}

fn layer_norm(kernels: &KernelSet) -> Result<Box<dyn Workload>> {
    let kernel = kernels.rows().layer_norm;
    let elements = ROWS * TENSOR;
    let (x, mut y) = (floats(elements)?, floats(elements)?);
    let (gamma, beta) = (floats(TENSOR)?, floats(TENSOR)?);
    let work = Work { flops: LAYER_NORM_FLOPS * elements, bytes: 8 * elements };
    thousand("LayerNorm_32x512", work, move || {
        let affine = Affine { gamma: Some(gamma.as_slice()), beta: Some(beta.as_slice()), eps: 1e-5 };
        kernel.apply(x.as_slice(), black_box(&mut y).as_mut_slice(), TENSOR, affine)
    })
}

/// Milliseconds, bytes and elements a second of each, in lines.
pub fn summary(report: &Report) -> String {
    let mut text = String::from("\n## Of a thousand each\n\n");
    for method in report.parts.iter().flat_map(|part| &part.runs).flat_map(|run| &run.methods) {
        let elements = TIMES * if method.name.starts_with("LayerNorm") { ROWS * TENSOR } else { TENSOR };
        text.push_str(&format!(
            "- {}: {:.3} ms, {} bytes allocated, {:.2} G elements/s\n",
            method.name,
            method.total_ns as f64 / 1e6,
            method.alloc_bytes,
            elements as f64 / method.total_ns.max(1) as f64
        ));
    }
    text
}
