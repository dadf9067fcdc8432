//! Every operation of every level this CPU has, lane by lane, against plain Rust.
//! Inputs are all pairs of values where rounding, signs, denormals, infinities and NaN matter.

use super::*;
use half::{bf16, f16};

const CANARY: f32 = -7777.0;

const VALUES: [f32; 32] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.4999998,
    0.1,
    -0.3,
    8388607.5,
    8388609.0,
    -16777216.0,
    2.0e9,
    -2.0e9,
    1.0e-40,
    -1.0e-45,
    f32::MIN_POSITIVE,
    f32::EPSILON,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.0e30,
    -1.0e-30,
    std::f32::consts::PI,
    -std::f32::consts::E,
    88.7,
    -103.9,
];

/// Same bits, or both NaN: which NaN comes out is not promised.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// 2^n in f64, exact over the range used here.
fn exp2(n: f32) -> f64 {
    f64::from(n).exp2()
}

/// The first vector of a slice.
fn vector<I: Isa>(isa: I, x: &[f32]) -> I::F32 {
    let mut first = [0.0; 16];
    first[..I::LANES].copy_from_slice(&x[..I::LANES]);
    isa.first_of(&first)
}

/// A vector's lanes.
fn lanes<I: Isa>(isa: I, x: I::F32) -> Vec<f32> {
    isa.lanes(x)[..I::LANES].to_vec()
}

/// The first vector of a slice of integers.
fn integers<I: Isa>(isa: I, x: &[i32]) -> I::I32 {
    isa.to_bits(vector(isa, &x.iter().map(|&x| f32::from_bits(x as u32)).collect::<Vec<_>>()))
}

/// The lanes of a vector of integers.
fn integer_lanes<I: Isa>(isa: I, x: I::I32) -> Vec<i32> {
    lanes(isa, isa.from_bits(x)).into_iter().map(|x| x.to_bits() as i32).collect()
}

struct Floats;

