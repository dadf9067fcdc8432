//! Elementwise, row-wise, rotary and converting kernels on every level of this CPU, one thread: elements and bytes a
//! second, and the share of the speed at which this machine copies as many bytes at that size, in the same run.
//! `cargo bench --bench rows -- 'softmax' avx512 100000` keeps the lines that hold all of these words.

// SAFETY of every block below: a buffer holds the largest size, and an op touches no more than its n elements.
#![allow(clippy::undocumented_unsafe_blocks)]

use smallmind::isa::IsaId;
use smallmind::kernels::convert;
use smallmind::kernels::rope::{self, RopeArgs, Scaling};
use smallmind::kernels::rows::{self, LogSoftmaxArgs, NormArgs, SoftmaxArgs};
use smallmind::kernels::transpose::{self, TransposeArgs};
use smallmind::kernels::unary::{self, GatedArgs};
use smallmind::ops::rotary::RotaryTable;
use std::hint::black_box;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

/// From well inside L1 to past every cache of a core.
const SIZES: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Samples of one line; the median counts.
const SAMPLES: usize = 15;
/// What a sample lasts at least.
const SAMPLE: Duration = Duration::from_micros(700);

/// Buffers of the largest size that start on a cache line, as the arena's do.
struct Buffers {
    /// Three inputs.
    src: [Vec<f32>; 3],
    dst: [Vec<f32>; 2],
    positions: Vec<u32>,
    rope: RotaryTable,
}

/// Floats that a buffer begins with before its first cache line.
fn begin(buffer: &[f32]) -> usize {
    buffer.as_ptr().align_offset(64)
}

impl Buffers {
    /// Inputs between −5 and 5, where no function is at its limit.
    fn new(len: usize) -> Self {
        let values = |seed: usize| -> Vec<f32> {
            (0..len + 16).map(|i| (((i + seed) * 7919 % 2003) as f32 / 2003.0 - 0.5) * 10.0).collect()
        };
        Self {
            src: [values(0), values(1), values(2)],
            dst: [values(3), values(4)],
            positions: (0..len as u32).map(|p| p % 2048).collect(),
            rope: RotaryTable::new(2048, HEAD, 10_000.0, Scaling::default()).unwrap(),
        }
    }

    fn src(&self, which: usize) -> *const f32 {
        self.src[which][begin(&self.src[which])..].as_ptr()
    }

    /// Two inputs and an output of `n` floats.
    fn slices(&mut self, n: usize) -> ([&[f32]; 2], &mut [f32]) {
        let [a, b, _] = &self.src;
        let dst = &mut self.dst[0];
        let first = begin(dst);
        ([a, b].map(|src| &src[begin(src)..][..n]), &mut dst[first..][..n])
    }

    fn dst(&mut self, which: usize) -> *mut f32 {
        let begin = begin(&self.dst[which]);
        self.dst[which][begin..].as_mut_ptr()
    }
}

/// As many elements of 16 bits as there are floats: the first half of their memory.
fn halves(x: &[f32]) -> &[u16] {
    // SAFETY: the floats hold more bytes, are better aligned, and any bits are a u16.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), x.len()) }
}

fn halves_mut(x: &mut [f32]) -> &mut [u16] {
    // SAFETY: as in `halves`; and any bits are an f32.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
}

const HEAD: usize = 64;

/// A kernel on `n` elements.
type Run = Box<dyn Fn(&mut Buffers, usize)>;

/// One kernel at one level.
struct Op {
    name: String,
    isa: IsaId,
    /// Bytes that must be read and written for an element.
    moved: usize,
    run: Run,
}

fn op(name: &str, isa: IsaId, moved: usize, run: impl Fn(&mut Buffers, usize) + 'static) -> Op {
    Op { name: name.to_owned(), isa, moved, run: Box::new(run) }
}

