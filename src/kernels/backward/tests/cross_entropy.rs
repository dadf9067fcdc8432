//! Cross-entropy and its gradient.

use super::*;
use crate::kernels::reference::backward as reference;
use crate::kernels::rows::tests::{Strided, lanes};

/// Widths of rows around vectors and runs, and vocabularies.
fn widths() -> impl Iterator<Item = usize> {
    (1..=17).chain([31, 32, 33, 63, 65, 255, 1001, 2047, 2048, 2049, 6000])
}

/// Rows at a stride, each with a target, one of them left out.
fn run(set: &BackwardKernels, x: &[f32], cols: usize, targets: &[u32], scale: f32) -> (Vec<f32>, Vec<f32>) {
    let mut rows = Strided::new(x, cols, 3);
    let mut losses = vec![f32::NAN; targets.len()];
    let args = CrossEntropyArgs {
        logits: rows.first(),
        stride: rows.stride,
        rows: targets.len(),
        cols,
        targets: targets.as_ptr(),
        scale,
        losses: losses.as_mut_ptr(),
        gradient: false,
    };
    // SAFETY: the buffer holds so many rows at this stride, and there are as many targets and losses.
    let run = |args| unsafe { set.cross_entropy.run(&args) };
    run(args);
    assert_eq!(bits(&rows.take()), bits(x), "losses alone change logits");
    let alone = std::mem::replace(&mut losses, vec![f32::NAN; targets.len()]);
    run(CrossEntropyArgs { losses: losses.as_mut_ptr(), gradient: true, ..args });
    assert_eq!(bits(&losses), bits(&alone));
    (rows.take(), losses)
}

fn check(isa: IsaId, set: &BackwardKernels, cols: usize, spread: f32) {
    let x = random(cols as u32, 4 * cols, spread);
    let targets = [0, cols as u32 - 1, NO_TARGET, cols as u32 / 2];
    let scale = 0.3f32;
    let (gradient, losses) = run(set, &x, cols, &targets, scale);
    for (r, target) in targets.into_iter().enumerate() {
        let row = wide(&x[r * cols..][..cols]);
        let got = &gradient[r * cols..][..cols];
        if target == NO_TARGET {
            assert!(losses[r] == 0.0 && got.iter().all(|&x| x == 0.0));
            continue;
        }
        let target = target as usize;
        let h = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let steps = cols.min(2048) as f64 / (4 * lanes(isa)) as f64 + (cols as f64).ln();
        let log: f64 = row.iter().map(|x| (x - h).exp()).sum::<f64>().ln();
        let want = reference::cross_entropy(&row, target);
        let bound = (steps + 12.0) * U + 2.0 * U * (h - row[target] + log);
        let loss = losses[r];
        assert!((f64::from(loss) - want).abs() <= bound, "{isa:?}, {cols}: loss {loss} for {want}");
        for (i, want) in reference::cross_entropy_gradient(&row, target).into_iter().enumerate() {
            let (want, scale, at) = (want * f64::from(scale), f64::from(scale), f64::from(i == target));
            let p = (row[i] - h - log).exp();
            let bound = scale * ((steps + 16.0 + h - row[i]) * U * p + 2f64.powi(-126) + at * U);
            assert!((f64::from(got[i]) - want).abs() <= bound, "{isa:?}, {cols}, {i}: {} for {want}", got[i]);
        }
    }
}

#[test]
fn it_stays_within_its_bound() {
    for (isa, set) in sets() {
        for cols in widths() {
            for spread in [1.0, 12.0, 300.0] {
                check(isa, &set, cols, spread);
            }
        }
    }
}

/// The largest vocabulary, in a sum of many small elements.
#[test]
fn a_large_vocabulary_stays_within_its_bound() {
    let (isa, set) = sets().last().unwrap();
    check(isa, &set, 262_144, 3.0);
    check(isa, &set, 50_257, 20.0);
}

/// The gradient is that of the loss: central differences of the loss in f64.
#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let x = wide(&random(3, 37, 4.0));
    for target in [0, 17, 36] {
        let gradient = reference::cross_entropy_gradient(&x, target);
        for (i, gradient) in gradient.iter().enumerate() {
            let slope = slope(&x, i, |x| reference::cross_entropy(x, target));
            assert!((slope - gradient).abs() < 1e-8, "{slope} for {gradient}");
        }
    }
}

