//! Row kernels on every level of this CPU against `reference`, within the bounds their documentation states.
//! Widths around vectors and partial sums, strides with canaries between rows, odd alignment, special values.

use super::*;
use crate::kernels::reference;
use crate::testing::noise;

pub(in crate::kernels) const CANARY: f32 = -7777.0;
/// Half the distance from 1 to the next f32: the largest relative error of one rounding.
pub(in crate::kernels) const U: f64 = 1.0 / (1 << 24) as f64;

fn sets() -> impl Iterator<Item = (IsaId, RowKernels)> {
    levels::here().map(|isa| (isa, RowKernels::select(isa)))
}

/// Floats in a vector of the widest level that the set may be; partial sums hold 4 of them.
pub(in crate::kernels) fn lanes(isa: IsaId) -> usize {
    match isa {
        IsaId::Avx512 | IsaId::Avx512Vnni | IsaId::Avx512Bf16 | IsaId::Amx => 16,
        IsaId::Avx2 | IsaId::AvxVnni => 8,
        IsaId::Scalar | IsaId::Neon | IsaId::NeonDotprod | IsaId::NeonBf16 => 4,
    }
}

/// Roundings on the way of a term into a sum of `n`.
pub(in crate::kernels) fn sum_steps(isa: IsaId, n: usize) -> f64 {
    (n / (4 * lanes(isa))) as f64 + 8.0
}

pub(in crate::kernels) fn widths() -> impl Iterator<Item = usize> {
    (1..=17).chain([31, 32, 33, 47, 63, 64, 65, 127, 129, 768, 1001])
}

pub(in crate::kernels) fn random(seed: u32, n: usize, spread: f32) -> Vec<f32> {
    let mut state = u64::from(seed);
    (0..n).map(|_| (noise(&mut state) + noise(&mut state)) / 2.0 * spread).collect()
}

/// Rows of `cols` at a stride, starting one float in, with canaries everywhere else.
pub(in crate::kernels) struct Strided {
    buffer: Vec<f32>,
    rows: usize,
    cols: usize,
    pub stride: usize,
}

impl Strided {
    pub fn new(x: &[f32], cols: usize, gap: usize) -> Self {
        let (rows, stride) = (x.len() / cols, cols + gap);
        let mut buffer = vec![CANARY; 1 + rows * stride + 20];
        for (r, row) in x.chunks(cols).enumerate() {
            buffer[1 + r * stride..][..cols].copy_from_slice(row);
        }
        Self { buffer, rows, cols, stride }
    }

    pub fn first(&mut self) -> *mut f32 {
        self.buffer[1..].as_mut_ptr()
    }

    /// The rows without the floats between them, which must be canaries.
    pub fn take(&self) -> Vec<f32> {
        let mut inside = vec![false; self.buffer.len()];
        let mut out = Vec::new();
        for r in 0..self.rows {
            let at = 1 + r * self.stride;
            inside[at..at + self.cols].fill(true);
            out.extend(&self.buffer[at..at + self.cols]);
        }
        let untouched = |(&x, inside): (&f32, bool)| inside || x == CANARY;
        assert!(self.buffer.iter().zip(inside).all(untouched), "wrote outside the rows");
        out
    }
}

pub(in crate::kernels) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(in crate::kernels) fn assert_close(what: &str, got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= bound(i), "{what}, element {i}: {got} for {want}, {error:e} > {:e}", bound(i));
    }
}

#[test]
fn canaries_would_notice() {
    let mut rows = Strided::new(&[1.0; 6], 3, 2);
    assert_eq!(rows.take(), [1.0; 6]);
    rows.buffer[4] = 0.0;
    assert!(std::panic::catch_unwind(|| rows.take()).is_err());
}

/// The distance between f32s at `x`.
fn ulp(x: f64) -> f64 {
    2f64.powi(x.abs().log2().floor().max(-126.0) as i32 - 23)
}

