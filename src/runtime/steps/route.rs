//! The choice of experts for each row, by a router's scores, and the weights of the chosen.
//! Equal scores go to the lower number. A score that is NaN comes after all numbers; where all are NaN, the first experts
//! are chosen.

use super::{At, Facts, Scratch, Step, Walk, Work};
use crate::error::{Error, Result};
use crate::kernels::KernelSet;
use crate::model::experts::{Gating, Routing};
use crate::model::graph::RowSet;
use crate::model::text::Names;
use crate::ops::experts::{Routes, Sorted};
use crate::profile::Zone;
use crate::runtime::plan::Buf;
use crate::threads::Worker;

/// The least sum by which weights are divided, as in llama.cpp: the smallest normal f16.
const LEAST_SUM: f32 = 1.0 / 16_384.0;

/// The choice of experts.
pub struct Route {
    /// The router's scores, f32.
    pub scores: Buf,
    /// How experts are chosen.
    pub routing: Routing,
    /// The routes: [`Routes::row_bytes`] a row.
    pub out: Buf,
    /// Rows of both.
    pub rows: RowSet,
}

impl Step for Route {
    fn facts(&self) -> Facts {
        Facts::by_row(Zone::Route, self.rows, &[self.scores], self.out)
    }

    fn scratch(&self, _: &Scratch<'_>) -> Result<usize> {
        Ok(3 * self.routing.count)
    }

    fn work(&self, walk: &Walk<'_>) -> Work {
        let scores = (walk.count(self.rows) * self.routing.count) as u64;
        Work { flops: 8 * scores, bytes: 4 * scores }
    }

    unsafe fn run(&self, walk: &Walk<'_>, at: &At<'_>) {
        let count = self.routing.count;
        let scores = walk.view(self.scores, at.worker);
        let routes = Routes { rows: walk.view(self.out, at.worker), used: self.routing.used };
        let bias = self.routing.bias.map(|id| walk.weights.vector(id));
        // SAFETY: the pass reserved as much scratch memory for this worker as `Step::scratch` says.
        let scratch = unsafe { std::slice::from_raw_parts_mut(walk.scratch(at.worker), 3 * count) };
        for r in at.share.clone() {
            // SAFETY: the pass contract: no worker writes the scores, and row r of the routes is this worker's.
            let (scores, (experts, weights)) = unsafe { (scores.floats(r, count), routes.places(r)) };
            route(walk.kernels, &self.routing, bias, scores, scratch, experts, weights);
        }
    }

    fn text(&self, _: &Names<'_>) -> String {
        self.routing.to_string()
    }
}

/// Chooses experts for a row: their numbers, best first, and their weights. `scratch` is three times as long as
/// `scores`.
fn route(
    kernels: &KernelSet,
    routing: &Routing,
    bias: Option<&[f32]>,
    scores: &[f32],
    scratch: &mut [f32],
    experts: &mut [u32],
    weights: &mut [f32],
) {
    let (probabilities, scratch) = scratch.split_at_mut(scores.len());
    let (selection, groups) = scratch.split_at_mut(scores.len());
    probabilities.copy_from_slice(scores);
    match routing.gating {
        Gating::Softmax => softmax(kernels, probabilities),
        Gating::Sigmoid => kernels.unary.sigmoid.apply(scores, probabilities),
        Gating::SqrtSoftplus => probabilities.iter_mut().for_each(|x| *x = softplus(*x).sqrt()),
        Gating::SoftmaxOfChosen => {}
    }
    // The weights of an input are sigmoids, which large scores have in common; the scores tell them apart.
    selection.copy_from_slice(probabilities);
    if let Some(bias) = bias {
        selection.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
    if let Some((count, used)) = routing.groups {
        keep_groups(selection, count, used, groups);
    }
    choose(selection, experts);
    let chosen = experts.iter().map(|&expert| probabilities[expert as usize]);
    weights.iter_mut().zip(chosen).for_each(|(weight, x)| *weight = x);
    if routing.gating == Gating::SoftmaxOfChosen {
        softmax(kernels, weights);
    }
    if routing.norm {
        let sum: f32 = weights.iter().sum();
        let sum = if sum < LEAST_SUM { LEAST_SUM } else { sum };
        weights.iter_mut().for_each(|x| *x /= sum);
    }
    if routing.scale != 1.0 {
        weights.iter_mut().for_each(|x| *x *= routing.scale);
    }
}

fn softmax(kernels: &KernelSet, x: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x -= largest);
    kernels.unary.exp.apply_in_place(x);
    let factor = 1.0 / x.iter().sum::<f32>();
    x.iter_mut().for_each(|x| *x *= factor);
}

