//! Loads weights from a file into memory: in parallel, straight into the form that kernels read.
//! Peak memory is the packed weights and a chunk of about a megabyte for each loading thread.

use std::iter::repeat_n;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::load::Progress;
use super::weights::{ExpertRows, Form, Loaded, Source, TensorSpec, WeightSpecs, Weights};
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, TensorInfo};
use crate::kernels::KernelSet;
use crate::memory::reserve::{collected, reserve};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::ops::matrix::{PackedMatrix, Packing};
use crate::profile::{self, Zone};
use crate::quant;

/// Bytes of a tensor that one loading job reads at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// A run of a tensor's rows and the memory that they are packed into.
struct Job<'a> {
    gguf: &'a Gguf,
    tensor: &'a TensorInfo,
    spec: &'a TensorSpec,
    /// First row of the tensor that the specification takes.
    first: usize,
    /// Bytes of a row in the file.
    row_bytes: usize,
    /// The rows, counted from `first`.
    row_begin: usize,
    row_end: usize,
    target: Target<'a>,
}

enum Target<'a> {
    Floats(&'a mut [f32]),
    Raw(&'a mut [u8]),
    Panels { packing: Packing, out: &'a mut [u8] },
}

/// Reads and packs all weights, on the threads of the pool. The files are the model's, then those of adapters.
pub(super) fn load_weights(
    files: &[&Gguf],
    specs: &WeightSpecs,
    kernels: &KernelSet,
    pool: &ThreadPool,
    progress: Option<Progress<'_>>,
) -> Result<Weights> {
    let path = profile::current_path();
    let _zone = profile::scope(Zone::LoadRepack);
    let mut weights = reserve_weights(specs, kernels)?;
    let mut jobs = Vec::new();
    for (weight, spec) in weights.iter_mut().zip(specs.tensors()) {
        let (first, stride, of) = match (spec.source, &mut *weight) {
            (Source::Rows { first, of }, _) => (first, 0, of),
            (Source::Transposed, _) => (0, 0, spec.n),
            (Source::Experts(ExpertRows { count, stride, first }), _) => (first, stride, count * stride),
            (Source::Constant(value), Loaded::Floats(buf)) => {
                buf.as_mut_slice::<f32>().fill(value);
                continue;
            }
            (Source::Constant(_), _) => return Err(Error::Internal("a constant that is no vector".into())),
        };
        let gguf = *files
            .get(spec.file)
            .ok_or_else(|| Error::Internal(format!("no file {} of weights", spec.file)))?;
        let tensor = gguf
            .tensor(&spec.name)
            .ok_or_else(|| Error::format(format!("tensor {} is missing", spec.name)))?;
        let row_bytes = (tensor.bytes / of as u64).max(1) as usize;
        split(weight, (spec, gguf, tensor), (first, stride, row_bytes), &mut jobs)?;
    }
    let total: u64 = jobs.iter().map(|job| (job.row_end - job.row_begin) as u64 * job.spec.k as u64).sum();
    let meter = Meter::new(total, progress);
    pool.install(|| {
        jobs.par_iter_mut().try_for_each_init(Vec::new, |scratch, job| {
            let _adopted = profile::adopt(path.as_ref());
            let _help = profile::assist(Zone::LoadRepack);
            run_job(job, scratch)?;
            meter.advance((job.row_end - job.row_begin) as u64 * job.spec.k as u64)
        })
    })?;
    drop(jobs);
    specs.assemble(weights)
}

/// Reserves room for all tensors, in one piece of memory.
fn reserve_weights(specs: &WeightSpecs, kernels: &KernelSet) -> Result<Vec<Loaded>> {
    const WHAT: &str = "the list of weights";
    let tensors = || specs.tensors().iter().enumerate();
    let room = |(i, spec): (usize, &TensorSpec)| Room::of(specs.form(i), spec, kernels);
    let rooms = collected(tensors().map(room), WHAT)?;
    let mut sizes = Vec::new();
    for (room, spec) in rooms.iter().zip(specs.tensors()) {
        let size = room.bytes(spec)?;
        reserve(&mut sizes, spec.matrices(), WHAT)?;
        sizes.extend(repeat_n(size, spec.matrices()));
    }
    let mut buffers = AlignedBuf::zeroed_together(&sizes, "weights")?.into_iter();
    let loaded = rooms.into_iter().zip(specs.tensors());
    collected(loaded.map(|(room, spec)| room.fill(spec, &mut buffers)), WHAT)
}

fn no_whole_blocks(spec: &TensorSpec) -> Error {
    Error::format(format!("tensor {}: rows of {} are no whole blocks", spec.name, spec.k))
}

/// The form in which a tensor is to be kept, and its size.
enum Room {
    Floats,
    Table,
    Matrix(Packing),
}

impl Room {
    fn of(form: Form, spec: &TensorSpec, kernels: &KernelSet) -> Result<Room> {
        match form {
            Form::Floats => Ok(Room::Floats),
            Form::Table => Ok(Room::Table),
            Form::Matrix if !spec.k.is_multiple_of(spec.dtype.block_len()) => Err(no_whole_blocks(spec)),
            Form::Matrix => Packing::new(kernels, spec.dtype, spec.k).map(Room::Matrix),
        }
    }

    fn bytes(&self, spec: &TensorSpec) -> Result<usize> {
        let row = match self {
            Room::Matrix(packing) => return packing.bytes(spec.n),
            Room::Floats => checked_bytes(spec.k, size_of::<f32>(), "weights")?,
            Room::Table => spec.dtype.row_bytes(spec.k).ok_or_else(|| no_whole_blocks(spec))?,
        };
        checked_bytes(row, spec.n, "weights")
    }

    /// The tensor in the next buffers, one for each of its matrices.
    fn fill(self, spec: &TensorSpec, buffers: &mut impl Iterator<Item = AlignedBuf>) -> Result<Loaded> {
        let mut next = || buffers.next().ok_or_else(|| Error::Internal("a tensor without memory".into()));
        Ok(match self {
            Room::Floats => Loaded::Floats(next()?),
            Room::Table => Loaded::Table(next()?),
            Room::Matrix(packing) => {
                let matrices =
                    (0..spec.matrices()).map(|_| PackedMatrix::in_buffer(packing, spec.n, next()?));
                Loaded::Matrices(collected(matrices, "the list of weights")?)
            }
        })
    }
}

/// Divides a tensor into jobs of about [`CHUNK_BYTES`]. Its matrices, if it has several, are `stride` rows apart.
fn split<'a>(
    weight: &'a mut Loaded,
    (spec, gguf, tensor): (&'a TensorSpec, &'a Gguf, &'a TensorInfo),
    (first, stride, row_bytes): (usize, usize, usize),
    jobs: &mut Vec<Job<'a>>,
) -> Result<()> {
    let mut push = |matrix: usize, row_begin: usize, rows: usize, target| {
        reserve(jobs, 1, "the list of loading jobs")?;
        let (first, row_end) = (first + matrix * stride, (row_begin + rows).min(spec.n));
        jobs.push(Job { gguf, tensor, spec, first, row_bytes, row_begin, row_end, target });
        Ok::<_, Error>(())
    };
    match weight {
        Loaded::Floats(buf) => {
            let rows = (CHUNK_BYTES / row_bytes).max(1);
            for (i, chunk) in buf.as_mut_slice::<f32>().chunks_mut(rows * spec.k).enumerate() {
                push(0, i * rows, rows, Target::Floats(chunk))?;
            }
        }
        Loaded::Table(buf) => {
            let rows = (CHUNK_BYTES / row_bytes).max(1);
            for (i, chunk) in buf.as_mut_slice::<u8>().chunks_mut(rows * row_bytes).enumerate() {
                push(0, i * rows, rows, Target::Raw(chunk))?;
            }
        }
        Loaded::Matrices(matrices) => {
            for (matrix, packed) in matrices.iter_mut().enumerate() {
                let packing = packed.packing();
                let panels = (CHUNK_BYTES / (row_bytes * packing.panel_rows())).max(1);
                let rows = panels * packing.panel_rows();
                for (i, out) in packed.panels_mut().chunks_mut(panels * packing.panel_bytes()).enumerate() {
                    push(matrix, i * rows, rows, Target::Panels { packing, out })?;
                }
            }
        }
    }
    Ok(())
}

fn run_job(job: &mut Job<'_>, scratch: &mut Vec<u8>) -> Result<()> {
    let offset = job.row_bytes as u64 * (job.first + job.row_begin) as u64;
    let bytes = job.row_bytes * (job.row_end - job.row_begin);
    if let Target::Raw(out) = &mut job.target {
        let _zone = profile::assist(Zone::LoadRead).work(0, bytes as u64);
        return job.gguf.read_tensor(job.tensor, offset, out);
    }
    if scratch.len() < bytes {
        reserve(scratch, bytes - scratch.len(), "a loading buffer")?;
        scratch.resize(bytes, 0);
    }
    let raw = &mut scratch[..bytes];
    job.gguf.read_tensor(job.tensor, offset, raw)?;
    match &mut job.target {
        Target::Floats(out) => quant::decode_row(job.spec.dtype, raw, out),
        Target::Panels { packing, out } => packing.pack(raw, out),
        Target::Raw(_) => Ok(()),
    }
}

/// Adds up finished work and reports it to the caller; remembers a cancellation.
struct Meter<'a> {
    total: u64,
    done: Mutex<u64>,
    cancelled: AtomicBool,
    progress: Option<Progress<'a>>,
}

impl<'a> Meter<'a> {
    fn new(total: u64, progress: Option<Progress<'a>>) -> Self {
        Meter { total, done: Mutex::new(0), cancelled: AtomicBool::new(false), progress }
    }

    fn advance(&self, elements: u64) -> Result<()> {
        let Some(progress) = self.progress else { return Ok(()) };
        // The callback runs under the lock: one thread at a time, never backwards.
        let mut done = self.done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *done += elements;
        if self.cancelled.load(Ordering::Relaxed) || progress(*done as f32 / self.total as f32).is_break() {
            self.cancelled.store(true, Ordering::Relaxed);
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}
