//! Every level, type and mode against the contract's arithmetic: in f64 within a derived bound, and in f32 bit
//! for bit; small integers against a plain matmul; edges, canaries, portions, extremes.

use super::activations::{MAGIC, MAGIC_256, Row};
use super::*;
use crate::quant::{self, BLOCK};

fn levels() -> impl Iterator<Item = Set> {
    LEVELS.iter().filter(|set| set.isa.is_available()).copied()
}

fn sets() -> impl Iterator<Item = Set> {
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
fn pack(set: &Set, dtype: DType, rows: &[u8], n: usize, k: usize) -> Vec<u8> {
    let mut packed = vec![0xaa; set.packed_bytes(dtype, n, k).unwrap()];
    let (row, panel) = (dtype.row_bytes(k).unwrap(), set.panel_bytes(dtype, k).unwrap());
    if panel > 0 {
        for (rows, panel) in rows.chunks(row * set.nr()).zip(packed.chunks_mut(panel)) {
            set.pack_panel(dtype, rows, k, panel).unwrap();
        }
    }
    packed
}

fn quantize(set: &Set, x: &[f32], k: usize) -> Vec<u8> {
    let rows = x.len().checked_div(k).unwrap_or(0);
    let bytes = rows * set.row_bytes(k);
    let mut out = vec![0xaa; bytes + 64];
    // SAFETY: both slices have these sizes.
    unsafe { set.quantize_rows(x.as_ptr(), k, rows, k, out.as_mut_ptr()) };
    assert!(out[bytes..].iter().all(|&byte| byte == 0xaa), "wrote past the rows");
    out.truncate(bytes);
    out
}

/// A block of activations, read by the documented offsets.
struct X {
    digits: Vec<[i32; BLOCK]>,
    d: f32,
    /// Of the block and of its halves.
    scaled_sums: [f32; 3],
    kept: bool,
}

impl X {
    /// Element i in units of d/256, or of d where there is one digit.
    fn whole(&self, i: usize) -> i32 {
        self.digits.iter().fold(0, |whole, digit| 256 * whole + digit[i])
    }

    /// What [`X::whole`] counts.
    fn unit(&self) -> f64 {
        f64::from(self.d) / if self.digits.len() == 2 { 256.0 } else { 1.0 }
    }
}

fn read_x(mode: Activations, row: &[u8], k: usize, block: usize) -> X {
    let digits = mode.digits();
    let parts = Row::new(digits, k);
    let record = |part: usize| -> [i32; 4] {
        let bytes = &row[part + 16 * block..][..16];
        std::array::from_fn(|i| i32::from_ne_bytes(bytes[4 * i..][..4].try_into().unwrap()))
    };
    let float = |bits: i32| f32::from_bits(bits as u32);
    let [d, sum, start, kept] = record(parts.blocks);
    let [first_sum, last_sum, first_start, last_start] = record(parts.halves);
    let x = X {
        digits: (0..digits)
            .map(|d| std::array::from_fn(|i| i32::from(row[d * k + 32 * block + i] as i8)))
            .collect(),
        d: float(d),
        scaled_sums: [sum, first_sum, last_sum].map(float),
        kept: kept == 1,
    };
    let halves = |digit: usize| [0, 16].map(|at| x.digits[digit][at..at + 16].iter().sum::<i32>());
    let [first, last] = halves(0);
    let starts = [MAGIC - 128 * (first + last), MAGIC - 128 * first, -128 * last];
    assert_eq!([start, first_start, last_start], starts);
    assert!(kept == 0 || kept == 1);
    if digits == 2 {
        let [second_first, second_last] = halves(1);
        let moved = |sum: i32| (-128 * sum).wrapping_sub(MAGIC_256);
        let total = 256 * (first + last) + second_first + second_last;
        let second =
            [moved(second_first + second_last), moved(second_first), -128 * second_last, -128 * total];
        assert_eq!(record(parts.second), second);
        assert!(x.kept || x.digits[1] == [0; BLOCK]);
    }
    x
}

/// 32 weights of a column: integers, and for each half the scale and what is added.
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

/// What a portion works on.
struct Case {
    set: Set,
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
    weights: Vec<u8>,
    packed: Vec<u8>,
    x: Vec<u8>,
}

impl Case {
    fn new(set: Set, dtype: DType, [m, n, k]: [usize; 3], weights: Vec<u8>, x: &[f32]) -> Self {
        let packed = pack(&set, dtype, &weights, n, k);
        let mut quantized = quantize(&set, x, k);
        quantized.resize(m * set.row_bytes(k), 0);
        Case { set, dtype, m, n, k, weights, packed, x: quantized }
    }

    fn random(set: Set, dtype: DType, [m, n, k]: [usize; 3]) -> Self {
        let k = whole_blocks(dtype, k);
        let mut random = Random((m * 1_000_003 + n * 1009 + k) as u64);
        let weights = random.weights(dtype, n, k);
        let x = random.activations(m * k);
        Case::new(set, dtype, [m, n, k], weights, &x)
    }

    /// Y of ldy = n + 3 with sentinels between rows, before and after; `start` is what it holds at first.
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
            unsafe { self.set.run(self.dtype, &portion) };
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
        [[0, self.m, 0, self.set.panels(self.n)]]
    }

    /// The contract's arithmetic for one output: in f32 with its roundings, in f64 without, and the sum of the
    /// magnitudes that roundings can be relative to.
    fn model(&self, row: usize, column: usize, start: f32, bias: Option<f32>) -> (f32, f64, f64) {
        let form = form::Form::of(self.dtype).unwrap();
        let x_row = &self.x[row * self.set.row_bytes(self.k)..];
        let w_row = &self.weights[self.dtype.row_bytes(self.k).unwrap() * column..];
        let (mut single, mut double) = (start, f64::from(start));
        let mut magnitude = double.abs();
        if let Some(bias) = bias {
            single += bias;
            double += f64::from(bias);
            magnitude += f64::from(bias.abs());
        }
        let subs = if form.halves { 2 } else { 1 };
        for block in 0..self.k / BLOCK {
            let (x, w) =
                (read_x(self.set.activations, x_row, self.k, block), read_w(self.dtype, w_row, block));
            let one = if x.digits.len() == 2 { 1.0 / 256.0 } else { 1.0 };
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
        for (i, &y) in y.iter().enumerate() {
            let (row, column) = (i / self.n, i % self.n);
            let start = start.get(i).copied().unwrap_or(0.0);
            let (single, double, magnitude) = self.model(row, column, start, bias.map(|b| b[column]));
            // Roundings of 2⁻²⁴ each: an fma a block, or up to three with minimums, of partial sums below
            // `magnitude`; the bias; t (up to three) and d·Σx of each block, which together count as four of
            // the whole. Without fused multiply-adds, products are rounded too.
            let roundings = 3.0 * (self.k / BLOCK) as f64 + 5.0;
            let factor = if self.set.isa == IsaId::Scalar { 2.0 } else { 1.0 };
            let bound = factor * roundings * magnitude / f64::from(1 << 24);
            let error = (f64::from(y) - double).abs();
            assert!(error <= bound, "{self}: [{row}, {column}] is {y}, not {double} ± {bound}");
            if self.set.isa != IsaId::Scalar {
                assert_eq!(y.to_bits(), single.to_bits(), "{self}: [{row}, {column}] is {y}, not {single}");
            }
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { set, dtype, m, n, k, .. } = self;
        write!(f, "{} {:?} {} {m}×{n}×{k}", set.isa.name(), set.activations, dtype.name())
    }
}

/// Round the edges of tiles (up to 6 rows), of widening (from 8 rows, in steps of 16 blocks), of panels (8 to 32
/// columns).
fn shapes(set: &Set) -> Vec<[usize; 3]> {
    let nr = set.nr();
    let mut shapes = vec![[0, 5, 32], [3, 0, 32], [2, 3, 0], [1, 1, 32], [13, 2 * nr, 1056], [31, 1, 512]];
    for m in 1..=13 {
        shapes.push([m, nr + m, 64]);
    }
    for n in [1, nr / 2 - 1, nr / 2, nr / 2 + 1, nr - 1, nr, nr + 1, 3 * nr + nr / 2 + 1] {
        shapes.push([2, n, 96]);
        shapes.push([14, n, 544]);
    }
    // What tiles of 16 rows take, eight of them at a time, over stretches and slabs of K; and what they leave.
    if set.isa() == IsaId::Amx {
        shapes.extend([15, 16, 17, 32, 127, 128, 129, 145].map(|m| [m, nr + 3, 288]));
        shapes.push([48, nr, 2080]);
    }
    shapes
}

#[test]
fn outputs_are_the_contracts_bits_at_every_edge() {
    for set in sets() {
        for dtype in DTYPES {
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
        for dtype in DTYPES {
            for shape in [[1, 2 * set.nr() + 3, 64], [13, set.nr() + 1, 544], [2, 3, 0]] {
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
        for dtype in DTYPES {
            let case = Case::random(set, dtype, [29, 3 * set.nr() + 2, 1056]);
            let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let whole = bits(case.run(&[], None, &case.whole()));
            let panels = set.panels(case.n);
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
                // 256ths with two digits, integers with one; the largest of each block fixes the scale at 1
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
            let (n, k) = (set.nr() + 1, 96);
            for m in [1, 2, 13] {
                for level in [-zero, top - zero] {
                    for x in [127.0f32, -127.0] {
                        let levels = vec![level; n * k];
                        let weights = integer_weights(dtype, &levels, 0.0);
                        let case = Case::new(set, dtype, [m, n, k], weights, &vec![x; m * k]);
                        let y = case.run(&[], None, &case.whole());
                        assert!(y.iter().all(|&y| y == level as f32 * x * k as f32), "{case}: {level} × {x}");
                        // Both digits at their limits: 127 + 127/256.
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
                let q = read_x(set.activations, &rows[row * set.row_bytes(k)..], k, block);
                let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
                let bound = q.unit() * if q.kept { 1.01 } else { 0.50002 * f64::from(q.d) / q.unit() };
                assert!((q.d - peak / 127.0).abs() <= q.d * 1e-7);
                for (i, &x) in x.iter().enumerate() {
                    assert!(q.digits.iter().all(|digit| digit[i].abs() <= 127));
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
fn blocks_with_an_outlier_keep_their_second_digit() {
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
                let q = read_x(set.activations, &rows[row * set.row_bytes(k)..], k, block);
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
        let expected = quantize(&LEVELS[0].with_activations(mode), &x, k);
        for set in levels().map(|set| set.with_activations(mode)) {
            let rows = quantize(&set, &x, k);
            for (row, block) in (0..4).flat_map(|row| (0..k / BLOCK).map(move |block| (row, block))) {
                let at = row * set.row_bytes(k);
                let (ours, theirs) =
                    (read_x(mode, &rows[at..], k, block), read_x(mode, &expected[at..], k, block));
                assert_eq!(ours.digits, theirs.digits);
                assert_eq!(ours.kept, theirs.kept);
                assert_eq!(ours.d.is_nan(), theirs.d.is_nan());
                assert_eq!(ours.d.is_nan(), row == 0 && (block == 1 || block == 2), "{block}");
                assert!(ours.d.is_nan() || ours.d.to_bits() == theirs.d.to_bits());
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_their_row_and_no_other() {
    for set in sets() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (m, n, k) = (9, set.nr() + 3, 128);
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

#[test]
fn a_panel_gives_back_its_rows_bit_for_bit() {
    for set in sets() {
        for dtype in DTYPES {
            let (n, k) = (2 * set.nr() + 3, whole_blocks(dtype, 96));
            let rows = Random(6).weights(dtype, n, k);
            let packed = pack(&set, dtype, &rows, n, k);
            let (mut ours, mut theirs) = (vec![0.0; k], vec![0.0; k]);
            for (row, bytes) in rows.chunks(dtype.row_bytes(k).unwrap()).enumerate() {
                set.decode_row(dtype, &packed, row, &mut ours).unwrap();
                quant::decode_row(dtype, bytes, &mut theirs).unwrap();
                let same = ours.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} {} row {row}", set.isa.name(), dtype.name());
            }
            assert!(set.decode_row(dtype, &packed, set.panels(n) * set.nr(), &mut ours).is_err());
            assert!(set.decode_row(dtype, &packed, usize::MAX, &mut ours).is_err());
            assert!(set.decode_row(dtype, &packed, 0, &mut ours[1..]).is_err());
        }
    }
}

#[test]
fn shapes_that_cannot_be_packed_are_errors() {
    for set in sets() {
        for dtype in DTYPES {
            assert!(set.supports(dtype));
            let k = whole_blocks(dtype, 64);
            let panel = set.panel_bytes(dtype, k).unwrap();
            let row = dtype.row_bytes(k).unwrap();
            let (rows, mut out) = (vec![0; row * (set.nr() + 1)], vec![0; panel]);
            assert!(set.pack_panel(dtype, &rows[row..], k, &mut out).is_ok());
            assert!(set.pack_panel(dtype, &rows, k, &mut out).is_err());
            assert!(set.pack_panel(dtype, &rows[row + 1..], k, &mut out).is_err());
            assert!(set.pack_panel(dtype, &rows[row..], k, &mut out[1..]).is_err());
            assert!(set.pack_panel(dtype, &rows[row..], k + 1, &mut out).is_err());
            assert!(set.panel_bytes(dtype, k - 16).is_err());
            assert!(set.packed_bytes(dtype, usize::MAX, 1 << 20).is_err());
            assert!(set.packed_bytes(dtype, usize::MAX, k).is_err() || set.nr() > 1 << 20);
        }
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert!(!set.supports(dtype));
            assert!(set.panel_bytes(dtype, 64).is_err());
        }
    }
}

#[test]
fn a_set_knows_its_mode_and_level() {
    for isa in IsaId::available() {
        let set = Set::select(isa);
        let own = match isa {
            IsaId::Avx512Bf16 => IsaId::Avx512Vnni,
            IsaId::NeonBf16 => IsaId::NeonDotprod,
            own => own,
        };
        assert_eq!(set.isa(), own, "every level has its row, or the next lower");
        assert_eq!(set.activations(), Activations::default());
        for mode in Activations::ALL {
            let set = set.with_activations(mode);
            assert_eq!((set.isa(), set.activations()), (own, mode));
            let row = 96 * mode.digits() + 3 * 16 * (mode.digits() + 1);
            assert!(set.row_bytes(96) >= row && set.row_bytes(96) < row + 128);
            assert_eq!(set.row_bytes(96) % 128, 64);
        }
    }
    assert_eq!(rows().count(), LEVELS.len() * (4 + DTYPES.len()));
}