fn elementwise(isa: IsaId) -> Vec<Op> {
    let set = unary::UnaryKernels::select(isa);
    let mut ops = Vec::new();
    for kernel in set.unary().map(|k| *k) {
        ops.push(op(kernel.info.op, isa, 8, move |b, n| unsafe { kernel.run(b.src(0), b.dst(0), n) }));
    }
    for kernel in set.binary().map(|k| *k) {
        ops.push(op(kernel.info.op, isa, 12, move |b, n| unsafe {
            kernel.run(b.src(0), b.src(1), b.dst(0), n)
        }));
    }
    ops.push(op("scale", isa, 8, move |b, n| unsafe { set.scale.run(b.src(0), 0.7, b.dst(0), n) }));
    ops.push(op("axpy", isa, 12, move |b, n| {
        let ([x, _], y) = b.slices(n);
        set.axpy.apply(1e-9, x, y);
    }));
    for kernel in set.gated().map(|k| *k) {
        ops.push(op(kernel.info.op, isa, 20, move |b, n| unsafe {
            let (gate, up, dy) = (b.src(0), b.src(1), b.src(2));
            kernel.run(&GatedArgs { gate, up, dy, dgate: b.dst(0), dup: b.dst(1), n });
        }));
    }
    ops
}

fn row_wise(isa: IsaId, cols: usize) -> Vec<Op> {
    let set = rows::RowKernels::select(isa);
    let named = |name: &str| format!("{name}/{cols}");
    let softmax = move |b: &mut Buffers, n: usize| SoftmaxArgs {
        src: b.src(0),
        src_stride: cols,
        dst: b.dst(0),
        dst_stride: cols,
        rows: n / cols,
        cols,
        scale: 1.0,
        causal: None,
        mask: null(),
        mask_stride: 0,
    };
    let norm = move |b: &mut Buffers, n: usize, bias: bool| NormArgs {
        x: b.src(0).cast_mut(),
        x_stride: cols,
        add: null(),
        add_stride: 0,
        dst: b.dst(0),
        dst_stride: cols,
        gamma: b.src(1),
        beta: if bias { b.src(2) } else { null() },
        eps: 1e-5,
        rows: n / cols,
        cols,
        mean: null_mut(),
        rstd: null_mut(),
    };
    vec![
        op(&named("softmax"), isa, 8, move |b, n| unsafe { set.softmax.run(&softmax(b, n)) }),
        op(&named("log_softmax"), isa, 8, move |b, n| {
            let SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, .. } = softmax(b, n);
            let args = LogSoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols };
            unsafe { set.log_softmax.run(&args) }
        }),
        op(&named("layer_norm"), isa, 8, move |b, n| unsafe { set.layer_norm.run(&norm(b, n, true)) }),
        op(&named("rms_norm"), isa, 8, move |b, n| unsafe { set.rms_norm.run(&norm(b, n, false)) }),
    ]
}

/// A square matrix of at most `n` elements there and back; conversions.
fn layout(isa: IsaId) -> Vec<Op> {
    let (set, turn) = (convert::ConvertKernels::select(isa), transpose::TransposeKernels::select(isa).f32);
    vec![
        op("f32_to_f16", isa, 6, move |b, n| {
            let ([x, _], y) = b.slices(n);
            set.to_f16.apply(x, halves_mut(y));
        }),
        op("f32_to_bf16", isa, 6, move |b, n| {
            let ([x, _], y) = b.slices(n);
            set.to_bf16.apply(x, halves_mut(y));
        }),
        op("f16_to_f32", isa, 6, move |b, n| {
            let ([x, _], y) = b.slices(n);
            set.from_f16.apply(halves(x), y);
        }),
        op("bf16_to_f32", isa, 6, move |b, n| {
            let ([x, _], y) = b.slices(n);
            set.from_bf16.apply(halves(x), y);
        }),
        op("transpose", isa, 8, move |b, n| unsafe {
            let side = n.isqrt();
            let (src, dst) = (b.src(0), b.dst(0));
            turn.run(&TransposeArgs { src, src_stride: side, dst, dst_stride: side, rows: side, cols: side });
        }),
    ]
}

