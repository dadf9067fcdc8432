//! The selective scan of Mamba: a state of `d_state` numbers for each channel, each with a decay of its own.
//! With Δ = softplus(dt + bias): `s[n] = e^(Δ·a[n]) · s[n] + Δ·x · b[n]`, `y = Σₙ c[n] · s[n] + d·x`.

use super::gates::softplus;
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Routine};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{load, store};

/// A span of tokens, and the channels of it that are computed.
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
#[derive(Clone, Copy, Debug)]
pub struct Scan1 {
    /// Operation, element types, level and tile.
    pub info: KernelInfo,
    code: Code<Scan1Args>,
}

impl Scan1 {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("scan1", "f32"), code: Code::from_function(entry::<I>) }
    }

    /// Computes the channels `begin..end` of all tokens, and their state.
    ///
    /// # Safety
    /// For each channel of the range, inputs are readable, and output and state readable and writable, as the fields
    /// of `args` say; rows of `b` and `c` are readable for `d_state` floats. The output is `x` or `dt`, or overlaps
    /// nothing else.
    #[doc(hidden)]
    pub unsafe fn run(&self, args: &Scan1Args) {
        // SAFETY: `select` has proved the level; the caller promises the memory.
        unsafe { self.code.run(args) }
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

/// Takes all tokens through a vector of channels, whose state stays in the nearest cache.
struct Scan;

impl Routine<Scan1Args> for Scan {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &Scan1Args) {
        let mut c = args.begin;
        while c + I::LANES <= args.end {
            // SAFETY: the caller promises the channels below `end`.
            unsafe { vector(isa, args, c, I::LANES) };
            c += I::LANES;
        }
        if c < args.end {
            // SAFETY: the count reaches to `end`.
            unsafe { vector(isa, args, c, args.end - c) };
        }
    }
}

/// Takes all tokens through `count` channels from `first` on.
///
/// # Safety
/// As [`Scan1::run`], for these channels; `count ≤ LANES`.
#[inline(always)]
unsafe fn vector<I: Isa>(isa: I, args: &Scan1Args, first: usize, count: usize) {
    // SAFETY: the caller promises the rows, and `d_state` rows of `channels` floats of state and `a`.
    unsafe {
        let (bias, d) = (load(isa, args.dt_bias.add(first), count), load(isa, args.d.add(first), count));
        for t in 0..args.tokens {
            let x = load(isa, args.x.at(t, first), count);
            let step = softplus(isa, isa.add(load(isa, args.dt.at(t, first), count), bias));
            let input = isa.mul(x, step);
            let mut y = isa.zero();
            for n in 0..args.d_state {
                let at = n * args.channels + first;
                let decay = vecmath::exp(isa, isa.mul(step, load(isa, args.a.add(at), count)));
                let entering = isa.mul(isa.splat(*args.b.at(t, n)), input);
                let s = isa.mul_add(decay, load(isa, args.state.add(at), count), entering);
                store(isa, args.state.add(at), s, count);
                y = isa.mul_add(isa.splat(*args.c.at(t, n)), s, y);
            }
            store(isa, args.y.at(t, first), isa.mul_add(d, x, y), count);
        }
    }
}
