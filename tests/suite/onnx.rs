//! ONNX's own test cases of the operators that the kernels compute: inputs and outputs that others wrote down.
//! Every case runs, on every instruction set of this CPU, or stands in [`LEFT_OUT`] with its reason.
//! The cases are fetched once into `target/onnx-cases` by `tests/fetch-onnx-cases.sh`.

use crate::onnx_format::{Attribute, Case, Data, Tensor};
use smallmind::isa::IsaId;
use smallmind::kernels::KernelSet;
use smallmind::kernels::attention::{AttentionArgs, HeadTiles, ScoreArgs, TILE};
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right};
use smallmind::kernels::rope::{Angles, Pairing};
use smallmind::kernels::rows::{Affine, Norm, Weighing};
use std::path::PathBuf;
use std::process::Command;

/// Cases that ask for what the library does not have.
const LEFT_OUT: [(&str, &str); 3] = [
    ("test_attention_4d_fp16", "activations in 16 bits"),
    ("test_attention_4d_gqa_with_past_and_present_fp16", "activations in 16 bits"),
    ("test_matmulinteger", "products of bytes with a zero point"),
];
/// Cases in the version that is fetched.
const CASES: usize = 141;

/// Half the distance from 1 to the next f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// What came out, and how far each element may be from what is written down. That was computed in f32, too: bounds
/// hold for both sides together.
struct Outcome {
    values: Vec<f32>,
    bound: Vec<f64>,
}

fn outcome(values: Vec<f32>, bound: impl Fn(usize) -> f64) -> Option<Outcome> {
    let bound = (0..values.len()).map(bound).collect();
    Some(Outcome { values, bound })
}

fn cases() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fetch-onnx-cases.sh");
    let output = Command::new("sh").arg(script).output().expect("sh runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {stderr}");
    let stdout = String::from_utf8(output.stdout).expect("a path in UTF-8");
    PathBuf::from(stdout.lines().last().expect("the path on the last line"))
}

#[test]
fn the_kernels_give_what_onnx_says() {
    let mut names: Vec<_> = std::fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), CASES, "every case of the package");
    let mut left_out = Vec::new();
    for folder in names {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        if LEFT_OUT.iter().any(|(listed, _)| *listed == name) {
            left_out.push(name);
            continue;
        }
        let case = Case::read(&folder);
        for isa in IsaId::available() {
            let kernels = KernelSet::select(isa).unwrap();
            let got = run(&kernels, &case);
            assert_eq!(got.len(), case.outputs.len(), "{name}: outputs");
            for (i, (got, want)) in got.iter().zip(&case.outputs).enumerate() {
                let Some(want) = want else { continue };
                let got = got.as_ref().unwrap_or_else(|| panic!("{name}: no output {i}"));
                compare(&format!("{name}, {}, output {i}", isa.name()), got, want.floats());
            }
        }
    }
    assert_eq!(left_out.len(), LEFT_OUT.len(), "a case that is listed is there");
}

fn compare(what: &str, got: &Outcome, want: &[f32]) {
    assert_eq!(got.values.len(), want.len(), "{what}: length");
    for (i, ((&got, &want), &bound)) in got.values.iter().zip(want).zip(&got.bound).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        let same = got == want || (got.is_nan() && want.is_nan());
        assert!(same || error <= bound, "{what}, element {i}: {got} for {want}, {error:e} > {bound:e}");
    }
}

#[test]
fn a_wrong_result_is_noticed() {
    let got = Outcome { values: vec![1.0, 2.0], bound: vec![1e-6; 2] };
    compare("right", &got, &[1.0, 2.000_000_5]);
    assert!(std::panic::catch_unwind(|| compare("wrong", &got, &[1.0, 2.000_01])).is_err());
    assert!(std::panic::catch_unwind(|| compare("short", &got, &[1.0])).is_err());
    assert!(std::panic::catch_unwind(|| compare("NaN", &got, &[1.0, f32::NAN])).is_err());
}

