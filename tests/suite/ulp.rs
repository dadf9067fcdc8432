//! Errors of the elementwise functions, in ULP, against f64, on every instruction set of this CPU.
//! An ordinary run takes every 4,099th f32 bit pattern, which meets every exponent some two thousand times;
//! `SMALLMIND_ULP_EXHAUSTIVE=avx2,avx512` (with `--release`) takes all 2³² on those levels, about half an hour
//! of one core. What is claimed here is what the docs state.

use rayon::prelude::*;
use smallmind::isa::IsaId;
use smallmind::kernels::reference;
use smallmind::kernels::unary::{Unary, UnaryKernels};

/// A prime, so that low bits vary as well.
const STEP: usize = 4099;
/// Bit patterns that one task walks.
const SPAN: usize = 1 << 22;
/// Values handed to a kernel at once.
const BATCH: usize = 1024;

/// What a function's documentation says of its error.
struct Claim {
    op: &'static str,
    reference: fn(f64) -> f64,
    /// Largest error in ULP, wherever `absolute` does not apply.
    ulp: f64,
    /// Below this input the error is bounded by `absolute` instead.
    tail: f64,
    /// Largest absolute error in the tail.
    absolute: f64,
}

const NO_TAIL: f64 = f64::NEG_INFINITY;

const CLAIMS: [Claim; 8] = [
    Claim { op: "exp", reference: reference::exp, ulp: 1.1, tail: NO_TAIL, absolute: 0.0 },
    Claim { op: "tanh", reference: reference::tanh, ulp: 2.0, tail: NO_TAIL, absolute: 0.0 },
    Claim { op: "erf", reference: reference::erf, ulp: 3.0, tail: NO_TAIL, absolute: 0.0 },
    Claim { op: "sigmoid", reference: reference::sigmoid, ulp: 2.0, tail: -87.0, absolute: 1.7e-38 },
    Claim { op: "gelu_tanh", reference: reference::gelu_tanh, ulp: 3.0, tail: -1.0, absolute: 5e-8 },
    Claim { op: "gelu_erf", reference: reference::gelu_erf, ulp: 3.0, tail: -1.0, absolute: 5e-8 },
    Claim { op: "silu", reference: reference::silu, ulp: 2.0, tail: -87.0, absolute: 1.5e-36 },
    Claim { op: "relu", reference: reference::relu, ulp: 0.0, tail: NO_TAIL, absolute: 0.0 },
];

