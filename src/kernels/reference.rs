//! A transformer's arithmetic in plain f64 loops: the oracle of every kernel test, and the place to start reading.
//! Nothing here is fast, and nothing here knows an instruction set. Inputs are the f32 that kernels get;
//! results stay f64. Unlike the kernels, these functions allocate, and panic on shapes that do not fit.

pub mod backward;
pub mod recurrence;

use super::attention::ScoreOptions;
use super::rope::Pairing;
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// `Y = X · Wᵀ (+ bias)`: the linear layer. X is `m × k`, W is `n × k` (a row per output), Y is `m × n`.
pub fn matmul(x: &[f32], w: &[f32], bias: Option<&[f32]>, m: usize, n: usize, k: usize) -> Vec<f64> {
    assert_eq!((x.len(), w.len()), (m * k, n * k), "X is m × k and W is n × k");
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            let mut sum = bias.map_or(0.0, |b| f64::from(b[j]));
            for l in 0..k {
                sum += f64::from(x[i * k + l]) * f64::from(w[j * k + l]);
            }
            y[i * n + j] = sum;
        }
    }
    y
}

/// eˣ.
pub fn exp(x: f64) -> f64 {
    x.exp()
}

/// tanh x.
pub fn tanh(x: f64) -> f64 {
    x.tanh()
}

/// erf x = 2/√π ∫₀ˣ e^(−t²) dt, with a relative error below 1e-14.
///
/// Below |x| = 2, Kummer's series `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1))`, whose terms are all of
/// one sign (Abramowitz & Stegun 7.1.6); above it, one minus [`erfc`].
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() >= 2.0 {
        return x.signum() * (1.0 - erfc(x.abs()));
    }
    let mut term = x;
    let mut sum = x;
    let mut n = 1.0;
    while term.abs() > f64::EPSILON * 0.1 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// erfc x = 1 − erf x without the cancellation: relative error below 1e-12 down to where the result underflows.
///
/// From x = 2 on, the continued fraction `e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + …))))`
/// (Abramowitz & Stegun 7.1.14), evaluated from its far end.
pub fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < 2.0 {
        return 1.0 - erf(x);
    }
    if x > 28.0 {
        return 0.0;
    }
    let mut tail = x;
    for n in (1..=120).rev() {
        tail = x + 0.5 * f64::from(n) / tail;
    }
    (-x * x).exp() / (PI.sqrt() * tail)
}

/// σ(x) = 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// SiLU, also called swish: x · σ(x) (Elfwing, Uchibe & Doya 2017, arXiv:1702.03118).
pub fn silu(x: f64) -> f64 {
    // 0 · (−∞) would be NaN; the limit is 0.
    if x == f64::NEG_INFINITY { 0.0 } else { x * sigmoid(x) }
}

/// GELU: x · Φ(x), Φ the normal distribution (Hendrycks & Gimpel 2016, arXiv:1606.08415).
pub fn gelu_erf(x: f64) -> f64 {
    // Φ(x) = ½ erfc(−x/√2) keeps its accuracy where Φ is small.
    if x == f64::NEG_INFINITY { 0.0 } else { 0.5 * x * erfc(-x / SQRT_2) }
}