/// Computes a case's outputs.
fn run(kernels: &KernelSet, case: &Case) -> Vec<Option<Outcome>> {
    match case.op.as_str() {
        "Gelu" => vec![gelu(kernels, case)],
        "Softmax" => vec![softmax(kernels, case, false)],
        "LogSoftmax" => vec![softmax(kernels, case, true)],
        "LayerNormalization" => norm(kernels, case, &kernels.rows().layer_norm, case.optional(2)),
        "RMSNormalization" => norm(kernels, case, &kernels.rows().rms_norm, None),
        "MatMul" => vec![matmul(kernels, case)],
        "Gemm" => vec![general_product(kernels, case)],
        "RotaryEmbedding" => vec![rotary(kernels, case)],
        "Attention" => attention(kernels, case),
        op => panic!("no kernel for {op}"),
    }
}

fn gelu(kernels: &KernelSet, case: &Case) -> Option<Outcome> {
    let x = case.input(0).floats();
    let kernel = match case.attributes.get("approximate") {
        Some(Attribute::Text(form)) if form == "tanh" => &kernels.unary().gelu_tanh,
        _ => &kernels.unary().gelu_erf,
    };
    let mut y = vec![0.0; x.len()];
    kernel.apply(x, &mut y);
    // Theirs is x · (1 + erf) / 2 step by step, which cancels below 0.
    outcome(y, |i| 8.0 * U * f64::from(x[i]).abs())
}

/// The axis that an attribute names, counted from the front.
fn axis(case: &Case, rank: usize) -> usize {
    let axis = case.int("axis", -1);
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).unwrap()
}

fn softmax(kernels: &KernelSet, case: &Case, logarithm: bool) -> Option<Outcome> {
    let x = case.input(0);
    let axis = axis(case, x.dims.len());
    let (n, inner) = (x.dims[axis], x.dims[axis + 1..].iter().product::<usize>());
    let mut y = vec![0.0; x.len()];
    for (x, y) in x.floats().chunks(n * inner).zip(y.chunks_mut(n * inner)) {
        // The axis becomes the last one, and goes back.
        let (mut rows, mut out) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        kernels.transpose().f32.apply(x, &mut rows, inner).unwrap();
        if logarithm {
            kernels.rows().log_softmax.apply(&rows, &mut out, n).unwrap();
        } else {
            kernels.rows().softmax.apply(&rows, &mut out, n, Weighing::default()).unwrap();
        }
        kernels.transpose().f32.apply(&out, y, n).unwrap();
    }
    let result = y.clone();
    outcome(y, |i| {
        let y = f64::from(result[i]);
        // How far below the largest: at most ln n more than the result says.
        let below = (if logarithm { -y } else { -y.max(1e-38).ln() }) + (n as f64).ln();
        let steps = 2.0 * (n as f64 + 16.0 + 4.0 * below) * U;
        if logarithm { steps } else { steps * y + 2f64.powi(-126) }
    })
}

fn norm(kernels: &KernelSet, case: &Case, norm: &Norm, beta: Option<&Tensor>) -> Vec<Option<Outcome>> {
    let x = case.input(0);
    let layer = norm.info.op == kernels.rows().layer_norm.info.op;
    let cols: usize = x.dims[axis(case, x.dims.len())..].iter().product();
    let (gamma, eps) = (case.input(1).floats(), case.float("epsilon").unwrap_or(1e-5));
    let affine = Affine { gamma: Some(gamma), beta: beta.map(Tensor::floats), eps };
    let (mut y, rows) = (vec![0.0; x.len()], x.len() / cols);
    let (mut mean, mut rstd) = (vec![0.0; rows], vec![0.0; rows]);
    norm.apply_and_keep(x.floats(), &mut y, cols, affine, &mut mean, &mut rstd).unwrap();
    let steps = 2.0 * (cols as f64 + 16.0) * U;
    // A row's largest element bounds all that its sums are off by.
    let largest: Vec<f64> = x
        .floats()
        .chunks(cols)
        .map(|x| x.iter().fold(0.0, |m, &x| f64::max(m, f64::from(x).abs())))
        .collect();
    let factor: Vec<f64> = rstd.iter().map(|&rstd| f64::from(rstd)).collect();
    let result = y.clone();
    let of_y = |i: usize| {
        let (row, gamma) = (i / cols, f64::from(gamma[i % cols]).abs());
        steps * (2.0 * largest[row] * factor[row] * gamma + f64::from(result[i]).abs() + 1.0)
    };
    let mut outputs = vec![outcome(y, of_y)];
    if layer {
        outputs.push(outcome(mean, |row| steps * largest[row]));
        outputs.push(outcome(rstd, |row| steps * factor[row] * (1.0 + largest[row] * factor[row])));
    }
    outputs.truncate(case.outputs.len());
    outputs
}

