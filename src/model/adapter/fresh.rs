//! A new adapter, which training begins with: A is random and B zero, so that it changes nothing yet.

use std::sync::Arc;

use super::{ALPHA, ARCHITECTURE, Adapter, ENDINGS, KIND, TYPE, WHAT};
use crate::error::Result;
use crate::format::gguf::{Metadata, TensorEntry, TensorType, Value};
use crate::memory::reserve::{copied_text, with_room};
use crate::model::random::{Fill, RandomFile};
use crate::quant::DType;

/// A tensor that an adapter is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreshTarget {
    /// Its name.
    pub name: String,
    /// Its rows (outputs).
    pub n: usize,
    /// Elements of a row (inputs).
    pub k: usize,
}

/// A new adapter in f32, in memory no larger than its header. Elements of A are uniform within ±1/√k, as the program of the
/// paper's authors has them, and follow from the seed.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for sizes that no file can hold;
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
pub(crate) fn fresh(
    architecture: &str,
    targets: &[FreshTarget],
    (rank, alpha): (usize, f32),
    seed: u64,
) -> Result<Adapter> {
    let mut metadata = Metadata::new();
    metadata.insert(ARCHITECTURE.into(), Value::Str(copied_text(architecture, WHAT)?))?;
    for [key, value] in [KIND, TYPE] {
        metadata.insert(key.into(), Value::Str(value.into()))?;
    }
    metadata.insert(ALPHA.into(), Value::F32(alpha))?;
    let mut tensors = with_room(2 * targets.len(), WHAT)?;
    let mut fills = with_room(2 * targets.len(), WHAT)?;
    for FreshTarget { name, n, k } in targets {
        let bound = (1.0 / (*k as f64).sqrt()) as f32;
        let halves = [([*k, rank], Fill::Uniform(bound)), ([rank, *n], Fill::Constant(0.0))];
        for ((dims, fill), end) in halves.into_iter().zip(ENDINGS) {
            let (name, dims) = (format!("{name}{end}"), dims.map(|dim| dim as u64).to_vec());
            tensors.push(TensorEntry { name, dims, ty: TensorType(DType::F32.gguf_id()) });
            fills.push(fill);
        }
    }
    let file = RandomFile::new("a new adapter".into(), seed, &metadata, &tensors, fills)?;
    Adapter::from_source(Arc::new(file))
}
