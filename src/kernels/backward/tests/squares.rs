//! Sums of squares in blocks.

use super::*;
use crate::kernels::rows::tests::sum_steps;

#[test]
fn sums_stay_within_their_bound_and_blocks_apart() {
    for (isa, set) in sets() {
        for n in lengths().chain([4095, 4096, 4097, NORM_BLOCK, NORM_BLOCK + 1, 2 * NORM_BLOCK + 77]) {
            let x = random(n as u32, n, 5.0);
            let mut sums = vec![f64::NAN; n.div_ceil(NORM_BLOCK)];
            set.sum_of_squares.apply(&x, &mut sums).unwrap();
            for (block, &sum) in x.chunks(NORM_BLOCK).zip(&sums) {
                let want: f64 = wide(block).iter().map(|x| x * x).sum();
                let bound = (sum_steps(isa, 4096) + 1.0) * U * want;
                assert!((sum - want).abs() <= bound, "{isa:?}, {n}: {sum} for {want}");
                // A worker that has this block alone computes the same bits.
                let mut alone = [0.0];
                set.sum_of_squares.apply(block, &mut alone).unwrap();
                assert_eq!(alone[0].to_bits(), sum.to_bits());
            }
            let want = wide(&x).iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((norm_of(&sums) - want).abs() <= sum_steps(isa, 4096) * U * want);
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_norm() {
    for (isa, set) in sets() {
        for (bad, place) in
            [(f32::NAN, 0), (f32::INFINITY, 70_000), (f32::NEG_INFINITY, 65_535), (2e19, 70_001)]
        {
            let mut x = vec![1.0; 70_002];
            x[place] = bad;
            let mut sums = [0.0; 2];
            set.sum_of_squares.apply(&x, &mut sums).unwrap();
            let norm = norm_of(&sums);
            assert!(
                if bad.is_nan() { norm.is_nan() } else { norm == f64::INFINITY },
                "{isa:?}: {norm} for {bad}"
            );
        }
    }
    assert_eq!(norm_of(&[]), 0.0);
}

#[test]
fn sums_that_don_t_match_the_blocks_are_refused() {
    let set = BackwardKernels::select(IsaId::detect());
    assert!(set.sum_of_squares.apply(&[1.0], &mut []).is_err());
    assert!(set.sum_of_squares.apply(&[], &mut [0.0]).is_err());
    assert!(set.sum_of_squares.apply(&vec![1.0; NORM_BLOCK], &mut [0.0; 2]).is_err());
}