/// A dense matrix.
#[derive(Clone, Copy)]
struct Operand<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
}

impl<'a> Operand<'a> {
    fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols }
    }

    /// How the kernel takes it, or its transpose.
    fn matrix(&self, transposed: bool) -> Matrix<'a> {
        Matrix { data: self.data, ld: self.cols, transposed }
    }

    /// Rows and columns of it, or of its transpose.
    fn shape(&self, transposed: bool) -> (usize, usize) {
        if transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// An element of it, or of its transpose.
    fn at(&self, transposed: bool, i: usize, j: usize) -> f64 {
        f64::from(if transposed { self.data[j * self.cols + i] } else { self.data[i * self.cols + j] })
    }
}

/// alpha · A · B + beta · C into C, A and B transposed where told; what a sum's terms add up to at most, each.
fn multiply(
    kernels: &KernelSet,
    alpha: f32,
    (a, a_transposed): (Operand, bool),
    (b, b_transposed): (Operand, bool),
    beta: f32,
    c: &mut [f32],
) -> Vec<f64> {
    let ((m, k), (_, n)) = (a.shape(a_transposed), b.shape(b_transposed));
    let (left, right) = (a.matrix(a_transposed), Right::Plain(b.matrix(b_transposed)));
    let gemm = Gemm { m, n, k, alpha, a: left, b: right, beta, epilogue: Epilogue::default() };
    let row = kernels.matmul().f32;
    let magnitude = (0..m * n).map(|i| {
        let terms = (0..k).map(|l| (a.at(a_transposed, i / n, l) * b.at(b_transposed, l, i % n)).abs());
        f64::from(alpha).abs() * terms.sum::<f64>() + (f64::from(beta) * f64::from(c[i])).abs()
    });
    let magnitude = magnitude.collect();
    gemm.run(row, c, n, &mut vec![0.0; gemm.scratch_len(row)]).unwrap();
    magnitude
}

/// A · B, or A · Bᵀ; and the magnitude of its sums.
fn product(kernels: &KernelSet, a: Operand, b: Operand, b_transposed: bool) -> (Vec<f32>, Vec<f64>) {
    let mut c = vec![0.0; a.rows * b.shape(b_transposed).1];
    let magnitude = multiply(kernels, 1.0, (a, false), (b, b_transposed), 0.0, &mut c);
    (c, magnitude)
}

fn matmul(kernels: &KernelSet, case: &Case) -> Option<Outcome> {
    let (a, b) = (case.input(0), case.input(1));
    let (&[.., m, k], &[.., _, n]) = (&a.dims[..], &b.dims[..]) else { panic!("matrices wanted") };
    assert_eq!(a.dims[..a.dims.len() - 2], b.dims[..b.dims.len() - 2], "no case repeats a matrix");
    let (mut values, mut magnitude) = (Vec::new(), Vec::new());
    for (a, b) in a.floats().chunks(m * k).zip(b.floats().chunks(k * n)) {
        let (c, sums) = product(kernels, Operand::new(a, m, k), Operand::new(b, k, n), false);
        values.extend(c);
        magnitude.extend(sums);
    }
    outcome(values, |i| 2.0 * (k as f64 + 2.0) * U * magnitude[i])
}

