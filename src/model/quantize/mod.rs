//! Quantises the tensors of a model file and makes another file of them: a plan of every tensor's type first, then the
//! bytes in order, a few rows of each at a time. It looks at the names of tensors only, so files of any family will do.
//! On the way, low-rank adapters are merged into the matrices that they change.

use std::fmt;
use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::error::{Error, Result, at, quoted};
use crate::format::gguf::{Gguf, Header, Metadata, TensorEntry, TensorInfo, TensorType, Value};
use crate::memory::reserve::{collected, copied, copied_text, filled, reserve, with_room};
use crate::model::adapter::{Adapter, Change, LowRank, changes};
use crate::model::read_adapted_graph;
use crate::quant::{DType, decode_row, encode_weighted};
use crate::text::escaped;
use crate::threads;

mod importance;
mod mix;

pub use importance::Importance;
pub use mix::Mix;

use mix::{Chooser, Traits, fitting, is_quantizable};

/// Bytes of f32 that are converted at a time.
const BATCH_BYTES: usize = 16 << 20;

/// The number that says how blocks of quantised types are laid out (`general.quantization_version`).
const LAYOUT_VERSION: u32 = 2;
const FILE_TYPE: &str = "general.file_type";
const ALIGNMENT: &str = "general.alignment";
const VERSION: &str = "general.quantization_version";
/// Keys that the new file has values of its own for, or that don't hold for it: it isn't split, has the default
/// alignment, and only what its own importance matrix was.
const REPLACED: [&str; 5] =
    [FILE_TYPE, VERSION, ALIGNMENT, "quantize.imatrix.file", "quantize.imatrix.entries_count"];

/// How to quantise a file.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct QuantizeParams<'a> {
    /// The types.
    pub mix: Mix,
    /// Whether all matrices get the mix's main type, instead of more bits where errors cost more.
    pub pure: bool,
    /// Importances of weights, which types that search for scales weigh errors by.
    pub importance: Option<&'a Importance>,
    /// Whether tensors that are quantised already may be quantised again, which adds to their errors.
    pub requantize: bool,
    /// Low-rank adapters (LoRA) that are merged into the matrices that they change.
    pub adapters: &'a [Adapter],
}

impl<'a> QuantizeParams<'a> {
    /// A mix, without anything else.
    pub fn new(mix: Mix) -> Self {
        Self { mix, pure: false, importance: None, requantize: false, adapters: &[] }
    }

    /// Sets [`QuantizeParams::pure`].
    pub fn with_pure(self, pure: bool) -> Self {
        Self { pure, ..self }
    }

    /// Sets [`QuantizeParams::importance`].
    pub fn with_importance(self, importance: impl Into<Option<&'a Importance>>) -> Self {
        Self { importance: importance.into(), ..self }
    }

    /// Sets [`QuantizeParams::requantize`].
    pub fn with_requantize(self, requantize: bool) -> Self {
        Self { requantize, ..self }
    }

    /// Sets [`QuantizeParams::adapters`].
    pub fn with_adapters(self, adapters: &'a [Adapter]) -> Self {
        Self { adapters, ..self }
    }
}

/// A tensor's type before and after, its size, and what the conversion lost.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QuantizedTensor {
    /// Its name.
    pub name: String,
    /// Its lengths, the fastest-varying dimension first.
    pub shape: Vec<u64>,
    /// Type in the file that was read.
    pub from: TensorType,
    /// Type in the file that was written.
    pub to: TensorType,
    /// Bytes in the file that was read.
    pub bytes_from: u64,
    /// Bytes in the file that was written.
    pub bytes_to: u64,
    /// Root mean square of the errors over that of the values; 0 where the tensor was copied.
    pub error: f64,
    /// Whether errors were weighed by importances.
    pub weighted: bool,
}

/// A tensor of the new file.
struct Task<'a> {
    tensor: &'a TensorInfo,
    /// The types to convert between; `None` copies it.
    convert: Option<(DType, DType)>,
    /// Importances of a row, or of a row for each expert.
    importance: Option<&'a [f32]>,
    /// The changes of adapters.
    changes: Vec<Change<'a>>,
}

