//! GPTs with random weights: their logits against plain loops in f64, the same bits whatever the threads, the
//! batches and the way in; where they end; what a file of the family must have.

use crate::common::{golden, tiny_model};
use std::sync::Arc;

use crate::common::gguf_writer::{F32, Writer};
use smallmind::format::gguf::{Gguf, Value};
use smallmind::format::{ByteSource, BytesSource, FileSource};
use smallmind::kv::CacheType;
use smallmind::model::{GptConfig, LoadParams, Model, RandomGpt, RopeOverrides};
use smallmind::quant::decode_row;
use smallmind::runtime::{Context, ContextParams, Logits};

const TINY: GptConfig = GptConfig { vocab: 40, context: 24, dim: 48, layers: 2, heads: 3 };

fn random(config: &GptConfig, seed: u64) -> Arc<Model> {
    Model::random(config, seed, &LoadParams::default()).unwrap()
}

fn tokens(config: &GptConfig) -> Vec<u32> {
    (0..config.context).map(|i| (i * 31 % config.vocab) as u32).collect()
}

fn context(model: &Arc<Model>, threads: usize, n_batch: usize) -> Context {
    let n_output = model.config().n_ctx_train;
    let kv = CacheType::F32;
    let params = ContextParams::default()
        .with_n_batch(n_batch)
        .with_n_output(n_output)
        .with_threads(threads)
        .with_kv(kv);
    Context::new(model.clone(), &params).unwrap()
}

/// Logits after every token, all at once.
fn logits(model: &Arc<Model>, threads: usize, tokens: &[u32]) -> Vec<f32> {
    let mut context = context(model, threads, 0);
    context.decode(tokens, Logits::All).unwrap();
    context.logits().to_vec()
}

/// A GPT in plain loops, in f64, from the tensors of a file.
struct Plain {
    gguf: Gguf,
    layers: usize,
    heads: usize,
}

impl Plain {
    fn open(source: Arc<dyn ByteSource>) -> Plain {
        let gguf = Gguf::open(source).unwrap();
        let number = |key| gguf.metadata().require_u32(key).unwrap() as usize;
        let (layers, heads) = (number("gpt2.block_count"), number("gpt2.attention.head_count"));
        Plain { gguf, layers, heads }
    }

    fn tensor(&self, name: &str) -> Vec<f64> {
        let tensor = self.gguf.tensor(name).unwrap();
        let mut bytes = vec![0; tensor.bytes as usize];
        self.gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        decode_row(tensor.dtype().unwrap(), &bytes, &mut values).unwrap();
        values.into_iter().map(f64::from).collect()
    }

    fn layer_norm(&self, x: &[f64], prefix: &str) -> Vec<f64> {
        let (weight, bias) =
            (self.tensor(&format!("{prefix}.weight")), self.tensor(&format!("{prefix}.bias")));
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / x.len() as f64;
        let rstd = 1.0 / (variance + f64::from(1e-5f32)).sqrt();
        (0..x.len()).map(|i| (x[i] - mean) * rstd * weight[i] + bias[i]).collect()
    }

    fn linear(&self, x: &[f64], prefix: &str) -> Vec<f64> {
        let weight = self.tensor(&format!("{prefix}.weight"));
        let product = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let mut y: Vec<f64> = weight.chunks(x.len()).map(product).collect();
        if prefix.starts_with("blk") {
            let bias = self.tensor(&format!("{prefix}.bias"));
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
        }
        y
    }

    /// Logits after every token.
    fn logits(&self, tokens: &[u32]) -> Vec<f64> {
        let dim = self.gguf.tensor("token_embd.weight").unwrap().row_len() as usize;
        let head = if self.gguf.tensor("output.weight").is_some() { "output" } else { "token_embd" };
        let (embedding, positions) = (self.tensor("token_embd.weight"), self.tensor("position_embd.weight"));
        let row = |table: &[f64], r: usize| table[r * dim..(r + 1) * dim].to_vec();
        let sum = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
        let mut stream: Vec<Vec<f64>> = (tokens.iter().enumerate())
            .map(|(i, &token)| sum(row(&embedding, token as usize), row(&positions, i)))
            .collect();
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let qkv: Vec<Vec<f64>> = (stream.iter())
                .map(|x| self.linear(&self.layer_norm(x, &name("attn_norm")), &name("attn_qkv")))
                .collect();
            for (i, x) in stream.iter_mut().enumerate() {
                let seen = attend(&qkv[..=i], dim, self.heads);
                *x = sum(x.clone(), self.linear(&seen, &name("attn_output")));
                let mut inner = self.linear(&self.layer_norm(x, &name("ffn_norm")), &name("ffn_up"));
                inner.iter_mut().for_each(|x| *x = gelu(*x));
                *x = sum(x.clone(), self.linear(&inner, &name("ffn_down")));
            }
        }
        stream.iter().flat_map(|x| self.linear(&self.layer_norm(x, "output_norm"), head)).collect()
    }
}