fn general_product(kernels: &KernelSet, case: &Case) -> Option<Outcome> {
    let operand =
        |i: usize| Operand::new(case.input(i).floats(), case.input(i).dims[0], case.input(i).dims[1]);
    let (a, b) = ((operand(0), case.int("transA", 0) != 0), (operand(1), case.int("transB", 0) != 0));
    let ((m, k), (_, n)) = (a.0.shape(a.1), b.0.shape(b.1));
    let (alpha, beta) = (case.float("alpha").unwrap_or(1.0), case.float("beta").unwrap_or(1.0));
    // C is a matrix, a row for all, or a number for all.
    let mut y = match case.optional(2).map(Tensor::floats) {
        None => vec![0.0; m * n],
        Some(&[one]) => vec![one; m * n],
        Some(c) => c.repeat(m * n / c.len()),
    };
    let magnitude = multiply(kernels, alpha, a, b, beta, &mut y);
    outcome(y, |i| 2.0 * (k as f64 + 5.0) * U * magnitude[i])
}

fn rotary(kernels: &KernelSet, case: &Case) -> Option<Outcome> {
    let (x, cos, sin) = (case.input(0), case.input(1), case.input(2));
    let half = *cos.dims.last().unwrap();
    let pairing = if case.int("interleaved", 0) != 0 { Pairing::Adjacent } else { Pairing::Halves };
    // [batch][heads][tokens][head], or [batch][tokens][heads · head].
    let (batch, heads, tokens, head) = match x.dims[..] {
        [batch, heads, tokens, head] => (batch, heads, tokens, head),
        [batch, tokens, line] => {
            let heads = case.int("num_heads", 0) as usize;
            (batch, heads, tokens, line / heads)
        }
        _ => panic!("three or four dimensions wanted"),
    };
    let lines = cos.floats().chunks(half).zip(sin.floats().chunks(half));
    let table: Vec<f32> = lines.flat_map(|(cos, sin)| [cos, sin].concat()).collect();
    let angles = Angles::new(&table, 2 * half).unwrap();
    let mut y = x.floats().to_vec();
    for b in 0..batch {
        // Without positions, the angles of each token stand in the caches themselves.
        let positions: Vec<u32> = (0..tokens)
            .map(|t| {
                case.optional(3).map_or(b * tokens + t, |p| p.integers()[b * tokens + t] as usize) as u32
            })
            .collect();
        let y = &mut y[b * heads * tokens * head..][..heads * tokens * head];
        if x.dims.len() == 3 {
            kernels.rope().of(pairing).apply(angles, y, &positions, head).unwrap();
        } else {
            for y in y.chunks_mut(tokens * head) {
                kernels.rope().of(pairing).apply(angles, y, &positions, head).unwrap();
            }
        }
    }
    let largest = x.floats().iter().fold(0.0, |m, &x| f64::max(m, f64::from(x).abs()));
    outcome(y, |_| 12.0 * U * largest)
}

/// Queries, keys or values as heads of each batch, `[batch][heads][tokens][head]`.
struct Heads {
    data: Vec<f32>,
    heads: usize,
    tokens: usize,
    head: usize,
}

impl Heads {
    fn new(x: &Tensor, heads: i64) -> Self {
        match x.dims[..] {
            [_, heads, tokens, head] => Self { data: x.floats().to_vec(), heads, tokens, head },
            [batch, tokens, line] => {
                let (heads, head) = (heads as usize, line / heads as usize);
                let at = |b, h, t| &x.floats()[((b * tokens + t) * heads + h) * head..][..head];
                let order = (0..batch)
                    .flat_map(|b| (0..heads).flat_map(move |h| (0..tokens).map(move |t| (b, h, t))));
                let data = order.flat_map(|(b, h, t)| at(b, h, t).to_vec()).collect();
                Self { data, heads, tokens, head }
            }
            _ => panic!("three or four dimensions wanted"),
        }
    }

    /// Behind what was there before.
    fn after(self, past: Option<&Tensor>) -> Self {
        let Some(past) = past else { return self };
        let Self { heads, tokens, head, .. } = self;
        let before = past.dims[2];
        let both = past.floats().chunks(before * head).zip(self.data.chunks(tokens * head));
        let data = both.flat_map(|(past, new)| [past, new].concat()).collect();
        Self { data, heads, tokens: before + tokens, head }
    }