#[test]
fn a_row_s_bits_don_t_depend_on_the_others() {
    let (cols, targets) = (2500, [7, 2499, 0, 1200, NO_TARGET]);
    let x = random(8, 5 * cols, 9.0);
    for (isa, set) in sets() {
        let (mut all, mut losses) = (x.clone(), [0.0; 5]);
        set.cross_entropy.apply(&mut all, cols, &targets, 0.125, &mut losses).unwrap();
        for r in 0..5 {
            let (mut row, mut loss) = (x[r * cols..][..cols].to_vec(), [0.0]);
            set.cross_entropy.apply(&mut row, cols, &targets[r..=r], 0.125, &mut loss).unwrap();
            assert_eq!(bits(&row), bits(&all[r * cols..][..cols]), "{isa:?}");
            assert_eq!(loss[0].to_bits(), losses[r].to_bits());
            set.cross_entropy.losses(&x[r * cols..][..cols], cols, &targets[r..=r], &mut loss).unwrap();
            assert_eq!(loss[0].to_bits(), losses[r].to_bits());
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_its_row() {
    let cols = 5000;
    for (isa, set) in sets() {
        for (bad, place) in [(f32::NAN, 0), (f32::NAN, 4999), (f32::INFINITY, 2500)] {
            let mut x = random(1, 2 * cols, 1.0);
            x[place] = bad;
            let (gradient, losses) = run(&set, &x, cols, &[3, 3], 1.0);
            assert!(losses[0].is_nan() && gradient[..cols].iter().all(|x| x.is_nan()), "{isa:?}, {bad}");
            assert!(losses[1].is_finite() && gradient[cols..].iter().all(|x| x.is_finite()), "{isa:?}");
        }
        // Hidden logits, a whole run of them among these.
        let mut x = vec![f32::NEG_INFINITY; 2 * cols];
        (x[4000], x[4001]) = (2.0, 2.0);
        let (gradient, losses) = run(&set, &x, cols, &[4001, 5], 1.0);
        assert!((losses[0] - 2f32.ln()).abs() < 1e-6, "{isa:?}: {}", losses[0]);
        let got: Vec<f32> = gradient[..cols].iter().copied().filter(|&x| x != 0.0).collect();
        assert_eq!(got, [0.5, -0.5], "{isa:?}");
        assert!(losses[1].is_nan() && gradient[cols..].iter().all(|x| x.is_nan()));
        let (gradient, losses) = run(&set, &x[..cols], cols, &[5], 1.0);
        assert!(losses[0] == f32::INFINITY && gradient[5] == -1.0, "{isa:?}: {}", losses[0]);
        // Logits that would overflow as powers.
        let mut x = vec![-3e38; cols];
        x[4321] = 3e38;
        let (gradient, losses) = run(&set, &x, cols, &[4321], 1.0);
        assert!(losses[0] == 0.0 && gradient.iter().all(|&x| x == 0.0), "{isa:?}: {}", losses[0]);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_changed() {
    let set = BackwardKernels::select(IsaId::detect()).cross_entropy;
    let (mut x, mut losses) = ([0.5; 12], [7.0; 3]);
    for (targets, cols) in [(&[0, 1, 4][..], 4), (&[0, 1], 4), (&[0, 1, 2], 5), (&[0, 1, NO_TARGET - 1], 4)] {
        assert!(set.apply(&mut x, cols, targets, 1.0, &mut losses).is_err(), "{targets:?}");
        assert!(set.losses(&x, cols, targets, &mut losses).is_err(), "{targets:?}");
    }
    assert!(set.apply(&mut x, 4, &[0, 1, 2], 1.0, &mut losses[..2]).is_err());
    assert!(set.apply(&mut [], usize::MAX, &[0, 1], 1.0, &mut losses[..2]).is_err());
    assert_eq!((x, losses), ([0.5; 12], [7.0; 3]));
    set.apply(&mut [], 4, &[], 1.0, &mut []).unwrap();
    // Rows without logits have no target.
    assert!(set.apply(&mut [], 0, &[0], 1.0, &mut losses[..1]).is_err());
    set.apply(&mut [], 0, &[NO_TARGET], 1.0, &mut losses[..1]).unwrap();
}
