//! Every matmul kernel against the f64 reference, on every level and weight type: sizes round every edge of
//! tile, panel and slice, strides, misaligned memory, canaries; small integers exactly; the same bits in any split.

use super::*;
use crate::kernels::reference;
use crate::testing::noise;

const CANARY: f32 = -7777.0;

/// Kernels that this CPU can run.
fn kernels_here() -> impl Iterator<Item = &'static Kernel> {
    table().iter().filter(|kernel| kernel.info.isa.is_available())
}

/// A value as the weight type stores it, and its bytes.
fn stored(weights: DType, x: f32) -> (f32, Vec<u8>) {
    match weights {
        DType::F16 => {
            let half = half::f16::from_f32(x);
            (half.to_f32(), half.to_le_bytes().to_vec())
        }
        DType::BF16 => {
            let half = half::bf16::from_f32(x);
            (half.to_f32(), half.to_le_bytes().to_vec())
        }
        _ => (x, x.to_le_bytes().to_vec()),
    }
}

struct Case {
    m: usize,
    n: usize,
    k: usize,
    /// Floats of a gap between rows of X, and of Y.
    gaps: (usize, usize),
    bias: bool,
    accumulate: bool,
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    y: Vec<f32>,
}

impl Case {
    fn new(m: usize, n: usize, k: usize, mut value: impl FnMut() -> f32) -> Self {
        let mut fill = |n: usize| (0..n).map(|_| value()).collect::<Vec<_>>();
        let (x, w, b, y) = (fill(m * k), fill(n * k), fill(n), fill(m * n));
        Self { m, n, k, gaps: (0, 0), bias: false, accumulate: false, x, w, b, y }
    }

    fn random(m: usize, n: usize, k: usize) -> Self {
        let mut seed = (m * 1009 + n * 31 + k) as u64;
        Self::new(m, n, k, || noise(&mut seed))
    }

    /// Integers of −4..=4: every product and sum is exact in f32.
    fn integers(m: usize, n: usize, k: usize) -> Self {
        let mut seed = (m * 1009 + n * 31 + k) as u64;
        Self::new(m, n, k, || (noise(&mut seed) * 4.49).round())
    }

    /// Weights rounded to the kernel's type, and packed at an odd address.
    fn pack(&mut self, kernel: &Kernel) -> Vec<u8> {
        let bytes: Vec<u8> = self
            .w
            .iter_mut()
            .flat_map(|w| {
                let (value, bytes) = stored(kernel.weights, *w);
                *w = value;
                bytes
            })
            .collect();
        let mut packed = vec![0xffu8; 1 + kernel.packed_len(self.n, self.k).unwrap()];
        kernel
            .pack(&Source::rows(&bytes, self.n, self.k), 0..kernel.panels(self.n), &mut packed[1..])
            .unwrap();
        packed
    }

    /// Y by portions of `split` panels, in rows of at most `rows`; checks canaries.
    fn run(&self, kernel: &Kernel, packed: &[u8], split: usize, rows: usize) -> Vec<f32> {
        let (gap_x, gap_y) = self.gaps;
        let (ldx, ldy) = (self.k + gap_x, self.n + gap_y);
        // One byte off any alignment.
        let mut x = vec![0u8; 1 + 4 * self.m * ldx];
        for (i, line) in self.x.chunks_exact(self.k.max(1)).enumerate() {
            for (k, value) in line.iter().enumerate() {
                x[1 + 4 * (i * ldx + k)..][..4].copy_from_slice(&value.to_le_bytes());
            }
        }
        let mut y = vec![CANARY; self.m * ldy + 1];
        if self.accumulate {
            for i in 0..self.m {
                y[i * ldy..][..self.n].copy_from_slice(&self.y[i * self.n..][..self.n]);
            }
        }
        for first in (0..self.m).step_by(rows) {
            for begin in (0..kernel.panels(self.n)).step_by(split) {
                let portion = Portion {
                    x: x[1 + 4 * first * ldx..].as_ptr(),
                    ldx: 4 * ldx,
                    m: rows.min(self.m - first),
                    k: self.k,
                    w: packed[1..].as_ptr(),
                    panel_begin: begin,
                    panel_end: kernel.panels(self.n).min(begin + split),
                    n: self.n,
                    y: y[first * ldy..].as_mut_ptr(),
                    ldy,
                    bias: if self.bias { self.b.as_ptr() } else { std::ptr::null() },
                    accumulate: self.accumulate,
                };
                // SAFETY: the buffers have these shapes, and the level is available.
                unsafe { kernel.run(&portion) };
            }
        }
        assert_eq!(y.pop(), Some(CANARY), "written past Y");
        let lines = y.chunks_exact(ldy.max(1));
        assert!(lines.clone().all(|line| line[self.n..].iter().all(|&x| x == CANARY)), "gap of Y touched");
        lines.flat_map(|line| line[..self.n].to_vec()).collect()
    }

