//! The change of a matrix by adapters, row by row, for files in which it is merged.

use super::{Adapter, EMBEDDING, Pair, WHAT};
use crate::error::{Error, Result, quoted};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{filled, reserve};
use crate::quant;

/// An adapter's change of one tensor.
#[derive(Clone, Copy)]
pub(in crate::model) struct Change<'a> {
    adapter: &'a Adapter,
    pair: &'a Pair,
}

/// A change whose matrices are in memory: `factor · up · down`.
pub(in crate::model) struct LowRank {
    /// A row of `rank` for each row of the tensor.
    up: Vec<f32>,
    /// `rank` rows as long as the tensor's.
    down: Vec<f32>,
    rank: usize,
    factor: f32,
}

/// The changes of a tensor, in the order of the adapters.
///
/// # Errors
/// [`Error::Unsupported`], naming the tensor, where the model multiplies its product with a factor of its own, since
/// adapters' products aren't multiplied.
pub(in crate::model) fn changes<'a>(
    adapters: &'a [Adapter],
    gguf: &Gguf,
    tensor: &TensorInfo,
) -> Result<Vec<Change<'a>>> {
    let mut changes = Vec::new();
    for adapter in adapters {
        let Some(place) = adapter.position(&tensor.name) else { continue };
        let factor = tensor.name.strip_suffix("weight").map(|part| format!("{part}scale"));
        if let Some(factor) = factor.filter(|factor| gguf.tensor(factor).is_some()) {
            let (name, factor) = (quoted(&tensor.name), quoted(&factor));
            return Err(Error::Unsupported(format!(
                "adapters merged into tensor {name}, which has {factor}"
            )));
        }
        reserve(&mut changes, 1, WHAT)?;
        changes.push(Change { adapter, pair: &adapter.pairs[place] });
    }
    Ok(changes)
}

impl Change<'_> {
    /// Reads its matrices, for a tensor with rows of `width`.
    ///
    /// # Errors
    /// Those of reading; [`Error::OutOfMemory`].
    pub fn load(&self, width: usize) -> Result<LowRank> {
        let (rank, [a, b]) = (self.pair.rank, self.adapter.tensors(self.pair));
        let [a, b] = [self.floats(a)?, self.floats(b)?];
        let (up, down) = match self.pair.target == EMBEDDING {
            false => (b, a),
            true => {
                let mut down = filled(0.0f32, b.len(), WHAT)?;
                down.iter_mut().enumerate().for_each(|(i, x)| *x = b[i % width * rank + i / width]);
                (a, down)
            }
        };
        Ok(LowRank { up, down, rank, factor: self.adapter.factor(self.pair) })
    }

    fn floats(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        let too_large = |_| Error::OutOfMemory { bytes: usize::MAX, what: WHAT };
        let elements = usize::try_from(tensor.elements()).map_err(too_large)?;
        let mut floats = filled(0.0f32, elements, WHAT)?;
        let mut bytes = filled(0u8, usize::try_from(tensor.bytes).map_err(too_large)?, WHAT)?;
        self.adapter.gguf.read_tensor(tensor, 0, &mut bytes)?;
        quant::decode_row(tensor.dtype()?, &bytes, &mut floats)?;
        Ok(floats)
    }
}

impl LowRank {
    /// Adds the change to a row of the tensor.
    pub fn add_to(&self, row: usize, x: &mut [f32]) {
        let coefficients = &self.up[row * self.rank..][..self.rank];
        for (j, x) in x.iter_mut().enumerate() {
            let column = self.down[j..].iter().step_by(self.width());
            let product: f64 =
                coefficients.iter().zip(column).map(|(&u, &d)| f64::from(u) * f64::from(d)).sum();
            *x = (f64::from(*x) + f64::from(self.factor) * product) as f32;
        }
    }

    fn width(&self) -> usize {
        self.down.len() / self.rank
    }
}
