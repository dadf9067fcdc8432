//! Each family's model with a fault: a tensor too few, one too many, one of another shape. Each is refused by the
//! tensor's name before any weight is read. The models are those of `tests/goldens/families`, without weights.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::families::{Family, Tensor, names};
use crate::common::gguf_writer::{F32, Writer};
use smallmind::format::ByteSource;
use smallmind::model::{LoadParams, Model};
use smallmind::{Error, Result};

/// A file whose header is there and whose weights are ones that take no memory.
struct Hollow {
    header: Vec<u8>,
    len: u64,
}

impl Hollow {
    fn new(family: &Family) -> Self {
        let mut writer =
            family.pairs.iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        let mut end = 0u64;
        for tensor in &family.tensors {
            let start = end.next_multiple_of(32);
            writer = writer.entry(&tensor.name, &tensor.dims, F32, start);
            end = start + 4 * tensor.dims.iter().product::<u64>();
        }
        let header = writer.build();
        let len = header.len() as u64 + end;
        Hollow { header, len }
    }
}

impl ByteSource for Hollow {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        "family"
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let one = 1.0f32.to_le_bytes();
        for (at, byte) in (offset as usize..).zip(buf) {
            *byte = self.header.get(at).copied().unwrap_or(one[at % 4]);
        }
        Ok(())
    }
}

/// The error that names what is wrong with a model; `None` where its weights would be read.
fn refusal(family: &Family) -> Option<String> {
    let stop = |_| ControlFlow::Break(());
    let params = LoadParams::default().with_progress(&stop);
    match Model::from_source(Arc::new(Hollow::new(family)), &params) {
        Err(Error::Cancelled) => None,
        Err(error @ (Error::Format(_) | Error::Unsupported(_))) => Some(error.to_string()),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the load wasn't cancelled"),
    }
}

/// The tensors of a model, one layer's of those that each layer has: the last layer's.
fn of_each_kind(family: &Family) -> Vec<usize> {
    let kind = |tensor: &Tensor| {
        let digits = |c: char| c.is_ascii_digit();
        tensor.name.split('.').filter(|part| !part.chars().all(digits)).collect::<Vec<_>>().join(".")
    };
    let kinds: Vec<_> = family.tensors.iter().map(kind).collect();
    (0..kinds.len()).filter(|&n| kinds[n + 1..].iter().all(|later| *later != kinds[n])).collect()
}

/// Whether a model can do without a tensor: biases, factors, the head, which may be the embedding's matrix, types of
/// tokens, what comes behind pooling, and in one family the gate and some norms.
fn is_optional(family: &str, name: &str) -> bool {
    let part = name.rsplit('.').next();
    let factors =
        ["output.weight", "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];
    let jina = ["ffn_gate.weight", "attn_q_norm.weight", "attn_k_norm.weight", "attn_norm_2.weight"];
    let among = |names: &[&str]| names.iter().any(|optional| name.ends_with(optional));
    part != Some("weight")
        || among(&factors)
        || ["token_types.", "cls.", "dense_"].iter().any(|optional| name.starts_with(optional))
        || family.starts_with("jina-bert-v2") && among(&jina)
}

/// Checks a change of each kind of tensor of each family; `expect` tells whether a refusal (`None`: the model was
/// taken) is right.
fn check(change: impl Fn(&mut Family, usize), expect: impl Fn(&str, &str, Option<&str>) -> bool) {
    let mut faults = Vec::new();
    for family_name in names() {
        let family = Family::read(&family_name);
        assert_eq!(refusal(&family), None, "{family_name} as it is");
        for n in of_each_kind(&family) {
            let name = &family.tensors[n].name;
            let mut changed = family.clone();
            change(&mut changed, n);
            let refusal = refusal(&changed);
            if !expect(&family_name, name, refusal.as_deref()) {
                faults.push(format!("{family_name}, {name}: {refusal:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} wrong outcomes:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_missing_tensor_is_named() {
    let remove = |family: &mut Family, n| drop(family.tensors.remove(n));
    check(remove, |family, name, refusal| {
        refusal.map_or(is_optional(family, name), |text| text.contains(name))
    });
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let widen = |family: &mut Family, n: usize| family.tensors[n].dims[0] += 1;
    check(widen, |_, name, refusal| {
        refusal.is_some_and(|text| text.contains(name)) || name.ends_with("input_scale")
    });
}

#[test]
fn a_tensor_too_many_is_named() {
    let add = |family: &mut Family, n: usize| {
        let mut extra = family.tensors[n].clone();
        extra.name = format!("{}_extra", extra.name);
        family.tensors.push(extra);
    };
    check(add, |_, name, refusal| refusal.is_some_and(|text| text.contains(&format!("{name}_extra"))));
}
