//! A model's weights: the tensors that a graph takes from the file, with typed ids, and the loaded weights in the form
//! that kernels read: packed panels, plain floats, tables of rows.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::format::gguf::TensorInfo;
use crate::memory::AlignedBuf;
use crate::memory::reserve::{collected, copied, filled, reserve};
use crate::ops::matrix::PackedMatrix;
use crate::quant::{self, DType};

/// A weight matrix of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixId(u32);

/// Plain f32 values: a gain, a bias, or rows of learned positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorId(u32);

/// A table with a row for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId(u32);

/// The matrices of a layer's experts, one for each expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsId(u32);

/// A tensor that a graph uses: one of the file's, some of its rows, or a constant. Its shape and type have been checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TensorSpec {
    /// Its file: 0 for the model's, or the number of an adapter, counted from 1.
    pub file: usize,
    /// Its name in the file.
    pub name: String,
    /// Rows (outputs); 1 for a vector. Of the matrices of experts, the rows of each.
    pub n: usize,
    /// Elements of a row.
    pub k: usize,
    /// Its element type in the file.
    pub dtype: DType,
    /// Where its values come from.
    pub source: Source,
}

/// Where the values of a tensor come from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// Consecutive rows of a tensor of the file.
    Rows {
        /// The first of them.
        first: usize,
        /// Rows of the whole tensor.
        of: usize,
    },
    /// A whole tensor of the file, whose columns are the rows in memory: [`TensorSpec::n`] and [`TensorSpec::k`] are the
    /// file's.
    Transposed,
    /// A matrix for each expert.
    Experts(ExpertRows),
    /// Each value is this number: the gain of a norm that has none, for instance.
    Constant(f32),
}

/// The places of experts' matrices among a tensor's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpertRows {
    /// Number of experts.
    pub count: usize,
    /// Rows from one expert's first to the next one's: more than an expert has where a tensor holds gate and up.
    pub stride: usize,
    /// The first row of the first expert's matrix.
    pub first: usize,
}

/// The purpose of lists of tensors, in errors.
const TENSORS: &str = "the list of a model's tensors";

/// The name of a layer's tensor.
pub(super) fn name_in_layer(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

impl TensorSpec {
    /// The layer in the name, and the rest of the name.
    pub(super) fn place(&self) -> (Option<usize>, &str) {
        let place = self.name.strip_prefix("blk.").and_then(|name| {
            let (layer, part) = name.split_once('.')?;
            Some((Some(layer.parse().ok()?), part))
        });
        place.unwrap_or((None, &self.name))
    }

    /// Matrices of the tensor: one, or one for each expert.
    pub fn matrices(&self) -> usize {
        match self.source {
            Source::Experts(ExpertRows { count, .. }) => count,
            _ => 1,
        }
    }
}

/// A tensor of a file: of the model's, unless it is said to be of an adapter's.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// As [`TensorSpec::file`].
    pub file: usize,
    pub tensor: &'a TensorInfo,
}

impl<'a> From<&'a TensorInfo> for Origin<'a> {
    fn from(tensor: &'a TensorInfo) -> Self {
        Origin { file: 0, tensor }
    }
}

/// What tells tensors apart: the file, the name and the first row; of a constant, the name and the width.
type Key = (usize, String, usize);

/// The tensors that a graph takes from a file, and the ids of each.
#[derive(Clone, Debug, Default)]
pub struct WeightSpecs {
    tensors: Vec<TensorSpec>,
    uses: Vec<Uses>,
    by_name: HashMap<Key, usize>,
    /// The tensor of each id.
    matrices: Vec<usize>,
    vectors: Vec<usize>,
    tables: Vec<usize>,
    experts: Vec<usize>,
}

/// The ids of a tensor: as a matrix, a vector, a table, matrices of experts.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    matrix: Option<u32>,
    vector: Option<u32>,
    table: Option<u32>,
    experts: Option<u32>,
}

