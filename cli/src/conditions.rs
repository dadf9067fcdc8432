//! Under which conditions a model is measured: what `bench` and `profile --model` are told alike.

use clap::Args as Group;
use smallmind::isa::IsaId;
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::{Adapter, LoadParams};

use crate::adapters::AdapterArgs;
use crate::values::{activations, cache_type, count, isa};

#[derive(Group, Clone, Debug)]
pub struct Conditions {
    #[command(flatten)]
    pub arithmetic: Arithmetic,
    /// Positions filled before the measurement, several separated by commas
    #[arg(short, long, value_name = "N", value_delimiter = ',', default_value = "0", value_parser = count())]
    pub depth: Vec<usize>,
}

/// How a model computes.
#[derive(Group, Clone, Debug)]
pub struct Arithmetic {
    /// Bits that activations keep at matmuls with quantised weights: 16 is as good as unrounded, 8 (as in
    /// llama.cpp) is faster, auto is 16 in blocks with an outlier and 8 elsewhere [default: auto for encoders that
    /// give vectors, else 16]
    #[arg(long, value_name = "16|auto|8", value_parser = activations)]
    pub activations: Option<Activations>,
    /// What the cache of keys and values holds: fewer bytes are faster deep in a text; f16 is as good as f32
    #[arg(long, value_name = "f32|f16|q8_0", default_value = "f16", value_parser = cache_type)]
    pub kv: CacheType,
    /// Instruction set of the kernels: see `smallmind kernels` [default: SMALLMIND_ISA, else this CPU's best]
    #[arg(long, value_name = "NAME", value_parser = isa)]
    pub isa: Option<IsaId>,
    #[command(flatten)]
    pub adapters: AdapterArgs,
}

impl Arithmetic {
    /// What loads a model that computes so, with the adapters that [`AdapterArgs::open`] opened.
    pub fn load_params<'a>(&self, adapters: &'a [Adapter]) -> LoadParams<'a> {
        LoadParams::default().with_isa(self.isa).with_activations(self.activations).with_adapters(adapters)
    }
}
