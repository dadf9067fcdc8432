//! Sums over many logits, by vector kernels, a block of them at a time: exponentials, their sum, a draw by it, the entropy,
//! the standard deviation. What a block needs stays in the caches of the core; one pass reads the logits.
//!
//! Blocks have one length and stand in the order of the logits, and sums of blocks add up in `f64`, in this order. The
//! order of additions within a block is the kernels'.

use super::cut::Candidate;
use crate::Result;
use crate::kernels::KernelSet;
use crate::memory::reserve::with_room;

/// Logits of a block: many, so that calls of kernels cost little, and few, so that what they pass on stays in L1.
pub(super) const BLOCK: usize = 1024;

/// Logits in their order: those of all tokens, or of candidates.
#[derive(Clone, Copy)]
pub(super) enum Logits<'a> {
    Row(&'a [f32]),
    List(&'a [Candidate]),
}

impl<'a> Logits<'a> {
    fn blocks(self) -> usize {
        match self {
            Self::Row(row) => row.len().div_ceil(BLOCK),
            Self::List(list) => list.len().div_ceil(BLOCK),
        }
    }

    /// The logits of a block; those of candidates are copied to `room`.
    fn block<'b>(self, at: usize, room: &'b mut [f32; BLOCK]) -> &'b [f32]
    where
        'a: 'b,
    {
        let first = at * BLOCK;
        match self {
            Self::Row(row) => &row[first..row.len().min(first + BLOCK)],
            Self::List(list) => {
                let list = &list[first..list.len().min(first + BLOCK)];
                for (logit, candidate) in room.iter_mut().zip(list) {
                    *logit = candidate.logit();
                }
                &room[..list.len()]
            }
        }
    }

    /// The token of the logit with this index.
    fn token(self, index: usize) -> u32 {
        match self {
            Self::Row(_) => index as u32,
            Self::List(list) => list[index].id(),
        }
    }
}

/// How logits become weights: w = exp(x), where x is (logit − max) / temperature and max is finite.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// The greatest logit; its weight is 1.
    pub max: f32,
    /// Above 0.
    pub temperature: f32,
}

impl Scale {
    /// The exponent x of a logit.
    pub(super) fn exponent(self, logit: f32) -> f64 {
        f64::from((logit - self.max) / self.temperature)
    }

    /// The weight of a logit.
    pub(super) fn weight(self, logit: f32) -> f64 {
        f64::from(((logit - self.max) / self.temperature).exp())
    }

    /// The logit with this weight, which is at most 1.
    pub(super) fn logit(self, weight: f64) -> f32 {
        (f64::from(self.max) + f64::from(self.temperature) * weight.ln()) as f32
    }
}

/// What weights add up to.
pub(super) struct Sums {
    pub scale: Scale,
    /// Of the weights.
    pub weights: f64,
    /// The mean of the exponents, each with its weight.
    pub mean: f64,
    /// Logits above −∞.
    pub possible: usize,
}

impl Sums {
    /// The entropy of the distribution, in nats.
    pub(super) fn entropy(&self) -> f64 {
        self.weights.ln() - self.mean
    }

    /// How far the information content of a token is from the entropy, in nats: both are less the same logarithm of the
    /// sum of weights.
    pub(super) fn distance(&self, logit: f32) -> f64 {
        (self.mean - self.scale.exponent(logit)).abs()
    }
}

/// The kernels, and memory for a block.
pub(super) struct Blocks {
    kernels: &'static KernelSet,
    /// Logits of candidates.
    logits: [f32; BLOCK],
    /// A number in all places, which is added to a block.
    shift: [f32; BLOCK],
    exponents: [f32; BLOCK],
    weights: [f32; BLOCK],
    /// The sums of the blocks' weights.
    totals: Vec<f64>,
}

impl Blocks {
    /// For at most `n_vocab` logits.
    pub(super) fn new(n_vocab: usize) -> Result<Self> {
        Ok(Self {
            kernels: KernelSet::default_set()?,
            logits: [0.0; BLOCK],
            shift: [0.0; BLOCK],
            exponents: [0.0; BLOCK],
            weights: [0.0; BLOCK],
            totals: with_room(n_vocab.div_ceil(BLOCK), "sums of a sampler's weights")?,
        })
    }

    /// The greatest logit; NaN where one is NaN.
    pub(super) fn greatest(&self, logits: &[f32]) -> f32 {
        self.kernels.rows().max.apply(logits)
    }

