//! Steps of the optimizers.

use super::*;
use crate::kernels::reference::backward::{self as reference, Moments};

/// What arithmetic below the smallest normal numbers may cost.
const TINY: f64 = 1.2e-38;

#[test]
fn adamw_stays_within_its_bound_step_after_step() {
    for (isa, set) in sets() {
        for n in lengths() {
            let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
            let (lr, scale) = (3e-4, 0.37f32);
            let mut w = random(1, n, 2.0);
            let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
            for t in 1..=7 {
                let g = random(10 + t, n, 3.0);
                let before = (w.clone(), m.clone(), v.clone());
                let step = AdamWStep::new(&config, lr, u64::from(t), scale);
                set.adamw.apply(&step, &mut w, &g, &mut m, &mut v).unwrap();
                for i in 0..n {
                    let old = Moments { w: before.0[i].into(), m: before.1[i].into(), v: before.2[i].into() };
                    let g = f64::from(scale) * f64::from(g[i]);
                    let AdamWConfig { beta1, beta2, eps, weight_decay } = config;
                    let want = reference::adamw(old, g, [beta1, beta2, eps, weight_decay], lr, u64::from(t));
                    let a = beta1 * old.m.abs() + (1.0 - beta1) * g.abs();
                    let root = (want.v / (1.0 - beta2.powf(t.into()))).sqrt() + eps;
                    let moved = lr / (1.0 - beta1.powf(t.into())) * a / root;
                    for (name, got, want, bound) in [
                        ("m", m[i], want.m, 6.0 * U * a),
                        ("v", v[i], want.v, 8.0 * U * want.v),
                        ("w", w[i], want.w, 3.0 * U * old.w.abs() + 20.0 * U * moved),
                    ] {
                        let error = (f64::from(got) - want).abs();
                        assert!(
                            error <= bound + TINY,
                            "{isa:?}, {name}[{i}] of {n}, step {t}: {got} for {want}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn sgd_stays_within_its_bound() {
    for (isa, set) in sets() {
        for (n, momentum, nesterov) in
            lengths().flat_map(|n| [(n, 0.0, false), (n, 0.9, false), (n, 0.9, true)])
        {
            let step = SgdStep { lr: 0.05, momentum, weight_decay: 0.02, nesterov, grad_scale: 0.5 };
            let (mut w, g, mut b) = (random(1, n, 2.0), random(2, n, 3.0), random(3, n, 1.0));
            let (old_w, old_b) = (w.clone(), b.clone());
            set.sgd.apply(&step, &mut w, &g, &mut b).unwrap();
            for i in 0..n {
                let factors = [step.lr, momentum, step.weight_decay].map(f64::from);
                let (w0, b0, g) = (f64::from(old_w[i]), f64::from(old_b[i]), 0.5 * f64::from(g[i]));
                let (want, sum) = reference::sgd(w0, b0, g, factors, nesterov);
                let a = factors[1] * b0.abs() + g.abs() + factors[2] * w0.abs();
                let bound = U * w0.abs() + if nesterov { 18.0 } else { 9.0 } * U * factors[0] * a;
                assert!(
                    (f64::from(w[i]) - want).abs() <= bound,
                    "{isa:?}: {} for {want} at {i} of {n}",
                    w[i]
                );
                if momentum == 0.0 {
                    assert_eq!(b[i].to_bits(), old_b[i].to_bits());
                } else {
                    assert!((f64::from(b[i]) - sum).abs() <= 5.0 * U * a, "{isa:?}: {} for {sum}", b[i]);
                }
            }
        }
    }
}

/// Any division of the elements has the same bits, and nothing is written outside.
#[test]
fn parts_give_the_same_bits_as_the_whole() {
    let n = 301;
    let step = AdamWStep::new(&AdamWConfig::default(), 1e-3, 3, 1.0);
    let descent = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.1, nesterov: true, grad_scale: 1.0 };
    for (isa, set) in sets() {
        let g = random(4, n, 1.0);
        let start = [random(1, n, 1.0), random(2, n, 1.0), random(3, n, 1.0).iter().map(|x| x * x).collect()];
        let run = |cuts: &[usize]| {
            let [mut w, mut m, mut v] = start.clone();
            let [mut w2, mut b2, _] = start.clone();
            for ends in cuts.windows(2) {
                let at = ends[0]..ends[1];
                let (g, w, m, v) =
                    (&g[at.clone()], &mut w[at.clone()], &mut m[at.clone()], &mut v[at.clone()]);
                set.adamw.apply(&step, w, g, m, v).unwrap();
                set.sgd.apply(&descent, &mut w2[at.clone()], g, &mut b2[at]).unwrap();
            }
            [w, m, v, w2, b2].map(|x| bits(&x))
        };
        let whole = run(&[0, n]);
        for cuts in [&[0, 1, n][..], &[0, 7, 8, 64, 65, 200, n]] {
            assert_eq!(run(cuts), whole, "{isa:?}");
        }
        let some = run(&[8, 100]);
        for (some, which) in some.iter().zip([0, 1, 2, 0, 1]) {
            let start = bits(&start[which]);
            assert_eq!((&some[..8], &some[100..]), (&start[..8], &start[100..]), "{isa:?}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_place() {
    for (isa, set) in sets() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut w, mut g) = (vec![1.0; 40], vec![0.5; 40]);
            let (mut m, mut v, mut b) = (vec![0.0; 40], vec![0.0; 40], vec![0.0; 40]);
            g[21] = bad;
            let step = AdamWStep::new(&AdamWConfig::default(), 1e-3, 1, 1.0);
            set.adamw.apply(&step, &mut w, &g, &mut m, &mut v).unwrap();
            assert!(w[21].is_nan() && !m[21].is_finite() && !v[21].is_finite(), "{isa:?}, {bad}: {}", w[21]);
            let mut descended = vec![1.0; 40];
            let step =
                SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, nesterov: false, grad_scale: 1.0 };
            set.sgd.apply(&step, &mut descended, &g, &mut b).unwrap();
            assert!(!descended[21].is_finite() && !b[21].is_finite(), "{isa:?}, {bad}");
            let rest = |x: &[f32]| x.iter().enumerate().all(|(i, x)| i == 21 || x.is_finite());
            assert!(rest(&w) && rest(&m) && rest(&v) && rest(&descended) && rest(&b));
        }
    }
}

/// Moments that decay end at 0, not among the denormals, where each step would take a hundred times as long.
#[test]
fn moments_don_t_linger_below_normal_numbers() {
    for (isa, set) in sets() {
        let step = AdamWStep::new(&AdamWConfig { beta2: 0.9, ..AdamWConfig::default() }, 1e-3, 1000, 1.0);
        let (mut w, g, mut m, mut v) = ([1.0; 19], [0.0; 19], [-1e-37; 19], [1e-37; 19]);
        let descent = SgdStep { lr: 1.0, momentum: 0.9, weight_decay: 0.0, nesterov: false, grad_scale: 1.0 };
        let mut b = [1e-37; 19];
        for _ in 0..30 {
            set.adamw.apply(&step, &mut w, &g, &mut m, &mut v).unwrap();
            set.sgd.apply(&descent, &mut w, &g, &mut b).unwrap();
            assert!([m, v, b].iter().flatten().all(|x| *x == 0.0 || x.is_normal()), "{isa:?}");
        }
        assert!([m, v, b].iter().flatten().all(|x| *x == 0.0), "{isa:?}");
    }
}

#[test]
fn lengths_that_differ_are_refused_and_nothing_changed() {
    let set = BackwardKernels::select(IsaId::detect());
    let step = AdamWStep::new(&AdamWConfig::default(), 1e-3, 1, 1.0);
    let (mut w, g, mut m, mut v) = ([1.0; 5], [1.0; 5], [0.0; 5], [0.0; 5]);
    assert!(set.adamw.apply(&step, &mut w, &g[1..], &mut m, &mut v).is_err());
    assert!(set.adamw.apply(&step, &mut w, &g, &mut m[1..], &mut v).is_err());
    assert!(set.adamw.apply(&step, &mut w, &g, &mut m, &mut v[1..]).is_err());
    let mut descent = SgdStep { lr: 1.0, momentum: 0.9, weight_decay: 0.0, nesterov: false, grad_scale: 1.0 };
    assert!(set.sgd.apply(&descent, &mut w, &g, &mut []).is_err());
    assert!(set.sgd.apply(&descent, &mut w, &g[1..], &mut m).is_err());
    assert_eq!((w, m, v), ([1.0; 5], [0.0; 5], [0.0; 5]));
    descent.momentum = 0.0;
    set.sgd.apply(&descent, &mut w, &g, &mut []).unwrap();
    assert_eq!(w, [0.0; 5]);
}

/// A quadratic bowl: both optimizers find its floor.
#[test]
fn optimizers_descend() {
    for (isa, set) in sets() {
        let goal = random(5, 33, 1.0);
        let (mut w, mut m, mut v) = (vec![0.0; 33], vec![0.0; 33], vec![0.0; 33]);
        let (mut w2, mut b) = (vec![0.0; 33], vec![0.0; 33]);
        let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        let descent = SgdStep { lr: 0.05, momentum: 0.8, weight_decay: 0.0, nesterov: true, grad_scale: 1.0 };
        let away = |w: &[f32]| -> Vec<f32> { w.iter().zip(&goal).map(|(w, goal)| w - goal).collect() };
        for t in 1..=500 {
            let step = AdamWStep::new(&config, 0.05 * 0.99f64.powi(t), t as u64, 1.0);
            let g = away(&w);
            set.adamw.apply(&step, &mut w, &g, &mut m, &mut v).unwrap();
            let g = away(&w2);
            set.sgd.apply(&descent, &mut w2, &g, &mut b).unwrap();
        }
        let far = away(&w).into_iter().chain(away(&w2)).map(f32::abs).fold(0.0, f32::max);
        assert!(far < 1e-3, "{isa:?}: {far}");
    }
}
