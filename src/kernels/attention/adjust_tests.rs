//! Soft-caps, slopes and sinks against the f64 reference on every level, each alone and all together; the same bits in
//! any batch and in any parts; what changes nothing; what is not a number.

use super::tests::{Case, bits, kernels_here, name};
use super::{PART, ScoreOptions};

/// Slopes of heads: steep, shallow and none.
pub(super) static SLOPES: [f32; 8] = [0.5, 0.031_25, 0.0, 0.25, 0.125, 0.007_812_5, 0.062_5, 0.8];

/// Sinks of heads: above all scores, below all, among them, and none.
pub(super) static SINKS: [f32; 8] = [0.75, -40.0, f32::NEG_INFINITY, 12.0, 0.0, -1.5, 3.0, 20.0];

/// All changes together.
pub(super) const ALL: ScoreOptions<'static> =
    ScoreOptions { soft_cap: 1.5, slopes: Some(&SLOPES), sinks: Some(&SINKS) };

const NONE: ScoreOptions<'static> = ScoreOptions { soft_cap: 0.0, slopes: None, sinks: None };

/// Each change alone, and all together.
pub(super) const EACH: [ScoreOptions<'static>; 4] = [
    ScoreOptions { soft_cap: 1.5, ..NONE },
    ScoreOptions { slopes: Some(&SLOPES), ..NONE },
    ScoreOptions { sinks: Some(&SINKS), ..NONE },
    ALL,
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for head_dim in [1, 16, 33, 64, 80] {
        for n_kv in [1, 2, 17, 127, 128, 129, 257, 520] {
            for (tokens, heads) in [(1, 1), (1, 3), (7, 4), (40, 8)] {
                if tokens <= n_kv {
                    cases.push(Case::new(tokens, n_kv, heads, head_dim, None));
                }
            }
        }
    }
    for window in [1, 100, 128, 129, 250] {
        cases.push(Case::new(30, 300, 2, 64, Some(window)));
    }
    cases
}

/// The largest difference to what is wanted.
fn worst(got: &[f32], want: &[f64]) -> f64 {
    got.iter().zip(want).map(|(&got, want)| (f64::from(got) - want).abs()).fold(0.0, f64::max)
}

#[test]
fn each_change_agrees_with_the_reference() {
    for mut case in cases() {
        for scores in EACH {
            case.scores = scores;
            let wanted = super::CacheType::ALL.map(|stored| case.stored(stored).reference());
            for kernel in kernels_here() {
                let off = worst(&case.run(&kernel, 0, case.tokens, 3), &wanted[kernel.stored as usize]);
                assert!(
                    off <= case.bound(),
                    "{}: {} tokens, {} keys, {} heads of {}, {scores:?}: off by {off:e}",
                    name(&kernel),
                    case.tokens,
                    case.n_kv,
                    case.heads,
                    case.head_dim,
                );
            }
        }
    }
}

#[test]
fn the_bound_would_catch_a_change_that_is_left_out() {
    // The planted faults: nothing changed; slopes, or sinks, of the neighbouring heads; another cap.
    let case = |scores| Case { scores, ..Case::new(7, 300, 4, 64, None) };
    let kernel = kernels_here().next().unwrap();
    let got = case(NONE).run(&kernel, 0, 7, 0);
    for scores in EACH {
        let wanted = case(scores);
        assert!(worst(&got, &wanted.reference()) > 10.0 * wanted.bound(), "{scores:?}");
    }
    for (wrong, right) in [
        (ScoreOptions { soft_cap: 1.0, ..NONE }, EACH[0]),
        (ScoreOptions { slopes: Some(&SLOPES[1..]), ..NONE }, EACH[1]),
        (ScoreOptions { sinks: Some(&SINKS[1..]), ..NONE }, EACH[2]),
        (ScoreOptions { slopes: Some(&SLOPES[1..]), ..ALL }, ALL),
        (ScoreOptions { sinks: Some(&SINKS[1..]), ..ALL }, ALL),
    ] {
        let (got, wanted) = (case(wrong).run(&kernel, 0, 7, 0), case(right));
        assert!(worst(&got, &wanted.reference()) > 10.0 * wanted.bound(), "{wrong:?}");
    }
}

