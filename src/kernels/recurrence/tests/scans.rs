//! The scans of Mamba and Mamba-2: each channel of each token against the oracle, from the kernel's state before it.

use super::*;

/// Of both scans: Mamba's has heads of one element, each with its own decays for all numbers of its state, and one
/// group.
#[derive(Clone)]
struct Inputs {
    first_kind: bool,
    heads: usize,
    head_dim: usize,
    d_state: usize,
    group: usize,
    x: Table,
    dt: Table,
    b: Table,
    c: Table,
    y: Table,
    a: Vec<f32>,
    dt_bias: Vec<f32>,
    d: Vec<f32>,
    state: Vec<f32>,
    in_place: bool,
}

impl Inputs {
    fn new(first_kind: bool, heads: usize, head_dim: usize, d_state: usize, group: usize) -> Self {
        let seed = (heads * 1000 + head_dim * 10 + d_state) as u64;
        let table = |width, seed| Table::noise(TOKENS, width, 2.0, seed);
        let shared = if first_kind { d_state } else { heads.div_ceil(group) * d_state };
        let exponents = if first_kind { heads * d_state } else { heads };
        // Real decays are below 1; a few are above it, as in files of random numbers.
        let a = noise_vec(exponents, seed + 5).iter().map(|a| a * 3.0 - 2.5).collect();
        Self {
            first_kind,
            heads,
            head_dim,
            d_state,
            group,
            x: table(heads * head_dim, seed),
            dt: table(heads, seed + 1),
            b: table(shared, seed + 2),
            c: table(shared, seed + 3),
            y: table(heads * head_dim, seed + 4),
            a,
            dt_bias: noise_vec(heads, seed + 6),
            d: noise_vec(heads, seed + 7),
            state: noise_vec(heads * head_dim * d_state, seed + 8),
            in_place: false,
        }
    }

    /// Where number `n` of element `i` of a head lies in the state.
    fn place(&self, head: usize, i: usize, n: usize) -> usize {
        if self.first_kind { n * self.heads + head } else { (head * self.d_state + n) * self.head_dim + i }
    }

