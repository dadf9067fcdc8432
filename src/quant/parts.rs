//! The common form of the formats with scales of sub-blocks: K-quants, IQ4 and MXFP4, unpacked without rounding.
//! Decoding and repacking start from it. The properties that all blocks of a type share are its [`Form`].

use half::f16;

/// Most elements of a block.
pub const SUPER: usize = 256;

/// The properties that all blocks of a type share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Elements of a block: 256 or 32.
    pub len: usize,
    /// Elements that share a scale: 16 or 32.
    pub sub: usize,
    /// Bits of a code.
    pub bits: usize,
    /// Whether there are minimums.
    pub minimums: bool,
    /// The levels of codes.
    pub levels: Codes,
}

/// The levels of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// The code minus the code of zero.
    Linear {
        /// The code of zero.
        zero: u8,
    },
    /// An entry of a table.
    Table(&'static [i8; 16]),
}

/// An unpacked block. With s = i / [`Form::sub`], element i is `d·scales[s]·level(codes[i])`, minus `dmin·minimums[s]`
/// if the form has minimums. Entries past the block's end are zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// Codes as stored.
    pub codes: [u8; SUPER],
    /// Scales of the sub-blocks; 1 if the type has no scale except `d`.
    pub scales: [i8; 16],
    /// Minimums of the sub-blocks; 0 if the type has none.
    pub minimums: [u8; 16],
    /// The unit of scales.
    pub d: Factor,
    /// The unit of minimums; 0 if the type has none.
    pub dmin: f16,
}

/// The scale of a whole block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Factor {
    /// As f16.
    Half(f16),
    /// As an exponent (E8M0): `2^(e − 128)`, half of the format's own value since the table holds doubled levels.
    Exponent(u8),
}

impl Factor {
    /// The value, exactly.
    pub fn to_f32(self) -> f32 {
        match self {
            Factor::Half(d) => d.to_f32(),
            // The two smallest are subnormal.
            Factor::Exponent(e @ 0..2) => f32::from_bits(0x0020_0000 << e),
            Factor::Exponent(e) => f32::from_bits(u32::from(e - 1) << 23),
        }
    }
}

impl Form {
    /// The level of `code`.
    #[inline]
    pub fn level(&self, code: u8) -> i8 {
        match self.levels {
            Codes::Linear { zero } => code as i8 - zero as i8,
            Codes::Table(table) => table[usize::from(code & 15)],
        }
    }
}

impl Parts {
    /// The values in f32, rounded as by the reference decoder: only the subtraction rounds, since all products are
    /// exact.
    pub fn decode(&self, form: &Form, out: &mut [f32]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let codes = self.codes.chunks_exact(form.sub).zip(out.chunks_exact_mut(form.sub));
        for (s, (codes, out)) in codes.enumerate() {
            let scale = d * f32::from(self.scales[s]);
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = scale * f32::from(form.level(code));
            }
            if form.minimums {
                let minimum = dmin * f32::from(self.minimums[s]);
                out.iter_mut().for_each(|x| *x -= minimum);
            }
        }
    }
}
