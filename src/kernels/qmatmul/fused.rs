//! Quantisation together with what yields its rows: RMSNorm, or SiLU of a gate times up.
//! Values go from registers into a block on the stack and from there to digits; no row of them is ever in memory.
//! The bits are those of the two steps one after the other.

use super::activations::{Block, quantize_block};
use crate::isa::{DotI8, Isa, Kernel};
use crate::kernels::rows::reduce::{SumOfSquares, Terms, Values, fold};
use crate::kernels::unary::vecmath;
use crate::kernels::vectors::load;
use crate::quant::BLOCK;

/// Rows to normalise (as [`crate::kernels::rows::Norm`]'s RMSNorm does) and quantise.
#[derive(Clone, Copy, Debug)]
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

/// Rows of gates and what they let through, to multiply (silu(gate) · up) and quantise: whole rows, or a run of
/// blocks of each.
#[derive(Clone, Copy, Debug)]
pub struct GateQuantizeArgs {
    /// First row of gates.
    pub gate: *const f32,
    /// First row of what they gate.
    pub up: *const f32,
    /// Floats between rows of both.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub k: usize,
    /// First block of the first quantised row.
    pub out: *mut u8,
    /// Bytes between quantised rows.
    pub out_stride: usize,
}

/// The fused kernels of one level and mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fused {
    pub norm: unsafe fn(&NormQuantizeArgs),
    pub gate: unsafe fn(&GateQuantizeArgs),
}

impl Fused {
    pub const fn of<I: DotI8, const DIGITS: usize>() -> Self {
        Self { norm: norm::<I, DIGITS>, gate: gate::<I, DIGITS> }
    }
}

/// # Safety
/// The CPU has the level; `args` as [`super::Set::norm_quantize`] says.
unsafe fn norm<I: DotI8, const DIGITS: usize>(args: &NormQuantizeArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Norm::<DIGITS>(args));
}

/// # Safety
/// The CPU has the level; `args` as [`super::Set::gate_quantize`] says.
unsafe fn gate<I: DotI8, const DIGITS: usize>(args: &GateQuantizeArgs) {
    // SAFETY: the caller's promise.
    unsafe { I::new_unchecked() }.vectorize(Gate::<DIGITS>(args));
}

struct Norm<'a, const DIGITS: usize>(&'a NormQuantizeArgs);

impl<const DIGITS: usize> Kernel for Norm<'_, DIGITS> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.0;
        for r in 0..args.rows {
            // SAFETY: the caller's rows.
            unsafe {
                let x = args.x.add(r * args.x_stride).cast_mut();
                let square = fold::<SumOfSquares, I>(isa, &Values(x), args.k);
                let rstd = 1.0 / (square * (1.0 / args.k as f32) + args.eps).sqrt();
                let terms = Normed { x, rstd, gamma: args.gamma };
                quantize::<I, DIGITS>(isa, &terms, args.k, args.out.add(r * args.out_stride));
            }
        }
    }
}

struct Gate<'a, const DIGITS: usize>(&'a GateQuantizeArgs);

impl<const DIGITS: usize> Kernel for Gate<'_, DIGITS> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let args = self.0;
        for r in 0..args.rows {
            // SAFETY: the caller's rows.
            unsafe {
                let at = r * args.stride;
                let terms = Gated { gate: args.gate.add(at), up: args.up.add(at) };
                quantize::<I, DIGITS>(isa, &terms, args.k, args.out.add(r * args.out_stride));
            }
        }
    }
}

/// x · rstd · gamma.
struct Normed {
    x: *const f32,
    rstd: f32,
    gamma: *const f32,
}

impl Terms for Normed {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let x = isa.mul(load(isa, self.x.add(i), count), isa.splat(self.rstd));
            isa.mul(x, load(isa, self.gamma.add(i), count))
        }
    }
}

/// silu(gate) · up.
struct Gated {
    gate: *const f32,
    up: *const f32,
}

impl Terms for Gated {
    #[inline(always)]
    unsafe fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        unsafe {
            let gate = load(isa, self.gate.add(i), count);
            isa.mul(vecmath::silu(isa, gate), load(isa, self.up.add(i), count))
        }
    }
}

/// A block's values, on whole cache lines.
#[repr(align(64))]
struct Values32([f32; BLOCK]);

/// # Safety
/// The row behind `terms` has `k` elements, `out` room for as many blocks.
#[inline(always)]
unsafe fn quantize<I: Isa, const DIGITS: usize>(isa: I, terms: &impl Terms, k: usize, out: *mut u8) {
    let mut values = Values32([0.0; BLOCK]);
    let values = values.0.as_mut_ptr();
    for block in 0..k / BLOCK {
        // SAFETY: the block's elements are below k, and LANES divides 32.
        unsafe {
            for i in (0..BLOCK).step_by(I::LANES) {
                isa.store(values.add(i), terms.at(isa, block * BLOCK + i, I::LANES));
            }
            quantize_block::<I, DIGITS>(isa, values, out.add(block * Block::<DIGITS>::BYTES));
        }
    }
}
