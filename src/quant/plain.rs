//! The common form of the formats of few bits: lattice, ternary and NVFP4 blocks as small integers and scales.
//! Unpacking doesn't round, so decoding and repacking start from it.

use super::parts::SUPER;

/// Elements that share a scale.
pub const RUN: usize = 16;

/// An unpacked block: element i is exactly `scales[i / 16]·q[i]`. Entries past the block's end are zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plain {
    /// Signed levels.
    pub q: [i8; SUPER],
    /// Scales of 16 elements each.
    pub scales: [f32; SUPER / RUN],
}

impl Plain {
    /// Values in f32.
    pub fn decode(&self, out: &mut [f32]) {
        for ((out, q), scale) in out.chunks_exact_mut(RUN).zip(self.q.chunks_exact(RUN)).zip(self.scales) {
            for (out, &q) in out.iter_mut().zip(q) {
                *out = scale * f32::from(q);
            }
        }
    }
}