impl SimdBody for Floats {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let lanes = |x: I::F32| lanes(isa, x);
        let check = |name: &str, got: I::F32, want: &dyn Fn(usize) -> f32| {
            for (i, got) in lanes(got).into_iter().enumerate() {
                assert!(same(got, want(i)), "{}: {name} lane {i}: {got} for {}", I::ID.name(), want(i));
            }
        };
        let n = VALUES.len();
        // Three cyclic walks of different strides meet every pair, and many triples.
        for shift in 0..n {
            for start in (0..n).step_by(I::LANES) {
                let pick = |from: usize, by: usize| -> Vec<f32> {
                    (0..I::LANES).map(|i| VALUES[(from + i * by) % n]).collect()
                };
                let (a, b, c) = (pick(start, 1), pick(start + shift, 1), pick(start * 3 + shift, 5));
                let (va, vb, vc) = (vector(isa, &a), vector(isa, &b), vector(isa, &c));
                check("add", isa.add(va, vb), &|i| a[i] + b[i]);
                check("sub", isa.sub(va, vb), &|i| a[i] - b[i]);
                check("mul", isa.mul(va, vb), &|i| a[i] * b[i]);
                check("div", isa.div(va, vb), &|i| a[i] / b[i]);
                check("min", isa.min(va, vb), &|i| if a[i] < b[i] { a[i] } else { b[i] });
                check("max", isa.max(va, vb), &|i| if a[i] > b[i] { a[i] } else { b[i] });
                check("sqrt", isa.sqrt(va), &|i| a[i].sqrt());
                check("round", isa.round(va), &|i| a[i].round_ties_even());
                check("abs", isa.abs(va), &|i| a[i].abs());
                check("copysign", isa.copysign(va, vb), &|i| a[i].copysign(b[i]));
                check("lt", isa.select(isa.lt(va, vb), va, vc), &|i| if a[i] < b[i] { a[i] } else { c[i] });
                check("eq", isa.select(isa.eq(va, vb), va, vc), &|i| if a[i] == b[i] { a[i] } else { c[i] });
                check("swap_pairs", isa.swap_pairs(va), &|i| a[i ^ 1]);
                check("dup_pairs", isa.dup_pairs(va), &|i| a[i / 2]);
                check("bits", isa.from_bits(isa.to_bits(va)), &|i| a[i]);
                let fused = I::ID != IsaId::Scalar;
                check("mul_add", isa.mul_add(va, vb, vc), &|i| {
                    if fused { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] }
                });
                check("neg_mul_add", isa.neg_mul_add(va, vb, vc), &|i| {
                    if fused { (-a[i]).mul_add(b[i], c[i]) } else { c[i] - a[i] * b[i] }
                });
                for exponent in
                    [-300.0, -252.0, -150.0, -140.0, -127.0, -126.0, -3.0, 0.0, 5.0, 127.0, 128.0, 254.0]
                {
                    // The f64 product is exact, so converting it rounds once.
                    if exponent == -300.0 && a.iter().any(|a| a.abs() > 1.0e30) {
                        continue;
                    }
                    check("scale_exp2", isa.scale_exp2(va, isa.splat(exponent)), &|i| {
                        (f64::from(a[i]) * exp2(exponent)) as f32
                    });
                }
                for exponent in [-300.0, -252.0, -150.0, -128.0, -127.0, -126.0, -3.0, 0.0, 5.0, 127.0] {
                    let one = isa.splat(1.25);
                    let exact = (1.25 * exp2(exponent)) as f32;
                    let got = isa.scale_exp2_flushed(one, isa.splat(exponent));
                    let flushed = exact < f32::MIN_POSITIVE && lanes(got)[0] == 0.0;
                    check("scale_exp2_flushed", got, &|_| if flushed { 0.0 } else { exact });
                }
                if a.iter().all(|a| a.abs() < 2.1e9) {
                    check("to_i32", isa.to_f32(isa.to_i32(va)), &|i| a[i].round_ties_even() as i32 as f32);
                }
                let halves = |mut x: Vec<f32>| {
                    while x.len() > 1 {
                        let upper = x.split_off(x.len() / 2);
                        x.iter_mut().zip(upper).for_each(|(x, y)| *x += y);
                    }
                    x[0]
                };
                assert!(same(isa.sum_lanes(va), halves(a.clone())), "{}: sum of {a:?}", I::ID.name());
                if a.iter().all(|a| !a.is_nan()) {
                    let largest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    assert_eq!(isa.max_lanes(va), largest, "{}: max of {a:?}", I::ID.name());
                }
            }
        }
        check("splat", isa.splat(SAMPLE), &|_| SAMPLE);
        check("zero", isa.zero(), &|_| 0.0);
    }
}

const SAMPLE: f32 = 3.25;

/// Operations with a default that a level may replace, and stores past the caches.
struct Special;

impl SimdBody for Special {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let lanes = |x: I::F32| lanes(isa, x);
        let name = I::ID.name();
        for x in VALUES {
            let clamped = lanes(isa.negated_clamp(isa.splat(x), 7.5))[0];
            let right =
                clamped == -x.abs().min(7.5) || (x.is_nan() && (clamped.is_nan() || clamped.abs() <= 7.5));
            assert!(right, "{name}: negated_clamp({x}) = {clamped}");
        }
        for n in -127..=127 {
            let want = if n == -127 { 0.0 } else { exp2(n as f32) };
            let got = f64::from(lanes(isa.exp2_integral(isa.splat(n as f32)))[0]);
            assert!(got == want, "{name}: 2^{n} = {got}");
        }
        let table: [f32; 32] = std::array::from_fn(|i| i as f32 + 0.25);
        for first in [0, 5, 29, 31, 32 + 7, -3] {
            let index = isa.add_i32(isa.splat_i32(first), isa.to_i32(isa.splat(0.0)));
            let got = lanes(isa.lookup(&table, index))[0];
            assert_eq!(got, (first & 31) as f32 + 0.25, "{name}: lookup {first}");
        }
        let n = I::LANES;
        // A vector on its own cache line.
        let mut line = [CANARY; 64];
        let at = line.as_ptr().align_offset(64);
        // SAFETY: 16 floats from `at` are inside, aligned.
        unsafe { isa.stream(line[at..].as_mut_ptr(), isa.splat(2.0)) };
        isa.fence();
        assert!(line[at..at + n].iter().all(|&x| x == 2.0) && line[at + n] == CANARY, "{name}: stream");
    }
}

#[test]
fn special_operations_on_every_level() {
    IsaId::available().for_each(|isa| isa.run(Special).unwrap());
}

