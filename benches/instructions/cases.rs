//! The kernels that are counted, each on one small fixed input; all sizes fit the caches of any CPU in use, so that
//! how products are cut is the same everywhere. A name is level, family, kernel and shape.

// SAFETY of every block below: the buffers have the shapes that the arguments state, and the level is available.
#![allow(clippy::undocumented_unsafe_blocks)]

#[path = "training.rs"]
mod training;

use std::hint::black_box;
use std::ptr::{null, null_mut};

use smallmind::isa::IsaId;
use smallmind::kernels::attention::{
    AttentionArgs, HeadTiles, Kernel as AttentionKernel, ScoreArgs, ScoreOptions, TILE,
};
use smallmind::kernels::matmul::{Epilogue, Gemm, Matrix, Right, Source};
use smallmind::kernels::qmatmul::{Activations, QmatmulKernels};
use smallmind::kernels::recurrence::{
    ConvArgs, DeltaArgs, Gates, KeyHeads, RecurrenceKernels, Rows, RowsMut, Scan1Args, Scan2Args,
};
use smallmind::kernels::rope::{RopeArgs, Scaling};
use smallmind::kernels::rows::{LogSoftmaxArgs, NormArgs, SoftmaxArgs};
use smallmind::kernels::transpose::TransposeArgs;
use smallmind::kernels::{KernelSet, Portion, rows, unary};
use smallmind::memory::AlignedBuf;
use smallmind::ops::rotary::RotaryTable;
use smallmind::quant::{DType, encode_row};

/// Levels that are counted: those that the counting tool knows and whose kernels are one function each. What the scalar
/// level runs is inlined or not by what else the crate holds, and would change with it.
pub const LEVELS: [IsaId; 1] = [IsaId::Avx2];

/// A kernel on its input.
pub struct Case {
    /// Such as "avx2/matmul/f16/1x64x256".
    pub name: String,
    /// Runs it once.
    pub run: Box<dyn FnMut()>,
}

/// Elements of vectors: whole vectors of every level, and a rest.
const ELEMENTS: usize = 1003;
/// Outputs and inputs of layers.
const LAYER: [usize; 2] = [64, 256];
/// Rows of activations: decoding, and a prompt's.
const ROWS: [usize; 2] = [1, 24];

/// Every kernel at every level that runs here.
pub fn all() -> Vec<Case> {
    LEVELS.into_iter().filter(|isa| isa.is_available()).flat_map(at).collect()
}

/// The level's kernels.
fn at(isa: IsaId) -> Vec<Case> {
    // An available level always has a set.
    let Ok(kernels) = KernelSet::select(isa) else { return Vec::new() };
    let families = [
        gemms(&kernels),
        layers(&kernels),
        quantised(isa),
        elementwise(kernels.unary()),
        row_wise(kernels.rows()),
        attention(&kernels),
        recurrences(kernels.recurrence()),
        others(&kernels),
        training::kernels(&kernels),
    ];
    let mut cases: Vec<_> = families.into_iter().flatten().collect();
    cases.iter_mut().for_each(|case| case.name = format!("{}/{}", isa.name(), case.name));
    cases
}

fn case(name: String, run: impl FnMut() + 'static) -> Case {
    Case { name, run: Box::new(run) }
}

/// Zero bytes from a cache line on, so that vectors straddle no more lines than they must.
fn bytes(len: usize) -> AlignedBuf {
    AlignedBuf::zeroed(len, "a count").expect("kilobytes")
}

/// Numbers between −1 and 1, from a cache line on.
fn floats(len: usize) -> AlignedBuf {
    let mut buffer = bytes(4 * len);
    let values = buffer.as_mut_slice::<f32>().iter_mut().enumerate();
    values.for_each(|(i, value)| *value = (i * 7919 % 2003) as f32 / 1001.5 - 1.0);
    buffer
}

fn ptr(buffer: &AlignedBuf) -> *const f32 {
    buffer.as_ptr().cast()
}

