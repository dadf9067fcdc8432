//! AMX: eight tile registers of 16 rows × 64 bytes, and dot products of whole tiles.
//! Code of the compiler never touches them, so each step of a kernel is one block of assembly, whose sums start
//! from memory and end there; [`with_tiles`] sets the registers up round them and gives them back.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::mem::offset_of;
use std::sync::OnceLock;

use super::os;

/// Rows of a tile, at most.
pub const ROWS: usize = 16;
/// Bytes of a tile's row.
pub const ROW_BYTES: usize = 64;
/// Bytes of a tile.
pub const TILE_BYTES: usize = ROWS * ROW_BYTES;
/// 32-bit sums in a tile's row.
pub const COLUMNS: usize = ROW_BYTES / 4;

/// Whether this CPU has tiles of bfloat16 and of bytes, and the operating system lets this process use them. The
/// first call asks the system.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cpu_has_tiles() && os::permit_tiles())
}

/// The CPU's instructions, and that the operating system keeps the registers' contents.
#[allow(unused_unsafe)] // safe functions in later versions of the standard library
fn cpu_has_tiles() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 0b11 << 17;
    // SAFETY: every x86-64 has CPUID; it has XGETBV, and register 0, where the CPU says that the system saves state.
    unsafe {
        is_x86_feature_detected!("xsave")
            && __cpuid(0).eax >= 7
            && __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
            && _xgetbv(0) & TILE_STATE == TILE_STATE
    }
}

/// Shapes of the tiles, as the CPU reads them.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    const NONE: Config =
        Config { palette: 0, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };

    /// The configuration of this thread; palette 0 for none.
    ///
    /// # Safety
    /// The level [`super::IsaId::Amx`] is available.
    unsafe fn current() -> Config {
        let mut config = Config::NONE;
        // SAFETY: the caller promises the level; `config` has room for all that is stored.
        unsafe { asm!("sttilecfg [{}]", in(reg) &mut config, options(nostack, preserves_flags)) };
        config
    }

    /// Sets tiles up on this thread.
    ///
    /// # Safety
    /// The level [`super::IsaId::Amx`] is available, and the configuration is valid.
    unsafe fn load(&self) {
        // SAFETY: the caller promises the level and the configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, preserves_flags, readonly)) };
    }
}

/// Runs `body` with tiles set up: sums and A `rows` high, A's rows `bytes` long, hence B's tiles a quarter of it high. The
/// steps of [`TileDot`] need rows of [`ROW_BYTES`], [`dot_bytes`] needs [`ROWS`] rows.
///
/// # Safety
/// The level [`super::IsaId::Amx`] is available. `body` doesn't unwind.
pub unsafe fn with_tiles(rows: usize, bytes: usize, body: impl FnOnce()) {
    debug_assert!((1..=ROWS).contains(&rows) && bytes.is_multiple_of(4) && (4..=ROW_BYTES).contains(&bytes));
    let mut config = Config { palette: 1, ..Config::NONE };
    config.row_bytes[..8].fill(ROW_BYTES as u16);
    config.row_bytes[4..6].fill(bytes as u16);
    config.rows[..6].fill(rows as u8);
    config.rows[6..8].fill((bytes / 4) as u8);
    // SAFETY: the caller promises the level; the configuration is valid.
    let before = unsafe {
        let before = Config::current();
        config.load();
        before
    };
    body();
    // Other code of this thread may have set tiles up once and for all, as llama.cpp does.
    // SAFETY: the caller promises the level; the configuration was in force before.
    unsafe {
        if before.palette != 0 {
            before.load();
        } else {
            asm!("tilerelease", options(nomem, nostack, preserves_flags));
        }
    }
}