/// The error that softmax's documentation allows for each element, for exponents `z` before the largest is taken off.
/// `rounded` are the magnitudes that were rounded on the way, before the last difference.
fn softmax_bound(isa: IsaId, want: &[f64], z: &[f64], rounded: &[f64]) -> Vec<f64> {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let largest = rounded.iter().copied().fold(0.0, f64::max);
    let cols = z.len();
    let each = want.iter().zip(z).zip(rounded).map(|((&want, &z), &rounded)| {
        let d = max - z;
        let moved = 2.0 * U * (rounded + largest) * want;
        (4.0 + d) * ulp(want) + sum_steps(isa, cols) * U * want + moved + 2f64.powi(-126)
    });
    each.collect()
}

#[test]
fn softmax_within_its_bound() {
    for (isa, set) in sets() {
        for cols in widths() {
            for (scale, spread) in [(1.0, 4.0), (0.125, 800.0), (-0.5, 10.0), (0.0, 1.0), (1.0, 90.0)] {
                for causal in [None, Some(0), Some(1), Some(cols - 1)] {
                    let x = random(cols as u32, 5 * cols, spread);
                    let want = reference::softmax(&x, cols, f64::from(scale), causal, None);
                    let (mut src, mut dst) = (Strided::new(&x, cols, 3), Strided::new(&x, cols, 5));
                    let (src_stride, dst_stride, rows) = (src.stride, dst.stride, 5);
                    let (src, dst_first) = (src.first(), dst.first());
                    let args = SoftmaxArgs {
                        src,
                        src_stride,
                        dst: dst_first,
                        dst_stride,
                        rows,
                        cols,
                        scale,
                        causal,
                        mask: std::ptr::null(),
                        mask_stride: 0,
                    };
                    // SAFETY: both buffers hold 5 rows at their strides.
                    unsafe { set.softmax.run(&args) };
                    let got = dst.take();
                    for r in 0..rows {
                        let seen = causal.map_or(cols, |v| cols.min(v + r));
                        let row = r * cols..r * cols + seen;
                        let z: Vec<f64> =
                            x[row.clone()].iter().map(|&x| f64::from(x) * f64::from(scale)).collect();
                        // A product that is not fused is rounded; the largest's rounding is the same for all.
                        let unfused = f64::from(u8::from(isa == IsaId::Scalar));
                        let rounded: Vec<f64> = z.iter().map(|z| z.abs() * unfused).collect();
                        let bound = softmax_bound(isa, &want[row.clone()], &z, &rounded);
                        assert_close("softmax", &got[row.clone()], &want[row], |i| bound[i]);
                        assert!(got[r * cols + seen..(r + 1) * cols].iter().all(|&y| y == 0.0));
                    }
                    let weighing = Weighing { scale, causal, mask: None };
                    let mut in_place = x.clone();
                    set.softmax.apply_in_place(&mut in_place, cols, weighing).unwrap();
                    assert_eq!(bits(&in_place), bits(&got));
                    // A row by itself, and rows in other groups, come out the same.
                    if causal.is_none() {
                        let mut alone = vec![0.0; cols];
                        set.softmax.apply(&x[3 * cols..4 * cols], &mut alone, cols, weighing).unwrap();
                        assert_eq!(bits(&alone), bits(&got[3 * cols..4 * cols]));
                    }
                }
            }
        }
    }
}

