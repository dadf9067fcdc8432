//! The gated delta rule: each head of each token against the oracle, from the kernel's state before it.

use super::*;

const EPS: f32 = 1e-6;

#[derive(Clone)]
struct Inputs {
    heads: usize,
    d_k: usize,
    d_v: usize,
    keys: KeyHeads,
    /// Neighbouring gates of a kind, and floats from one such run to the next.
    runs: [usize; 2],
    q: Table,
    k: Table,
    v: Table,
    /// Runs of beta, each followed by one of alpha.
    gates: Table,
    y: Table,
    a: Vec<f32>,
    dt_bias: Vec<f32>,
    state: Vec<f32>,
    in_place: bool,
}

impl Inputs {
    fn new(heads: usize, d_k: usize, d_v: usize, keys: KeyHeads) -> Self {
        let seed = (heads * 1000 + d_k * 10 + d_v) as u64;
        let table = |width, seed| Table::noise(TOKENS, width, 2.0, seed);
        let key_heads = (0..heads).map(|head| keys.of(head) + 1).max().unwrap_or(0);
        let run = if let KeyHeads::Grouped(n) = keys { n } else { heads };
        Self {
            heads,
            d_k,
            d_v,
            keys,
            runs: [run, 2 * run],
            q: table(key_heads * d_k, seed),
            k: table(key_heads * d_k, seed + 1),
            v: table(heads * d_v, seed + 2),
            gates: table(heads.next_multiple_of(run) * 2, seed + 3),
            y: table(heads * d_v, seed + 4),
            a: noise_vec(heads, seed + 5).iter().map(|a| a - 1.0).collect(),
            dt_bias: noise_vec(heads, seed + 6),
            state: noise_vec(heads * d_k * d_v, seed + 7),
            in_place: false,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d_k as f32).sqrt()
    }

    /// Checks a token's outputs and the state after it, both the kernel's, against the state before it.
    fn check(&self, what: &str, t: usize, before: &[f32]) {
        let (d_k, d_v) = (self.d_k, self.d_v);
        for head in 0..self.heads {
            let from = self.keys.of(head) * d_k;
            let [q, k] = [&self.q, &self.k]
                .map(|rows| reference::recurrence::unit(&rows.row(t)[from..][..d_k], EPS.into()));
            let q: Vec<f64> = q.iter().map(|q| q * f64::from(self.scale())).collect();
            let v = wide(&self.v.row(t)[head * d_v..][..d_v]);
            let [run, step] = self.runs;
            let gate =
                |kind: usize| f64::from(self.gates.row(t)[head / run * step + head % run + kind * run]);
            let (a, bias) = (f64::from(self.a[head]), f64::from(self.dt_bias[head]));
            let (decay, write) = reference::recurrence::delta_gates(gate(1), gate(0), a, bias);
            let old = wide(&before[head * d_k * d_v..][..d_k * d_v]);
            let mut state = old.clone();
            let y = reference::recurrence::delta(&mut state, &q, &k, &v, decay, write);

            // The documented counts of roundings.
            let exponent = decay.ln().abs() * (10.0 + (gate(1) + bias).abs()) + 4.0;
            let norm = d_k as f64 / 32.0 + 8.0;
            let n = exponent + 2.0 * norm + d_k as f64 / 2.0 + 14.0;
            for j in 0..d_v {
                let found: f64 = (0..d_k).map(|i| (decay * k[i] * old[i * d_v + j]).abs()).sum();
                let (mut size, mut error) = (0.0, 0.0);
                for i in 0..d_k {
                    let at = i * d_v + j;
                    let moved = decay * old[at].abs() + k[i].abs() * write * (v[j].abs() + found);
                    let got = self.state[head * d_k * d_v + at];
                    assert_within(&format!("{what}, state {head}:{i}:{j}"), got, state[at], n * U * moved);
                    size += q[i].abs() * moved;
                    error += q[i].abs() * n * U * moved;
                }
                let bound = error + (d_k as f64 + norm + 4.0) * U * size;
                assert_within(&format!("{what}, {head}:{j}"), self.y.row(t)[head * d_v + j], y[j], bound);
            }
        }
    }
}

impl Case for Inputs {
    fn parts(&self) -> usize {
        self.heads
    }

