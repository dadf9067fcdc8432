//! Operations on vectors in registers, named as values: levels implement one method for each kind of operands.
//! None touches memory, so all that a level promises there is that the CPU has its instructions. A level keeps that
//! promise once a kind: the intrinsics are called in a safe function that is compiled for the level.

/// Of one vector of floats, two or three: a, b and c, lane by lane.
#[derive(Clone, Copy, Debug)]
pub enum Floats {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// The smaller of a and b; `b` where either is NaN.
    Min,
    /// The larger of a and b; `b` where either is NaN.
    Max,
    /// a · b + c
    MulAdd,
    /// c − a · b
    NegMulAdd,
    /// Square root of a, correctly rounded.
    Sqrt,
    /// a to the nearest integer, ties to even.
    Round,
    /// Lanes 2i and 2i + 1 of a exchanged.
    SwapPairs,
    /// The first half of the lanes of a, each twice.
    DupPairs,
}

/// Of two vectors of floats, to a truth value a lane; false with NaN.
#[derive(Clone, Copy, Debug)]
pub enum Comparison {
    /// a < b
    Less,
    /// a == b
    Equal,
}

/// Of all lanes of a vector of floats, to one float.
#[derive(Clone, Copy, Debug)]
pub enum Reduction {
    /// The sum by halving.
    Sum,
    /// The largest.
    Max,
}

/// Of two vectors of integers, lane by lane.
#[derive(Clone, Copy, Debug)]
pub enum Integer {
    /// Wrapping a + b.
    Add,
    /// Wrapping a − b.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// Of a vector of integers, lane by lane, by a constant.
#[derive(Clone, Copy, Debug)]
pub enum Shift {
    /// Logical, to the left.
    Left,
    /// Arithmetic, to the right.
    Right,
}

/// Of two vectors of bytes or words: sums of adjacent products, and some that are added to a third vector.
#[derive(Clone, Copy, Debug)]
pub enum Products {
    /// Of unsigned bytes by signed ones, as 16 bits each, which they fit.
    Pairs,
    /// Of signed bytes, the second ones in −127..=127, as 16 bits each.
    SignedPairs,
    /// Of signed words, as 32 bits each.
    Words,
    /// [`Products::Pairs`] added in 16 bits, which the sums fit.
    AddedPairs,
    /// [`Products::Words`] added, wrapping in 32 bits.
    AddedWords,
}

/// How bytes become 16 bits.
#[derive(Clone, Copy, Debug)]
pub enum Sign {
    /// Bytes are signed.
    Signed,
    /// Bytes are unsigned.
    Unsigned,
}

/// The first factors of dot products of bytes.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {
    /// Any that the level takes.
    Any,
    /// In 0..=127, where some instruction sets have less to do.
    Small,
}

/// Floats of 16 bits.
#[derive(Clone, Copy, Debug)]
pub enum Float16 {
    /// IEEE half.
    Half,
    /// bfloat16.
    Brain,
}

/// What is kept of a lane in 16 bits.
#[derive(Clone, Copy, Debug)]
pub enum Kept16 {
    /// The float as an IEEE half, rounded to nearest even; too large gives ∞, NaN stays NaN.
    Half,
    /// The lower half of the bits; the upper one is 0.
    Low,
}