#[test]
fn masked_softmax_within_its_bound() {
    for (isa, set) in sets() {
        for cols in widths() {
            let (x, mut mask) = (random(cols as u32, 3 * cols, 9.0), random(77, 3 * cols, 5.0));
            for at in (0..mask.len()).step_by(5) {
                mask[at] = f32::NEG_INFINITY;
            }
            mask[cols / 2] = 1.0; // at least one is seen
            for shared in [false, true] {
                let mask = if shared { &mask[..cols] } else { &mask[..] };
                let want = reference::softmax(&x, cols, 0.5, None, Some(mask));
                let mut got = vec![0.0; x.len()];
                let weighing = Weighing { scale: 0.5, causal: None, mask: Some(mask) };
                set.softmax.apply(&x, &mut got, cols, weighing).unwrap();
                for r in 0..3 {
                    let row = r * cols..(r + 1) * cols;
                    let mask = if shared { mask } else { &mask[row.clone()] };
                    let parts =
                        x[row.clone()].iter().zip(mask).map(|(&x, &m)| (0.5 * f64::from(x), f64::from(m)));
                    let z: Vec<f64> = parts.clone().map(|(x, m)| x + m).collect();
                    let rounded: Vec<f64> = parts
                        .map(|(x, m)| if m.is_finite() { x.abs() + (x + m).abs() } else { 0.0 })
                        .collect();
                    if z.iter().all(|z| z.is_infinite()) {
                        assert!(got[row].iter().all(|y| y.is_nan()));
                        continue;
                    }
                    let bound = softmax_bound(isa, &want[row.clone()], &z, &rounded);
                    for (j, (&got, &want)) in got[row.clone()].iter().zip(&want[row]).enumerate() {
                        let hidden = z[j].is_infinite();
                        assert!(!hidden || got == 0.0);
                        assert!(hidden || (f64::from(got) - want).abs() <= bound[j], "{got} for {want}");
                    }
                }
            }
        }
        let mut y = [0.0; 6];
        let short = Weighing { mask: Some(&[0.0; 4]), ..Weighing::default() };
        assert!(set.softmax.apply(&[0.0; 6], &mut y, 3, short).is_err());
    }
}

#[test]
fn softmax_does_not_read_what_is_not_visible() {
    for (_, set) in sets() {
        let mut x = vec![f32::NAN; 40];
        x[..3].copy_from_slice(&[1.0, 1.0, 1.0]);
        x[20..24].copy_from_slice(&[0.0; 4]);
        set.softmax.apply_in_place(&mut x, 20, Weighing { causal: Some(3), ..Weighing::default() }).unwrap();
        let third = 1.0f32 / 3.0;
        let mut want = vec![0.0; 40];
        want[..3].fill(third);
        want[20..24].fill(0.25);
        assert_eq!(x, want);
    }
}

#[test]
fn softmax_of_special_values() {
    let inf = f32::INFINITY;
    for (_, set) in sets() {
        for cols in [3, 16, 70] {
            let with = |fill: f32, at: usize, x: f32| {
                let mut row = vec![fill; cols];
                row[at] = x;
                let mut out = vec![0.0; cols];
                set.softmax.apply(&row, &mut out, cols, Weighing::default()).unwrap();
                out
            };
            assert!(with(-inf, 0, -inf).iter().all(|y| y.is_nan()));
            for at in [0, cols - 1] {
                assert!(with(0.0, at, f32::NAN).iter().all(|y| y.is_nan()));
                assert!(with(0.0, at, inf).iter().all(|y| y.is_nan()));
                let masked = with(2.0, at, -inf);
                assert_eq!(masked[at], 0.0);
                assert!(masked.iter().enumerate().all(|(i, &y)| i == at || y == 1.0 / (cols - 1) as f32));
                let one_hot = with(-inf, at, 5.0);
                assert!(one_hot.iter().enumerate().all(|(i, &y)| y == if i == at { 1.0 } else { 0.0 }));
                let denormal = with(0.0, at, 1e-40);
                assert!(denormal.iter().all(|&y| y == 1.0 / cols as f32));
            }
        }
    }
}

#[test]
fn log_softmax_within_its_bound() {
    for (isa, set) in sets() {
        for cols in widths() {
            for spread in [1.0, 300.0] {
                let x = random(cols as u32 + 7, 2 * cols, spread);
                let want = reference::log_softmax(&x, cols);
                let mut got = vec![0.0; x.len()];
                set.log_softmax.apply(&x, &mut got, cols).unwrap();
                assert_close("log_softmax", &got, &want, |i| {
                    let row = &x[i / cols * cols..][..cols];
                    let below = f64::from(row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x)) - x[i]);
                    (sum_steps(isa, cols) + 8.0 + 2.0 * below + 6.0 * (cols as f64).ln()) * U
                });
            }
        }
        let mut got = [0.0; 3];
        set.log_softmax.apply(&[0.0, f32::NEG_INFINITY, 0.0], &mut got, 3).unwrap();
        assert_eq!(got[1], f32::NEG_INFINITY);
        set.log_softmax.apply(&[0.0, f32::NAN, 0.0], &mut got, 3).unwrap();
        assert!(got.iter().all(|y| y.is_nan()));
    }
}