    /// The exact result, and the sum of the terms' magnitudes, which the bound multiplies.
    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let magnitude = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let (ax, aw, ab) = (magnitude(&self.x), magnitude(&self.w), magnitude(&self.b));
        let (b, ab) = if self.bias { (Some(&self.b[..]), Some(&ab[..])) } else { (None, None) };
        let mut sum = reference::matmul(&self.x, &self.w, b, self.m, self.n, self.k);
        let mut size = reference::matmul(&ax, &aw, ab, self.m, self.n, self.k);
        if self.accumulate {
            for ((sum, size), y) in sum.iter_mut().zip(&mut size).zip(&self.y) {
                *sum += f64::from(*y);
                *size += f64::from(y.abs());
            }
        }
        (sum, size)
    }

    fn check(&mut self, kernel: &Kernel, exact: bool) {
        let packed = self.pack(kernel);
        let (want, size) = self.reference();
        let got = self.run(kernel, &packed, usize::MAX / 2, usize::MAX / 2);
        // k products and the bias are added, each rounded (twice on the scalar level): γ(k + 2).
        let nu = (self.k + 2) as f64 / (1u64 << 24) as f64;
        for (i, ((got, want), size)) in got.iter().zip(&want).zip(&size).enumerate() {
            let bound = if exact { 0.0 } else { nu / (1.0 - nu) * size };
            let error = (f64::from(*got) - want).abs();
            assert!(error <= bound, "{}: element {i}: {got} for {want}, bound {bound}", self.name(kernel));
        }
    }

    fn name(&self, kernel: &Kernel) -> String {
        let (info, Self { m, n, k, gaps, bias, accumulate, .. }) = (kernel.info, self);
        format!(
            "{} {} {m}×{n}×{k} gaps {gaps:?} bias {bias} accumulate {accumulate}",
            info.isa.name(),
            info.dtype
        )
    }
}

/// Sizes 0 and 1, and round half an edge and each multiple of it.
fn round(edge: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, edge / 2, edge / 2 + 1, edge - 1, edge, edge + 1, 2 * edge - 1, 2 * edge + 1];
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn every_edge_agrees_with_the_reference_and_integers_agree_exactly() {
    for kernel in kernels_here() {
        // Every height of a tile, all groups of panels, depths across a slice of k.
        for m in 0..=2 * kernel.info.mr + 1 {
            for n in round(kernel.info.nr) {
                for k in [0, 1, 2, 5] {
                    Case::integers(m, n, k).check(kernel, true);
                    Case::random(m, n, k).check(kernel, false);
                }
            }
        }
        for n in (1..=9).map(|panels| panels * kernel.info.nr - 3) {
            for m in 1..=kernel.info.mr {
                Case::integers(m, n, 7).check(kernel, true);
            }
        }
        let slice = kernel.blocking.k_slice();
        for k in [slice - 1, slice, slice + 1, 2 * slice + 3] {
            for (m, n) in
                [(1, 5), (kernel.info.mr + 1, kernel.info.nr + 1), (3 * kernel.info.mr, 2 * kernel.info.nr)]
            {
                Case::integers(m, n, k).check(kernel, true);
                Case::random(m, n, k).check(kernel, false);
            }
        }
    }
}

