//! The selective scan of Mamba: a state of `d_state` numbers for each channel, each with a decay of its own.
//! With Δ = softplus(dt + bias): `s[n] = e^(Δ·a[n]) · s[n] + Δ·x · b[n]`, `y = Σₙ c[n] · s[n] + d·x`.

use super::gates::{TILE, softplus};
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Kernel, Routine};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{self, Row};

/// A span of tokens, and the channels of it that are computed.
///
/// # Memory
/// For each channel of the range, inputs are readable, and output and state readable and writable, as the fields
/// say; rows of `b` and `c` are readable for `d_state` floats. The output is `x` or `dt`, or overlaps
/// nothing else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Scan1Args {
    /// Input rows of `channels` floats.
    pub x: Rows,
    /// Rows of `channels` floats: steps before bias and softplus.
    pub dt: Rows,
    /// Rows of `d_state` floats, which all channels share: how the input enters the state.
    pub b: Rows,
    /// Rows of `d_state` floats, which all channels share: how the output reads the state.
    pub c: Rows,
    /// Output rows of `channels` floats; may be `x` or `dt`, with the same stride.
    pub y: RowsMut,
    /// `[d_state][channels]`: a GGUF file's `[channels][d_state]` transposed.
    pub a: *const f32,
    /// `channels` summands of `dt`.
    pub dt_bias: *const f32,
    /// `channels` factors of the input on its way past the state.
    pub d: *const f32,
    /// `[d_state][channels]`: zeros before the first token.
    pub state: *mut f32,
    /// Number of rows.
    pub tokens: usize,
    /// Channels in a row of state and `a`.
    pub channels: usize,
    /// Numbers that a channel keeps.
    pub d_state: usize,
    /// First channel to compute.
    pub begin: usize,
    /// One past the last channel to compute.
    pub end: usize,
}

/// The scan of Mamba.
///
/// With e = 9 + |dt + bias|, which counts Δ's roundings, a token's new numbers are off by at most
/// u · (decay · |s| · (|Δ·a| · (e + 1) + 6) + |Δ·x·b| · (e + 4)), given those before, and y by (d_state + 3) · u · (Σ |c·s| +
/// |d·x|) and what the numbers' errors give.
pub type Scan1 = Kernel<Scan1Args>;

impl Kernel<Scan1Args> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("scan1", "f32"), code: Code::from_function(entry::<I>) }
    }
}

/// The kernel, a function of its own name, so that tests find its machine code.
///
/// # Safety
/// This CPU has the level, and as [`Scan1::run`].
unsafe fn entry<I: Isa>(args: &Scan1Args) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { routine::entry::<I, _, Scan>(args) }
}

/// Fewer tokens than this go one by one.
const FEW: usize = TILE / 2;

/// A vector of channels at a time: a few tokens go through one of its numbers after the other, then the next tokens.
/// So a number and its exponent are loaded once for these tokens, and stay in registers; outputs, which add up over the
/// numbers, don't. A token alone has its output in a register instead.
struct Scan;

impl Routine<Scan1Args> for Scan {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Scan1Args) {
        let &Scan1Args { tokens, channels, d_state, .. } = args;
        // SAFETY: the caller promises the channels that are computed, and the numbers that they share.
        let all = unsafe {
            Memory {
                x: args.x.of(tokens, channels),
                dt: args.dt.of(tokens, channels),
                b: args.b.of(tokens, d_state),
                c: args.c.of(tokens, d_state),
                y: args.y.of(tokens, channels),
                a: vectors::Rows::new(args.a, channels, d_state, channels),
                dt_bias: Row::new(args.dt_bias, channels),
                d: Row::new(args.d, channels),
                state: vectors::RowsMut::new(args.state, channels, d_state, channels),
                tokens,
                d_state,
            }
        };
        let mut c = args.begin;
        while c + I::LANES <= args.end {
            vector(isa, &all, c, I::LANES);
            c += I::LANES;
        }
        if c < args.end {
            vector(isa, &all, c, args.end - c);
        }
    }
}