fn ptr_mut(buffer: &mut AlignedBuf) -> *mut f32 {
    buffer.as_mut_ptr().cast()
}

/// Plain operands: read as they lie, and packed on the way.
fn gemms(kernels: &KernelSet) -> Vec<Case> {
    let row = kernels.matmul().f32;
    let shapes = [(64, false), (128, false), (64, true)];
    let run = |(size, transposed): (usize, bool)| {
        let (a, b, mut c) = (floats(size * size), floats(size * size), floats(size * size));
        let name = if transposed { "gemm_bt" } else { "gemm" };
        let mut scratch = Vec::new();
        case(format!("{name}/f32/{size}x{size}x{size}"), move || {
            let gemm = Gemm {
                m: size,
                n: size,
                k: size,
                alpha: 1.0,
                a: Matrix { data: a.as_slice(), ld: size, transposed: false },
                b: Right::Plain(Matrix { data: b.as_slice(), ld: size, transposed }),
                beta: 0.0,
                epilogue: Epilogue::default(),
            };
            scratch.resize(gemm.scratch_len(row), 0.0);
            gemm.run(row, c.as_mut_slice(), size, &mut scratch).expect("the shapes fit");
        })
    };
    shapes.into_iter().map(run).collect()
}

/// What layers of plain weights run, packed ahead.
fn layers(kernels: &KernelSet) -> Vec<Case> {
    let [n, k] = LAYER;
    let set = *kernels.matmul();
    let weights = [("f32", set.f32), ("f16", set.f16), ("bf16", set.bf16)];
    let cases = weights.into_iter().flat_map(|weights| ROWS.map(|m| (weights, m)));
    let run = |((dtype, row), m): ((&str, &'static smallmind::kernels::matmul::Kernel), usize)| {
        // Whatever the type, zeros: what they are costs nothing.
        let source = bytes(n * k * row.weights.block_bytes());
        let mut packed = bytes(row.packed_len(n, k).expect("small"));
        row.pack(&Source::rows(source.as_slice(), n, k), 0..row.panels(n), packed.as_mut_slice())
            .expect("the shapes fit");
        let (x, mut y) = (floats(m * k), floats(m * n));
        case(format!("matmul/{dtype}/{m}x{n}x{k}"), move || {
            let portion = portion(&x, 4 * k, m, &packed, row.panels(n), &mut y);
            unsafe { row.run(black_box(&portion)) }
        })
    };
    cases.map(run).collect()
}

/// All panels of a layer.
fn portion(
    x: &AlignedBuf,
    ldx: usize,
    m: usize,
    w: &AlignedBuf,
    panel_end: usize,
    y: &mut AlignedBuf,
) -> Portion {
    let [n, k] = LAYER;
    Portion {
        x: x.as_ptr(),
        ldx,
        m,
        k,
        w: w.as_ptr(),
        panel_begin: 0,
        panel_end,
        n,
        y: ptr_mut(y),
        ldy: n,
        bias: null(),
        accumulate: false,
    }
}

/// Layers of quantised weights by type and activations, and the quantising itself.
fn quantised(isa: IsaId) -> Vec<Case> {
    let mut cases = Vec::new();
    for (mode, name) in
        [(Activations::Bits16, "16"), (Activations::Adaptive, "auto"), (Activations::Bits8, "8")]
    {
        let set = QmatmulKernels::select(isa).with_activations(mode);
        cases.push(quantising(set, name));
        for dtype in [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4_K, DType::Q6_K] {
            cases.extend(ROWS.map(|m| quantised_layer(set, dtype, m, name)));
        }
    }
    cases
}

fn quantising(set: QmatmulKernels, mode: &str) -> Case {
    let (m, k) = (ROWS[1], LAYER[1]);
    let (input, mut x) = (floats(m * k), bytes(m * set.row_bytes(k)));
    case(format!("quantize/{mode}/{m}x{k}"), move || unsafe {
        set.quantize_rows(ptr(&input), k, m, k, x.as_mut_ptr());
    })
}

fn quantised_layer(set: QmatmulKernels, dtype: DType, m: usize, mode: &str) -> Case {
    let [n, k] = LAYER;
    let kernel = set.kernel(dtype).expect("a quantised type");
    let row_bytes = dtype.row_bytes(k).expect("small");
    let mut raw = vec![0; n * row_bytes];
    encode_row(dtype, floats(n * k).as_slice(), &mut raw).expect("whole blocks");
    let mut packed = bytes(kernel.packed_bytes(n, k).expect("small"));
    let panels = packed.as_mut_slice::<u8>().chunks_mut(kernel.panel_bytes(k).expect("small"));
    for (rows, panel) in raw.chunks(kernel.nr() * row_bytes).zip(panels) {
        kernel.layout.pack_panel(rows, k, panel).expect("whole rows");
    }
    let (input, mut x, mut y) = (floats(m * k), bytes(m * set.row_bytes(k)), floats(m * n));
    unsafe { set.quantize_rows(ptr(&input), k, m, k, x.as_mut_ptr()) };
    case(format!("qmatmul/{}/{mode}/{m}x{n}x{k}", dtype.name()), move || {
        let portion = portion(&x, set.row_bytes(k), m, &packed, kernel.panels(n), &mut y);
        unsafe { kernel.run(set.activations(), black_box(&portion)) }
    })
}

fn elementwise(set: &unary::UnaryKernels) -> Vec<Case> {
    let mut cases = Vec::new();
    for kernel in set.unary().map(|kernel| *kernel) {
        let (x, mut y) = (floats(ELEMENTS), floats(ELEMENTS));
        cases.push(case(format!("unary/{}/{ELEMENTS}", kernel.info.op), move || {
            kernel.apply(x.as_slice(), y.as_mut_slice());
        }));
    }
    for kernel in set.binary().map(|kernel| *kernel) {
        let (a, b, mut y) = (floats(ELEMENTS), floats(ELEMENTS), floats(ELEMENTS));
        cases.push(case(format!("unary/{}/{ELEMENTS}", kernel.info.op), move || {
            kernel.apply(a.as_slice(), b.as_slice(), y.as_mut_slice());
        }));
    }
    cases
}

fn row_wise(set: &rows::RowKernels) -> Vec<Case> {
    let set = *set;
    let (rows, cols) = (4, ELEMENTS);
    let shape = format!("{rows}x{cols}");
    let softmax = move |src: &AlignedBuf, dst: &mut AlignedBuf| SoftmaxArgs {
        src: ptr(src),
        src_stride: cols,
        dst: ptr_mut(dst),
        dst_stride: cols,
        rows,
        cols,
        scale: 1.0,
        causal: None,
        mask: null(),
        mask_stride: 0,
    };
    let norm = move |src: &AlignedBuf, dst: &mut AlignedBuf| NormArgs {
        x: ptr(src).cast_mut(),
        x_stride: cols,
        add: null(),
        add_stride: 0,
        dst: ptr_mut(dst),
        dst_stride: cols,
        gamma: ptr(src),
        beta: ptr(src),
        eps: 1e-5,
        rows,
        cols,
        mean: null_mut(),
        rstd: null_mut(),
    };
    let buffers = || (floats(rows * cols), floats(rows * cols));
    let with = |name: &str, run: fn(&rows::RowKernels, &AlignedBuf, &mut AlignedBuf)| {
        let (x, mut y) = buffers();
        case(format!("rows/{name}/{shape}"), move || run(&set, &x, &mut y))
    };
    let ((x, mut y), (a, mut b), (c, mut d), (e, mut f)) = (buffers(), buffers(), buffers(), buffers());
    vec![
        case(format!("rows/softmax/{shape}"), move || unsafe { set.softmax.run(&softmax(&x, &mut y)) }),
        case(format!("rows/log_softmax/{shape}"), move || unsafe {
            let SoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols, .. } = softmax(&a, &mut b);
            set.log_softmax.run(&LogSoftmaxArgs { src, src_stride, dst, dst_stride, rows, cols })
        }),
        case(format!("rows/layer_norm/{shape}"), move || unsafe { set.layer_norm.run(&norm(&c, &mut d)) }),
        case(format!("rows/rms_norm/{shape}"), move || unsafe { set.rms_norm.run(&norm(&e, &mut f)) }),
        with("add_row", |set, x, y| {
            let row = &x.as_slice()[..ELEMENTS];
            set.add_row.apply_in_place(y.as_mut_slice(), row).expect("whole rows");
        }),
        with("sum", |set, x, _| _ = black_box(set.sum.apply(x.as_slice()))),
        with("max", |set, x, _| _ = black_box(set.max.apply(x.as_slice()))),
        with("argmax", |set, x, _| _ = black_box(set.argmax.apply(x.as_slice()))),
        with("dot", |set, x, y| _ = black_box(set.dot.apply(x.as_slice(), y.as_slice()))),
    ]
}

