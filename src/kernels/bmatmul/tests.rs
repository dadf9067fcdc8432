//! Every level against the f64 reference on rounded inputs, within the bound that the contract states: sizes round
//! every edge of tile, panel, slice and block; small integers exactly; strides, misaligned memory that ends where
//! nothing may be touched; the same bits in any split; NaN, infinities, numbers below the normal ones.

use super::*;
use crate::kernels::matmul::Source;
use crate::kernels::reference;
use crate::memory::Mapping;
use crate::testing::noise;
use half::bf16;

const CANARY: f32 = -7777.0;

/// Kernels that this CPU can run.
fn kernels_here() -> impl Iterator<Item = &'static Kernel> {
    TABLE.iter().filter(|kernel| kernel.info.isa.is_available())
}

fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Bytes that end where a page ends that can't be touched (or at the allocation's end, off Linux), `shift` before it.
struct Guarded {
    begin: *mut u8,
    len: usize,
    shift: usize,
    /// Keeps the bytes.
    _mapping: Option<Mapping>,
}

impl Guarded {
    #[cfg(target_os = "linux")]
    fn new(len: usize, shift: usize) -> Self {
        const PAGE: usize = 4096;
        let mapping = Mapping::ballast(len + shift + PAGE).unwrap();
        let end = mapping.first().as_ptr().wrapping_add(mapping.len() - PAGE);
        // SAFETY: the last page of the mapping, which nobody uses.
        assert_eq!(unsafe { libc::mprotect(end.cast(), PAGE, libc::PROT_NONE) }, 0);
        Self { begin: end.wrapping_sub(shift + len), len, shift, _mapping: Some(mapping) }
    }

    #[cfg(not(target_os = "linux"))]
    fn new(len: usize, shift: usize) -> Self {
        let base = Box::leak(vec![0u8; len + shift].into_boxed_slice()).as_mut_ptr();
        Self { begin: base, len, shift, _mapping: None }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes of the mapping.
        unsafe { std::slice::from_raw_parts_mut(self.begin, self.len) }
    }

    fn floats(values: &[f32]) -> Self {
        let mut guarded = Self::new(4 * values.len(), 0);
        let bytes = values.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>();
        guarded.bytes().copy_from_slice(&bytes);
        guarded
    }
}

/// `m` rounded rows of `k`, which have `gap` floats between them, `shift` bytes before the end of memory.
fn round_rows(kernel: &Kernel, x: &Guarded, [m, k]: [usize; 2], gap: usize, shift: usize) -> Guarded {
    let floats = if m * k == 0 { 0 } else { (m - 1) * (k + gap) + k };
    assert!(4 * floats <= x.len);
    let mut rounded = Guarded::new(m * kernel.row_bytes(k).unwrap(), shift);
    rounded.bytes().fill(0xff);
    // SAFETY: x has m rows of k, and `rounded` room for them.
    unsafe { kernel.round_rows(x.begin.cast(), k + gap, m, k, rounded.begin) };
    rounded
}

