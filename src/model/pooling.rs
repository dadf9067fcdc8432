//! Pooling: one row for each span, made of its hidden rows, and the products that some files have behind it: dense
//! layers of embedders, classifiers of rerankers.

use super::builder::Builder;
use super::config::Config;
use super::graph::{Activation, Graph, Node, Norm, Op, RowSet, Shape, Value};
use super::keys::Keys;
use super::weights::{MatrixId, VectorId};
use crate::error::{Error, Result};
use crate::memory::reserve::reserve;

/// The row of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pooling {
    /// The mean of the span's output rows.
    Mean,
    /// The span's first output row: that of BERT's `[CLS]` where all rows are output rows.
    Cls,
    /// The span's last output row.
    Last,
    /// The scores of the file's classifier.
    Rank,
}

/// A classifier's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassifierConfig {
    /// The row that it reads; never [`Pooling::Rank`].
    pub pooling: Pooling,
    /// The activation of its first product; tanh for `None`.
    pub activation: Option<Activation>,
    /// Whether the softmax of its results is taken.
    pub softmax: bool,
    /// The classes that the file names; 0 where it names none.
    pub n_label: usize,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        ClassifierConfig { pooling: Pooling::Cls, activation: None, softmax: false, n_label: 0 }
    }
}

impl Pooling {
    /// The name in texts of graphs and plans.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "first row",
            Pooling::Last => "last row",
            Pooling::Rank => "scores",
        }
    }

    /// Reads the file's pooling; `None` where it states none, or that there is none.
    pub(super) fn read(keys: &Keys<'_>) -> Result<Option<Pooling>> {
        Self::numbered(keys, "pooling_type")
    }

    /// The pooling of a key. Without one llama.cpp's writers put −1, also in 32 bits without a sign.
    fn numbered(keys: &Keys<'_>, key: &str) -> Result<Option<Pooling>> {
        match keys.integer(key)? {
            None | Some(-1 | 0 | 0xffff_ffff) => Ok(None),
            Some(1) => Ok(Some(Pooling::Mean)),
            Some(2) => Ok(Some(Pooling::Cls)),
            Some(3) => Ok(Some(Pooling::Last)),
            Some(4) => Ok(Some(Pooling::Rank)),
            Some(number) => Err(Error::Unsupported(format!("{} {number}", keys.key(key)))),
        }
    }
}

impl ClassifierConfig {
    /// Reads the file's classes, and the row that its classifier reads.
    pub(super) fn read(keys: &Keys<'_>) -> Result<ClassifierConfig> {
        let pooling = match Pooling::numbered(keys, "classifier.pooling_type")? {
            Some(Pooling::Rank) => return Err(Error::Unsupported("a classifier of another's scores".into())),
            pooling => pooling.unwrap_or(Pooling::Cls),
        };
        let n_label = keys.count_of_texts("classifier.output_labels")?;
        Ok(ClassifierConfig { pooling, n_label, ..ClassifierConfig::default() })
    }
}

/// A product with a matrix of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dense {
    /// The matrix.
    pub matrix: MatrixId,
    /// The bias, if there is one.
    pub bias: Option<VectorId>,
    /// Columns of the result.
    pub width: usize,
}

/// A classifier: the first product, its activation and its norm, then the other product.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Classifier {
    /// The row that it reads, its activation, softmax.
    pub config: ClassifierConfig,
    /// The first product, if there is one.
    pub inner: Option<Dense>,
    /// The norm of its activation, if there is one.
    pub norm: Option<Norm>,
    /// The other product, if there is one.
    pub out: Option<Dense>,
}

/// The products behind pooling.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Heads {
    /// Products that follow each other behind a pooling other than [`Pooling::Rank`].
    pub dense: Vec<Dense>,
    /// The classifier, if there is one.
    pub classifier: Option<Classifier>,
}

