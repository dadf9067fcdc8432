//! The selective scan of Mamba: a state of `d_state` numbers for each channel, each with a decay of its own.
//! With Δ = softplus(dt + bias): `s[n] = e^(Δ·a[n]) · s[n] + Δ·x · b[n]`, `y = Σₙ c[n] · s[n] + d·x`.

use super::gates::{TILE, softplus};
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Kernel, Routine};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{load, store};

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
        let mut c = args.begin;
        // SAFETY: the caller promises the channels below `end`, to which both counts reach at most.
        unsafe {
            while c + I::LANES <= args.end {
                vector(isa, args, c, I::LANES);
                c += I::LANES;
            }
            if c < args.end {
                vector(isa, args, c, args.end - c);
            }
        }
    }
}

/// A vector of channels of a token.
#[derive(Clone, Copy)]
struct Token<V> {
    step: V,
    /// The input times the step.
    input: V,
    y: V,
}

/// Takes all tokens through `count` channels from `first` on.
///
/// # Safety
/// As [`Scan1::run`], for these channels; `count ≤ LANES`.
#[inline(always)]
unsafe fn vector<I: Isa>(isa: I, args: &Scan1Args, first: usize, count: usize) {
    let zero = Token { step: isa.zero(), input: isa.zero(), y: isa.zero() };
    let mut tile = [zero; TILE];
    for begin in (0..args.tokens).step_by(TILE) {
        let tile = &mut tile[..TILE.min(args.tokens - begin)];
        // SAFETY: the caller promises the channels of these rows, of state and of all vectors.
        unsafe {
            if tile.len() < FEW {
                for t in begin..begin + tile.len() {
                    let token = entering(isa, args, (t, first, count));
                    leaving(isa, args, (t, first, count), alone(isa, args, token, (t, first, count)));
                }
            } else {
                for (token, t) in tile.iter_mut().zip(begin..) {
                    *token = entering(isa, args, (t, first, count));
                }
                numbers(isa, args, tile, (begin, first, count));
                for (token, t) in tile.iter().zip(begin..) {
                    leaving(isa, args, (t, first, count), token.y);
                }
            }
        }
    }
}

/// Step and input of row `t` in `count` channels from `first` on.
///
/// # Safety
/// As [`Scan1::run`], for this row and these channels; `count ≤ LANES`.
#[inline(always)]
unsafe fn entering<I: Isa>(
    isa: I,
    args: &Scan1Args,
    (t, first, count): (usize, usize, usize),
) -> Token<I::F32> {
    // SAFETY: the caller promises the channels of the row and of the bias.
    unsafe {
        let (x, dt) = (load(isa, args.x.at(t, first), count), load(isa, args.dt.at(t, first), count));
        let step = softplus(isa, isa.add(dt, load(isa, args.dt_bias.add(first), count)));
        Token { step, input: isa.mul(x, step), y: isa.zero() }
    }
}

/// Stores the output of row `t`: what its numbers give, and the input on its way past them.
///
/// # Safety
/// As [`entering`].
#[inline(always)]
unsafe fn leaving<I: Isa>(isa: I, args: &Scan1Args, (t, first, count): (usize, usize, usize), y: I::F32) {
    // SAFETY: the caller promises the channels of the row and of `d`. `x` is read before a `y` in its place is written.
    unsafe {
        let (d, x) = (load(isa, args.d.add(first), count), load(isa, args.x.at(t, first), count));
        store(isa, args.y.at(t, first), isa.mul_add(d, x, y), count);
    }
}

/// Takes row `t` through all numbers of `count` channels from `first` on. Returns its output.
///
/// # Safety
/// As [`entering`].
#[inline(always)]
unsafe fn alone<I: Isa>(
    isa: I,
    args: &Scan1Args,
    token: Token<I::F32>,
    (t, first, count): (usize, usize, usize),
) -> I::F32 {
    let mut y = token.y;
    for n in 0..args.d_state {
        let at = n * args.channels + first;
        // SAFETY: the caller promises `d_state` rows of `channels` floats of state and `a`, and number `n` of the row.
        unsafe {
            let decay = vecmath::exp(isa, isa.mul(token.step, load(isa, args.a.add(at), count)));
            let entering = isa.mul(isa.splat(*args.b.at(t, n)), token.input);
            let s = isa.mul_add(decay, load(isa, args.state.add(at), count), entering);
            store(isa, args.state.add(at), s, count);
            y = isa.mul_add(isa.splat(*args.c.at(t, n)), s, y);
        }
    }
    y
}

/// Takes the tokens from `begin` on through all numbers of `count` channels from `first` on.
///
/// # Safety
/// As [`Scan1::run`], for these channels and the tile's rows; `count ≤ LANES`.
#[inline(always)]
unsafe fn numbers<I: Isa>(
    isa: I,
    args: &Scan1Args,
    tile: &mut [Token<I::F32>],
    (begin, first, count): (usize, usize, usize),
) {
    for n in 0..args.d_state {
        let at = n * args.channels + first;
        let (mut b, mut c) = (args.b.at(begin, n), args.c.at(begin, n));
        // SAFETY: the caller promises `d_state` rows of `channels` floats of state and `a`, and number `n` of the rows.
        unsafe {
            let (a, mut s) = (load(isa, args.a.add(at), count), load(isa, args.state.add(at), count));
            for token in tile.iter_mut() {
                let decay = vecmath::exp(isa, isa.mul(token.step, a));
                s = isa.mul_add(decay, s, isa.mul(isa.splat(*b), token.input));
                token.y = isa.mul_add(isa.splat(*c), s, token.y);
                (b, c) = (b.wrapping_add(args.b.stride), c.wrapping_add(args.c.stride));
            }
            store(isa, args.state.add(at), s, count);
        }
    }
}
