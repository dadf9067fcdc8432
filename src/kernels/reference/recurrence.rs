//! What one token does to the state of a recurrence, in plain f64 loops: the oracle of `kernels::recurrence`.
//! States are f64 here too, so a caller may go on from a kernel's state or from the last one.

use super::sigmoid;

/// ln(1 + eˣ).
pub fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// x divided by √(Σ x² + eps).
pub fn unit(x: &[f32], eps: f64) -> Vec<f64> {
    let square: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    x.iter().map(|&x| f64::from(x) / (square + eps).sqrt()).collect()
}

/// A channel's causal convolution: the sum of bias, the last inputs (the state, oldest first) and this one, each with
/// its weight. The input then takes the oldest one's place.
pub fn conv(state: &mut [f64], x: f64, weights: &[f64], bias: f64) -> f64 {
    assert_eq!(state.len() + 1, weights.len(), "a tap more than inputs are kept");
    let inputs = state.iter().copied().chain([x]).zip(weights);
    let y = bias + inputs.map(|(x, w)| x * w).sum::<f64>();
    state.rotate_left(1);
    if let Some(last) = state.last_mut() {
        *last = x;
    }
    y
}

/// A channel's token in a selective scan of Mamba or Mamba-2, with a decay exponent, an entrance and an exit for each
/// number of the state: `s = e^(step·a)·s + step·x·b`, then `Σ c·s + d·x`.
pub fn scan(state: &mut [f64], x: f64, step: f64, a: &[f64], b: &[f64], c: &[f64], d: f64) -> f64 {
    let mut y = d * x;
    for (n, s) in state.iter_mut().enumerate() {
        *s = (step * a[n]).exp() * *s + step * x * b[n];
        y += c[n] * *s;
    }
    y
}

/// A head's token by the gated delta rule, on a state of a row for each element of the key: all of it decays, what it
/// has for the key moves towards the value by the share `write`, and the answer is what it then has for the query.
pub fn delta(state: &mut [f64], q: &[f64], k: &[f64], v: &[f64], decay: f64, write: f64) -> Vec<f64> {
    let width = v.len();
    assert_eq!((q.len() * width, k.len() * width), (state.len(), state.len()), "a row an element of the key");
    state.iter_mut().for_each(|s| *s *= decay);
    let read = |state: &[f64], x: &[f64], j: usize| -> f64 {
        x.iter().enumerate().map(|(i, x)| x * state[i * width + j]).sum()
    };
    for j in 0..width {
        let change = write * (v[j] - read(state, k, j));
        for (i, k) in k.iter().enumerate() {
            state[i * width + j] += k * change;
        }
    }
    (0..width).map(|j| read(state, q, j)).collect()
}

/// The decay of [`delta`]'s state and the share by which it writes, from a head's gates.
pub fn delta_gates(alpha: f64, beta: f64, a: f64, bias: f64) -> (f64, f64) {
    ((a * softplus(alpha + bias)).exp(), sigmoid(beta))
}