struct Integers;

impl SimdBody for Integers {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let lanes = |x: I::I32| integer_lanes(isa, x);
        let seeds = [0, 1, -1, 127, -128, 255, i32::MAX, i32::MIN, 0x1234_5678, -0x0fed_cba9];
        for shift in 0..seeds.len() {
            let a: Vec<i32> = (0..I::LANES).map(|i| seeds[i % seeds.len()].wrapping_add(i as i32)).collect();
            let b: Vec<i32> = (0..I::LANES).map(|i| seeds[(i * 3 + shift) % seeds.len()]).collect();
            let (va, vb) = (integers(isa, &a), integers(isa, &b));
            let check = |name: &str, got: I::I32, want: &dyn Fn(i32, i32) -> i32| {
                let want: Vec<i32> = a.iter().zip(&b).map(|(&a, &b)| want(a, b)).collect();
                assert_eq!(lanes(got), want, "{}: {name}", I::ID.name());
            };
            check("add", isa.add_i32(va, vb), &i32::wrapping_add);
            check("sub", isa.sub_i32(va, vb), &i32::wrapping_sub);
            check("and", isa.and(va, vb), &|a, b| a & b);
            check("or", isa.or(va, vb), &|a, b| a | b);
            check("xor", isa.xor(va, vb), &|a, b| a ^ b);
            check("shl", isa.shl::<23>(va), &|a, _| a << 23);
            check("shr", isa.shr::<5>(va), &|a, _| a >> 5);
            check("splat", isa.splat_i32(-9), &|_, _| -9);
            check("to_f32", isa.to_bits(isa.to_f32(va)), &|a, _| (a as f32).to_bits() as i32);
            assert_eq!(isa.sum_lanes_i32(va), a.iter().fold(0, |s: i32, x| s.wrapping_add(*x)));
        }
        let bytes: Vec<i8> = (0..I::LANES).map(|i| (i as i8).wrapping_mul(37).wrapping_add(-128)).collect();
        let mut back = vec![99i8; I::LANES + 1];
        // SAFETY: `bytes` and `back` hold LANES bytes.
        let wide = unsafe {
            let wide = isa.load_i8(bytes.as_ptr());
            isa.store_i8(back.as_mut_ptr(), wide);
            wide
        };
        assert_eq!(lanes(wide), bytes.iter().map(|&b| i32::from(b)).collect::<Vec<_>>(), "{}", I::ID.name());
        assert_eq!(back[..I::LANES], bytes);
        assert_eq!(back[I::LANES], 99, "{}: a byte past the vector", I::ID.name());
    }
}

struct Memory;

impl SimdBody for Memory {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for offset in 0..3 {
            for n in 0..=I::LANES {
                // Exactly n floats are readable; a sanitizer or the allocator's end sees a longer read.
                let source: Vec<f32> = (0..offset + n).map(|i| i as f32 + 0.5).collect();
                let mut target = vec![CANARY; offset + I::LANES + 1];
                // SAFETY: n floats from `offset` are readable, and as many writable.
                let x = unsafe {
                    let x = isa.load_first(source.as_ptr().add(offset), n);
                    isa.store_first(target.as_mut_ptr().add(offset), x, n);
                    x
                };
                assert_eq!(target[offset..offset + n], source[offset..], "{}", I::ID.name());
                assert!(target[..offset].iter().chain(&target[offset + n..]).all(|&x| x == CANARY));
                let whole = lanes(isa, x);
                assert!(whole[n..].iter().all(|&x| x == 0.0), "{}: rest is not 0", I::ID.name());
            }
        }
    }
}

struct Halves;

impl SimdBody for Halves {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for base in (0..=u16::MAX).step_by(I::LANES) {
            let bits: Vec<u16> = (0..I::LANES as u16).map(|i| base + i).collect();
            // SAFETY: `bits` holds LANES elements.
            let (half, brain) =
                unsafe { (isa.load_f16(bits.as_ptr()), isa.load_16(Float16::Brain, bits.as_ptr())) };
            for (&bits, out) in bits.iter().zip(lanes(isa, half)) {
                assert!(same(out, f16::from_bits(bits).to_f32_const()), "{}: f16 {bits:#x}", I::ID.name());
            }
            for (&bits, out) in bits.iter().zip(lanes(isa, brain)) {
                assert!(same(out, bf16::from_bits(bits).to_f32_const()), "{}: bf16 {bits:#x}", I::ID.name());
            }
        }
    }
}