impl WeightSpecs {
    /// The tensors, each once.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// A matrix's tensor in the file.
    pub fn matrix(&self, id: MatrixId) -> &TensorSpec {
        &self.tensors[self.matrices[id.0 as usize]]
    }

    /// A vector's tensor in the file.
    pub fn vector(&self, id: VectorId) -> &TensorSpec {
        &self.tensors[self.vectors[id.0 as usize]]
    }

    /// A table's tensor in the file.
    pub fn table(&self, id: TableId) -> &TensorSpec {
        &self.tensors[self.tables[id.0 as usize]]
    }

    /// The tensor in the file of experts' matrices.
    pub fn experts(&self, id: ExpertsId) -> &TensorSpec {
        &self.tensors[self.experts[id.0 as usize]]
    }

    /// Uses rows of a tensor as the matrices of experts, of `n` rows of `k` each.
    pub(super) fn add_experts(
        &mut self,
        tensor: &TensorInfo,
        rows: ExpertRows,
        (n, k): (usize, usize),
    ) -> Result<ExpertsId> {
        let (key, source) = ((0, tensor.name.clone(), rows.first), Source::Experts(rows));
        let index = match self.known(&key, (n, k), source)? {
            Some(index) => index,
            None => {
                let dtype = check_experts_shape(tensor, &rows, k)?;
                self.append(key, TensorSpec { file: 0, name: tensor.name.clone(), n, k, dtype, source })?
            }
        };
        id_of(&mut self.experts, &mut self.uses[index].experts, index).map(ExpertsId)
    }