/// Operands of one step: rows of A against panels of B, which are two tiles wide.
///
/// A is row-major, 64 bytes of each row a step. A panel of B has two tiles a step, one after the other; row j of
/// a tile holds the factors of bytes 4j to 4j + 3 of A's rows in each column. Sums are row-major, 32 bits each.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// First row of A for each row of tiles.
    pub a: [*const u8; 2],
    /// Bytes between rows of A.
    pub a_stride: usize,
    /// One panel, or two.
    pub b: [*const u8; 2],
    /// Steps along the sums.
    pub steps: usize,
    /// Initial values of the sums, for each row of tiles; both null for zeros.
    pub from: [*const u8; 2],
    /// Bytes between rows of `from`; 0 repeats one row.
    pub from_stride: usize,
    /// The sums are written here, for each row of tiles.
    pub to: [*mut u8; 2],
    /// Bytes between rows of `to`.
    pub to_stride: usize,
    /// Start of the memory that is read next: each step prefetches `next_lines` cache lines of it into L2.
    pub next: *const u8,
    /// See `next`.
    pub next_lines: usize,
    /// [`CARRIED_BYTES`] of finished sums that are copied to `other` on the way, past the caches; or null.
    pub carried: *const u8,
    /// Two rows of two cache lines a step: carried sums are written here (each line whole); without carried sums,
    /// these are the lines that are written next.
    pub other: *mut u8,
    /// Bytes between rows of `other`.
    pub other_stride: usize,
}

/// Bytes of two rows of tiles times a panel. Sums that are to be carried start at a multiple of it.
pub const CARRIED_BYTES: usize = 4 * TILE_BYTES;
/// Steps that carrying takes.
pub const CARRYING_STEPS: usize = 16;

/// Makes carried sums visible to other threads before any later store of this one.
pub fn settle() {
    crate::cpu::store_fence();
}

/// The dot product that a kind of tiles has, in the register blocks that keep it busy.
///
/// All run between [`with_tiles`], and need memory at the block's pointers as its fields say.
#[allow(clippy::missing_safety_doc)] // one rule for all, see above
pub trait TileDot {
    /// Two rows of tiles against a panel: the four sums share each load with a neighbour. B is read past L1, where A
    /// may stay.
    unsafe fn two_by_two(block: &Block);
    /// A row of tiles against two panels: four sums, one after the other, hide the latency of a dot product.
    unsafe fn one_by_four(block: &Block);
    /// A row of tiles against one panel.
    unsafe fn one_by_two(block: &Block);
}

/// Pairs of bfloat16, summed in f32.
#[derive(Clone, Copy, Debug)]
pub struct Bf16Tiles;

