//! Elementwise kernels on every level of this CPU: lengths, alignment, in place, special values.
//! How exact the functions are over all f32 is `tests/suite/ulp.rs`'s matter.

use super::*;
use crate::kernels::reference;

const CANARY: f32 = -7777.0;

fn sets() -> impl Iterator<Item = UnaryKernels> {
    levels::here().map(UnaryKernels::select)
}

/// Lengths around one and several vectors of every level, and the empty one.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=35).chain([63, 64, 65, 1000])
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.17).collect()
}

/// A buffer whose floats `at .. at + n` a kernel may write, and canaries all round.
fn guarded(at: usize, n: usize) -> Vec<f32> {
    vec![CANARY; at + n + 20]
}

fn assert_untouched(buffer: &[f32], at: usize, n: usize) {
    assert!(buffer[..at].iter().chain(&buffer[at + n..]).all(|&x| x == CANARY), "wrote past {n} floats");
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn an_element_depends_on_its_input_alone() {
    for set in sets() {
        for kernel in set.unary() {
            let x = values(1000);
            let alone: Vec<f32> = x
                .iter()
                .map(|&x| {
                    let mut y = [0.0];
                    kernel.apply(&[x], &mut y);
                    y[0]
                })
                .collect();
            for n in lengths() {
                // Offsets of one float misalign input and output differently.
                for (from, to) in [(0, 1), (1, 0), (3, 5)] {
                    let n = n.min(x.len() - from);
                    let mut y = guarded(to, n);
                    kernel.apply(&x[from..from + n], &mut y[to..to + n]);
                    assert_eq!(bits(&y[to..to + n]), bits(&alone[from..from + n]), "{:?}", kernel.info);
                    assert_untouched(&y, to, n);
                }
                let mut y = x[..n].to_vec();
                kernel.apply_in_place(&mut y);
                assert_eq!(bits(&y), bits(&alone[..n]), "{:?} in place", kernel.info);
            }
        }
    }
}

#[test]
fn canaries_would_notice() {
    let mut y = guarded(1, 3);
    y[4] = 0.0;
    assert!(std::panic::catch_unwind(|| assert_untouched(&y, 1, 3)).is_err());
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    for set in sets() {
        let check = |kernel: &Unary, x: f32, want: f32| {
            // In the first lane, in the last, and in a tail.
            for (n, at) in [(16, 0), (16, 15), (3, 1)] {
                let mut y = vec![0.25; n];
                y[at] = x;
                kernel.apply_in_place(&mut y);
                let same = y[at].to_bits() == want.to_bits() || (y[at].is_nan() && want.is_nan());
                assert!(same, "{:?}({x}) = {}, not {want}", kernel.info, y[at]);
            }
        };
        for kernel in set.unary() {
            check(kernel, f32::NAN, f32::NAN);
            check(kernel, -f32::NAN, f32::NAN);
        }
        let tiny = f32::from_bits(1);
        for (x, want) in [(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (tiny, 1.0), (89.0, inf)] {
            check(&set.exp, x, want);
        }
        check(&set.exp, -103.0, f32::from_bits(1));
        check(&set.exp, -200.0, 0.0);
        for (x, want) in [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (tiny, tiny), (-tiny, -tiny)] {
            check(&set.tanh, x, want);
            check(&set.erf, x, want);
        }
        for (x, want) in [(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (tiny, 0.5), (-f32::MAX, 0.0)] {
            check(&set.sigmoid, x, want);
        }
        for kernel in [&set.gelu_tanh, &set.gelu_erf, &set.silu] {
            for (x, want) in [(0.0, 0.0), (inf, inf), (-inf, 0.0), (f32::MAX, f32::MAX), (-f32::MAX, 0.0)] {
                check(kernel, x, want);
            }
        }
        for (x, want) in [(-1.0, 0.0), (2.0, 2.0), (inf, inf), (-inf, 0.0), (tiny, tiny), (-tiny, 0.0)] {
            check(&set.relu, x, want);
        }
    }
}

/// The value of a function of two arguments, and the error that a kernel may have.
fn expected(op: &str, a: f32, b: f32) -> (f64, f64) {
    let (x, y) = (f64::from(a), f64::from(b));
    // A function's ULPs, one an ULP's largest share of a value, and half a one of the product.
    let gated = |want: f64, tail: f64| (want, 3.5 * 2f64.powi(-23) * want.abs() + tail * y.abs());
    // Back: 8 · 2⁻²⁴ absolutely, or 12 of the value; and the product.
    let back = |slope: f64| (slope * y, 9.0 * 2f64.powi(-24) * y.abs());
    let relative = |slope: f64| (slope * y, 13.0 * 2f64.powi(-24) * (slope * y).abs());
    match op {
        "add" => (f64::from(a + b), 0.0),
        "mul" => (f64::from(a * b), 0.0),
        "swiglu" => gated(reference::swiglu(x, y), 0.0),
        "geglu" => gated(reference::geglu(x, y), 5e-8),
        "geglu_erf" => gated(reference::geglu_erf(x, y), 5e-8),
        "tanh_backward" => relative(reference::tanh_slope(x)),
        "sigmoid_backward" => relative(reference::sigmoid_slope(x)),
        "gelu_tanh_backward" => back(reference::gelu_tanh_slope(x)),
        "gelu_erf_backward" => back(reference::gelu_erf_slope(x)),
        "silu_backward" => back(reference::silu_slope(x)),
        "relu_backward" => (reference::relu_slope(x) * y, 0.0),
        op => panic!("{op} has no reference here"),
    }
}

#[test]
fn slopes_everywhere() {
    // All magnitudes, and closely where they bend.
    let x: Vec<f32> = (0..1 << 32)
        .step_by(500_009)
        .map(|bits: u64| f32::from_bits(bits as u32))
        .chain((-60_000..60_000).map(|i| i as f32 * 3.1e-4))
        .filter(|x| !x.is_nan())
        .collect();
    let dy = vec![1.0; x.len()];
    let mut dx = vec![0.0; x.len()];
    for set in sets() {
        for kernel in set.binary().into_iter().filter(|kernel| kernel.info.op.ends_with("_backward")) {
            kernel.apply(&x, &dy, &mut dx);
            for (&x, &got) in x.iter().zip(&dx) {
                let (want, bound) = expected(kernel.info.op, x, 1.0);
                let error = (f64::from(got) - want).abs();
                assert!(error <= bound + 1e-37, "{:?}({x:e}) = {got:e}, not {want:e}", kernel.info);
            }
            if kernel.info.op != "relu_backward" {
                kernel.apply_in_place(&mut [f32::NAN; 1], &[1.0]);
                let mut nan = [f32::NAN; 17];
                kernel.apply_in_place(&mut nan, &[1.0; 17]);
                assert!(nan.iter().all(|y| y.is_nan()), "{:?}", kernel.info);
            }
        }
    }
}

#[test]
fn gated_pairs_backwards() {
    for set in sets() {
        for n in lengths() {
            let (gate, up, dy) = (values(n), values(n + 7).split_off(7), values(n + 3).split_off(3));
            for (kernel, function, slope) in [
                (&set.swiglu_backward, &set.silu, &set.silu_backward),
                (&set.geglu_backward, &set.gelu_tanh, &set.gelu_tanh_backward),
                (&set.geglu_erf_backward, &set.gelu_erf, &set.gelu_erf_backward),
            ] {
                let (mut dgate, mut dup) = (guarded(3, n), guarded(1, n));
                kernel.apply(&gate, &up, &dy, &mut dgate[3..3 + n], &mut dup[1..1 + n]);
                assert_untouched(&dgate, 3, n);
                assert_untouched(&dup, 1, n);
                // The parts it is made of, to the bit.
                let mut want = gate.clone();
                function.apply_in_place(&mut want);
                set.mul.apply_in_place(&mut want, &dy);
                assert_eq!(bits(&want), bits(&dup[1..1 + n]), "{:?}", kernel.info);
                let mut slopes = vec![0.0; n];
                slope.apply(&gate, &vec![1.0; n], &mut slopes);
                let mut want = dy.clone();
                set.mul.apply_in_place(&mut want, &up);
                set.mul.apply_in_place(&mut want, &slopes);
                assert_eq!(bits(&want), bits(&dgate[3..3 + n]), "{:?}", kernel.info);
            }
        }
    }
}

#[test]
fn a_large_output_goes_past_the_caches_and_is_the_same() {
    let n = STREAM_BYTES / 4 + 21;
    let x: Vec<f32> = (0..n).map(|i| (i % 1009) as f32 * 0.01 - 5.0).collect();
    for set in sets() {
        for at in [0, 1, 5] {
            let mut y = guarded(at, n - at);
            set.relu.apply(&x[at..], &mut y[at..n]);
            assert_untouched(&y, at, n - at);
            let mut in_place = x[at..].to_vec();
            set.relu.apply_in_place(&mut in_place);
            assert!(bits(&y[at..n]) == bits(&in_place));
        }
    }
}

#[test]
fn functions_of_two_arguments() {
    for set in sets() {
        for n in lengths() {
            let (a, b) = (values(n), values(n + 7).split_off(7));
            for kernel in set.binary() {
                let mut y = guarded(3, n);
                kernel.apply(&a, &b, &mut y[3..3 + n]);
                assert_untouched(&y, 3, n);
                for ((&got, &a), &b) in y[3..].iter().zip(&a).zip(&b) {
                    let (want, bound) = expected(kernel.info.op, a, b);
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= bound, "{:?}({a}, {b}) = {got}, not {want}", kernel.info);
                }
                let mut in_place = a.clone();
                kernel.apply_in_place(&mut in_place, &b);
                assert_eq!(bits(&in_place), bits(&y[3..3 + n]));
            }
            let mut y = guarded(1, n);
            set.scale.apply(&a, -0.3, &mut y[1..1 + n]);
            assert_untouched(&y, 1, n);
            assert!(y[1..].iter().zip(&a).all(|(&y, &a)| y == -0.3 * a));
            let mut sum = guarded(2, n);
            sum[2..2 + n].copy_from_slice(&b);
            set.axpy.apply(-0.3, &a, &mut sum[2..2 + n]);
            assert_untouched(&sum, 2, n);
            let fused = set.axpy.info.isa != IsaId::Scalar;
            let axpy = |a: f32, b: f32| if fused { (-0.3f32).mul_add(a, b) } else { -0.3 * a + b };
            assert!(sum[2..].iter().zip(a.iter().zip(&b)).all(|(&y, (&a, &b))| y == axpy(a, b)));
            let mut in_place = a.clone();
            set.scale.apply_in_place(&mut in_place, -0.3);
            assert_eq!(bits(&in_place), bits(&y[1..1 + n]));
        }
    }
}

#[test]
fn every_level_lists_every_function_once() {
    let listed: Vec<KernelInfo> = kernels().collect();
    assert_eq!(listed.len(), LEVELS * 24);
    for info in &listed {
        assert_eq!(listed.iter().filter(|other| *other == info).count(), 1, "{info:?}");
    }
}

#[test]
fn a_level_gets_its_own_kernels_or_the_next_lower() {
    for isa in IsaId::available() {
        let got = UnaryKernels::select(isa).exp.info.isa;
        let want = match isa {
            IsaId::AvxVnni => IsaId::Avx2,
            IsaId::Avx512Vnni | IsaId::Avx512Bf16 | IsaId::Amx => IsaId::Avx512,
            IsaId::NeonDotprod | IsaId::NeonBf16 => IsaId::Neon,
            own => own,
        };
        assert_eq!(got, want);
    }
}
