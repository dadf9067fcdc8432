//! Conversions on every level against the `half` crate: all 16-bit values, every rounding edge, lengths, canaries.

use super::*;
use half::{bf16, f16};

/// For each 16-bit value: itself, the points half-way to its neighbour, and the nearest numbers to these.
fn edges(widen: fn(u16) -> f32) -> Vec<f32> {
    let near = |x: f32| [-1i64, 0, 1].map(|d| f32::from_bits((i64::from(x.to_bits()) + d).max(0) as u32));
    let mut all = Vec::new();
    for bits in 0..=u16::MAX {
        let (x, next) = (widen(bits), widen(bits.wrapping_add(1)));
        all.push(x);
        if x.is_finite() && next.is_finite() {
            all.extend(near(((f64::from(x) + f64::from(next)) / 2.0) as f32));
        }
    }
    all.extend([
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        65519.99,
        65520.0,
        1e-45,
        -1e-45,
        f32::from_bits(0x7f80_0001),
    ]);
    all.extend([f32::from_bits(0xffff_ffff), f32::from_bits(0x7fff_8000), f32::from_bits(0x7f7f_8000)]);
    all
}

#[test]
fn narrowing_rounds_to_nearest_even() {
    let half = |x: f32| f16::from_f32_const(x).to_bits();
    let brain = |x: f32| bf16::from_f32_const(x).to_bits();
    let f16_edges = edges(|bits| f16::from_bits(bits).to_f32_const());
    let bf16_edges = edges(|bits| bf16::from_bits(bits).to_f32_const());
    for isa in levels::here() {
        let set = ConvertKernels::select(isa);
        let mut out = vec![0; f16_edges.len()];
        set.to_f16.apply(&f16_edges, &mut out);
        for (&x, &got) in f16_edges.iter().zip(&out) {
            let same = got == half(x) || (x.is_nan() && f16::from_bits(got).is_nan());
            assert!(same, "{isa:?}: {x:e} to f16 {got:#x}, not {:#x}", half(x));
        }
        let mut out = vec![0; bf16_edges.len()];
        set.to_bf16.apply(&bf16_edges, &mut out);
        for (&x, &got) in bf16_edges.iter().zip(&out) {
            let same = got == brain(x) || (x.is_nan() && bf16::from_bits(got).is_nan());
            assert!(same, "{isa:?}: {x:e} to bf16 {got:#x}, not {:#x}", brain(x));
        }
    }
}

#[test]
fn widening_is_exact() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut out = vec![0.0; all.len()];
    for isa in levels::here() {
        let set = ConvertKernels::select(isa);
        let same = |got: f32, want: f32| got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
        set.from_f16.apply(&all, &mut out);
        assert!(
            all.iter().zip(&out).all(|(&b, &got)| same(got, f16::from_bits(b).to_f32_const())),
            "{isa:?}"
        );
        set.from_bf16.apply(&all, &mut out);
        assert!(
            all.iter().zip(&out).all(|(&b, &got)| same(got, bf16::from_bits(b).to_f32_const())),
            "{isa:?}"
        );
    }
}

#[test]
fn nothing_is_written_past_the_end() {
    for isa in levels::here() {
        let set = ConvertKernels::select(isa);
        for n in 0..70 {
            for at in 0..3 {
                let x: Vec<f32> = (0..n + at).map(|i| i as f32 - 5.5).collect();
                let mut narrow = vec![0x7777u16; n + at + 20];
                set.to_bf16.apply(&x[at..], &mut narrow[at..at + n]);
                assert!(narrow[..at].iter().chain(&narrow[at + n..]).all(|&y| y == 0x7777));
                let mut wide = vec![-7777.0f32; n + at + 20];
                set.from_bf16.apply(&narrow[at..at + n], &mut wide[at..at + n]);
                assert!(wide[..at].iter().chain(&wide[at + n..]).all(|&y| y == -7777.0));
                assert_eq!(wide[at..at + n], x[at..], "small halves are exact");
            }
        }
    }
}

#[test]
fn every_level_lists_every_conversion_once() {
    let listed: Vec<KernelInfo> = kernels().collect();
    assert_eq!(listed.len(), 4 * LEVELS);
    assert!(listed.iter().all(|info| listed.iter().filter(|other| *other == info).count() == 1));
}
