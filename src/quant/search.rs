//! The search for scales in the encoders of K-quants and IQ4: the best of a few candidates, by weighted squared error.
//! ggml's encoders use other candidates and weights, so the bytes differ from theirs; the errors are similar.

/// Candidates on either side of the scale that maps the value of largest magnitude to the last level.
const STEPS: i32 = 9;

/// The scale `s` for which `s · nearest(x / s)` is closest to `x`. Squared errors are weighted with x².
///
/// The value of largest magnitude is mapped near level `reach`, the end of the levels that is further from zero.
pub fn fit_scale(x: &[f32], reach: f32, nearest: impl Fn(f32) -> f32) -> f32 {
    let peak = x.iter().fold(0.0f32, |peak, &x| if x.abs() > peak.abs() { x } else { peak });
    if peak.abs() < f32::MIN_POSITIVE {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    for step in -STEPS..=STEPS {
        let inverse = reach * (1.0 + step as f32 / (4 * STEPS) as f32) / peak;
        let (mut products, mut squares) = (0.0f32, 0.0f32);
        for &x in x {
            let (level, weight) = (nearest(x * inverse), x * x);
            products += weight * x * level;
            squares += weight * level * level;
        }
        // The best scale for these levels, products / squares, reduces the error by this much.
        let gain = products * products / squares;
        if gain > best.0 {
            best = (gain, products / squares);
        }
    }
    best.1
}

/// The scale `s` and the minimum `m` for which `s·level − m`, with levels from 0 to `top`, is closest to `x`. Squared
/// errors are weighted with the magnitude of x. Neither result is negative.
pub fn fit_range(x: &[f32], top: f32) -> (f32, f32) {
    let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), &x| (low.min(x), high.max(x)));
    if high - low < f32::MIN_POSITIVE {
        return (0.0, 0.0);
    }
    let rms = (x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32).sqrt();
    let weight = |x: f32| rms + x.abs();
    let mut best = (f32::INFINITY, (high - low) / top, -low);
    for step in -STEPS..=STEPS {
        let inverse = (top + step as f32 / STEPS as f32) / (high - low);
        let level = |x: f32| ((x - low) * inverse).round().clamp(0.0, top);
        let (scale, minimum) = regress(x, weight, level);
        let error: f32 = x.iter().map(|&x| weight(x) * (scale * level(x) - minimum - x).powi(2)).sum();
        if error < best.0 {
            best = (error, scale, minimum);
        }
    }
    (best.1, best.2)
}

/// The line `s·level − m` that is closest to `x`, with m ≥ 0.
fn regress(x: &[f32], weight: impl Fn(f32) -> f32, level: impl Fn(f32) -> f32) -> (f32, f32) {
    let (mut n, mut l, mut ll, mut v, mut lv) = (0.0f32, 0.0, 0.0, 0.0, 0.0);
    for &x in x {
        let (w, level) = (weight(x), level(x));
        n += w;
        l += w * level;
        ll += w * level * level;
        v += w * x;
        lv += w * level * x;
    }
    let determinant = n * ll - l * l;
    let minimum = (l * lv - ll * v) / determinant;
    if determinant > 0.0 && minimum >= 0.0 {
        ((n * lv - l * v) / determinant, minimum)
    } else if ll > 0.0 {
        ((lv / ll).max(0.0), 0.0)
    } else {
        (0.0, 0.0)
    }
}

/// `x` in units of `unit`, rounded and clamped to `lowest..=highest`; 0 if the unit is 0.
pub fn in_units(x: f32, unit: f32, lowest: f32, highest: f32) -> f32 {
    if unit == 0.0 { 0.0 } else { (x / unit).round().clamp(lowest, highest) }
}

/// The unit of signed scales from `-reach` on: the scale of largest magnitude becomes `-reach`.
pub fn signed_unit(scales: &[f32], reach: f32) -> f32 {
    scales.iter().fold(0.0f32, |peak, &scale| if scale.abs() > peak.abs() { scale } else { peak }) / -reach
}

/// The unit of scales from 0 to `top`.
pub fn unsigned_unit(scales: &[f32], top: f32) -> f32 {
    scales.iter().fold(0.0f32, |peak, &scale| peak.max(scale)) / top
}
