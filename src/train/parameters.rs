//! The numbers that are trained: every tensor that a graph reads, in f32, whatever its type in the file; or, with an
//! adapter, the adapter's. Weights, gradients and the optimizer's moments have one layout, so that a place in one is a
//! place in all; weights that aren't trained stand behind the others.

use std::collections::HashMap;

use super::plan::WHAT;
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::memory::reserve::{collected, filled, reserve};
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
    /// Its file, by its place among the files.
    file: usize,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.rows * self.width
    }

    /// Whether weight decay applies: to matrices and tables, not to gains and biases. The matrices of an adapter may have
    /// one row.
    pub fn decays(&self) -> bool {
        self.rows > 1 || self.file > 0
    }
}

/// The place of a tensor that the graph reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Weight {
    pub offset: usize,
    pub len: usize,
    /// Whether it is trained: constants are not, nor is a model with an adapter.
    pub trained: bool,
}

/// All tensors of a graph.
pub(super) struct Parameters {
    pub list: Vec<Parameter>,
    /// The tensors of files that aren't trained.
    pub frozen: Vec<Parameter>,
    /// By the index of a tensor among the graph's.
    weights: Vec<Weight>,
    /// Floats of all trained tensors; the others stand behind them.
    pub trained: usize,
    /// Floats of all tensors.
    pub total: usize,
    /// All elements; none before [`Parameters::load`].
    pub values: AlignedBuf,
}

impl Parameters {
    /// The layout of the tensors that a graph takes from its file and from those of adapters. With adapters, their tensors
    /// alone are trained.
    pub fn new(files: &[&Gguf], graph: &Graph) -> Result<Parameters> {
        let specs = graph.weights.tensors();
        let constant = |spec: &TensorSpec| Weight { offset: 0, len: spec.k, trained: false };
        let mut weights = collected(specs.iter().map(|spec| Ok(constant(spec))), WHAT)?;
        let trains = |spec: &TensorSpec| files.len() == 1 || spec.file > 0;
        let mut layout = Layout::default();
        layout.add_all(files, specs, &mut weights, trains)?;
        let (list, trained) = (std::mem::take(&mut layout.list), layout.end);
        layout.add_all(files, specs, &mut weights, |spec| !trains(spec))?;
        for (weight, spec) in weights.iter_mut().zip(specs) {
            match rows_of(spec) {
                Some(_) => weight.trained = trains(spec),
                None => {
                    weight.offset = layout.end;
                    layout.end = after(layout.end, spec.k)?;
                }
            }
        }
        let Layout { list: frozen, end: total, .. } = layout;
        Ok(Parameters { list, frozen, weights, trained, total, values: AlignedBuf::zeroed(0, WHAT)? })
    }

    /// Reads all elements from the files.
    pub fn load(&mut self, files: &[&Gguf], graph: &Graph) -> Result<()> {
        let bytes = checked_bytes(self.total, size_of::<f32>(), "weights")?;
        self.values = AlignedBuf::zeroed(bytes, "weights")?;
        let floats = self.values.as_mut_slice::<f32>();
        for parameter in self.list.iter().chain(&self.frozen) {
            let gguf = file(files, parameter.file)?;
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
    end: usize,
}

impl Layout {
    /// Appends those tensors of files that are wanted, and notes their places.
    fn add_all(
        &mut self,
        files: &[&Gguf],
        specs: &[TensorSpec],
        weights: &mut [Weight],
        wanted: impl Fn(&TensorSpec) -> bool,
    ) -> Result<()> {
        let mut by_name = HashMap::new();
        for (spec, weight) in specs.iter().zip(weights).filter(|(spec, _)| wanted(spec)) {
            let Some((first, of)) = rows_of(spec) else { continue };
            let key = (spec.file, spec.name.as_str());
            let index = match by_name.get(&key) {
                Some(&index) => index,
                None => {
                    by_name.try_reserve(1).map_err(|_| too_large())?;
                    by_name.insert(key, self.list.len());
                    self.append(files, spec, of)?
                }
            };
            let offset: usize = self.list[index].offset;
            (weight.offset, weight.len) = (offset + first * spec.k, spec.n * spec.k);
        }
        Ok(())
    }

    fn append(&mut self, files: &[&Gguf], spec: &TensorSpec, rows: usize) -> Result<usize> {
        let tensor = named(file(files, spec.file)?, &spec.name)?;
        if tensor.elements() != (rows * spec.k) as u64 {
            return Err(Error::format(format!("tensor {} is used with two shapes", spec.name)));
        }
        let (name, width, offset, file) = (spec.name.clone(), spec.k, self.end, spec.file);
        let floats = rows.checked_mul(width).and_then(|floats| floats.checked_add(offset));
        self.end = after(floats.ok_or_else(too_large)?, 0)?;
        reserve(&mut self.list, 1, WHAT)?;
        self.list.push(Parameter { name, rows, width, offset, file });
        Ok(self.list.len() - 1)
    }
}

/// The first row that a specification takes of a file's tensor, and the tensor's rows; `None` for a constant, and for
/// sources that only operations read which the lowering refuses.
fn rows_of(spec: &TensorSpec) -> Option<(usize, usize)> {
    match spec.source {
        Source::Rows { first, of } => Some((first, of)),
        Source::Constant(_) | Source::Transposed | Source::Experts(_) => None,
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

/// A file by its number.
fn file<'a>(files: &[&'a Gguf], number: usize) -> Result<&'a Gguf> {
    files.get(number).copied().ok_or_else(|| Error::Internal(format!("no file {number} of weights")))
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
