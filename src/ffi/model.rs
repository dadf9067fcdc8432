//! Model
//! =====
//! The contents of a model file, ready to run: configuration, weights, vocabulary. A model never changes, so any number
//! of threads and contexts may share it.

use std::ffi::{CString, c_char, c_void};
use std::mem::size_of;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::{ptr, slice};

use super::boundary;
use super::buffers;
use super::handle::{borrow, clear_out, give, take};
use super::log::{SM_LOG_INFO, log};
use super::names::intern;
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use crate::format::{ByteSource, MapSource};
use crate::isa::IsaId;
use crate::kernels::qmatmul::Activations;
use crate::model::{Adapter, LoadParams, Model};
#[cfg(feature = "grammar")]
use crate::runtime::sampling::Grammars;
use crate::{Error, Result};

/// Longest name of an instruction set that is read.
const MAX_ISA_BYTES: usize = 64;

/// Most adapters of a model.
const MAX_ADAPTERS: usize = 64;

/// For `activation_bits`: 16 in blocks with an outlier, else 8.
pub const SM_ACTIVATION_BITS_AUTO: i32 = -1;

/// A loaded model.
pub struct sm_model {
    pub(super) model: Arc<Model>,
    name: CString,
    architecture: CString,
    /// Made by the first sampler with a grammar.
    #[cfg(feature = "grammar")]
    grammars: once_cell::sync::OnceCell<Grammars>,
}

/// Reports the progress of a long call: `fraction` grows from 0 to 1. Any result but 0 cancels the call.
///
/// The callback may be called on threads of the library, but on one at a time. It must return normally: no `longjmp`, no
/// C++ exception.
pub type sm_progress_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, fraction: f32) -> i32>;

/// How to load a model. Fill it with `sm_model_params_init`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_model_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Gets the load's progress, and can cancel it; NULL for none.
    pub progress: sm_progress_callback,
    /// Passed to `progress`.
    pub user_data: *mut c_void,
    /// Instruction set to run on, such as "avx2". NULL takes the one that the environment variable SMALLMIND_ISA names, or
    /// else the CPU's best.
    pub isa: *const c_char,
    /// 1 maps the file into memory instead of reading it. If the file is truncated or changed during the load, the process
    /// dies: map only files that nobody writes to. Default 0.
    pub memory_map: i32,
    /// Bits that activations are rounded to where weights are quantised. 16 is as good as unrounded; 8 is coarser and about
    /// twice as fast on prompts; SM_ACTIVATION_BITS_AUTO uses 16 in blocks with an outlier and 8 elsewhere. 0, the default,
    /// for SM_ACTIVATION_BITS_AUTO in encoders that give vectors, whose cosine stays above 0.999, and for 16 elsewhere.
    pub activation_bits: i32,
    /// 1 takes a pre-tokenizer of an unknown name (`tokenizer.ggml.pre`) for the default one; words are then cut differently
    /// than in training. 0, the default, leaves the model without a tokenizer.
    pub default_pre_tokenizer: i32,
    /// 0.
    pub reserved: i32,
    /// Low-rank adapters (LoRA) that change the model: `n_adapters` paths of GGUF files, as llama.cpp reads and writes them.
    /// NULL, the default, for none.
    pub adapters: *const *const c_char,
    /// The scale of each adapter; NULL for 1 everywhere.
    pub adapter_scales: *const f32,
    /// Number of adapters, at most 64. Default 0.
    pub n_adapters: usize,
}

// SAFETY: repr(C); integers, raw pointers and an optional function pointer.
unsafe impl Versioned for sm_model_params {
    const NAME: &'static str = "sm_model_params";

    fields!(
        struct_size,
        progress,
        user_data,
        isa,
        memory_map,
        activation_bits,
        default_pre_tokenizer,
        reserved,
        adapters,
        adapter_scales,
        n_adapters
    );
}

