//! The selective scan of Mamba-2: a state of `d_state` numbers for each element of a head, with one decay a head.
//! With Δ = softplus(dt + bias): `s[n][i] = e^(Δ·a) · s[n][i] + b[n] · Δ·x[i]`, `y[i] = Σₙ c[n] · s[n][i] + d·x[i]`.

use super::gates::{Decay, Step, TILE, Tile, column, map};
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Kernel, Routine};
use crate::kernels::vectors::{load, store};

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
        for head in args.begin..args.end {
            let mut first = 0;
            while first < args.tokens {
                let tokens = TILE.min(args.tokens - first);
                // SAFETY: the caller promises the heads below `end` and the rows below `tokens`.
                unsafe { tile(isa, args, head, first, tokens) };
                first += tokens;
            }
        }
    }
}

/// Some tokens of a head: the first one, their number, their gates.
struct Span {
    head: usize,
    first: usize,
    tokens: usize,
    steps: Tile,
    decays: Tile,
}

/// Takes `tokens` rows from `first` on through a head.
///
/// # Safety
/// As [`Scan2::run`], for this head and these rows; `tokens ≤ TILE`.
#[inline(always)]
unsafe fn tile<I: Isa>(isa: I, args: &Scan2Args, head: usize, first: usize, tokens: usize) {
    // SAFETY: the caller promises the rows of `dt` and one number of each head.
    let (dt, bias, a) =
        unsafe { (column(args.dt, first, tokens, head), *args.dt_bias.add(head), *args.a.add(head)) };
    let steps = map(isa, &dt, Step { bias });
    let decays = map(isa, &steps, Decay { a });
    let span = Span { head, first, tokens, steps, decays };
    let mut i = 0;
    // SAFETY: the columns, of which the last is i + 4 · LANES or i + count at most, are the head's.
    unsafe {
        while i + 4 * I::LANES <= args.head_dim {
            columns::<I, 4>(isa, args, &span, i, I::LANES);
            i += 4 * I::LANES;
        }
        while i < args.head_dim {
            let count = I::LANES.min(args.head_dim - i);
            columns::<I, 1>(isa, args, &span, i, count);
            i += count;
        }
    }
}

/// Takes the tokens through W vectors of columns from `i` on, each of `count` lanes.
///
/// # Safety
/// As [`Scan2::run`], for these columns; `count ≤ LANES`.
#[inline(always)]
unsafe fn columns<I: Isa, const W: usize>(isa: I, args: &Scan2Args, span: &Span, i: usize, count: usize) {
    let Span { head, first, tokens, steps, decays } = span;
    let at = head * args.head_dim + i;
    let state = args.state.wrapping_add(head * args.d_state * args.head_dim + i);
    let shared = head / args.group * args.d_state;
    // SAFETY: the caller promises the rows, and the head's `d_state` rows of `head_dim` floats of state.
    unsafe {
        let d = isa.splat(*args.d.add(*head));
        for t in 0..*tokens {
            let (step, decay) = (isa.splat(steps[t]), isa.splat(decays[t]));
            let row = first + t;
            let (b, c) = (args.b.at(row, shared), args.c.at(row, shared));
            let (mut input, mut y) = ([isa.zero(); W], [isa.zero(); W]);
            for (w, input) in input.iter_mut().enumerate() {
                *input = isa.mul(step, load(isa, args.x.at(row, at + w * I::LANES), count));
            }
            for n in 0..args.d_state {
                let (b, c) = (isa.splat(*b.add(n)), isa.splat(*c.add(n)));
                let line = state.add(n * args.head_dim);
                for w in 0..W {
                    let p = line.add(w * I::LANES);
                    let s = isa.mul_add(decay, load(isa, p, count), isa.mul(b, input[w]));
                    store(isa, p, s, count);
                    y[w] = isa.mul_add(c, s, y[w]);
                }
            }
            for (w, &y) in y.iter().enumerate() {
                let x = load(isa, args.x.at(row, at + w * I::LANES), count);
                store(isa, args.y.at(row, at + w * I::LANES), isa.mul_add(d, x, y), count);
            }
        }
    }
}