/// GELU's tanh approximation: ½x · (1 + tanh(√(2/π) · (x + 0.044715 x³))), in the same paper.
///
/// Written as x · σ(2u), which is the same by ½(1 + tanh u) = σ(2u) and does not cancel.
pub fn gelu_tanh(x: f64) -> f64 {
    let u = (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
    if x == f64::NEG_INFINITY { 0.0 } else { x * sigmoid(2.0 * u) }
}

/// max(x, 0); NaN stays NaN.
pub fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// Derivative of tanh.
pub fn tanh_slope(x: f64) -> f64 {
    // 1 − tanh² x = 4 σ'(2x), which does not cancel.
    4.0 * sigmoid_slope(2.0 * x)
}

/// Derivative of σ: σ(x)·σ(−x).
pub fn sigmoid_slope(x: f64) -> f64 {
    sigmoid(x) * sigmoid(-x)
}

/// Derivative of SiLU: σ(x) + x · σ'(x).
pub fn silu_slope(x: f64) -> f64 {
    if x.is_infinite() { relu_slope(x) } else { sigmoid(x) + x * sigmoid_slope(x) }
}

/// Derivative of [`gelu_erf`]: Φ(x) + x · φ(x), φ the density of the normal distribution.
pub fn gelu_erf_slope(x: f64) -> f64 {
    if x.is_infinite() {
        return relu_slope(x);
    }
    0.5 * erfc(-x / SQRT_2) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

/// Derivative of [`gelu_tanh`].
pub fn gelu_tanh_slope(x: f64) -> f64 {
    let u = (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x);
    let slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
    let both = sigmoid_slope(2.0 * u);
    if both == 0.0 { relu_slope(x) } else { sigmoid(2.0 * u) + x * both * 2.0 * slope }
}

/// Derivative of ReLU: 1 above 0, else 0.
pub fn relu_slope(x: f64) -> f64 {
    f64::from(u8::from(x > 0.0))
}

/// SwiGLU: silu(gate) · up (Shazeer 2020, arXiv:2002.05202).
pub fn swiglu(gate: f64, up: f64) -> f64 {
    silu(gate) * up
}

/// GEGLU: gelu(gate) · up, with the tanh form of GELU, as Gemma uses it (same paper).
pub fn geglu(gate: f64, up: f64) -> f64 {
    gelu_tanh(gate) * up
}

/// GEGLU with the erf form of GELU (same paper).
pub fn geglu_erf(gate: f64, up: f64) -> f64 {
    gelu_erf(gate) * up
}

/// Softmax of each row of `scale · X + mask`; X has rows of `cols`, and so has the mask, or one for all.
///
/// `causal = Some(v)`: row r sees its first v + r columns only; the others come out 0.
/// The largest element is subtracted first, so nothing overflows. A row that sees no column is all 0;
/// one whose visible elements are all −∞ is NaN, as in PyTorch and ONNX.
pub fn softmax(x: &[f32], cols: usize, scale: f64, causal: Option<usize>, mask: Option<&[f32]>) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for (r, (x, y)) in x.chunks(cols.max(1)).zip(y.chunks_mut(cols.max(1))).enumerate() {
        let visible = causal.map_or(cols, |v| cols.min(v + r));
        let mut x: Vec<f64> = x[..visible].iter().map(|&x| scale * f64::from(x)).collect();
        if let Some(mask) = mask {
            let first = if mask.len() == cols { 0 } else { r * cols };
            x.iter_mut().zip(&mask[first..]).for_each(|(x, &mask)| *x += f64::from(mask));
        }
        let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
        let sum: f64 = x.iter().map(|x| (x - max).exp()).sum();
        for (y, x) in y.iter_mut().zip(&x) {
            *y = (x - max).exp() / sum;
        }
    }
    y
}

/// Logarithm of the softmax of each row of X: x − max − ln Σ e^(x − max).
pub fn log_softmax(x: &[f32], cols: usize) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks(cols.max(1)) {
        let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
        let sum: f64 = x.iter().map(|&x| (f64::from(x) - max).exp()).sum();
        y.extend(x.iter().map(|&x| f64::from(x) - max - sum.ln()));
    }
    y
}

/// LayerNorm of each row of X (+ residual): (x − mean) / √(variance + eps) · gamma + beta
/// (Ba, Kiros & Hinton 2016, arXiv:1607.06450). The variance is that of the population (divided by `cols`).
pub fn layer_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    eps: f64,
    cols: usize,
) -> Vec<f64> {
    let mut y = add_residual(x, residual);
    for row in y.chunks_mut(cols.max(1)) {
        let mean = row.iter().sum::<f64>() / cols as f64;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / cols as f64;
        let rstd = 1.0 / (variance + eps).sqrt();
        for (j, y) in row.iter_mut().enumerate() {
            let gamma = gamma.map_or(1.0, |g| f64::from(g[j]));
            *y = (*y - mean) * rstd * gamma + beta.map_or(0.0, |b| f64::from(b[j]));
        }
    }
    y
}

/// RMSNorm of each row of X (+ residual): x / √(mean of x² + eps) · gamma
/// (Zhang & Sennrich 2019, arXiv:1910.07467).
pub fn rms_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    gamma: Option<&[f32]>,
    eps: f64,
    cols: usize,
) -> Vec<f64> {
    let mut y = add_residual(x, residual);
    for row in y.chunks_mut(cols.max(1)) {
        let mean_square = row.iter().map(|x| x * x).sum::<f64>() / cols as f64;
        let rstd = 1.0 / (mean_square + eps).sqrt();
        for (j, y) in row.iter_mut().enumerate() {
            *y *= rstd * gamma.map_or(1.0, |g| f64::from(g[j]));
        }
    }
    y
}

