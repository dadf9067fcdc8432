//! Products of every kind of matrix on every level: within a derived bound of plain f64 loops, the parts of an epilogue
//! bit for bit, the same bits on any team and in any batch; operands that don't fit are refused with nothing written.

use super::*;
use crate::isa::IsaId;
use crate::kernels::qmatmul::Activations;
use crate::kernels::unary;
use crate::quant::{BLOCK, DType, encode_row};
use half::{bf16, f16};

const CANARY: f32 = -7777.0;

/// Uniform in −1..1, the same on every run.
fn noise(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u32;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// How a B is packed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    F32,
    F16,
    Bf16,
    Bf16Products,
    Quantized(DType, Activations),
}

const KINDS: [Kind; 11] = [
    Kind::Plain,
    Kind::F32,
    Kind::F16,
    Kind::Bf16,
    Kind::Bf16Products,
    Kind::Quantized(DType::Q8_0, Activations::Bits16),
    Kind::Quantized(DType::Q4_1, Activations::Bits8),
    Kind::Quantized(DType::Q4_K, Activations::Bits16),
    Kind::Quantized(DType::Q6_K, Activations::Adaptive),
    Kind::Quantized(DType::TQ2_0, Activations::Bits16),
    Kind::Quantized(DType::MXFP4, Activations::Bits8),
];

/// Every available level's kernels.
fn sets() -> impl Iterator<Item = KernelSet> {
    IsaId::available().map(|isa| KernelSet::select(isa).unwrap())
}

/// A B of one kind, and the f32 elements that it was made of.
struct Right {
    kernels: KernelSet,
    kind: Kind,
    k: usize,
    n: usize,
    elements: Vec<f32>,
    packed: Option<PackedMatrix>,
}

impl Right {
    /// k × n, stored as n lines of k where `transposed`.
    fn new(
        kernels: &KernelSet,
        kind: Kind,
        k: usize,
        n: usize,
        transposed: bool,
        team: Option<&Team>,
    ) -> Self {
        let mut kernels = *kernels;
        let elements = noise(k * n, k + 3 * n);
        let ld = if transposed { k } else { n };
        let b = Matrix { data: &elements[..], ld, transposed };
        let packed = match kind {
            Kind::Plain => None,
            Kind::F32 => Some(PackedMatrix::pack(&kernels, k, n, b, team)),
            Kind::F16 => {
                let data: Vec<_> = elements.iter().map(|&x| f16::from_f32(x)).collect();
                Some(PackedMatrix::pack(&kernels, k, n, Matrix { data: &data, ld, transposed }, team))
            }
            Kind::Bf16 => {
                let data: Vec<_> = elements.iter().map(|&x| bf16::from_f32(x)).collect();
                Some(PackedMatrix::pack(&kernels, k, n, Matrix { data: &data, ld, transposed }, team))
            }
            Kind::Bf16Products => Some(PackedMatrix::pack_bf16(&kernels, k, n, b, team)),
            Kind::Quantized(dtype, mode) => {
                kernels.qmatmul = kernels.qmatmul.with_activations(mode);
                Some(PackedMatrix::quantize(&kernels, dtype, k, n, b, team))
            }
        };
        let packed = packed.map(|packed| packed.unwrap());
        let mut elements = elements;
        if !transposed {
            // As rows, whatever the storage.
            elements = (0..n * k).map(|i| elements[i % k * n + i / k]).collect();
        }
        if let Some(packed) = &packed {
            elements.chunks_mut(k).enumerate().for_each(|(i, row)| packed.row(i, row).unwrap());
        }
        Right { kernels, kind, k, n, elements, packed }
    }

    /// As an operand; `elements` are the rows of a plain one.
    fn operand(&self) -> Operand<'_> {
        match &self.packed {
            Some(packed) => packed.into(),
            None => {
                let matrix = Matrix { data: &self.elements[..], ld: self.k, transposed: true };
                Operand::plain(&self.kernels, self.k, self.n, matrix)
            }
        }
    }

    /// How far a product may be from the exact one: the error of rounding or quantising A, and of rounding sums.
    fn bound(&self, a: &[f32], w: &[f32]) -> f64 {
        let size = |x: f64, w: f32| (x * f64::from(w)).abs();
        let magnitude: f64 = a.iter().zip(w).map(|(&x, &w)| size(f64::from(x), w)).sum();
        let moved: f64 = match self.kind {
            Kind::Bf16Products => magnitude / 256.0,
            Kind::Quantized(_, mode) => a
                .chunks(BLOCK)
                .zip(w.chunks(BLOCK))
                .map(|(a, w)| {
                    let d = f64::from(a.iter().fold(0.0f32, |peak, x| peak.max(x.abs()))) / 127.0;
                    let unit = if mode == Activations::Bits16 { 1.01 * d / 256.0 } else { 0.50002 * d };
                    w.iter().map(|&w| size(unit, w)).sum::<f64>()
                })
                .sum(),
            _ => 0.0,
        };
        // Each product and sum is rounded, scales and minimums too: as many as six times k roundings.
        let roundings = 6.0 * self.k as f64 + 30.0;
        moved + roundings / f64::from(1 << 24) * (magnitude + moved) * 1.01
    }
}