// SAFETY: struct_size is first.
unsafe impl Params for sm_model_params {
    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            progress: None,
            user_data: ptr::null_mut(),
            isa: ptr::null(),
            memory_map: 0,
            activation_bits: 0,
            default_pre_tokenizer: 0,
            reserved: 0,
            adapters: ptr::null(),
            adapter_scales: ptr::null(),
            n_adapters: 0,
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

/// A description of a model. Strings live as long as the model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_model_info {
    /// The name that the file gives, or "".
    pub name: *const c_char,
    /// Family, such as "llama".
    pub architecture: *const c_char,
    /// Instruction set that the model runs on, such as "avx512".
    pub isa: *const c_char,
    /// Elements of all tensors in the file.
    pub n_parameters: u64,
    /// Bytes that the weights take in memory.
    pub weight_bytes: u64,
    /// Tokens in the vocabulary; every token is below it.
    pub n_vocab: u64,
    /// Positions that the model was trained on. Where positions are learned, no context can have more.
    pub n_ctx_train: u64,
    /// Transformer blocks.
    pub n_layer: u64,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Query heads.
    pub n_head: u64,
    /// Key and value heads.
    pub n_head_kv: u64,
    /// Dimensions of a head.
    pub head_dim: u64,
    /// Width inside the MLP.
    pub n_ff: u64,
    /// 1 if the file has a vocabulary that this library can tokenise with, else 0.
    pub has_tokenizer: i32,
    /// 1 if the file has a chat template, else 0.
    pub has_chat_template: i32,
}

// SAFETY: repr(C); integers and raw pointers.
unsafe impl Versioned for sm_model_info {
    const NAME: &'static str = "sm_model_info";

    fields!(
        name,
        architecture,
        isa,
        n_parameters,
        weight_bytes,
        n_vocab,
        n_ctx_train,
        n_layer,
        n_embd,
        n_head,
        n_head_kv,
        head_dim,
        n_ff,
        has_tokenizer,
        has_chat_template
    );
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_model_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_params_init(params: *mut sm_model_params, struct_size: usize) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Loads the model at `path` (NUL-terminated; on Unix any bytes, elsewhere UTF-8) into `*model`, which you
/// free with `sm_model_free`. `params` may be NULL.
///
/// `path` is a GGUF file; the first part of a split one (`NAME-00001-of-00003.gguf`), whose other parts are opened next to
/// it; or a folder of Hugging Face (`config.json`, `model.safetensors` or several such files with their index,
/// `tokenizer.json`), which is read without a copy, and can't be mapped. A file of llama2.c has no
/// vocabulary in it: `smallmind convert` makes a GGUF file of it and its `tokenizer.bin`.
///
/// `SM_STATUS_IO`: a file doesn't exist or can't be read. `SM_STATUS_FORMAT`: it is no GGUF file, is truncated, or
/// contradicts itself or another one; a part or a tensor is missing. `SM_STATUS_UNSUPPORTED`: its model family, the class in
/// `config.json` or an element type is unknown; the message has those that are known.
/// An adapter of another model, with a tensor that isn't the matrix of one product, or cut off, is `SM_STATUS_FORMAT` or
/// `SM_STATUS_UNSUPPORTED`, and the message names file and tensor; a scale that isn't finite is
/// `SM_STATUS_INVALID_ARGUMENT`.
/// `SM_STATUS_CANCELLED`: by the progress callback. `SM_STATUS_OUT_OF_MEMORY`. `SM_STATUS_NO_THREADS`: the system starts no
/// threads to load with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_load(
    path: *const c_char,
    params: *const sm_model_params,
    model: *mut *mut sm_model,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(model, "model")?;
        let path = buffers::path(path)?;
        let params = params::read(params)?;
        if boolean(params.memory_map, "memory_map")? {
            // The host vouches for the file, by the header's words on `memory_map`.
            load(params, model, |params| Model::from_source(Arc::new(MapSource::open(&path)?), params))
        } else {
            load(params, model, |params| Model::open(&path, params))
        }
    })
}

/// Loads a model from the contents of a GGUF file: `size` bytes at `data`, which are read during the call only. Otherwise
/// as `sm_model_load`; `memory_map` has no effect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_load_memory(
    data: *const c_void,
    size: usize,
    params: *const sm_model_params,
    model: *mut *mut sm_model,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(model, "model")?;
        let bytes = buffers::array(data.cast::<u8>(), size, "data")?;
        let source = Arc::new(HostBytes::new(bytes));
        load(params::read(params)?, model, |params| Model::from_source(source, params))
    })
}