#[test]
fn bits_are_the_same_in_any_batch_and_in_any_parts() {
    for scores in EACH {
        for (window, n_kv) in [(None, 600), (Some(150), 600), (None, 2 * PART)] {
            let case = Case { scores, ..Case::new(60, n_kv, 3, 48, window) };
            let line = case.heads * case.head_dim;
            for kernel in kernels_here() {
                let together = case.run(&kernel, 0, 60, 0);
                for (from, to) in [(0, 1), (1, 2), (13, 30), (59, 60)] {
                    let alone = case.run(&kernel, from, to, 0);
                    assert_eq!(bits(&alone), bits(&together[from * line..to * line]), "{}", name(&kernel));
                }
                for length in [1, 2, 100] {
                    let got = case.run_in_parts(&kernel, 59, 60, length);
                    // Parts before the window join as zeros, and only zeros may change their sign.
                    assert_eq!(got, together[59 * line..], "{}: by {length} parts", name(&kernel));
                }
            }
        }
    }
}

#[test]
fn slopes_of_0_and_sinks_below_all_change_no_bit() {
    let nothing = ScoreOptions { slopes: Some(&[0.0; 3]), sinks: Some(&[f32::NEG_INFINITY; 3]), ..NONE };
    for (tokens, n_kv) in [(1, 300), (20, 700), (2, 2)] {
        let case = |scores| Case { scores, ..Case::new(tokens, n_kv, 3, 40, None) };
        for kernel in kernels_here() {
            let [want, got] = [NONE, nothing].map(|scores| case(scores).run(&kernel, 0, tokens, 0));
            assert_eq!(bits(&got), bits(&want), "{}", name(&kernel));
        }
    }
}

#[test]
fn a_row_that_sees_nothing_gets_zeros() {
    for kernel in kernels_here() {
        for scores in EACH {
            let case = Case { scores, ..Case::new(3, 20, 4, 16, Some(0)) };
            assert!(case.run(&kernel, 0, 3, 0).iter().all(|&x| x == 0.0), "{}: {scores:?}", name(&kernel));
            assert!(case.run_in_parts(&kernel, 0, 3, 1).iter().all(|&x| x == 0.0), "{}", name(&kernel));
        }
    }
}

#[test]
fn what_is_not_a_number_shows() {
    for kernel in kernels_here() {
        // A NaN among the scores: in each row that sees it.
        for scores in EACH {
            let mut case = Case { scores, ..Case::new(3, 140, 1, 16, None) };
            case.k[138 * 16] = f32::NAN;
            let got = case.run(&kernel, 0, 3, 0);
            assert!(got[..16].iter().all(|x| x.is_finite()), "{}: a later key's NaN shows", name(&kernel));
            assert!(got[16..].iter().all(|x| x.is_nan()), "{}: a NaN is lost", name(&kernel));
        }
        // A sink or a slope: in its head.
        for bad in [f32::NAN, f32::INFINITY] {
            let list: &'static [f32] = if bad.is_nan() { &[0.0, f32::NAN] } else { &[0.0, f32::INFINITY] };
            for scores in
                [ScoreOptions { sinks: Some(list), ..NONE }, ScoreOptions { slopes: Some(list), ..NONE }]
            {
                let got = Case { scores, ..Case::new(1, 300, 2, 16, None) }.run(&kernel, 0, 1, 0);
                assert!(got[..16].iter().all(|x| x.is_finite()), "{}: {scores:?}", name(&kernel));
                assert!(got[16..].iter().all(|x| x.is_nan()), "{}: {scores:?}", name(&kernel));
            }
        }
    }
}

#[test]
fn a_cap_bounds_what_is_infinite() {
    let kernels = kernels_here().filter(|kernel| kernel.stored == super::CacheType::F32);
    for kernel in kernels {
        // Scores of ∞ and −∞: e¹⁰ times as much as the others, which are 0, and e⁻¹⁰.
        let mut case =
            Case { scores: ScoreOptions { soft_cap: 10.0, ..NONE }, ..Case::new(1, 30, 1, 16, None) };
        case.q.fill(0.0);
        case.k.fill(0.0);
        case.q[0] = 1e30;
        (case.k[3 * 16], case.k[7 * 16]) = (1e30, -1e30);
        let wanted = (0..16).map(|d| {
            let value = |key: usize| f64::from(case.v[key * 16 + d]);
            let others = (0..30).filter(|key| ![3, 7].contains(key)).map(value).sum::<f64>();
            let (most, least) = (10f64.exp(), (-10f64).exp());
            (most * value(3) + least * value(7) + others) / (most + least + 28.0)
        });
        let off = worst(&case.run(&kernel, 0, 1, 0), &wanted.collect::<Vec<_>>());
        assert!(off < 1e-5, "{}: {off:e}", name(&kernel));
    }
}
