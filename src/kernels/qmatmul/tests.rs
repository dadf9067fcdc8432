//! Every level, type and mode against the contract's arithmetic: in f64 within a derived bound, and in f32 bit
//! for bit; small integers against a plain matmul; edges, canaries, portions, extremes.

use super::activations::{MAGIC, MAGIC_256, RowParts};
use super::*;
use crate::kernels::levels::emulated;
use crate::quant::{self, BLOCK};

mod packing;
mod products;
mod quantizing;

/// The kernels of every level of this CPU.
fn levels() -> impl Iterator<Item = QmatmulKernels> {
    let here = TABLE.iter().filter(|level| level.isa.is_available());
    let here = here.filter(|level| level.isa != IsaId::Scalar || !emulated());
    here.map(|level| QmatmulKernels { level, activations: Activations::default() })
}

/// The types; under an emulator, one of those that are packed alike, whose kernels are the same code.
fn types() -> impl Iterator<Item = DType> {
    let form = |&dtype: &DType| form::Form::of(dtype);
    let is_first = move |i: usize| DTYPES[..i].iter().all(|other| form(other) != form(&DTYPES[i]));
    let emulated = emulated();
    (0..DTYPES.len()).filter(move |&i| !emulated || is_first(i)).map(|i| DTYPES[i])
}

/// [`levels`] for every mode of activations.
fn sets() -> impl Iterator<Item = QmatmulKernels> {
    levels().flat_map(|set| Activations::ALL.map(|mode| set.with_activations(mode)))
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    /// Evenly in −1..1.
    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
    /// As activations are: some blocks stand out of the rest.
    fn activations(&mut self, n: usize) -> Vec<f32> {
        let mut x = self.floats(n);
        x.chunks_mut(BLOCK).filter(|_| self.below(3) == 0).for_each(|block| block[7] *= 20.0);
        x
    }
    /// Rows in the file's format, of blocks with any levels, and scales such that no weight is beyond 1000.
    fn weights(&mut self, dtype: DType, n: usize, k: usize) -> Vec<u8> {
        let mut bytes = vec![0; n * dtype.row_bytes(k).unwrap()];
        let mut values = vec![0.0; dtype.block_len()];
        for block in bytes.chunks_mut(dtype.block_bytes()) {
            loop {
                block.fill_with(|| self.next() as u8);
                quant::decode_row(dtype, block, &mut values).unwrap();
                if values.iter().all(|x| x.abs() < 1e3) {
                    break;
                }
            }
        }
        bytes
    }
}

/// K as it is, or the next that the type has rows of.
fn whole_blocks(dtype: DType, k: usize) -> usize {
    k.next_multiple_of(dtype.block_len())
}

fn has_minimum(dtype: DType) -> bool {
    form::Form::of(dtype).unwrap().minimum
}

/// Packs a whole matrix, panel by panel.
fn pack(kernel: &Kernel, rows: &[u8], n: usize, k: usize) -> Vec<u8> {
    let mut packed = vec![0xaa; kernel.packed_bytes(n, k).unwrap()];
    let (row, panel) = (kernel.layout.dtype.row_bytes(k).unwrap(), kernel.panel_bytes(k).unwrap());
    if panel > 0 {
        for (rows, panel) in rows.chunks(row * kernel.nr()).zip(packed.chunks_mut(panel)) {
            kernel.layout.pack_panel(rows, k, panel).unwrap();
        }
    }
    packed
}

/// Bytes that nobody wrote.
pub(super) const UNTOUCHED: u8 = 0xaa;

/// Rows quantised, with a check that nothing past them is written.
pub(super) fn quantize(set: &QmatmulKernels, x: &[f32], k: usize) -> Vec<u8> {
    let rows = x.len().checked_div(k).unwrap_or(0);
    let bytes = rows * set.row_bytes(k);
    let mut out = vec![UNTOUCHED; bytes + 64];
    // SAFETY: both slices have these sizes.
    unsafe { set.quantize_rows(x.as_ptr(), k, rows, k, out.as_mut_ptr()) };
    assert!(out[bytes..].iter().all(|&byte| byte == UNTOUCHED), "wrote past the rows");
    out.truncate(bytes);
    out
}

/// A block of activations, read by the documented offsets.
struct X {
    bytes: Vec<[i32; BLOCK]>,
    d: f32,
    /// Of the block and of its halves.
    scaled_sums: [f32; 3],
    kept: bool,
}

