//! Products: the contract's bits at every edge, in any portion; small integers exactly; extremes, NaN and infinity.

use super::*;

#[test]
fn outputs_are_the_contracts_bits_at_every_edge() {
    for set in sets() {
        for dtype in types() {
            for shape in shapes(&set) {
                let case = Case::random(set, dtype, shape);
                case.check(&case.run(&[], None, &case.whole()), &[], None);
            }
        }
    }
}

#[test]
fn bias_and_residual_come_first() {
    for set in sets() {
        for dtype in types() {
            for shape in [[1, 2 * nr_of(&set) + 3, 64], [13, nr_of(&set) + 1, 544], [2, 3, 0]] {
                let case = Case::random(set, dtype, shape);
                let mut random = Random(9);
                let (start, bias) = (random.floats(case.m * case.n), random.floats(case.n));
                for (start, bias) in [(&start[..], None), (&[], Some(&bias[..])), (&start, Some(&bias))] {
                    case.check(&case.run(start, bias, &case.whole()), start, bias);
                }
            }
        }
    }
}

#[test]
fn portions_and_single_rows_give_the_same_bits() {
    for set in sets() {
        for dtype in types() {
            let case = Case::random(set, dtype, [29, 3 * nr_of(&set) + 2, 1056]);
            let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let whole = bits(case.run(&[], None, &case.whole()));
            let panels = case.kernel.panels(case.n);
            let by_panel: Vec<_> = (0..panels).rev().map(|panel| [0, case.m, panel, panel + 1]).collect();
            let by_row: Vec<_> = (0..case.m).map(|row| [row, 1, 0, panels]).collect();
            let blocks = [[0, 8, 0, 2], [8, 21, 0, 2], [0, 19, 2, panels], [19, 10, 2, panels]];
            for portions in [&by_panel[..], &by_row, &blocks] {
                assert!(bits(case.run(&[], None, portions)) == whole, "{case}");
            }
        }
    }
}

/// Types that [`integer_weights`] knows.
const SIMPLE: [DType; 5] = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1];

/// Weights with a scale of one (and a minimum of `minimum`), row-major levels given relative to zero.
fn integer_weights(dtype: DType, levels: &[i32], minimum: f32) -> Vec<u8> {
    let zero = dtype.levels(&vec![0; dtype.block_bytes()]).unwrap().offset;
    let mut bytes = Vec::new();
    for levels in levels.chunks(BLOCK) {
        let q: [u8; BLOCK] = std::array::from_fn(|i| (levels[i] + i32::from(zero)) as u8);
        bytes.extend(half::f16::ONE.to_le_bytes());
        if has_minimum(dtype) {
            bytes.extend(half::f16::from_f32(minimum).to_le_bytes());
        }
        if dtype == DType::Q8_0 {
            bytes.extend(q.map(|q| q ^ 0x80));
            continue;
        }
        if matches!(dtype, DType::Q5_0 | DType::Q5_1) {
            let fifth = (0..BLOCK).fold(0, |bits, i| bits | u32::from(q[i] >> 4) << i);
            bytes.extend(fifth.to_le_bytes());
        }
        bytes.extend((0..16).map(|i| q[i] & 15 | q[i + 16] << 4));
    }
    bytes
}

