//! A model's weights in the form kernels read: packed panels, plain floats, look-up tables.

use crate::error::{Error, Result};
use crate::memory::AlignedBuf;
use crate::ops::linear::PackedWeight;
use crate::quant::{self, DType};

/// A weight of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightId(u32);

impl WeightId {
    pub(super) fn new(index: usize) -> Self {
        WeightId(index as u32)
    }

    /// Index into [`Weights`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a builder does with a tensor; a tied embedding is both a table and a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage(u8);

impl Usage {
    pub const FLOATS: Usage = Usage(1);
    pub const TABLE: Usage = Usage(2);
    pub const LINEAR: Usage = Usage(4);

    pub fn union(self, other: Usage) -> Usage {
        Usage(self.0 | other.0)
    }

    pub fn includes(self, other: Usage) -> bool {
        self.0 & other.0 != 0
    }
}

/// A tensor that a builder asked for, already checked against the file.
#[derive(Clone, Debug)]
pub(super) struct WeightSpec {
    pub name: String,
    /// Rows (outputs); 1 for a vector.
    pub n: usize,
    /// Elements of a row.
    pub k: usize,
    pub dtype: DType,
    pub usage: Usage,
}

/// One loaded weight.
pub enum Weight {
    /// f32 values of a norm, a bias, or learned positions.
    Floats(AlignedBuf),
    /// A matrix in its kernel's panels; rows can be read back.
    Linear(PackedWeight),
    /// Rows as the file stores them, only ever looked up.
    Table {
        /// Element type.
        dtype: DType,
        /// Elements of a row.
        k: usize,
        /// The rows.
        rows: AlignedBuf,
    },
}

impl Weight {
    /// Row `r` of a matrix or table as f32; `out` has the row's length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is no such row or `out` has another length.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) -> Result<()> {
        match self {
            Weight::Linear(packed) => packed.decode_row(r, out),
            Weight::Table { dtype, k, rows } => {
                let bytes = dtype.row_bytes(*k).unwrap_or(0);
                let row = rows.as_slice::<u8>().chunks(bytes.max(1)).nth(r);
                let row = row.ok_or_else(|| Error::invalid(format!("the table has no row {r}")))?;
                quant::decode_row(*dtype, row, out)
            }
            Weight::Floats(_) => Err(Error::invalid("plain floats have no rows to look up")),
        }
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        match self {
            Weight::Floats(buf) | Weight::Table { rows: buf, .. } => buf.len(),
            Weight::Linear(packed) => packed.bytes(),
        }
    }
}

/// All weights of a model, indexed by [`WeightId`].
pub struct Weights(pub(super) Vec<Weight>);

impl Weights {
    /// The weight.
    pub fn get(&self, id: WeightId) -> &Weight {
        &self.0[id.index()]
    }

    /// The values of plain floats; empty if the weight isn't such (builders only ask for what they declared).
    pub fn floats(&self, id: WeightId) -> &[f32] {
        match self.get(id) {
            Weight::Floats(buf) => buf.as_slice::<f32>(),
            _ => &[],
        }
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Weight::bytes).sum()
    }
}