impl X {
    /// Element i in units of d/256, or of d where there is one byte.
    fn whole(&self, i: usize) -> i32 {
        self.bytes.iter().fold(0, |whole, byte| 256 * whole + byte[i])
    }

    /// The unit of [`X::whole`].
    fn unit(&self) -> f64 {
        f64::from(self.d) / if self.bytes.len() == 2 { 256.0 } else { 1.0 }
    }
}

fn read_x(set: &QmatmulKernels, row: &[u8], k: usize, block: usize) -> X {
    let bytes = set.activations.bytes();
    let in_words = bytes == 2 && activations::keeps_words(set.isa());
    let parts = RowParts::new(bytes, k);
    let record = |part: usize| -> [i32; 4] {
        let bytes = &row[part + 16 * block..][..16];
        std::array::from_fn(|i| i32::from_ne_bytes(bytes[4 * i..][..4].try_into().unwrap()))
    };
    let float = |bits: i32| f32::from_bits(bits as u32);
    let [d, sum, start, kept] = record(parts.blocks);
    let [first_sum, last_sum, first_start, last_start] = record(parts.halves);
    assert!(kept == 0 || kept == 1);
    let x = X {
        bytes: match in_words {
            true => read_words(&row[64 * block..][..64], kept == 1),
            false => (0..bytes)
                .map(|d| std::array::from_fn(|i| i32::from(row[d * k + 32 * block + i] as i8)))
                .collect(),
        },
        d: float(d),
        scaled_sums: [sum, first_sum, last_sum].map(float),
        kept: kept == 1,
    };
    let halves = |byte: usize| [0, 16].map(|at| x.bytes[byte][at..at + 16].iter().sum::<i32>());
    let [first, last] = halves(0);
    let starts = [MAGIC - 128 * (first + last), MAGIC - 128 * first, -128 * last];
    assert_eq!([start, first_start, last_start], starts);
    if bytes == 2 {
        let [second_first, second_last] = halves(1);
        let moved = |sum: i32| (-128 * sum).wrapping_sub(MAGIC_256);
        let totals = [256 * first + second_first, 256 * last + second_last].map(|sum| -128 * sum);
        let total = totals[0] + totals[1];
        let second = match in_words {
            true => [0, totals[0], totals[1], total],
            false => [moved(second_first + second_last), moved(second_first), -128 * second_last, total],
        };
        assert_eq!(record(parts.second), second);
        assert!(x.kept || x.bytes[1] == [0; BLOCK]);
    }
    x
}

/// Both bytes of a block that is kept as words, or of one whose high bytes are followed by zeros.
fn read_words(block: &[u8], kept: bool) -> Vec<[i32; BLOCK]> {
    if !kept {
        assert!(block[32..].iter().all(|&byte| byte == 0));
        return vec![std::array::from_fn(|i| i32::from(block[i] as i8)), [0; BLOCK]];
    }
    let word = |i: usize| {
        let at = 32 * (i % 2) + 4 * (i / 4) + 2 * (i / 2 % 2);
        i32::from(i16::from_ne_bytes([block[at], block[at + 1]]))
    };
    let low = |i: usize| i32::from(word(i) as i8);
    vec![std::array::from_fn(|i| (word(i) - low(i)) / 256), std::array::from_fn(low)]
}

/// 32 weights of a column: integers, and for each half the scale and the minimum.
struct W {
    levels: [i32; BLOCK],
    scales: [f32; 2],
    minimums: [f32; 2],
}

fn read_w(dtype: DType, row: &[u8], block: usize) -> W {
    let per_block = dtype.block_len() / BLOCK;
    let (block, part) = (block / per_block, block % per_block);
    let bytes = &row[block * dtype.block_bytes()..][..dtype.block_bytes()];
    if let Some(w) = dtype.levels(bytes) {
        return W {
            levels: w.q.map(|q| i32::from(q) - i32::from(w.offset)),
            scales: [w.d.to_f32(); 2],
            minimums: [w.m.map_or(0.0, |m| m.to_f32()); 2],
        };
    }
    if let Some(w) = dtype.parts(bytes) {
        let form = dtype.form().unwrap();
        let sub = |half: usize| (part * BLOCK + 16 * half) / form.sub;
        return W {
            levels: std::array::from_fn(|i| i32::from(form.level(w.codes[part * BLOCK + i]))),
            scales: [0, 1].map(|half| w.d.to_f32() * f32::from(w.scales[sub(half)])),
            minimums: [0, 1].map(|half| -(w.dmin.to_f32() * f32::from(w.minimums[sub(half)]))),
        };
    }
    let w = dtype.plain(bytes).unwrap();
    W {
        levels: std::array::from_fn(|i| i32::from(w.q[part * BLOCK + i])),
        scales: [w.scales[2 * part], w.scales[2 * part + 1]],
        minimums: [0.0; 2],
    }
}