fn add_residual(x: &[f32], residual: Option<&[f32]>) -> Vec<f64> {
    let mut sum: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    for (sum, &r) in sum.iter_mut().zip(residual.unwrap_or(&[])) {
        *sum += f64::from(r);
    }
    sum
}

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of rows `[tokens][n_head][head_dim]`.
///
/// Pair i of the first `rot_dim` elements of each head turns by the angle
/// `position · freq_scale · base^(−2i/rot_dim) / factor[i]`; the rest of the head stays.
/// `freq_scale` below 1 is linear position interpolation (Chen et al. 2023, arXiv:2306.15595);
/// `factors` are Llama 3's `rope_freqs`, 1 where absent.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Heads in a row.
    pub n_head: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Leading elements of a head that turn; even.
    pub rot_dim: usize,
    /// Base of the frequencies, 10,000 in the paper.
    pub base: f64,
    /// Factor on positions.
    pub freq_scale: f64,
    /// A divisor for each of the `rot_dim / 2` frequencies.
    pub factors: Option<&'a [f32]>,
    /// Which elements form a pair.
    pub pairing: Pairing,
}

/// Applies a [`Rope`] to `x`, whose row t is at `positions[t]`.
pub fn rope(x: &[f32], positions: &[u32], shape: &Rope) -> Vec<f64> {
    assert_eq!(x.len(), positions.len() * shape.n_head * shape.head_dim);
    let mut y: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let half = shape.rot_dim / 2;
    for (h, head) in y.chunks_mut(shape.head_dim.max(1)).enumerate() {
        let position = f64::from(positions[h / shape.n_head]) * shape.freq_scale;
        for i in 0..half {
            let factor = shape.factors.map_or(1.0, |f| f64::from(f[i]));
            let angle = position * shape.base.powf(-2.0 * i as f64 / shape.rot_dim as f64) / factor;
            let (first, second) = match shape.pairing {
                Pairing::Adjacent => (2 * i, 2 * i + 1),
                Pairing::Halves => (i, i + half),
            };
            let (a, b) = (head[first], head[second]);
            head[first] = a * angle.cos() - b * angle.sin();
            head[second] = a * angle.sin() + b * angle.cos();
        }
    }
    y
}

/// Shape of an attention call: `n_q` new positions over `n_kv` cached ones, the new ones being the last.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Rows of Q: positions `n_kv − n_q .. n_kv`.
    pub n_q: usize,
    /// Rows of K and V.
    pub n_kv: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key/value heads; query head h reads head `h / (n_head / n_head_kv)` (grouped-query attention,
    /// Ainslie et al. 2023, arXiv:2305.13245).
    pub n_head_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the products of queries and keys, usually 1/√head_dim.
    pub scale: f64,
    /// A position sees itself and what lies before it only.
    pub causal: bool,
    /// A position sees only the last `window` positions up to itself (sliding window).
    pub window: Option<usize>,
    /// Added to the scaled products: `[n_head][n_q][n_kv]`.
    pub mask: Option<&'a [f32]>,
    /// Soft-cap, slopes and sinks.
    pub scores: ScoreOptions<'a>,
}

/// Scaled dot-product attention: softmax(scale · Q·Kᵀ) · V for each head (Vaswani et al. 2017,
/// arXiv:1706.03762), with the changes of [`ScoreOptions`]. Q and the result are `[n_q][n_head][head_dim]`; K and V `[n_kv][n_head_kv][head_dim]`.
/// Where nothing is seen, or all of it masked by −∞, the result is 0.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], shape: &Attention<'_>) -> Vec<f64> {
    let &Attention { n_q, n_kv, n_head, n_head_kv, head_dim, .. } = shape;
    assert_eq!(q.len(), n_q * n_head * head_dim);
    assert_eq!((k.len(), v.len()), (n_kv * n_head_kv * head_dim, n_kv * n_head_kv * head_dim));
    let mut out = vec![0.0; q.len()];
    for i in 0..n_q {
        // One past this position; 0 where it stands before the first key.
        let here = (n_kv + i + 1).saturating_sub(n_q);
        let position = (n_kv + i) as f64 - n_q as f64;
        let end = if shape.causal { here } else { n_kv };
        let begin = shape.window.map_or(0, |w| here.saturating_sub(w));
        for h in 0..n_head {
            let kv_head = h / (n_head / n_head_kv);
            let q = &q[(i * n_head + h) * head_dim..][..head_dim];
            let row = |x: usize| (x * n_head_kv + kv_head) * head_dim;
            let mask = |j| shape.mask.map_or(0.0, |mask| f64::from(mask[(h * n_q + i) * n_kv + j]));
            let of_head = |list: Option<&[f32]>, none: f64| list.map_or(none, |list| f64::from(list[h]));
            let (slope, cap) = (of_head(shape.scores.slopes, 0.0), f64::from(shape.scores.soft_cap));
            let capped = |score: f64| if cap > 0.0 { cap * (score / cap).tanh() } else { score };
            let bias = |j: usize| mask(j) - slope * (j as f64 - position).abs();
            let score = |j| capped(shape.scale * dot(q, &k[row(j)..][..head_dim])) + bias(j);
            let scores: Vec<f64> = (begin..end).map(score).collect();
            let max = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
            if max == f64::NEG_INFINITY && scores.iter().all(|&s| s == max) {
                continue;
            }
            let sink = of_head(shape.scores.sinks, f64::NEG_INFINITY);
            let max = max.max(sink);
            let sum = scores.iter().map(|s| (s - max).exp()).sum::<f64>() + (sink - max).exp();
            let out = &mut out[(i * n_head + h) * head_dim..][..head_dim];
            for (j, score) in (begin..end).zip(&scores) {
                let weight = (score - max).exp() / sum;
                for (out, &v) in out.iter_mut().zip(&v[row(j)..][..head_dim]) {
                    *out += weight * f64::from(v);
                }
            }
        }
    }
    out
}

