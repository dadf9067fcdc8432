//! Dropout (Srivastava et al. 2014) in place, of values and of their gradients. Which elements are dropped follows from the
//! seed, the step, the place in the graph and the element alone, so nothing is kept for the backward pass.

use super::{At, Step, bytes_of};
use crate::model::random_bits;
use crate::profile::Zone;
use crate::train::plan::View;

/// Drops elements of `x` at a rate, and scales the others up so that means stay.
pub struct Dropout {
    pub x: View,
    /// The place in the graph.
    pub site: usize,
    /// The share of elements that are dropped, below 1.
    pub rate: f64,
}

impl Step for Dropout {
    fn run(&self, at: &mut At<'_>) {
        let walk = at.walk();
        let (factor, below) = ((1.0 / (1.0 - self.rate)) as f32, (self.rate * 2f64.powi(32)) as u64);
        let site = random_bits(walk.seed.wrapping_add(self.site as u64));
        for row in at.share.clone() {
            let key = random_bits(site.wrapping_add(row as u64));
            for (i, x) in at.own(self.x, row).iter_mut().enumerate() {
                let kept = random_bits(key.wrapping_add(i as u64)) >> 32 >= below;
                *x = if kept { *x * factor } else { 0.0 };
            }
        }
    }

    fn zone(&self) -> Zone {
        Zone::Elementwise
    }

    fn bytes(&self, rows: usize) -> u64 {
        bytes_of(rows, &[2 * self.x.width])
    }
}