#[test]
fn every_epilogue_and_stride() {
    for kernel in kernels_here() {
        let (mr, nr, slice) = (kernel.info.mr, kernel.info.nr, kernel.blocking.k_slice());
        for (m, n, k) in
            [(1, nr + 3, 9), (mr + 2, 2 * nr - 1, 33), (2 * mr, nr, slice + 5), (3, 1, 0), (4, nr, 1)]
        {
            for gaps in [(0, 0), (1, 3), (7, nr)] {
                for (bias, accumulate) in [(false, false), (true, false), (false, true), (true, true)] {
                    let with = |case| Case { gaps, bias, accumulate, ..case };
                    with(Case::integers(m, n, k)).check(kernel, true);
                    with(Case::random(m, n, k)).check(kernel, false);
                }
            }
        }
    }
}

#[test]
fn any_split_has_the_same_bits() {
    for kernel in kernels_here() {
        let (mr, nr, slice) = (kernel.info.mr, kernel.info.nr, kernel.blocking.k_slice());
        let mut case =
            Case { bias: true, accumulate: true, ..Case::random(3 * mr + 2, 5 * nr + 3, 2 * slice + 7) };
        let packed = case.pack(kernel);
        let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let whole = bits(case.run(kernel, &packed, usize::MAX / 2, usize::MAX / 2));
        for (split, rows) in [(1, usize::MAX / 2), (2, 5), (usize::MAX / 2, 1), (3, mr), (4, mr + 1)] {
            assert_eq!(
                bits(case.run(kernel, &packed, split, rows)),
                whole,
                "{} by {split}, {rows}",
                case.name(kernel)
            );
        }
    }
}

#[test]
fn row_blocks_beyond_one_slice_of_x() {
    // More rows of X than stay in L2 (512 KiB), so that the outermost loop runs several times.
    for kernel in kernels_here().filter(|kernel| kernel.info.isa > IsaId::Scalar) {
        let k = kernel.blocking.k_slice() + 1;
        Case::integers((512 << 10) / (4 * k) + kernel.info.mr + 3, 5, k).check(kernel, true);
    }
}

#[test]
fn nan_and_infinity_stay_in_their_rows() {
    for kernel in kernels_here() {
        let mut case = Case::integers(kernel.info.mr + 1, kernel.info.nr + 1, 6);
        case.x[7] = f32::NAN;
        case.x[12] = f32::INFINITY;
        case.w.iter_mut().for_each(|w| *w = 1.0);
        let packed = case.pack(kernel);
        let y = case.run(kernel, &packed, 1, usize::MAX / 2);
        for (i, line) in y.chunks_exact(case.n).enumerate() {
            for &y in line {
                assert!(if i == 1 {
                    y.is_nan()
                } else if i == 2 {
                    y == f32::INFINITY
                } else {
                    y.is_finite()
                });
            }
        }
    }
}

