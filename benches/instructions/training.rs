//! The kernels of a training step that are counted.

use smallmind::kernels::KernelSet;
use smallmind::kernels::backward::attention::{AttentionGradients, AttentionShape, AttentionValues};
use smallmind::kernels::backward::{AdamWConfig, AdamWStep, BackwardKernels, NormRows, SgdStep};
use smallmind::memory::AlignedBuf;

use super::{Case, ELEMENTS, case, floats};

/// Rows of those that have some.
const ROWS: usize = 4;

/// Every kernel of the family.
pub fn kernels(kernels: &KernelSet) -> Vec<Case> {
    let set = *kernels.backward();
    let mut cases = vec![adamw(set), sgd(set), squares(set), cross_entropy(set), column_sums(set)];
    cases.extend([false, true].into_iter().flat_map(|layer| norms(set, layer)));
    cases.extend([false, true].map(|causal| attention(set, causal)));
    cases
}

fn adamw(set: BackwardKernels) -> Case {
    let step = AdamWStep::new(&AdamWConfig::default(), 1e-3, 10, 0.5);
    let [mut w, g, mut m, mut v] = [0; 4].map(|_| floats(ELEMENTS));
    v.as_mut_slice::<f32>().iter_mut().for_each(|v| *v = v.abs());
    case(format!("backward/adamw/{ELEMENTS}"), move || {
        let (w, g, m, v) = (w.as_mut_slice(), g.as_slice(), m.as_mut_slice(), v.as_mut_slice());
        set.adamw.apply(&step, w, g, m, v).expect("one length");
    })
}

fn sgd(set: BackwardKernels) -> Case {
    let step = SgdStep { lr: 1e-3, momentum: 0.9, weight_decay: 0.01, nesterov: false, grad_scale: 0.5 };
    let [mut w, g, mut b] = [0; 3].map(|_| floats(ELEMENTS));
    case(format!("backward/sgd/{ELEMENTS}"), move || {
        set.sgd.apply(&step, w.as_mut_slice(), g.as_slice(), b.as_mut_slice()).expect("one length");
    })
}

fn squares(set: BackwardKernels) -> Case {
    let n = 10 * ELEMENTS;
    let x = floats(n);
    case(format!("backward/sum_of_squares/{n}"), move || {
        set.sum_of_squares.apply(x.as_slice(), &mut [0.0]).expect("one block");
    })
}

fn cross_entropy(set: BackwardKernels) -> Case {
    let cols = 5 * ELEMENTS;
    let mut logits = floats(2 * cols);
    case(format!("backward/cross_entropy/2x{cols}"), move || {
        let targets = [7, cols as u32 - 1];
        set.cross_entropy.apply(logits.as_mut_slice(), cols, &targets, 0.5, &mut [0.0; 2]).expect("two rows");
    })
}

fn column_sums(set: BackwardKernels) -> Case {
    let (dy, mut out) = (floats(ROWS * ELEMENTS), floats(ELEMENTS));
    case(format!("backward/column_sums/{ROWS}x{ELEMENTS}"), move || {
        set.column_sums.apply(dy.as_slice(), out.as_mut_slice()).expect("whole rows");
    })
}

fn normed<'a>(x: &'a AlignedBuf, dy: &'a AlignedBuf, layer: bool) -> NormRows<'a> {
    let (mean, rstd): (&[f32], _) = (if layer { &[0.5; ROWS] } else { &[] }, &[0.5; ROWS]);
    NormRows { x: x.as_slice(), dy: dy.as_slice(), cols: ELEMENTS, mean, rstd }
}

/// What flows back through a norm, and the gradients of its vectors.
fn norms(set: BackwardKernels, layer: bool) -> [Case; 2] {
    let name = if layer { "layer_norm" } else { "rms_norm" };
    let shape = format!("{ROWS}x{ELEMENTS}");
    let rows = || [floats(ROWS * ELEMENTS), floats(ROWS * ELEMENTS)];
    let ([x, dy], [mut dx, gamma]) = (rows(), rows());
    let input = case(format!("backward/{name}/{shape}"), move || {
        let kernel = if layer { set.layer_norm } else { set.rms_norm };
        let gamma = Some(&gamma.as_slice()[..ELEMENTS]);
        kernel.apply(&normed(&x, &dy, layer), gamma, dx.as_mut_slice(), false).expect("whole rows");
    });
    let ([x, dy], mut dgamma, mut dbeta) = (rows(), floats(ELEMENTS), floats(ELEMENTS));
    let gain = case(format!("backward/{name}_gain/{shape}"), move || {
        let kernel = if layer { set.layer_norm_gain } else { set.rms_norm_gain };
        let dbeta = layer.then_some(dbeta.as_mut_slice());
        kernel.apply(&normed(&x, &dy, layer), dgamma.as_mut_slice(), dbeta).expect("whole rows");
    });
    [input, gain]
}

/// Two query heads that share one key/value head.
fn attention(set: BackwardKernels, causal: bool) -> Case {
    let shape = AttentionShape { tokens: 150, n_head: 2, n_head_kv: 1, head_dim: 64, scale: 0.125, causal };
    let (query, key) = (150 * 2 * 64, 150 * 64);
    let [q, o, d_o, mut dq] = [query; 4].map(floats);
    let [k, v, mut dk, mut dv] = [key; 4].map(floats);
    let lse = vec![5.0; 150 * 2];
    let mut scratch = floats(set.attention.scratch_len(150, 2, 64).expect("small"));
    let mask = if causal { "causal" } else { "full" };
    case(format!("backward/attention/{mask}/150x2x64"), move || {
        let (q, k, v, o, d_o) = (q.as_slice(), k.as_slice(), v.as_slice(), o.as_slice(), d_o.as_slice());
        let values = AttentionValues { q, k, v, o, d_o, lse: &lse };
        let (dq, dk, dv) = (dq.as_mut_slice(), dk.as_mut_slice(), dv.as_mut_slice());
        let gradients = AttentionGradients { dq, dk, dv };
        set.attention.apply(&shape, &values, gradients, scratch.as_mut_slice()).expect("the shapes fit");
    })
}
