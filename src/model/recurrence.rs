//! The configuration of recurrent layers: their kinds and sizes, read from GGUF metadata, and which layers have them;
//! the delta rule's operation in the graph, and how the builder reads recurrences.

use super::builder::Builder;
use super::config::{Config, LayerConfig, MAX_DIM, MAX_HEAD_DIM};
use super::graph::{Conv, Op, RowSet, Scan, ScanShape, Shape, Value};
use super::keys::Keys;
use super::weights::VectorId;
use crate::error::{Error, Result};
use crate::kernels::recurrence::{KeyHeads, TAPS};

/// Longest convolution taken from a file; there may be kernels for fewer tokens.
const MAX_TAPS: usize = 64;
/// Most numbers that an element of a head keeps. With it, a sequence's state is bounded by the tensors of its model.
const MAX_STATE: usize = 4096;

/// A layer's recurrence over the tokens of a sequence, in place of attention or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recurrence {
    /// A convolution between two gates (LFM2), over this many tokens.
    ShortConv(usize),
    /// A state space whose channels have decays of their own (Mamba).
    Mamba(StateSpace),
    /// A state space with heads (Mamba-2).
    Mamba2(StateSpace),
    /// A gated delta net (Qwen 3.5).
    Delta(DeltaNet),
}

/// The sizes of a state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateSpace {
    /// Tokens that the convolution before it takes in.
    pub taps: usize,
    /// Channels.
    pub width: usize,
    /// Numbers that a channel keeps.
    pub d_state: usize,
    /// Mamba: the width between the two products that make steps. Mamba-2: heads, which divide the channels.
    pub rank: usize,
    /// Groups of heads that share input and output weights; 1 for Mamba.
    pub groups: usize,
    /// Mamba: whether steps, input and output weights are normalised without gains (FalconMamba). Mamba-2: whether each
    /// group's result is normalised, also where nothing in the file says so.
    pub normed: bool,
}

/// The sizes of a gated delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeltaNet {
    /// Tokens that the convolution before it takes in.
    pub taps: usize,
    /// Heads of values.
    pub heads: usize,
    /// Heads of queries and of keys; divides the heads of values.
    pub key_heads: usize,
    /// Elements of a query, a key and a value.
    pub head_dim: usize,
    /// Whether heads of values that share a head of keys are neighbours, and their gates come of one product, in runs as
    /// long as such heads. Otherwise heads of keys are taken in turn, and each kind of gate has a product of its own.
    pub grouped: bool,
    /// Whether the net's matrices have factors; llama.cpp ignores them in some families.
    pub scaled: bool,
}

impl StateSpace {
    /// Channels of the convolution: those of the state space, and of input and output weights (Mamba-2).
    pub fn conv_width(&self) -> usize {
        self.width + 2 * self.groups * self.d_state
    }

    /// Reads the sizes that both kinds have.
    fn read(keys: &Keys<'_>) -> Result<StateSpace> {
        Ok(StateSpace {
            taps: keys.required("ssm.conv_kernel", MAX_TAPS)?,
            width: keys.required("ssm.inner_size", MAX_DIM)?,
            d_state: keys.required("ssm.state_size", MAX_STATE)?,
            rank: keys.required("ssm.time_step_rank", MAX_DIM)?,
            groups: 1,
            normed: keys.flag("ssm.dt_b_c_rms", false)?,
        })
    }

    /// Mamba-2's recurrence, after a check that heads and groups divide what they should.
    fn with_heads(self) -> Result<Recurrence> {
        let StateSpace { width, rank: heads, groups, .. } = self;
        if !width.is_multiple_of(heads) {
            return Err(Error::format(format!(
                "{width} channels of a state space can't be divided into {heads} heads"
            )));
        }
        if !heads.is_multiple_of(groups) {
            return Err(Error::format(format!(
                "{heads} heads of a state space can't be divided into {groups} groups"
            )));
        }
        Ok(Recurrence::Mamba2(self))
    }
}

impl Recurrence {
    /// LFM2's convolution.
    pub(super) fn short_conv(keys: &Keys<'_>) -> Result<Recurrence> {
        keys.required("shortconv.l_cache", MAX_TAPS).map(Recurrence::ShortConv)
    }