/// The file that will be written: every tensor's type, and the header.
pub struct QuantizePlan<'a> {
    gguf: &'a Gguf,
    tasks: Vec<Task<'a>>,
    header: Header,
}

impl<'a> QuantizePlan<'a> {
    /// Chooses the type of every tensor; nothing but the header of the file is read yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for tensors that can't be decoded, or are quantised already without
    /// [`QuantizeParams::requantize`]; [`Error::Format`] where importances don't fit a tensor; [`Error::OutOfMemory`].
    pub fn new(gguf: &'a Gguf, params: &QuantizeParams<'a>) -> Result<Self> {
        let place = || escaped(gguf.source().name()).to_string();
        let types = types(gguf, params).map_err(at(place))?;
        Self::of(
            gguf,
            params.adapters,
            |i, merged| task(&gguf.tensors()[i], types[i], params, merged),
            |entries| header(gguf.metadata(), params, entries),
        )
    }

    /// The same file, of the same types, with adapters merged into the matrices that they change: like llama.cpp's
    /// `llama-export-lora`, but for quantised matrices, which are quantised again with `requantize`.
    ///
    /// # Errors
    /// As [`QuantizePlan::new`]; as [`read_adapted_graph`] for adapters of another model.
    pub fn merge(gguf: &'a Gguf, adapters: &'a [Adapter], requantize: bool) -> Result<Self> {
        let task = |i: usize, changes: Vec<Change<'a>>| {
            let tensor = &gguf.tensors()[i];
            let dtype = if changes.is_empty() { None } else { Some(tensor.dtype()?) };
            refuse_requantizing(tensor, dtype.filter(|_| !requantize))?;
            Ok(Task { tensor, convert: dtype.map(|dtype| (dtype, dtype)), importance: None, changes })
        };
        Self::of(gguf, adapters, task, |entries| {
            let metadata = gguf.metadata();
            let kept = metadata.iter().filter(|(key, _)| *key != ALIGNMENT && !key.starts_with("split."));
            let mut pairs = with_room(metadata.len(), "the metadata of a file")?;
            pairs.extend(kept);
            Header::of(pairs.into_iter(), entries)
        })
    }

    /// The plan of a task for each tensor, by its number, with the changes of adapters.
    fn of(
        gguf: &'a Gguf,
        adapters: &'a [Adapter],
        task: impl Fn(usize, Vec<Change<'a>>) -> Result<Task<'a>>,
        header: impl FnOnce(&[TensorEntry]) -> Result<Header>,
    ) -> Result<Self> {
        let place = || escaped(gguf.source().name()).to_string();
        if !adapters.is_empty() {
            // What the graph can't apply isn't merged either.
            read_adapted_graph(gguf, adapters)?;
        }
        let mut tasks = with_room(gguf.tensors().len(), "a plan of tensors")?;
        for (i, tensor) in gguf.tensors().iter().enumerate() {
            let changes = changes(adapters, gguf, tensor);
            tasks.push(changes.and_then(|changes| task(i, changes)).map_err(at(place))?);
        }
        let entry = |task: &Task<'_>| {
            Ok(TensorEntry {
                name: copied_text(&task.tensor.name, "a tensor's name")?,
                dims: copied(task.tensor.shape(), "a tensor's shape")?,
                ty: task.convert.map_or(task.tensor.ty, |(_, to)| TensorType(to.gguf_id())),
            })
        };
        let entries = collected(tasks.iter().map(entry), "a plan of tensors")?;
        let header = header(&entries)?;
        Ok(Self { gguf, tasks, header })
    }

    /// Bytes of the file that will be written.
    pub fn file_len(&self) -> u64 {
        self.header.file_len
    }

    /// Number of tensors.
    pub fn tensors(&self) -> usize {
        self.tasks.len()
    }

    /// Hands out the bytes of the file in their order. `progress` is told the share of the work that is done, 0 to 1;
    /// `Break` ends it. Returns a line for each tensor, in the order of the file.
    ///
    /// # Errors
    /// [`Error::Format`] for a tensor with values that aren't finite; those of reading the file and of `write`;
    /// [`Error::Cancelled`] by `progress`; [`Error::OutOfMemory`]; [`Error::NoThreads`].
    pub fn run(
        &self,
        mut write: impl FnMut(&[u8]) -> Result<()>,
        mut progress: impl FnMut(f64) -> ControlFlow<()>,
    ) -> Result<Vec<QuantizedTensor>> {
        let pool = threads::pool(threads::available())?;
        let total = self.tasks.iter().fold(0u64, |sum, task| sum.saturating_add(task.tensor.elements()));
        let mut done = 0u64;
        write(&self.header.bytes)?;
        let mut at_byte = self.header.bytes.len() as u64;
        let mut lines = with_room(self.tasks.len(), "a table of tensors")?;
        let mut buffers = Buffers::default();
        for (task, (&offset, &bytes)) in
            self.tasks.iter().zip(self.header.offsets.iter().zip(&self.header.sizes))
        {
            write(&[0; 64][..(offset - at_byte) as usize])?;
            at_byte = offset + bytes;
            let mut tally = Tally::default();
            let place =
                || format!("{}: tensor {}", escaped(self.gguf.source().name()), quoted(&task.tensor.name));
            let merging = task.changes.iter().map(|change| change.load(task.tensor.row_len() as usize));
            let merging = collected(merging, "the changes of a tensor").map_err(at(place))?;
            for batch in task.batches() {
                let convert = || task.convert(self.gguf, batch, &merging, (&mut buffers, &mut tally));
                let elements = pool.install(convert);
                let elements = elements.map_err(at(place))?;
                write(&buffers.encoded)?;
                done = done.saturating_add(elements);
                if progress(done as f64 / total.max(1) as f64).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            lines.push(task.line(bytes, &tally)?);
        }
        Ok(lines)
    }
}