    /// What all weights add up to.
    pub(super) fn sums(&mut self, logits: Logits, scale: Scale) -> Sums {
        self.shift.fill(-scale.max);
        let rows = self.kernels.rows();
        let (mut weights, mut weighted, mut possible) = (0.0, 0.0, 0);
        for at in 0..logits.blocks() {
            let n = self.weigh(logits, at, scale);
            let (x, w) = (&self.exponents[..n], &self.weights[..n]);
            weights += f64::from(rows.sum.apply(w));
            let products = rows.dot.apply(w, x);
            if products.is_nan() {
                // An exponent is −∞, and its weight 0.
                let all = w.iter().zip(x).filter(|(w, _)| **w > 0.0);
                weighted += all.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
                let block = logits.block(at, &mut self.logits);
                possible += block.iter().filter(|logit| **logit > f32::NEG_INFINITY).count();
            } else {
                weighted += f64::from(products);
                possible += n;
            }
        }
        Sums { scale, weights, mean: weighted / weights, possible }
    }

    /// The sum of all weights.
    pub(super) fn total(&mut self, logits: Logits, scale: Scale) -> f64 {
        self.shift.fill(-scale.max);
        self.totals.clear();
        for at in 0..logits.blocks() {
            let n = self.weigh(logits, at, scale);
            self.totals.push(f64::from(self.kernels.rows().sum.apply(&self.weights[..n])));
        }
        self.totals.iter().sum()
    }

    /// The token at which the sum of weights, in the order of the logits, first exceeds `share` < 1 of the sum of all, and
    /// its probability.
    pub(super) fn draw(&mut self, logits: Logits, scale: Scale, share: f64) -> (u32, f64) {
        let total = self.total(logits, scale);
        let target = share * total;
        let (block, before) = reach(self.totals.iter().copied(), 0.0, target);
        let n = self.weigh(logits, block, scale);
        let weights = self.weights[..n].iter().map(|&weight| f64::from(weight));
        let (at, _) = reach(weights, before, target);
        (logits.token(block * BLOCK + at), f64::from(self.weights[at]) / total)
    }

    /// The standard deviation of the finite logits; `None` without one.
    pub(super) fn deviation(&mut self, logits: Logits) -> Option<f64> {
        let rows = self.kernels.rows();
        let (mut sum, mut count) = (0.0, 0.0);
        for at in 0..logits.blocks() {
            let block = logits.block(at, &mut self.logits);
            match rows.sum.apply(block) {
                of_block if of_block.is_finite() => {
                    sum += f64::from(of_block);
                    count += block.len() as f64;
                }
                _ => finite(block).for_each(|logit| {
                    sum += logit;
                    count += 1.0;
                }),
            }
        }
        if count == 0.0 {
            return None;
        }
        let mean = sum / count;
        self.shift.fill(-mean as f32);
        let mut squares = 0.0;
        for at in 0..logits.blocks() {
            let block = logits.block(at, &mut self.logits);
            let distances = &mut self.exponents[..block.len()];
            self.kernels.unary().add.apply(block, &self.shift[..block.len()], distances);
            squares += match rows.dot.apply(distances, distances) {
                of_block if of_block.is_finite() => f64::from(of_block),
                _ => finite(block).map(|logit| (logit - mean).powi(2)).sum(),
            };
        }
        Some((squares / count).sqrt())
    }

    /// Computes the exponents and weights of a block, whose length it returns. `shift` is −max.
    fn weigh(&mut self, logits: Logits, at: usize, scale: Scale) -> usize {
        let unary = self.kernels.unary();
        let block = logits.block(at, &mut self.logits);
        let n = block.len();
        let exponents = &mut self.exponents[..n];
        unary.add.apply(block, &self.shift[..n], exponents);
        if scale.temperature != 1.0 {
            // Only logits that differ by less than 1e-37 can tell temperatures whose inverse is greater.
            unary.scale.apply_in_place(exponents, (1.0 / scale.temperature).min(f32::MAX));
        }
        unary.exp.apply(exponents, &mut self.weights[..n]);
        n
    }
}

/// The first index at which `before` and the weights up to it exceed the target, and their sum without it. If rounding
/// keeps the sum below the target, it is the last weight above 0.
fn reach(weights: impl Iterator<Item = f64>, before: f64, target: f64) -> (usize, f64) {
    let (mut passed, mut reached) = (before, (0, before));
    for (at, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        reached = (at, passed);
        passed += weight;
        if target < passed {
            break;
        }
    }
    reached
}

fn finite(block: &[f32]) -> impl Iterator<Item = f64> {
    block.iter().filter(|logit| logit.is_finite()).map(|&logit| f64::from(logit))
}