    /// Mamba's state space.
    pub(super) fn mamba(keys: &Keys<'_>) -> Result<Recurrence> {
        keys.void(&["ssm.group_count"]);
        StateSpace::read(keys).map(Recurrence::Mamba)
    }

    /// Mamba-2's state space, with a norm behind it (`normed`) or without, unless the file has one.
    pub(super) fn mamba2(keys: &Keys<'_>, normed: bool) -> Result<Recurrence> {
        let groups = keys.required("ssm.group_count", MAX_DIM)?;
        StateSpace { groups, normed, ..StateSpace::read(keys)? }.with_heads()
    }

    /// Mamba-2's state space without groups of heads, and without a norm behind it.
    pub(super) fn mamba2_in_one_group(keys: &Keys<'_>) -> Result<Recurrence> {
        keys.void(&["ssm.group_count"]);
        StateSpace { normed: false, ..StateSpace::read(keys)? }.with_heads()
    }

    /// A gated delta net. `grouped`: see [`DeltaNet::grouped`]; `scaled`: see [`DeltaNet::scaled`].
    pub(super) fn delta(keys: &Keys<'_>, grouped: bool, scaled: bool) -> Result<Recurrence> {
        let net = DeltaNet {
            taps: keys.required("ssm.conv_kernel", MAX_TAPS)?,
            heads: keys.required("ssm.time_step_rank", MAX_DIM)?,
            key_heads: keys.required("ssm.group_count", MAX_DIM)?,
            head_dim: keys.required("ssm.state_size", MAX_HEAD_DIM)?,
            grouped,
            scaled,
        };
        let DeltaNet { heads, key_heads, head_dim, .. } = net;
        let width = keys.required("ssm.inner_size", MAX_DIM)?;
        if width != heads * head_dim || !heads.is_multiple_of(key_heads) {
            return Err(Error::format(format!(
                "a delta net of {width} channels with {heads} heads of {head_dim} on {key_heads} heads of keys"
            )));
        }
        Ok(Recurrence::Delta(net))
    }
}

/// The gated delta rule over the tokens of a sequence (Yang et al. 2024, arXiv:2412.06464). Queries and keys are divided by
/// their lengths. A head's state decays by `exp(a · softplus(alpha + bias))`, then the share `sigmoid(beta)` of the
/// difference between a value and what the state has for its key is written; the result is what it has for the query,
/// over √d_k.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Delta {
    /// Queries, keys and values side by side, each head by head.
    pub qkv: Value,
    /// A number for each head of values, from which its decay follows.
    pub alpha: Value,
    /// A number for each head of values, from which the share follows.
    pub beta: Value,
    /// A factor of the exponents for each head.
    pub a: VectorId,
    /// A summand of `alpha` for each head.
    pub dt_bias: VectorId,
    /// Sizes.
    pub shape: DeltaShape,
    /// Added to the sums of squares of queries and keys.
    pub eps: f32,
}

/// The sizes of a [`Delta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Heads of values.
    pub heads: usize,
    /// Heads of queries and of keys; divides the heads of values.
    pub key_heads: usize,
    /// Elements of a query and of a key.
    pub d_k: usize,
    /// Elements of a value.
    pub d_v: usize,
    /// The head of queries and keys that a head of values uses.
    pub keys: KeyHeads,
}

impl DeltaShape {
    /// Elements of all values.
    pub fn values(&self) -> usize {
        self.heads * self.d_v
    }

    /// The first columns of queries, of keys and of values.
    pub fn begins(&self) -> [usize; 3] {
        let keys = self.key_heads * self.d_k;
        [0, keys, 2 * keys]
    }

    /// Columns of queries, keys and values.
    pub fn width(&self) -> usize {
        2 * self.key_heads * self.d_k + self.values()
    }
}

impl LayerConfig {
    /// Whether the layer has attention.
    pub fn attends(&self) -> bool {
        self.n_head > 0
    }
}

impl Config {
    /// This configuration with a recurrence in the layers that have no attention.
    pub(super) fn with_recurrence(self, keys: &Keys<'_>, recurrence: Recurrence) -> Config {
        self.with_recurrence_where(keys, recurrence, |layer| !layer.attends())
    }