/// C of a product without gaps, on no team.
fn run(product: &Matmul<'_>, start: &[f32]) -> Vec<f32> {
    let mut c = start.to_vec();
    product.run(&mut c, product.b.n(), None, &mut Workspace::default()).unwrap();
    c
}

fn dense(data: &[f32], ld: usize) -> Matrix<'_> {
    Matrix { data, ld, transposed: false }
}

#[test]
fn every_kind_is_as_near_to_plain_loops_as_its_contract_says() {
    for kernels in sets() {
        for kind in KINDS {
            for (m, n, transposed) in [(1, 70, true), (5, 33, false), (37, 65, true)] {
                let k = 512;
                let right = Right::new(&kernels, kind, k, n, transposed, None);
                let a = noise(m * k, m);
                let c = run(&Matmul::new(m, dense(&a, k), right.operand()), &vec![f32::NAN; m * n]);
                for (i, &c) in c.iter().enumerate() {
                    let (x, w) = (&a[i / n * k..][..k], &right.elements[i % n * k..][..k]);
                    let exact: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    let (error, bound) = ((f64::from(c) - exact).abs(), right.bound(x, w));
                    assert!(error <= bound, "{kind:?} {m} × {n}: {error} > {bound}");
                    // The bound notices a product that is missing, of elements as large as most.
                    assert!(bound < 2.0, "{kind:?}: {bound} says nothing");
                }
            }
        }
    }
}

#[test]
fn alpha_beta_and_the_transpose_have_the_bits_of_what_they_mean() {
    for kernels in sets() {
        for kind in KINDS {
            let (m, n, k) = (19, 37, 256);
            let right = Right::new(&kernels, kind, k, n, true, None);
            let (a, start) = (noise(m * k, 1), noise(m * n, 2));
            let scaled = |x: &[f32], factor: f32| x.iter().map(|x| x * factor).collect::<Vec<_>>();
            let of = |a| Matmul::new(m, a, right.operand());
            let plain = run(&of(dense(&a, k)), &start);
            let flipped: Vec<f32> = (0..m * k).map(|i| a[i % m * k + i / m]).collect();
            let transposed = Matrix { data: &flipped[..], ld: m, transposed: true };
            assert!(run(&of(transposed), &start) == plain, "{kind:?}, A transposed");
            let by_hand = scaled(&a, 0.3);
            let want = run(&of(dense(&by_hand, k)), &start);
            assert!(run(&of(dense(&a, k)).alpha(0.3), &start) == want, "{kind:?}, α");
            let want = run(&of(dense(&a, k)).beta(1.0), &scaled(&start, -0.7));
            assert!(run(&of(dense(&a, k)).beta(-0.7), &start) == want, "{kind:?}, β");
            assert!(want != plain);
        }
    }
}

#[test]
fn an_epilogue_has_the_bits_of_the_separate_kernels() {
    for kernels in sets() {
        for kind in KINDS {
            let (m, n, k) = (9, 35, 256);
            let right = Right::new(&kernels, kind, k, n, false, None);
            let (a, bias) = (noise(m * k, 3), noise(n, 4));
            let (gate, residual) = (noise(m * n, 5), noise(m * n, 6));
            let start = vec![0.0; m * n];
            let product = Matmul::new(m, dense(&a, k), right.operand()).bias(&bias);
            let plain = run(&product, &start);
            let silu = unary::UnaryKernels::select(kernels.isa).silu;
            for gated in [false, true] {
                let mut f = if gated { gate.clone() } else { plain.clone() };
                silu.apply_in_place(&mut f);
                let outputs = f.iter().zip(&plain).map(|(f, plain)| if gated { f * plain } else { *f });
                let want: Vec<f32> = outputs.zip(&residual).map(|(x, residual)| x + residual).collect();
                let mut product =
                    product.activation(Activation::Silu).residual(Lines { data: &residual, ld: n });
                if gated {
                    product = product.gate(Lines { data: &gate, ld: n });
                }
                assert!(run(&product, &start) == want, "{kind:?}, gate {gated}");
            }
        }
    }
}