fn reductions(isa: IsaId) -> Vec<Op> {
    let set = rows::RowKernels::select(isa);
    let reduce = |kernel: rows::Reduce| {
        op(kernel.info.op, isa, 4, move |b: &mut Buffers, n| {
            black_box(kernel.apply(b.slices(n).0[0]));
        })
    };
    vec![
        reduce(set.sum),
        reduce(set.max),
        op("argmax", isa, 4, move |b, n| {
            black_box(set.argmax.apply(b.slices(n).0[0]));
        }),
        op("dot", isa, 8, move |b, n| {
            let ([x, y], _) = b.slices(n);
            black_box(set.dot.apply(x, y));
        }),
    ]
}

fn rotary(isa: IsaId) -> Vec<Op> {
    let set = rope::RopeKernels::select(isa);
    let heads = 8;
    let args = move |b: &mut Buffers, n: usize| RopeArgs {
        x: b.dst(0),
        stride: heads * HEAD,
        positions: b.positions.as_ptr(),
        tokens: n / (heads * HEAD),
        n_head: heads,
        head_dim: HEAD,
    };
    [set.adjacent, set.halves]
        .map(|rope| {
            op(rope.info.op, isa, 8, move |b, n| unsafe {
                let args = args(b, n);
                rope.run(b.rope.angles(), &args);
            })
        })
        .into()
}

/// Nanoseconds of one run: the median of some samples, each of as many runs as make it long enough to time.
fn time(buffers: &mut Buffers, n: usize, run: &dyn Fn(&mut Buffers, usize)) -> f64 {
    let timed = |buffers: &mut Buffers, runs: usize| {
        let start = Instant::now();
        for _ in 0..runs {
            run(buffers, black_box(n));
        }
        start.elapsed()
    };
    timed(buffers, 1);
    let one = timed(buffers, 1).max(Duration::from_nanos(20));
    let runs = (SAMPLE.as_nanos() / one.as_nanos()).max(1) as usize;
    let mut samples: Vec<_> = (0..SAMPLES).map(|_| timed(buffers, runs)).collect();
    samples.sort();
    samples[SAMPLES / 2].as_nanos() as f64 / runs as f64
}

/// Bytes a nanosecond of a plain copy of `bytes / 2` bytes: what moves `bytes` and does nothing else.
fn copy_speed(buffers: &mut Buffers, bytes: usize) -> f64 {
    let floats = (bytes / 8).min(SIZES[SIZES.len() - 1]);
    let copy = |b: &mut Buffers, n: usize| unsafe { b.src(0).copy_to_nonoverlapping(b.dst(0), n) };
    8.0 * floats as f64 / time(buffers, floats, &copy)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    // Levels with kernels of their own.
    let levels = IsaId::available().filter(|&isa| unary::UnaryKernels::select(isa).exp.info.isa == isa);
    let ops = levels.flat_map(|isa| {
        let rows = [64, 768, 4096].into_iter().flat_map(move |cols| row_wise(isa, cols));
        elementwise(isa).into_iter().chain(rows).chain(reductions(isa)).chain(rotary(isa)).chain(layout(isa))
    });
    let mut buffers = Buffers::new(SIZES[SIZES.len() - 1]);
    println!("{:24} {:8} {:>9}  {:>8} {:>8} {:>8}", "op", "isa", "elements", "G/s", "GB/s", "of copy");
    for op in ops {
        for n in SIZES {
            let line = format!("{:24} {:8} {n:>9}", op.name, op.isa.name());
            if words.iter().all(|word| line.split_whitespace().any(|part| part.contains(word.as_str()))) {
                let (ns, copy) = (time(&mut buffers, n, &op.run), copy_speed(&mut buffers, op.moved * n));
                let (elements, bytes) = (n as f64 / ns, (op.moved * n) as f64 / ns);
                println!("{line}  {elements:8.3} {bytes:8.1} {:7.0}%", 100.0 * bytes / copy);
            }
        }
    }
}