/// The memory that arguments name.
struct Memory {
    x: vectors::Rows,
    dt: vectors::Rows,
    b: vectors::Rows,
    c: vectors::Rows,
    y: vectors::RowsMut,
    a: vectors::Rows,
    dt_bias: Row,
    d: Row,
    state: vectors::RowsMut,
    tokens: usize,
    d_state: usize,
}

/// A vector of channels of a token.
#[derive(Clone, Copy)]
struct Token<V> {
    step: V,
    /// The input times the step.
    input: V,
    y: V,
}

/// Takes all tokens through `count ≤ LANES` channels from `first` on.
#[inline(always)]
fn vector<I: Isa>(isa: I, all: &Memory, first: usize, count: usize) {
    let zero = Token { step: isa.zero(), input: isa.zero(), y: isa.zero() };
    let mut tile = [zero; TILE];
    for begin in (0..all.tokens).step_by(TILE) {
        let tile = &mut tile[..TILE.min(all.tokens - begin)];
        if tile.len() < FEW {
            for t in begin..begin + tile.len() {
                let token = entering(isa, all, (t, first, count));
                leaving(isa, all, (t, first, count), alone(isa, all, token, (t, first, count)));
            }
        } else {
            for (token, t) in tile.iter_mut().zip(begin..) {
                *token = entering(isa, all, (t, first, count));
            }
            numbers(isa, all, tile, (begin, first, count));
            for (token, t) in tile.iter().zip(begin..) {
                leaving(isa, all, (t, first, count), token.y);
            }
        }
    }
}

/// Step and input of row `t` in `count ≤ LANES` channels from `first` on.
#[inline(always)]
fn entering<I: Isa>(isa: I, all: &Memory, (t, first, count): (usize, usize, usize)) -> Token<I::F32> {
    let (x, dt) = (all.x.row(t).load(isa, first, count), all.dt.row(t).load(isa, first, count));
    let step = softplus(isa, isa.add(dt, all.dt_bias.load(isa, first, count)));
    Token { step, input: isa.mul(x, step), y: isa.zero() }
}

/// Stores the output of row `t`: what its numbers give, and the input on its way past them.
#[inline(always)]
fn leaving<I: Isa>(isa: I, all: &Memory, (t, first, count): (usize, usize, usize), y: I::F32) {
    // `x` is read before a `y` in its place is written.
    let (d, x) = (all.d.load(isa, first, count), all.x.row(t).load(isa, first, count));
    all.y.row(t).store(isa, first, isa.mul_add(d, x, y), count);
}

/// Takes row `t` through all numbers of `count ≤ LANES` channels from `first` on. Returns its output.
#[inline(always)]
fn alone<I: Isa>(
    isa: I,
    all: &Memory,
    token: Token<I::F32>,
    (t, first, count): (usize, usize, usize),
) -> I::F32 {
    let (b, c) = (all.b.row(t), all.c.row(t));
    let mut y = token.y;
    for n in 0..all.d_state {
        let state = all.state.row(n);
        let decay = vecmath::exp(isa, isa.mul(token.step, all.a.row(n).load(isa, first, count)));
        let entering = isa.mul(isa.splat(b.get(n)), token.input);
        let s = isa.mul_add(decay, state.load(isa, first, count), entering);
        state.store(isa, first, s, count);
        y = isa.mul_add(isa.splat(c.get(n)), s, y);
    }
    y
}

/// Takes the tokens from `begin` on through all numbers of `count ≤ LANES` channels from `first` on.
#[inline(always)]
fn numbers<I: Isa>(
    isa: I,
    all: &Memory,
    tile: &mut [Token<I::F32>],
    (begin, first, count): (usize, usize, usize),
) {
    for n in 0..all.d_state {
        let state = all.state.row(n);
        let (a, mut s) = (all.a.row(n).load(isa, first, count), state.load(isa, first, count));
        for (t, token) in tile.iter_mut().enumerate() {
            let (b, c) = (all.b.row(begin + t).get(n), all.c.row(begin + t).get(n));
            let decay = vecmath::exp(isa, isa.mul(token.step, a));
            s = isa.mul_add(decay, s, isa.mul(isa.splat(b), token.input));
            token.y = isa.mul_add(isa.splat(c), s, token.y);
        }
        state.store(isa, first, s, count);
    }
}
