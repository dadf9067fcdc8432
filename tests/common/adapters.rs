//! Low-rank adapters for tests: files whose values follow from names, and models in which they are merged in f64.

use smallmind::format::gguf::{Gguf, Value};
use smallmind::quant::{self, DType};

use super::families::uniform;
use super::gguf_writer::{F16, F32, Writer, f32_bytes};

/// A matrix that an adapter changes: its name, and its length and number of rows.
pub type Matrix = (String, [u64; 2]);

/// How an adapter's file is made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Of the numbers, in front of the names of tensors.
    pub seed: &'static str,
    pub rank: usize,
    pub alpha: f32,
    /// [`F32`] or [`F16`].
    pub ty: u32,
    /// Factor on B.
    pub size: f32,
}

impl Recipe {
    /// A rank and an alpha in f32.
    pub fn new(seed: &'static str, rank: usize, alpha: f32) -> Recipe {
        Recipe { seed, rank, alpha, ty: F32, size: 1.0 }
    }

    /// Another factor on B.
    pub fn sized(self, size: f32) -> Recipe {
        Recipe { size, ..self }
    }

    /// A and B of a matrix: A is uniform within ±√(3 / inputs), B within ±1 / (2 √rank).
    pub fn halves(&self, (name, [k, _]): &Matrix, [a, b]: [usize; 2]) -> [Vec<f32>; 2] {
        let bounds = [(3.0 / *k as f64).sqrt() as f32, (0.5 / (self.rank as f64).sqrt()) as f32 * self.size];
        let values = |end: &str, bound: f32, n: usize| {
            let numbers = uniform(&format!("{} {name}.lora_{end}", self.seed), n);
            let mut numbers: Vec<f32> = numbers.into_iter().map(|x| bound * x).collect();
            let bytes = self.encoded(&numbers);
            quant::decode_row(self.dtype(), &bytes, &mut numbers).unwrap();
            numbers
        };
        [values("a", bounds[0], a), values("b", bounds[1], b)]
    }

    fn dtype(&self) -> DType {
        if self.ty == F16 { DType::F16 } else { DType::F32 }
    }

    /// The bytes of values in the file.
    fn encoded(&self, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0; self.dtype().row_bytes(values.len()).unwrap()];
        quant::encode_row(self.dtype(), values, &mut bytes).unwrap();
        bytes
    }

    /// The pairs of the file.
    pub fn pairs(&self, architecture: &str) -> Writer {
        Writer::new()
            .pair("general.architecture", Value::Str(architecture.into()))
            .pair("general.type", Value::Str("adapter".into()))
            .pair("adapter.type", Value::Str("lora".into()))
            .pair("adapter.lora.alpha", Value::F32(self.alpha))
    }

    /// The file.
    pub fn file(&self, architecture: &str, matrices: &[Matrix]) -> Vec<u8> {
        let add = |w: Writer, matrix: &Matrix| {
            let (name, [k, n]) = matrix;
            let rank = self.rank as u64;
            let [a, b] = self.halves(matrix, [(k * rank) as usize, (n * rank) as usize]);
            w.tensor(&format!("{name}.lora_a"), &[*k, rank], self.ty, &self.encoded(&a)).tensor(
                &format!("{name}.lora_b"),
                &[rank, *n],
                self.ty,
                &self.encoded(&b),
            )
        };
        matrices.iter().fold(self.pairs(architecture), add).build()
    }

    /// Adds `scale · alpha / rank · B · A` to the values of a matrix.
    fn add_to(&self, matrix: &Matrix, scale: f32, values: &mut [f32]) {
        let (_, [k, n]) = matrix;
        let (k, n, rank) = (*k as usize, *n as usize, self.rank);
        let [a, b] = self.halves(matrix, [k * rank, n * rank]);
        let factor =
            if self.alpha == 0.0 { scale.into() } else { f64::from(scale * self.alpha) / rank as f64 };
        for (i, x) in values.iter_mut().enumerate() {
            let (row, column) = (i / k, i % k);
            let product = (0..rank).map(|r| f64::from(b[row * rank + r]) * f64::from(a[r * k + column]));
            *x = (f64::from(*x) + factor * product.sum::<f64>()) as f32;
        }
    }
}

/// The matrices of a file's layers that adapters change as a rule, and the head if it is one of its own.
pub fn matrices(gguf: &Gguf) -> Vec<Matrix> {
    let wanted = |name: &str| {
        let part = name.strip_prefix("blk.").and_then(|name| Some(name.split_once('.')?.1));
        let part = part.and_then(|part| part.strip_suffix(".weight"));
        name == "output.weight"
            || part.is_some_and(|part| {
                let known = part.starts_with("attn_") || part.starts_with("ffn_");
                known && !["norm", "exps", "_inp", "rel_b"].iter().any(|other| part.contains(other))
            })
    };
    let tensors = gguf.tensors().iter().filter(|tensor| tensor.shape().len() == 2 && wanted(&tensor.name));
    tensors.map(|tensor| (tensor.name.clone(), [tensor.dims[0], tensor.dims[1]])).collect()
}

/// The model with all its tensors in f32, into which adapters, each with a scale and its matrices, are merged.
pub fn merged(gguf: &Gguf, adapters: &[(&Recipe, f32, &[Matrix])]) -> Vec<u8> {
    let writer = gguf.metadata().iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
    let add =
        |w: Writer, name: &str, values: &[f32], dims: &[u64]| w.tensor(name, dims, F32, &f32_bytes(values));
    gguf.tensors()
        .iter()
        .fold(writer, |writer, info| {
            let mut data = vec![0; info.bytes as usize];
            gguf.read_tensor(info, 0, &mut data).unwrap();
            let mut values = vec![0.0f32; info.elements() as usize];
            quant::decode_row(info.dtype().unwrap(), &data, &mut values).unwrap();
            for (recipe, scale, matrices) in adapters {
                if let Some(matrix) = matrices.iter().find(|(name, _)| *name == info.name) {
                    recipe.add_to(matrix, *scale, &mut values);
                }
            }
            add(writer, &info.name, &values, info.shape())
        })
        .build()
}
