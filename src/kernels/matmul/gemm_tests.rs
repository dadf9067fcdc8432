//! The general product on every level: each way to store its matrices gives the bits of the packed kernel, whose
//! values are tested against f64; sizes round every edge of tile, panel, slice and cut; gaps, odd addresses, canaries.

use super::*;
use crate::testing::noise_vec;

const CANARY: f32 = -7777.0;

/// f32 kernels that this CPU can run.
fn kernels_here() -> impl Iterator<Item = &'static Kernel> {
    table().iter().filter(|kernel| kernel.weights == DType::F32 && kernel.info.isa.is_available())
}

/// A dense matrix of `rows` × `columns` as it is stored: transposed or not, with a gap behind each line, at an odd
/// address.
struct Stored {
    memory: Vec<f32>,
    ld: usize,
    transposed: bool,
}

impl Stored {
    fn new(dense: &[f32], rows: usize, columns: usize, transposed: bool, gap: usize) -> Self {
        let (lines, line) = if transposed { (columns, rows) } else { (rows, columns) };
        let ld = line + gap;
        let mut memory = vec![f32::NAN; 1 + lines * ld];
        for i in 0..rows {
            for j in 0..columns {
                let at = if transposed { j * ld + i } else { i * ld + j };
                memory[1 + at] = dense[i * columns + j];
            }
        }
        Self { memory, ld, transposed }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix { data: &self.memory[1..], ld: self.ld, transposed: self.transposed }
    }
}

/// The operands of a product, dense: B as n × k.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let noise = |len, seed| noise_vec(len, (seed + 1000 * m + 100 * n + 10 * k) as u64);
        Self { m, n, k, a: noise(m * k, 1), b: noise(n * k, 2), c: noise(m * n, 3), bias: noise(n, 4) }
    }

    fn pack(&self, kernel: &Kernel) -> Vec<u8> {
        let bytes: Vec<u8> = self.b.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut packed = vec![0; kernel.packed_len(self.n, self.k).unwrap()];
        kernel.pack(&Source::rows(&bytes, self.n, self.k), 0..kernel.panels(self.n), &mut packed).unwrap();
        packed
    }

    /// α·A·Bᵀ + β·C + bias by the packed kernel, on an A and a C that were scaled before.
    fn want(&self, kernel: &Kernel, packed: &[u8], alpha: f32, beta: f32) -> Vec<f32> {
        let a: Vec<f32> = self.a.iter().map(|x| if alpha == 1.0 { *x } else { alpha * x }).collect();
        let mut y: Vec<f32> = self.c.iter().map(|x| beta * x).collect();
        let portion = Portion {
            x: a.as_ptr().cast(),
            ldx: 4 * self.k,
            m: self.m,
            k: self.k,
            w: packed.as_ptr(),
            panel_begin: 0,
            panel_end: kernel.panels(self.n),
            n: self.n,
            y: y.as_mut_ptr(),
            ldy: self.n,
            bias: self.bias.as_ptr(),
            accumulate: beta != 0.0,
        };
        // SAFETY: the buffers have these shapes, and the level is available.
        unsafe { kernel.run(&portion) };
        y
    }

    /// The same by the general product.
    fn run(&self, kernel: &Kernel, gemm: &Gemm<'_>, gap: usize) -> Vec<f32> {
        let ldc = self.n + gap;
        let mut c = vec![CANARY; 1 + self.m * ldc];
        for i in 0..self.m {
            // With β = 0, C must not be read.
            let start =
                if gemm.beta == 0.0 { &vec![f32::NAN; self.n][..] } else { &self.c[i * self.n..][..self.n] };
            c[1 + i * ldc..][..self.n].copy_from_slice(start);
        }
        let mut scratch = vec![f32::NAN; gemm.scratch_len(kernel) + 1];
        let end = scratch.len() - 1;
        scratch[end] = CANARY;
        gemm.run(kernel, &mut c[1..], ldc, &mut scratch[..end]).unwrap();
        assert_eq!(scratch[end], CANARY, "written past the scratch memory");
        assert_eq!(c[0], CANARY);
        let lines = c[1..].chunks_exact(ldc.max(1));
        assert!(lines.clone().all(|line| line[self.n..].iter().all(|&x| x == CANARY)), "gap of C touched");
        lines.flat_map(|line| line[..self.n].to_vec()).collect()
    }
}

