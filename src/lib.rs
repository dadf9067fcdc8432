//! Small language models on a CPU, as fast as the CPU can go, with an account of where time and memory went.
//!
//! # Generate text
//!
//! ```
//! # #[cfg(feature = "models")]
//! # fn main() -> smallmind::Result<()> {
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use smallmind::model::{LoadParams, Model};
//! use smallmind::runtime::generate::generate;
//! use smallmind::runtime::sampling::{Sampler, SamplerParams};
//! use smallmind::runtime::{Context, ContextParams};
//!
//! # let Ok(file) = std::env::var("SMALLMIND_DOC_MODEL") else { return Ok(()) };
//! let model = Model::open(Path::new(&file), &LoadParams::default())?;
//! let prompt = model.tokenizer()?.encode("Once upon a time", false, true)?;
//! let mut sampler = Sampler::new(SamplerParams::default().with_seed(1), model.config().n_vocab)?;
//! let mut context = Context::new(model, &ContextParams::default().with_n_ctx(512))?;
//! generate(&mut context, &mut sampler, &prompt, 64, &mut |_token, text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "models"))]
//! # fn main() {}
//! ```
//!
//! # Multiply matrices in your own program
//!
//! ```
//! use smallmind::kernels::{KernelSet, matmul::Matrix};
//! use smallmind::ops::{Matmul, PackedMatrix, Workspace};
//! use smallmind::threads::Team;
//!
//! // C = A · Bᵀ for 512 rows of A and a layer's weights, 768 rows of 256, packed once.
//! let (m, n, k) = (512, 768, 256);
//! let (a, weights, mut c) = (vec![0.5; m * k], vec![2.0; n * k], vec![0.0; m * n]);
//! let (kernels, team, mut workspace) = (KernelSet::default_set()?, Team::new(2)?, Workspace::default());
//! let b = Matrix { data: &weights[..], ld: k, transposed: true };
//! let packed = PackedMatrix::pack(kernels, k, n, b, Some(&team))?;
//! let product = Matmul::new(m, Matrix { data: &a[..], ld: k, transposed: false }, &packed);
//! product.run(&mut c, n, Some(&team), &mut workspace)?;
//! assert!(c.iter().all(|x| *x == 256.0));
//! # Ok::<(), smallmind::Error>(())
//! ```
//!
//! # Profile
//!
//! ```
//! use smallmind::ops::{Input, RowShape, softmax};
//! use smallmind::profile;
//!
//! profile::set_enabled(true);
//! let mut x = vec![1.0; 64 * 1000];
//! {
//!     let _mine = profile::scope(profile::zone("scores")?);
//!     softmax(Input::InPlace, &mut x, RowShape::new(64, 1000), &Default::default(), None)?;
//! }
//! println!("{}", profile::render_table(&profile::snapshot()));
//! # Ok::<(), smallmind::Error>(())
//! ```
//!
//! # List the kernels of this build and CPU
//!
//! ```
//! for kernel in smallmind::kernels::enumerate() {
//!     let here = if kernel.isa.is_available() { "runs here" } else { "needs another CPU" };
//!     println!("{:<12} {:<6} {:<12} {here}", kernel.op, kernel.dtype, kernel.isa.name());
//! }
//! ```
//!
//! # Features
//!
//! | feature | contents |
//! |---|---|
//! | none | [`kernels`], [`ops`] on a [team](threads), [quantised formats](quant), [GGUF files](mod@format), [counters](profile) |
//! | `models` (default) | families, tokenizers, chat templates, contexts, generation, [many requests at once](serve), [vectors of texts](embed), [training](train) |
//! | `grammar` | text that matches a JSON schema, a regular expression or a grammar |
//! | `report` | profiles that are kept, drawn and compared; files that appear whole or not at all |
//! | `capi` | the C ABI, and its header at build time |
//! | `counting-alloc` | installs the allocator that counts for the profile |
//!
//! # Design
//!
//! Each module uses only modules on lower floors, and a test reads the source to see that it is so. From the top: `ffi` ·
//! `embed` · `train`, `serve` · `runtime`, `report` · `model` · `kv`, `tokenizer`, `chat` · `ops`, `format` · `kernels`, `threads` ·
//! `memory` · `isa`, `quant`, `profile` · `error` · `text`. `docs/DESIGN.md` says why.

mod arrays;
#[cfg(feature = "models")]
pub mod chat;
mod cpu;
#[cfg(feature = "models")]
pub mod embed;
pub mod error;
#[cfg(feature = "capi")]
pub mod ffi;
#[cfg(feature = "report")]
pub mod files;
pub mod format;
pub mod isa;
pub mod kernels;
#[cfg(feature = "models")]
pub mod kv;
pub mod memory;
#[cfg(feature = "models")]
pub mod model;
pub mod ops;
pub mod profile;
pub mod quant;
#[cfg(feature = "report")]
pub mod report;
#[cfg(feature = "models")]
pub mod runtime;
#[cfg(feature = "models")]
pub mod serve;
mod sort;
#[cfg(test)]
mod testing;
pub mod text;
pub mod threads;
#[cfg(feature = "report")]
mod time;
#[cfg(feature = "models")]
pub mod tokenizer;
#[cfg(feature = "models")]
pub mod train;

pub use error::{Error, Result};
