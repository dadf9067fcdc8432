//! Causal convolution of each channel with a few taps: `y[t] = bias + Σⱼ w[j] · x[t − taps + 1 + j]`, with SiLU behind
//! it, or between two gates: `y[t] = after[t] · conv(before · x)[t]`.
//! The state is what the sums of the next tokens need: the last `taps − 1` inputs of each channel.

use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{Code, Kernel, Routine};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::{self, Row};
use std::ops::{Range, RangeInclusive};

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
        let &ConvArgs { tokens, channels, taps, gates, .. } = args;
        #[allow(clippy::manual_map, reason = "the closure could be a call")]
        // SAFETY: the caller promises the channels that are computed.
        let all = unsafe {
            Memory {
                args,
                x: args.x.of(tokens, channels),
                y: args.y.of(tokens, channels),
                state: vectors::RowsMut::new(args.state, channels, taps - 1, channels),
                weights: vectors::Rows::new(args.weights, channels, taps, channels),
                bias: Row::or_empty(args.bias, channels),
                gates: match gates {
                    Some(gates) => {
                        Some((gates.before.of(tokens, channels), gates.after.of(tokens, channels)))
                    }
                    None => None,
                },
            }
        };
        match taps {
            2 => each::<I, SILU, 2>(isa, &all),
            3 => each::<I, SILU, 3>(isa, &all),
            4 => each::<I, SILU, 4>(isa, &all),
            5 => each::<I, SILU, 5>(isa, &all),
            6 => each::<I, SILU, 6>(isa, &all),
            7 => each::<I, SILU, 7>(isa, &all),
            8 => each::<I, SILU, 8>(isa, &all),
            taps => unreachable!("a convolution of {taps} taps"),
        }
    }
}

/// The memory that arguments name.
struct Memory<'a> {
    args: &'a ConvArgs,
    x: vectors::Rows,
    y: vectors::RowsMut,
    state: vectors::RowsMut,
    weights: vectors::Rows,
    bias: Row,
    /// Before and after.
    gates: Option<(vectors::Rows, vectors::Rows)>,
}

/// Takes a few tokens through all channels, a vector at a time, then the next.
#[inline(always)]
fn each<I: Isa, const SILU: bool, const TAPS: usize>(isa: I, all: &Memory<'_>) {
    let args = all.args;
    let mut first = 0;
    while first < args.tokens {
        let tokens = TILE.min(args.tokens - first);
        let mut c = args.begin;
        while c + I::LANES <= args.end {
            vector::<I, SILU, TAPS>(isa, all, first..first + tokens, c, I::LANES);
            c += I::LANES;
        }
        if c < args.end {
            vector::<I, SILU, TAPS>(isa, all, first..first + tokens, c, args.end - c);
        }
        first += tokens;
    }
}

/// Takes tokens through `count ≤ LANES` channels from `c` on, whose last inputs stay in registers.
#[inline(always)]
fn vector<I: Isa, const SILU: bool, const TAPS: usize>(
    isa: I,
    all: &Memory<'_>,
    rows: Range<usize>,
    c: usize,
    count: usize,
) {
    let (mut weights, mut inputs) = ([isa.zero(); TAPS], [isa.zero(); TAPS]);
    let mut bias = isa.zero();
    for (j, weight) in weights.iter_mut().enumerate() {
        *weight = all.weights.row(j).load(isa, c, count);
    }
    for (j, input) in inputs[1..].iter_mut().enumerate() {
        *input = all.state.row(j).load(isa, c, count);
    }
    if !all.args.bias.is_null() {
        bias = all.bias.load(isa, c, count);
    }
    for t in rows {
        let mut x = all.x.row(t).load(isa, c, count);
        if !SILU && let Some((before, _)) = all.gates {
            x = isa.mul(x, before.row(t).load(isa, c, count));
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
        } else if let Some((_, after)) = all.gates {
            y = isa.mul(y, after.row(t).load(isa, c, count));
        }
        all.y.row(t).store(isa, c, y, count);
    }
    for (j, &input) in inputs[1..].iter().enumerate() {
        all.state.row(j).store(isa, c, input, count);
    }
}