fn check(kernel: &Kernel, (m, n, k): (usize, usize, usize), alpha: f32, beta: f32, gap: usize) {
    let case = Case::new(m, n, k);
    let packed = case.pack(kernel);
    let want = case.want(kernel, &packed, alpha, beta);
    for a_transposed in [false, true] {
        let a = Stored::new(&case.a, m, k, a_transposed, gap);
        let plain = [false, true].map(|b_transposed| {
            let flipped: Vec<f32> = (0..k * n).map(|i| case.b[i % n * k + i / n]).collect();
            Stored::new(&flipped, k, n, b_transposed, gap)
        });
        let rights =
            [Right::Plain(plain[0].matrix()), Right::Plain(plain[1].matrix()), Right::Packed(&packed)];
        for (i, b) in rights.into_iter().enumerate() {
            let epilogue = Epilogue { bias: Some(&case.bias), ..Epilogue::default() };
            let gemm = Gemm { m, n, k, alpha, a: a.matrix(), b, beta, epilogue };
            let got = case.run(kernel, &gemm, gap);
            let name = kernel.info.isa.name();
            let way = ["plain", "transposed", "packed"][i];
            assert!(
                got == want,
                "{name} {m} × {n} × {k}, A transposed {a_transposed}, B {way}, α {alpha}, β {beta}"
            );
        }
    }
}

#[test]
fn every_way_to_store_the_matrices_gives_the_packed_kernel_s_bits() {
    for kernel in kernels_here() {
        let (mr, nr, slice) = (kernel.info.mr, kernel.info.nr, kernel.blocking.k_slice());
        let sizes = [
            (0, 3, 2),
            (3, 0, 2),
            (2, 3, 0),
            (1, 1, 1),
            (1, 3 * nr + 5, 40),
            (1, nr / 2 + 1, 3 * slice + 7),
            (2, nr + 1, 33),
            (mr, nr, 7),
            (mr + 1, 9 * nr + 1, slice + 9),
            (2 * mr + 3, nr - 1, 2 * slice),
            (10 * mr + 1, 2 * nr, slice / 2),
        ];
        for shape in sizes {
            for (alpha, beta, gap) in [(1.0, 0.0, 0), (1.0, 1.0, 3), (0.3, -0.7, 1)] {
                check(kernel, shape, alpha, beta, gap);
            }
        }
    }
}

#[test]
fn few_rows_meet_a_b_as_it_lies() {
    for kernel in kernels_here() {
        let (nr, lanes) = (kernel.info.nr, kernel.lanes());
        for m in 1..=2 * kernel.info.mr + 1 {
            // A rest of columns and of k, less than a vector of either, and a distance of lines that shares L1's lines.
            for (n, k, gap) in [
                (2 * nr + lanes + 3, 3 * lanes + 5, 1),
                (nr - 1, 2 * lanes, 0),
                (lanes, lanes - 1, 0),
                (lanes - 1, 5 * lanes + 1, 2),
                (2 * lanes + 1, 7 * lanes + 4, 1024 - 7 * lanes - 4),
                // More columns than are worked on together where whole rows of B are walked.
                (walk::FLOATS + lanes + 3, 9, 1),
            ] {
                for (alpha, beta) in [(1.0, 0.0), (1.0, 0.5)] {
                    check(kernel, (m, n, k), alpha, beta, gap);
                }
            }
        }
    }
}

#[test]
fn products_beyond_every_cut() {
    // More than a quarter of L2 in A, more rows, columns and depth than are worked on together.
    for kernel in kernels_here() {
        let caches = crate::memory::cache_sizes();
        let quarter = caches.l2 / 4 / 4;
        let rows = 2 * kernel.info.mr + 1;
        let deep = (quarter / 40).max(1100);
        if kernel.info.isa != IsaId::Scalar {
            check(kernel, (quarter / 1100 + rows, 77, 1100), 1.0, 0.0, 0);
            check(kernel, (quarter / 600 + rows, caches.l2 / 4 / 512 + kernel.info.nr + 3, 600), 1.0, 1.0, 0);
        }
        check(kernel, (41, 70, deep), 1.0, 0.5, 0);
        // B from afar, met as it lies.
        check(kernel, (rows, quarter / 300 + 5, 300), 1.0, 0.0, 0);
        check(kernel, (1, quarter / 300 + 5, 300), 1.0, 0.0, 0);
    }
}