#[test]
fn any_team_and_any_batch_give_the_bits_of_one_thread() {
    let kernels = KernelSet::select(IsaId::detect()).unwrap();
    let teams = [2, 3].map(|threads| Team::new(threads).unwrap());
    for kind in KINDS {
        // More rows than one worker converts at a time, and few rows of many columns.
        for (m, n) in [(1100, 40), (3, 900)] {
            let k = 256;
            let right = Right::new(&kernels, kind, k, n, true, None);
            let (a, bias, residual) = (noise(3 * m * k, 1), noise(n, 2), noise(m * n, 3));
            let ldc = n + 3;
            let product = Matmul::new(m, dense(&a, k), right.operand()).alpha(0.5).beta(1.0);
            let product = product.bias(&bias).residual(Lines { data: &residual, ld: n });
            let (size, gap) = ((m - 1) * ldc + n, 5);
            let batch = Batch { count: 3, stride_a: m * k, stride_b: 0, stride_c: size + gap };
            let start = noise(2 * batch.stride_c + size, 7);
            let mut want = start.clone();
            for i in 0..3 {
                let a = Matrix { data: &a[i * m * k..][..m * k], ..product.a };
                let c = &mut want[i * batch.stride_c..][..size];
                Matmul { a, ..product }.run(c, ldc, None, &mut Workspace::default()).unwrap();
            }
            for team in [None, Some(&teams[0]), Some(&teams[1])] {
                let mut workspace = Workspace::default();
                for _ in 0..2 {
                    let mut c = start.clone();
                    product.run_batch(&batch, &mut c, ldc, team, &mut workspace).unwrap();
                    assert!(c == want, "{kind:?} {m} × {n} on {team:?}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let kernels = KernelSet::select(IsaId::detect()).unwrap();
    for kind in KINDS {
        let (m, n, k) = (4, 6, 256);
        let right = Right::new(&kernels, kind, k, n, true, None);
        let (a, short) = (noise(m * k, 1), noise(n - 1, 2));
        let good = Matmul::new(m, dense(&a, k), right.operand());
        let mut c = vec![CANARY; m * n];
        let mut workspace = Workspace::default();
        let lines = |ld| Lines { data: &a[..m * n], ld };
        let wrong = [
            Matmul { m: m + 1, ..good },
            Matmul { m: usize::MAX, ..good },
            Matmul::new(m, dense(&a[1..], k), right.operand()),
            Matmul::new(m, dense(&a, k - 1), right.operand()),
            Matmul::new(m, dense(&a, usize::MAX), right.operand()),
            Matmul::new(m, Matrix { transposed: true, ..good.a }, right.operand()),
            good.bias(&short),
            good.bias(&a[..n + 1]),
            good.gate(lines(n + 1)),
            good.residual(lines(n - 1)),
            good.gate(lines(usize::MAX)),
        ];
        let refused = |result: Result<()>| matches!(result, Err(Error::InvalidArgument(_)));
        for (i, product) in wrong.iter().enumerate() {
            assert!(refused(product.run(&mut c, n, None, &mut workspace)), "{kind:?}, case {i}");
        }
        assert!(refused(good.run(&mut c[1..], n, None, &mut workspace)));
        assert!(refused(good.run(&mut c, n - 1, None, &mut workspace)));
        assert!(refused(good.run(&mut c, usize::MAX, None, &mut workspace)));
        let batch = Batch { count: 2, stride_a: 0, stride_b: 0, stride_c: m * n };
        for batch in [
            batch,
            Batch { stride_c: m * n - 1, ..batch },
            Batch { stride_a: 1, count: usize::MAX, ..batch },
            Batch { stride_a: usize::MAX, ..batch },
        ] {
            assert!(refused(good.run_batch(&batch, &mut c, n, None, &mut workspace)), "{kind:?} {batch:?}");
        }
        assert!(c.iter().all(|&c| c == CANARY));
        Matmul { m: 0, ..good }.run(&mut [], n, None, &mut workspace).unwrap();
        good.run(&mut c, n, None, &mut workspace).unwrap();
        assert!(c.iter().all(|&c| c != CANARY));
    }
}

#[test]
fn without_products_a_result_is_the_bias() {
    let kernels = KernelSet::select(IsaId::detect()).unwrap();
    for kind in [Kind::F32, Kind::Bf16Products, Kind::Quantized(DType::Q8_0, Activations::Bits16)] {
        let empty = Matrix { data: &[][..], ld: 0, transposed: true };
        let packed = match kind {
            Kind::F32 => PackedMatrix::pack::<f32>(&kernels, 0, 3, empty, None),
            Kind::Bf16Products => PackedMatrix::pack_bf16::<f32>(&kernels, 0, 3, empty, None),
            _ => PackedMatrix::from_rows(&kernels, DType::Q8_0, 0, 3, &[], None),
        };
        let packed = packed.unwrap();
        let product = Matmul::new(2, dense(&[], 0), &packed);
        assert_eq!(run(&product.bias(&[1.0, 2.0, 3.0]), &[CANARY; 6]), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    }
}

#[test]
fn packing_is_the_same_from_any_storage_and_on_any_team() {
    let team = Team::new(3).unwrap();
    for kernels in sets() {
        for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Plain) {
            let (k, n) = (512, 300);
            let rows = Right::new(&kernels, kind, k, n, true, None).packed.unwrap();
            let shared = Right::new(&kernels, kind, k, n, true, Some(&team)).packed.unwrap();
            assert!(rows.panels() == shared.panels(), "{kind:?} on a team");
            // The same numbers with columns for lines.
            let numbers = noise(k * n, k + 3 * n);
            let flipped: Vec<f32> = (0..k * n).map(|i| numbers[i % n * k + i / n]).collect();
            let b = Matrix { data: &flipped[..], ld: n, transposed: false };
            let halves: Vec<_> = flipped.iter().map(|&x| f16::from_f32(x)).collect();
            let brains: Vec<_> = flipped.iter().map(|&x| bf16::from_f32(x)).collect();
            let columns = match kind {
                Kind::F16 => PackedMatrix::pack(
                    &kernels,
                    k,
                    n,
                    Matrix { data: &halves, ld: n, transposed: false },
                    None,
                ),
                Kind::Bf16 => PackedMatrix::pack(
                    &kernels,
                    k,
                    n,
                    Matrix { data: &brains, ld: n, transposed: false },
                    None,
                ),
                Kind::Bf16Products => PackedMatrix::pack_bf16(&kernels, k, n, b, None),
                Kind::Quantized(dtype, _) => PackedMatrix::quantize(&kernels, dtype, k, n, b, None),
                _ => PackedMatrix::pack(&kernels, k, n, b, None),
            };
            assert!(columns.unwrap().panels() == rows.panels(), "{kind:?} of columns");
            let dtype = match kind {
                Kind::F32 => DType::F32,
                Kind::Quantized(dtype, _) => dtype,
                _ => continue,
            };
            let mut raw = vec![0; dtype.row_bytes(k).unwrap() * n];
            encode_row(dtype, &numbers, &mut raw).unwrap();
            let stored = PackedMatrix::from_rows(&kernels, dtype, k, n, &raw, Some(&team)).unwrap();
            assert!(stored.panels() == rows.panels(), "{kind:?} of stored rows");
            assert_eq!((stored.k(), stored.n(), stored.bytes()), (k, n, rows.panels().len()));
        }
    }
}

#[test]
fn matrices_that_can_not_be_packed_are_refused() {
    let kernels = KernelSet::select(IsaId::detect()).unwrap();
    let data = noise(64, 1);
    let b = |ld, transposed| Matrix { data: &data[..], ld, transposed };
    let invalid = |result: Result<PackedMatrix>| matches!(result, Err(Error::InvalidArgument(_)));
    for (k, n, b) in
        [(8, 9, b(8, true)), (8, 8, b(7, true)), (8, 8, b(7, false)), (8, 8, b(usize::MAX, true))]
    {
        assert!(invalid(PackedMatrix::pack(&kernels, k, n, b, None)));
        assert!(invalid(PackedMatrix::pack_bf16(&kernels, k, n, b, None)));
        assert!(invalid(PackedMatrix::quantize(&kernels, DType::Q8_0, k, n, b, None)));
    }
    assert!(invalid(PackedMatrix::quantize(&kernels, DType::Q8_0, 16, 2, b(16, true), None)), "half a block");
    let unsupported = PackedMatrix::quantize(&kernels, DType::IQ2_S, 0, 0, b(0, true), None);
    assert!(matches!(unsupported, Err(Error::Unsupported(_))));
    for bytes in [0, 33, 35, 68] {
        assert!(invalid(PackedMatrix::from_rows(&kernels, DType::Q8_0, 32, 1, &vec![0; bytes], None)));
    }
    assert!(invalid(PackedMatrix::from_rows(&kernels, DType::Q8_0, 33, 1, &[0; 34], None)));
    assert!(PackedMatrix::from_rows(&kernels, DType::F32, usize::MAX / 4096, 0, &[], None).is_ok());
    assert!(PackedMatrix::from_rows(&kernels, DType::F32, usize::MAX / 2, 0, &[], None).is_err());
    let good = PackedMatrix::pack(&kernels, 8, 8, b(8, true), None).unwrap();
    let mut row = [CANARY; 8];
    assert!(good.row(8, &mut row).is_err() && good.row(0, &mut row[1..]).is_err());
    good.row(7, &mut row).unwrap();
    assert_eq!(row, data[56..]);
}