    fn run(&mut self, set: &RecurrenceKernels, rows: Range<usize>, parts: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let t = rows.start;
        let y = if self.in_place { self.v.at_mut(t) } else { self.y.at_mut(t) };
        let [run, step] = self.runs;
        let beta = self.gates.at(t);
        let args = DeltaArgs {
            q: self.q.at(t),
            k: self.k.at(t),
            v: Rows { first: if self.in_place { y.first } else { self.v.at(t).first }, stride: y.stride },
            alpha: Rows { first: beta.first.wrapping_add(run), ..beta },
            beta,
            run,
            step,
            a: self.a.as_ptr(),
            dt_bias: self.dt_bias.as_ptr(),
            state: self.state.as_mut_ptr(),
            y,
            tokens: rows.len(),
            d_k: self.d_k,
            d_v: self.d_v,
            keys: self.keys,
            begin: parts.start,
            end: parts.end,
            scale: self.scale(),
            eps: EPS,
        };
        // SAFETY: the tables hold the rows of all heads, the vectors a number or a state for each.
        unsafe { set.delta.run(&args) };
    }

    fn out(&self) -> (Vec<f32>, Vec<f32>) {
        (if self.in_place { self.v.values() } else { self.y.values() }, self.state.clone())
    }
}

fn cases() -> Vec<Inputs> {
    let keys = [KeyHeads::Grouped(2), KeyHeads::Cyclic(2), KeyHeads::Grouped(1), KeyHeads::Cyclic(1)];
    let sizes = WIDTHS.into_iter().zip([1, 2, 16, 17, 33].into_iter().cycle());
    let sizes = sizes.zip(keys.into_iter().cycle());
    sizes.map(|((d_v, d_k), keys)| Inputs::new(3, d_k, d_v, keys)).collect()
}

#[test]
fn the_delta_rule_within_its_bounds() {
    for (isa, set) in sets() {
        for mut case in cases() {
            for t in 0..TOKENS {
                let before = case.state.clone();
                case.run(&set, t..t + 1, 0..case.parts());
                case.check(&format!("{isa:?}, {}x{}, token {t}", case.d_k, case.d_v), t, &before);
            }
        }
    }
}

#[test]
fn splits_of_the_delta_rule_agree() {
    for (_, set) in sets() {
        for case in cases() {
            assert_splits_agree(&set, &case);
        }
    }
}

#[test]
fn the_delta_rule_in_place_gives_the_same() {
    for (_, set) in sets() {
        for case in cases() {
            assert_in_place_agrees(&set, &case, &Inputs { in_place: true, ..case.clone() });
        }
    }
}

/// A NaN in a key fills the heads that use it, from its token on; a key and a query of zeros change nothing and read
/// nothing.
#[test]
fn nans_stay_in_their_heads_and_zeros_do_nothing() {
    for (_, set) in sets() {
        let (mut case, t) = (Inputs::new(3, 5, 37, KeyHeads::Grouped(2)), 3);
        case.k.data[t * case.k.stride] = f32::NAN;
        case.run(&set, 0..TOKENS, 0..3);
        for (i, y) in case.y.values().iter().enumerate() {
            assert_eq!(y.is_nan(), i % 111 < 74 && i / 111 >= t, "element {i}");
        }

        let mut case = Inputs::new(3, 5, 37, KeyHeads::Grouped(2));
        case.a.fill(0.0);
        for table in [&mut case.q, &mut case.k] {
            table.data.iter_mut().filter(|x| **x != CANARY).for_each(|x| *x = 0.0);
        }
        let before = case.state.clone();
        case.run(&set, 0..TOKENS, 0..3);
        assert_eq!(case.state, before);
        assert!(case.y.values().iter().all(|&y| y == 0.0));
    }
}

#[test]
fn heads_of_values_find_their_keys() {
    let keys = |keys: KeyHeads| [0, 1, 2, 3, 4, 5].map(|head| keys.of(head));
    assert_eq!(keys(KeyHeads::Grouped(2)), [0, 0, 1, 1, 2, 2]);
    assert_eq!(keys(KeyHeads::Cyclic(3)), [0, 1, 2, 0, 1, 2]);
}