/// Decoding, four query heads on one key/value head, and a prompt.
fn attention(kernels: &KernelSet) -> Vec<Case> {
    let set = *kernels.attention();
    let shapes = [("decode", 1, 4, 200), ("prefill", 48, 1, 48)];
    let by_type = [("f32", set.f32), ("f16", set.f16), ("q8_0", set.q8_0)];
    let cases = by_type.into_iter().flat_map(|kernel| shapes.map(|shape| (kernel, shape)));
    let plain = cases.map(|((dtype, kernel), (kind, tokens, heads, keys))| {
        let name = format!("attention/{dtype}/{kind}/{tokens}x{keys}");
        attended(&kernel, name, (tokens, heads, keys), ScoreOptions::default())
    });
    let none = ScoreOptions::default();
    let changes = [
        ("soft-cap", ScoreOptions { soft_cap: 50.0, ..none }),
        ("slopes", ScoreOptions { slopes: Some(&[0.5, 0.25, 0.125, 0.0625]), ..none }),
        ("sinks", ScoreOptions { sinks: Some(&[1.0, 2.0, 3.0, 4.0]), ..none }),
    ];
    let changed = changes.into_iter().map(|(change, scores)| {
        attended(&set.f32, format!("attention/f32/{change}/1x200"), (1, 4, 200), scores)
    });
    plain.chain(changed).collect()
}

