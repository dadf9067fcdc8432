//! The gated delta rule: a head's state S maps keys to values. A token makes it decay, reads what it has for the key,
//! writes a part of what is missing, and reads the answer to the query:
//! `S = e^g · S`, `S = S + k ⊗ β·(v − kᵀS)`, `y = qᵀS`, with `g = a · softplus(alpha + bias)` and `β = σ(beta)`.

use super::gates::{Decay, Step, TILE, Tile, column, map};
use super::{Rows, RowsMut};
use crate::isa::Isa;
use crate::kernels::info::KernelInfo;
use crate::kernels::routine::{self, Code, Kernel, Routine};
use crate::kernels::rows::reduce::{SumOfSquares, fold};
use crate::kernels::unary::functions::Sigmoid;
use crate::kernels::vectors::{self, Row};

/// The head of queries and keys that a head of values uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeads {
    /// Head h uses `h / n`: n neighbours share one.
    Grouped(usize),
    /// Head h uses `h % n`: there are n.
    Cyclic(usize),
}

impl KeyHeads {
    #[inline(always)]
    pub(super) fn of(self, head: usize) -> usize {
        match self {
            KeyHeads::Grouped(n) => head / n,
            KeyHeads::Cyclic(n) => head % n,
        }
    }
}

/// A span of tokens, and the heads of it that are computed.
///
/// # Memory
/// For each head of the range, inputs are readable, and output and state readable and writable, as the fields
/// say; `run` and the number in `keys` are not 0. The output is `v`, or overlaps nothing else.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct DeltaArgs {
    /// Rows of queries, heads of `d_k`. They are normalised here: divided by √(Σ q² + eps), and multiplied by `scale`.
    pub q: Rows,
    /// Rows of keys, heads of `d_k`. They are normalised here: divided by √(Σ k² + eps).
    pub k: Rows,
    /// Rows of values `[heads][d_v]`.
    pub v: Rows,
    /// Rows of `alpha`, a number for each head: see `run` and `step`.
    pub alpha: Rows,
    /// Rows of `beta`, a number for each head: see `run` and `step`.
    pub beta: Rows,
    /// Neighbouring heads whose numbers adjoin in a row of `alpha` and `beta`.
    pub run: usize,
    /// Floats from one such run to the next: head h's number is element `h / run · step + h % run`.
    pub step: usize,
    /// `heads` factors of softplus.
    pub a: *const f32,
    /// `heads` summands of `alpha`.
    pub dt_bias: *const f32,
    /// `[heads][d_k][d_v]`: zeros before the first token.
    pub state: *mut f32,
    /// Output rows `[heads][d_v]`; may be `v`, with the same stride.
    pub y: RowsMut,
    /// Number of rows.
    pub tokens: usize,
    /// Elements of a query and of a key.
    pub d_k: usize,
    /// Elements of a value.
    pub d_v: usize,
    /// Which queries and keys a head uses.
    pub keys: KeyHeads,
    /// First head to compute.
    pub begin: usize,
    /// One past the last head to compute.
    pub end: usize,
    /// Factor of the normalised queries.
    pub scale: f32,
    /// Added to sums of squares.
    pub eps: f32,
}

/// The gated delta rule.
///
/// Given the state before a token, with normalised q and k: let m be decay · |S| + |k| · β · (|v| + decay · Σ |k·S|) for an
/// element of the state, g the decay's exponent and n = |g| · (10 + |alpha + bias|) + d_k / 2 + d_k / 16 + 34. The state
/// after it is off by at most n · u · m, and an answer by (n + d_k + d_k / 32 + 12) · u · Σ |q|·m. A key or query of zeros
/// needs an eps above 0, or its heads become NaN.
pub type Delta = Kernel<DeltaArgs>;

impl Kernel<DeltaArgs> {
    pub(super) const fn at<I: Isa>() -> Self {
        Self { info: KernelInfo::of::<I>("delta", "f32"), code: Code::from_function(entry::<I>) }
    }
}

/// The kernel, a function of its own name, so that tests find its machine code.
///
/// # Safety
/// This CPU has the level, and as [`Delta::run`].
unsafe fn entry<I: Isa>(args: &DeltaArgs) {
    // SAFETY: the caller promises the level and the memory.
    unsafe { routine::entry::<I, _, Rule>(args) }
}

/// Head by head; a few tokens go through some columns of the head's state, which stay in the nearest cache, then
/// through the next columns. With registers for it, what the state has for the next token's key is summed up where a
/// token changes it, so that each token reads it once, otherwise twice.
struct Rule;

