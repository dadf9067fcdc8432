//! The arithmetic of a training step in plain f64 loops: the oracle of `kernels::backward`.

/// An element's weight and means of gradients after a step of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// The weight.
    pub w: f64,
    /// Mean of gradients.
    pub m: f64,
    /// Mean of squared gradients.
    pub v: f64,
}

/// A step of AdamW on one element with gradient `g`, the `t`-th, at learning rate `lr`.
pub fn adamw(
    Moments { w, m, v }: Moments,
    g: f64,
    [beta1, beta2, eps, weight_decay]: [f64; 4],
    lr: f64,
    t: u64,
) -> Moments {
    let m = beta1 * m + (1.0 - beta1) * g;
    let v = beta2 * v + (1.0 - beta2) * g * g;
    let (mean, square) = (m / (1.0 - beta1.powf(t as f64)), v / (1.0 - beta2.powf(t as f64)));
    Moments { w: w - lr * weight_decay * w - lr * mean / (square.sqrt() + eps), m, v }
}

/// A step of gradient descent on one element: the new weight and sum of gradients.
pub fn sgd(w: f64, b: f64, g: f64, [lr, momentum, decay]: [f64; 3], nesterov: bool) -> (f64, f64) {
    let d = g + decay * w;
    let b = momentum * b + d;
    (w - lr * if nesterov { d + momentum * b } else { b }, b)
}

/// ln Σ eˣ − x_target.
pub fn cross_entropy(x: &[f64], target: usize) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln() - x[target]
}

/// The gradient of [`cross_entropy`]: softmax(x) − onehot(target).
pub fn cross_entropy_gradient(x: &[f64], target: usize) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
    let each = x.iter().enumerate();
    each.map(|(i, x)| (x - max).exp() / sum - f64::from(i == target)).collect()
}

/// A row's mean (0 for RMSNorm) and 1/√(variance + eps), or 1/√(mean square + eps).
pub fn moments(x: &[f64], eps: f64, layer: bool) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = if layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let square = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    (mean, 1.0 / (square + eps).sqrt())
}

/// The gradient of a row before LayerNorm (`layer`) or RMSNorm with factors `gamma`, from that behind it.
pub fn norm_gradient(
    x: &[f64],
    dy: &[f64],
    gamma: &[f64],
    (mean, rstd): (f64, f64),
    layer: bool,
) -> Vec<f64> {
    let n = x.len() as f64;
    let normed: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    let a: Vec<f64> = dy.iter().zip(gamma).map(|(dy, gamma)| dy * gamma).collect();
    let along = a.iter().zip(&normed).map(|(a, x)| a * x).sum::<f64>() / n;
    let level = if layer { a.iter().sum::<f64>() / n } else { 0.0 };
    a.iter().zip(&normed).map(|(a, x)| rstd * (a - level - x * along)).collect()
}

/// Causal or full attention of one head over its tokens, from rows of `head_dim`.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Queries.
    pub q: &'a [f64],
    /// Keys.
    pub k: &'a [f64],
    /// Values.
    pub v: &'a [f64],
    /// Elements of a row.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f64,
    /// A query sees no key past its own position.
    pub causal: bool,
}

/// What [`Head::forward`] computes.
#[derive(Clone, Debug)]
pub struct Attended {
    /// The result, rows of `head_dim`.
    pub out: Vec<f64>,
    /// ln Σ e^score of each query.
    pub lse: Vec<f64>,
}

impl Head<'_> {
    fn tokens(&self) -> usize {
        self.q.len() / self.head_dim
    }

    /// Scores of query `i` with the keys that it sees.
    fn scores(&self, i: usize) -> Vec<f64> {
        let n = self.head_dim;
        let seen = if self.causal { i + 1 } else { self.tokens() };
        let dot = |k: &[f64]| self.q[i * n..][..n].iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
        self.k.chunks(n).take(seen).map(|k| self.scale * dot(k)).collect()
    }

    /// The result.
    pub fn forward(&self) -> Attended {
        let n = self.head_dim;
        let mut attended = Attended { out: vec![0.0; self.q.len()], lse: Vec::new() };
        for i in 0..self.tokens() {
            let scores = self.scores(i);
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
            for (score, v) in scores.iter().zip(self.v.chunks(n)) {
                let weight = (score - lse).exp();
                attended.out[i * n..][..n].iter_mut().zip(v).for_each(|(out, v)| *out += weight * v);
            }
            attended.lse.push(lse);
        }
        attended
    }

    /// The gradients of q, k and v from that of the result.
    pub fn backward(&self, d_out: &[f64]) -> [Vec<f64>; 3] {
        let n = self.head_dim;
        let Attended { out, lse } = self.forward();
        let mut gradients = [vec![0.0; self.q.len()], vec![0.0; self.k.len()], vec![0.0; self.v.len()]];
        for i in 0..self.tokens() {
            let row = i * n..(i + 1) * n;
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let level = dot(&d_out[row.clone()], &out[row.clone()]);
            for (j, score) in self.scores(i).iter().enumerate() {
                let key = j * n..(j + 1) * n;
                let weight = (score - lse[i]).exp();
                let slope = weight * (dot(&d_out[row.clone()], &self.v[key.clone()]) - level) * self.scale;
                let [dq, dk, dv] = &mut gradients;
                for d in 0..n {
                    dq[i * n + d] += slope * self.k[j * n + d];
                    dk[j * n + d] += slope * self.q[i * n + d];
                    dv[j * n + d] += weight * d_out[i * n + d];
                }
            }
        }
        gradients
    }
}