impl fmt::Debug for QuantizePlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantizePlan")
            .field("source", &self.gguf.source().name())
            .field("tensors", &self.tasks.len())
            .field("file_len", &self.header.file_len)
            .finish_non_exhaustive()
    }
}

/// The indices of the tensors in the order in which mixes count layers: by block, then by name.
fn in_order(gguf: &Gguf) -> Result<Vec<usize>> {
    let mut order = collected((0..gguf.tensors().len()).map(Ok), "a plan of tensors")?;
    let key = |&i: &usize| {
        let name = gguf.tensors()[i].name.as_str();
        (block(name), name)
    };
    order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    Ok(order)
}

/// The block in a tensor's name.
fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// The type of every tensor, `None` where it stays as it is.
fn types(gguf: &Gguf, params: &QuantizeParams<'_>) -> Result<Vec<Option<DType>>> {
    let traits = traits(gguf, params);
    let tensors = gguf.tensors();
    let names = tensors.iter().map(|tensor| tensor.name.as_str());
    let mut chooser = Chooser::new(params.mix, &traits, names);
    let mut types = filled(None, tensors.len(), "a plan of tensors")?;
    for i in in_order(gguf)? {
        let tensor = &tensors[i];
        if is_quantizable(&tensor.name, tensor.shape()) {
            types[i] = Some(match params.pure {
                true => fitting(params.mix.dtype(), tensor.row_len()),
                false => chooser.next(&tensor.name, tensor.row_len()),
            });
        }
    }
    Ok(types)
}