/// The operands of a portion.
struct Case {
    set: QmatmulKernels,
    kernel: &'static Kernel,
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
    weights: Vec<u8>,
    packed: Vec<u8>,
    x: Vec<u8>,
}

impl Case {
    fn new(set: QmatmulKernels, dtype: DType, [m, n, k]: [usize; 3], weights: Vec<u8>, x: &[f32]) -> Self {
        let kernel = set.kernel(dtype).unwrap();
        let packed = pack(kernel, &weights, n, k);
        let mut quantized = quantize(&set, x, k);
        quantized.resize(m * set.row_bytes(k), 0);
        Case { set, kernel, dtype, m, n, k, weights, packed, x: quantized }
    }

    fn random(set: QmatmulKernels, dtype: DType, [m, n, k]: [usize; 3]) -> Self {
        let k = whole_blocks(dtype, k);
        let mut random = Random((m * 1_000_003 + n * 1009 + k) as u64);
        let weights = random.weights(dtype, n, k);
        let x = random.activations(m * k);
        Case::new(set, dtype, [m, n, k], weights, &x)
    }

    /// Y of ldy = n + 3 with sentinels between rows, before and after; `start` is its first contents.
    fn run(&self, start: &[f32], bias: Option<&[f32]>, portions: &[[usize; 4]]) -> Vec<f32> {
        const SENTINEL: u32 = 0x7fab_cdef;
        let (ldy, before) = (self.n + 3, 5);
        let mut y = vec![f32::from_bits(SENTINEL); before + self.m * ldy + 40];
        for (row, start) in start.chunks(self.n.max(1)).enumerate() {
            y[before + row * ldy..][..self.n].copy_from_slice(start);
        }
        let ldx = self.set.row_bytes(self.k);
        // Bytes that nobody aligned.
        let mut w = vec![0; self.packed.len() + 1];
        w[1..].copy_from_slice(&self.packed);
        for &[row, rows, panel_begin, panel_end] in portions {
            let portion = Portion {
                x: self.x[row * ldx..].as_ptr(),
                ldx,
                m: rows,
                k: self.k,
                w: w[1..].as_ptr(),
                panel_begin,
                panel_end,
                n: self.n,
                y: y[before + row * ldy..].as_mut_ptr(),
                ldy,
                bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                accumulate: !start.is_empty(),
            };
            // SAFETY: all slices have the sizes that the portion states.
            unsafe { self.kernel.run(self.set.activations, &portion) };
        }
        let mut out = Vec::new();
        for (i, &value) in y.iter().enumerate() {
            let at = i.wrapping_sub(before);
            if at / ldy < self.m && at % ldy < self.n {
                out.push(value);
            } else {
                assert_eq!(value.to_bits(), SENTINEL, "{self}: wrote at {i}");
            }
        }
        out
    }

    fn whole(&self) -> [[usize; 4]; 1] {
        [[0, self.m, 0, self.kernel.panels(self.n)]]
    }

    /// The contract's arithmetic for one output: in f32 with its roundings, in f64 without, and the sum of the
    /// magnitudes that roundings can be relative to.
    fn model(&self, x_row: &[X], w_row: &[W], start: f32, bias: Option<f32>) -> (f32, f64, f64) {
        let form = form::Form::of(self.dtype).unwrap();
        let (mut single, mut double) = (start, f64::from(start));
        let mut magnitude = double.abs();
        if let Some(bias) = bias {
            single += bias;
            double += f64::from(bias);
            magnitude += f64::from(bias.abs());
        }
        let subs = if form.halves { 2 } else { 1 };
        for (x, w) in x_row.iter().zip(w_row) {
            let one = if x.bytes.len() == 2 { 1.0 / 256.0 } else { 1.0 };
            let mut t = 0.0f32;
            for sub in 0..subs {
                let range = sub * BLOCK / subs..(sub + 1) * BLOCK / subs;
                let sum: i32 = range.clone().map(|i| w.levels[i] * x.whole(i)).sum();
                let scale = w.scales[sub] * one;
                t = if sub == 0 { sum as f32 * scale } else { (sum as f32).mul_add(scale, t) };
                let size: i64 = range.clone().map(|i| i64::from((w.levels[i] * x.whole(i)).abs())).sum();
                let scale = f64::from(w.scales[sub]) * x.unit();
                double += scale * f64::from(sum);
                magnitude += scale.abs() * size as f64;
                let minimum = f64::from(w.minimums[sub]) * x.unit();
                double += minimum * f64::from(range.clone().map(|i| x.whole(i)).sum::<i32>());
                magnitude += (minimum * f64::from(range.map(|i| x.whole(i)).sum::<i32>())).abs();
            }
            single = t.mul_add(x.d, single);
            if form.minimum {
                let sums = if form.halves { &x.scaled_sums[1..] } else { &x.scaled_sums[..1] };
                for (m, sum) in w.minimums.iter().zip(sums) {
                    single = m.mul_add(*sum, single);
                }
            }
        }
        (single, double, magnitude)
    }

