//! The configuration of recurrent layers: their kinds and sizes, read from GGUF metadata, and which layers have them.

use super::config::{Config, LayerConfig, MAX_DIM};
use super::keys::Keys;
use crate::error::{Error, Result};

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
    /// Whether steps, input and output weights are normalised without gains (FalconMamba).
    pub normed: bool,
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

    /// Mamba-2's state space.
    pub(super) fn mamba2(keys: &Keys<'_>) -> Result<Recurrence> {
        let groups = keys.required("ssm.group_count", MAX_DIM)?;
        let space = StateSpace { groups, ..StateSpace::read(keys)? };
        let StateSpace { width, rank: heads, groups, .. } = space;
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
        Ok(Recurrence::Mamba2(space))
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