    /// Uses a tensor as a matrix of `n` rows of `k`.
    pub(super) fn add_matrix<'t>(
        &mut self,
        tensor: impl Into<Origin<'t>>,
        n: usize,
        k: usize,
    ) -> Result<MatrixId> {
        self.add_matrix_rows(tensor, 0..n, (n, k))
    }

    /// Uses some rows of a tensor of `n` rows of `k`, also one of more than two dimensions, as a matrix.
    pub(super) fn add_matrix_rows<'t>(
        &mut self,
        tensor: impl Into<Origin<'t>>,
        rows: Range<usize>,
        (n, k): (usize, usize),
    ) -> Result<MatrixId> {
        let index = self.rows_of(tensor.into(), rows, (n, k))?;
        self.refuse(index, self.uses[index].vector.is_some())?;
        id_of(&mut self.matrices, &mut self.uses[index].matrix, index).map(MatrixId)
    }

    /// Uses a tensor as `n` rows of `k` floats.
    pub(super) fn add_vector(&mut self, tensor: &TensorInfo, n: usize, k: usize) -> Result<VectorId> {
        let index = self.rows_of(tensor.into(), 0..n, (n, k))?;
        self.refuse(index, self.uses[index].matrix.or(self.uses[index].table).is_some())?;
        id_of(&mut self.vectors, &mut self.uses[index].vector, index).map(VectorId)
    }

    /// Uses a tensor of `n` rows of `k` floats, transposed in memory: `k` rows of `n`.
    pub(super) fn add_transposed(&mut self, tensor: &TensorInfo, n: usize, k: usize) -> Result<VectorId> {
        let key = (0, tensor.name.clone(), 0);
        let source = Source::Transposed;
        let index = match self.known(&key, (n, k), source)? {
            Some(index) => index,
            None => {
                let dtype = check_shape(tensor, n, k, false)?;
                self.append(key, TensorSpec { file: 0, name: tensor.name.clone(), n, k, dtype, source })?
            }
        };
        id_of(&mut self.vectors, &mut self.uses[index].vector, index).map(VectorId)
    }

    /// Uses a tensor as a table of `n` rows of `k`; one tensor can be both a table and a matrix.
    pub(super) fn add_table<'t>(
        &mut self,
        tensor: impl Into<Origin<'t>>,
        n: usize,
        k: usize,
    ) -> Result<TableId> {
        let index = self.rows_of(tensor.into(), 0..n, (n, k))?;
        self.refuse(index, self.uses[index].vector.is_some())?;
        id_of(&mut self.tables, &mut self.uses[index].table, index).map(TableId)
    }

    /// A vector of `k` values that are all the same number, under a name for texts.
    pub(super) fn add_constant(&mut self, name: &'static str, value: f32, k: usize) -> Result<VectorId> {
        let key = (0, name.to_owned(), k);
        let index = match self.by_name.get(&key) {
            Some(&index) => index,
            None => self.append(
                key,
                TensorSpec {
                    file: 0,
                    name: name.to_owned(),
                    n: 1,
                    k,
                    dtype: DType::F32,
                    source: Source::Constant(value),
                },
            )?,
        };
        id_of(&mut self.vectors, &mut self.uses[index].vector, index).map(VectorId)
    }

    fn refuse(&self, index: usize, other: bool) -> Result<()> {
        let name = &self.tensors[index].name;
        if other { Err(Error::format(format!("tensor {name} is used in two ways"))) } else { Ok(()) }
    }

    /// The index of some rows of a tensor of `of` rows of `k`.
    fn rows_of(
        &mut self,
        Origin { file, tensor }: Origin<'_>,
        rows: Range<usize>,
        (of, k): (usize, usize),
    ) -> Result<usize> {
        let key = (file, tensor.name.clone(), rows.start);
        let source = Source::Rows { first: rows.start, of };
        if let Some(index) = self.known(&key, (rows.len(), k), source)? {
            return Ok(index);
        }
        let dtype = check_shape(tensor, of, k, rows.len() < of)?;
        self.append(key, TensorSpec { file, name: tensor.name.clone(), n: rows.len(), k, dtype, source })
    }

    /// The index of a tensor that is used already.
    fn known(&self, key: &Key, (n, k): (usize, usize), source: Source) -> Result<Option<usize>> {
        let Some(&index) = self.by_name.get(key) else { return Ok(None) };
        let spec = &self.tensors[index];
        if (spec.n, spec.k, spec.source) != (n, k, source) {
            return Err(Error::format(format!("tensor {} is used with two shapes", spec.name)));
        }
        Ok(Some(index))
    }

    fn append(&mut self, key: Key, spec: TensorSpec) -> Result<usize> {
        reserve(&mut self.tensors, 1, TENSORS)?;
        reserve(&mut self.uses, 1, TENSORS)?;
        let bytes = (self.by_name.len() + 1) * size_of::<(Key, usize)>();
        self.by_name.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes, what: TENSORS })?;
        self.by_name.insert(key, self.tensors.len());
        self.tensors.push(spec);
        self.uses.push(Uses::default());
        Ok(self.tensors.len() - 1)
    }

    /// The form in which a tensor is kept in memory.
    pub(super) fn form(&self, tensor: usize) -> Form {
        match self.uses[tensor] {
            Uses { matrix: Some(_), .. } | Uses { experts: Some(_), .. } => Form::Matrix,
            Uses { table: Some(_), .. } => Form::Table,
            _ => Form::Floats,
        }
    }

    /// Weights by id, from the loaded tensors in the order of [`WeightSpecs::tensors`].
    pub(super) fn assemble(&self, loaded: Vec<Loaded>) -> Result<Weights> {
        let mut matrices = places(&self.matrices)?;
        let mut vectors = places(&self.vectors)?;
        let mut tables = places(&self.tables)?;
        let mut experts = places(&self.experts)?;
        for ((spec, uses), loaded) in self.tensors.iter().zip(&self.uses).zip(loaded) {
            if let Some((table, matrix)) = uses.table.zip(uses.matrix) {
                tables[table as usize] = Some(Table::Tied(MatrixId(matrix)));
            }
            match (loaded, uses) {
                (Loaded::Matrices(packed), Uses { experts: Some(id), .. }) => {
                    experts[*id as usize] = Some(packed);
                }
                (Loaded::Matrices(mut packed), Uses { matrix: Some(id), .. }) => {
                    matrices[*id as usize] = packed.pop();
                }
                (Loaded::Table(rows), Uses { table: Some(id), .. }) => {
                    tables[*id as usize] = Some(Table::Rows { dtype: spec.dtype, k: spec.k, rows });
                }
                (Loaded::Floats(mut values), Uses { vector: Some(id), .. }) => {
                    let mut k = spec.k;
                    if spec.source == Source::Transposed {
                        transpose(values.as_mut_slice(), spec.k)?;
                        k = spec.n;
                    }
                    vectors[*id as usize] = Some(Floats { values, k });
                }
                _ => return Err(lost()),
            }
        }
        Ok(Weights {
            matrices: all(matrices)?,
            vectors: all(vectors)?,
            tables: all(tables)?,
            experts: all(experts)?,
        })
    }
}