/// Loads the model that is built into the library: it writes short stories for children, of up to 256 tokens. Otherwise as
/// `sm_model_load`; `memory_map` has no effect. `SM_STATUS_UNSUPPORTED`: the library was built without it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_load_builtin(
    params: *const sm_model_params,
    model: *mut *mut sm_model,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call_with_spare(|| unsafe {
        clear_out(model, "model")?;
        load(params::read(params)?, model, builtin)
    })
}

#[cfg(feature = "builtin")]
fn builtin(params: &LoadParams<'_>) -> Result<Arc<Model>> {
    Model::builtin(params)
}

#[cfg(not(feature = "builtin"))]
fn builtin(_: &LoadParams<'_>) -> Result<Arc<Model>> {
    Err(Error::Unsupported(
        "the built-in model: this library was built without it (feature 'builtin')".into(),
    ))
}

/// Frees a model; NULL is fine. Contexts and samplers that were made from it go on working.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_free(model: *mut sm_model) -> sm_status {
    boundary::call(|| {
        if !model.is_null() {
            // SAFETY: the header's contract: from `sm_model_load*` or `sm_model_create_random`, and freed once.
            drop(unsafe { take(model) });
        }
        Ok(())
    })
}

/// Writes a description of the model into `*info`. `struct_size` is `sizeof(sm_model_info)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_model_describe(
    model: *const sm_model,
    info: *mut sm_model_info,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::write(info, &borrow(model, "model")?.info(), struct_size) })
}

impl sm_model {
    fn new(model: Arc<Model>) -> Self {
        let config = model.config();
        let name = c_string(&config.name);
        let architecture = c_string(&config.architecture);
        Self {
            model,
            name,
            architecture,
            #[cfg(feature = "grammar")]
            grammars: once_cell::sync::OnceCell::new(),
        }
    }

    /// Compiles grammars for the model's tokens.
    #[cfg(feature = "grammar")]
    pub(super) fn grammars(&self) -> Result<&Grammars> {
        self.grammars.get_or_try_init(|| Grammars::new(self.model.clone()))
    }

    fn info(&self) -> sm_model_info {
        let config = self.model.config();
        sm_model_info {
            name: self.name.as_ptr(),
            architecture: self.architecture.as_ptr(),
            isa: intern(self.model.kernels().isa.name()),
            n_parameters: self.model.n_parameters(),
            weight_bytes: self.model.weight_bytes() as u64,
            n_vocab: config.n_vocab as u64,
            n_ctx_train: config.n_ctx_train as u64,
            n_layer: config.n_layer() as u64,
            n_embd: config.n_embd as u64,
            n_head: config.first().n_head as u64,
            n_head_kv: config.first().n_head_kv as u64,
            head_dim: config.first().head_dim as u64,
            n_ff: config.first().n_ff as u64,
            has_tokenizer: self.model.tokenizer().is_ok().into(),
            has_chat_template: self.model.chat_template().is_ok().into(),
        }
    }

    /// The line for the log.
    fn summary(&self) -> String {
        let config = self.model.config();
        format!(
            "loaded {:?}: {}, {} layers, {} parameters, weights of {} bytes, on {}",
            config.name,
            config.architecture,
            config.n_layer(),
            self.model.n_parameters(),
            self.model.weight_bytes(),
            self.model.kernels().isa.name()
        )
    }
}

/// Text from a file, up to a NUL that has no business in it.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// The adapters that the parameters name.
///
/// # Safety
/// As the header says of `adapters` and `adapter_scales`.
unsafe fn adapters(params: &sm_model_params) -> Result<Vec<Adapter>, Failure> {
    let count = buffers::at_most(params.n_adapters, MAX_ADAPTERS, "n_adapters")?;
    // SAFETY: the function's contract.
    let paths = unsafe { buffers::array(params.adapters, count, "adapters") }?;
    let scales = match params.adapter_scales.is_null() {
        true => &[],
        // SAFETY: the function's contract.
        false => unsafe { buffers::array(params.adapter_scales, count, "adapter_scales") }?,
    };
    let open = |(i, &path): (usize, &*const c_char)| {
        // SAFETY: the function's contract.
        let path = unsafe { buffers::path(path) }?;
        Ok(Adapter::open(&path)?.with_scale(scales.get(i).copied().unwrap_or(1.0)))
    };
    paths.iter().enumerate().map(open).collect()
}