fn attended(
    kernel: &AttentionKernel,
    name: String,
    (tokens, heads, keys): (usize, usize, usize),
    scores: ScoreOptions<'static>,
) -> Case {
    let (kernel, head_dim) = (*kernel, 64);
    let scores = ScoreArgs {
        soft_cap: scores.soft_cap,
        slopes: scores.slopes.map_or(null(), <[f32]>::as_ptr),
        position: (keys - tokens) as i64,
        sinks: scores.sinks.map_or(null(), <[f32]>::as_ptr),
    };
    let layout = kernel.layout(head_dim);
    let room = |tile: usize| bytes(keys.div_ceil(TILE) * tile);
    let (mut key_room, mut value_room) = (room(layout.key_tile()), room(layout.value_tile()));
    let k = HeadTiles { first: key_room.as_mut_ptr(), stride: layout.key_tile(), table: null() };
    let v = HeadTiles { first: value_room.as_mut_ptr(), stride: layout.value_tile(), table: null() };
    let stored = floats(keys * head_dim);
    unsafe {
        kernel.store_keys(head_dim, k, 0, (ptr(&stored), head_dim, keys));
        kernel.store_values(head_dim, v, 0, (ptr(&stored), head_dim, keys));
    }
    let (q, mut out) = (floats(tokens * heads * head_dim), floats(tokens * heads * head_dim));
    let mut scratch = floats(kernel.scratch_len(head_dim, tokens * heads).expect("small"));
    let limits: Vec<_> = (0..tokens).map(|token| (keys - tokens + token + 1) as u32).collect();
    case(name, move || {
        let args = AttentionArgs {
            q: ptr(&q),
            q_token_stride: heads * head_dim,
            q_head_stride: head_dim,
            tokens,
            heads,
            head_dim,
            scale: 0.125,
            k: HeadTiles { first: key_room.as_mut_ptr(), stride: layout.key_tile(), table: null() },
            v: HeadTiles { first: value_room.as_mut_ptr(), stride: layout.value_tile(), table: null() },
            limits: limits.as_ptr(),
            starts: null(),
            scores,
            ahead: false,
            out: ptr_mut(&mut out),
            out_token_stride: heads * head_dim,
            out_head_stride: head_dim,
            scratch: ptr_mut(&mut scratch),
        };
        unsafe { kernel.run(black_box(&args)) }
    })
}