/// The id of a tensor in a list; a tensor without one is appended to the list.
fn id_of(list: &mut Vec<usize>, id: &mut Option<u32>, tensor: usize) -> Result<u32> {
    if let Some(id) = *id {
        return Ok(id);
    }
    reserve(list, 1, TENSORS)?;
    list.push(tensor);
    Ok(*id.insert(list.len() as u32 - 1))
}

/// Turns rows of `k` floats into columns.
fn transpose(values: &mut [f32], k: usize) -> Result<()> {
    let rows = copied(values, "weights")?;
    let n = rows.len() / k.max(1);
    for (i, value) in values.iter_mut().enumerate() {
        *value = rows[i % n * k + i / n];
    }
    Ok(())
}

/// An empty place for each id.
fn places<T>(ids: &[usize]) -> Result<Vec<Option<T>>> {
    collected(ids.iter().map(|_| Ok(None)), TENSORS)
}

fn all<T>(list: Vec<Option<T>>) -> Result<Vec<T>> {
    collected(list.into_iter().map(|item| item.ok_or_else(lost)), TENSORS)
}

fn lost() -> Error {
    Error::Internal("a tensor was loaded in a form in which it isn't used".into())
}

/// The form in which a tensor is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Floats,
    Table,
    Matrix,
}

/// A tensor in memory.
pub(super) enum Loaded {
    Floats(AlignedBuf),
    Table(AlignedBuf),
    /// One matrix, or one for each expert.
    Matrices(Vec<PackedMatrix>),
}

/// Floats in rows of `k`.
struct Floats {
    values: AlignedBuf,
    k: usize,
}

/// The source of a table's rows.
enum Table {
    /// Rows as the file stores them.
    Rows { dtype: DType, k: usize, rows: AlignedBuf },
    /// Rows decoded from a matrix's panels: a tied embedding.
    Tied(MatrixId),
}

/// All weights of a model.
pub struct Weights {
    matrices: Vec<PackedMatrix>,
    vectors: Vec<Floats>,
    tables: Vec<Table>,
    experts: Vec<Vec<PackedMatrix>>,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("matrices", &self.matrices.len())
            .field("vectors", &self.vectors.len())
            .field("tables", &self.tables.len())
            .field("experts", &self.experts.len())
            .field("bytes", &self.bytes())
            .finish()
    }
}

impl Weights {
    /// A matrix.
    pub fn matrix(&self, id: MatrixId) -> &PackedMatrix {
        &self.matrices[id.0 as usize]
    }

    /// The matrices of experts, one for each.
    pub fn experts(&self, id: ExpertsId) -> &[PackedMatrix] {
        &self.experts[id.0 as usize]
    }

    /// The values of a vector.
    pub fn vector(&self, id: VectorId) -> &[f32] {
        self.vectors[id.0 as usize].values.as_slice::<f32>()
    }

    /// Row `r` of a vector that has several rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is no such row.
    pub fn vector_row(&self, id: VectorId, r: usize) -> Result<&[f32]> {
        let Floats { values, k } = &self.vectors[id.0 as usize];
        let row = values.as_slice::<f32>().chunks((*k).max(1)).nth(r);
        row.ok_or_else(|| Error::invalid(format!("there is no row {r}")))
    }