impl Builder<'_> {
    /// The products behind pooling that the file has, from rows of the model's width.
    pub(super) fn heads(&mut self, c: &Config) -> Result<Heads> {
        self.enter_layer(None);
        for (later, former) in [("dense_3.weight", "dense_2.weight"), ("cls.norm.weight", "cls.weight")] {
            if self.has(later) && !self.has(former) {
                return self.fail(format!("tensor {former} is missing: there is {later}"));
            }
        }
        let (mut heads, mut width) = (Heads::default(), c.n_embd);
        for part in ["dense_2", "dense_3"] {
            if let Some(dense) = self.dense(part, width)? {
                width = dense.width;
                reserve(&mut heads.dense, 1, "dense layers")?;
                heads.dense.push(dense);
            }
        }
        let inner = self.dense("cls", c.n_embd)?;
        let width = inner.map_or(c.n_embd, |dense| dense.width);
        let norm = match self.has("cls.norm.weight") {
            true => Some(self.layer_norm_of("cls.norm", width)?),
            false => None,
        };
        let out = self.dense("cls.output", width)?;
        if let Some(last) = out.or(inner) {
            let n_label = c.classifier.n_label;
            if n_label != 0 && last.width != n_label {
                let width = last.width;
                return self
                    .fail(format!("cls.weight and cls.output.weight score {width} classes of {n_label}"));
            }
            heads.classifier = Some(Classifier { config: c.classifier, inner, norm, out });
        }
        Ok(heads)
    }

    /// A product by `{part}.weight`, with `{part}.bias` if the file has one; `None` where it has no such matrix.
    fn dense(&mut self, part: &str, k: usize) -> Result<Option<Dense>> {
        let (weight, bias) = (format!("{part}.weight"), format!("{part}.bias"));
        let Some(width) = self.rows(&weight) else { return Ok(None) };
        let matrix = self.matrix(part, width, k)?;
        let bias = if self.has(&bias) { Some(self.vector(&bias, 1, width)?) } else { None };
        Ok(Some(Dense { matrix, bias, width }))
    }
}

impl Graph {
    /// This graph with other values at its end, the last of which is returned too: for each span, the row that a pooling
    /// makes, behind the products that the file has for it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for scores where the file has no classifier.
    pub fn pooled(&self, pooling: Pooling) -> Result<(Graph, Value)> {
        let mut graph = self.clone();
        if pooling == Pooling::Rank {
            let none = || Error::Unsupported(format!("{}: the file has no classifier", self.family));
            let classifier = self.heads.classifier.ok_or_else(none)?;
            let scores = graph.classify(&classifier)?;
            return Ok((graph, scores));
        }
        let mut row = graph.pool(pooling)?;
        for dense in &self.heads.dense {
            row = graph.product(row, dense)?;
        }
        Ok((graph, row))
    }

    fn classify(&mut self, classifier: &Classifier) -> Result<Value> {
        let Classifier { config, inner, norm, out } = classifier;
        let mut row = self.pool(config.pooling)?;
        if let Some(inner) = inner {
            let product = self.product(row, inner)?;
            // A soft-cap at 1 is tanh.
            let activate =
                |x| config.activation.map_or(Op::SoftCap(x, 1.0), |function| Op::Activate(x, function));
            row = self.append(activate(product), inner.width)?;
            if let Some(norm) = norm {
                row = self.append(Op::Norm(row, *norm), inner.width)?;
            }
        }
        if let Some(out) = out {
            row = self.product(row, out)?;
        }
        match config.softmax {
            true => self.append(Op::Softmax(row), self.shape(row).width),
            false => Ok(row),
        }
    }

    fn pool(&mut self, pooling: Pooling) -> Result<Value> {
        self.append(Op::Pool(self.hidden, pooling), self.shape(self.hidden).width)
    }

    fn product(&mut self, x: Value, dense: &Dense) -> Result<Value> {
        self.append(Op::Linear(x, dense.matrix, dense.bias, 1.0), dense.width)
    }

    fn append(&mut self, op: Op, width: usize) -> Result<Value> {
        reserve(&mut self.nodes, 1, "the graph of a model")?;
        self.nodes.push(Node { op, layer: None, shape: Shape { rows: RowSet::Span, width } });
        Ok(Value(self.nodes.len() as u32 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gguf::{Metadata, Value};

    fn read(number: Value) -> Result<Option<Pooling>> {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture".into(), Value::Str("bert".into())).unwrap();
        metadata.insert("bert.pooling_type".into(), number).unwrap();
        Pooling::read(&Keys::new(&metadata).unwrap())
    }

    #[test]
    fn numbers_of_poolings_are_llama_cpps() {
        let kinds = [None, Some(Pooling::Mean), Some(Pooling::Cls), Some(Pooling::Last), Some(Pooling::Rank)];
        for (number, kind) in kinds.into_iter().enumerate() {
            assert_eq!(read(Value::U32(number as u32)).unwrap(), kind);
            assert_eq!(read(Value::I32(number as i32)).unwrap(), kind);
        }
        assert_eq!(read(Value::I32(-1)).unwrap(), None);
        assert_eq!(read(Value::U32(u32::MAX)).unwrap(), None);
        for other in [Value::U32(5), Value::I32(-2)] {
            let error = read(other).unwrap_err().to_string();
            assert!(error.contains("bert.pooling_type"), "{error}");
        }
        assert!(read(Value::Str("mean".into())).is_err());
    }
}
