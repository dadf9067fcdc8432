//! Causal convolution of each channel with a few taps: `y[t] = bias + Σⱼ w[j] · x[t − taps + 1 + j]`, with SiLU behind
//! it, or between two gates: `y[t] = after[t] · conv(before · x)[t]`.
//! The state is what the sums of the next tokens need: the last `taps − 1` inputs of each channel.

use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{load, store};
use std::ops::RangeInclusive;

/// The lengths of a convolution's kernel that there is code for.
pub const TAPS: RangeInclusive<usize> = 2..=8;

/// Tokens that go through a vector of channels at once. So few rows don't push each other out of a cache's set, where
/// their distance is a power of two.
const TILE: usize = 8;

/// Factors of a convolution's input and output, rows of `channels` floats.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Gates {
    /// Multiplied with the input.
    pub before: Rows,
    /// Multiplied with the output.
    pub after: Rows,
}

/// A span of tokens, and the channels of it that are computed.
///
/// # Memory
/// For each channel of the range, input, gates, weights and bias (where not null) are readable, and output and
/// state readable and writable, as the fields say. The output is the input or one of the gates, or
/// overlaps nothing else; `taps` is in [`TAPS`].
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct ConvArgs {
    /// Input rows of `channels` floats.
    pub x: Rows,
    /// Output rows; may be `x`, or a row of the gates, with the same stride.
    pub y: RowsMut,
    /// `[taps − 1][channels]`: the inputs before this span, oldest first, zeros before the first token; then those
    /// of its end. With gates, the products with `before`.
    pub state: *mut f32,
    /// `[taps][channels]`, the oldest input's weights first: a GGUF file's `[channels][taps]` transposed.
    pub weights: *const f32,
    /// `channels` summands, or null for 0.
    pub bias: *const f32,
    /// Factors around the convolution; ignored where SiLU follows.
    pub gates: Option<Gates>,
    /// Number of rows.
    pub tokens: usize,
    /// Channels in a row of state and weights.
    pub channels: usize,
    /// First channel to compute.
    pub begin: usize,
    /// One past the last channel to compute.
    pub end: usize,
    /// Length of the convolution's kernel, in [`TAPS`].
    pub taps: usize,
}

/// A causal convolution.
///
/// The sum of `taps` products and the bias is off by at most (taps + 1) · u · (|bias| + Σ |w·x|), and 2u more for a
/// product with each gate; SiLU is off by 4u of its result, and passes 1.1 times the sum's error on.
pub type Conv = Kernel<ConvArgs>;

impl Kernel<ConvArgs> {
    pub(super) const fn plain<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("conv", "f32"), code: Code::of::<I, Convolve<false>>() }
    }

    pub(super) const fn silu<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("conv_silu", "f32"), code: Code::of::<I, Convolve<true>>() }
    }
}

/// The convolution, with SiLU where the flag says so.
struct Convolve<const SILU: bool>;

impl<const SILU: bool> Routine<ConvArgs> for Convolve<SILU> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &ConvArgs) {
        match args.taps {
            2 => channels::<I, SILU, 2>(isa, args),
            3 => channels::<I, SILU, 3>(isa, args),
            4 => channels::<I, SILU, 4>(isa, args),
            5 => channels::<I, SILU, 5>(isa, args),
            6 => channels::<I, SILU, 6>(isa, args),
            7 => channels::<I, SILU, 7>(isa, args),
            8 => channels::<I, SILU, 8>(isa, args),
            taps => unreachable!("a convolution of {taps} taps"),
        }
    }
}

/// Takes a few tokens through all channels, a vector at a time, then the next.
#[inline(always)]
fn channels<I: Isa, const SILU: bool, const TAPS: usize>(isa: I, args: &ConvArgs) {
    let mut first = 0;
    while first < args.tokens {
        let tokens = TILE.min(args.tokens - first);
        let mut c = args.begin;
        // SAFETY: the caller promises the channels below `end`, to which both counts reach at most, and the rows below
        // `tokens`.
        unsafe {
            while c + I::LANES <= args.end {
                vector::<I, SILU, TAPS>(isa, args, first..first + tokens, c, I::LANES);
                c += I::LANES;
            }
            if c < args.end {
                vector::<I, SILU, TAPS>(isa, args, first..first + tokens, c, args.end - c);
            }
        }
        first += tokens;
    }
}

/// Takes tokens through `count` channels from `c` on, whose last inputs stay in registers.
///
/// # Safety
/// As [`Conv::run`], for these channels and rows; `count ≤ LANES`.
#[inline(always)]
unsafe fn vector<I: Isa, const SILU: bool, const TAPS: usize>(
    isa: I,
    args: &ConvArgs,
    rows: std::ops::Range<usize>,
    c: usize,
    count: usize,
) {
    let state = |j: usize| args.state.wrapping_add(j * args.channels + c);
    let (mut weights, mut inputs) = ([isa.zero(); TAPS], [isa.zero(); TAPS]);
    let mut bias = isa.zero();
    // SAFETY: weights and state hold `taps` and `taps − 1` rows of `channels` floats, and the bias one if there is one.
    unsafe {
        for (j, weight) in weights.iter_mut().enumerate() {
            *weight = load(isa, args.weights.add(j * args.channels + c), count);
        }
        for (j, input) in inputs[1..].iter_mut().enumerate() {
            *input = load(isa, state(j), count);
        }
        if !args.bias.is_null() {
            bias = load(isa, args.bias.add(c), count);
        }
    }
    for t in rows {
        // SAFETY: input, gates and output have row `t`, of which `count` floats from `c` on belong to the range.
        unsafe {
            let mut x = load(isa, args.x.at(t, c), count);
            if !SILU && let Some(gates) = args.gates {
                x = isa.mul(x, load(isa, gates.before.at(t, c), count));
            }
            // Each input takes the place of the one before it; a copy of the array would go through memory.
            for input in inputs.iter_mut().rev() {
                std::mem::swap(input, &mut x);
            }
            let mut y = bias;
            for (i, &x) in inputs.iter().enumerate() {
                y = isa.mul_add(x, weights[i], y);
            }
            if SILU {
                y = vecmath::silu(isa, y);
            } else if let Some(gates) = args.gates {
                y = isa.mul(y, load(isa, gates.after.at(t, c), count));
            }
            store(isa, args.y.at(t, c), y, count);
        }
    }
    for (j, &input) in inputs[1..].iter().enumerate() {
        // SAFETY: the state holds `taps − 1` rows of `channels` floats.
        unsafe { store(isa, state(j), input, count) };
    }
}