impl Routine<DeltaArgs> for Rule {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(isa: I, args: &DeltaArgs) {
        let &DeltaArgs { tokens, d_k, d_v, end, .. } = args;
        // SAFETY: the caller promises the heads that are computed, and the queries and keys that they use.
        let all = unsafe {
            Memory {
                args,
                q: args.q.of(tokens, usize::MAX),
                k: args.k.of(tokens, usize::MAX),
                v: args.v.of(tokens, end * d_v),
                alpha: args.alpha.of(tokens, usize::MAX),
                beta: args.beta.of(tokens, usize::MAX),
                a: Row::new(args.a, end),
                dt_bias: Row::new(args.dt_bias, end),
                state: vectors::RowsMut::new(args.state, d_v, end * d_k, d_v),
                y: args.y.of(tokens, end * d_v),
            }
        };
        for head in args.begin..end {
            let mut first = 0;
            while first < tokens {
                let some = TILE.min(tokens - first);
                tile(isa, &all, head, first, some);
                first += some;
            }
        }
    }
}

/// The memory that arguments name, up to the last head that is computed. How wide rows of queries, keys and gates are
/// isn't among the arguments.
struct Memory<'a> {
    args: &'a DeltaArgs,
    q: vectors::Rows,
    k: vectors::Rows,
    v: vectors::Rows,
    alpha: vectors::Rows,
    beta: vectors::Rows,
    a: Row,
    dt_bias: Row,
    /// `d_k` rows for each head.
    state: vectors::RowsMut,
    y: vectors::RowsMut,
}

/// Some tokens of a head: the first one, their number, and a tile of factors of each kind.
struct Span {
    head: usize,
    first: usize,
    tokens: usize,
    /// e^g.
    decay: Tile,
    /// e^g over the key's length, which makes the sum over the state before decay what it has for the key.
    found: Tile,
    /// β over the key's length.
    write: Tile,
    /// The scale over the query's length.
    read: Tile,
}

/// Takes `tokens ≤ TILE` rows from `first` on through a head.
#[inline(always)]
fn tile<I: Isa>(isa: I, all: &Memory<'_>, head: usize, first: usize, tokens: usize) {
    let args = all.args;
    let place = head / args.run * args.step + head % args.run;
    let at = args.keys.of(head) * args.d_k;
    let (alpha, beta) = (column(all.alpha, first, tokens, place), column(all.beta, first, tokens, place));
    let (bias, a) = (all.dt_bias.get(head), all.a.get(head));
    let decay = map(isa, &map(isa, &alpha, Step { bias }), Decay { a });
    let (mut found, mut write, mut read) = (decay, map(isa, &beta, Sigmoid), [0.0; TILE]);
    for t in 0..tokens {
        let (q, k) = (all.q.row(first + t).from(at), all.k.row(first + t).from(at));
        let q = fold::<SumOfSquares, I>(isa, &q, args.d_k);
        let k = fold::<SumOfSquares, I>(isa, &k, args.d_k);
        let shorten = 1.0 / (k + args.eps).sqrt();
        found[t] *= shorten;
        write[t] *= shorten;
        read[t] = args.scale / (q + args.eps).sqrt();
    }
    let span = Span { head, first, tokens, decay, found, write, read };
    let mut j = 0;
    while j + 4 * I::LANES <= args.d_v {
        columns::<I, 4>(isa, all, &span, j, I::LANES);
        j += 4 * I::LANES;
    }
    while j < args.d_v {
        let count = I::LANES.min(args.d_v - j);
        columns::<I, 1>(isa, all, &span, j, count);
        j += count;
    }
}

/// Takes the tokens through W vectors of columns from `j` on, each of `count ≤ LANES` lanes.
#[inline(always)]
fn columns<I: Isa, const W: usize>(isa: I, all: &Memory<'_>, span: &Span, j: usize, count: usize) {
    let args = all.args;
    let &Span { head, first, tokens, ref decay, ref found, ref write, ref read } = span;
    let at = args.keys.of(head) * args.d_k;
    let lines = Lines { isa, rows: all.state.part(head * args.d_k, j), len: args.d_k, count };
    let factors = |rows: vectors::Rows, row: usize| rows.row(row).from(at);
    // Sums and changes of four vectors take sixteen registers.
    let ahead = I::REGISTERS > 16;
    let mut known = known::<I, W>(isa, &lines, factors(all.k, first));
    for t in 0..tokens {
        let row = first + t;
        let (q, k) = (factors(all.q, row), factors(all.k, row));
        if t > 0 && !ahead {
            known = self::known(isa, &lines, k);
        }
        let (found, write, read) = (isa.splat(found[t]), isa.splat(write[t]), isa.splat(read[t]));
        let mut change = [isa.zero(); W];
        for (w, change) in change.iter_mut().enumerate() {
            let v = all.v.row(row).load(isa, head * args.d_v + j + w * I::LANES, count);
            *change = isa.mul(write, isa.neg_mul_add(found, known[w], v));
        }
        let token = Change { decay: isa.splat(decay[t]), change, q, k };
        let y;
        (y, known) = match ahead && t + 1 < tokens {
            true => changed(isa, &lines, &token, factors(all.k, row + 1)),
            false => (changed_alone(isa, &lines, &token), known),
        };
        for (w, &y) in y.iter().enumerate() {
            all.y.row(row).store(isa, head * args.d_v + j + w * I::LANES, isa.mul(read, y), count);
        }
    }
}

