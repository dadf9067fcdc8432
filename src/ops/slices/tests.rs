//! The ops against the kernels that they run, on any team, in place and apart; and every argument that they refuse.

use super::*;
use crate::kernels::rows::{Affine, Weighing};

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

/// Rows of `cols` spread out to `ld` floats each, the gaps filled with NaN.
fn spread(dense: &[f32], cols: usize, ld: usize) -> Vec<f32> {
    let mut rows = vec![f32::NAN; dense.len() / cols * ld];
    rows.chunks_exact_mut(ld)
        .zip(dense.chunks_exact(cols))
        .for_each(|(row, x)| row[..cols].copy_from_slice(x));
    rows
}

/// No team, and teams of several sizes.
fn teams() -> Vec<Option<Team>> {
    [1, 2, 3, 5].into_iter().map(|n| Some(Team::new(n).unwrap())).chain([None]).collect()
}

/// Runs `op` apart and in place, dense and with gaps, on every team, and compares with `want`.
fn check(
    (rows, cols): (usize, usize),
    x: &[f32],
    want: &[f32],
    op: impl Fn(Input<'_>, &mut [f32], RowShape, Option<&Team>) -> Result<()>,
) {
    for team in teams() {
        let team = team.as_ref();
        for (ldx, ldy) in [(cols, cols), (cols + 3, cols + 1)] {
            let (from, target) = (spread(x, cols, ldx), spread(want, cols, ldy));
            let mut y = vec![f32::NAN; rows * ldy];
            let shape = RowShape::new(rows, cols).with_ld(ldx, ldy);
            op(Input::from(&from), &mut y, shape, team).unwrap();
            assert_eq!(bits(&y), bits(&target), "{rows} x {cols}, {team:?}");
            let mut y = spread(x, cols, ldy);
            op(Input::InPlace, &mut y, shape, team).unwrap();
            assert_eq!(bits(&y), bits(&target), "{rows} x {cols} in place, {team:?}");
        }
    }
}

#[test]
fn rows_have_the_kernels_bits_on_any_team() {
    let kernels = &kernels().unwrap().rows;
    for (rows, cols) in [(1, 1), (3, 5), (501, 190), (7, 40_000)] {
        let (x, mask) = (noise(rows * cols, 1), noise(rows * cols, 2));
        let mut want = vec![0.0; x.len()];
        kernels.softmax.apply(&x, &mut want, cols, Weighing::default()).unwrap();
        check((rows, cols), &x, &want, |x, y, shape, team| softmax(x, y, shape, &Softmax::default(), team));
        for (mask, ld_mask) in [(&mask[..], cols), (&mask[..cols], 0)] {
            let weighing = Weighing { scale: 0.3, causal: Some(2), mask: Some(mask) };
            kernels.softmax.apply(&x, &mut want, cols, weighing).unwrap();
            let params = Softmax { scale: 0.3, visible: Some(2), mask: Some(mask), ld_mask };
            check((rows, cols), &x, &want, |x, y, shape, team| softmax(x, y, shape, &params, team));
        }
        kernels.log_softmax.apply(&x, &mut want, cols).unwrap();
        check((rows, cols), &x, &want, |x, y, shape, team| log_softmax(x, y, shape, team));
        want.copy_from_slice(&x);
        kernels.add_row.apply_in_place(&mut want, &mask[..cols]).unwrap();
        check((rows, cols), &x, &want, |x, y, shape, team| add_row(x, &mask[..cols], y, shape, team));
    }
}

#[test]
fn norms_have_the_kernels_bits_on_any_team() {
    let kernels = &kernels().unwrap().rows;
    for (rows, cols) in [(1, 1), (3, 5), (501, 190)] {
        let (x, vectors) = (noise(rows * cols, 1), noise(2 * cols, 2));
        let (weight, bias) = (Some(&vectors[..cols]), Some(&vectors[cols..]));
        let params = NormParams { weight, bias, eps: 1e-3 };
        let affine = Affine { gamma: weight, beta: bias, eps: 1e-3 };
        let mut want = vec![0.0; x.len()];
        kernels.layer_norm.apply(&x, &mut want, cols, affine).unwrap();
        check((rows, cols), &x, &want, |x, y, shape, team| layer_norm(x, y, shape, &params, team));
        kernels.rms_norm.apply(&x, &mut want, cols, affine).unwrap();
        check((rows, cols), &x, &want, |x, y, shape, team| rms_norm(x, y, shape, &params, team));
    }
}

#[test]
fn a_norm_of_a_sum_keeps_the_sum_and_the_figures() {
    let (rows, cols, ld) = (501, 190, 193);
    let (x, add) = (noise(rows * cols, 1), noise(rows * cols, 2));
    let sum: Vec<f32> = x.iter().zip(&add).map(|(x, add)| x + add).collect();
    let params = NormParams::default();
    for (kind, cols_f64) in [(Norm::Layer, cols as f64), (Norm::Rms, cols as f64)] {
        let mut want = vec![0.0; sum.len()];
        norm(
            kind,
            NormInput::Slice(&sum),
            &mut want,
            RowShape::new(rows, cols),
            &params,
            Default::default(),
            None,
        )
        .unwrap();
        for team in teams() {
            let (mut x, add) = (spread(&x, cols, ld), spread(&add, cols, cols + 1));
            let (mut y, mut mean, mut rstd) =
                (vec![0.0; sum.len()], vec![f32::NAN; rows], vec![f32::NAN; rows]);
            let statistics = NormStatistics {
                mean: (kind == Norm::Layer).then_some(&mut mean[..]),
                rstd: Some(&mut rstd),
            };
            let shape = RowShape::new(rows, cols).with_ld(ld, cols);
            let input = NormInput::Sum { x: &mut x, add: &add, ld_add: cols + 1 };
            norm(kind, input, &mut y, shape, &params, statistics, team.as_ref()).unwrap();
            assert_eq!(bits(&x), bits(&spread(&sum, cols, ld)), "{kind:?}, {team:?}");
            assert_eq!(bits(&y), bits(&want), "{kind:?}, {team:?}");
            for (r, row) in sum.chunks_exact(cols).enumerate() {
                let centre = row.iter().map(|&x| f64::from(x)).sum::<f64>() / cols_f64;
                let centre = if kind == Norm::Layer { centre } else { 0.0 };
                let spread = row.iter().map(|&x| (f64::from(x) - centre).powi(2)).sum::<f64>() / cols_f64;
                let factor = 1.0 / (spread + 1e-5).sqrt();
                // The kernels' bounds with 8 partial sums: a mean within (cols / 8 + 10) · u, a factor within
                // half of that and 6 · u, relatively; no element is above 2.
                let u = 2f64.powi(-24);
                let steps = cols_f64 / 8.0 + 10.0;
                assert!((f64::from(rstd[r]) - factor).abs() <= (steps / 2.0 + 6.0) * u * factor, "{kind:?}");
                assert!(kind == Norm::Rms || (f64::from(mean[r]) - centre).abs() <= 2.0 * steps * u);
            }
        }
    }
}

#[test]
fn elements_have_the_kernels_bits_on_any_team() {
    let kernels = kernels().unwrap();
    for n in [0, 1, 17, 200_003] {
        let (x, dy) = (noise(n, 1), noise(n, 2));
        let mut want = vec![0.0; n];
        for team in teams() {
            let team = team.as_ref();
            for (function, kernel) in [
                (Function::Exp, &kernels.unary.exp),
                (Function::Gelu(Gelu::Tanh), &kernels.unary.gelu_tanh),
                (Function::Silu, &kernels.unary.silu),
            ] {
                kernel.apply(&x, &mut want);
                let (mut y, mut in_place) = (vec![0.0; n], x.clone());
                map(function, &x, &mut y, team).unwrap();
                map(function, Input::InPlace, &mut in_place, team).unwrap();
                assert_eq!((bits(&y), bits(&in_place)), (bits(&want), bits(&want)), "{function:?}");
            }
            // Each input in turn is the output, and both.
            kernels.unary.silu_backward.apply(&x, &dy, &mut want);
            let (mut first, mut second) = (x.clone(), dy.clone());
            map_backward(Function::Silu, Input::InPlace, &dy, &mut first, team).unwrap();
            map_backward(Function::Silu, &x, Input::InPlace, &mut second, team).unwrap();
            assert_eq!((bits(&first), bits(&second)), (bits(&want), bits(&want)));
            let mut square = x.clone();
            mul(Input::InPlace, Input::InPlace, &mut square, team).unwrap();
            assert!(square.iter().zip(&x).all(|(square, x)| *square == x * x));
            let (mut y, mut twice) = (dy.clone(), x.clone());
            axpy(2.0, &x, &mut y, team).unwrap();
            assert!(y.iter().zip(x.iter().zip(&dy)).all(|(y, (x, dy))| *y == 2.0 * x + dy));
            axpy(1.0, Input::InPlace, &mut twice, team).unwrap();
            scale(2.0, &x, &mut want, team).unwrap();
            assert_eq!(bits(&twice), bits(&want));
        }
    }
}

#[test]
fn gated_pairs_go_back_through_any_of_their_buffers() {
    let kernel = &kernels().unwrap().unary.swiglu_backward;
    let n = 100_001;
    let inputs = [noise(n, 1), noise(n, 2), noise(n, 3)];
    let (mut want_dgate, mut want_dup) = (vec![0.0; n], vec![0.0; n]);
    kernel.apply(&inputs[0], &inputs[1], &inputs[2], &mut want_dgate, &mut want_dup);
    for team in teams() {
        for (first, second) in [(3, 3), (0, 1), (1, 0), (2, 1), (1, 2), (0, 3)] {
            let buffer = |i: usize| inputs.get(i).cloned().unwrap_or(vec![0.0; n]);
            let (mut dgate, mut dup) = (buffer(first), buffer(second));
            let input = |i: usize| match i {
                _ if i == first => GatedInput::Dgate,
                _ if i == second => GatedInput::Dup,
                _ => GatedInput::from(&inputs[i]),
            };
            let inputs = [input(0), input(1), input(2)];
            gated_backward(Gate::Silu, inputs, &mut dgate, &mut dup, team.as_ref()).unwrap();
            assert_eq!((bits(&dgate), bits(&dup)), (bits(&want_dgate), bits(&want_dup)), "{first} {second}");
        }
    }
}

#[test]
fn rotation_transposition_and_conversion_are_the_same_on_any_team() {
    let (rows, n_head, head_dim, rot_dim) = (301, 5, 24, 16);
    let cols = n_head * head_dim;
    let mut table = vec![0.0; 40 * rot_dim];
    rope_table(&mut table, rot_dim, 1e4, Scaling::default()).unwrap();
    let positions: Vec<u32> = (0..rows as u32).map(|r| r * 7 % 40).collect();
    let x = noise(rows * cols, 1);
    let angles = crate::kernels::rope::Angles::new(&table, rot_dim).unwrap();
    let mut rotated = x.clone();
    kernels().unwrap().rope.halves.apply(angles, &mut rotated, &positions, head_dim).unwrap();
    for team in teams() {
        let team = team.as_ref();
        let mut got = spread(&x, cols, cols + 2);
        let shape = RopeShape::new(rows, n_head, head_dim).with_ld(cols + 2);
        rope(Pairing::Halves, &mut got, shape, &positions, (&table, rot_dim), team).unwrap();
        assert_eq!(bits(&got), bits(&spread(&rotated, cols, cols + 2)));

        let mut y = vec![f32::NAN; cols * (rows + 1)];
        transpose(&x, &mut y, RowShape::new(rows, cols).with_ld(cols, rows + 1), team).unwrap();
        let right = |(i, y): (usize, &f32)| match (i % (rows + 1), i / (rows + 1)) {
            (r, _) if r == rows => y.is_nan(),
            (r, c) => *y == x[r * cols + c],
        };
        assert!(y.iter().enumerate().all(right));

        let (mut short, mut back) = (vec![0; x.len() * 8], vec![0.0; x.len() * 8]);
        let long = x.repeat(8);
        f32_to_bf16(&long, &mut short, team).unwrap();
        bf16_to_f32(&short, &mut back, team).unwrap();
        assert!(back.iter().zip(&long).all(|(got, x)| *got == half::bf16::from_f32(*x).to_f32()));
        f32_to_f16(&long, &mut short, team).unwrap();
        f16_to_f32(&short, &mut back, team).unwrap();
        assert!(back.iter().zip(&long).all(|(got, x)| *got == half::f16::from_f32(*x).to_f32()));
    }
}

/// An attention of the given shape in which q, k, v and out are noise, on a team.
fn attend(params: &Attention<'_>, team: Option<&Team>, workspace: &mut AttentionWorkspace) -> Vec<f32> {
    let extents = params.extents().unwrap();
    let (q, k, v) = (noise(extents.q, 1), noise(extents.k, 2), noise(extents.v, 3));
    let mut out = vec![f32::NAN; extents.out];
    attention(params, &q, &k, &v, &mut out, workspace, team).unwrap();
    out
}

#[test]
fn attention_has_the_same_bits_on_any_team() {
    let teams = teams();
    let mut workspace = AttentionWorkspace::default();
    let mask = noise(70 * 300, 4);
    for (tokens_q, tokens_kv, heads, kv, batch) in
        [(300, 300, 4, 2, 1), (500, 260, 3, 1, 2), (40, 1000, 2, 2, 3), (700, 700, 1, 1, 1), (9, 0, 2, 1, 1)]
    {
        for (causal, window, masked) in
            [(false, None, false), (true, None, true), (true, Some(33), false), (false, Some(33), false)]
        {
            let mut params = Attention::new(tokens_q, tokens_kv, heads, 24);
            (params.n_head_kv, params.batch) = (kv, batch);
            (params.causal, params.window) = (causal, window);
            // Heads before tokens, with gaps.
            let head = tokens_q * 25;
            params.out = Strides { batch: heads * head, token: 25, head };
            if masked && tokens_kv <= 300 {
                params.mask = Some(&mask);
                params.mask_strides = Strides { batch: 0, token: 41, head: 1 };
            }
            let want = attend(&params, None, &mut workspace);
            assert!(want.iter().enumerate().all(|(i, x)| x.is_nan() == (i % 25 == 24)), "{params:?}");
            for team in &teams {
                let got = attend(&params, team.as_ref(), &mut workspace);
                assert_eq!(bits(&got), bits(&want), "{params:?}, {team:?}");
            }
        }
    }
}

#[test]
fn attention_takes_no_memory_where_it_took_as_much_before() {
    let (team, mut workspace) = (Team::new(2).unwrap(), AttentionWorkspace::default());
    let mut params = Attention::new(300, 300, 4, 32);
    attend(&params, Some(&team), &mut workspace);
    let first = workspace.floats(0, 0).unwrap().as_ptr();
    params.tokens_q = 10;
    attend(&params, Some(&team), &mut workspace);
    attend(&params, None, &mut workspace);
    assert_eq!(workspace.floats(0, 0).unwrap().as_ptr(), first);
    assert!(workspace.floats(1, 300 * 32).unwrap().len() > 300 * 32);
}

#[test]
fn work_is_divided_only_where_that_gains_time() {
    let team = Team::new(2).unwrap();
    assert!(worth_sharing(1 << 40, None).is_none());
    assert!(worth_sharing(100, Some(&team)).is_none());
    assert!(worth_sharing(1 << 40, Some(&Team::new(1).unwrap())).is_none());
    assert!(worth_sharing(1 << 40, Some(&team)).is_some());
    // A small op doesn't notice a region that is already running; a large one is refused in it.
    let outcome = Mutex::new(Vec::new());
    team.run(|worker| {
        if worker.index() == 0 {
            let (mut short, mut long) = ([0.0; 8], vec![0.0; 1 << 20]);
            let mut outcome = outcome.lock().unwrap();
            outcome.push(map(Function::Exp, Input::InPlace, &mut short, Some(&team)));
            outcome.push(map(Function::Exp, Input::InPlace, &mut long, Some(&team)));
        }
    })
    .unwrap();
    assert!(matches!(outcome.into_inner().unwrap()[..], [Ok(()), Err(Error::Busy(_))]));
}

/// The text of the error that a bad argument must give.
fn refused(result: Result<()>) -> String {
    match result {
        Err(Error::InvalidArgument(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_rows_are_refused_with_their_numbers() {
    let (x, mut y) = ([0.5; 12], [7.0; 12]);
    let shape = RowShape::new(3, 4);
    let params = Softmax::default();
    assert_eq!(
        refused(softmax(&x[..11], &mut y, shape, &params, None)),
        "x: 3 rows of 4, 4 floats apart, are 12 floats; the slice has 11"
    );
    assert!(refused(softmax(&x, &mut y[..11], shape, &params, None)).starts_with("y: 3 rows of 4"));
    let close = shape.with_ld(3, 4);
    assert_eq!(
        refused(log_softmax(&x, &mut y, close, None)),
        "x: 4 columns, but only 3 floats to the next row"
    );
    // In place there is no x.
    log_softmax(Input::InPlace, &mut y.clone(), close, None).unwrap();
    let huge = RowShape::new(usize::MAX, 4);
    assert!(refused(softmax(&x, &mut y, huge, &params, None)).contains("doesn't fit into memory"));
    let scaled = Softmax { scale: f32::NAN, ..params };
    assert_eq!(refused(softmax(&x, &mut y, shape, &scaled, None)), "scale is NaN; it must be finite");
    for (len, ld_mask) in [(3, 0), (11, 4), (12, 3)] {
        let masked = Softmax { mask: Some(&x[..len]), ld_mask, ..params };
        assert!(refused(softmax(&x, &mut y, shape, &masked, None)).starts_with("mask: "), "{len} {ld_mask}");
    }
    assert_eq!(refused(add_row(&x, &x[..3], &mut y, shape, None)), "row has 3 elements; 4 are needed");
    for eps in [-1e-9, f32::NAN, f32::INFINITY] {
        let params = NormParams { eps, ..Default::default() };
        assert!(refused(rms_norm(&x, &mut y, shape, &params, None)).starts_with("eps is "), "{eps}");
    }
    let long = NormParams { weight: Some(&x), ..Default::default() };
    assert_eq!(refused(layer_norm(&x, &mut y, shape, &long, None)), "weight has 12 elements; 4 are needed");
    let long = NormParams { bias: Some(&x[..5]), ..Default::default() };
    assert_eq!(refused(layer_norm(&x, &mut y, shape, &long, None)), "bias has 5 elements; 4 are needed");
    let plain = NormParams::default();
    for (kind, rows, text) in [
        (Norm::Rms, 3, "mean is given, but RMSNorm takes no mean"),
        (Norm::Layer, 2, "mean has 3 elements; 2 are needed"),
    ] {
        let mut mean = [0.0; 3];
        let statistics = NormStatistics { mean: Some(&mut mean), rstd: None };
        let shape = RowShape::new(rows, 4);
        let result = norm(kind, NormInput::Slice(&x), &mut y, shape, &plain, statistics, None);
        assert_eq!(refused(result), text);
    }
    let (mut sum, short) = (x, &x[..9]);
    let input = NormInput::Sum { x: &mut sum, add: short, ld_add: 4 };
    let of_sum = norm(Norm::Layer, input, &mut y, shape, &plain, NormStatistics::default(), None);
    assert!(refused(of_sum).starts_with("add: 3 rows of 4, 4 floats apart, are 12 floats"));
    assert_eq!(
        refused(transpose(&x, &mut y, shape, None)),
        "y: 4 rows of 3, 4 floats apart, are 15 floats; the slice has 12"
    );
    let close = RowShape::transposed(3, 4).with_ld(4, 2);
    assert_eq!(
        refused(transpose(&x, &mut y, close, None)),
        "y: 3 columns, but only 2 floats to the next row"
    );
    assert_eq!((y, sum), ([7.0; 12], [0.5; 12]), "nothing is written");
}

#[test]
fn bad_elements_and_rotations_are_refused_with_their_numbers() {
    let (x, mut y, mut z) = ([0.5; 12], [7.0; 12], [7.0; 12]);
    assert_eq!(refused(map(Function::Relu, &x[..11], &mut y, None)), "x has 11 elements, y has 12");
    assert_eq!(refused(add(&x, &x[..1], &mut y, None)), "b has 1 elements, y has 12");
    assert_eq!(refused(gated(Gate::Silu, &x, &x[..2], &mut y, None)), "up has 2 elements, y has 12");
    let inputs = [GatedInput::from(&x), GatedInput::Dup, GatedInput::from(&x[..4])];
    assert_eq!(
        refused(gated_backward(Gate::Silu, inputs, &mut y, &mut z, None)),
        "dy has 4 elements; 12 are needed"
    );
    assert!(refused(gated_backward(Gate::Silu, inputs, &mut y, &mut z[1..], None)).starts_with("dup has 11"));
    assert!(matches!(map_backward(Function::Exp, &x, &x, &mut y, None), Err(Error::Unsupported(_))));
    assert_eq!(refused(f32_to_f16(&x, &mut [0; 3], None)), "x has 12 elements; 3 are needed");
    assert!(matches!(dot(&x, &x[..2]), Err(Error::InvalidArgument(_))));

    let (table, shape) = ([1.0; 8], RopeShape::new(3, 1, 4));
    let mut turn = |shape, positions: &[u32], table: &[f32], rot_dim| {
        refused(rope(Pairing::Adjacent, &mut y, shape, positions, (table, rot_dim), None))
    };
    assert_eq!(turn(shape, &[0, 1, 2], &table, 4), "position 2, but the table has 2 positions");
    assert_eq!(turn(shape, &[0, 1], &table, 4), "positions has 2 elements; 3 are needed");
    assert_eq!(turn(shape, &[0; 3], &table, 6), "rot_dim is 6, but heads have 4 elements");
    assert!(turn(shape, &[0; 3], &table, 3).contains('8'));
    assert!(turn(RopeShape::new(4, 1, 4), &[0; 4], &table, 4).starts_with("x: 4 rows of 4"));
    assert!(turn(RopeShape::new(1, usize::MAX, 4), &[0], &table, 4).contains("n_head times head_dim"));
    assert!(matches!(rope_table(&mut z, 4, 0.0, Scaling::default()), Err(Error::InvalidArgument(_))));
    assert_eq!((y, z), ([7.0; 12], [7.0; 12]), "nothing is written");
}

#[test]
fn bad_attentions_are_refused_with_their_numbers() {
    let (x, mut out) = ([0.5; 48], [7.0; 48]);
    let mut workspace = AttentionWorkspace::default();
    let mut attend = |params: &Attention<'_>, lens: [usize; 4]| {
        let [q, k, v, o] = lens;
        refused(attention(params, &x[..q], &x[..k], &x[..v], &mut out[..o], &mut workspace, None))
    };
    let plain = Attention::new(3, 3, 4, 4);
    for (i, name) in ["q", "k", "v", "out"].into_iter().enumerate() {
        let mut lens = [48; 4];
        lens[i] = 47;
        assert_eq!(attend(&plain, lens), format!("{name} reaches over 48 floats; the slice has 47"));
    }
    let full = [48; 4];
    let masked = Attention { mask: Some(&x[..2]), ..plain };
    assert_eq!(attend(&masked, full), "mask reaches over 3 floats; the slice has 2");
    assert!(attend(&Attention { n_head_kv: 3, ..plain }, full).contains("4 query heads can't share 3"));
    assert_eq!(
        attend(&Attention { scale: Some(f32::INFINITY), ..plain }, full),
        "scale is inf; it must be finite"
    );
    let woven = Strides { batch: 0, token: 4, head: 4 };
    assert!(attend(&Attention { out: woven, ..plain }, full).contains("rows of out overlap"));
    assert!(attend(&Attention { batch: usize::MAX, ..plain }, full).contains("doesn't fit into memory"));
    let short = |name| format!("{name} reaches over 4 floats; the slice has 3");
    assert_eq!(attend(&Attention { slopes: Some(&x[..3]), ..plain }, full), short("slopes"));
    assert_eq!(attend(&Attention { sinks: Some(&x[..3]), ..plain }, full), short("sinks"));
    for cap in [0.0, -1.0, 1e-31, 1e31, f32::INFINITY, f32::NAN] {
        let refused = attend(&Attention { soft_cap: Some(cap), ..plain }, full);
        assert_eq!(refused, format!("soft_cap is {cap}; it must lie between 1e-30 and 1e30"));
    }
    let none = Strides { batch: 0, token: 0, head: 1 };
    let many = Attention { tokens_kv: 1 << 32, k: none, v: none, ..Attention::new(1, 1, 1, 1) };
    assert!(attend(&many, full).contains("4294967296"));
    assert_eq!(out, [7.0; 48], "nothing is written");
}