/// The distance of `got` from the exact value, in units of the distance between f32s at the exact value.
/// Where that rounds to infinity, infinity is 0 away, and stands for 2¹²⁸ otherwise.
fn ulp_error(got: f32, exact: f64) -> f64 {
    if exact.is_nan() || got.is_nan() {
        return if exact.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    const PAST_MAX: f64 = 2.0 * (1u128 << 127) as f64;
    let rounded = exact as f32;
    if rounded.is_infinite() && got == rounded {
        return 0.0;
    }
    let finite = |x: f64| x.clamp(-PAST_MAX, PAST_MAX);
    // The exponent of an f32 as large as the exact value, as f64 writes it (0 is as small as any).
    let exponent = (exact.abs().to_bits() >> 52).clamp(1023 - 126, 1023 + 127);
    let ulp = f64::from_bits((exponent - 23) << 52);
    (finite(f64::from(got)) - finite(exact)).abs() / ulp
}

/// The largest errors met, with the input that gave each.
#[derive(Clone, Copy, Default)]
struct Worst {
    ulp: f64,
    ulp_at: f32,
    absolute: f64,
    absolute_at: f32,
}

impl Worst {
    fn meet(&mut self, claim: &Claim, x: f32, got: f32, exact: f64) {
        if f64::from(x) < claim.tail {
            let error = (f64::from(got) - exact).abs();
            if error.is_nan() || error > self.absolute {
                (self.absolute, self.absolute_at) = (error, x);
            }
        } else {
            let error = ulp_error(got, exact);
            if error.is_nan() || error > self.ulp {
                (self.ulp, self.ulp_at) = (error, x);
            }
        }
    }

    fn join(self, other: Self) -> Self {
        let (a, b) = if self.ulp >= other.ulp { (self, other) } else { (other, self) };
        if b.absolute > a.absolute {
            return Self { absolute: b.absolute, absolute_at: b.absolute_at, ..a };
        }
        a
    }
}

/// Walks the bit patterns `begin .. begin + SPAN` by `step` and compares every kernel with one reference value.
fn walk(claim: &Claim, kernels: &[Unary], begin: usize, step: usize) -> Vec<Worst> {
    let mut worst = vec![Worst::default(); kernels.len()];
    // The walks of all spans together form one with that step.
    let patterns: Vec<u32> =
        (begin.next_multiple_of(step)..begin + SPAN).step_by(step).map(|bits| bits as u32).collect();
    for patterns in patterns.chunks(BATCH) {
        let x: Vec<f32> = patterns.iter().map(|&bits| f32::from_bits(bits)).collect();
        let exact: Vec<f64> = x.iter().map(|&x| (claim.reference)(f64::from(x))).collect();
        let mut known: Vec<(Vec<f32>, Worst)> = Vec::new();
        for (kernel, worst) in kernels.iter().zip(&mut worst) {
            let mut got = vec![0.0; x.len()];
            kernel.apply(&x, &mut got);
            // Levels mostly agree to the bit: what one of them has shown need not be measured again.
            let same = |other: &[f32]| got.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
            let of_batch = known.iter().find(|(other, _)| same(other)).map(|&(_, worst)| worst);
            let of_batch = of_batch.unwrap_or_else(|| {
                let mut worst = Worst::default();
                for ((&x, &got), &exact) in x.iter().zip(&got).zip(&exact) {
                    worst.meet(claim, x, got, exact);
                }
                known.push((got, worst));
                worst
            });
            *worst = worst.join(of_batch);
        }
    }
    worst
}

#[test]
fn errors_are_as_documented() {
    let exhaustive = std::env::var("SMALLMIND_ULP_EXHAUSTIVE").ok();
    let step = if exhaustive.is_some() { 1 } else { STEP };
    let sets: Vec<UnaryKernels> = match &exhaustive {
        Some(names) => {
            names.split(',').map(|name| UnaryKernels::select(IsaId::parse(name).unwrap())).collect()
        }
        None => IsaId::available().map(UnaryKernels::select).collect(),
    };
    let mut broken = Vec::new();
    for claim in &CLAIMS {
        // Levels that share a kernel are measured once.
        let mut kernels: Vec<Unary> = Vec::new();
        for set in &sets {
            let kernel = set.unary().into_iter().find(|kernel| kernel.info.op == claim.op).unwrap();
            if kernels.iter().all(|known| known.info != kernel.info) {
                kernels.push(*kernel);
            }
        }
        let started = std::time::Instant::now();
        let spans: Vec<usize> = (0..1 << 32).step_by(SPAN).collect();
        let worst = spans
            .into_par_iter()
            .map(|begin| walk(claim, &kernels, begin, step))
            .reduce_with(|a, b| a.into_iter().zip(b).map(|(a, b)| a.join(b)).collect())
            .unwrap();
        for (kernel, worst) in kernels.iter().zip(worst) {
            let Worst { ulp, ulp_at, absolute, absolute_at } = worst;
            let (op, isa) = (claim.op, kernel.info.isa.name());
            let line = format!(
                "{op:10} {isa:8} {ulp:6.3} ULP at {ulp_at:e}, tail {absolute:.2e} at {absolute_at:e}"
            );
            println!("{line} {:?}", started.elapsed());
            if !(ulp <= claim.ulp && absolute <= claim.absolute) {
                broken.push(line);
            }
        }
    }
    assert!(broken.is_empty(), "more than documented:\n{}", broken.join("\n"));
}

#[test]
fn the_measure_itself_sees_errors() {
    assert_eq!(ulp_error(1.0, 1.0), 0.0);
    assert_eq!(ulp_error(1.0 + f32::EPSILON, 1.0), 1.0);
    assert_eq!(ulp_error(0.0, f64::from(f32::from_bits(3))), 3.0);
    assert_eq!(ulp_error(f32::INFINITY, 1e39), 0.0);
    assert_eq!(ulp_error(f32::MAX, 1e39), 1.0);
    assert_eq!(ulp_error(f32::INFINITY, f64::from(f32::MAX)), 1.0);
    assert_eq!(ulp_error(f32::NAN, f64::NAN), 0.0);
    assert_eq!(ulp_error(f32::NAN, 1.0), f64::INFINITY);
    assert_eq!(ulp_error(1.0, f64::NAN), f64::INFINITY);
    assert!(ulp_error(-1e-45, 1e-45) > 1.0);
}
