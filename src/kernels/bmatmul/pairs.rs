//! Dot products of pairs in vectors: the f32 kernels' loops and shape of tile, with a pair of bfloat16 where those
//! have an f32.

use super::rounding::to_pairs;
use super::{Engine, Kernel};
use crate::isa::{DotBf16, Isa, SimdBody};
use crate::kernels::info::KernelInfo;
use crate::kernels::matmul::{Block, Blocking, Tile, Tiles, start, store};

/// Vectors of columns in a panel.
const NV: usize = 4;

/// The kernel of a level with such an instruction.
pub(super) const fn kernel<I: DotBf16>(blocking: &'static Blocking) -> Kernel {
    let info = KernelInfo {
        op: "bmatmul",
        dtype: "bf16",
        isa: I::ID,
        mr: blocking.tiles.full.len(),
        nr: blocking.nr,
    };
    Kernel { info, engine: Engine::Pairs(blocking), round: to_pairs::<I> }
}

/// The loops round its tiles, whose k counts pairs. 6 rows × 4 vectors: 24 sums, 4 weights and a factor of 32
/// registers.
pub(super) const fn blocking<I: DotBf16>() -> Blocking {
    let full = const {
        &[
            tile::<I, 1, 4>(),
            tile::<I, 2, 3>(),
            tile::<I, 3, 2>(),
            tile::<I, 4, 1>(),
            tile::<I, 5, 1>(),
            tile::<I, 6, 1>(),
        ]
    };
    let nr = NV * I::LANES;
    Blocking { tiles: Tiles { full, narrow: &[], tall: &[] }, nr, row_bytes: 4 * nr, wide: None }
}

const fn tile<I: DotBf16, const MR: usize, const P: usize>() -> Tile {
    Tile { one: entry::<I, MR, 1>, group: P, many: entry::<I, MR, P> }
}

/// # Safety
/// As `TileFn`; the block's k counts pairs.
unsafe fn entry<I: DotBf16, const MR: usize, const P: usize>(block: &Block) {
    // SAFETY: the CPU has the instruction set.
    let isa = unsafe { I::new_unchecked() };
    isa.vectorize(Body::<I, MR, P> { isa, block })
}

struct Body<'a, I, const MR: usize, const P: usize> {
    isa: I,
    block: &'a Block,
}

impl<I: DotBf16, const MR: usize, const P: usize> SimdBody for Body<'_, I, MR, P> {
    type Output = ();
    #[inline(always)]
    fn run<J: Isa>(self, _: J) {
        let (isa, mut block) = (self.isa, *self.block);
        for _ in 0..block.blocks {
            // SAFETY: the row block's X, Y and bias and the panels are there; rows of Y and X advance together.
            unsafe {
                let mut sums = [[[isa.zero(); NV]; P]; MR];
                if block.resume || !block.bias.is_null() {
                    start(isa, &block, &mut sums);
                }
                sums = accumulate(isa, &block, sums);
                store(isa, &block, &sums);
                block.next = block.next.wrapping_add(block.k * block.next_step);
                block.x = block.x.wrapping_add(MR * block.ldx);
                block.y = block.y.wrapping_add(MR * block.ldy);
            }
        }
    }
}

/// Adds the block's products to the sums, a pair of k a step.
///
/// # Safety
/// As `TileFn`, for one row block.
#[inline(always)]
unsafe fn accumulate<I: DotBf16, const MR: usize, const P: usize>(
    isa: I,
    block: &Block,
    mut sums: [[[I::F32; NV]; P]; MR],
) -> [[[I::F32; NV]; P]; MR] {
    let (mut w, mut x, mut next) = (block.w, block.x, block.next);
    for _ in 0..block.k {
        for p in 0..P {
            let panel: *const i32 = w.wrapping_add(p * block.panel_stride).cast();
            // SAFETY: the panels hold k rows of NV vectors of pairs; the row blocks' X hold k pairs.
            unsafe {
                let mut weights = [isa.splat_i32(0); NV];
                for (v, weights) in weights.iter_mut().enumerate() {
                    *weights = isa.load_i32(panel.wrapping_add(v * I::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let pair = isa.splat_i32(x.wrapping_add(i * block.ldx).cast::<i32>().read_unaligned());
                    for v in 0..NV {
                        sums[p][v] = isa.dot_bf16(sums[p][v], weights[v], pair);
                    }
                }
            }
        }
        if P == 1 {
            // Groups of panels take all of k at once: nothing comes after that they don't read already.
            isa.prefetch(next);
            next = next.wrapping_add(block.next_step);
        }
        w = w.wrapping_add(block.row_stride);
        x = x.wrapping_add(4);
    }
    sums
}
