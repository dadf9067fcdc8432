//! What flows back through norms, and sums over rows.

use super::*;
use crate::kernels::reference::backward as reference;
use crate::kernels::rows::tests::{Strided, assert_close, lanes};
use std::ptr::{null, null_mut};

/// Rows before a norm and the gradient behind it.
struct Case {
    rows: usize,
    cols: usize,
    layer: bool,
    x: Vec<f32>,
    dy: Vec<f32>,
    gamma: Vec<f32>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Case {
    fn new(rows: usize, cols: usize, layer: bool) -> Self {
        let seed = (rows * 5000 + cols) as u32;
        // Off centre, so that means count.
        let x: Vec<f32> = random(seed, rows * cols, 2.0).iter().map(|x| x + 0.7).collect();
        let moments = |row: &[f32]| reference::moments(&wide(row), 1e-5, layer);
        let (mean, rstd): (Vec<_>, Vec<_>) = x.chunks(cols).map(moments).unzip();
        let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
        Self {
            rows,
            cols,
            layer,
            x,
            dy: random(seed + 1, rows * cols, 3.0),
            gamma: random(seed + 2, cols, 1.5),
            mean: narrow(mean),
            rstd: narrow(rstd),
        }
    }

    fn norm(&self) -> NormRows<'_> {
        let mean = if self.layer { &self.mean[..] } else { &[] };
        NormRows { x: &self.x, dy: &self.dy, cols: self.cols, mean, rstd: &self.rstd }
    }

    fn row(&self, r: usize) -> (Vec<f64>, Vec<f64>, (f64, f64)) {
        let at = r * self.cols..(r + 1) * self.cols;
        let mean = if self.layer { f64::from(self.mean[r]) } else { 0.0 };
        (wide(&self.x[at.clone()]), wide(&self.dy[at]), (mean, f64::from(self.rstd[r])))
    }

    /// The gradient of the input, with factors or without, and the error that is allowed for each element.
    fn expected(&self, isa: IsaId, gamma: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let steps = self.cols as f64 / (4 * lanes(isa)) as f64 + 16.0;
        let (mut want, mut bounds) = (Vec::new(), Vec::new());
        for r in 0..self.rows {
            let (x, dy, (mean, rstd)) = self.row(r);
            want.extend(reference::norm_gradient(&x, &dy, gamma, (mean, rstd), self.layer));
            let a: Vec<f64> = dy.iter().zip(gamma).map(|(dy, gamma)| (dy * gamma).abs()).collect();
            let normed: Vec<f64> = x.iter().map(|x| ((x - mean) * rstd).abs()).collect();
            let n = self.cols as f64;
            let level = if self.layer { a.iter().sum::<f64>() / n } else { 0.0 };
            let along = a.iter().zip(&normed).map(|(a, x)| a * x).sum::<f64>() / n;
            let each = a.iter().zip(&normed);
            bounds.extend(each.map(|(a, x)| rstd * (6.0 * U * a + steps * U * (level + x * along))));
        }
        (want, bounds)
    }