#[test]
fn small_integers_are_exact() {
    for set in sets() {
        for dtype in SIMPLE {
            for [m, n, k] in shapes(&set) {
                let mut random = Random((m + n + k) as u64);
                let low = if has_minimum(dtype) { 0 } else { -3 };
                let levels: Vec<i32> = (0..n * k).map(|_| low + random.below(4) as i32).collect();
                // 256ths with two bytes, integers with one; the largest of each block fixes the scale at 1
                // or 1/256. Sums stay below 2²² units of it.
                let unit = if set.activations == Activations::Bits16 { 256.0 } else { 1.0 };
                let x: Vec<f32> = (0..m * k)
                    .map(|i| match i % BLOCK {
                        5 => 127.0,
                        _ => (random.below(101) as f32 - 50.0) / unit,
                    })
                    .collect();
                let minimum = if has_minimum(dtype) { -2 } else { 0 };
                let weights = integer_weights(dtype, &levels, minimum as f32);
                let case = Case::new(set, dtype, [m, n, k], weights, &x);
                let y = case.run(&[], None, &case.whole());
                for (i, &y) in y.iter().enumerate() {
                    let (row, column) = (i / n, i % n);
                    let products = (0..k)
                        .map(|j| f64::from(x[row * k + j]) * f64::from(levels[column * k + j] + minimum));
                    assert_eq!(f64::from(y), products.sum::<f64>(), "{case}: [{row}, {column}]");
                }
            }
        }
    }
}

/// The traps of 16-bit intermediates: every product as large as can be.
#[test]
fn extreme_levels_and_activations_do_not_saturate() {
    for set in sets() {
        for dtype in SIMPLE {
            let block = dtype.levels(&vec![0; dtype.block_bytes()]).unwrap();
            let zero = i32::from(block.offset);
            let top = match dtype {
                DType::Q8_0 => 255,
                DType::Q4_0 | DType::Q4_1 => 15,
                _ => 31,
            };
            let (n, k) = (nr_of(&set) + 1, 96);
            for m in [1, 2, 13] {
                for level in [-zero, top - zero] {
                    for x in [127.0f32, -127.0] {
                        let levels = vec![level; n * k];
                        let weights = integer_weights(dtype, &levels, 0.0);
                        let case = Case::new(set, dtype, [m, n, k], weights, &vec![x; m * k]);
                        let y = case.run(&[], None, &case.whole());
                        assert!(y.iter().all(|&y| y == level as f32 * x * k as f32), "{case}: {level} × {x}");
                        // Both bytes at their limits: 127 + 127/256.
                        let mut x = vec![x * (1.0 - 0.5 / 256.0); m * k];
                        x.iter_mut().step_by(BLOCK).for_each(|x| *x *= 256.0 / 255.5);
                        let case = Case::new(set, dtype, [m, n, k], case.weights, &x);
                        case.check(&case.run(&[], None, &case.whole()), &[], None);
                    }
                }
            }
        }
    }
}

/// The same for types of super-blocks: all bits of their codes set, or none.
#[test]
fn extreme_codes_do_not_saturate() {
    let codes = [
        (DType::Q2_K, 16..80),
        (DType::Q3_K, 0..96),
        (DType::Q4_K, 16..144),
        (DType::Q5_K, 16..176),
        (DType::Q6_K, 0..192),
        (DType::IQ4_NL, 2..18),
        (DType::MXFP4, 1..17),
    ];
    for set in sets() {
        for (dtype, codes) in &codes {
            let (n, k) = (nr_of(&set) + 1, whole_blocks(*dtype, 96));
            for m in [1, 2, 13] {
                for code in [0, 0xff, 0x88] {
                    let mut weights = Random(11).weights(*dtype, n, k);
                    weights.chunks_mut(dtype.block_bytes()).for_each(|block| block[codes.clone()].fill(code));
                    for x in [127.0f32, -127.0] {
                        let case = Case::new(set, *dtype, [m, n, k], weights.clone(), &vec![x; m * k]);
                        case.check(&case.run(&[], None, &case.whole()), &[], None);
                    }
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_their_row_and_no_other() {
    for set in sets() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (m, n, k) = (9, nr_of(&set) + 3, 128);
            let mut random = Random(5);
            let weights = random.weights(DType::Q4_1, n, k);
            let mut x = random.floats(m * k);
            x[4 * k + 77] = bad;
            let case = Case::new(set, DType::Q4_1, [m, n, k], weights, &x);
            for (i, y) in case.run(&[], None, &case.whole()).into_iter().enumerate() {
                assert_eq!(y.is_nan(), i / n == 4, "{case}");
            }
        }
    }
}