impl TileDot for Bf16Tiles {
    unsafe fn two_by_two(block: &Block) {
        // SAFETY: the contract of the trait; only registers named here change.
        unsafe {
            asm!(
                "mov {a0}, [{block} + {A}]",
                "mov {a1}, [{block} + {A} + 8]",
                "mov {a_stride}, [{block} + {A_STRIDE}]",
                "mov {b}, [{block} + {B}]",
                "mov {steps}, [{block} + {STEPS}]",
                "mov {next}, [{block} + {NEXT}]",
                "mov {p}, [{block} + {FROM}]",
                "mov {q}, [{block} + {FROM} + 8]",
                "mov {stride}, [{block} + {FROM_STRIDE}]",
                "test {p}, {p}",
                "jz 2f",
                "tileloadd tmm0, [{p} + {stride}]",
                "tileloadd tmm1, [{p} + {stride} + 64]",
                "tileloadd tmm2, [{q} + {stride}]",
                "tileloadd tmm3, [{q} + {stride} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "mov {p}, [{block} + {OTHER}]",
                "mov {q}, [{block} + {OTHER_STRIDE}]",
                "mov {carried}, [{block} + {CARRIED}]",
                "mov {stride:e}, 64",
                "test {steps}, {steps}",
                "jz 5f",
                "4:",
                "tileloaddt1 tmm6, [{b} + {stride}]",
                "tileloadd tmm4, [{a0} + {a_stride}]",
                "tileloaddt1 tmm7, [{b} + {stride} + 1024]",
                "tileloadd tmm5, [{a1} + {a_stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "test {carried}, {carried}",
                "jz 8f",
                "vmovaps zmm16, [{carried}]",
                "vmovaps zmm17, [{carried} + 64]",
                "vmovaps zmm18, [{carried} + 128]",
                "vmovaps zmm19, [{carried} + 192]",
                "vmovntps [{p}], zmm16",
                "vmovntps [{p} + 64], zmm17",
                "vmovntps [{p} + {q}], zmm18",
                "vmovntps [{p} + {q} + 64], zmm19",
                "add {carried}, 256",
                "test {carried:e}, {CARRIED_BYTES} - 1",
                "jnz 9f",
                "xor {carried:e}, {carried:e}",
                "jmp 9f",
                "8:",
                "prefetchw [{p}]",
                "prefetchw [{p} + 64]",
                "prefetchw [{p} + {q}]",
                "prefetchw [{p} + {q} + 64]",
                "9:",
                "lea {p}, [{p} + 2 * {q}]",
                "mov {lines}, [{block} + {NEXT_LINES}]",
                "test {lines}, {lines}",
                "jz 7f",
                "6:",
                "prefetcht1 [{next}]",
                "add {next}, 64",
                "dec {lines}",
                "jnz 6b",
                "7:",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 4b",
                "5:",
                "mov {p}, [{block} + {TO}]",
                "mov {q}, [{block} + {TO} + 8]",
                "mov {stride}, [{block} + {TO_STRIDE}]",
                "tilestored [{p} + {stride}], tmm0",
                "tilestored [{p} + {stride} + 64], tmm1",
                "tilestored [{q} + {stride}], tmm2",
                "tilestored [{q} + {stride} + 64], tmm3",
                block = in(reg) block,
                a0 = out(reg) _, a1 = out(reg) _, a_stride = out(reg) _, b = out(reg) _, steps = out(reg) _,
                p = out(reg) _, q = out(reg) _, stride = out(reg) _, next = out(reg) _, lines = out(reg) _,
                carried = out(reg) _,
                A = const offset_of!(Block, a), A_STRIDE = const offset_of!(Block, a_stride),
                B = const offset_of!(Block, b), STEPS = const offset_of!(Block, steps),
                FROM = const offset_of!(Block, from), FROM_STRIDE = const offset_of!(Block, from_stride),
                TO = const offset_of!(Block, to), TO_STRIDE = const offset_of!(Block, to_stride),
                NEXT = const offset_of!(Block, next), NEXT_LINES = const offset_of!(Block, next_lines),
                CARRIED = const offset_of!(Block, carried), CARRIED_BYTES = const CARRIED_BYTES,
                OTHER = const offset_of!(Block, other), OTHER_STRIDE = const offset_of!(Block, other_stride),
                out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    unsafe fn one_by_four(block: &Block) {
        // SAFETY: the contract of the trait; only registers named here change.
        unsafe {
            asm!(
                "mov {a}, [{block} + {A}]",
                "mov {a_stride}, [{block} + {A_STRIDE}]",
                "mov {b0}, [{block} + {B}]",
                "mov {b1}, [{block} + {B} + 8]",
                "mov {steps}, [{block} + {STEPS}]",
                "mov {p}, [{block} + {FROM}]",
                "mov {stride}, [{block} + {FROM_STRIDE}]",
                "test {p}, {p}",
                "jz 2f",
                "tileloadd tmm0, [{p} + {stride}]",
                "tileloadd tmm1, [{p} + {stride} + 64]",
                "tileloadd tmm2, [{p} + {stride} + 128]",
                "tileloadd tmm3, [{p} + {stride} + 192]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                "mov {stride:e}, 64",
                "test {steps}, {steps}",
                "jz 5f",
                "4:",
                "tileloadd tmm4, [{a} + {a_stride}]",
                "tileloadd tmm6, [{b0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b0} + {stride} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm6, [{b1} + {stride}]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {stride} + 1024]",
                "tdpbf16ps tmm3, tmm4, tmm7",
                "add {a}, 64",
                "add {b0}, 2048",
                "add {b1}, 2048",
                "dec {steps}",
                "jnz 4b",
                "5:",
                "mov {p}, [{block} + {TO}]",
                "mov {stride}, [{block} + {TO_STRIDE}]",
                "tilestored [{p} + {stride}], tmm0",
                "tilestored [{p} + {stride} + 64], tmm1",
                "tilestored [{p} + {stride} + 128], tmm2",
                "tilestored [{p} + {stride} + 192], tmm3",
                block = in(reg) block,
                a = out(reg) _, a_stride = out(reg) _, b0 = out(reg) _, b1 = out(reg) _, steps = out(reg) _,
                p = out(reg) _, stride = out(reg) _,
                A = const offset_of!(Block, a), A_STRIDE = const offset_of!(Block, a_stride),
                B = const offset_of!(Block, b), STEPS = const offset_of!(Block, steps),
                FROM = const offset_of!(Block, from), FROM_STRIDE = const offset_of!(Block, from_stride),
                TO = const offset_of!(Block, to), TO_STRIDE = const offset_of!(Block, to_stride),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }

    unsafe fn one_by_two(block: &Block) {
        // SAFETY: the contract of the trait; only registers named here change.
        unsafe {
            asm!(
                "mov {a}, [{block} + {A}]",
                "mov {a_stride}, [{block} + {A_STRIDE}]",
                "mov {b}, [{block} + {B}]",
                "mov {steps}, [{block} + {STEPS}]",
                "mov {p}, [{block} + {FROM}]",
                "mov {stride}, [{block} + {FROM_STRIDE}]",
                "test {p}, {p}",
                "jz 2f",
                "tileloadd tmm0, [{p} + {stride}]",
                "tileloadd tmm1, [{p} + {stride} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "3:",
                "mov {stride:e}, 64",
                "test {steps}, {steps}",
                "jz 5f",
                "4:",
                "tileloadd tmm4, [{a} + {a_stride}]",
                "tileloadd tmm6, [{b} + {stride}]",
                "tileloadd tmm7, [{b} + {stride} + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "add {a}, 64",
                "add {b}, 2048",
                "dec {steps}",
                "jnz 4b",
                "5:",
                "mov {p}, [{block} + {TO}]",
                "mov {stride}, [{block} + {TO_STRIDE}]",
                "tilestored [{p} + {stride}], tmm0",
                "tilestored [{p} + {stride} + 64], tmm1",
                block = in(reg) block,
                a = out(reg) _, a_stride = out(reg) _, b = out(reg) _, steps = out(reg) _,
                p = out(reg) _, stride = out(reg) _,
                A = const offset_of!(Block, a), A_STRIDE = const offset_of!(Block, a_stride),
                B = const offset_of!(Block, b), STEPS = const offset_of!(Block, steps),
                FROM = const offset_of!(Block, from), FROM_STRIDE = const offset_of!(Block, from_stride),
                TO = const offset_of!(Block, to), TO_STRIDE = const offset_of!(Block, to_stride),
                out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Begins the products of two tiles of A, signed bytes, with a tile of B, of which row j holds the factors of bytes 4j
/// to 4j + 3 of A's rows in each column. Stores the products that the previous call began, sums of 32 bits, to `to` and
/// [`TILE_BYTES`] behind it: so sums have a whole call's time to be finished.
///
/// # Safety
/// It runs within [`with_tiles`]; the tiles are readable with `a_stride` and `b_stride` between rows; `to` is
/// writable for two tiles.
#[inline(always)]
pub unsafe fn dot_bytes(a: [*const u8; 2], a_stride: usize, b: *const u8, b_stride: usize, to: *mut u8) {
    // SAFETY: the caller promises the tiles' memory; only registers named here change.
    unsafe {
        asm!(
            "tileloadd tmm4, [{a0} + {a_stride}]",
            "tileloadd tmm6, [{b} + {b_stride}]",
            "tilestored [{to} + {c_stride}], tmm0",
            "tilezero tmm0",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {a_stride}]",
            "tilestored [{to} + {c_stride} + {TILE_BYTES}], tmm1",
            "tilezero tmm1",
            "tdpbssd tmm1, tmm5, tmm6",
            a0 = in(reg) a[0],
            a1 = in(reg) a[1],
            a_stride = in(reg) a_stride,
            b = in(reg) b,
            b_stride = in(reg) b_stride,
            c_stride = in(reg) ROW_BYTES,
            to = in(reg) to,
            TILE_BYTES = const TILE_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_that_were_set_up_before_still_are() {
        if !super::super::IsaId::Amx.is_available() {
            return;
        }
        // SAFETY: the level is available.
        unsafe {
            assert_eq!(Config::current().palette, 0);
            with_tiles(3, ROW_BYTES, || {
                with_tiles(ROWS, 32, || assert_eq!(Config::current().rows[6], 8));
                let after = Config::current();
                assert_eq!((after.palette, after.rows[0], after.rows[6]), (1, 3, 16));
            });
            assert_eq!(Config::current().palette, 0);
        }
    }
}
