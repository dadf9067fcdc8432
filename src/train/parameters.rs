//! The numbers that are trained: every tensor that a graph reads, in f32, whatever its type in the file. Weights,
//! gradients and the optimizer's moments have one layout, so that a place in one is a place in all.

use std::collections::HashMap;

use super::plan::WHAT;
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{filled, reserve};
use crate::memory::{ALIGNMENT, AlignedBuf, checked_bytes};
use crate::model::{Graph, Source, TensorSpec};
use crate::quant;

/// Bytes of a tensor that are read at a time, about.
const CHUNK_BYTES: usize = 1 << 20;

/// A trained tensor of the model's file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name in the file.
    pub name: String,
    /// Rows (outputs); 1 for a vector.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Place of the first element.
    pub(super) offset: usize,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Whether weight decay applies: to matrices and tables, not to gains and biases.
    pub fn decays(&self) -> bool {
        self.rows > 1
    }
}

/// The place of a tensor that the graph reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    pub offset: usize,
    pub len: usize,
    /// Whether it is trained: constants are not.
    pub trained: bool,
}

/// All tensors of a graph.
pub(super) struct Parameters {
    pub list: Vec<Parameter>,
    /// By the index of a tensor among the graph's.
    weights: Vec<Weight>,
    /// Floats of all trained tensors; constants stand behind them.
    pub trained: usize,
    /// Floats of all tensors.
    pub total: usize,
    /// All elements; none before [`Parameters::load`].
    pub values: AlignedBuf,
}

impl Parameters {
    /// The layout of the tensors that a graph takes from its file.
    pub fn new(gguf: &Gguf, graph: &Graph) -> Result<Parameters> {
        let mut layout = Layout::default();
        for spec in graph.weights.tensors() {
            layout.add(gguf, spec)?;
        }
        let trained = layout.end;
        let specs = graph.weights.tensors();
        for (weight, spec) in layout.weights.iter_mut().zip(specs).filter(|(weight, _)| !weight.trained) {
            weight.offset = layout.end;
            layout.end = after(layout.end, spec.k)?;
        }
        let Layout { list, weights, end: total, .. } = layout;
        Ok(Parameters { list, weights, trained, total, values: AlignedBuf::zeroed(0, WHAT)? })
    }

    /// Reads all elements from the file.
    pub fn load(&mut self, gguf: &Gguf, graph: &Graph) -> Result<()> {
        let bytes = checked_bytes(self.total, size_of::<f32>(), "weights")?;
        self.values = AlignedBuf::zeroed(bytes, "weights")?;
        let floats = self.values.as_mut_slice::<f32>();
        for parameter in &self.list {
            let tensor = named(gguf, &parameter.name)?;
            read(gguf, tensor, parameter.width, &mut floats[parameter.offset..][..parameter.elements()])?;
        }
        for (weight, spec) in self.weights.iter().zip(graph.weights.tensors()) {
            if let Source::Constant(value) = spec.source {
                floats[weight.offset..][..weight.len].fill(value);
            }
        }
        Ok(())
    }

    /// The place of one of the graph's tensors.
    pub fn weight(&self, graph: &Graph, spec: &TensorSpec) -> Result<Weight> {
        let index = graph.weights.tensors().iter().position(|tensor| std::ptr::eq(tensor, spec));
        let lost = || Error::Internal(format!("tensor {} is not the graph's", spec.name));
        index.map(|index| self.weights[index]).ok_or_else(lost)
    }

    /// A buffer of so many zeros.
    pub fn zeros(&self, floats: usize, what: &'static str) -> Result<AlignedBuf> {
        AlignedBuf::zeroed(checked_bytes(floats, size_of::<f32>(), what)?, what)
    }

    /// A parameter's elements in a buffer of the common layout.
    pub fn slice<'a>(&self, parameter: &Parameter, buffer: &'a AlignedBuf) -> &'a [f32] {
        &buffer.as_slice::<f32>()[parameter.offset..][..parameter.elements()]
    }

    /// Number of trained elements, without padding.
    pub fn elements(&self) -> usize {
        self.list.iter().map(Parameter::elements).sum()
    }
}

/// The layout in the making.
#[derive(Default)]
struct Layout {
    list: Vec<Parameter>,
    by_name: HashMap<String, usize>,
    weights: Vec<Weight>,
    end: usize,
}

impl Layout {
    fn add(&mut self, gguf: &Gguf, spec: &TensorSpec) -> Result<()> {
        let (first, of) = match spec.source {
            Source::Rows { first, of } => (first, of),
            // The lowering refuses the operations that read other sources.
            Source::Constant(_) | Source::Transposed | Source::Experts(_) => {
                reserve(&mut self.weights, 1, WHAT)?;
                self.weights.push(Weight { offset: 0, len: spec.k, trained: false });
                return Ok(());
            }
        };
        let index = match self.by_name.get(&spec.name) {
            Some(&index) => index,
            None => self.append(gguf, spec, of)?,
        };
        let parameter = &self.list[index];
        reserve(&mut self.weights, 1, WHAT)?;
        let (offset, len) = (parameter.offset + first * spec.k, spec.n * spec.k);
        self.weights.push(Weight { offset, len, trained: true });
        Ok(())
    }

    fn append(&mut self, gguf: &Gguf, spec: &TensorSpec, rows: usize) -> Result<usize> {
        let tensor = named(gguf, &spec.name)?;
        if tensor.elements() != (rows * spec.k) as u64 {
            return Err(Error::format(format!("tensor {} is used with two shapes", spec.name)));
        }
        let (name, width, offset) = (spec.name.clone(), spec.k, self.end);
        let floats = rows.checked_mul(width).and_then(|floats| floats.checked_add(offset));
        self.end = after(floats.ok_or_else(too_large)?, 0)?;
        reserve(&mut self.list, 1, WHAT)?;
        self.list.push(Parameter { name: name.clone(), rows, width, offset });
        self.by_name.try_reserve(1).map_err(|_| too_large())?;
        self.by_name.insert(name, self.list.len() - 1);
        Ok(self.list.len() - 1)
    }
}

/// The next aligned place behind `len` floats from `begin` on.
fn after(begin: usize, len: usize) -> Result<usize> {
    let end = begin.checked_add(len).and_then(|end| end.checked_next_multiple_of(ALIGNMENT / 4));
    end.ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::OutOfMemory { bytes: usize::MAX, what: "weights" }
}

fn named<'a>(gguf: &'a Gguf, name: &str) -> Result<&'a TensorInfo> {
    gguf.tensor(name).ok_or_else(|| Error::format(format!("tensor {name} is missing")))
}

/// Decodes a tensor's rows of `width` elements.
fn read(gguf: &Gguf, tensor: &TensorInfo, width: usize, out: &mut [f32]) -> Result<()> {
    let dtype = tensor.dtype()?;
    let row_bytes = dtype.row_bytes(width).filter(|&bytes| bytes > 0).ok_or_else(|| {
        Error::format(format!("tensor {}: rows of {width} are no whole blocks", tensor.name))
    })?;
    let rows = (CHUNK_BYTES / row_bytes).max(1);
    let mut bytes = filled(0u8, row_bytes * rows.min(out.len() / width), "a loading buffer")?;
    for (i, chunk) in out.chunks_mut(rows * width).enumerate() {
        let bytes = &mut bytes[..chunk.len() / width * row_bytes];
        gguf.read_tensor(tensor, (i * rows * row_bytes) as u64, bytes)?;
        quant::decode_row(dtype, bytes, chunk)?;
    }
    Ok(())
}