#[derive(Clone)]
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
        Self { m, n, k, gaps: (0, 0), bias: false, accumulate: false, x, w: rounded(&w), b, y }
    }

    fn random(m: usize, n: usize, k: usize) -> Self {
        let mut seed = (m * 1009 + n * 31 + k) as u64;
        Self::new(m, n, k, || noise(&mut seed))
    }

    /// Integers of −4..=4: every product and sum is exact.
    fn integers(m: usize, n: usize, k: usize) -> Self {
        let mut seed = (m * 1009 + n * 31 + k) as u64;
        Self::new(m, n, k, || (noise(&mut seed) * 4.49).round())
    }

    fn weights(&self) -> Vec<u8> {
        self.w.iter().flat_map(|&w| bf16::from_f32(w).to_le_bytes()).collect()
    }

    /// The packed weights, `shift` bytes before the end of the memory that may be touched.
    fn pack(&self, kernel: &'static Kernel, shift: usize) -> Guarded {
        let layout = kernel.layout();
        let mut packed = Guarded::new(layout.packed_bytes(self.n, self.k).unwrap(), shift);
        let bytes = self.weights();
        packed.bytes().fill(0xff);
        let source = Source::rows(&bytes, self.n, self.k);
        layout.pack(&source, 0..layout.panels(self.n), packed.bytes()).unwrap();
        packed
    }

    /// Y by portions of `split` panels, in rows of at most `rows`; all memory ends where it must.
    fn run(&self, kernel: &'static Kernel, packed: &Guarded, split: usize, rows: usize) -> Vec<f32> {
        let Self { m, n, k, gaps: (gap_x, gap_y), .. } = *self;
        let spread = |values: &[f32], columns: usize, gap: usize| {
            let mut out = Vec::new();
            for (i, line) in values.chunks_exact(columns.max(1)).enumerate() {
                out.resize(i * (columns + gap), CANARY);
                out.extend_from_slice(line);
            }
            out
        };
        let x = Guarded::floats(&spread(&self.x, k, gap_x));
        let row_bytes = kernel.row_bytes(k).unwrap();
        let rounded = round_rows(kernel, &x, [m, k], gap_x, packed.shift);
        let start = if self.accumulate { self.y.clone() } else { vec![CANARY; m * n] };
        let mut y = Guarded::floats(&spread(&start, n, gap_y));
        let bias = Guarded::floats(&self.b);
        let (layout, ldy) = (kernel.layout(), n + gap_y);
        for first in (0..m).step_by(rows) {
            for begin in (0..layout.panels(n)).step_by(split) {
                let portion = Portion {
                    x: rounded.begin.wrapping_add(first * row_bytes),
                    ldx: row_bytes,
                    m: rows.min(m - first),
                    k,
                    w: packed.begin,
                    panel_begin: begin,
                    panel_end: layout.panels(n).min(begin.saturating_add(split)),
                    n,
                    y: y.begin.cast::<f32>().wrapping_add(first * ldy),
                    ldy,
                    bias: if self.bias { bias.begin.cast() } else { std::ptr::null() },
                    accumulate: self.accumulate,
                };
                // SAFETY: the buffers have these shapes, and the level is available.
                unsafe { kernel.run(&portion) };
            }
        }
        let y: Vec<f32> =
            y.bytes().chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect();
        for line in y.chunks(ldy.max(1)) {
            assert!(line.iter().skip(n).all(|&x| x == CANARY), "{}: gap of Y touched", self.name(kernel));
        }
        y.chunks(ldy.max(1)).flat_map(|line| line[..n].to_vec()).collect()
    }

    fn whole(&self, kernel: &'static Kernel) -> Vec<f32> {
        self.run(kernel, &self.pack(kernel, 0), usize::MAX / 2, usize::MAX / 2)
    }

    /// The exact result, and the sum of the terms' magnitudes, which the bound multiplies.
    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let (m, n, k, x) = (self.m, self.n, self.k, rounded(&self.x));
        let magnitude = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let (ax, aw, ab) = (magnitude(&x), magnitude(&self.w), magnitude(&self.b));
        let (b, ab) = if self.bias { (Some(&self.b[..]), Some(&ab[..])) } else { (None, None) };
        let mut sum = reference::matmul(&x, &self.w, b, m, n, k);
        let mut size = reference::matmul(&ax, &aw, ab, m, n, k);
        if self.accumulate {
            for ((sum, size), y) in sum.iter_mut().zip(&mut size).zip(&self.y) {
                *sum += f64::from(*y);
                *size += f64::from(y.abs());
            }
        }
        (sum, size)
    }

    /// The error that the contract allows output `i`, `size` being the sum of its terms' magnitudes.
    fn bound(&self, kernel: &'static Kernel, i: usize, size: f64) -> f64 {
        let (isa, k) = (kernel.info.isa, self.k);
        let roundings = match isa {
            IsaId::Amx => k.div_ceil(32) + 18,
            IsaId::NeonBf16 => 2 * k.div_ceil(2) + 6,
            _ => k + 2,
        };
        let nu = roundings as f64 / f64::from(1 << 24);
        let rounding = nu / (1.0 - nu) * size;
        if !matches!(isa, IsaId::Avx512Bf16 | IsaId::Amx | IsaId::NeonBf16) {
            return rounding;
        }
        let sum = |line: &[f32]| line.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        let (x, w) = (&self.x[i / self.n * k..][..k], &self.w[i % self.n * k..][..k]);
        rounding + f64::from(f32::MIN_POSITIVE) * (k as f64 + 2.0 + sum(x) + sum(w))
    }

    fn check(&self, kernel: &'static Kernel, exact: bool) {
        let (want, size) = self.reference();
        let got = self.whole(kernel);
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let bound = if exact { 0.0 } else { self.bound(kernel, i, size[i]) };
            let error = (f64::from(*got) - want).abs();
            assert!(error <= bound, "{}: element {i}: {got} for {want}, bound {bound}", self.name(kernel));
        }
    }

    fn name(&self, kernel: &'static Kernel) -> String {
        let Self { m, n, k, gaps, bias, accumulate, .. } = self;
        format!("{} {m}×{n}×{k} gaps {gaps:?} bias {bias} accumulate {accumulate}", kernel.info.isa.name())
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
        let (mr, nr) = (kernel.info.mr, kernel.info.nr);
        for m in (0..=34).chain([47, 48, 49, 64, 65]).filter(|&m| m <= 2 * mr + 1) {
            for n in round(nr) {
                for k in [0, 1, 2, 5, 33] {
                    Case::integers(m, n, k).check(kernel, true);
                    Case::random(m, n, k).check(kernel, false);
                }
            }
        }
        for k in [31, 32, 63, 64, 65, 127, 511, 512, 513, 1025, 1055] {
            for (m, n) in [(1, 5), (2, 3 * nr + 1), (mr + 1, nr + 1), (3 * mr, 2 * nr)] {
                Case::integers(m, n, k).check(kernel, true);
                Case::random(m, n, k).check(kernel, false);
            }
        }
        for panels in 1..=18 {
            Case::integers(mr.min(33), panels * nr - 3, 7).check(kernel, true);
        }
    }
}