/// A few tokens of each recurrence; states that fit the nearest cache.
fn recurrences(set: &RecurrenceKernels) -> Vec<Case> {
    vec![
        convolution(set, 3, false),
        convolution(set, 4, true),
        scan_of_channels(set),
        scan_of_heads(set),
        delta_rule(set),
    ]
}

/// Tokens of a recurrence.
const TOKENS: usize = 4;

fn rows(buffer: &AlignedBuf, stride: usize) -> Rows {
    Rows { first: ptr(buffer), stride }
}

fn rows_mut(buffer: &mut AlignedBuf, stride: usize) -> RowsMut {
    RowsMut { first: ptr_mut(buffer), stride }
}

fn convolution(set: &RecurrenceKernels, taps: usize, silu: bool) -> Case {
    let channels = 260;
    let [x, before, after] = [(); 3].map(|()| floats(TOKENS * channels));
    let (weights, mut state, mut y) =
        (floats(taps * channels), floats(taps * channels), floats(TOKENS * channels));
    let (name, kernel) = if silu { ("conv_silu", set.conv_silu) } else { ("conv", set.conv) };
    case(format!("recurrence/{name}/{TOKENS}x{channels}x{taps}"), move || {
        let args = ConvArgs {
            x: rows(&x, channels),
            y: rows_mut(&mut y, channels),
            state: ptr_mut(&mut state),
            weights: ptr(&weights),
            bias: null(),
            gates: Some(Gates { before: rows(&before, channels), after: rows(&after, channels) }),
            tokens: TOKENS,
            channels,
            begin: 0,
            end: channels,
            taps,
        };
        unsafe { kernel.run(black_box(&args)) }
    })
}

fn scan_of_channels(set: &RecurrenceKernels) -> Case {
    let (kernel, channels, d_state) = (set.scan1, 36, 16);
    let [x, dt, b, c] = [channels, channels, d_state, d_state].map(|width| (floats(TOKENS * width), width));
    let [a, mut state] = [(); 2].map(|()| floats(d_state * channels));
    let (vector, mut y) = (floats(channels), floats(TOKENS * channels));
    case(format!("recurrence/scan1/{TOKENS}x{channels}x{d_state}"), move || {
        let [x, dt, b, c] = [&x, &dt, &b, &c].map(|(buffer, stride)| rows(buffer, *stride));
        let args = Scan1Args {
            x,
            dt,
            b,
            c,
            y: rows_mut(&mut y, channels),
            a: ptr(&a),
            dt_bias: ptr(&vector),
            d: ptr(&vector),
            state: ptr_mut(&mut state),
            tokens: TOKENS,
            channels,
            d_state,
            begin: 0,
            end: channels,
        };
        unsafe { kernel.run(black_box(&args)) }
    })
}