    /// Checks a token's outputs and the state after it, both the kernel's, against the state before it.
    fn check(&self, what: &str, t: usize, before: &[f32]) {
        for (head, i) in (0..self.heads).flat_map(|head| (0..self.head_dim).map(move |i| (head, i))) {
            let numbers = |x: &[f32]| -> Vec<f64> {
                (0..self.d_state).map(|n| f64::from(x[self.place(head, i, n)])).collect()
            };
            let exponents: Vec<f64> = (0..self.d_state)
                .map(|n| f64::from(self.a[if self.first_kind { n * self.heads + head } else { head }]))
                .collect();
            let shared = if self.first_kind { 0 } else { head / self.group * self.d_state };
            let [b, c] = [&self.b, &self.c].map(|rows| wide(&rows.row(t)[shared..][..self.d_state]));
            let at = head * self.head_dim + i;
            let (x, d) = (f64::from(self.x.row(t)[at]), f64::from(self.d[head]));
            let raw = f64::from(self.dt.row(t)[head]) + f64::from(self.dt_bias[head]);
            let step = reference::recurrence::softplus(raw);
            let old = numbers(before);
            let mut state = old.clone();
            let y = reference::recurrence::scan(&mut state, x, step, &exponents, &b, &c, d);

            let step_error = 9.0 + raw.abs();
            let (mut size, mut error) = ((d * x).abs(), 0.0);
            for (n, (&got, &want)) in numbers(&self.state).iter().zip(&state).enumerate() {
                let z = step * exponents[n];
                let left = old[n].abs() * (z.exp() * (z.abs() * (step_error + 1.0) + 6.0) + 2f64.powi(-120));
                let bound = U * (left + (b[n] * step * x).abs() * (step_error + 4.0));
                assert_within(&format!("{what}, number {n} of {head}:{i}"), got as f32, want, bound);
                size += c[n].abs() * (want.abs() + bound);
                error += c[n].abs() * bound;
            }
            let bound = error + (self.d_state as f64 + 3.0) * U * size;
            assert_within(&format!("{what}, output {head}:{i}"), self.y.row(t)[at], y, bound);
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
        let y = if self.in_place { self.x.at_mut(t) } else { self.y.at_mut(t) };
        let x = Rows { first: if self.in_place { y.first } else { self.x.at(t).first }, stride: y.stride };
        let (dt, b, c) = (self.dt.at(t), self.b.at(t), self.c.at(t));
        let (a, dt_bias, d) = (self.a.as_ptr(), self.dt_bias.as_ptr(), self.d.as_ptr());
        let (state, tokens, d_state) = (self.state.as_mut_ptr(), rows.len(), self.d_state);
        let Range { start: begin, end } = parts;
        let (channels, head_dim, group) = (self.heads, self.head_dim, self.group);
        // SAFETY: the tables hold the rows of all heads, the vectors a number or a state for each.
        unsafe {
            if self.first_kind {
                set.scan1.run(&Scan1Args {
                    x,
                    dt,
                    b,
                    c,
                    y,
                    a,
                    dt_bias,
                    d,
                    state,
                    tokens,
                    channels,
                    d_state,
                    begin,
                    end,
                });
            } else {
                set.scan2.run(&Scan2Args {
                    x,
                    dt,
                    b,
                    c,
                    y,
                    a,
                    dt_bias,
                    d,
                    state,
                    tokens,
                    head_dim,
                    d_state,
                    group,
                    begin,
                    end,
                });
            }
        }
    }

    fn out(&self) -> (Vec<f32>, Vec<f32>) {
        (if self.in_place { self.x.values() } else { self.y.values() }, self.state.clone())
    }
}

fn cases() -> Vec<Inputs> {
    let first = WIDTHS.into_iter().zip([1, 2, 16, 5].into_iter().cycle());
    let first = first.map(|(channels, d_state)| Inputs::new(true, channels, 1, d_state, 1));
    let second = WIDTHS.into_iter().zip([16, 1, 7, 33].into_iter().cycle());
    let second = second.map(|(head_dim, d_state)| Inputs::new(false, 3, head_dim, d_state, 2));
    first.chain(second).collect()
}

#[test]
fn scans_within_their_bounds() {
    for (isa, set) in sets() {
        for mut case in cases() {
            for t in 0..TOKENS {
                let before = case.state.clone();
                case.run(&set, t..t + 1, 0..case.parts());
                case.check(&format!("{isa:?}, {}x{}, token {t}", case.heads, case.head_dim), t, &before);
            }
        }
    }
}

#[test]
fn splits_of_scans_agree() {
    for (_, set) in sets() {
        for case in cases() {
            assert_splits_agree(&set, &case);
        }
    }
}

#[test]
fn scans_in_place_give_the_same() {
    for (_, set) in sets() {
        for case in cases() {
            assert_in_place_agrees(&set, &case, &Inputs { in_place: true, ..case.clone() });
        }
    }
}

/// A NaN in one channel's or element's input stays there; one in a head's step fills the head.
#[test]
fn nans_stay_in_their_channel_or_head() {
    for (_, set) in sets() {
        for first_kind in [true, false] {
            let (heads, head_dim) = if first_kind { (37, 1) } else { (3, 37) };
            let fresh = Inputs::new(first_kind, heads, head_dim, 5, 2);
            for in_step in [false, true] {
                let (mut case, t, head) = (fresh.clone(), 3, 1);
                let (table, at) = if in_step { (&mut case.dt, head) } else { (&mut case.x, head * head_dim) };
                table.data[t * table.stride + at] = f32::NAN;
                case.run(&set, 0..TOKENS, 0..heads);
                for (i, y) in case.y.values().iter().enumerate() {
                    let (row, place) = (i / (heads * head_dim), i % (heads * head_dim));
                    let hit = if in_step { place / head_dim == head } else { place == at };
                    assert_eq!(y.is_nan(), hit && row >= t, "row {row}, element {place}");
                }
            }
        }
    }
}

/// A step so long that the state decays to nothing, and one so short that nothing enters.
#[test]
fn the_longest_and_the_shortest_step() {
    for (_, set) in sets() {
        for first_kind in [true, false] {
            let mut case = Inputs::new(first_kind, 3, if first_kind { 1 } else { 19 }, 4, 1);
            case.a.fill(-1.0);
            case.dt_bias.fill(0.0);
            case.dt.data.iter_mut().filter(|x| **x != CANARY).for_each(|x| *x = 1000.0);
            case.x.data.iter_mut().filter(|x| **x != CANARY).for_each(|x| *x = 0.0);
            case.run(&set, 0..1, 0..3);
            assert!(case.state.iter().all(|&s| s == 0.0));
            case.state.fill(1.0);
            case.dt.data.iter_mut().filter(|x| **x != CANARY).for_each(|x| *x = -1000.0);
            case.run(&set, 1..TOKENS, 0..3);
            assert!(case.state.iter().all(|&s| s == 1.0));
        }
    }
}