#[test]
fn packing_takes_both_orders_and_any_panels_and_gives_rows_back() {
    for kernel in kernels_here() {
        for (n, k, gap) in
            [(1, 1, 0), (kernel.info.nr + 1, 70, 0), (3 * kernel.info.nr - 1, 130, 5), (5, 0, 0)]
        {
            let mut case = Case::random(0, n, k);
            let whole = case.pack(kernel);
            let bytes = kernel.weights.block_bytes();
            for transposed in [false, true] {
                let (lines, line) = if transposed { (k, n) } else { (n, k) };
                let mut data = Vec::new();
                for i in 0..lines {
                    for j in 0..line {
                        let x = if transposed { case.w[j * k + i] } else { case.w[i * k + j] };
                        data.extend(stored(kernel.weights, x).1);
                    }
                    data.resize(data.len() + gap * bytes, 0xee);
                }
                let source = Source { data: &data, n, k, ld: line + gap, transposed };
                let panel = kernel.panel_bytes(k).unwrap();
                for p in 0..kernel.panels(n) {
                    let mut out = vec![0xaau8; panel];
                    kernel.pack(&source, p..p + 1, &mut out).unwrap();
                    assert_eq!(out, whole[1 + p * panel..][..panel], "panel {p}, {}", case.name(kernel));
                }
            }
            let mut out = vec![CANARY; k];
            for j in 0..n {
                kernel.unpack_row(&whole[1..], j, &mut out).unwrap();
                assert_eq!(out, case.w[j * k..][..k]);
            }
        }
    }
}

#[test]
fn packing_refuses_what_does_not_fit() {
    let nr = table()[0].blocking.nr;
    let kernel = &table()[0];
    let data = vec![0u8; 4 * 6 * nr];
    let good = Source::rows(&data, nr, 6);
    let size = kernel.packed_len(nr, 6).unwrap();
    assert!(kernel.pack(&good, 0..1, &mut vec![0; size]).is_ok());
    assert!(kernel.pack(&good, 0..1, &mut vec![0; size - 1]).is_err());
    assert!(kernel.pack(&good, 0..2, &mut vec![0; 2 * size]).is_err());
    assert!(kernel.pack(&good, 1..2, &mut vec![0; size]).is_err());
    for wrong in [
        Source { n: nr + 1, ..good },
        Source { k: 7, ..good },
        Source { ld: 5, ..good },
        Source { ld: usize::MAX, ..good },
        Source { n: usize::MAX, k: usize::MAX, ..good },
    ] {
        assert!(kernel.pack(&wrong, 0..1, &mut vec![0; size]).is_err(), "{} × {}", wrong.n, wrong.k);
    }
    assert!(kernel.unpack_row(&vec![0; size], nr, &mut [0.0; 6]).is_err());
    assert!(kernel.unpack_row(&vec![0; size], usize::MAX, &mut [0.0; 6]).is_err());
    assert_eq!(kernel.packed_len(usize::MAX, usize::MAX), None);
}

#[test]
fn the_bound_catches_a_lost_product_and_exactness_any_single_one() {
    // The planted faults: a reference that lacks the last product must not pass as exact.
    let kernel = MatmulKernels::select(IsaId::detect()).f32;
    let mut case = Case::integers(3, 5, 40);
    case.x.iter_mut().chain(&mut case.w).for_each(|x| *x = if *x == 0.0 { 1.0 } else { *x });
    let packed = case.pack(kernel);
    let got = case.run(kernel, &packed, 1, 3);
    let short = Case { k: 39, x: without_last(&case.x, 40), w: without_last(&case.w, 40), ..case };
    let (want, size) = short.reference();
    let nu = 42.0 / f64::from(1 << 24);
    assert!(got.iter().zip(&want).zip(&size).all(|((&g, w), size)| (f64::from(g) - w).abs() > nu * size));
}

/// Lines of `line` elements without their last ones.
fn without_last(x: &[f32], line: usize) -> Vec<f32> {
    x.chunks_exact(line).flat_map(|x| x[..line - 1].to_vec()).collect()
}

#[test]
fn no_kernel_is_chosen_that_this_cpu_lacks() {
    for isa in IsaId::ALL {
        let kernels = MatmulKernels::select(isa);
        for weights in [DType::F32, DType::F16, DType::BF16] {
            let kernel = kernels.kernel(weights).unwrap();
            assert!(kernel.info.isa.is_available() && kernel.weights == weights, "{isa:?}: {kernel:?}");
        }
    }
}
