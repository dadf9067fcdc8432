//! Matmul in bfloat16 on every level of this CPU: GFLOPS and their share of what the level's multiply-add reaches on
//! registers alone, in the same run; for one row, GB/s of weights and their share of what plain reads reach.
//! `cargo bench --bench bf16 -- amx 512x` runs what contains one of the words of each kind; `threads=2` shares the
//! panels between threads. Medians; the activations are rounded beforehand, or on the way (the last figure).

use smallmind::isa::{Isa, IsaId, SimdBody};
use smallmind::kernels::Portion;
use smallmind::kernels::bmatmul::Kernel as Bf16Kernel;
use smallmind::kernels::matmul::Source;
use smallmind::memory::AlignedBuf;
use std::array::from_fn;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Rows, outputs, inputs.
const SHAPES: [[usize; 3]; 11] = [
    [1, 1024, 1024],
    [8, 1024, 1024],
    [16, 1024, 1024],
    [32, 1024, 1024],
    [48, 1024, 1024],
    [65, 1024, 1024],
    [128, 1024, 1024],
    [512, 1024, 1024],
    [1, 4096, 4096],
    [32, 4096, 4096],
    [512, 4096, 4096],
];

/// How long a shape is measured, at least.
const TIME: Duration = Duration::from_millis(250);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let threads = words.iter().find_map(|word| word.strip_prefix("threads=")?.parse().ok()).unwrap_or(1);
    let (shapes, levels): (Vec<_>, Vec<_>) = words
        .iter()
        .filter(|word| !word.starts_with("threads="))
        .partition(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    for isa in IsaId::available().filter(|isa| Bf16Kernel::select(*isa).info().isa == *isa) {
        if !levels.is_empty() && !levels.iter().any(|word| isa.name() == *word) {
            continue;
        }
        let peak = median(TIME, || peak(isa));
        println!("{:<12} registers alone {:8.1} GFLOPS", isa.name(), peak);
        for [m, n, k] in SHAPES {
            let shape = format!("{m}x{n}x{k}");
            if shapes.is_empty() || shapes.iter().any(|word| shape.starts_with(word.as_str())) {
                bench(isa, [m, n, k], threads, peak * threads as f64);
            }
        }
    }
}

fn bench(isa: IsaId, [m, n, k]: [usize; 3], threads: usize, peak: f64) {
    let mut layer = Layer::new(Bf16Kernel::select(isa), m, n, k);
    let operations = 2.0 * (m * n * k) as f64;
    let rounding = median(TIME, || operations / seconds(|| layer.run(threads, true)) / 1e9);
    let gflops = median(TIME, || operations / seconds(|| layer.run(threads, false)) / 1e9);
    let shape = format!("{m}x{n}x{k}");
    print!("{:<12} {shape:<14} {gflops:8.1} GFLOPS {:5.1} %", isa.name(), 100.0 * gflops / peak);
    if m == 1 {
        let bytes = layer.weights.len() as f64;
        let reads = median(TIME, || bytes / seconds(|| isa.run(Read(layer.weights.as_slice()))) / 1e9);
        let weights = gflops * bytes / operations;
        print!("   {weights:6.1} GB/s of weights, {:5.1} % of plain reads", 100.0 * weights / reads);
    }
    println!("   {rounding:8.1} with rounding");
}

fn seconds<T>(f: impl FnOnce() -> T) -> f64 {
    let begin = Instant::now();
    black_box(f());
    begin.elapsed().as_secs_f64()
}

