//! Adapters in a graph: behind each product by a matrix that an adapter changes stand two products of its rank, and a sum.
//! So nothing behind the graph knows of adapters.

use std::ops::Range;

use super::{ARCHITECTURE, Adapter, EMBEDDING, Pair, WHAT};
use crate::error::{Error, Result, quoted};
use crate::format::gguf::Gguf;
use crate::memory::reserve::{collected, filled};
use crate::model::builder::Builder;
use crate::model::graph::{Op, RowSet, Value};
use crate::model::weights::Origin;

/// The adapters of a graph in the making.
#[derive(Default)]
pub(in crate::model) struct Adapters<'a> {
    list: &'a [Adapter],
    /// Whether the graph has the products of each pair of each adapter.
    applied: Vec<Vec<bool>>,
}

/// Rows of a tensor of the file that are the matrix of a product.
pub(in crate::model) struct Target {
    /// The tensor.
    pub name: String,
    pub rows: Range<usize>,
    /// Rows of the whole tensor.
    pub of: usize,
    /// Multiplies the products of adapters too.
    pub factor: f32,
}

impl<'a> Adapters<'a> {
    /// # Errors
    /// As [`Adapter::check`], naming the adapter's file.
    pub fn new(list: &'a [Adapter], gguf: &Gguf) -> Result<Adapters<'a>> {
        for adapter in list {
            let architecture = gguf.metadata().require_str(ARCHITECTURE)?;
            adapter.check(architecture).map_err(|error| adapter.placed(error))?;
        }
        let applied = list.iter().map(|adapter| filled(false, adapter.pairs.len(), WHAT));
        Ok(Adapters { list, applied: collected(applied, WHAT)? })
    }

    /// The pair of an adapter, by its number, that changes a tensor.
    fn pair(&self, number: usize, target: &str) -> Option<(&'a Adapter, &'a Pair)> {
        let adapter = self.list.get(number)?;
        Some((adapter, &adapter.pairs[adapter.position(target)?]))
    }

    /// [`Adapters::pair`], which counts as applied from now on.
    fn take(&mut self, number: usize, target: &str) -> Option<(&'a Adapter, &'a Pair)> {
        let place = self.list.get(number)?.position(target)?;
        self.applied[number][place] = true;
        self.pair(number, target)
    }

    /// Whether an adapter changes a tensor.
    pub fn change(&self, target: &str) -> bool {
        (0..self.list.len()).any(|number| self.pair(number, target).is_some())
    }

    /// Checks that the graph has the products of all pairs.
    ///
    /// # Errors
    /// [`Error::Format`] for tensors that the model doesn't have; [`Error::Unsupported`] for those that it doesn't read as
    /// the matrix of a product.
    pub fn check(&self, gguf: &Gguf) -> Result<()> {
        for (adapter, applied) in self.list.iter().zip(&self.applied) {
            let lost = adapter.pairs.iter().zip(applied).find(|(_, applied)| !**applied);
            let Some((pair, _)) = lost else { continue };
            let name = quoted(&adapter.tensors(pair)[0].name);
            let error = match gguf.tensor(&pair.target) {
                None => Error::format(format!("tensor {name} changes one that the model doesn't have")),
                Some(_) => Error::Unsupported(format!(
                    "tensor {name}: adapters of tensors that aren't the matrix of one product"
                )),
            };
            return Err(adapter.placed(error));
        }
        Ok(())
    }
}

impl<'a> Builder<'a> {
    /// Applies adapters to the graph to come.
    ///
    /// # Errors
    /// As [`Adapters::new`].
    pub fn with_adapters(mut self, list: &'a [Adapter]) -> Result<Self> {
        self.adapters = Adapters::new(list, self.gguf)?;
        Ok(self)
    }

    /// A product of `width` columns by a matrix of the file, and the products of the adapters that change it.
    pub(in crate::model) fn product(
        &mut self,
        x: Value,
        op: Op,
        width: usize,
        target: &Target,
    ) -> Result<Value> {
        let (rows, k) = (self.shape(x).rows, self.shape(x).width);
        let mut sum = self.push(op, rows, width)?;
        for number in 0..self.adapters.list.len() {
            let Some((adapter, pair)) = self.adapters.take(number, &target.name) else { continue };
            let fitting = adapter.fitting(pair, target.of, k);
            let [a, b] = self.placed(fitting)?;
            let origin = |tensor| Origin { file: number + 1, tensor };
            let down = self.weights.add_matrix(origin(a), pair.rank, k);
            let down = self.placed(down)?;
            let up = self.weights.add_matrix_rows(origin(b), target.rows.clone(), (target.of, pair.rank));
            let up = self.placed(up)?;
            let low = self.push(Op::Linear(x, down, None, 1.0), rows, pair.rank)?;
            let factor = adapter.factor(pair) * target.factor;
            let high = self.push(Op::Linear(low, up, None, factor), rows, width)?;
            sum = self.add(sum, high)?;
        }
        Ok(sum)
    }

    /// Embeddings, from a table of `n` rows, and the changes by adapters of the table of tokens.
    pub(in crate::model) fn adapted_embedding(
        &mut self,
        embedding: Value,
        table: &str,
        n: usize,
    ) -> Result<Value> {
        let width = self.shape(embedding).width;
        let mut sum = embedding;
        if table != EMBEDDING {
            return Ok(sum);
        }
        for number in 0..self.adapters.list.len() {
            let Some((adapter, pair)) = self.adapters.take(number, table) else { continue };
            let fitting = adapter.fitting(pair, n, width);
            let [a, b] = self.placed(fitting)?;
            let origin = |tensor| Origin { file: number + 1, tensor };
            let down = self.weights.add_table(origin(a), n, pair.rank);
            let down = self.placed(down)?;
            let up = self.weights.add_matrix(origin(b), width, pair.rank);
            let up = self.placed(up)?;
            let low = self.push(Op::Embed(down), RowSet::Batch, pair.rank)?;
            let high = self.push(Op::Linear(low, up, None, adapter.factor(pair)), RowSet::Batch, width)?;
            sum = self.add(sum, high)?;
        }
        Ok(sum)
    }

    /// Refuses adapters of a tensor, for a use of it in which they would not be applied.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming tensor and use.
    pub(in crate::model) fn refuse_adapters(&self, tensor: &str, place: &str) -> Result<()> {
        match self.adapters.change(tensor) {
            true => self.unsupported(format!("adapters of {}, {place}", quoted(tensor))),
            false => Ok(()),
        }
    }

    /// Whether a value is the sum of a product and those of adapters, up to work on heads.
    pub(in crate::model) fn is_adapted(&self, mut value: Value) -> bool {
        loop {
            value = match self.op(value) {
                Op::HeadNorm(x, ..) | Op::Rope(x, ..) | Op::Split(x, _) | Op::SplitHeads(x, ..) => x,
                Op::Add(..) => return !self.adapters.list.is_empty(),
                _ => return false,
            }
        }
    }
}
