//! Kernels of a training step on every level of this CPU against `reference::backward`, within the bounds that their
//! documentation states; and the reference's gradients against central differences.

use super::*;
use crate::kernels::rows::tests::{U, bits, random};

mod cross_entropy;
mod norm;
mod optimizer;
mod squares;

fn sets() -> impl Iterator<Item = (IsaId, BackwardKernels)> {
    levels::here().map(|isa| (isa, BackwardKernels::select(isa)))
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Lengths around whole vectors of every level, and none.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=17).chain([31, 32, 33, 63, 64, 65, 255, 1001])
}

/// The derivative of a function of `x` by its element `i`, by a central difference.
fn slope(x: &[f64], i: usize, f: impl Fn(&[f64]) -> f64) -> f64 {
    let step = 1e-5 * x[i].abs().max(1.0);
    let moved = |by: f64| {
        let mut x = x.to_vec();
        x[i] += by;
        f(&x)
    };
    (moved(step) - moved(-step)) / (2.0 * step)
}
