//! The fused kernels give the bits of their two steps one after the other, at any address, and write nothing else.

use super::tests::{UNTOUCHED, quantize};
use super::*;
use crate::isa::IsaId;
use crate::kernels::rows::{self, Affine};
use crate::kernels::unary;
use crate::testing::noise;

/// Rows with every kind of number: small and large blocks, zeros, one NaN and one infinity far apart.
fn rows_of(rows: usize, k: usize, strange: bool) -> Vec<f32> {
    let mut state = 1u64;
    let mut x: Vec<f32> = (0..rows * k)
        .map(|i| {
            let scale = [1.0, 1e-3, 30.0, 0.0, 1e-42][i / 32 % 5];
            noise(&mut state) * scale
        })
        .collect();
    if strange {
        let n = x.len();
        for (at, value) in [(n / 3, f32::NAN), (n / 2, f32::INFINITY), (n - 1, f32::NEG_INFINITY)] {
            x[at] = value;
        }
        x[0] = -0.0;
    }
    x
}

/// Quantised rows, `pad` bytes apart and behind an odd address, between canaries.
struct Out {
    bytes: Vec<u8>,
    stride: usize,
    row: usize,
}

const CANARY: u8 = 0xa5;

impl Out {
    fn new(rows: usize, row: usize, pad: usize) -> Out {
        Out { bytes: vec![CANARY; 1 + rows * (row + pad)], stride: row + pad, row }
    }

    fn ptr(&mut self) -> *mut u8 {
        self.bytes[1..].as_mut_ptr()
    }

    /// Rows side by side; everything else is untouched.
    fn rows(&self, bytes_written: usize) -> Vec<u8> {
        assert_eq!(self.bytes[0], CANARY);
        let mut all = Vec::new();
        for row in self.bytes[1..].chunks(self.stride) {
            assert!(row[bytes_written..].iter().all(|&b| b == CANARY));
            all.extend_from_slice(&row[..bytes_written]);
            all.resize(all.len().next_multiple_of(self.row), UNTOUCHED);
        }
        all
    }
}

/// Bytes of a quantised row without its padding.
fn used(set: &QmatmulKernels, k: usize) -> usize {
    let bytes = set.activations().bytes();
    k * bytes + k / 32 * 16 * (1 + bytes)
}

fn each_set(mut test: impl FnMut(IsaId, QmatmulKernels)) {
    for isa in IsaId::available() {
        for mode in Activations::ALL {
            test(isa, QmatmulKernels::select(isa).with_activations(mode));
        }
    }
}

const SHAPES: [(usize, usize); 7] = [(0, 32), (1, 32), (1, 576), (3, 64), (5, 96), (9, 160), (2, 1536)];

#[test]
fn a_norm_and_its_quantisation_are_the_two_steps() {
    each_set(|isa, set| {
        let norm = rows::RowKernels::select(isa).rms_norm;
        for ((rows, k), strange) in
            SHAPES.into_iter().flat_map(|shape| [(shape, false), (shape, shape.0 > 0)])
        {
            let (x, gamma) = (rows_of(rows, k, strange), rows_of(1, k, false));
            let mut normed = vec![0.0; x.len()];
            let affine = Affine { gamma: Some(&gamma), beta: None, eps: 1e-5 };
            norm.apply(&x, &mut normed, k, affine).unwrap();
            let wanted = quantize(&set, &normed, k);
            // An input behind an odd float, with a gap between rows.
            let stride = k + 3;
            let mut spread = vec![f32::NAN; 1 + rows * stride];
            for (r, row) in x.chunks(k).enumerate() {
                spread[1 + r * stride..][..k].copy_from_slice(row);
            }
            let mut out = Out::new(rows, set.row_bytes(k), 7);
            let args = NormQuantizeArgs {
                x: spread[1..].as_ptr(),
                x_stride: stride,
                gamma: gamma.as_ptr(),
                eps: 1e-5,
                rows,
                k,
                out: out.ptr(),
                out_stride: out.stride,
            };
            // SAFETY: the rows were just made.
            unsafe { set.norm_quantize(&args) };
            assert!(out.rows(used(&set, k)) == wanted, "{isa:?} {rows}×{k}");
        }
    });
}

#[test]
fn a_gate_and_its_quantisation_are_the_two_steps() {
    each_set(|isa, set| {
        let swiglu = unary::UnaryKernels::select(isa).swiglu;
        for (rows, k) in SHAPES {
            let (gate, mut up) = (rows_of(rows, k, rows > 1), rows_of(rows, k, false));
            up.reverse();
            let mut gated = vec![0.0; gate.len()];
            swiglu.apply(&gate, &up, &mut gated);
            let wanted = quantize(&set, &gated, k);
            // Side by side, as a step's scratch has them.
            let stride = 2 * k + 1;
            let mut pairs = vec![f32::NAN; 1 + rows * stride];
            for r in 0..rows {
                pairs[1 + r * stride..][..k].copy_from_slice(&gate[r * k..][..k]);
                pairs[1 + r * stride + k..][..k].copy_from_slice(&up[r * k..][..k]);
            }
            let first = pairs[1..].as_ptr();
            let function = |begin| BlockFunction::SiluGate(first.wrapping_add(k + begin));
            let got = in_two_runs(&set, (first, stride), (rows, k), function);
            assert!(got == wanted, "{isa:?} {rows}×{k}");
        }
    });
}

/// Results of a function of rows, `stride` floats apart, quantised in two runs of blocks, as two workers would. The
/// function of a run is that of its first column.
fn in_two_runs(
    set: &QmatmulKernels,
    (first, stride): (*const f32, usize),
    (rows, k): (usize, usize),
    function: impl Fn(usize) -> BlockFunction,
) -> Vec<u8> {
    let mut out = Out::new(rows, set.row_bytes(k), 5);
    let cut = k / 64 * 32;
    for (begin, end) in [(cut, k), (0, cut)] {
        let args = BlocksArgs {
            x: first.wrapping_add(begin),
            stride,
            rows,
            len: end - begin,
            out: out.ptr(),
            out_stride: out.stride,
            k,
            block: begin / 32,
        };
        // SAFETY: the callers have just made rows of `k` floats, and factors where there is a gate; `out` has room.
        unsafe { set.quantize_blocks(&args, function(begin)) };
    }
    out.rows(used(set, k))
}

#[test]
fn a_gelu_and_its_quantisation_are_the_two_steps() {
    each_set(|isa, set| {
        let gelu = unary::UnaryKernels::select(isa).gelu_tanh;
        for (rows, k) in SHAPES {
            let x = rows_of(rows, k, rows > 1);
            let mut activated = vec![0.0; x.len()];
            gelu.apply(&x, &mut activated);
            let wanted = quantize(&set, &activated, k);
            let got = in_two_runs(&set, (x.as_ptr(), k), (rows, k), |_| BlockFunction::Gelu);
            assert!(got == wanted, "{isa:?} {rows}×{k}");
        }
    });
}

#[test]
fn runs_of_blocks_are_quantised_as_rows_are() {
    each_set(|isa, set| {
        for (rows, k) in SHAPES {
            let x = rows_of(rows, k, rows > 1);
            let got = in_two_runs(&set, (x.as_ptr(), k), (rows, k), |_| BlockFunction::Identity);
            assert!(got == quantize(&set, &x, k), "{isa:?} {rows}×{k}");
        }
    });
}
