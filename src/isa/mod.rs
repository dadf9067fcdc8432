//! Instruction sets of CPUs: tokens, and the vector operations that kernels are written in.
//! A token is the proof that this CPU has its instruction set: `new` is the only safe constructor, and detects it.
//! Bodies of kernels are generic over [`Isa`] and run inside [`Isa::vectorize`].

use crate::cpu::{Cache, prefetch_line};

#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
mod dot;
mod id;
pub mod limits;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod os;
mod register;
mod scalar;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub use avx2::{Avx2, AvxVnni, X256};
#[cfg(target_arch = "x86_64")]
pub use avx512::{Amx, Avx512, Avx512Bf16, Avx512Vnni, X512};
pub use cpu::cpu_name;
pub use dot::{DotBf16, DotI8, PairsI8};
pub use id::IsaId;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonBf16, NeonDotprod, NeonX};
#[doc(hidden)]
pub use register::{Comparison, Float16, Floats, Integer, Kept16, Reduction, Shift};
pub use scalar::Scalar;

/// Arithmetic that is written once and run at any level. `run` must be `#[inline(always)]`, and so must
/// all functions that it calls, or the compiler emits these without the level's instructions.
#[doc(hidden)]
pub trait SimdBody {
    /// What the body returns.
    type Output;
    /// The arithmetic.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// Vector operations of one instruction set. Implementors are zero-sized tokens.
///
/// All methods are `#[inline(always)]` and only meaningful inside [`Isa::vectorize`].
/// Where a NaN is involved, `min`/`max` return the *second* operand (as x86 does);
/// comparisons with NaN are false.
///
/// # Safety
/// `F32` and `I32` have the size of `LANES` f32 and nothing but their lanes, the first one first in memory; any bits
/// are a value of both. A token's methods are right on a CPU where `new` returns it.
// Each method states its own memory contract; `from_bits` is the inverse of `to_bits`.
#[allow(clippy::missing_safety_doc, clippy::wrong_self_convention)]
#[doc(hidden)]
pub unsafe trait Isa: Copy + Send + Sync + 'static {
    /// The level.
    const ID: IsaId;
    /// f32 (and i32) lanes of a vector.
    const LANES: usize;
    /// Vector registers of the architecture, for choosing register tiles.
    const REGISTERS: usize;
    /// Whether [`Isa::lookup`] and [`Isa::scale_exp2`] are an instruction or two.
    const LOOKS_UP: bool = false;
    /// Vector of [`Isa::LANES`] f32.
    type F32: Copy;
    /// Vector of [`Isa::LANES`] i32.
    type I32: Copy;
    /// One truth value a lane.
    type Mask: Copy;

    /// Detects; `None` where this CPU lacks the level.
    fn new() -> Option<Self>;
    /// # Safety
    /// Only where `new` would return `Some`.
    unsafe fn new_unchecked() -> Self;
    /// Runs the body in a function that is compiled for this level.
    fn vectorize<B: SimdBody>(self, body: B) -> B::Output;

