//! Quantisation fused with the function before it: RMSNorm, GELU, or SiLU of a gate times up; and of blocks as they
//! stand.
//! Values go from registers into some blocks on the stack and from there to bytes; no row of them is ever in memory.
//! The bits are those of the two steps one after the other.

use super::activations::{Activations, RUN, Target};
use crate::arrays;
use crate::isa::{DotI8, Isa, SimdBody};
use crate::kernels::routine::at_level;
use crate::kernels::rows::reduce::{Same, SumOfSquares, fold};
use crate::kernels::unary::functions::{GeluTanh, SwiGlu};
use crate::kernels::vectors::{Function, Over, Row, Terms};
use crate::quant::BLOCK;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows to normalise (as [`crate::kernels::rows::Norm`]'s RMSNorm does) and quantise.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct NormQuantizeArgs {
    /// First row.
    pub x: *const f32,
    /// Floats between rows.
    pub x_stride: usize,
    /// `k` factors.
    pub gamma: *const f32,
    /// Added to the mean square.
    pub eps: f32,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub k: usize,
    /// First quantised row.
    pub out: *mut u8,
    /// Bytes between quantised rows.
    pub out_stride: usize,
}

/// Rows of which a function is quantised: whole rows, or a run of blocks of each.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct BlocksArgs {
    /// First row.
    pub x: *const f32,
    /// Floats between rows.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of each, a multiple of 32.
    pub len: usize,
    /// First quantised row.
    pub out: *mut u8,
    /// Bytes between quantised rows.
    pub out_stride: usize,
    /// Elements of a quantised row.
    pub k: usize,
    /// The first block of a quantised row that is written.
    pub block: usize,
}

/// The function whose results [`super::QmatmulKernels::quantize_blocks`] quantises.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub enum BlockFunction {
    /// x.
    Identity,
    /// gelu(x), by tanh.
    Gelu,
    /// silu(x) · its factor, of which the first is here.
    SiluGate(*const f32),
}

/// The fused kernels of one level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fused {
    pub norm: unsafe fn(&Norm),
    pub gate: unsafe fn(&Gate),
    pub gelu: unsafe fn(&GeluBlocks),
    pub blocks: unsafe fn(&PlainBlocks),
}

impl Fused {
    pub const fn of<I: DotI8>() -> Self {
        Self {
            norm: at_level::<I, Norm>,
            gate: at_level::<I, Gate>,
            gelu: at_level::<I, GeluBlocks>,
            blocks: at_level::<I, PlainBlocks>,
        }
    }
}

/// Rows to normalise and quantise, as [`super::QmatmulKernels::norm_quantize`] demands.
pub(super) struct Norm(pub Activations, pub NormQuantizeArgs);

impl SimdBody for &Norm {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Norm(activations, args) = *self;
        for r in 0..args.rows {
            // SAFETY: `k` floats of row r and of gamma are there, and room for the quantised row.
            unsafe {
                let (x, gamma) =
                    (Row::new(args.x.add(r * args.x_stride), args.k), Row::new(args.gamma, args.k));
                let square = fold::<SumOfSquares, I>(isa, &x, args.k);
                let rstd = 1.0 / (square * (1.0 / args.k as f32) + args.eps).sqrt();
                let terms = Over(Normed(rstd), [x, gamma]);
                let row = Target::new(activations, args.k, args.out.add(r * args.out_stride));
                quantize(isa, &terms, 0..args.k / BLOCK, &row);
            }
        }
    }
}

/// Gates, and their factors from `up` on, as [`super::QmatmulKernels::quantize_blocks`] demands.
pub(super) struct Gate {
    pub activations: Activations,
    pub gate: BlocksArgs,
    pub up: *const f32,
}

impl SimdBody for &Gate {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Gate { activations, ref gate, up } = *self;
        Blocks { activations, args: gate, function: SwiGlu, first: [gate.x, up] }.run(isa);
    }
}

/// Rows of which GELU is taken, as [`super::QmatmulKernels::quantize_blocks`] demands.
pub(super) struct GeluBlocks(pub Activations, pub BlocksArgs);

impl SimdBody for &GeluBlocks {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let GeluBlocks(activations, ref args) = *self;
        Blocks { activations, args, function: GeluTanh, first: [args.x] }.run(isa);
    }
}

/// Rows that are quantised as they are, as [`super::QmatmulKernels::quantize_blocks`] demands.
pub(super) struct PlainBlocks(pub Activations, pub BlocksArgs);

impl SimdBody for &PlainBlocks {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let PlainBlocks(activations, ref args) = *self;
        Blocks { activations, args, function: Same, first: [args.x] }.run(isa);
    }
}

/// Runs of blocks, of a function of N rows at a time.
struct Blocks<'a, F, const N: usize> {
    activations: Activations,
    args: &'a BlocksArgs,
    function: F,
    /// The first rows.
    first: [*const f32; N],
}

impl<F: Function<N>, const N: usize> SimdBody for Blocks<'_, F, N> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Blocks { activations, args, function, first } = self;
        for r in 0..args.rows {
            // SAFETY: row r has the blocks, and room for them as quantised.
            unsafe {
                let row = Target::new(activations, args.k, args.out.add(r * args.out_stride));
                let blocks = args.block..args.block + args.len / BLOCK;
                let rows = arrays::map(
                    first,
                    #[inline(always)]
                    |first| Row::new(first.wrapping_add(r * args.stride), args.len),
                );
                quantize(isa, &Over(function, rows), blocks, &row);
            }
        }
    }
}

/// x · rstd · gamma.
#[derive(Clone, Copy)]
struct Normed(f32);

impl Function<2> for Normed {
    #[inline(always)]
    fn call<I: Isa>(self, isa: I, [x, gamma]: [I::F32; 2]) -> I::F32 {
        isa.mul(isa.mul(x, isa.splat(self.0)), gamma)
    }
}

/// The values of some blocks, on whole cache lines.
#[repr(align(64))]
struct Run(#[allow(dead_code)] [f32; RUN * BLOCK]);

/// # Safety
/// The terms are as long as the blocks, which the row has.
#[inline(always)]
unsafe fn quantize<I: Isa>(isa: I, terms: &impl Terms, blocks: Range<usize>, row: &Target) {
    let mut values = MaybeUninit::<Run>::uninit();
    let values = values.as_mut_ptr().cast::<f32>();
    for at in (0..blocks.len()).step_by(RUN) {
        let some = RUN.min(blocks.len() - at);
        // SAFETY: the terms are as long as the blocks, which the row has, and LANES divides 32.
        unsafe {
            for i in (0..some * BLOCK).step_by(I::LANES) {
                isa.store(values.add(i), terms.at(isa, at * BLOCK + i, I::LANES));
            }
            row.quantize(isa, values, blocks.start + at, some);
        }
    }
}