#[test]
fn blocks_of_k_and_chunks_of_rows() {
    // Longer than a block of k, and more rows than stay in L2 with it.
    for kernel in kernels_here().filter(|kernel| kernel.info.isa > IsaId::Scalar) {
        for (m, n, k) in [(49, 5, 2049), (530, 5, 2200), (49, 300, 2113)] {
            Case { bias: true, accumulate: true, ..Case::integers(m, n, k) }.check(kernel, true);
        }
        Case { bias: true, ..Case::random(50, 40, 2500) }.check(kernel, false);
    }
}

#[test]
fn every_epilogue_and_stride() {
    for kernel in kernels_here() {
        let (mr, nr) = (kernel.info.mr, kernel.info.nr);
        for (m, n, k) in
            [(1, nr + 3, 9), (mr + 2, 2 * nr - 1, 33), (2 * mr + 1, 2 * nr, 517), (3, 1, 0), (4, nr, 1)]
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
fn any_split_and_any_alignment_have_the_same_bits() {
    let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for kernel in kernels_here() {
        let (mr, nr) = (kernel.info.mr, kernel.info.nr);
        let k = if kernel.info.isa == IsaId::Scalar { 300 } else { 2100 };
        let case = Case { bias: true, accumulate: true, ..Case::random(3 * mr + 2, 5 * nr + 3, k) };
        let whole = bits(case.whole(kernel));
        for (split, rows, shift) in [
            (1, usize::MAX / 2, 0),
            (2, 5, 1),
            (usize::MAX / 2, 1, 3),
            (3, mr, 64),
            (4, mr + 1, 2),
            (1, 17, 0),
        ] {
            let got = bits(case.run(kernel, &case.pack(kernel, shift), split, rows));
            assert!(got == whole, "{} by {split}, {rows}", case.name(kernel));
        }
    }
}

#[test]
fn results_that_are_written_past_the_caches_have_the_same_bits() {
    // From 1 MiB on, where rows are cache lines; a panel alone is less.
    for kernel in kernels_here().filter(|kernel| kernel.info.isa == IsaId::Amx) {
        for (m, n, k, bias, accumulate) in
            [(136, 2000, 520, true, true), (160, 2032, 1200, true, false), (163, 1984, 2100, false, true)]
        {
            let case = Case { bias, accumulate, ..Case::random(m, n, k) };
            let packed = case.pack(kernel, 0);
            let whole = case.run(kernel, &packed, usize::MAX / 2, usize::MAX / 2);
            assert!(whole == case.run(kernel, &packed, 1, usize::MAX / 2), "{}", case.name(kernel));
        }
    }
}

#[test]
fn the_order_of_additions_is_the_one_that_is_documented() {
    let (m, n, k) = (5, 7, 331);
    let case = Case { bias: true, ..Case::random(m, n, k) };
    let (x, pad) = (rounded(&case.x), |line: &[f32]| [line, &[0.0; 64]].concat());
    for kernel in kernels_here() {
        let step = match kernel.info.isa {
            IsaId::Scalar | IsaId::Avx2 | IsaId::AvxVnni | IsaId::Avx512 | IsaId::Neon => 1,
            IsaId::Avx512Bf16 => 2,
            IsaId::Amx => 32,
            // Sums are rounded in a way that f32 does not have.
            _ => continue,
        };
        let want = (0..m * n).map(|i| {
            let (x, w) = (pad(&x[i / n * k..][..k]), pad(&case.w[i % n * k..][..k]));
            let fused = |sum: f32, at: usize| x[at].mul_add(w[at], sum);
            (0..k).step_by(step).fold(case.b[i % n], |sum, at| match step {
                1 => fused(sum, at),
                2 => fused(fused(sum, at + 1), at),
                _ => {
                    let every_other = |first| (first..at + step).step_by(2).fold(0.0, fused);
                    sum + (every_other(at) + every_other(at + 1))
                }
            })
        });
        assert_eq!(case.whole(kernel), want.collect::<Vec<_>>(), "{}", case.name(kernel));
    }
}

#[test]
fn nan_and_infinity_stay_in_their_rows_and_columns() {
    for kernel in kernels_here() {
        let mut case = Case::integers(kernel.info.mr + 1, kernel.info.nr + 1, 7);
        case.w.iter_mut().for_each(|w| *w = 1.0);
        case.x[8] = f32::NAN;
        case.x[15] = f32::INFINITY;
        case.w[7 * 3] = f32::NAN;
        for (i, y) in case.whole(kernel).into_iter().enumerate() {
            match (i / case.n, i % case.n) {
                (1, _) | (_, 3) => assert!(y.is_nan(), "{}: {i} is {y}", case.name(kernel)),
                (2, _) => assert_eq!(y, f32::INFINITY, "{}: {i}", case.name(kernel)),
                _ => assert!(y.is_finite(), "{}: {i} is {y}", case.name(kernel)),
            }
        }
    }
}

#[test]
fn numbers_below_the_normal_ones_stay_within_the_bound() {
    for kernel in kernels_here() {
        for (tiny, other) in
            [(1e-39, 1.0), (1.1e-38, 3.0), (1e-30, 1e-9), (f32::MIN_POSITIVE, -1.0), (1e-44, 1e-44)]
        {
            let mut seed = 5;
            let mut case = Case::new(3, 5, 9, || noise(&mut seed));
            case.x.iter_mut().for_each(|x| *x *= tiny);
            case.w.iter_mut().for_each(|w| *w = bf16::from_f32(*w * other).to_f32());
            case.check(kernel, false);
        }
    }
}

/// Elements of a row that a kernel has rounded.
fn elements(kernel: &'static Kernel, row: &[u8]) -> Vec<f32> {
    if matches!(kernel.engine, Engine::Widening(_)) {
        return row.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect();
    }
    row.chunks_exact(2).map(|x| bf16::from_ne_bytes(x.try_into().unwrap()).to_f32()).collect()
}

#[test]
fn rounding_goes_to_the_nearest_even_and_fills_rows_with_zeros() {
    let mut values: Vec<f32> =
        vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX];
    // NaN whose set bits are all in the lower half, all in the upper; ties down and up, and their neighbours.
    for bits in [0x7f80_0001, 0xff80_0001, 0x7fff_ffff, 0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001] {
        values.push(f32::from_bits(bits));
    }
    let mut seed = 7;
    values.extend((0..300).map(|i| noise(&mut seed) * 2f32.powi(i % 200 - 100)));
    values.extend([1e-40, -1e-45, 1.17e-38]);
    for kernel in kernels_here() {
        for k in [0, 1, 7, 15, 16, 31, 32, 33, 64, 100, values.len()] {
            let (bytes, x) = (kernel.row_bytes(k).unwrap(), Guarded::floats(&values[values.len() - k..]));
            assert!(bytes % 128 == 64);
            let mut out = round_rows(kernel, &x, [1, k], 0, 0);
            assert_eq!(out.len, bytes);
            let got = elements(kernel, out.bytes());
            assert!(got[k..].iter().all(|x| x.to_bits() == 0), "{}: {k}", kernel.info.isa.name());
            for (&x, got) in values[values.len() - k..].iter().zip(got) {
                let want = bf16::from_f32(x).to_f32();
                let flushed =
                    kernel.info.isa >= IsaId::Avx512Bf16 && got == 0.0 && x.abs() < f32::MIN_POSITIVE;
                let same = got.to_bits() == want.to_bits() || (got.is_nan() && x.is_nan());
                assert!(same || flushed, "{}: {got} for {x}", kernel.info.isa.name());
            }
        }
    }
}

#[test]
fn packing_takes_both_orders_and_any_panels_and_gives_rows_back() {
    for kernel in kernels_here() {
        let (layout, nr) = (kernel.layout(), kernel.info.nr);
        for (n, k, gap) in [(1, 1, 0), (nr + 1, 70, 0), (3 * nr - 1, 131, 5), (5, 0, 0)] {
            let case = Case::random(0, n, k);
            let mut whole = case.pack(kernel, 1);
            for transposed in [false, true] {
                let (lines, line) = if transposed { (k, n) } else { (n, k) };
                let mut data = Vec::new();
                for i in 0..lines {
                    let at = |j| if transposed { j * k + i } else { i * k + j };
                    data.extend((0..line).flat_map(|j| bf16::from_f32(case.w[at(j)]).to_le_bytes()));
                    data.resize(data.len() + 2 * gap, 0xee);
                }
                let source = Source { data: &data, n, k, ld: line + gap, transposed };
                let panel = layout.panel_bytes(k).unwrap();
                for p in 0..layout.panels(n) {
                    let mut out = vec![0xaau8; panel];
                    layout.pack(&source, p..p + 1, &mut out).unwrap();
                    assert!(out == whole.bytes()[p * panel..][..panel], "panel {p}, {}", case.name(kernel));
                }
            }
            let mut out = vec![CANARY; k];
            for j in 0..n {
                layout.unpack_row(whole.bytes(), j, &mut out).unwrap();
                assert_eq!(out, case.w[j * k..][..k]);
            }
        }
        let data = vec![0u8; 2 * 6 * nr];
        let (good, size) = (Source::rows(&data, nr, 6), layout.packed_bytes(nr, 6).unwrap());
        assert!(layout.pack(&good, 0..1, &mut vec![0; size]).is_ok());
        assert!(layout.pack(&good, 0..1, &mut vec![0; size - 1]).is_err());
        assert!(layout.pack(&good, 1..2, &mut vec![0; size]).is_err());
        assert!(layout.pack(&Source { n: nr + 1, ..good }, 0..1, &mut vec![0; size]).is_err());
        assert!(layout.unpack_row(&vec![0; size], nr, &mut [0.0; 6]).is_err());
        assert!(layout.unpack_row(&vec![0; size], usize::MAX, &mut [0.0; 6]).is_err());
        assert_eq!(layout.packed_bytes(usize::MAX, usize::MAX), None);
    }
}

#[test]
fn a_level_gets_its_own_kernels_or_the_next_lower() {
    for isa in IsaId::available() {
        let want = match isa {
            IsaId::AvxVnni => IsaId::Avx2,
            IsaId::Avx512Vnni => IsaId::Avx512,
            IsaId::NeonDotprod => IsaId::Neon,
            own => own,
        };
        assert_eq!(Kernel::select(isa).info().isa, want);
    }
}

#[test]
fn no_kernel_is_chosen_that_this_cpu_lacks() {
    for isa in IsaId::ALL {
        assert!(Kernel::select(isa).info().isa.is_available(), "{isa:?}");
    }
}
