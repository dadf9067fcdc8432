//! Weights as a GGUF file, and the whole state of a trainer, from which another one goes on bit for bit.
//!
//! A state is a GGUF file, too: the bytes of the file of weights are one of its tensors, the optimizer's moments are two
//! others, in the trainer's layout; the number of steps stands among the pairs.

use std::sync::Arc;

use super::parameters::Parameter;
use super::params::TrainParams;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::gguf::{Gguf, Header, Metadata, TensorEntry, TensorInfo, TensorType, Value};
use crate::memory::AlignedBuf;
use crate::memory::reserve::{collected, copied, copied_text, filled, with_room};
use crate::model::Adapter;
use crate::quant::DType;
use crate::text::escaped;
use crate::threads::Team;

/// Bytes that are written at a time, about.
const CHUNK: usize = 1 << 20;
/// The purpose of the memory, in errors.
const WHAT: &str = "a saved model";
/// Keys whose values are those of new weights.
const REPLACED: [&str; 2] = ["general.file_type", "general.quantization_version"];
/// GGUF's number of the type of bytes.
const BYTES: u32 = 24;

/// The kind of file that a state is, in its `general.type`.
const KIND: &str = "training-state";
const STEPS: &str = "training.steps";
const OPTIMIZER: &str = "training.optimizer";
const NOTE: &str = "training.note";
/// The tensor of the model's bytes, and those of the optimizer's moments.
const MODEL: &str = "training.model";
const MOMENTS: [&str; 2] = ["training.moments.first", "training.moments.second"];

/// What takes a file's bytes, in their order.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

impl Trainer {
    /// The header of the file of weights, and the parameter of each of its tensors that is trained.
    fn header(&self) -> Result<(Header, Vec<Option<&Parameter>>)> {
        let tensors = self.gguf.tensors();
        let trained = |tensor: &TensorInfo| self.parameters.list.iter().find(|p| p.name == tensor.name);
        let trained = collected(tensors.iter().map(|tensor| Ok(trained(tensor))), WHAT)?;
        let entries = tensors.iter().zip(&trained).map(|(tensor, parameter)| {
            Ok(TensorEntry {
                name: copied_text(&tensor.name, WHAT)?,
                dims: copied(tensor.shape(), WHAT)?,
                ty: parameter.map_or(tensor.ty, |_| TensorType(DType::F32.gguf_id())),
            })
        });
        let all_f32 = Value::U32(0);
        let metadata = self.gguf.metadata();
        let kept = metadata.iter().filter(|(key, _)| !REPLACED.contains(key) && !key.starts_with("split."));
        let mut pairs = with_room(metadata.len() + 1, WHAT)?;
        pairs.extend(kept);
        pairs.push((REPLACED[0], &all_f32));
        Ok((Header::of(pairs.into_iter(), &collected(entries, WHAT)?)?, trained))
    }

    /// Hands out the bytes of a GGUF file with the weights in f32, which [`Model::open`](crate::model::Model::open) and
    /// llama.cpp load. Metadata, and tensors that aren't trained, are those of the file that the trainer was made from. Of
    /// an adapter, it is the adapter's file, which [`Adapter::from_source`] and llama.cpp load.
    ///
    /// # Errors
    /// Those of reading that file and of `write`; [`Error::OutOfMemory`].
    pub fn write_model(&self, write: Sink<'_>) -> Result<()> {
        let (header, trained) = self.header()?;
        write(&header.bytes)?;
        let mut at = header.bytes.len() as u64;
        let places = header.offsets.iter().zip(&header.sizes);
        for ((tensor, parameter), (&offset, &size)) in self.gguf.tensors().iter().zip(trained).zip(places) {
            write(&[0; 64][..(offset - at) as usize])?;
            at = offset + size;
            match parameter {
                Some(parameter) => put_floats(self.weights(parameter), write)?,
                None => self.put_untrained(tensor, size, write)?,
            }
        }
        Ok(())
    }

