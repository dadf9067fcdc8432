//! Unsigned numbers of 1, 2 or 4 bits packed into bytes, in the scheme that all block formats share. The bytes are
//! divided into runs. The lowest bits of a run's bytes are the run's first numbers, the bits above them the next ones,
//! and so on.

use crate::arrays;

/// Unpacks N numbers of BITS bits from runs of RUN bytes.
#[inline]
pub fn unpack<const BITS: usize, const RUN: usize, const N: usize>(bytes: &[u8]) -> [u8; N] {
    const { assert!(N.is_multiple_of(RUN * 8 / BITS)) };
    let mut numbers = [0; N];
    let (runs, _) = bytes.as_chunks::<RUN>();
    for (i, numbers) in numbers.chunks_exact_mut(RUN).enumerate() {
        let (run, place) = (&runs[i * BITS / 8], i % (8 / BITS));
        for (j, number) in numbers.iter_mut().enumerate() {
            *number = run[j] >> (place * BITS) & mask(BITS);
        }
    }
    numbers
}

/// Inverse of [`unpack`]; of each number only the lowest BITS bits are stored.
#[inline]
pub fn pack<const BITS: usize, const RUN: usize>(numbers: &[u8], bytes: &mut [u8]) {
    bytes.fill(0);
    for (run, numbers) in bytes.chunks_exact_mut(RUN).zip(numbers.chunks_exact(RUN * 8 / BITS)) {
        for (place, numbers) in numbers.chunks_exact(RUN).enumerate() {
            for (byte, number) in run.iter_mut().zip(numbers) {
                *byte |= (number & mask(BITS)) << (place * BITS);
            }
        }
    }
}

#[inline]
const fn mask(bits: usize) -> u8 {
    (1 << bits) - 1
}

/// Joins numbers from their low `bits` bits and their high bits.
#[inline]
pub fn join<const N: usize>(low: [u8; N], high: [u8; N], bits: usize) -> [u8; N] {
    arrays::from_fn(|i| low[i] | high[i] << bits)
}

/// The high bits of joined numbers (see [`join`]): those above the low `bits`.
#[inline]
pub fn above<const N: usize>(numbers: &[u8; N], bits: usize) -> [u8; N] {
    arrays::map(*numbers, |number| number >> bits)
}