    /// Row `r` of a table as f32; `out` has the row's length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where there is no such row or `out` has another length.
    pub fn table_row(&self, id: TableId, r: usize, out: &mut [f32]) -> Result<()> {
        match &self.tables[id.0 as usize] {
            Table::Tied(matrix) => self.matrix(*matrix).row(r, out),
            Table::Rows { dtype, k, rows } => {
                let bytes = dtype.row_bytes(*k).unwrap_or(0);
                let row = rows.as_slice::<u8>().chunks(bytes.max(1)).nth(r);
                let row = row.ok_or_else(|| Error::invalid(format!("the table has no row {r}")))?;
                quant::decode_row(*dtype, row, out)
            }
        }
    }

    /// Calls `each` with some of the values of every tensor: all of a vector, three rows of a matrix and of a table. They
    /// tell a model from one of the same shape.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where a row can't be had.
    pub(crate) fn sample(&self, each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let matrices = self.matrices.iter().chain(self.experts.iter().flatten());
        let longest = matrices.clone().map(PackedMatrix::k).max().unwrap_or(0);
        let mut row = filled(0.0, longest, "a row of weights")?;
        for matrix in matrices {
            let (n, row) = (matrix.n(), &mut row[..matrix.k()]);
            for r in [0, n / 2, n.saturating_sub(1)].into_iter().filter(|&r| r < n) {
                matrix.row(r, row)?;
                each(row);
            }
        }
        self.vectors.iter().for_each(|vector| each(vector.values.as_slice::<f32>()));
        for (i, table) in self.tables.iter().enumerate() {
            let Table::Rows { dtype, k, rows } = table else { continue };
            let n = rows.len() / dtype.row_bytes(*k).unwrap_or(0).max(1);
            let mut row = filled(0.0, *k, "a row of weights")?;
            for r in [0, n / 2, n.saturating_sub(1)].into_iter().filter(|&r| r < n) {
                self.table_row(TableId(i as u32), r, &mut row)?;
                each(&row);
            }
        }
        Ok(())
    }

    /// Bytes of all weights.
    pub fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(|table| match table {
            Table::Rows { rows, .. } => rows.len(),
            Table::Tied(_) => 0,
        });
        let matrices = self.matrices.iter().chain(self.experts.iter().flatten()).map(PackedMatrix::bytes);
        let vectors = self.vectors.iter().map(|vector| vector.values.len());
        matrices.chain(vectors).chain(tables).sum()
    }
}

/// The tensor's type, if it is an `n × k` matrix (or a vector of `k` where `n` is 1) of a readable type. A `stack` of
/// matrices may have more dimensions, which count as rows.
fn check_shape(tensor: &TensorInfo, n: usize, k: usize, stack: bool) -> Result<DType> {
    let dims = tensor.shape();
    let rows = dims.iter().skip(1).try_fold(1u64, |rows, &dim| rows.checked_mul(dim));
    let flat = stack || dims.iter().skip(2).all(|&dim| dim == 1);
    if !flat || (rows, dims.first().copied().unwrap_or(1)) != (Some(n as u64), k as u64) {
        return Err(Error::format(format!(
            "tensor {} has shape {dims:?}; the configuration wants [{k}, {n}]",
            tensor.name
        )));
    }
    tensor.dtype()
}

/// The tensor's type, if it holds the rows of experts, of `k` elements each.
fn check_experts_shape(tensor: &TensorInfo, rows: &ExpertRows, k: usize) -> Result<DType> {
    let (dims, wanted) = (tensor.shape(), [k, rows.stride, rows.count]);
    let found = |i: usize| dims.get(i).copied().unwrap_or(1);
    let higher = dims.iter().skip(3).any(|&d| d != 1);
    if higher || (0..3).any(|i| found(i) != wanted[i] as u64) {
        return Err(Error::format(format!(
            "tensor {} has shape {dims:?}; the configuration wants {wanted:?}",
            tensor.name
        )));
    }
    tensor.dtype()
}
