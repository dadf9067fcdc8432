//! The selective scan of Mamba-2: a state of `d_state` numbers for each element of a head, with one decay a head.
//! With Δ = softplus(dt + bias): `s[n][i] = e^(Δ·a) · s[n][i] + b[n] · Δ·x[i]`, `y[i] = Σₙ c[n] · s[n][i] + d·x[i]`.

use super::gates::{Decay, Step, TILE, Tile, column, map};
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Kernel, Routine};
use crate::kernels::vectors::{self, Row};

/// A span of tokens, and the heads of it that are computed.
///
/// # Memory
/// For each head of the range, inputs are readable, and output and state readable and writable, as the fields
/// say; `group` is not 0. The output is `x`, or overlaps nothing else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Scan2Args {
    /// Input rows `[heads][head_dim]`.
    pub x: Rows,
    /// Rows of `heads` floats: steps before bias and softplus.
    pub dt: Rows,
    /// Rows `[groups][d_state]`: how the input enters the state.
    pub b: Rows,
    /// Rows `[groups][d_state]`: how the output reads the state.
    pub c: Rows,
    /// Output rows `[heads][head_dim]`; may be `x`, with the same stride.
    pub y: RowsMut,
    /// `heads` factors, which the decays' exponents are the steps' products with.
    pub a: *const f32,
    /// `heads` summands of `dt`.
    pub dt_bias: *const f32,
    /// `heads` factors of the input on its way past the state.
    pub d: *const f32,
    /// `[heads][d_state][head_dim]`: zeros before the first token.
    pub state: *mut f32,
    /// Number of rows.
    pub tokens: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Numbers that an element of a head keeps.
    pub d_state: usize,
    /// Neighbouring heads that share a row of `b` and of `c`.
    pub group: usize,
    /// First head to compute.
    pub begin: usize,
    /// One past the last head to compute.
    pub end: usize,
}

/// The scan of Mamba-2.
///
/// With e = 9 + |dt + bias|, which counts Δ's roundings, a token's new numbers are off by at most
/// u · (decay · |s| · (|Δ·a| · (e + 1) + 6) + |b·Δ·x| · (e + 4)), given those before, and y by (d_state + 3) · u · (Σ |c·s| +
/// |d·x|) and what the numbers' errors give.
pub type Scan2 = Kernel<Scan2Args>;

impl Kernel<Scan2Args> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("scan2", "f32"), code: Code::from_function(entry::<I>) }
    }
}

/// The kernel, a function of its own name, so that tests find its machine code.
///
/// # Safety
/// This CPU has the level, and as [`Scan2::run`].
unsafe fn entry<I: Isa>(args: &Scan2Args) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { routine::entry::<I, _, Scan>(args) }
}

/// Head by head; a few tokens go through some columns of the head's state, which stay in the nearest cache, then
/// through the next columns.
struct Scan;

impl Routine<Scan2Args> for Scan {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Scan2Args) {
        let &Scan2Args { tokens, head_dim, d_state, end, .. } = args;
        let width = end * head_dim;
        // SAFETY: the caller promises the heads that are computed, and the rows that they share.
        let all = unsafe {
            Memory {
                args,
                x: args.x.of(tokens, width),
                dt: args.dt.of(tokens, end),
                b: args.b.of(tokens, usize::MAX),
                c: args.c.of(tokens, usize::MAX),
                y: args.y.of(tokens, width),
                a: Row::new(args.a, end),
                dt_bias: Row::new(args.dt_bias, end),
                d: Row::new(args.d, end),
                state: vectors::RowsMut::new(args.state, head_dim, end * d_state, head_dim),
            }
        };
        for head in args.begin..end {
            let mut first = 0;
            while first < tokens {
                let some = TILE.min(tokens - first);
                tile(isa, &all, head, first, some);
                first += some;
            }
        }
    }
}

/// The memory that arguments name, up to the last head that is computed. How wide rows of `b` and `c` are isn't among
/// the arguments.
struct Memory<'a> {
    args: &'a Scan2Args,
    x: vectors::Rows,
    dt: vectors::Rows,
    b: vectors::Rows,
    c: vectors::Rows,
    y: vectors::RowsMut,
    a: Row,
    dt_bias: Row,
    d: Row,
    /// `d_state` rows for each head.
    state: vectors::RowsMut,
}

/// Some tokens of a head: the first one, their number, their gates.
struct Span {
    head: usize,
    first: usize,
    tokens: usize,
    steps: Tile,
    decays: Tile,
}

/// Takes `tokens ≤ TILE` rows from `first` on through a head.
#[inline(always)]
fn tile<I: Isa>(isa: I, all: &Memory<'_>, head: usize, first: usize, tokens: usize) {
    let (bias, a) = (all.dt_bias.get(head), all.a.get(head));
    let steps = map(isa, &column(all.dt, first, tokens, head), Step { bias });
    let decays = map(isa, &steps, Decay { a });
    let span = Span { head, first, tokens, steps, decays };
    let head_dim = all.args.head_dim;
    let mut i = 0;
    while i + 4 * I::LANES <= head_dim {
        columns::<I, 4>(isa, all, &span, i, I::LANES);
        i += 4 * I::LANES;
    }
    while i < head_dim {
        let count = I::LANES.min(head_dim - i);
        columns::<I, 1>(isa, all, &span, i, count);
        i += count;
    }
}

/// Takes the tokens through W vectors of columns from `i` on, each of `count ≤ LANES` lanes.
#[inline(always)]
fn columns<I: Isa, const W: usize>(isa: I, all: &Memory<'_>, span: &Span, i: usize, count: usize) {
    let &Span { head, first, tokens, ref steps, ref decays } = span;
    let &Scan2Args { head_dim, d_state, group, .. } = all.args;
    let at = head * head_dim + i;
    let state = all.state.part(head * d_state, i);
    let shared = head / group * d_state;
    let d = isa.splat(all.d.get(head));
    for t in 0..tokens {
        let (step, decay) = (isa.splat(steps[t]), isa.splat(decays[t]));
        let row = first + t;
        let (x, b, c) = (all.x.row(row), all.b.row(row).from(shared), all.c.row(row).from(shared));
        let (mut input, mut y) = ([isa.zero(); W], [isa.zero(); W]);
        for (w, input) in input.iter_mut().enumerate() {
            *input = isa.mul(step, x.load(isa, at + w * I::LANES, count));
        }
        for n in 0..d_state {
            let (b, c) = (isa.splat(b.get(n)), isa.splat(c.get(n)));
            let line = state.row(n);
            for w in 0..W {
                let s = isa.mul_add(decay, line.load(isa, w * I::LANES, count), isa.mul(b, input[w]));
                line.store(isa, w * I::LANES, s, count);
                y[w] = isa.mul_add(c, s, y[w]);
            }
        }
        for (w, &y) in y.iter().enumerate() {
            let x = x.load(isa, at + w * I::LANES, count);
            all.y.row(row).store(isa, at + w * I::LANES, isa.mul_add(d, x, y), count);
        }
    }
}