    /// Checks Y against [`Case::model`].
    fn check(&self, y: &[f32], start: &[f32], bias: Option<&[f32]>) {
        assert_eq!(y.len(), self.m * self.n);
        let blocks = self.k / BLOCK;
        let x_row = |row| {
            let bytes = &self.x[row * self.set.row_bytes(self.k)..];
            (0..blocks).map(|block| read_x(&self.set, bytes, self.k, block)).collect::<Vec<_>>()
        };
        let w_row = |column| {
            let bytes = &self.weights[self.dtype.row_bytes(self.k).unwrap() * column..];
            (0..blocks).map(|block| read_w(self.dtype, bytes, block)).collect::<Vec<_>>()
        };
        let (x, w): (Vec<_>, Vec<_>) = ((0..self.m).map(x_row).collect(), (0..self.n).map(w_row).collect());
        for (i, &y) in y.iter().enumerate() {
            let (row, column) = (i / self.n, i % self.n);
            let start = start.get(i).copied().unwrap_or(0.0);
            let (single, double, magnitude) = self.model(&x[row], &w[column], start, bias.map(|b| b[column]));
            // Roundings of 2⁻²⁴ each: an fma a block, or up to three with minimums, of partial sums below
            // `magnitude`; the bias; t (up to three) and d·Σx of each block, which together count as four of
            // the whole. Without fused multiply-adds, products are rounded too.
            let roundings = 3.0 * (self.k / BLOCK) as f64 + 5.0;
            let factor = if self.set.isa() == IsaId::Scalar { 2.0 } else { 1.0 };
            let bound = factor * roundings * magnitude / f64::from(1 << 24);
            let error = (f64::from(y) - double).abs();
            assert!(error <= bound, "{self}: [{row}, {column}] is {y}, not {double} ± {bound}");
            if self.set.isa() != IsaId::Scalar {
                assert_eq!(y.to_bits(), single.to_bits(), "{self}: [{row}, {column}] is {y}, not {single}");
            }
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { set, dtype, m, n, k, .. } = self;
        write!(f, "{} {:?} {} {m}×{n}×{k}", set.isa().name(), set.activations, dtype.name())
    }
}

/// Outputs of a panel, the same for all types of a level.
fn nr_of(set: &QmatmulKernels) -> usize {
    set.kernel(DType::Q8_0).unwrap().nr()
}

/// Round the edges of tiles (up to 6 rows), of widening (from 8 rows, in steps of 16 blocks), of panels (8 to 32
/// columns).
fn shapes(set: &QmatmulKernels) -> Vec<[usize; 3]> {
    let nr = nr_of(set);
    let mut shapes = vec![[0, 5, 32], [3, 0, 32], [2, 3, 0], [1, 1, 32], [13, 2 * nr, 1056], [31, 1, 512]];
    for m in 1..=13 {
        shapes.push([m, nr + m, 64]);
    }
    for n in [1, nr / 2 - 1, nr / 2, nr / 2 + 1, nr - 1, nr, nr + 1, 3 * nr + nr / 2 + 1] {
        shapes.push([2, n, 96]);
        shapes.push([14, n, 544]);
    }
    // Rows for tiles of 16, eight of them at a time, over stretches and slabs of K; and rows that fill none.
    if set.isa() == IsaId::Amx {
        shapes.extend([15, 16, 17, 32, 127, 128, 129, 145].map(|m| [m, nr + 3, 288]));
        shapes.push([48, nr, 2080]);
    }
    shapes
}
