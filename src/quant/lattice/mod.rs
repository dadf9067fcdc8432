//! IQ1, IQ2 and IQ3: blocks of 256 in which each group of 4 or 8 elements is a point of a grid, with signs.
//! The grids are part of the formats. There is no encoder, which would have to search for the nearest points.

mod grids;
mod iq1;
mod iq2;
mod iq3;

pub use iq1::{Iq1M, Iq1S};
pub use iq2::{Iq2S, Iq2Xs, Iq2Xxs};
pub use iq3::{Iq3S, Iq3Xxs};

/// Writes the magnitudes of one group to `out`, negative where `signs` has the element's bit.
fn put_signed(magnitudes: impl Iterator<Item = i8>, signs: u8, out: &mut [i8]) {
    for (i, (out, magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        *out = if signs >> i & 1 == 1 { -magnitude } else { magnitude };
    }
}

/// Eight signs from seven: the eighth makes the number of negative signs even.
fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// The little-endian u16 number `i` of `bytes`.
fn half_word(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

/// The little-endian u32 number `i` of `bytes`.
fn word(bytes: &[u8], i: usize) -> u32 {
    u32::from(half_word(bytes, 2 * i)) | u32::from(half_word(bytes, 2 * i + 1)) << 16
}