/// What the last of some positions sees of all of them.
fn attend(qkv: &[Vec<f64>], dim: usize, heads: usize) -> Vec<f64> {
    let head_dim = dim / heads;
    let query = &qkv[qkv.len() - 1];
    let mut out = vec![0.0; dim];
    for head in 0..heads {
        let columns = head * head_dim..(head + 1) * head_dim;
        let score = |row: &Vec<f64>| {
            let dot: f64 = columns.clone().map(|c| query[c] * row[dim + c]).sum();
            (dot / (head_dim as f64).sqrt()).exp()
        };
        let weights: Vec<f64> = qkv.iter().map(score).collect();
        let total: f64 = weights.iter().sum();
        for (row, weight) in qkv.iter().zip(weights) {
            columns.clone().for_each(|c| out[c] += weight / total * row[2 * dim + c]);
        }
    }
    out
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// Root mean square and largest of the differences, and the largest value.
fn difference(got: &[f32], wanted: &[f64]) -> (f64, f64, f64) {
    assert_eq!(got.len(), wanted.len());
    let off: Vec<f64> = got.iter().zip(wanted).map(|(&a, b)| (f64::from(a) - b).abs()).collect();
    let rms = (off.iter().map(|x| x * x).sum::<f64>() / off.len() as f64).sqrt();
    let largest = |values: &[f64]| values.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    (rms, largest(&off), largest(wanted))
}

/// Nothing but the rounding of f32 is between them: each of some ten products sums up to 512 terms, 2⁻²⁴ of its
/// size off a term at worst, a small part of that as a rule.
#[test]
fn logits_of_random_models_are_those_of_plain_loops() {
    for (config, seed) in [(TINY, 1), (GptConfig::SMALL, 42)] {
        let tokens = tokens(&config);
        let wanted = Plain::open(Arc::new(RandomGpt::new(&config, seed).unwrap())).logits(&tokens);
        let (rms, max, size) = difference(&logits(&random(&config, seed), 1, &tokens), &wanted);
        println!("{config:?}: rms {rms:.2e}, max {max:.2e}, logits reach {size:.2}");
        assert!(size > 1.0 && rms < 1e-6 && max < 1e-5, "{config:?}: {rms} {max}");
    }
}

/// Biases and gains that are none but 1 and 0, larger logits. With quantised weights activations are rounded to 16
/// bits, a 254th of what 8 bits cost (rms 0.08, max 0.63 on this file). llama.cpp's logits on the same files are
/// further off, since it reads GELU from a table of half floats: what goes in and what comes out, of size 2, are each
/// off by 2.8e-4 of that (rms). Its bounds are twice what that comes to here.
#[test]
fn logits_of_files_are_those_of_plain_loops_and_llama_cpp() {
    for (name, ours, theirs) in
        [("gpt-untied", (3e-6, 2e-5), (1e-3, 6e-3)), ("gpt-tied-quant", (5e-4, 5e-3), (2e-3, 1.2e-2))]
    {
        let bytes = golden::read(&format!("gguf/{name}.logits.bin"));
        let mut cursor = golden::Cursor::new(&bytes, b"SMLG");
        let (positions, vocab) = (cursor.size(), cursor.size());
        let tokens: Vec<u32> = (0..positions).map(|_| cursor.u32()).collect();
        let expected: Vec<f32> = (0..positions * vocab).map(|_| cursor.f32()).collect();

        let path = tiny_model(name);
        let model = Model::open(&path, &LoadParams::default()).unwrap();
        let got = logits(&model, 2, &tokens);
        let wanted = Plain::open(Arc::new(FileSource::open(&path).unwrap())).logits(&tokens);
        for (who, logits, bounds) in [("ours", &got, ours), ("llama.cpp's", &expected, theirs)] {
            let (rms, max, size) = difference(logits, &wanted);
            println!("{name}: {who}: rms {rms:.2e}, max {max:.2e}, logits reach {size:.2}");
            assert!(rms < bounds.0 && max < bounds.1, "{name}: {who}: {rms} {max}");
        }
        // The same bits on any number of threads and token by token, with quantised weights too.
        for threads in [1, 3] {
            assert!(logits(&model, threads, &tokens) == got, "{name} on {threads} threads");
        }
        let mut context = context(&model, 2, 0);
        for (i, wanted) in got.chunks(vocab).enumerate() {
            context.decode(&tokens[i..=i], Logits::Last).unwrap();
            assert!(context.logits() == wanted, "{name}: token {i} alone");
        }
        assert_eq!(model.tokenizer().unwrap().vocab_size(), vocab);
    }
}

#[test]
fn threads_batches_and_single_tokens_give_the_same_bits() {
    for config in [TINY, GptConfig::SMALL, GptConfig::MEDIUM] {
        let (model, tokens) = (random(&config, 3), tokens(&config));
        let wanted = logits(&model, 1, &tokens);
        for threads in [1, 2, 3] {
            assert!(logits(&model, threads, &tokens) == wanted, "{config:?} on {threads} threads");
            let mut context = context(&model, threads, 0);
            for (i, wanted) in wanted.chunks(config.vocab).enumerate() {
                context.decode(&tokens[i..=i], Logits::Last).unwrap();
                assert!(context.logits() == wanted, "{config:?} on {threads} threads: token {i} alone");
            }
            for begin in [5, 1] {
                context.rewind(begin).unwrap();
                context.decode(&tokens[begin..], Logits::All).unwrap();
                let wanted = &wanted[begin * config.vocab..];
                assert!(context.logits() == wanted, "{config:?} on {threads} threads from {begin} on");
            }
        }
        // Another load of the same seed is the same model; another seed is another.
        assert!(logits(&random(&config, 3), 2, &tokens) == wanted);
        assert!(logits(&random(&config, 4), 1, &tokens) != wanted);
    }
}

#[test]
fn counts_are_those_of_the_configuration() {
    for (config, parameters) in [(GptConfig::SMALL, 470_528), (GptConfig::MEDIUM, 3_454_464)] {
        let model = random(&config, 0);
        assert_eq!(model.n_parameters(), parameters);
        let c = model.config();
        assert_eq!(
            (c.n_vocab, c.n_ctx_train, c.n_embd, c.n_layer()),
            (config.vocab, config.context, config.dim, config.layers)
        );
        assert_eq!(
            (c.first().n_head, c.first().n_head_kv, c.first().n_ff, c.norm_eps),
            (config.heads, config.heads, 4 * config.dim, 1e-5)
        );
        assert!(c.ropes.is_empty() && c.architecture == "gpt2");
        assert!(model.tokenizer().is_err() && model.chat_template().is_err());
    }
}

#[test]
fn positions_end_where_the_table_does() {
    let model = random(&TINY, 1);
    let mut context = context(&model, 2, 0);
    assert_eq!((context.n_ctx(), context.warning()), (24, None));
    context.decode(&[1; 24], Logits::Last).unwrap();
    let error = context.decode(&[1], Logits::Last).unwrap_err();
    assert!(matches!(error, smallmind::Error::ContextFull { n_ctx: 24, needed: 25 }), "{error}");

    let params = ContextParams::default().with_n_ctx(25).with_threads(1);
    for error in [Context::new(model.clone(), &params).err(), Context::memory(&model, &params).err()] {
        let error = error.unwrap().to_string();
        assert!(error.contains("n_ctx is 25; at most 24"), "{error}");
    }
    let rope = RopeOverrides::default().with_factor(2.0);
    let error = Context::new(model, &ContextParams::default().with_rope(rope).with_threads(1));
    let error = error.err().unwrap().to_string();
    assert!(error.contains("positions are learned"), "{error}");
}

/// A file with one pair or tensor left out, or another in its place.
fn altered(
    key: &str,
    value: Option<Value>,
    tensor: &str,
    dims: Option<&[u64]>,
) -> smallmind::Result<Arc<Model>> {
    let source = Arc::new(RandomGpt::new(&TINY, 1).unwrap());
    let gguf = Gguf::open(source.clone()).unwrap();
    let mut writer = Writer::new();
    for (name, old) in gguf.metadata().iter() {
        let new = if name == key { value.clone() } else { Some(old.clone()) };
        if let Some(new) = new {
            writer = writer.pair(name, new);
        }
    }
    for info in gguf.tensors() {
        let dims = if info.name == tensor { dims } else { Some(info.shape()) };
        if let Some(dims) = dims {
            let mut data = vec![0; info.bytes as usize];
            source.read_at(info.offset, &mut data).unwrap();
            data.resize(4 * dims.iter().product::<u64>() as usize, 0);
            writer = writer.tensor(&info.name, dims, F32, &data);
        }
    }
    Model::from_source(Arc::new(BytesSource::new("altered", writer.build())), &LoadParams::default())
}

#[test]
fn a_file_must_have_what_the_family_has() {
    let same = altered("", None, "", None).unwrap();
    assert!(logits(&same, 1, &[1, 2]) == logits(&random(&TINY, 1), 1, &[1, 2]));
    // Keys that are needed, and values that can't be.
    for key in
        ["context_length", "embedding_length", "feed_forward_length", "block_count", "attention.head_count"]
    {
        let key = format!("gpt2.{key}");
        let missing = altered(&key, None, "", None).err().unwrap().to_string();
        assert!(missing.contains(&key) && missing.contains("missing"), "{missing}");
        let zero = altered(&key, Some(Value::U32(0)), "", None).err().unwrap().to_string();
        assert!(zero.contains(&format!("{key} is 0")), "{zero}");
        let text = altered(&key, Some(Value::Str("4".into())), "", None).err().unwrap().to_string();
        assert!(text.contains(&key), "{text}");
    }
    for (key, said) in [
        ("context_length", "tensor position_embd.weight has shape [48, 24]; the configuration wants [48, 5]"),
        ("embedding_length", "width 5 is no multiple of 3 heads"),
        ("feed_forward_length", "gpt2, layer 0: tensor blk.0.ffn_up.weight has shape [48, 192]"),
        ("block_count", "gpt2, layer 2: tensor blk.2.attn_norm.bias is missing"),
        ("attention.head_count", "width 48 is no multiple of 5 heads"),
    ] {
        let key = format!("gpt2.{key}");
        let error = altered(&key, Some(Value::U32(5)), "", None).err().unwrap().to_string();
        assert!(error.contains(said), "{key}: {error}");
    }
    for eps in [-1.0, f32::INFINITY, f32::NAN] {
        let key = "gpt2.attention.layer_norm_epsilon";
        let error = altered(key, Some(Value::F32(eps)), "", None).err().unwrap().to_string();
        assert!(error.contains(key), "{error}");
    }
    // Every tensor but the head, for which the embedding stands in.
    let gguf = Gguf::open(Arc::new(RandomGpt::new(&TINY, 1).unwrap())).unwrap();
    for info in gguf.tensors() {
        let name = &info.name;
        if name == "output.weight" {
            let tied = altered("", None, name, None).unwrap();
            assert_ne!(logits(&tied, 1, &[1, 2]), logits(&random(&TINY, 1), 1, &[1, 2]));
        } else {
            let missing = altered("", None, name, None).err().unwrap().to_string();
            assert!(missing.contains(&format!("tensor {name} is missing")), "{missing}");
        }
        let mut longer = info.shape().to_vec();
        *longer.last_mut().unwrap() += 1;
        let wrong = altered("", None, name, Some(&longer)).err();
        if name == "token_embd.weight" {
            // Its rows say how large the vocabulary is: the head's don't fit then.
            let wrong = wrong.unwrap().to_string();
            assert!(wrong.contains("output.weight has shape"), "{wrong}");
        } else {
            let wrong = wrong.unwrap().to_string();
            assert!(wrong.contains(&format!("tensor {name} has shape")), "{wrong}");
        }
    }
}