#[test]
fn an_epilogue_has_the_bits_of_the_separate_kernels() {
    for kernel in kernels_here() {
        let unary = crate::kernels::unary::UnaryKernels::select(kernel.info.isa);
        let (m, n, k) = (kernel.info.mr + 2, 2 * kernel.info.nr + 3, 50);
        let case = Case::new(m, n, k);
        let packed = case.pack(kernel);
        let plain = case.want(kernel, &packed, 1.0, 0.0);
        let (gate, residual) = (noise_vec(m * n, 5), noise_vec(m * n, 6));
        let lines = |data| Some(Lines { data, ld: n });
        let functions = [
            (Activation::None, None),
            (Activation::GeluErf, Some(&unary.gelu_erf)),
            (Activation::GeluTanh, Some(&unary.gelu_tanh)),
            (Activation::Silu, Some(&unary.silu)),
            (Activation::Relu, Some(&unary.relu)),
        ];
        for (activation, function) in functions {
            for (gated, added) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut f = if gated { gate.clone() } else { plain.clone() };
                if let Some(function) = function {
                    function.apply_in_place(&mut f);
                }
                let want: Vec<f32> = (0..m * n)
                    .map(|i| if gated { f[i] * plain[i] } else { f[i] })
                    .zip(&residual)
                    .map(|(x, residual)| if added { x + residual } else { x })
                    .collect();
                let epilogue = Epilogue {
                    bias: Some(&case.bias),
                    activation,
                    gate: if gated { lines(&gate) } else { None },
                    residual: if added { lines(&residual) } else { None },
                };
                let a = Matrix { data: &case.a, ld: k, transposed: false };
                let gemm = Gemm { m, n, k, alpha: 1.0, a, b: Right::Packed(&packed), beta: 0.0, epilogue };
                let got = case.run(kernel, &gemm, 2);
                assert!(
                    got == want,
                    "{}: {activation:?}, gate {gated}, residual {added}",
                    kernel.info.isa.name()
                );
            }
        }
    }
}

#[test]
fn halves_packed_ahead_multiply_too() {
    for kernel in
        table().iter().filter(|kernel| kernel.weights == DType::F16 && kernel.info.isa.is_available())
    {
        let f32_kernel = MatmulKernels::select(kernel.info.isa).f32;
        let mut case = Case::new(kernel.info.mr + 1, kernel.info.nr + 1, 30);
        let halves: Vec<half::f16> = case.b.iter().map(|&x| half::f16::from_f32(x)).collect();
        case.b = halves.iter().map(|x| x.to_f32()).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut packed = vec![0; kernel.packed_len(case.n, case.k).unwrap()];
        kernel.pack(&Source::rows(&bytes, case.n, case.k), 0..kernel.panels(case.n), &mut packed).unwrap();
        let Case { m, n, k, .. } = case;
        let a = Stored::new(&case.a, m, k, true, 1);
        let epilogue = Epilogue { bias: Some(&case.bias), ..Epilogue::default() };
        let gemm =
            Gemm { m, n, k, alpha: 1.0, a: a.matrix(), b: Right::Packed(&packed), beta: 0.0, epilogue };
        assert_eq!(case.run(kernel, &gemm, 0), case.want(f32_kernel, &case.pack(f32_kernel), 1.0, 0.0));
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_and_nothing_is_written() {
    let kernel = MatmulKernels::select(IsaId::detect()).f32;
    let (x, bias) = (vec![0.0f32; 12], vec![0.0f32; 4]);
    let a = Matrix { data: &x, ld: 3, transposed: false };
    let b = Matrix { data: &x, ld: 4, transposed: false };
    let good = Gemm {
        m: 4,
        n: 4,
        k: 3,
        alpha: 1.0,
        a,
        b: Right::Plain(b),
        beta: 0.0,
        epilogue: Epilogue { bias: Some(&bias), ..Epilogue::default() },
    };
    let mut c = vec![CANARY; 16];
    let mut scratch = vec![0.0; good.scratch_len(kernel)];
    let lines = |ld| Some(Lines { data: &x, ld });
    let wrong = [
        Gemm { m: 5, ..good },
        Gemm { k: 4, ..good },
        Gemm { n: 5, ..good },
        Gemm { a: Matrix { ld: 2, ..a }, ..good },
        Gemm { a: Matrix { transposed: true, ..a }, ..good },
        Gemm { b: Right::Plain(Matrix { ld: usize::MAX, ..b }), ..good },
        Gemm { b: Right::Packed(&[0; 5]), ..good },
        Gemm { m: usize::MAX, k: usize::MAX, ..good },
        Gemm { epilogue: Epilogue { bias: Some(&bias[1..]), ..Epilogue::default() }, ..good },
        Gemm { epilogue: Epilogue { gate: lines(4), ..Epilogue::default() }, ..good },
        Gemm { epilogue: Epilogue { residual: lines(3), ..Epilogue::default() }, ..good },
    ];
    for (i, gemm) in wrong.iter().enumerate() {
        assert!(gemm.run(kernel, &mut c, 4, &mut scratch).is_err(), "case {i}");
    }
    assert!(good.run(kernel, &mut c[..15], 4, &mut scratch).is_err());
    assert!(good.run(kernel, &mut c, 3, &mut scratch).is_err());
    if good.scratch_len(kernel) > 0 {
        assert!(good.run(kernel, &mut c, 4, &mut []).is_err());
    }
    assert!(good.run(MatmulKernels::select(IsaId::detect()).f16, &mut c, 4, &mut scratch).is_err());
    assert!(c.iter().all(|&x| x == CANARY));
    good.run(kernel, &mut c, 4, &mut scratch).unwrap();
}
