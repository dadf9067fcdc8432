//! Recurrences on every level of this CPU against `reference`, within the bounds their documentation states; and the
//! same bits however tokens, channels and heads are split.
//! A token's error is taken from the kernel's own state before it, so that bounds need not follow it through the rest.

mod conv;
mod delta;
mod scans;

use super::gates::softplus;
use super::*;
use crate::isa::SimdBody;
use crate::kernels::reference;
use crate::testing::noise_vec;
use std::ops::Range;

/// Half the distance from 1 to the next f32: the largest relative error of one rounding.
const U: f64 = 1.0 / (1 << 24) as f64;
const CANARY: f32 = -7777.0;
/// More tokens than a tile of any kernel holds.
const TOKENS: usize = 19;

fn sets() -> impl Iterator<Item = (IsaId, RecurrenceKernels)> {
    levels::here().map(|isa| (isa, RecurrenceKernels::select(isa)))
}

/// Widths around one vector and four of any level.
const WIDTHS: [usize; 12] = [1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 67, 133];

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x.into()).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Rows a bit apart, with canaries between them.
#[derive(Clone)]
struct Table {
    data: Vec<f32>,
    width: usize,
    stride: usize,
}

impl Table {
    /// Rows of numbers between −spread and spread.
    fn noise(rows: usize, width: usize, spread: f32, seed: u64) -> Self {
        let stride = width + 3;
        let mut data = noise_vec(rows * stride, seed);
        data.iter_mut().for_each(|x| *x *= spread);
        for row in data.chunks_mut(stride) {
            row[width..].fill(CANARY);
        }
        Self { data, width, stride }
    }

    fn row(&self, t: usize) -> &[f32] {
        assert!(self.data[t * self.stride + self.width..][..3].iter().all(|&x| x == CANARY), "wrote too far");
        &self.data[t * self.stride..][..self.width]
    }

    fn values(&self) -> Vec<f32> {
        (0..self.data.len() / self.stride).flat_map(|t| self.row(t).to_vec()).collect()
    }

    /// The rows from `t` on.
    fn at(&self, t: usize) -> Rows {
        Rows { first: self.data[t * self.stride..].as_ptr(), stride: self.stride }
    }

    /// The rows from `t` on, to be written.
    fn at_mut(&mut self, t: usize) -> RowsMut {
        RowsMut { first: self.data[t * self.stride..].as_mut_ptr(), stride: self.stride }
    }
}

/// What a kernel has to do on a case's inputs.
trait Case: Clone {
    /// Channels or heads.
    fn parts(&self) -> usize;
    /// Runs rows and channels or heads of these ranges.
    fn run(&mut self, set: &RecurrenceKernels, rows: Range<usize>, parts: Range<usize>);
    /// Output and state so far.
    fn out(&self) -> (Vec<f32>, Vec<f32>);
}

/// Written over their input, outputs and state have the same bits.
fn assert_in_place_agrees<C: Case>(set: &RecurrenceKernels, apart: &C, within: &C) {
    let [apart, within] = [apart, within].map(|case| {
        let mut case = case.clone();
        case.run(set, 0..TOKENS, 0..case.parts());
        let (y, state) = case.out();
        (bits(&y), bits(&state))
    });
    assert_eq!(apart, within);
}

/// However rows and parts are split, the bits are those of all at once.
fn assert_splits_agree<C: Case>(set: &RecurrenceKernels, case: &C) {
    let (mut whole, parts) = (case.clone(), case.parts());
    whole.run(set, 0..TOKENS, 0..parts);
    let (y, state) = whole.out();
    assert!(y.iter().chain(&state).all(|x| x.is_finite()));
    for cuts in [vec![0, 1, 2, 3, TOKENS], vec![0, 17, TOKENS], (0..=TOKENS).collect()] {
        let mut split = case.clone();
        for rows in cuts.windows(2) {
            // Parts in another order, so that none depends on the ones before it.
            for part in [parts / 3..parts, 0..parts / 3] {
                split.run(set, rows[0]..rows[1], part);
            }
        }
        let got = split.out();
        assert_eq!((bits(&got.0), bits(&got.1)), (bits(&y), bits(&state)), "cut at {cuts:?}");
    }
    let mut half = case.clone();
    half.run(set, 0..TOKENS, 0..parts / 2);
    half.run(set, 0..0, 0..parts);
    half.run(set, 0..TOKENS, parts / 2..parts / 2);
    let before = case.out();
    let untouched = |got: &[f32], before: &[f32], whole: &[f32]| {
        got.iter()
            .zip(before)
            .zip(whole)
            .all(|((got, before), whole)| [before.to_bits(), whole.to_bits()].contains(&got.to_bits()))
    };
    assert!(untouched(&half.out().0, &before.0, &y) && untouched(&half.out().1, &before.1, &state));
}

fn assert_within(what: &str, got: f32, want: f64, bound: f64) {
    let error = (f64::from(got) - want).abs();
    assert!(error <= bound, "{what}: {got} for {want}, {error:e} > {bound:e}");
}

/// Softplus of a slice of whole vectors.
struct Softplus<'a>(&'a mut [f32]);

impl SimdBody for Softplus<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for x in self.0.chunks_exact_mut(I::LANES) {
            isa.store_slice(x, softplus(isa, isa.load_slice(x)));
        }
    }
}

#[test]
fn softplus_is_as_near_as_it_says() {
    let specials = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, -87.5, 1e-40];
    let steps = (0..400_000).map(|i| (i as f32 - 200_000.0) * 5.3e-4);
    let x: Vec<f32> = specials.into_iter().chain(steps).collect();
    for isa in levels::here() {
        let mut y = x.clone();
        isa.run(Softplus(&mut y)).unwrap();
        for (&x, &y) in x.iter().zip(&y) {
            let want = reference::recurrence::softplus(f64::from(x));
            if want.is_infinite() || x == f32::MAX {
                assert_eq!(f64::from(y), want, "{isa:?} {x}");
                continue;
            }
            let ulp = 2f64.powi(want.log2().floor().max(-126.0) as i32 - 23);
            assert_within(&format!("{isa:?} softplus {x}"), y, want, 4.0 * ulp + 2f64.powi(-126));
        }
        let mut nan = [f32::NAN; 16];
        isa.run(Softplus(&mut nan)).unwrap();
        assert!(nan.iter().all(|x| x.is_nan()));
    }
}
