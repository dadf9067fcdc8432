//! Elementwise kernels on every level of this CPU: lengths, alignment, in place, special values.
//! How exact the functions are over all f32 is `tests/ulp.rs`'s matter.

use super::*;
use crate::kernels::reference;

const CANARY: f32 = -7777.0;

fn sets() -> impl Iterator<Item = Set> {
    IsaId::available().map(Set::select)
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
                    let (wide_a, wide_b) = (f64::from(a), f64::from(b));
                    // Sums and products round once. The others: 3 ULP of the function, or 5e-8 in GELU's tail,
                    // times b, and half an ULP of the product; an ULP is at most 2⁻²³ of a value.
                    let (want, bound) = match kernel.info.op {
                        "add" => (f64::from(a + b), 0.0),
                        "mul" => (f64::from(a * b), 0.0),
                        "swiglu" => (reference::swiglu(wide_a, wide_b), 0.0),
                        "geglu" => (reference::geglu(wide_a, wide_b), 5e-8 * wide_b.abs()),
                        op => panic!("{op} has no reference here"),
                    };
                    let exact = matches!(kernel.info.op, "add" | "mul");
                    let relative = if exact { 0.0 } else { 3.5 * 2f64.powi(-23) * want.abs() };
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= bound + relative, "{:?}({a}, {b}) = {got}, not {want}", kernel.info);
                }
                let mut in_place = a.clone();
                kernel.apply_in_place(&mut in_place, &b);
                assert_eq!(bits(&in_place), bits(&y[3..3 + n]));
            }
            let mut y = guarded(1, n);
            set.scale.apply(&a, -0.3, &mut y[1..1 + n]);
            assert_untouched(&y, 1, n);
            assert!(y[1..].iter().zip(&a).all(|(&y, &a)| y == -0.3 * a));
            let mut in_place = a.clone();
            set.scale.apply_in_place(&mut in_place, -0.3);
            assert_eq!(bits(&in_place), bits(&y[1..1 + n]));
        }
    }
}

#[test]
fn every_level_lists_every_function_once() {
    let levels = levels::all::<Set>().len();
    let listed: Vec<KernelInfo> = rows().collect();
    assert_eq!(listed.len(), levels * 13);
    for info in &listed {
        assert_eq!(listed.iter().filter(|other| *other == info).count(), 1, "{info:?}");
    }
}

#[test]
fn a_level_gets_its_own_kernels_or_the_next_lower() {
    for isa in IsaId::available() {
        let got = Set::select(isa).exp.info.isa;
        let want = match isa {
            IsaId::Avx512Vnni | IsaId::Avx512Bf16 | IsaId::Amx => IsaId::Avx512,
            IsaId::NeonDotprod | IsaId::NeonBf16 => IsaId::Neon,
            own => own,
        };
        assert_eq!(got, want);
    }
}
