//! How a product is cut, and what of it is packed: by the sizes of caches, and by what processors do with lines that lie
//! apart. Nothing here changes a bit of a result.

use super::{Gemm, Kernel, Right};
use crate::{cpu, memory};

/// Row blocks up to which a plain B isn't packed: that costs more than reading its own lines a few times. A narrow panel
/// reads little of each line.
const DIRECT_BLOCKS: usize = 10;
const DIRECT_BLOCKS_NARROW: usize = 2;
/// Bytes of a panel's row from which on it is wide.
const WIDE: usize = 256;
/// Rows of k of a plain B that are worked on together where it isn't packed.
const DIRECT_DEPTH: usize = 32;
/// Row blocks up to which such a B is read by columns, all of k at a time, where the processor fetches rows ahead; a
/// single one where panels are narrow.
const BY_COLUMNS_BLOCKS: usize = 2;
/// Bytes of A that are packed together: 128 rows of a slice. Half and twice as many were slower on Intel's.
const PACKED_A: usize = 256 << 10;
/// Rows of A up to which whole rows of a B within L2 are walked where panels are narrow.
const NARROW_WALKED_ROWS: usize = 4;
/// Rows of k that are packed together, about: C passes by once for each such slice.
const DEPTH: usize = 512;

/// How a product is cut.
#[derive(Clone, Copy)]
pub(super) struct Cuts {
    /// Rows of k in a slice.
    pub depth: usize,
    /// The same for columns that don't fill a panel, and are packed.
    pub rest_depth: usize,
    /// Columns that are worked on together, in whole panels.
    pub columns: usize,
    /// Rows that are worked on together.
    pub rows: usize,
    /// A goes through scratch memory.
    pub pack_a: bool,
    /// All of B goes through scratch memory; else only the columns that don't fill a panel do.
    pub pack_b: bool,
}

impl Gemm<'_> {
    /// Rows of A up to which whole rows of B are walked, if there is code for them. Where panels are wide, other ways read
    /// B as fast, but for two cases on AMD's: B comes from memory (half the time), or there is one row (a fifth less).
    pub(super) fn walked_rows(&self, kernel: &Kernel) -> usize {
        let caches = memory::cache_sizes();
        match (kernel.is_wide(), cpu::is_amd()) {
            (false, _) if self.exceeds(caches.l2 / 2) => usize::MAX,
            (false, _) => NARROW_WALKED_ROWS,
            (true, true) if self.exceeds(caches.l3 / 2) => usize::MAX,
            (true, is_amd) => usize::from(is_amd),
        }
    }

    /// Whether B, of which a part of C may read some columns only, has more bytes.
    pub(super) fn exceeds(&self, bytes: usize) -> bool {
        self.k.saturating_mul(self.n).saturating_mul(size_of::<f32>()) > bytes
    }

    /// Which operands are packed, and how much of them at a time, in a part of so many rows and columns.
    pub(super) fn cuts(&self, kernel: &Kernel, [m, n]: [usize; 2]) -> Cuts {
        let caches = memory::cache_sizes();
        let (mr, nr) = (kernel.info.mr, kernel.info.nr);
        let slice = kernel.blocking.k_slice();
        let floats_of = |bytes: usize| bytes / size_of::<f32>();
        let (size_a, size_b) = (m.saturating_mul(self.k), self.k.saturating_mul(n));
        let wide = kernel.is_wide();
        let direct_blocks = if wide { DIRECT_BLOCKS } else { DIRECT_BLOCKS_NARROW };
        let must_pack_a = self.a.transposed || self.alpha != 1.0;
        let pack_b = match self.b {
            Right::Packed(_) => false,
            // Few rows meet B before it leaves L1 again, and a small B never does: its own lines serve as panels.
            Right::Plain(b) => b.transposed || (m > direct_blocks * mr && size_b > floats_of(caches.l1d)),
        };
        // Panels that come from scratch memory meet all of A where it stays in L2.
        let small_a = size_a <= floats_of(caches.l2 / 4);
        let blocks = if wide { BY_COLUMNS_BLOCKS } else { 1 };
        // Narrow columns of a B that comes from memory would be read a piece of each page at a time.
        let by_columns = m <= blocks * mr && !self.exceeds(caches.l3 / 2) && cpu::is_amd();
        let deep = (DEPTH / slice).max(1) * slice;
        // What is packed of B at a time: the more, the less often A is packed and C read.
        let packed_b = if cpu::is_amd() { caches.l2.saturating_mul(4) } else { caches.l2 };
        let (depth, panels) = match self.b {
            Right::Plain(_) if pack_b && small_a => (slice, (floats_of(caches.l2 / 2) / (slice * nr)).max(1)),
            Right::Plain(_) if pack_b => (deep, (floats_of(packed_b) / (deep * nr)).max(1)),
            // B's lines, where the processor fetches them ahead: sums stay in registers.
            Right::Plain(_) if by_columns => (self.k, usize::MAX / nr),
            // B's lines, where it comes from afar: so few that the next ones can be prefetched meanwhile.
            Right::Plain(_) if size_b > floats_of(caches.l2 / 4) => {
                let few = wide && 1 < m.div_ceil(mr) && m <= 4 * mr;
                (if few { DIRECT_DEPTH } else { 2 * DIRECT_DEPTH }, usize::MAX / nr)
            }
            Right::Packed(_) if !must_pack_a => (self.k, (floats_of(caches.l2 / 4) / (deep * nr)).max(1)),
            _ => (deep, usize::MAX / nr),
        };
        let pack_a = must_pack_a || (pack_b && !small_a);
        let packed_a = PACKED_A.min(caches.l2 / 4);
        let rows =
            if pack_a { (floats_of(packed_a) / deep).max(mr).next_multiple_of(mr) } else { usize::MAX };
        let (depth, rest_depth) = (depth.min(self.k), depth.min(deep).min(self.k));
        Cuts { depth, rest_depth, columns: panels * nr, rows, pack_a, pack_b }
    }
}

impl Kernel {
    /// Whether a panel's row is several cache lines.
    fn is_wide(&self) -> bool {
        self.blocking.row_bytes >= WIDE
    }
}
