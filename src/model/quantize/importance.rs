//! Importance matrices: for each weight of a row, the mean square of the activation that it is multiplied with, as
//! llama.cpp's `llama-imatrix` measures it on a text. Errors of important weights cost more.

use std::collections::BTreeMap;

use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{copied_text, filled};
use crate::quant::{DType, decode_row};
use crate::text::escaped;

/// The sums of squares in a file, and the counts of what was summed up.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// The importances of a model's matrices, by the names of their tensors.
#[derive(Clone, Debug, Default)]
pub struct Importance {
    by_tensor: BTreeMap<String, Vec<f32>>,
    source: String,
}

impl Importance {
    /// Reads an importance matrix in a GGUF file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a file of another kind; [`Error::Format`] where its tensors don't go together or have
    /// numbers that no sum of squares is; [`Error::Io`] and [`Error::OutOfMemory`].
    pub fn read(gguf: &Gguf) -> Result<Importance> {
        Self::read_entries(gguf).map_err(at(|| escaped(gguf.source().name()).to_string()))
    }

    fn read_entries(gguf: &Gguf) -> Result<Importance> {
        let kind = gguf.metadata().get_str("general.type").ok().flatten();
        if kind != Some("imatrix") {
            return Err(Error::Unsupported("no importance matrix (general.type is not imatrix)".into()));
        }
        let mut by_tensor = BTreeMap::new();
        for sums in gguf.tensors() {
            let Some(name) = sums.name.strip_suffix(SUMS) else { continue };
            let counts = gguf.tensor(&format!("{name}{COUNTS}"));
            let counts = counts
                .ok_or_else(|| Error::format(format!("tensor {} has no counts", quoted(&sums.name))))?;
            let means = means(floats(gguf, sums)?, &floats(gguf, counts)?)
                .map_err(at(|| format!("tensor {}", quoted(&sums.name))))?;
            by_tensor.insert(copied_text(name, "an importance matrix")?, means);
        }
        if by_tensor.is_empty() {
            return Err(Error::format("no importances"));
        }
        Ok(Importance { by_tensor, source: gguf.source().name().to_owned() })
    }

    /// The importances of a tensor's weights: a row's, or one row's after the other for each expert.
    pub fn of(&self, tensor: &str) -> Option<&[f32]> {
        self.by_tensor.get(tensor).map(Vec::as_slice)
    }

    /// Tensors that have importances.
    pub fn len(&self) -> usize {
        self.by_tensor.len()
    }

    /// Whether no tensor has any.
    pub fn is_empty(&self) -> bool {
        self.by_tensor.is_empty()
    }

    /// The name of the file.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// The numbers of a tensor of F32.
fn floats(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>> {
    if tensor.dtype()? != DType::F32 {
        return Err(Error::format(format!("tensor {} is of type {}", quoted(&tensor.name), tensor.ty)));
    }
    let mut bytes = filled(0u8, tensor.bytes as usize, "an importance matrix")?;
    gguf.read_tensor(tensor, 0, &mut bytes)?;
    let mut floats = filled(0.0f32, bytes.len() / 4, "an importance matrix")?;
    decode_row(DType::F32, &bytes, &mut floats)?;
    Ok(floats)
}

/// Sums divided by their counts, of which there is one for each expert. An expert that no token chose has ones.
fn means(mut sums: Vec<f32>, counts: &[f32]) -> Result<Vec<f32>> {
    if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
        return Err(Error::format(format!("{} sums for {} counts", sums.len(), counts.len())));
    }
    let run = sums.len() / counts.len();
    for (sums, &count) in sums.chunks_exact_mut(run).zip(counts) {
        match count > 0.0 {
            true => sums.iter_mut().for_each(|sum| *sum /= count),
            false => sums.fill(1.0),
        }
    }
    match sums.iter().find(|mean| !(mean.is_finite() && **mean >= 0.0)) {
        Some(wrong) => Err(Error::format(format!("an importance is {wrong}"))),
        None => Ok(sums),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_become_means() {
        assert_eq!(means(vec![2.0, 4.0], &[2.0]).unwrap(), [1.0, 2.0]);
        assert_eq!(means(vec![2.0, 4.0, 7.0, 8.0], &[2.0, 0.0]).unwrap(), [1.0, 2.0, 1.0, 1.0]);
        for (sums, counts) in [
            (vec![1.0; 3], vec![1.0; 2]),
            (vec![1.0], vec![]),
            (vec![f32::NAN], vec![1.0]),
            (vec![-1.0], vec![1.0]),
            (vec![1e30], vec![1e-30]),
        ] {
            assert!(means(sums, &counts).is_err());
        }
    }
}
