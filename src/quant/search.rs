//! The search for scales in the encoders: the best of a few candidates, by weighted squared error. ggml's encoders try
//! other candidates, so the bytes differ from theirs; the errors are as small or smaller.

/// Candidates on either side of the scale that maps the value of largest magnitude to the last level.
const STEPS: i32 = 9;

/// Sums that are kept apart, so that the loops over them become vector instructions. All runs of values are multiples.
const LANES: usize = 8;

/// Sums of `N` terms of all pairs of values and weights.
#[inline(always)]
fn sums<const N: usize>(x: &[f32], weights: &[f32], terms: impl Fn(f32, f32) -> [f32; N]) -> [f64; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    for (x, weights) in x.chunks_exact(LANES).zip(weights.chunks_exact(LANES)) {
        for lane in 0..LANES {
            let terms = terms(x[lane], weights[lane]);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
    }
    lanes.map(|lanes| lanes.into_iter().map(f64::from).sum())
}

/// The integer nearest to `x`, which is within ±2²²; a tie goes to the even one.
#[inline(always)]
pub fn rounded(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// The weights of errors at values whose importance is known: an error counts more where the value is large too.
/// `None` where no value of the block has any importance, or where they aren't finite.
pub fn important<const N: usize>(x: &[f32], importance: Option<&[f32]>) -> Option<[f32; N]> {
    let importance = importance?;
    let mean = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
    let weights: [f32; N] = std::array::from_fn(|i| importance[i] * (mean + x[i] * x[i]).sqrt());
    let sum: f32 = weights.iter().sum();
    (sum > f32::MIN_POSITIVE && sum.is_finite()).then_some(weights)
}

/// The scale `s` for which `s · nearest(x / s)` is closest to `x` by squared errors with these weights.
///
/// The value of largest magnitude is mapped near level `reach`, the end of the levels that is further from zero.
#[inline(always)]
pub fn fit_scale(x: &[f32], weights: &[f32], reach: f32, nearest: impl Fn(f32) -> f32) -> f32 {
    let peak = x.iter().fold(0.0f32, |peak, &x| if x.abs() > peak.abs() { x } else { peak });
    if peak.abs() < f32::MIN_POSITIVE {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    for step in -STEPS..=STEPS {
        let inverse = reach * (1.0 + step as f32 / (4 * STEPS) as f32) / peak;
        let [products, squares] = sums(x, weights, |x, weight| {
            let level = nearest(x * inverse);
            [weight * x * level, weight * level * level]
        });
        // The best scale for these levels, products / squares, reduces the error by this much.
        let gain = products * products / squares;
        if gain > best.0 {
            best = (gain, (products / squares) as f32);
        }
    }
    best.1
}

/// The level from 0 to `top` that is nearest to `x`.
#[inline(always)]
pub fn level_to(top: f32, x: f32) -> f32 {
    rounded(x.clamp(0.0, top))
}

/// The scale `s` and the minimum `m` for which `s·level − m`, with levels from 0 to `top`, is closest to `x` by squared
/// errors with these weights. Neither result is negative.
pub fn fit_range(x: &[f32], weights: &[f32], top: f32) -> (f32, f32) {
    let (low, high) = x.iter().fold((0.0f32, 0.0f32), |(low, high), &x| (low.min(x), high.max(x)));
    if high - low < f32::MIN_POSITIVE {
        return (0.0, 0.0);
    }
    let [n, v, vv] = sums(x, weights, |x, weight| [weight, weight * x, weight * x * x]);
    let mut best = (f64::INFINITY, f64::from((high - low) / top), f64::from(-low));
    for step in -STEPS..=STEPS {
        let inverse = (top + step as f32 / STEPS as f32) / (high - low);
        let [l, ll, lv] = sums(x, weights, |x, weight| {
            let level = level_to(top, (x - low) * inverse);
            [weight * level, weight * level * level, weight * level * x]
        });
        let (scale, minimum) = line(n, v, l, ll, lv);
        let error = scale * (scale * ll - 2.0 * (minimum * l + lv)) + minimum * (minimum * n + 2.0 * v) + vv;
        if error < best.0 {
            best = (error, scale, minimum);
        }
    }
    (best.1 as f32, best.2 as f32)
}

/// The line `s·level − m` with m ≥ 0 that is closest to values, from weighted sums of 1, the values (v), the levels (l)
/// and products of these.
fn line(n: f64, v: f64, l: f64, ll: f64, lv: f64) -> (f64, f64) {
    let determinant = n * ll - l * l;
    let minimum = (l * lv - ll * v) / determinant;
    if determinant > 0.0 && minimum >= 0.0 {
        (((n * lv - l * v) / determinant).max(0.0), minimum)
    } else if ll > 0.0 {
        ((lv / ll).max(0.0), 0.0)
    } else {
        (0.0, 0.0)
    }
}

/// The weighted squared error of the levels from `lowest` to `highest`, at this scale and minimum.
#[inline(always)]
pub fn error(x: &[f32], weights: &[f32], (scale, minimum): (f32, f32), (lowest, highest): (f32, f32)) -> f64 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let [error] = sums(x, weights, |x, weight| {
        let level = rounded(((x + minimum) * inverse).clamp(lowest, highest));
        let difference = scale * level - minimum - x;
        [weight * difference * difference]
    });
    error
}

/// `x` in units of `unit`, rounded and clamped to `lowest..=highest`; 0 if the unit is 0.
pub fn in_units(x: f32, unit: f32, lowest: f32, highest: f32) -> f32 {
    if unit == 0.0 { 0.0 } else { rounded((x / unit).clamp(lowest, highest)) }
}

/// The unit of signed scales from `-reach` on: the scale of largest magnitude becomes `-reach`.
pub fn signed_unit(scales: &[f32], reach: f32) -> f32 {
    scales.iter().fold(0.0f32, |peak, &scale| if scale.abs() > peak.abs() { scale } else { peak }) / -reach
}

/// The unit of scales from 0 to `top`.
pub fn unsigned_unit(scales: &[f32], top: f32) -> f32 {
    scales.iter().fold(0.0f32, |peak, &scale| peak.max(scale)) / top
}