    fn args(&self, x: &mut Strided, dy: &mut Strided, dx: *mut f32, dx_stride: usize) -> NormBackwardArgs {
        NormBackwardArgs {
            x: x.first(),
            x_stride: x.stride,
            dy: dy.first(),
            dy_stride: dy.stride,
            dx,
            dx_stride,
            gamma: self.gamma.as_ptr(),
            mean: if self.layer { self.mean.as_ptr() } else { null() },
            rstd: self.rstd.as_ptr(),
            rows: self.rows,
            cols: self.cols,
            accumulate: false,
        }
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let sizes = [(5, 1), (4, 2), (3, 8), (6, 17), (1, 64), (9, 100), (5, 256), (2, 1003), (3, 1500)];
    sizes.into_iter().flat_map(|(rows, cols)| [Case::new(rows, cols, false), Case::new(rows, cols, true)])
}

fn backward(set: &BackwardKernels, layer: bool) -> NormBackward {
    if layer { set.layer_norm } else { set.rms_norm }
}

fn gain(set: &BackwardKernels, layer: bool) -> NormGradient {
    if layer { set.layer_norm_gain } else { set.rms_norm_gain }
}

#[test]
fn the_input_s_gradient_stays_within_its_bound() {
    for case in cases() {
        for (isa, set) in sets() {
            let kernel = backward(&set, case.layer);
            for gamma in [None, Some(&case.gamma[..])] {
                let factors = gamma.map_or(vec![1.0; case.cols], wide);
                let (want, bounds) = case.expected(isa, &factors);
                let mut dx = vec![f32::NAN; case.x.len()];
                kernel.apply(&case.norm(), gamma, &mut dx, false).unwrap();
                assert_close(&format!("{isa:?} {} columns", case.cols), &dx, &want, |i| bounds[i] + 1e-38);
                // Added to what is there.
                let mut sum = random(9, dx.len(), 1.0);
                let want: Vec<f64> = want.iter().zip(wide(&sum)).map(|(want, old)| want + old).collect();
                kernel.apply(&case.norm(), gamma, &mut sum, true).unwrap();
                assert_close("added", &sum, &want, |i| bounds[i] + U * want[i].abs() + 1e-38);
            }
        }
    }
}

/// Strides, each row by itself, and the output in the place of an input: the same bits, and nothing else is written.
#[test]
fn places_in_memory_and_other_rows_change_no_bit() {
    for case in cases() {
        for (isa, set) in sets() {
            let kernel = backward(&set, case.layer);
            let mut whole = vec![f32::NAN; case.x.len()];
            kernel.apply(&case.norm(), Some(&case.gamma), &mut whole, false).unwrap();
            let [x, dy] = [&case.x, &case.dy].map(|rows| move |gap| Strided::new(rows, case.cols, gap));
            let (mut x0, mut dy0, mut dx0) = (x(3), dy(5), x(1));
            let args = case.args(&mut x0, &mut dy0, null_mut(), 0);
            let apart = NormBackwardArgs { dx: dx0.first(), dx_stride: dx0.stride, ..args };
            // SAFETY: all buffers hold the rows at their strides.
            let run = |args| unsafe { kernel.run(&args) };
            run(apart);
            assert_eq!(bits(&dx0.take()), bits(&whole), "{isa:?}");
            run(NormBackwardArgs { dx: args.dy.cast_mut(), dx_stride: args.dy_stride, ..args });
            assert_eq!(bits(&dy0.take()), bits(&whole), "{isa:?}, in the place of dy");
            let (mut x0, mut dy0) = (x(3), dy(5));
            let args = case.args(&mut x0, &mut dy0, null_mut(), 0);
            run(NormBackwardArgs { dx: args.x.cast_mut(), dx_stride: args.x_stride, ..args });
            assert_eq!(bits(&x0.take()), bits(&whole), "{isa:?}, in the place of x");
            let last = case.rows - 1;
            let (norm, at) = (case.norm(), last * case.cols..case.x.len());
            let mean = if case.layer { &norm.mean[last..] } else { &[] };
            let row = NormRows {
                x: &norm.x[at.clone()],
                dy: &norm.dy[at.clone()],
                mean,
                rstd: &norm.rstd[last..],
                ..norm
            };
            let mut alone = vec![0.0; case.cols];
            kernel.apply(&row, Some(&case.gamma), &mut alone, false).unwrap();
            assert_eq!(bits(&alone), bits(&whole[at]), "{isa:?}");
        }
    }
}

#[test]
fn sums_over_rows_stay_within_their_bounds() {
    for rows in [0, 1, 2, 63, 64, 65, 200] {
        for cols in [1, 3, 8, 16, 17, 63, 64, 65, 131] {
            for layer in [false, true] {
                let case = Case::new(rows, cols, layer);
                for (isa, set) in sets() {
                    check_sums(isa, &set, &case);
                }
            }
        }
    }
}

fn check_sums(isa: IsaId, set: &BackwardKernels, case: &Case) {
    let cols = case.cols;
    let start = random(77, cols, 5.0);
    let [mut dgamma, mut dbeta, mut sums] = [start.clone(), start.clone(), start.clone()];
    gain(set, case.layer).apply(&case.norm(), &mut dgamma, case.layer.then_some(&mut dbeta)).unwrap();
    set.column_sums.apply(&case.dy, &mut sums).unwrap();
    let [mut gain, mut bias] = [wide(&start), wide(&start)];
    let [mut gain_size, mut bias_size] =
        [&gain, &bias].map(|x| x.iter().map(|x| x.abs()).collect::<Vec<_>>());
    for r in 0..case.rows {
        let (x, dy, (mean, rstd)) = case.row(r);
        for j in 0..cols {
            let term = dy[j] * (x[j] - mean) * rstd;
            (gain[j], bias[j]) = (gain[j] + term, bias[j] + dy[j]);
            (gain_size[j], bias_size[j]) = (gain_size[j] + term.abs(), bias_size[j] + dy[j].abs());
        }
    }
    let steps = 64.0 + case.rows as f64 / 64.0;
    assert_close(&format!("{isa:?} gain"), &dgamma, &gain, |j| (steps + 4.0) * U * gain_size[j]);
    assert_close(&format!("{isa:?} sums"), &sums, &bias, |j| (steps + 1.0) * U * bias_size[j]);
    assert_eq!(bits(&dbeta), bits(if case.layer { &sums } else { &start }), "{isa:?} bias");
}

/// Any division of the columns gives the same bits, and nothing else is written.
#[test]
fn columns_apart_give_the_same_bits() {
    for layer in [false, true] {
        let case = Case::new(150, 133, layer);
        for (isa, set) in sets() {
            let [mut dgamma, mut dbeta, mut sums] = [vec![0.5; 133], vec![0.25; 133], vec![0.75; 133]];
            gain(&set, layer).apply(&case.norm(), &mut dgamma, layer.then_some(&mut dbeta)).unwrap();
            set.column_sums.apply(&case.dy, &mut sums).unwrap();
            let [mut dgamma2, mut dbeta2, mut sums2] = [vec![0.5; 133], vec![0.25; 133], vec![0.75; 133]];
            let cuts = [0, 1, 7, 40, 104, 133];
            for at in cuts.windows(2) {
                let (j, cols) = (at[0], at[1] - at[0]);
                let args = NormGradientArgs {
                    x: case.x[j..].as_ptr(),
                    x_stride: 133,
                    dy: case.dy[j..].as_ptr(),
                    dy_stride: 133,
                    mean: case.mean.as_ptr(),
                    rstd: case.rstd.as_ptr(),
                    rows: 150,
                    cols,
                    dgamma: dgamma2[j..].as_mut_ptr(),
                    dbeta: if layer { dbeta2[j..].as_mut_ptr() } else { null_mut() },
                };
                // SAFETY: 150 rows at this stride hold the columns, and so do the outputs.
                unsafe { gain(&set, layer).run(&args) };
                let NormGradientArgs { dy, dy_stride, rows, .. } = args;
                let args = ColumnSumsArgs { dy, dy_stride, rows, cols, out: sums2[j..].as_mut_ptr() };
                // SAFETY: as above.
                unsafe { set.column_sums.run(&args) };
            }
            for (one, other) in [(dgamma, dgamma2), (dbeta, dbeta2), (sums, sums2)] {
                assert_eq!(bits(&one), bits(&other), "{isa:?}");
            }
        }
    }
}

/// The formulas are the slopes of the norms: central differences in f64.
#[test]
fn the_gradients_are_the_slopes_of_the_norms() {
    let (x, dy, gamma) = (wide(&random(1, 19, 2.0)), wide(&random(2, 19, 1.0)), wide(&random(3, 19, 1.0)));
    for layer in [false, true] {
        let loss = |x: &[f64], gamma: &[f64]| -> f64 {
            let (mean, rstd) = reference::moments(x, 1e-3, layer);
            (0..19).map(|j| (x[j] - mean) * rstd * gamma[j] * dy[j]).sum()
        };
        let moments = reference::moments(&x, 1e-3, layer);
        let gradient = reference::norm_gradient(&x, &dy, &gamma, moments, layer);
        for i in 0..19 {
            let along = slope(&x, i, |x| loss(x, &gamma));
            assert!((along - gradient[i]).abs() < 1e-8, "{along} for {}", gradient[i]);
            let along = slope(&gamma, i, |gamma| loss(&x, gamma));
            assert!((along - dy[i] * (x[i] - moments.0) * moments.1).abs() < 1e-8);
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_its_row_and_column() {
    for layer in [false, true] {
        for (isa, set) in sets() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for in_x in [false, true] {
                    let mut case = Case::new(3, 50, layer);
                    if in_x {
                        case.x[50 + 20] = bad
                    } else {
                        case.dy[50 + 20] = bad
                    }
                    let mut dx = vec![0.0; 150];
                    backward(&set, layer).apply(&case.norm(), Some(&case.gamma), &mut dx, false).unwrap();
                    let lost =
                        |row: &[f32]| row.iter().all(|x| !x.is_finite() && (x.is_nan() || !bad.is_nan()));
                    assert!(lost(&dx[50..100]) && dx[..50].iter().chain(&dx[100..]).all(|x| x.is_finite()));
                    let mut dgamma = vec![0.0; 50];
                    gain(&set, layer).apply(&case.norm(), &mut dgamma, None).unwrap();
                    assert!(dgamma.iter().enumerate().all(|(j, x)| x.is_finite() == (j != 20)), "{isa:?}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let set = BackwardKernels::select(IsaId::detect());
    let case = Case::new(3, 8, true);
    let good = case.norm();
    let mut dx = vec![9.0; 24];
    for bad in [
        NormRows { x: &case.x[1..], ..good },
        NormRows { dy: &case.dy[1..], ..good },
        NormRows { cols: 7, ..good },
        NormRows { cols: usize::MAX, ..good },
        NormRows { mean: &[], ..good },
        NormRows { rstd: &case.rstd[1..], ..good },
    ] {
        assert!(set.layer_norm.apply(&bad, None, &mut dx, false).is_err());
        assert!(set.layer_norm_gain.apply(&bad, &mut dx[..8], None).is_err());
    }
    assert!(set.rms_norm.apply(&good, None, &mut dx, false).is_err(), "means for RMSNorm");
    assert!(set.layer_norm.apply(&good, Some(&case.gamma[1..]), &mut dx, false).is_err());
    assert!(set.layer_norm.apply(&good, None, &mut dx[1..], false).is_err());
    let (dgamma, dbeta) = dx.split_at_mut(8);
    assert!(set.layer_norm_gain.apply(&good, &mut dgamma[1..], None).is_err());
    assert!(set.layer_norm_gain.apply(&good, dgamma, Some(&mut dbeta[..7])).is_err());
    let rms = NormRows { mean: &[], ..good };
    assert!(set.rms_norm_gain.apply(&rms, dgamma, Some(&mut dbeta[..8])).is_err());
    assert!(set.column_sums.apply(&case.dy[1..], &mut dx[..8]).is_err());
    assert!(set.column_sums.apply(&case.dy, &mut []).is_err());
    assert_eq!(dx, [9.0; 24]);
    let nothing = NormRows { x: &[], dy: &[], cols: 8, mean: &[], rstd: &[] };
    set.layer_norm.apply(&nothing, None, &mut [], false).unwrap();
    set.column_sums.apply(&[], &mut dx).unwrap();
    set.column_sums.apply(&[], &mut []).unwrap();
    assert_eq!(dx, [9.0; 24]);
}