/// ln(1 + eˣ).
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// Whether `a` comes before `b`, which has a lower number.
fn is_better(a: f32, b: f32) -> bool {
    a > b || (b.is_nan() && !a.is_nan())
}

/// The numbers of the best scores, best first. There are at least as many scores as places.
fn choose(scores: &[f32], chosen: &mut [u32]) {
    let mut len = 0;
    for (i, &score) in scores.iter().enumerate() {
        let better = |place: u32| is_better(score, scores[place as usize]);
        if len < chosen.len() {
            len += 1;
        } else if !chosen.last().is_some_and(|&last| better(last)) {
            continue;
        }
        let mut at = len - 1;
        while at > 0 && better(chosen[at - 1]) {
            chosen[at] = chosen[at - 1];
            at -= 1;
        }
        chosen[at] = i as u32;
    }
}

/// Keeps the scores of the `used` groups, of `count`, whose two best scores have the largest sums; the others become −∞.
/// NaN becomes the least number above that.
fn keep_groups(scores: &mut [f32], count: usize, used: usize, sums: &mut [f32]) {
    scores.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = f32::MIN);
    let size = scores.len() / count;
    let sums = &mut sums[..count];
    for (group, sum) in scores.chunks(size).zip(&mut *sums) {
        let mut best = [0; 2];
        let best = &mut best[..size.min(2)];
        choose(group, best);
        *sum = best.iter().map(|&i| group[i as usize]).sum();
    }
    for (i, group) in scores.chunks_mut(size).enumerate() {
        let before = (0..count).filter(|&j| match j < i {
            true => !is_better(sums[i], sums[j]),
            false => j > i && is_better(sums[j], sums[i]),
        });
        if before.count() >= used {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The routes that a step reads.
#[derive(Clone, Copy)]
pub struct RoutesRead {
    /// The routes.
    pub buf: Buf,
    /// Experts that there are.
    pub count: usize,
    /// Experts of a row.
    pub used: usize,
}

impl RoutesRead {
    /// Floats of scratch memory for [`RoutesRead::sorted`].
    pub fn scratch(&self, scratch: &Scratch<'_>, rows: RowSet) -> Result<usize> {
        const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: "the rows of experts" };
        Sorted::words(self.count, self.used, scratch.most.of(rows)).ok_or(TOO_LARGE)
    }

    /// The rows sorted by expert, in memory of [`RoutesRead::scratch`].
    ///
    /// # Safety
    /// As [`Step::run`]; the memory is this worker's own.
    pub unsafe fn sorted<'a>(&self, walk: &Walk<'_>, worker: &Worker<'_>, memory: *mut f32) -> Sorted<'a> {
        let routes = Routes { rows: walk.view(self.buf, worker), used: self.used };
        let words = Sorted::words(self.count, self.used, routes.rows.len()).unwrap_or(0);
        // SAFETY: the memory has room for the words, of as many rows as a pass has at most, and is this worker's; the
        // routes were computed before and hold numbers of experts.
        unsafe { Sorted::new(routes, self.count, std::slice::from_raw_parts_mut(memory.cast(), words)) }
    }

    /// Most experts that the rows of a pass can choose together.
    pub fn active(&self, walk: &Walk<'_>, rows: RowSet) -> usize {
        self.count.min(self.used * walk.count(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::IsaId;

    const ROUTING: Routing = Routing {
        count: 6,
        used: 3,
        gating: Gating::Softmax,
        bias: None,
        groups: None,
        norm: false,
        scale: 1.0,
    };

    fn routed(routing: &Routing, bias: Option<&[f32]>, scores: &[f32]) -> (Vec<u32>, Vec<f32>) {
        let kernels = KernelSet::select(IsaId::detect()).unwrap();
        let (mut experts, mut weights) = (vec![u32::MAX; routing.used], vec![f32::NAN; routing.used]);
        let mut scratch = vec![f32::NAN; 3 * scores.len()];
        route(&kernels, routing, bias, scores, &mut scratch, &mut experts, &mut weights);
        (experts, weights)
    }

    #[test]
    fn equal_scores_go_to_lower_numbers() {
        assert_eq!(routed(&ROUTING, None, &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]).0, [1, 3, 5]);
        assert_eq!(routed(&ROUTING, None, &[1.0, 1.0, 2.0, 1.0, 1.0, 1.0]).0, [2, 0, 1]);
        assert_eq!(routed(&ROUTING, None, &[0.0; 6]).0, [0, 1, 2]);
    }

    #[test]
    fn scores_that_are_nan_come_last() {
        let nan = f32::NAN;
        let sigmoid = Routing { gating: Gating::Sigmoid, ..ROUTING };
        let (experts, weights) = routed(&sigmoid, None, &[nan, -5.0, nan, 1.0, nan, nan]);
        assert_eq!(experts, [3, 1, 0]);
        assert!(weights[..2].iter().all(|x| x.is_finite()) && weights[2].is_nan());
        for gating in [Gating::Softmax, Gating::Sigmoid, Gating::SoftmaxOfChosen, Gating::SqrtSoftplus] {
            for norm in [false, true] {
                let routing = Routing { gating, norm, groups: Some((3, 2)), ..ROUTING };
                let (experts, weights) = routed(&routing, None, &[nan; 6]);
                assert_eq!(experts, [0, 1, 2]);
                assert!(weights.iter().all(|x| x.is_nan()));
            }
        }
        let (_, weights) = routed(&ROUTING, None, &[1.0, nan, 0.0, 0.0, 0.0, 0.0]);
        assert!(weights.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn a_bias_chooses_but_does_not_weigh() {
        let routing = Routing { gating: Gating::Sigmoid, used: 2, ..ROUTING };
        let bias = [0.0, 3.0, 0.0, 0.0, 0.0, 2.0];
        let (experts, weights) = routed(&routing, Some(&bias), &[0.0, -1.0, 4.0, 4.0, 4.0, 1.0]);
        assert_eq!(experts, [1, 5]);
        let wanted = [-1.0f32, 1.0].map(|x| 1.0 / (1.0 + (-x).exp()));
        assert!(weights.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{weights:?}");
    }

    #[test]
    fn only_the_best_groups_are_chosen_from() {
        let routing = Routing { gating: Gating::SoftmaxOfChosen, groups: Some((3, 1)), used: 2, ..ROUTING };
        // Sums of groups: 5, 6, 5.
        assert_eq!(routed(&routing, None, &[5.0, 0.0, 3.0, 3.0, 1.0, 4.0]).0, [2, 3]);
        // Equal sums: the lower group.
        assert_eq!(routed(&routing, None, &[5.0, 0.0, 2.0, 3.0, 1.0, 4.0]).0, [0, 1]);
        let routing = Routing { groups: Some((3, 2)), ..routing };
        assert_eq!(routed(&routing, None, &[5.0, 0.0, 2.0, 3.0, 1.0, 4.0]).0, [0, 3]);
    }

    #[test]
    fn small_sums_do_not_divide() {
        let routing = Routing { gating: Gating::Sigmoid, norm: true, used: 2, ..ROUTING };
        let (_, weights) = routed(&routing, None, &[-100.0; 6]);
        assert!(weights.iter().all(|&x| x < 1e-30), "{weights:?}");
    }
}