    /// Prefetches the cache line at `p` into L2. Any address is allowed: none is read.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        prefetch_line(p, Cache::L2);
    }

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// All lanes 0.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
    /// # Safety
    /// `p` is readable for `LANES` f32, any alignment.
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::F32 {
        const { assert!(size_of::<Self::F32>() == Self::LANES * size_of::<f32>()) };
        // SAFETY: `p` is readable for as many f32 as a vector has.
        unsafe { p.cast::<Self::F32>().read_unaligned() }
    }
    /// The first `LANES` numbers of a slice, which holds as many at least. Where its length is known when this is
    /// compiled, nothing is checked.
    #[inline(always)]
    fn load_slice(self, x: &[f32]) -> Self::F32 {
        let x = &x[..Self::LANES];
        // SAFETY: the slice holds LANES floats.
        unsafe { self.load(x.as_ptr()) }
    }
    /// The first `LANES` of 16 numbers.
    #[inline(always)]
    fn first_of(self, x: &[f32; 16]) -> Self::F32 {
        const { assert!(Self::LANES <= 16) };
        self.load_slice(x)
    }
    /// The lanes, and zeros behind them.
    #[inline(always)]
    fn lanes(self, x: Self::F32) -> [f32; 16] {
        const { assert!(Self::LANES <= 16) };
        let mut lanes = [0.0; 16];
        self.store_slice(&mut lanes, x);
        lanes
    }
    /// First `n` lanes from memory, the rest 0; reads nothing past them. `n ≤ LANES`.
    /// # Safety
    /// `p` is readable for `n` f32.
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::F32 {
        let mut lanes = [0.0; 16];
        for (i, lane) in lanes.iter_mut().enumerate().take(Self::LANES) {
            if i < n {
                // SAFETY: only lanes below n are read.
                *lane = unsafe { p.add(i).read_unaligned() };
            }
        }
        self.first_of(&lanes)
    }
    /// # Safety
    /// `p` is writable for `LANES` f32.
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, x: Self::F32) {
        const { assert!(size_of::<Self::F32>() == Self::LANES * size_of::<f32>()) };
        // SAFETY: `p` is writable for as many f32 as a vector has.
        unsafe { p.cast::<Self::F32>().write_unaligned(x) }
    }
    /// Stores to the first `LANES` numbers of a slice, which holds as many at least; see [`Isa::load_slice`].
    #[inline(always)]
    fn store_slice(self, to: &mut [f32], x: Self::F32) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice holds LANES floats.
        unsafe { self.store(to.as_mut_ptr(), x) }
    }
    /// Like `store`, but past the caches where the level can: for memory that is not read soon. A thread that has
    /// streamed calls `fence` before other threads may read.
    /// # Safety
    /// `p` is writable for `LANES` f32, and aligned to as many.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, x: Self::F32) {
        // SAFETY: `p` is writable for `LANES` f32.
        unsafe { self.store(p, x) }
    }
    /// Orders all streamed stores before all later ones.
    #[inline(always)]
    fn fence(self) {}
    /// Writes the first `n` lanes, nothing past them. `n ≤ LANES`.
    /// # Safety
    /// `p` is writable for `n` f32.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, x: Self::F32, n: usize) {
        for (i, lane) in self.lanes(x).iter().enumerate().take(Self::LANES) {
            if i < n {
                // SAFETY: only lanes below n are written.
                unsafe { p.add(i).write_unaligned(*lane) };
            }
        }
    }
    /// Transposes a block of `LANES` × `LANES` floats from memory to memory; strides in floats.
    /// # Safety
    /// `src` is readable and `dst` writable for `LANES` rows of `LANES` f32, which don't overlap.
    #[inline(always)]
    unsafe fn transpose_block(self, src: *const f32, src_stride: usize, dst: *mut f32, dst_stride: usize) {
        // SAFETY: the rows are there, and column j is below `LANES`, as many rows as there are to write.
        unsafe { self.columns(src, src_stride, false, &mut Stored { dst, stride: dst_stride }) }
    }
    /// Hands `each` the columns of a block of `LANES` × `LANES` floats, from the first to the last; the stride in floats. A
    /// level may read rows in two halves: `twice` allows time between them, so that fewer registers are needed; where rows
    /// are whole pages apart, they have left L1 by then.
    /// # Safety
    /// `src` is readable for `LANES` rows of `LANES` f32, and what `each` demands of the caller is given.
    #[inline(always)]
    unsafe fn columns(
        self,
        src: *const f32,
        src_stride: usize,
        _twice: bool,
        each: &mut impl EachColumn<Self>,
    ) {
        const WIDEST: usize = 16;
        const { assert!(Self::LANES <= WIDEST) };
        for j in 0..Self::LANES {
            let mut column = [0.0; WIDEST];
            for (i, x) in column[..Self::LANES].iter_mut().enumerate() {
                // SAFETY: i and j are below `LANES`.
                *x = unsafe { src.add(i * src_stride + j).read_unaligned() };
            }
            // SAFETY: the column has `LANES` floats.
            unsafe { each.column(self, j, self.load(column.as_ptr())) };
        }
    }
    /// `LANES` floats of 16 bits widened.
    /// # Safety
    /// `p` is readable for `LANES` u16.
    unsafe fn load_16(self, kind: Float16, p: *const u16) -> Self::F32;
    /// `LANES` IEEE half floats widened.
    /// # Safety
    /// `p` is readable for `LANES` u16.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> Self::F32 {
        // SAFETY: `p` is readable for `LANES` u16.
        unsafe { self.load_16(Float16::Half, p) }
    }
    /// Writes what is kept of each lane, whose bits these are: `LANES` u16.
    /// # Safety
    /// `p` is writable for `LANES` u16.
    unsafe fn store_16(self, kept: Kept16, p: *mut u16, x: Self::I32);
    /// `LANES` bfloat16, rounded to nearest even; NaN stays NaN.
    /// # Safety
    /// `p` is writable for `LANES` u16.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16, x: Self::F32) {
        let bits = self.to_bits(x);
        let odd = self.and(self.shr::<16>(bits), self.splat_i32(1));
        let rounded = self.add_i32(self.add_i32(bits, self.splat_i32(0x7fff)), odd);
        // A NaN's sign and first digits, and the one that makes it quiet; rounding could have carried it away.
        let nan = self.from_bits(self.or(bits, self.splat_i32(0x0040_0000)));
        let kept = self.to_bits(self.select(self.eq(x, x), self.from_bits(rounded), nan));
        // SAFETY: `p` is writable for `LANES` u16.
        unsafe { self.store_u16(p, self.and(self.shr::<16>(kept), self.splat_i32(0xffff))) }
    }
    /// Writes each lane's low half (lanes already in 0..=65535), `LANES` u16.
    /// # Safety
    /// `p` is writable for `LANES` u16.
    #[inline(always)]
    unsafe fn store_u16(self, p: *mut u16, x: Self::I32) {
        // SAFETY: `p` is writable for `LANES` u16.
        unsafe { self.store_16(Kept16::Low, p, x) }
    }
    /// # Safety
    /// `p` is readable for `LANES` i32.
    #[inline(always)]
    unsafe fn load_i32(self, p: *const i32) -> Self::I32 {
        // SAFETY: an f32 has the size of an i32, and a load keeps its bits.
        self.to_bits(unsafe { self.load(p.cast()) })
    }
    /// # Safety
    /// `p` is writable for `LANES` i32.
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, x: Self::I32) {
        // SAFETY: an f32 has the size of an i32, and a store keeps its bits.
        unsafe { self.store(p.cast(), self.from_bits(x)) }
    }
    /// `LANES` bytes sign-extended to i32.
    /// # Safety
    /// `p` is readable for `LANES` i8.
    unsafe fn load_i8(self, p: *const i8) -> Self::I32;
    /// Writes each lane's low byte (lanes already in −128..=127), `LANES` bytes.
    /// # Safety
    /// `p` is writable for `LANES` i8.
    unsafe fn store_i8(self, p: *mut i8, x: Self::I32);

    /// The operation on as many of the vectors as it has operands, rounded as its method here says.
    fn floats(self, op: Floats, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The comparison of both vectors.
    fn compare(self, op: Comparison, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// The lanes joined.
    fn reduce(self, op: Reduction, a: Self::F32) -> f32;
    /// The operation on both vectors of integers.
    fn integer(self, op: Integer, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The vector of integers shifted by N.
    fn shift<const N: i32>(self, op: Shift, a: Self::I32) -> Self::I32;

    /// a + b
    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Add, a, b, b)
    }
    /// a − b
    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Sub, a, b, b)
    }
    /// a · b
    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Mul, a, b, b)
    }
    /// a / b
    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Div, a, b, b)
    }
    /// a · b + c, rounded once; on [`Scalar`] the product is rounded too (a fused one would be a call a lane).
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        self.floats(Floats::MulAdd, a, b, c)
    }
    /// c − a · b, rounded as in `mul_add`.
    #[inline(always)]
    fn neg_mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        self.floats(Floats::NegMulAdd, a, b, c)
    }
    /// Smaller of both; `b` where either is NaN.
    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Min, a, b, b)
    }
    /// Larger of both; `b` where either is NaN.
    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.floats(Floats::Max, a, b, b)
    }
    /// Square root, correctly rounded.
    #[inline(always)]
    fn sqrt(self, a: Self::F32) -> Self::F32 {
        self.floats(Floats::Sqrt, a, a, a)
    }
    /// To the nearest integer, ties to even, as f32.
    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::F32 {
        self.floats(Floats::Round, a, a, a)
    }
    /// |a|
    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        self.from_bits(self.and(self.to_bits(a), self.splat_i32(0x7fff_ffff)))
    }
    /// Magnitude of `a` with the sign of `s`.
    #[inline(always)]
    fn copysign(self, a: Self::F32, s: Self::F32) -> Self::F32 {
        let sign = self.splat_i32(i32::MIN);
        let magnitude = self.and(self.to_bits(a), self.splat_i32(i32::MAX));
        self.from_bits(self.or(magnitude, self.and(self.to_bits(s), sign)))
    }
    /// a < b, false with NaN.
    #[inline(always)]
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.compare(Comparison::Less, a, b)
    }
    /// −min(|a|, bound) for a bound of at least 0; some number in that range where `a` is NaN, or NaN.
    #[inline(always)]
    fn negated_clamp(self, a: Self::F32, bound: f32) -> Self::F32 {
        let negative = self.from_bits(self.or(self.to_bits(a), self.splat_i32(i32::MIN)));
        self.max(self.splat(-bound), negative)
    }
    /// Element `index mod 32` of the table, in each lane.
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], index: Self::I32) -> Self::F32 {
        let mut found = self.lanes(self.from_bits(index));
        found.iter_mut().for_each(|lane| *lane = table[(lane.to_bits() & 31) as usize]);
        self.first_of(&found)
    }
    /// a == b, false with NaN.
    #[inline(always)]
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask {
        self.compare(Comparison::Equal, a, b)
    }
    /// `a` where the mask holds, else `b`.
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a · 2ⁿ for integral `n` given as f32; overflow to ±inf, underflow through denormals to 0, rounded once.
    /// `n` within ±300; NaN in `a` stays. Beyond −252..=254, `n` may count as the nearer end, which shows
    /// only for |a| outside 2^±100.
    ///
    /// The default multiplies by two powers of two. Only the last product can round: where the first one
    /// is a denormal, the second is below half of the smallest denormal.
    #[inline(always)]
    fn scale_exp2(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        let n = self.min(self.max(n, self.splat(-252.0)), self.splat(254.0));
        let last = self.min(self.max(n, self.splat(-126.0)), self.splat(127.0));
        let first = self.sub(n, last);
        self.mul(self.mul(a, self.exp2_integral(first)), self.exp2_integral(last))
    }
    /// [`Isa::scale_exp2`] for ½ ≤ |a| ≤ 2 and integral `n` ≤ 127, where a result below 2⁻¹²⁶ may also be 0.
    /// Much cheaper where no instruction scales: one product, with a power whose exponent bits run down to 0.
    #[inline(always)]
    fn scale_exp2_flushed(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        self.mul(a, self.exp2_integral(self.max(self.splat(-127.0), n)))
    }
    /// 2ⁿ for integral `n` in −126..=127; 0 for −127.
    #[inline(always)]
    fn exp2_integral(self, n: Self::F32) -> Self::F32 {
        let biased = self.add_i32(self.to_i32(n), self.splat_i32(127));
        self.from_bits(self.shl::<23>(biased))
    }
    /// Sum of the lanes by halving (lane i with lane i + LANES/2, and so on): a fixed order.
    #[inline(always)]
    fn sum_lanes(self, a: Self::F32) -> f32 {
        self.reduce(Reduction::Sum, a)
    }
    /// Largest lane; unspecified with NaN.
    #[inline(always)]
    fn max_lanes(self, a: Self::F32) -> f32 {
        self.reduce(Reduction::Max, a)
    }

    /// Lanes 2i and 2i + 1 exchanged.
    #[inline(always)]
    fn swap_pairs(self, a: Self::F32) -> Self::F32 {
        self.floats(Floats::SwapPairs, a, a, a)
    }
    /// The first half of the lanes, each twice: a₀ a₀ a₁ a₁ …
    #[inline(always)]
    fn dup_pairs(self, a: Self::F32) -> Self::F32 {
        self.floats(Floats::DupPairs, a, a, a)
    }

    /// All lanes `x`.
    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        self.to_bits(self.splat(f32::from_bits(x as u32)))
    }
    /// Wrapping a + b.
    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.integer(Integer::Add, a, b)
    }
    /// Wrapping a − b.
    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.integer(Integer::Sub, a, b)
    }
    /// Bitwise and.
    #[inline(always)]
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.integer(Integer::And, a, b)
    }
    /// Bitwise or.
    #[inline(always)]
    fn or(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.integer(Integer::Or, a, b)
    }
    /// Bitwise exclusive or.
    #[inline(always)]
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.integer(Integer::Xor, a, b)
    }
    /// Logical left shift by a constant.
    #[inline(always)]
    fn shl<const N: i32>(self, a: Self::I32) -> Self::I32 {
        self.shift::<N>(Shift::Left, a)
    }
    /// Arithmetic right shift by a constant.
    #[inline(always)]
    fn shr<const N: i32>(self, a: Self::I32) -> Self::I32 {
        self.shift::<N>(Shift::Right, a)
    }
    /// Sum of the lanes, wrapping.
    fn sum_lanes_i32(self, a: Self::I32) -> i32;
    /// To f32, rounded to nearest.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// To i32, rounded to nearest even; unspecified outside i32's range and for NaN (no trap).
    fn to_i32(self, a: Self::F32) -> Self::I32;
    /// Same bits as integers.
    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        const { assert!(size_of::<Self::I32>() == size_of::<Self::F32>()) };
        // SAFETY: both have one size, and any bits are a vector of integers, as implementors promise.
        unsafe { std::mem::transmute_copy(&a) }
    }
    /// Same bits as floats.
    #[inline(always)]
    fn from_bits(self, a: Self::I32) -> Self::F32 {
        const { assert!(size_of::<Self::I32>() == size_of::<Self::F32>()) };
        // SAFETY: both have one size, and any bits are a vector of floats, as implementors promise.
        unsafe { std::mem::transmute_copy(&a) }
    }
}

/// What is done with each column of a block: see [`Isa::columns`]. No closure, since only a method can be told to become
/// part of its caller.
#[doc(hidden)]
pub trait EachColumn<I: Isa> {
    /// Takes column `j`.
    ///
    /// # Safety
    /// As the implementation says.
    unsafe fn column(&mut self, isa: I, j: usize, column: I::F32);
}

/// Columns that become rows in memory.
#[doc(hidden)]
#[derive(Debug)]
pub struct Stored {
    /// Row 0.
    pub dst: *mut f32,
    /// Floats from one row to the next.
    pub stride: usize,
}

impl<I: Isa> EachColumn<I> for Stored {
    /// # Safety
    /// Row `j` is writable for `LANES` floats.
    #[inline(always)]
    unsafe fn column(&mut self, isa: I, j: usize, column: I::F32) {
        // SAFETY: as the function demands.
        unsafe { isa.store(self.dst.add(j * self.stride), column) }
    }
}

/// Prefetches all cache lines of a value: for values that are read so rarely that the caches have dropped them.
pub fn prefetch<T: ?Sized>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    for at in (0..size_of_val(value)).step_by(64) {
        prefetch_line(first.wrapping_add(at), Cache::L2);
    }
}