fn traits(gguf: &Gguf, params: &QuantizeParams<'_>) -> Traits {
    let metadata = gguf.metadata();
    let architecture = metadata.get_str("general.architecture").ok().flatten().unwrap_or_default();
    let number = |key: &str| {
        let key = format!("{architecture}.{key}");
        let first = match metadata.get(&key) {
            // A number for each layer: mixes look at the first.
            Some(Value::Array(array)) => array.first_integer(),
            _ => metadata.get_u64(&key).ok().flatten(),
        };
        first.map_or(0, |number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    let heads = number("attention.head_count");
    Traits {
        architecture: architecture.to_owned(),
        layers: number("block_count"),
        group: heads / number("attention.head_count_kv").max(1),
        experts: number("expert_count"),
        tied: gguf.tensor("output.weight").is_none(),
        weighted: params.importance.is_some(),
    }
}

/// How a tensor gets its new type.
fn task<'a>(
    tensor: &'a TensorInfo,
    to: Option<DType>,
    params: &QuantizeParams<'a>,
    changes: Vec<Change<'a>>,
) -> Result<Task<'a>> {
    let name = || quoted(&tensor.name);
    let copied = Task { tensor, convert: None, importance: None, changes };
    let (to, from) = match to.filter(|to| to.gguf_id() != tensor.ty.0) {
        Some(to) => (to, tensor.dtype()?),
        None if !copied.changes.is_empty() => (to.unwrap_or(tensor.dtype()?), tensor.dtype()?),
        None if tensor.ty.block().is_none() => {
            return Err(Error::Unsupported(format!("tensor {} is of type {}", name(), tensor.ty)));
        }
        None => return Ok(copied),
    };
    refuse_requantizing(tensor, Some(from).filter(|_| !params.requantize))?;
    let importance = params.importance.and_then(|importance| importance.of(&tensor.name));
    let needed = tensor.row_len().saturating_mul(tensor.dims[2]);
    let importance = match importance {
        Some(found) if found.len() as u64 == needed => Some(found),
        // Embeddings are looked up: what was measured is of the head that is tied to them, in other units.
        Some(_) if tensor.name == "token_embd.weight" => None,
        Some(found) => {
            let found = found.len();
            return Err(Error::format(format!(
                "tensor {} needs {needed} importances; the importance matrix, of another model perhaps, has {found}",
                name()
            )));
        }
        None => None,
    };
    Ok(Task { convert: Some((from, to)), importance, ..copied })
}

/// # Errors
/// [`Error::Unsupported`], naming the tensor, where the type that would be encoded again is quantised.
fn refuse_requantizing(tensor: &TensorInfo, from: Option<DType>) -> Result<()> {
    match from.is_some_and(DType::is_quantized) {
        true => Err(Error::Unsupported(format!(
            "tensor {} is of type {} already; quantising it again would add to its errors",
            quoted(&tensor.name),
            tensor.ty
        ))),
        false => Ok(()),
    }
}

/// The header of the new file: the metadata of the old one, with what is new.
fn header(metadata: &Metadata, params: &QuantizeParams<'_>, entries: &[TensorEntry]) -> Result<Header> {
    let mut added = Metadata::new();
    added.insert(FILE_TYPE.into(), Value::U32(params.mix.file_type()))?;
    added.insert(VERSION.into(), Value::U32(LAYOUT_VERSION))?;
    if let Some(importance) = params.importance {
        let file = std::path::Path::new(importance.source()).file_name();
        let file = file.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        added.insert("quantize.imatrix.file".into(), Value::Str(file))?;
        let entries = i32::try_from(importance.len()).unwrap_or(i32::MAX);
        added.insert("quantize.imatrix.entries_count".into(), Value::I32(entries))?;
    }
    let kept = metadata.iter().filter(|(key, _)| !REPLACED.contains(key) && !key.starts_with("split."));
    let mut pairs = with_room(metadata.len() + added.len(), "the metadata of a file")?;
    pairs.extend(kept);
    pairs.extend(added.iter());
    Header::of(pairs.into_iter(), entries)
}

/// Memory that batches share.
#[derive(Default)]
struct Buffers {
    raw: Vec<u8>,
    floats: Vec<f32>,
    encoded: Vec<u8>,
    decoded: Vec<f32>,
}

/// Sums of squares over a tensor.
#[derive(Clone, Copy, Default)]
struct Tally {
    values: f64,
    errors: f64,
}

/// Rows of a tensor, from `first` on.
#[derive(Clone, Copy)]
struct Rows {
    first: u64,
    count: u64,
}

/// Makes a buffer this long, whatever it holds.
fn resize<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> Result<()> {
    if buffer.len() < len {
        reserve(buffer, len - buffer.len(), "a buffer of tensors")?;
    }
    buffer.resize(len, T::default());
    Ok(())
}