/// Columns of a head's state: a line of vectors for each element of a key.
struct Lines<I> {
    isa: I,
    rows: vectors::RowsMut,
    /// Number of lines.
    len: usize,
    /// Lanes of each vector.
    count: usize,
}

impl<I: Isa> Lines<I> {
    /// Vector `w` of line `i`.
    #[inline(always)]
    fn get(&self, i: usize, w: usize) -> I::F32 {
        self.rows.row(i).load(self.isa, w * I::LANES, self.count)
    }

    /// Changes vector `w` of line `i`.
    #[inline(always)]
    fn set(&self, i: usize, w: usize, x: I::F32) {
        self.rows.row(i).store(self.isa, w * I::LANES, x, self.count);
    }
}

/// A token's change of a state: decay, then the key times a line; and its query.
struct Change<V, const W: usize> {
    decay: V,
    change: [V; W],
    /// A factor for each line.
    q: Row,
    /// A factor for each line.
    k: Row,
}

/// Changes line `i` and adds the query's element times it to `y`. Returns the line.
#[inline(always)]
fn line<I: Isa, const W: usize>(
    isa: I,
    lines: &Lines<I>,
    token: &Change<I::F32, W>,
    i: usize,
    y: &mut [I::F32; W],
) -> [I::F32; W] {
    let (k, q) = (isa.splat(token.k.get(i)), isa.splat(token.q.get(i)));
    let mut line = [isa.zero(); W];
    for w in 0..W {
        let s = isa.mul_add(token.decay, lines.get(i, w), isa.mul(k, token.change[w]));
        lines.set(i, w, s);
        y[w] = isa.mul_add(q, s, y[w]);
        line[w] = s;
    }
    line
}

/// Changes the state by a token. Returns what it has then for the token's query, and for the next token's key, as
/// [`known`] does.
#[inline(always)]
fn changed<I: Isa, const W: usize>(
    isa: I,
    lines: &Lines<I>,
    token: &Change<I::F32, W>,
    next: Row,
) -> ([I::F32; W], [I::F32; W]) {
    let (mut y, mut even, mut odd) = ([isa.zero(); W], [isa.zero(); W], [isa.zero(); W]);
    let pairs = lines.len / 2;
    for i in 0..pairs {
        let first = line(isa, lines, token, 2 * i, &mut y);
        add_line(isa, &mut even, next.get(2 * i), first);
        let second = line(isa, lines, token, 2 * i + 1, &mut y);
        add_line(isa, &mut odd, next.get(2 * i + 1), second);
    }
    if lines.len > 2 * pairs {
        let last = line(isa, lines, token, 2 * pairs, &mut y);
        add_line(isa, &mut even, next.get(2 * pairs), last);
    }
    (y, sum(isa, even, odd))
}

/// Changes the state by a token. Returns what it has then for the token's query.
#[inline(always)]
fn changed_alone<I: Isa, const W: usize>(isa: I, lines: &Lines<I>, token: &Change<I::F32, W>) -> [I::F32; W] {
    let mut y = [isa.zero(); W];
    for i in 0..lines.len {
        line(isa, lines, token, i, &mut y);
    }
    y
}

/// kᵀS of W vectors of columns. Even and odd lines have sums of their own, which cover an addition's latency.
#[inline(always)]
fn known<I: Isa, const W: usize>(isa: I, lines: &Lines<I>, k: Row) -> [I::F32; W] {
    let (mut even, mut odd) = ([isa.zero(); W], [isa.zero(); W]);
    let pairs = lines.len / 2;
    for i in 0..pairs {
        add_line(isa, &mut even, k.get(2 * i), loaded(isa, lines, 2 * i));
        add_line(isa, &mut odd, k.get(2 * i + 1), loaded(isa, lines, 2 * i + 1));
    }
    if lines.len > 2 * pairs {
        add_line(isa, &mut even, k.get(2 * pairs), loaded(isa, lines, 2 * pairs));
    }
    sum(isa, even, odd)
}

/// Line `i`.
#[inline(always)]
fn loaded<I: Isa, const W: usize>(isa: I, lines: &Lines<I>, i: usize) -> [I::F32; W] {
    let mut line = [isa.zero(); W];
    for (w, x) in line.iter_mut().enumerate() {
        *x = lines.get(i, w);
    }
    line
}

/// Adds a line times a factor.
#[inline(always)]
fn add_line<I: Isa, const W: usize>(isa: I, sums: &mut [I::F32; W], factor: f32, line: [I::F32; W]) {
    let factor = isa.splat(factor);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = isa.mul_add(factor, line[i], *sum);
    }
}

/// The sums of both halves.
#[inline(always)]
fn sum<I: Isa, const W: usize>(isa: I, mut even: [I::F32; W], odd: [I::F32; W]) -> [I::F32; W] {
    for (i, even) in even.iter_mut().enumerate() {
        *even = isa.add(*even, odd[i]);
    }
    even
}