/// The common part of all loads: reads the parameters and gives out the handle.
///
/// # Safety
/// As the header says of `params`; `out` is writable.
pub(super) unsafe fn load(
    params: sm_model_params,
    out: *mut *mut sm_model,
    open: impl FnOnce(&LoadParams<'_>) -> Result<Arc<Model>>,
) -> Result<(), Failure> {
    let isa = if params.isa.is_null() {
        None
    } else {
        // SAFETY: the header's contract.
        Some(IsaId::parse(unsafe { buffers::string(params.isa, MAX_ISA_BYTES, "isa") }?)?)
    };
    let host = params.progress.map(|callback| HostProgress { callback, user_data: params.user_data });
    let progress = |fraction| host.as_ref().map_or(ControlFlow::Continue(()), |host| host.report(fraction));
    let activations = match params.activation_bits {
        0 => None,
        bits => Some(activations(bits)?),
    };
    // SAFETY: the header's contract.
    let adapters = unsafe { adapters(&params) }?;
    let model = open(&LoadParams {
        isa,
        activations,
        default_pre_tokenizer: boolean(params.default_pre_tokenizer, "default_pre_tokenizer")?,
        adapters: &adapters,
        progress: host.is_some().then_some(&progress),
    })?;
    let model = sm_model::new(model);
    log(SM_LOG_INFO, &model.summary());
    // SAFETY: the function's contract.
    unsafe { give(out, model) };
    Ok(())
}

pub(super) fn activations(bits: i32) -> Result<Activations, Failure> {
    match bits {
        0 => Ok(Activations::default()),
        8 => Ok(Activations::Bits8),
        16 => Ok(Activations::Bits16),
        SM_ACTIVATION_BITS_AUTO => Ok(Activations::Adaptive),
        _ => Err(Failure::invalid(format!(
            "activation_bits is {bits}; it must be 0, 8, 16 or SM_ACTIVATION_BITS_AUTO"
        ))),
    }
}

/// The host's progress callback.
struct HostProgress {
    callback: unsafe extern "C" fn(*mut c_void, f32) -> i32,
    user_data: *mut c_void,
}

// SAFETY: the host promises that the callback may run on any thread; the loader calls one at a time.
unsafe impl Sync for HostProgress {}

impl HostProgress {
    fn report(&self, fraction: f32) -> ControlFlow<()> {
        // SAFETY: the host gave a function of this signature with its user_data for the length of the call.
        match unsafe { (self.callback)(self.user_data, fraction) } {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

/// The host's bytes, which live for the length of one call.
pub(super) struct HostBytes {
    data: *const u8,
    len: usize,
}

impl HostBytes {
    /// # Safety
    /// `bytes` outlives the source: a reader must not keep it. The loader doesn't, since it repacks all it needs.
    pub(super) unsafe fn new(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), len: bytes.len() }
    }
}

// SAFETY: bytes that nobody changes during the call.
unsafe impl Send for HostBytes {}
// SAFETY: as above.
unsafe impl Sync for HostBytes {}

impl ByteSource for HostBytes {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn name(&self) -> &str {
        "the caller's memory"
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        // SAFETY: `new`'s contract.
        let bytes = unsafe { slice::from_raw_parts(self.data, self.len) };
        let range = usize::try_from(offset).ok().and_then(|begin| bytes.get(begin..)?.get(..buf.len()));
        let range = range.ok_or_else(|| {
            let (name, want) = (self.name(), buf.len());
            Error::format(format!(
                "{name}: {want} bytes at {offset} are past the end, which is at {}",
                self.len
            ))
        })?;
        buf.copy_from_slice(range);
        Ok(())
    }
}