impl Task<'_> {
    /// Bytes of a row in the file that is read; tensors of other types than ours are of whole blocks too.
    fn row_bytes(&self) -> u64 {
        self.tensor.bytes / self.tensor.rows()
    }

    /// Runs of rows that are converted at a time.
    fn batches(&self) -> impl Iterator<Item = Rows> + use<> {
        let rows = self.tensor.rows();
        let row_bytes = self.tensor.row_len().saturating_mul(4).max(self.row_bytes()).max(1);
        let step = (BATCH_BYTES as u64 / row_bytes).max(1);
        (0..rows.div_ceil(step)).map(move |i| Rows { first: i * step, count: step.min(rows - i * step) })
    }

    /// Puts the new bytes of some rows into `buffers.encoded`; returns how many elements they have.
    fn convert(
        &self,
        gguf: &Gguf,
        rows: Rows,
        merging: &[LowRank],
        (buffers, tally): (&mut Buffers, &mut Tally),
    ) -> Result<u64> {
        let elements = rows.count.saturating_mul(self.tensor.row_len());
        let raw_bytes = (rows.count * self.row_bytes()) as usize;
        let offset = rows.first * self.row_bytes();
        let Some((from, to)) = self.convert else {
            resize(&mut buffers.encoded, raw_bytes)?;
            gguf.read_tensor(self.tensor, offset, &mut buffers.encoded)?;
            return Ok(elements);
        };
        let too_long = || Error::Unsupported("rows of so many elements".into());
        let row_len = usize::try_from(self.tensor.row_len()).map_err(|_| too_long())?;
        let row_bytes = to.row_bytes(row_len).ok_or_else(too_long)?;
        let count = rows.count as usize;
        resize(&mut buffers.raw, raw_bytes)?;
        gguf.read_tensor(self.tensor, offset, &mut buffers.raw)?;
        resize(&mut buffers.floats, count * row_len)?;
        resize(&mut buffers.decoded, count * row_len)?;
        resize(&mut buffers.encoded, count * row_bytes)?;
        let raw = buffers.raw.par_chunks(self.row_bytes() as usize);
        let floats = buffers.floats.par_chunks_mut(row_len).zip(buffers.decoded.par_chunks_mut(row_len));
        let encoded = buffers.encoded.par_chunks_mut(row_bytes);
        let tallies = raw.zip(floats).zip(encoded).enumerate().map(|(i, ((raw, (x, decoded)), encoded))| {
            decode_row(from, raw, x)?;
            merging.iter().for_each(|change| change.add_to(rows.first as usize + i, x));
            encode_weighted(to, x, self.importance_of(rows.first + i as u64), encoded)?;
            decode_row(to, encoded, decoded)?;
            Tally::of(x, decoded)
        });
        // In the order of rows, so that the sum has the same bits whatever the number of threads.
        let tallies = tallies.collect::<Result<Vec<_>>>()?;
        tallies.iter().for_each(|row| tally.add(row));
        Ok(elements)
    }

    /// The importances of a row.
    fn importance_of(&self, row: u64) -> Option<&[f32]> {
        let row_len = self.tensor.row_len() as usize;
        let expert = row / self.tensor.dims[1] % self.tensor.dims[2];
        Some(&self.importance?[expert as usize * row_len..][..row_len])
    }

    fn line(&self, bytes_to: u64, tally: &Tally) -> Result<QuantizedTensor> {
        Ok(QuantizedTensor {
            name: copied_text(&self.tensor.name, "a tensor's name")?,
            shape: copied(self.tensor.shape(), "a tensor's shape")?,
            from: self.tensor.ty,
            to: self.convert.map_or(self.tensor.ty, |(_, to)| TensorType(to.gguf_id())),
            bytes_from: self.tensor.bytes,
            bytes_to,
            error: if tally.values > 0.0 { (tally.errors / tally.values).sqrt() } else { 0.0 },
            weighted: self.importance.is_some(),
        })
    }
}

impl Tally {
    fn of(x: &[f32], decoded: &[f32]) -> Result<Tally> {
        let square = |x: f64| x * x;
        let values: f64 = x.iter().map(|&x| square(x.into())).sum();
        let errors = x.iter().zip(decoded).map(|(&x, &y)| square(f64::from(x) - f64::from(y))).sum();
        if !values.is_finite() {
            return Err(Error::format("a value is infinite or NaN"));
        }
        Ok(Tally { values, errors })
    }

    fn add(&mut self, other: &Tally) {
        self.values += other.values;
        self.errors += other.errors;
    }
}