    /// This configuration with a recurrence in some layers.
    pub(super) fn with_recurrence_where(
        mut self,
        keys: &Keys<'_>,
        recurrence: Recurrence,
        has: impl Fn(&LayerConfig) -> bool,
    ) -> Config {
        // Says the same as the numbers of heads.
        keys.void(&["attention.recurrent_layers"]);
        let layers = self.layers.iter_mut().filter(|layer| has(layer));
        layers.for_each(|layer| layer.recurrence = Some(recurrence));
        self
    }

    /// Whether some layer has a recurrence.
    pub fn is_recurrent(&self) -> bool {
        self.layers.iter().any(|layer| layer.recurrence.is_some())
    }
}

impl Builder<'_> {
    /// Causal convolution of the channels of `x` over the sequence, by `{part}.weight` of `taps` weights a channel. Gates
    /// multiply its input and output; otherwise SiLU follows if `silu`.
    pub fn conv(
        &mut self,
        x: Value,
        part: &str,
        taps: usize,
        gates: Option<(Value, Value)>,
        silu: bool,
    ) -> Result<Value> {
        if !TAPS.contains(&taps) {
            let (least, most) = (TAPS.start(), TAPS.end());
            return self.unsupported(format!("a convolution over {taps} tokens (from {least} to {most})"));
        }
        let shape = self.shape(x);
        let gate_shapes = gates.map(|(before, after)| [self.shape(before), self.shape(after)]);
        if shape.rows != RowSet::Batch || gate_shapes.is_some_and(|shapes| shapes != [shape; 2]) {
            return self.fail(format!("a convolution of {shape:?} between gates of {gate_shapes:?}"));
        }
        let weights = self.transposed(&format!("{part}.weight"), shape.width, taps)?;
        let bias = format!("{part}.bias");
        let bias = if self.has(&bias) { Some(self.vector(&bias, 1, shape.width)?) } else { None };
        self.map(Op::Conv(Conv { x, gates, weights, bias, taps, silu: silu && gates.is_none() }), x)
    }

    /// A selective scan of `x` over the sequence, with `ssm_a`, `ssm_d` and `ssm_dt.bias`. Numbers of heads stand in
    /// `rows` of one, or in one row.
    pub fn scan(&mut self, [x, dt, b, c]: [Value; 4], shape: ScanShape, rows: bool) -> Result<Value> {
        let ScanShape { heads, d_state, groups, head_dim } = shape;
        if groups == 0 || !heads.is_multiple_of(groups) {
            return self
                .fail(format!("{heads} heads of a state space can't be divided into {groups} groups"));
        }
        let wanted =
            [Some(shape.width()), Some(heads), groups.checked_mul(d_state), groups.checked_mul(d_state)];
        let found = [x, dt, b, c].map(|value| self.shape(value));
        if found
            .iter()
            .zip(wanted)
            .any(|(found, wanted)| Some(found.width) != wanted || found.rows != RowSet::Batch)
        {
            return self.fail(format!("a scan of {found:?} for {shape:?}"));
        }
        let (n, k) = if rows { (heads, 1) } else { (1, heads) };
        let a = match head_dim {
            Some(_) => self.vector("ssm_a", n, k)?,
            None => self.transposed("ssm_a", heads, d_state)?,
        };
        let d = self.vector("ssm_d", n, k)?;
        let dt_bias = self.vector("ssm_dt.bias", 1, heads)?;
        self.map(Op::Scan(Scan { x, dt, b, c, a, dt_bias, d, shape }), x)
    }

    /// The gated delta rule over the sequence, on queries, keys and values side by side, with `ssm_a` and `ssm_dt.bias`.
    pub fn delta(&mut self, qkv: Value, [alpha, beta]: [Value; 2], shape: DeltaShape) -> Result<Value> {
        let wanted = [shape.width(), shape.heads, shape.heads];
        let found = [qkv, alpha, beta].map(|value| self.shape(value));
        let fits = |(found, wanted): (&Shape, usize)| found.width == wanted && found.rows == RowSet::Batch;
        if !found.iter().zip(wanted).all(fits) {
            return self.fail(format!("a delta rule of {found:?} for {shape:?}"));
        }
        let a = self.vector("ssm_a", 1, shape.heads)?;
        let dt_bias = self.vector("ssm_dt.bias", 1, shape.heads)?;
        let delta = Delta { qkv, alpha, beta, a, dt_bias, shape, eps: self.eps };
        self.push(Op::Delta(delta), RowSet::Batch, shape.values())
    }
}