/// Σ aᵢ·bᵢ.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from mpmath 1.3 at 50 digits, on both sides of the switch at 2.
    #[test]
    fn erf_and_erfc_match_tabled_values() {
        for (x, erf_x, erfc_x) in [
            (1e-10, 1.1283791670955126e-10, 0.999999999887162),
            (0.5, 0.5204998778130465, 0.4795001221869535),
            (1.0, 0.8427007929497149, 0.15729920705028513),
            (1.999, 0.9953015566513705, 0.00469844334862949),
            (2.0, 0.9953222650189527, 0.004677734981047266),
            (3.5, 0.9999992569016276, 7.430983723414128e-07),
            (9.0, 1.0, 4.13703174651381e-37),
        ] {
            assert!((erf(x) / erf_x - 1.0).abs() < 1e-14, "erf({x}) = {:e}", erf(x));
            assert!((erfc(x) / erfc_x - 1.0).abs() < 1e-12, "erfc({x}) = {:e}", erfc(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert_eq!((erf(f64::INFINITY), erfc(f64::INFINITY)), (1.0, 0.0));
        assert!(erf(f64::NAN).is_nan() && erfc(f64::NAN).is_nan());
    }

    #[test]
    fn matmul_of_small_integers() {
        let y = matmul(&[1., 2., 3., 4., 5., 6.], &[1., 0., -1., 2., 2., 2.], Some(&[10., 20.]), 2, 2, 3);
        assert_eq!(y, [8., 32., 8., 50.]);
    }

    #[test]
    fn rope_turns_by_the_angle_and_keeps_the_rest() {
        let shape = |pairing| Rope {
            n_head: 1,
            head_dim: 5,
            rot_dim: 4,
            base: 100.0,
            freq_scale: 0.5,
            factors: Some(&[1.0, 2.0]),
            pairing,
        };
        // Position 4 at half scale: angles 2 and 2 · 100^(−1/2) / 2 = 0.1.
        let turn = |a: f64, b: f64, t: f64| (a * t.cos() - b * t.sin(), a * t.sin() + b * t.cos());
        let y = rope(&[1., 2., 3., 4., 5.], &[4], &shape(Pairing::Adjacent));
        let ((a, b), (c, d)) = (turn(1., 2., 2.), turn(3., 4., 0.1));
        for (got, want) in y.iter().zip([a, b, c, d, 5.0]) {
            assert!((got - want).abs() < 1e-14);
        }
        let y = rope(&[1., 2., 3., 4., 5.], &[4], &shape(Pairing::Halves));
        let ((a, c), (b, d)) = (turn(1., 3., 2.), turn(2., 4., 0.1));
        for (got, want) in y.iter().zip([a, b, c, d, 5.0]) {
            assert!((got - want).abs() < 1e-14);
        }
    }

    #[test]
    fn attention_sees_its_past_and_its_group() {
        // Equal keys: the result is the mean of the visible values. Two query heads share one key head.
        let shape = |causal, window| Attention {
            n_q: 2,
            n_kv: 3,
            n_head: 2,
            n_head_kv: 1,
            head_dim: 1,
            scale: 1.0,
            causal,
            window,
            mask: None,
            scores: ScoreOptions::default(),
        };
        let (q, k, v) = ([1., 2., 3., 4.], [1., 1., 1.], [3., 6., 12.]);
        assert_eq!(attention(&q, &k, &v, &shape(true, None)), [4.5, 4.5, 7.0, 7.0]);
        assert_eq!(attention(&q, &k, &v, &shape(false, None)), [7.0, 7.0, 7.0, 7.0]);
        assert_eq!(attention(&q, &k, &v, &shape(true, Some(1))), [6.0, 6.0, 12.0, 12.0]);
    }
}
