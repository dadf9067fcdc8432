//! The causal convolution: all lengths of kernels, with and without bias, gates and SiLU.
//! Its state holds inputs as they are, so the oracle runs through all tokens by itself.

use super::*;

#[derive(Clone)]
struct Inputs {
    silu: bool,
    taps: usize,
    x: Table,
    gates: Option<[Table; 2]>,
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    state: Vec<f32>,
    y: Table,
    in_place: bool,
}

impl Inputs {
    fn new(channels: usize, taps: usize, silu: bool, bias: bool) -> Self {
        let seed = (channels * 10 + taps) as u64;
        let table = |seed| Table::noise(TOKENS, channels, 2.0, seed);
        Self {
            silu,
            taps,
            x: table(seed),
            gates: (!silu && bias).then(|| [table(seed + 1), table(seed + 2)]),
            weights: noise_vec(taps * channels, seed + 3),
            bias: bias.then(|| noise_vec(channels, seed + 4)),
            state: noise_vec((taps - 1) * channels, seed + 5),
            y: table(seed + 6),
            in_place: false,
        }
    }

    /// The output and its bound for each token and channel.
    fn want(&self) -> Vec<(f64, f64)> {
        let channels = self.x.width;
        let column =
            |x: &[f32], c: usize| wide(&x[c..].iter().copied().step_by(channels).collect::<Vec<_>>());
        let mut out = vec![(0.0, 0.0); TOKENS * channels];
        for c in 0..channels {
            let (weights, mut state) = (column(&self.weights, c), column(&self.state, c));
            let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[c]));
            let sizes: Vec<f64> = weights.iter().map(|w| w.abs()).collect();
            let mut largest: Vec<f64> = state.iter().map(|s| s.abs()).collect();
            for t in 0..TOKENS {
                let gate = |i: usize| self.gates.as_ref().map_or(1.0, |gates| f64::from(gates[i].row(t)[c]));
                let x = f64::from(self.x.row(t)[c]) * gate(0);
                let y = reference::recurrence::conv(&mut state, x, &weights, bias);
                let size = reference::recurrence::conv(&mut largest, x.abs(), &sizes, bias.abs());
                // Each product and sum, and the one of the gate before.
                let error = (self.taps as f64 + 3.0) * U * size;
                out[t * channels + c] = if self.silu {
                    let y = reference::silu(y);
                    (y, 1.1 * error + 4.0 * U * y.abs() + 2e-36)
                } else {
                    (y * gate(1), (error + 2.0 * U * size) * gate(1).abs())
                };
            }
        }
        out
    }
}

impl Case for Inputs {
    fn parts(&self) -> usize {
        self.x.width
    }

    fn run(&mut self, set: &RecurrenceKernels, rows: Range<usize>, parts: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let t = rows.start;
        let y = if self.in_place { self.x.at_mut(t) } else { self.y.at_mut(t) };
        let args = ConvArgs {
            x: Rows { first: if self.in_place { y.first } else { self.x.at(t).first }, stride: y.stride },
            y,
            state: self.state.as_mut_ptr(),
            weights: self.weights.as_ptr(),
            bias: self.bias.as_ref().map_or(std::ptr::null(), |bias| bias.as_ptr()),
            gates: self.gates.as_ref().map(|[a, b]| Gates { before: a.at(t), after: b.at(t) }),
            tokens: rows.len(),
            channels: self.x.width,
            begin: parts.start,
            end: parts.end,
            taps: self.taps,
        };
        let kernel = if self.silu { set.conv_silu } else { set.conv };
        // SAFETY: the tables hold the rows, state and weights have a row of channels for each tap.
        unsafe { kernel.run(&args) };
    }

    fn out(&self) -> (Vec<f32>, Vec<f32>) {
        (if self.in_place { self.x.values() } else { self.y.values() }, self.state.clone())
    }
}

fn cases() -> impl Iterator<Item = Inputs> {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    let taps = TAPS.flat_map(move |taps| flags.map(|(silu, bias)| (taps, silu, bias)));
    taps.flat_map(|(taps, silu, bias)| {
        let widths = if [3, 4].contains(&taps) { &WIDTHS[..] } else { &[5, 17] };
        widths.iter().map(move |&channels| Inputs::new(channels, taps, silu, bias))
    })
}

#[test]
fn convolutions_within_their_bound() {
    for (isa, set) in sets() {
        for mut case in cases() {
            let want = case.want();
            let (channels, taps) = (case.x.width, case.taps);
            case.run(&set, 0..TOKENS, 0..channels);
            for (i, (&got, (want, bound))) in case.y.values().iter().zip(want).enumerate() {
                let what = format!("{isa:?}, {taps} taps, {channels} channels, element {i}");
                assert_within(&what, got, want, bound);
            }
            for (j, kept) in case.state.chunks(channels).enumerate() {
                let t = TOKENS + 1 - taps + j;
                let gate = |c: usize| case.gates.as_ref().map_or(1.0, |gates| gates[0].row(t)[c]);
                let inputs: Vec<_> = (0..channels).map(|c| case.x.row(t)[c] * gate(c)).collect();
                assert_eq!(kept, inputs, "{isa:?}, {taps} taps: the last inputs");
            }
        }
    }
}

#[test]
fn splits_of_convolutions_agree() {
    for (_, set) in sets() {
        for case in cases() {
            assert_splits_agree(&set, &case);
        }
    }
}

#[test]
fn convolutions_in_place_give_the_same() {
    for (_, set) in sets() {
        for case in cases() {
            assert_in_place_agrees(&set, &case, &Inputs { in_place: true, ..case.clone() });
        }
    }
}

/// A NaN reaches as many outputs of its channel as there are taps, and no other channel.
#[test]
fn a_nan_leaves_a_convolution_again() {
    for (_, set) in sets() {
        let mut case = Inputs::new(33, 4, true, true);
        let (c, t) = (17, 5);
        case.x.data[t * case.x.stride + c] = f32::NAN;
        case.run(&set, 0..TOKENS, 0..33);
        for (i, y) in case.y.values().iter().enumerate() {
            assert_eq!(y.is_nan(), i % 33 == c && (t..t + 4).contains(&(i / 33)), "element {i}");
        }
    }
}