/// The error that a norm's documentation allows for each element of a row.
fn norm_bound(
    isa: IsaId,
    layer: bool,
    x: &[f32],
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    eps: f32,
) -> Vec<f64> {
    let n = x.len() as f64;
    let steps = sum_steps(isa, x.len()) + 2.0;
    let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let mean = if layer { wide.iter().sum::<f64>() / n } else { 0.0 };
    let variance = wide.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let rstd = 1.0 / (variance + f64::from(eps)).sqrt();
    let shift = if layer { steps * U * wide.iter().map(|x| x.abs()).sum::<f64>() / n } else { 0.0 };
    // A shifted mean adds its square to the variance.
    let factor = (0.5 * steps + 6.0) * U + 0.5 * (shift * rstd).powi(2);
    (0..x.len())
        .map(|j| {
            let gamma = gamma.map_or(1.0, |g| f64::from(g[j]).abs());
            let beta = beta.map_or(0.0, |b| f64::from(b[j]).abs());
            let y = (wide[j] - mean).abs() * rstd * gamma;
            // Behind the factor: a difference, two products, a sum.
            rstd * gamma * shift + y * (factor + 3.0 * U) + (y + beta) * U
        })
        .collect()
}

#[test]
fn norms_within_their_bounds() {
    for (isa, set) in sets() {
        for cols in widths() {
            let gamma = random(1, cols, 3.0);
            let beta = random(2, cols, 1.0);
            // The second is far from 0 for its spread; the third has no variance.
            for (offset, spread, eps) in [(0.0, 2.0, 1e-5), (1000.0, 1.0, 1e-6), (3.0, 0.0, 1e-5)] {
                let x: Vec<f32> = random(cols as u32, 3 * cols, spread).iter().map(|x| x + offset).collect();
                for (g, b) in [(true, true), (true, false), (false, true), (false, false)] {
                    let (gamma, beta) = (g.then_some(&gamma[..]), b.then_some(&beta[..]));
                    let affine = Affine { gamma, beta, eps };
                    let wide_eps = f64::from(eps);
                    let want = reference::layer_norm(&x, None, gamma, beta, wide_eps, cols);
                    let mut got = vec![0.0; x.len()];
                    set.layer_norm.apply(&x, &mut got, cols, affine).unwrap();
                    for (r, x) in x.chunks(cols).enumerate() {
                        let (bound, row) =
                            (norm_bound(isa, true, x, gamma, beta, eps), r * cols..(r + 1) * cols);
                        assert_close("layer_norm", &got[row.clone()], &want[row], |j| bound[j]);
                    }
                    let mut in_place = x.clone();
                    set.layer_norm.apply_in_place(&mut in_place, cols, affine).unwrap();
                    assert_eq!(bits(&in_place), bits(&got));
                    if b {
                        continue; // the reference has no RMSNorm with a summand, as no model has
                    }
                    let want = reference::rms_norm(&x, None, gamma, wide_eps, cols);
                    set.rms_norm.apply(&x, &mut got, cols, affine).unwrap();
                    for (r, x) in x.chunks(cols).enumerate() {
                        let (bound, row) =
                            (norm_bound(isa, false, x, gamma, None, eps), r * cols..(r + 1) * cols);
                        assert_close("rms_norm", &got[row.clone()], &want[row], |j| bound[j]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_fused_residual_is_the_sum_and_then_the_norm() {
    for (_, set) in sets() {
        for cols in widths() {
            let (x, add) = (random(3, 2 * cols, 2.0), random(4, 2 * cols, 2.0));
            let gamma = random(5, cols, 3.0);
            let affine = Affine { gamma: Some(&gamma), beta: None, eps: 1e-5 };
            let sum: Vec<f32> = x.iter().zip(&add).map(|(x, add)| x + add).collect();
            for norm in [&set.layer_norm, &set.rms_norm] {
                let mut want = vec![0.0; sum.len()];
                norm.apply(&sum, &mut want, cols, affine).unwrap();
                let mut fused_sum = x.clone();
                let mut got = vec![0.0; x.len()];
                norm.add_and_apply(&mut fused_sum, &add, &mut got, cols, affine).unwrap();
                assert_eq!((bits(&fused_sum), bits(&got)), (bits(&sum), bits(&want)));

                let (mut x, mut add) = (Strided::new(&x, cols, 1), Strided::new(&add, cols, 2));
                let mut dst = Strided::new(&want, cols, 3);
                let (mut mean, mut rstd) = ([CANARY; 2], [CANARY; 2]);
                let args = NormArgs {
                    x_stride: x.stride,
                    x: x.first(),
                    add_stride: add.stride,
                    add: add.first(),
                    dst_stride: dst.stride,
                    dst: dst.first(),
                    gamma: gamma.as_ptr(),
                    beta: std::ptr::null(),
                    eps: 1e-5,
                    rows: 2,
                    cols,
                    mean: mean.as_mut_ptr(),
                    rstd: rstd.as_mut_ptr(),
                };
                // SAFETY: the buffers hold 2 rows at their strides, gamma `cols` floats, mean and rstd 2.
                unsafe { norm.run(&args) };
                // The means and factors that are kept are those that the results were made with.
                for r in 0..2 {
                    let y = (sum[r * cols] - mean[r]) * rstd[r] * gamma[0];
                    assert_eq!(y.to_bits(), want[r * cols].to_bits());
                }
                assert_eq!((bits(&x.take()), bits(&dst.take())), (bits(&sum), bits(&want)));
            }
        }
    }
}

#[test]
fn norms_of_special_values() {
    for (_, set) in sets() {
        for norm in [&set.layer_norm, &set.rms_norm] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1.0; 40];
                x[3] = bad;
                let affine = Affine { eps: 1e-5, ..Affine::default() };
                norm.apply_in_place(&mut x, 20, affine).unwrap();
                assert!(x[3].is_nan(), "{:?} of {bad}", norm.info);
                assert!(x[20..].iter().all(|y| y.is_finite()), "one row spoils another");
            }
            let mut zeros = [0.0; 20];
            norm.apply_in_place(&mut zeros, 20, Affine { eps: 1e-5, ..Affine::default() }).unwrap();
            assert_eq!(zeros, [0.0; 20]);
            norm.apply_in_place(&mut zeros, 20, Affine::default()).unwrap();
            assert!(zeros.iter().all(|y| y.is_nan()));
        }
    }
}

#[test]
fn one_row_added_to_all() {
    for (_, set) in sets() {
        for cols in widths() {
            let (x, row) = (random(8, 3 * cols, 2.0), random(9, cols, 2.0));
            let want: Vec<f32> = x.iter().zip(row.iter().cycle()).map(|(x, row)| x + row).collect();
            let mut in_place = x.clone();
            set.add_row.apply_in_place(&mut in_place, &row).unwrap();
            assert_eq!(in_place, want);
            let (mut src, mut dst) = (Strided::new(&x, cols, 2), Strided::new(&x, cols, 1));
            let (src_stride, dst_stride) = (src.stride, dst.stride);
            let (src, to, row) = (src.first().cast_const(), dst.first(), row.as_ptr());
            let args = AddRowArgs { src, src_stride, row, dst: to, dst_stride, rows: 3, cols };
            // SAFETY: the buffers hold 3 rows at their strides, `row` one.
            unsafe { set.add_row.run(&args) };
            assert_eq!(dst.take(), want);
        }
        assert!(set.add_row.apply_in_place(&mut [0.0; 5], &[0.0; 3]).is_err());
    }
}

#[test]
fn reductions() {
    for (isa, set) in sets() {
        for n in (0..=140).chain([1000, 4097]) {
            let (a, b) = (random(n as u32, n, 3.0), random(n as u32 + 1, n, 3.0));
            let steps = sum_steps(isa, n);
            let want: f64 = a.iter().map(|&x| f64::from(x)).sum();
            let magnitude: f64 = a.iter().map(|&x| f64::from(x).abs()).sum();
            assert_close("sum", &[set.sum.apply(&a)], &[want], |_| steps * U * magnitude);
            let magnitude: f64 = a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) * f64::from(b)).abs()).sum();
            let want = reference::dot(&a, &b);
            assert_close("dot", &[set.dot.apply(&a, &b)], &[want], |_| (steps + 1.0) * U * magnitude);
            // Small integers: nothing may be lost, wherever it stands.
            let whole: Vec<f32> = (0..n).map(|i| (i * 7 % 23) as f32 - 11.0).collect();
            assert_eq!(f64::from(set.sum.apply(&whole)), whole.iter().map(|&x| f64::from(x)).sum::<f64>());
            assert_eq!(f64::from(set.dot.apply(&whole, &whole)), reference::dot(&whole, &whole));
            let largest = a.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            assert_eq!(set.max.apply(&a), largest);
            let first = a.iter().position(|&x| x == largest).unwrap_or(0);
            assert_eq!(set.argmax.apply(&a), first);
        }
    }
}

#[test]
fn reductions_of_special_values() {
    for (_, set) in sets() {
        for n in [1, 5, 16, 100] {
            for at in [0, n / 2, n - 1] {
                let mut x = vec![-2.0; n];
                x[at] = f32::NAN;
                assert!(set.max.apply(&x).is_nan() && set.sum.apply(&x).is_nan());
                let first_number = if n == 1 { 0 } else { usize::from(at == 0) };
                assert_eq!(set.argmax.apply(&x), first_number);
                x[at] = -1.0;
                assert_eq!((set.max.apply(&x), set.argmax.apply(&x)), (-1.0, at));
                x[at] = f32::INFINITY;
                assert_eq!((set.max.apply(&x), set.argmax.apply(&x)), (f32::INFINITY, at));
            }
            assert_eq!(set.argmax.apply(&vec![f32::NEG_INFINITY; n]), 0);
            assert_eq!(set.argmax.apply(&vec![f32::NAN; n]), 0);
            assert_eq!(set.argmax.apply(&vec![4.0; n]), 0, "the first of equals");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (_, set) = sets().next().unwrap();
    let (x, mut y) = ([0.0; 6], [0.0; 6]);
    let ok = Affine { eps: 1e-5, ..Affine::default() };
    assert!(set.softmax.apply(&x, &mut y, 4, Weighing::default()).is_err());
    assert!(set.softmax.apply(&x[..3], &mut y, 3, Weighing::default()).is_err());
    assert!(set.softmax.apply_in_place(&mut y, 0, Weighing::default()).is_err());
    assert!(set.log_softmax.apply(&x, &mut y, 5).is_err());
    assert!(set.layer_norm.apply(&x, &mut y, 4, ok).is_err());
    let mut sum = [0.0; 6];
    assert!(set.layer_norm.add_and_apply(&mut sum, &x[..3], &mut y, 3, ok).is_err());
    assert!(set.rms_norm.apply(&x, &mut y, 3, Affine { gamma: Some(&x[..2]), ..ok }).is_err());
    assert!(set.rms_norm.apply(&x, &mut y, 3, Affine { beta: Some(&x), ..ok }).is_err());
    assert!(set.softmax.apply(&[], &mut [], 0, Weighing::default()).is_ok());
    assert!(set.layer_norm.apply(&[], &mut [], 8, ok).is_ok());
}