struct Transposed;

impl SimdBody for Transposed {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // Odd strides, and canaries in the gaps.
        let (from, to) = (I::LANES + 3, I::LANES + 5);
        let src: Vec<f32> = (0..I::LANES * from).map(|i| i as f32).collect();
        for twice in [false, true] {
            let mut dst = vec![CANARY; I::LANES * to];
            // SAFETY: both hold LANES rows.
            unsafe {
                isa.columns(src.as_ptr(), from, twice, &mut Stored { dst: dst.as_mut_ptr(), stride: to })
            };
            for (j, row) in dst.chunks_exact(to).enumerate() {
                let want = (0..to).map(|i| if i < I::LANES { src[i * from + j] } else { CANARY });
                assert!(row.iter().copied().eq(want), "{}: row {j} is {row:?}", I::ID.name());
            }
        }
    }
}

#[test]
fn blocks_are_transposed_on_every_level() {
    IsaId::available().for_each(|isa| isa.run(Transposed).unwrap());
}

#[test]
fn floats_on_every_level() {
    IsaId::available().for_each(|isa| isa.run(Floats).unwrap());
}

#[test]
fn integers_on_every_level() {
    IsaId::available().for_each(|isa| isa.run(Integers).unwrap());
}

#[test]
fn partial_vectors_stay_inside_their_memory() {
    IsaId::available().for_each(|isa| isa.run(Memory).unwrap());
}

#[test]
fn all_half_floats_widen_exactly() {
    IsaId::available().for_each(|isa| isa.run(Halves).unwrap());
}

#[test]
fn levels_have_names_an_order_and_a_best() {
    assert_eq!(IsaId::available().next(), Some(IsaId::Scalar));
    assert!(IsaId::ALL.is_sorted());
    for isa in IsaId::available() {
        assert_eq!(IsaId::parse(isa.name()).unwrap(), isa);
        assert!(isa <= IsaId::detect());
    }
    for isa in IsaId::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let error = IsaId::parse(isa.name()).unwrap_err().to_string();
        assert!(error.contains(isa.name()) && error.contains("scalar"), "{error}");
    }
}

/// The instructions that each level needs, by their names in CPUID and in Linux.
fn features(isa: IsaId) -> Vec<&'static str> {
    let with = |below, more: &[&'static str]| [features(below), more.to_vec()].concat();
    match isa {
        IsaId::Scalar => Vec::new(),
        IsaId::Avx2 => vec!["avx", "avx2", "fma", "f16c"],
        IsaId::AvxVnni => with(IsaId::Avx2, &["avxvnni"]),
        IsaId::Avx512 => with(IsaId::Avx2, &["avx512f", "avx512bw", "avx512dq", "avx512vl"]),
        IsaId::Avx512Vnni => with(IsaId::Avx512, &["avx512vnni"]),
        IsaId::Avx512Bf16 => with(IsaId::Avx512Vnni, &["avx512bf16"]),
        IsaId::Amx => with(IsaId::Avx512Bf16, &["amx-tile", "amx-bf16", "amx-int8"]),
        IsaId::Neon => vec!["neon"],
        IsaId::NeonDotprod => with(IsaId::Neon, &["dotprod"]),
        IsaId::NeonBf16 => with(IsaId::NeonDotprod, &["bf16"]),
    }
}

/// A level includes another one exactly where it needs all of its instructions; a level that includes another is
/// higher, and available only with it.
#[test]
fn a_level_includes_those_whose_instructions_it_has() {
    for isa in IsaId::ALL {
        for other in IsaId::ALL {
            let needed = features(other);
            let includes = needed.iter().all(|feature| features(isa).contains(feature));
            assert_eq!(isa.includes(other), includes, "{isa:?} includes {other:?}");
            assert!(!includes || other <= isa, "{isa:?} is below {other:?}");
            assert!(!includes || !isa.is_available() || other.is_available(), "{isa:?} without {other:?}");
        }
    }
    assert!(!IsaId::Avx512.includes(IsaId::AvxVnni) && IsaId::AvxVnni < IsaId::Avx512);
}
