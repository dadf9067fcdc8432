//! Quantised rows: as near as documented, the second byte where a block has an outlier, the same bytes on every level.

use super::*;

#[test]
fn quantized_activations_are_as_near_as_documented() {
    for set in sets() {
        let mut random = Random(3);
        let k = 32 * 65;
        let x: Vec<f32> =
            (0..3 * k).map(|i| random.float() * 10f32.powi((i / BLOCK % 60) as i32 - 30)).collect();
        let rows = quantize(&set, &x, k);
        for (row, x) in x.chunks(k).enumerate() {
            for (block, x) in x.chunks(BLOCK).enumerate() {
                let q = read_x(&set, &rows[row * set.row_bytes(k)..], k, block);
                let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
                let bound = q.unit() * if q.kept { 1.01 } else { 0.50002 * f64::from(q.d) / q.unit() };
                assert!((q.d - peak / 127.0).abs() <= q.d * 1e-7);
                for (i, &x) in x.iter().enumerate() {
                    assert!(q.bytes.iter().all(|byte| byte[i].abs() <= 127));
                    let error = (q.unit() * f64::from(q.whole(i)) - f64::from(x)).abs();
                    assert!(error <= bound, "{:?}: {x} is off by {error}, not {bound}", set.activations);
                }
                for (sum, range) in q.scaled_sums.iter().zip([0..32, 0..16, 16..32]) {
                    let exact = q.unit() * f64::from(range.map(|i| q.whole(i)).sum::<i32>());
                    assert_eq!(*sum, exact as f32);
                }
            }
        }
    }
}

#[test]
fn blocks_with_an_outlier_keep_their_low_byte() {
    for set in levels().map(|set| set.with_activations(Activations::Adaptive)) {
        let k = 32 * 20;
        let mut x = vec![1.0f32; 2 * k];
        // The root of a block's mean square is then √(1 + (v² − 1)/32): v is 4.25 times as much from v = 6.3 on.
        x[3 * 32 + 9] = -6.6;
        x[k + 7 * 32] = 6.0;
        // A row's size doesn't matter.
        x[k..][..32].fill(40.0);
        let rows = quantize(&set, &x, k);
        for row in 0..2 {
            for block in 0..k / BLOCK {
                let q = read_x(&set, &rows[row * set.row_bytes(k)..], k, block);
                assert_eq!(q.kept, row == 0 && block == 3, "row {row}, block {block}");
            }
        }
    }
}

#[test]
fn every_level_quantizes_to_the_same_bytes() {
    let k = 320;
    let mut x = Random(4).activations(4 * k);
    x[40] = f32::NAN;
    x[70] = f32::NEG_INFINITY;
    x[100..140].fill(0.0);
    x[160..192].fill(1e-39);
    x[192..224].fill(f32::MAX);
    x[224..256].fill(-0.0);
    x[256..288].fill(2.5);
    for mode in Activations::ALL {
        let scalar = QmatmulKernels::select(IsaId::Scalar).with_activations(mode);
        let expected = quantize(&scalar, &x, k);
        for set in levels().map(|set| set.with_activations(mode)) {
            let rows = quantize(&set, &x, k);
            for (row, block) in (0..4).flat_map(|row| (0..k / BLOCK).map(move |block| (row, block))) {
                let at = row * set.row_bytes(k);
                let (ours, theirs) =
                    (read_x(&set, &rows[at..], k, block), read_x(&scalar, &expected[at..], k, block));
                assert_eq!(ours.bytes, theirs.bytes);
                assert_eq!(ours.kept, theirs.kept);
                assert_eq!(ours.d.is_nan(), theirs.d.is_nan());
                assert_eq!(ours.d.is_nan(), row == 0 && (block == 1 || block == 2), "{block}");
                assert!(ours.d.is_nan() || ours.d.to_bits() == theirs.d.to_bits());
            }
        }
    }
}