    /// Bytes of a tensor as they are in the trainer's file.
    fn put_untrained(&self, tensor: &TensorInfo, size: u64, write: Sink<'_>) -> Result<()> {
        let mut bytes = filled(0u8, CHUNK.min(size as usize), WHAT)?;
        let mut at = 0;
        while at < size {
            let bytes = &mut bytes[..CHUNK.min((size - at) as usize)];
            self.gguf.read_tensor(tensor, at, bytes)?;
            write(bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// Hands out the bytes of a file with the whole state: weights, moments, the number of steps and the host's note.
    /// [`Trainer::resume`] goes on from it.
    ///
    /// # Errors
    /// As [`Trainer::write_model`].
    pub fn write_state(&self, write: Sink<'_>) -> Result<()> {
        let (model, _) = self.header()?;
        let mut metadata = Metadata::new();
        metadata.insert("general.type".into(), Value::Str(KIND.into()))?;
        metadata.insert(STEPS.into(), Value::U64(self.steps))?;
        metadata.insert(OPTIMIZER.into(), Value::Str(self.params().optimizer.name().into()))?;
        metadata.insert(NOTE.into(), Value::Str(copied_text(&self.note, WHAT)?))?;
        let moments = self.memory.moments.iter().filter(|moments| !moments.is_empty());
        let entry = |name: &str, elements: u64, ty: u32| {
            Ok(TensorEntry { name: name.to_owned(), dims: vec![elements], ty: TensorType(ty) })
        };
        let floats = |(name, moments): (&&str, &AlignedBuf)| {
            entry(name, (moments.len() / size_of::<f32>()) as u64, DType::F32.gguf_id())
        };
        let entries = [entry(MODEL, model.file_len, BYTES)].into_iter();
        let entries = entries.chain(MOMENTS.iter().zip(moments.clone()).map(floats));
        let header = Header::new(&metadata, &collected(entries, WHAT)?)?;
        write(&header.bytes)?;
        self.write_model(write)?;
        for (i, moments) in moments.enumerate() {
            let end = header.offsets[i] + header.sizes[i];
            write(&[0; 64][..(header.offsets[i + 1] - end) as usize])?;
            put_floats(moments.as_slice(), write)?;
        }
        Ok(())
    }

    /// A trainer that goes on from a state: with the same parameters, batches and instruction set, it makes the same steps
    /// to the bit as the one that wrote the state.
    ///
    /// # Errors
    /// [`Error::Format`] where the source is no state or contradicts itself; [`Error::InvalidArgument`] for a state of
    /// another optimizer; those of [`Trainer::new`].
    pub fn resume(source: Arc<dyn ByteSource>, params: &TrainParams, team: Arc<Team>) -> Result<Trainer> {
        Trainer::resume_with(source, params, |part| Trainer::new(part, params, team))
    }

    /// [`Trainer::resume`] for the state of an adapter ([`Trainer::new_adapter`]): `source` is the model that it changes, and
    /// `state` has the adapter.
    ///
    /// # Errors
    /// As [`Trainer::resume`]; as [`read_adapted_graph`](crate::model::read_adapted_graph) for an adapter of another model.
    pub fn resume_adapter(
        source: Arc<dyn ByteSource>,
        state: Arc<dyn ByteSource>,
        params: &TrainParams,
        team: Arc<Team>,
    ) -> Result<Trainer> {
        Trainer::resume_with(state, params, |part| {
            Trainer::of_adapter(source, Adapter::from_source(part)?, params, team)
        })
    }

    /// A trainer that goes on from a state, made by `make` from the file of what is trained.
    fn resume_with(
        source: Arc<dyn ByteSource>,
        params: &TrainParams,
        make: impl FnOnce(Arc<dyn ByteSource>) -> Result<Trainer>,
    ) -> Result<Trainer> {
        let name = escaped(source.name()).to_string();
        let wrong = |what: &str| Error::format(format!("{name}: {what}"));
        let state = Gguf::open(source.clone())?;
        let metadata = state.metadata();
        if metadata.get_str("general.type")? != Some(KIND) {
            return Err(wrong("it is no state of a training"));
        }
        let steps = metadata.get_u64(STEPS)?.ok_or_else(|| wrong("the number of steps is missing"))?;
        let optimizer = metadata.require_str(OPTIMIZER)?;
        if optimizer != params.optimizer.name() {
            let (has, wants) = (escaped(optimizer), params.optimizer.name());
            return Err(Error::invalid(format!("{name}: a state of {has}, not of {wants}")));
        }
        let tensor =
            |tensor: &str| state.tensor(tensor).ok_or_else(|| wrong(&format!("tensor {tensor} is missing")));
        let model = tensor(MODEL)?;
        let part = Part { name: name.clone(), begin: model.offset, len: model.bytes, source };
        let mut trainer = make(Arc::new(part))?;
        for (name, moments) in MOMENTS.iter().zip(&mut trainer.memory.moments) {
            if moments.is_empty() {
                continue;
            }
            let tensor = tensor(name)?;
            if tensor.ty.dtype() != Some(DType::F32) || tensor.bytes != moments.len() as u64 {
                return Err(wrong("moments of another model"));
            }
            read_floats(&state, tensor, moments)?;
        }
        trainer.steps = steps;
        trainer.note = copied_text(metadata.get_str(NOTE)?.unwrap_or_default(), WHAT)?;
        Ok(trainer)
    }
}

#[cfg(feature = "report")]
impl Trainer {
    /// Writes the weights to a GGUF file, which appears whole or not at all: see [`Trainer::write_model`].
    ///
    /// # Errors
    /// [`Error::Io`] with the path; then the file that stood there before still does. Those of [`Trainer::write_model`].
    pub fn save_model(&self, path: &std::path::Path) -> Result<()> {
        let mut draft = crate::files::Draft::new(path, crate::files::Existing::Replace)?;
        self.write_model(&mut |bytes| draft.write(bytes))?;
        draft.publish()
    }

    /// Writes the whole state to a file, which appears whole or not at all: see [`Trainer::write_state`].
    ///
    /// # Errors
    /// As [`Trainer::save_model`].
    pub fn save_state(&self, path: &std::path::Path) -> Result<()> {
        let mut draft = crate::files::Draft::new(path, crate::files::Existing::Replace)?;
        self.write_state(&mut |bytes| draft.write(bytes))?;
        draft.publish()
    }
}

/// Hands out floats as little-endian bytes.
fn put_floats(floats: &[f32], write: Sink<'_>) -> Result<()> {
    let mut bytes = with_room(CHUNK.min(size_of_val(floats)), WHAT)?;
    for chunk in floats.chunks(CHUNK / size_of::<f32>()) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
        write(&bytes)?;
    }
    Ok(())
}

/// Fills a buffer with the floats of a tensor of as many.
fn read_floats(gguf: &Gguf, tensor: &TensorInfo, out: &mut AlignedBuf) -> Result<()> {
    let mut bytes = filled(0u8, CHUNK.min(out.len()), WHAT)?;
    for (i, floats) in out.as_mut_slice::<f32>().chunks_mut(CHUNK / size_of::<f32>()).enumerate() {
        let bytes = &mut bytes[..size_of_val(floats)];
        gguf.read_tensor(tensor, (i * CHUNK) as u64, bytes)?;
        for (float, bytes) in floats.iter_mut().zip(bytes.as_chunks().0) {
            *float = f32::from_le_bytes(*bytes);
        }
    }
    Ok(())
}

/// A run of another source's bytes.
struct Part {
    source: Arc<dyn ByteSource>,
    name: String,
    begin: u64,
    len: u64,
}

impl ByteSource for Part {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.len);
        if end.is_none() {
            let (name, len, bytes) = (&self.name, self.len, buf.len());
            return Err(Error::format(format!(
                "{name}: {bytes} bytes at {offset} are past the end of the model, which is at {len}"
            )));
        }
        self.source.read_at(self.begin + offset, buf)
    }
}