/// Median of what `measure` gives in that time, of seven at least.
fn median(time: Duration, mut measure: impl FnMut() -> f64) -> f64 {
    measure();
    let begin = Instant::now();
    let mut all = Vec::new();
    while all.len() < 7 || begin.elapsed() < time {
        all.push(measure());
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A layer and rows for it.
struct Layer {
    kernel: &'static Bf16Kernel,
    m: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    rounded: AlignedBuf,
    weights: AlignedBuf,
    y: AlignedBuf,
}

/// A pointer that threads share; each writes its own part.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: parts are disjoint, and the buffers outlive the threads.
unsafe impl<T> Sync for Shared<T> {}

impl Layer {
    fn new(kernel: &'static Bf16Kernel, m: usize, n: usize, k: usize) -> Self {
        let value = |i: usize| (i * 7919 % 2003) as f32 / 1001.5 - 1.0;
        let bytes: Vec<u8> = (0..n * k).flat_map(|i| half::bf16::from_f32(value(i)).to_le_bytes()).collect();
        let layout = kernel.layout();
        let buffer = |bytes| AlignedBuf::zeroed(bytes, "a benchmark").unwrap();
        let mut weights = buffer(layout.packed_bytes(n, k).unwrap());
        layout.pack(&Source::rows(&bytes, n, k), 0..layout.panels(n), weights.as_mut_slice()).unwrap();
        let rounded = buffer(m * kernel.row_bytes(k).unwrap());
        let x = (0..m * k).map(value).collect();
        Self { kernel, m, n, k, x, rounded, weights, y: buffer(4 * m * n) }
    }

    fn run(&mut self, threads: usize, round: bool) {
        let (rounded, y) = (Shared(self.rounded.as_mut_ptr()), Shared(self.y.as_mut_ptr().cast()));
        let (this, panels) = (&*self, self.kernel.layout().panels(self.n));
        if threads == 1 {
            if round {
                this.round(0, this.m, rounded);
            }
            return this.multiply(0, panels, y);
        }
        let barrier = std::sync::Barrier::new(threads);
        std::thread::scope(|scope| {
            for i in 0..threads {
                let (barrier, rounded, y) = (&barrier, &rounded, &y);
                scope.spawn(move || {
                    if round {
                        this.round(this.m * i / threads, this.m * (i + 1) / threads, *rounded);
                        barrier.wait();
                    }
                    this.multiply(panels * i / threads, panels * (i + 1) / threads, *y);
                });
            }
        });
    }

    fn round(&self, begin: usize, end: usize, rounded: Shared<u8>) {
        let out = rounded.0.wrapping_add(begin * self.kernel.row_bytes(self.k).unwrap());
        // SAFETY: `x` has m rows of k, `rounded` room for them; threads have their own rows.
        unsafe { self.kernel.round_rows(self.x[begin * self.k..].as_ptr(), self.k, end - begin, self.k, out) }
    }

    fn multiply(&self, panel_begin: usize, panel_end: usize, y: Shared<f32>) {
        let portion = Portion {
            x: self.rounded.as_ptr(),
            ldx: self.kernel.row_bytes(self.k).unwrap(),
            m: self.m,
            k: self.k,
            w: self.weights.as_ptr(),
            panel_begin,
            panel_end,
            n: self.n,
            y: y.0,
            ldy: self.n,
            bias: std::ptr::null(),
            accumulate: false,
        };
        // SAFETY: all of these have the shapes that the portion states; threads have their own panels.
        unsafe { self.kernel.run(&portion) }
    }
}

/// Sums of floats that nobody needs, so that memory is read.
struct Read<'a>(&'a [f32]);

impl SimdBody for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut sums = [isa.zero(); 8];
        for chunk in self.0.chunks_exact(8 * I::LANES) {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the chunk holds 8 vectors.
                *sum = isa.max(*sum, unsafe { isa.load(chunk.as_ptr().add(v * I::LANES)) });
            }
        }
        sums.into_iter().map(|sum| isa.max_lanes(sum)).sum()
    }
}

/// Steps of a loop on registers.
const STEPS: usize = 40_000;

/// GFLOPS of the level's multiply-adds on registers.
fn peak(isa: IsaId) -> f64 {
    let mut operations = 0;
    let time = seconds(|| operations = multiply_adds(isa));
    operations as f64 / time / 1e9
}

/// Independent multiply-adds on registers; how many operations they were.
fn multiply_adds(isa: IsaId) -> usize {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: the level is available.
        IsaId::Amx => return unsafe { tiles() },
        // SAFETY: the level is available.
        IsaId::Avx512Bf16 => return unsafe { dots(black_box(0)) },
        _ => {}
    }
    isa.run(MultiplyAdds(black_box(0.5))).unwrap_or(0)
}

/// Multiply-adds of f32.
struct MultiplyAdds(f32);

impl SimdBody for MultiplyAdds {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        let factor = isa.splat(self.0);
        let mut sums: [I::F32; 12] = from_fn(|_| isa.splat(black_box(1.0)));
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = isa.mul_add(factor, factor, *sum);
            }
        }
        black_box(sums.into_iter().fold(0.0, |total, sum| total + isa.sum_lanes(sum)));
        2 * STEPS * sums.len() * I::LANES
    }
}

/// Dot products of pairs.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dots(start: i32) -> usize {
    use std::arch::x86_64::*;
    // SAFETY: both are 64 bytes without a pattern that means nothing.
    let pairs: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(start)) };
    let mut sums: [__m512; 12] = from_fn(|_| _mm512_set1_ps(black_box(1.0)));
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
        }
    }
    black_box(sums.into_iter().fold(0.0, |total, sum| total + _mm512_reduce_add_ps(sum)));
    2 * 2 * STEPS * sums.len() * 16
}

/// Dot products of tiles.
///
/// # Safety
/// The level is available.
#[cfg(target_arch = "x86_64")]
unsafe fn tiles() -> usize {
    // SAFETY: the tiles are set up, and what is in them doesn't matter.
    unsafe {
        smallmind::isa::amx::with_tiles(16, 64, || {
            for _ in 0..STEPS {
                std::arch::asm!(
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    out("tmm0") _,
                    out("tmm1") _,
                    out("tmm2") _,
                    out("tmm3") _,
                    options(nomem, nostack, preserves_flags),
                );
            }
        });
    }
    2 * 4 * STEPS * 16 * 16 * 32
}