fn scan_of_heads(set: &RecurrenceKernels) -> Case {
    let (kernel, heads, head_dim, d_state) = (set.scan2, 2, 64, 32);
    let width = heads * head_dim;
    let [x, dt, b, c] = [width, heads, d_state, d_state].map(|width| (floats(TOKENS * width), width));
    let (vector, mut state, mut y) = (floats(heads), floats(d_state * width), floats(TOKENS * width));
    case(format!("recurrence/scan2/{TOKENS}x{heads}x{head_dim}x{d_state}"), move || {
        let [x, dt, b, c] = [&x, &dt, &b, &c].map(|(buffer, stride)| rows(buffer, *stride));
        let args = Scan2Args {
            x,
            dt,
            b,
            c,
            y: rows_mut(&mut y, width),
            a: ptr(&vector),
            dt_bias: ptr(&vector),
            d: ptr(&vector),
            state: ptr_mut(&mut state),
            tokens: TOKENS,
            head_dim,
            d_state,
            group: heads,
            begin: 0,
            end: heads,
        };
        unsafe { kernel.run(black_box(&args)) }
    })
}

fn delta_rule(set: &RecurrenceKernels) -> Case {
    let (kernel, heads, d_k, d_v) = (set.delta, 2, 64, 68);
    let widths = [heads * d_k, heads * d_k, heads * d_v, heads, heads];
    let inputs = widths.map(|width| (floats(TOKENS * width), width));
    let (vector, mut state, mut y) = (floats(heads), floats(heads * d_k * d_v), floats(TOKENS * heads * d_v));
    case(format!("recurrence/delta/{TOKENS}x{heads}x{d_k}x{d_v}"), move || {
        let [q, k, v, alpha, beta] = inputs.each_ref().map(|(buffer, stride)| rows(buffer, *stride));
        let args = DeltaArgs {
            q,
            k,
            v,
            alpha,
            beta,
            run: heads,
            step: heads,
            a: ptr(&vector),
            dt_bias: ptr(&vector),
            state: ptr_mut(&mut state),
            y: rows_mut(&mut y, heads * d_v),
            tokens: TOKENS,
            d_k,
            d_v,
            keys: KeyHeads::Grouped(1),
            begin: 0,
            end: heads,
            scale: 0.125,
            eps: 1e-6,
        };
        unsafe { kernel.run(black_box(&args)) }
    })
}

/// Rotations, conversions, transposition.
fn others(kernels: &KernelSet) -> Vec<Case> {
    let (rope, convert, turn) = (*kernels.rope(), *kernels.convert(), kernels.transpose().f32);
    let pairings = [("adjacent", rope.adjacent), ("halves", rope.halves)];
    let mut cases: Vec<_> = pairings
        .into_iter()
        .map(|(name, kernel)| {
            let (heads, head_dim, tokens) = (4, 64, 8);
            let table = RotaryTable::new(tokens, head_dim, 10_000.0, Scaling::default()).expect("small");
            let positions: Vec<_> = (0..tokens as u32).collect();
            let mut x = floats(tokens * heads * head_dim);
            case(format!("rope/{name}/{tokens}x{heads}x{head_dim}"), move || {
                let stride = heads * head_dim;
                let positions = positions.as_ptr();
                let args =
                    RopeArgs { x: ptr_mut(&mut x), stride, positions, tokens, n_head: heads, head_dim };
                unsafe { kernel.run(table.angles(), &args) }
            })
        })
        .collect();
    let buffers = || (floats(ELEMENTS), floats(ELEMENTS));
    let ((x, mut y), (a, mut b), (c, mut d)) = (buffers(), buffers(), (floats(3600), floats(3600)));
    cases.push(case(format!("convert/f32_to_f16/{ELEMENTS}"), move || {
        convert.to_f16.apply(x.as_slice(), &mut y.as_mut_slice()[..ELEMENTS]);
    }));
    cases.push(case(format!("convert/f16_to_f32/{ELEMENTS}"), move || {
        convert.from_f16.apply(&a.as_slice()[..ELEMENTS], b.as_mut_slice());
    }));
    cases.push(case("transpose/f32/60x60".into(), move || unsafe {
        let (src, dst) = (ptr(&c), ptr_mut(&mut d));
        turn.run(&TransposeArgs { src, src_stride: 60, dst, dst_stride: 60, rows: 60, cols: 60 });
    }));
    cases
}