    fn of(&self, batch: usize, head: usize) -> Operand<'_> {
        let len = self.tokens * self.head;
        Operand::new(&self.data[(batch * self.heads + head) * len..][..len], self.tokens, self.head)
    }
}

/// What is added to the scores of a batch and head: the mask, and −∞ for what causality or padding hides.
fn bias(case: &Case, b: usize, h: usize, heads: usize, tokens: usize, keys: usize) -> Vec<f32> {
    let before = case.optional(4).map_or(0, |past| past.dims[2]);
    let causal = case.int("is_causal", 0) != 0;
    let length = case.optional(6).map_or(keys, |n| n.integers()[b] as usize);
    let mask = case.optional(3).map(|mask| {
        let (lines, width) = (tokens, *mask.dims.last().unwrap());
        let which = match mask.dims[..mask.dims.len() - 2] {
            [] => 0,
            [n] => {
                if n == 1 {
                    0
                } else {
                    b
                }
            }
            [n_batch, n_head] => {
                (if n_batch == 1 { 0 } else { b }) * n_head + if n_head == 1 { 0 } else { h % heads }
            }
            _ => panic!("a mask of too many dimensions"),
        };
        (mask, which * lines * width, width)
    });
    let added = |t: usize, key: usize| {
        if (causal && key > before + t) || key >= length {
            return f32::NEG_INFINITY;
        }
        match mask {
            None => 0.0,
            Some((_, _, width)) if key >= width => f32::NEG_INFINITY,
            Some((mask, first, width)) => match &mask.data {
                Data::F32(x) => x[first + t * width + key],
                Data::Bool(x) => {
                    if x[first + t * width + key] {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                }
                other => panic!("a mask of {other:?}"),
            },
        }
    };
    (0..tokens * keys).map(|i| added(i / keys, i % keys)).collect()
}

fn attention(kernels: &KernelSet, case: &Case) -> Vec<Option<Outcome>> {
    let (q_heads, kv_heads) = (case.int("q_num_heads", 0), case.int("kv_num_heads", 0));
    let q = Heads::new(case.input(0), q_heads);
    let k = Heads::new(case.input(1), kv_heads).after(case.optional(4));
    let v = Heads::new(case.input(2), kv_heads).after(case.optional(5));
    let scale = case.float("scale").unwrap_or(1.0 / (q.head as f32).sqrt());
    let softcap = case.float("softcap").filter(|&cap| cap != 0.0);
    let batches = case.input(0).dims[0];
    // By token, head and element; and by batch, head, token and key.
    let mut y = vec![0.0; batches * q.tokens * q.heads * v.head];
    let (mut shown, mut largest_score) = (Vec::new(), 0f64);
    for (b, h) in (0..batches).flat_map(|b| (0..q.heads).map(move |h| (b, h))) {
        let group = h / (q.heads / k.heads);
        let (mut scores, sums) = product(kernels, q.of(b, h), k.of(b, group), true);
        largest_score = sums.iter().fold(largest_score, |m, &s| m.max(s * f64::from(scale)));
        let bias = bias(case, b, h, q.heads, q.tokens, k.tokens);
        kernels.unary().scale.apply_in_place(&mut scores, scale);
        let raw = scores.clone();
        kernels.unary().add.apply_in_place(&mut scores, &bias);
        let biased = scores.clone();
        if let Some(cap) = softcap {
            kernels.unary().scale.apply_in_place(&mut scores, 1.0 / cap);
            kernels.unary().tanh.apply_in_place(&mut scores);
            kernels.unary().scale.apply_in_place(&mut scores, cap);
        }
        let capped = scores.clone();
        kernels.rows().softmax.apply_in_place(&mut scores, k.tokens, Weighing::default()).unwrap();
        let weights = Operand::new(&scores, q.tokens, k.tokens);
        let (out, _) = product(kernels, weights, v.of(b, group), false);
        for (t, out) in out.chunks(v.head).enumerate() {
            let at = if case.input(0).dims.len() == 3 {
                ((b * q.tokens + t) * q.heads + h) * v.head
            } else {
                ((b * q.heads + h) * q.tokens + t) * v.head
            };
            y[at..at + v.head].copy_from_slice(out);
        }
        shown.extend_from_slice(
            [&raw, &biased, &capped, &scores][case.int("qk_matmul_output_mode", 0) as usize],
        );
        let unmasked = case.optional(3).is_none() && case.optional(6).is_none();
        let causal = case.int("is_causal", 0) != 0;
        // ONNX caps a score after its mask, which hides nothing then; the kernel caps it before.
        let plain = unmasked && !(causal && softcap.is_some());
        if plain && k.head == v.head {
            let start = case.optional(4).map_or(0, |past| past.dims[2]);
            let limits: Vec<u32> = (0..q.tokens)
                .map(|t| if causal { start + t + 1 } else { k.tokens }.min(k.tokens) as u32)
                .collect();
            let operands = [q.of(b, h), k.of(b, group), v.of(b, group)];
            let fused = fused_attention(kernels, operands, (scale, softcap), &limits);
            let bound = weighed_bound(largest_score, k.tokens, q.head);
            for (a, b) in fused.iter().zip(&out) {
                assert!(
                    (f64::from(*a) - f64::from(*b)).abs() <= bound,
                    "attention in one: {a}, in parts: {b}"
                );
            }
        }
    }
    let bound = weighed_bound(largest_score, k.tokens, q.head);
    let exact = |x: &Heads| outcome(x.data.clone(), |_| 0.0);
    let mut outputs = vec![outcome(y, |_| bound), exact(&k), exact(&v), outcome(shown, |_| bound)];
    outputs.truncate(case.outputs.len());
    outputs
}

/// What scores' errors come to in weights of sum 1, and in sums of values below 1 in magnitude.
fn weighed_bound(largest_score: f64, keys: usize, head: usize) -> f64 {
    (4.0 * (head as f64 + 8.0) * (largest_score + 1.0) + 4.0 * keys as f64 + 64.0) * U
}

/// One head's attention by the kernel that does it all.
fn fused_attention(
    kernels: &KernelSet,
    [q, k, v]: [Operand; 3],
    (scale, softcap): (f32, Option<f32>),
    limits: &[u32],
) -> Vec<f32> {
    let kernel = &kernels.attention().f32;
    let layout = kernel.layout(k.cols);
    let mut keys = vec![0; k.rows.div_ceil(TILE) * layout.key_tile()];
    let mut values = vec![0; k.rows.div_ceil(TILE) * layout.value_tile()];
    for (position, (key, value)) in k.data.chunks(k.cols).zip(v.data.chunks(k.cols)).enumerate() {
        kernel.store(&mut keys, &mut values, position, key, value).unwrap();
    }
    let mut out = vec![0.0; q.rows * q.cols];
    let mut scratch = vec![0.0; kernel.scratch_len(k.cols, q.rows).unwrap()];
    let args = AttentionArgs {
        q: q.data.as_ptr(),
        q_token_stride: q.cols,
        q_head_stride: q.cols,
        tokens: q.rows,
        heads: 1,
        head_dim: q.cols,
        scale,
        k: HeadTiles { first: keys.as_mut_ptr(), stride: layout.key_tile(), table: std::ptr::null() },
        v: HeadTiles { first: values.as_mut_ptr(), stride: layout.value_tile(), table: std::ptr::null() },
        limits: limits.as_ptr(),
        starts: std::ptr::null(),
        scores: ScoreArgs { soft_cap: softcap.unwrap_or(0.0), ..ScoreArgs::NONE },
        out: out.as_mut_ptr(),
        out_token_stride: q.cols,
        out_head_stride: q.cols,
        ahead: false,
        scratch: scratch.as_mut_ptr(),
    };
    // SAFETY: every buffer is as long as the kernel's contract asks, and the level is one of this CPU.
    unsafe { kernel.run(&args) };
    out
}
