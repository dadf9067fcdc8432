//! Files that a reader may get wrong in silence: each of `tests/goldens/cases` has its right outcome here. A file that is
//! refused is named with what it is and what would help; one that loads computes with all that it holds, or says what it
//! leaves out.

use std::path::PathBuf;
use std::sync::Arc;

use crate::common::gguf_writer::Writer;
use crate::common::golden::{Cursor, read};
use crate::common::golden_path;
use smallmind::format::gguf::{Gguf, Value};
use smallmind::format::{BytesSource, describe};
use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model, Pooling, read_graph};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::{Error, Result};

fn path(name: &str) -> PathBuf {
    golden_path("cases").join(format!("{name}.gguf"))
}

fn open(name: &str) -> Result<Arc<Model>> {
    Model::open(&path(name), &LoadParams::default())
}

/// The message of the error for a file that this version doesn't run: one line that begins with the kind of error and
/// the file, each once.
fn refusal(name: &str) -> String {
    let error = open(name).err().unwrap_or_else(|| panic!("{name} loads"));
    assert!(matches!(error, Error::Unsupported(_)), "{name}: {error}");
    let (message, file) = (error.to_string(), path(name).display().to_string());
    assert!(message.starts_with(&format!("not supported: {file}: ")), "{message}");
    assert!(message.matches(&file).count() == 1 && !message.contains("bad file"), "{message}");
    assert!(!message.contains(|char: char| char.is_control()), "{message:?}");
    let read = read_graph(&Gguf::open_path(path(name)).unwrap()).unwrap_err();
    assert_eq!(read.to_string(), message, "the graph alone is refused in the same words");
    message
}

fn assert_refused(name: &str, parts: &[&str]) {
    let message = refusal(name);
    for part in parts {
        assert!(message.contains(part), "{name}: {part:?} is not in {message:?}");
    }
}

/// Logits of the tokens, of all positions.
fn logits(model: Arc<Model>, tokens: &[u32], threads: usize) -> Vec<f32> {
    let n = tokens.len();
    let params =
        ContextParams::default().with_n_ctx(n).with_n_output(n).with_threads(threads).with_kv(CacheType::F32);
    let mut context = Context::new(model, &params).unwrap();
    context.decode(tokens, Logits::All).unwrap();
    context.logits().to_vec()
}

/// The model of a case without some of its tensors and pairs.
fn without(name: &str, tensors: &str, pairs: &str) -> Arc<Model> {
    let gguf = Gguf::open_path(path(name)).unwrap();
    let kept = gguf.metadata().iter().filter(|(key, _)| !key.ends_with(pairs));
    let mut writer = kept.fold(Writer::new(), |writer, (key, value)| writer.pair(key, value.clone()));
    for tensor in gguf.tensors().iter().filter(|tensor| !tensor.name.ends_with(tensors)) {
        let mut data = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut data).unwrap();
        writer = writer.tensor(&tensor.name, tensor.shape(), tensor.ty.0, &data);
    }
    let source = Arc::new(BytesSource::new("part", writer.build()));
    Model::from_source(source, &LoadParams::default()).unwrap()
}

/// Products are multiplied by the scales of their matrices: alone, as queries, keys and values, inside an MLP with and
/// without a gate, added to the residual stream, with a bias, at the head; with weights in f32 and in 8 bits.
#[test]
fn scales_of_tensors_multiply_products() {
    // Without quantised weights only f32 rounding differs from the f64 pass, as in `runtime::golden_tests`. With weights of 8 bits
    // activations are rounded to 16: an f64 pass with that rounding is off by 1.1e-3, one with 8 bits by 0.26.
    for (name, bound) in [("scales", 2e-5), ("scales-gpt2", 2e-5), ("scales-qwen2-q8", 3e-3)] {
        let bytes = read(&format!("cases/{name}.logits.bin"));
        let mut cursor = Cursor::new(&bytes, b"SMLG");
        let (positions, vocabulary) = (cursor.size(), cursor.size());
        let tokens: Vec<u32> = (0..positions).map(|_| cursor.u32()).collect();
        let wanted: Vec<f32> = (0..positions * vocabulary).map(|_| cursor.f32()).collect();
        let off = |got: &[f32]| {
            assert_eq!(got.len(), wanted.len());
            got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let got = logits(open(name).unwrap(), &tokens, 1);
        println!("{name}: off by {:.2e}", off(&got));
        assert!(off(&got) < bound, "{name} is off by {:e}", off(&got));
        let shared = logits(open(name).unwrap(), &tokens, 3);
        assert!(got.iter().zip(&shared).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} on three threads");
        for part in [
            "attn_q.scale",
            "attn_qkv.scale",
            "attn_output.scale",
            "ffn_up.scale",
            "ffn_down.scale",
            "output.scale",
        ] {
            let gguf = Gguf::open_path(path(name)).unwrap();
            // llama.cpp has no scales in the MLPs of GPT-2 and Qwen 2.
            let computed = name == "scales" || !part.starts_with("ffn_");
            if computed && gguf.tensors().iter().any(|tensor| tensor.name.ends_with(part)) {
                let off = off(&logits(without(name, part, "\0"), &tokens, 1));
                assert!(off > 30.0 * bound, "without {part}, {name} is off by {off:e} only");
            }
        }
    }
    // An embedding's scale would be one of the head as well.
    assert_refused("scales-tied", &["token_embd.scale"]);
}

#[test]
fn a_scale_is_one_finite_number() {
    for (dims, values, said) in [
        (&[2][..], &[1.0f32, 1.0][..], "has shape [2]; expected [1]"),
        (&[1], &[f32::NAN], "is NaN; expected a finite number"),
        (&[], &[f32::INFINITY], "is inf; expected a finite number"),
    ] {
        let gguf = Gguf::open_path(path("scales")).unwrap();
        let mut writer =
            gguf.metadata().iter().fold(Writer::new(), |w, (key, value)| w.pair(key, value.clone()));
        for tensor in gguf.tensors() {
            let mut data = vec![0; tensor.bytes as usize];
            gguf.read_tensor(tensor, 0, &mut data).unwrap();
            let (dims, data) = match tensor.name.as_str() {
                "blk.0.attn_q.scale" => (dims, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
                _ => (tensor.shape(), data),
            };
            writer = writer.tensor(&tensor.name, dims, tensor.ty.0, &data);
        }
        let source = Arc::new(BytesSource::new("scale", writer.build()));
        let error = Model::from_source(source, &LoadParams::default()).unwrap_err().to_string();
        assert!(
            error.contains("llama, layer 0: tensor blk.0.attn_q.scale") && error.contains(said),
            "{error}"
        );
    }
}

#[test]
fn a_tensor_that_nothing_reads_is_refused_by_name() {
    assert_refused("qknorm", &["blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"]);
    assert_refused("norm-bias", &["blk.0.attn_norm.bias"]);
    assert_refused("rope-factors-long", &["rope_factors_long.weight", "rope_factors_short.weight"]);
    // Its name is shown, and can't command the terminal.
    assert_refused("escapes", &["tensor \"t\\x1b[31mname\""]);
}

#[test]
fn tensors_that_change_nothing_are_left_unread() {
    let (with, bare) = (open("idle").unwrap(), open("idle-without").unwrap());
    assert_eq!((with.config().n_layer(), with.config().n_predicting), (1, 1));
    assert_eq!(with.warnings(), [""; 0]);
    let tokens = [3, 1, 4, 1, 5, 9];
    assert!(logits(with, &tokens, 1) == logits(bare, &tokens, 1));
}

#[test]
fn a_key_that_changes_results_is_refused_or_told() {
    assert_refused("swa", &["a sliding window", "\"llama.attention.sliding_window\" = 4"]);
    assert_refused("not-causal", &["\"qwen2.attention.causal\" = false"]);
    assert_eq!(open("last-pooling").unwrap().config().pooling, Some(Pooling::Last));
    let model = open("softcap").unwrap();
    let [cap, escaped] = model.warnings() else { panic!("{:?}", model.warnings()) };
    assert!(cap.contains("\"llama.final_logit_softcapping\" = 30") && cap.contains("soft cap"), "{cap}");
    assert!(escaped.contains("\"llama.logit_scale\\x1b[2J\" = 0.5"), "{escaped}");
    assert_eq!(without("softcap", "\0", "2J").warnings(), std::slice::from_ref(cap));
}

#[test]
fn what_is_no_whole_model_is_named() {
    assert!(open("moe").is_ok());
    assert_refused("experts-unstated", &["qwen3: a mixture of experts"]);
    open("split-00001-of-00002").unwrap();
    assert_refused(
        "split-00002-of-00002",
        &["part 2 of 2 of a split model, which begins with \"split-00001-of-00002.gguf\""],
    );
    assert_refused(
        "part-00002-of-00003",
        &["part 2 of 3 of a split model, which begins with \"part-00001-of-00003.gguf\""],
    );
    assert_refused("adapter", &["an adapter (LoRA), which changes another model, not a model"]);
}

#[test]
fn metadata_that_is_not_utf8_is_shown_escaped() {
    let shown = |name: &str, key: &str| {
        let gguf = Gguf::open_path(path(name)).unwrap();
        gguf.metadata().get(key).unwrap_or_else(|| panic!("{key}")).to_string()
    };
    assert_eq!(shown("latin1_author", "general.author"), r#""Jos\xe9X""#);
    assert!(open("latin1_author").is_ok());
    let name = "latin1-everywhere";
    assert_eq!(shown(name, "general.name"), r#""Caf\xe9\x80 one""#);
    assert_eq!(shown(name, r"general.na\xe9\x80ve"), r#""odd""#);
    assert_eq!(shown(name, "general.tags"), "an array of 2 strings that are not all UTF-8");
    assert_eq!(describe(&Gguf::open_path(path(name)).unwrap()).name.as_deref(), Some(r"Caf\xe9\x80 one"));
    let model = open(name).unwrap();
    assert_eq!((model.config().name.as_str(), model.warnings().len()), ("", 0));
}

/// A text that matters must be one.
#[test]
fn a_vocabulary_that_is_not_utf8_is_refused() {
    let gguf = Gguf::open_path(path("latin1_author")).unwrap();
    for key in ["general.architecture", "tokenizer.ggml.model"] {
        let pair = |(name, value): (&str, &Value)| {
            (name.to_owned(), if name == key { Value::Bytes(b"gpt\xff".to_vec()) } else { value.clone() })
        };
        let mut writer =
            gguf.metadata().iter().map(pair).fold(Writer::new(), |w, (key, value)| w.pair(&key, value));
        for tensor in gguf.tensors() {
            let mut data = vec![0; tensor.bytes as usize];
            gguf.read_tensor(tensor, 0, &mut data).unwrap();
            writer = writer.tensor(&tensor.name, tensor.shape(), tensor.ty.0, &data);
        }
        let source = Arc::new(BytesSource::new("mixed", writer.build()));
        let error = match Model::from_source(source, &LoadParams::default()) {
            Ok(model) => model.tokenizer().err().unwrap(),
            Err(error) => error,
        };
        let said = format!("metadata key \"{key}\" is the string \"gpt\\xff\", which is not UTF-8");
        assert!(matches!(error, Error::Format(_)) && error.to_string().contains(&said), "{error}");
    }
}

/// A conversation begins with one BOS where llama.cpp puts one there, whoever writes it.
#[test]
fn a_conversation_begins_with_one_bos() {
    let model = open("chatml_nobos").unwrap();
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.added_bos(), Some(256));
    let messages = [smallmind::chat::Message::new("user", "hello")];
    let text = model.chat_template().unwrap().render(&messages, true).unwrap();
    let plain = tokenizer.encode(&text, true, false).unwrap();
    assert_ne!(plain[0], 256, "the template writes no BOS");
    let with = tokenizer.encode_chat(&text, true).unwrap();
    assert_eq!(with[0], 256);
    assert_eq!(with[1..], plain);
    assert_eq!(tokenizer.encode_chat(&text, false).unwrap(), plain);
    let written = format!("{}{text}", tokenizer.bos_text());
    assert_eq!(tokenizer.encode_chat(&written, true).unwrap(), with);
    assert_eq!(tokenizer.encode_chat(&written, false).unwrap(), with);
    assert_eq!(model.chat_tokens(&messages, true, true).unwrap(), with);
    assert_eq!(model.chat_tokens(&messages, true, false).unwrap(), plain);
    // A person who types the token's name doesn't begin the text.
    let typed = [smallmind::chat::Message::new("user", tokenizer.bos_text())];
    assert_eq!(model.chat_tokens(&typed, true, true).unwrap().iter().filter(|&&id| id == 256).count(), 1);
}

/// Other files that are mistaken for models, by their first bytes.
#[test]
fn files_of_other_kinds_are_named() {
    let padded = |head: &[u8]| [head, &[7; 600]].concat();
    let safetensors = [&40u64.to_le_bytes()[..], br#"{"__metadata__":{"format":"pt"}}"#, &[0; 60]].concat();
    let zip = |name: &[u8]| padded(&[b"PK\x03\x04\x14\0\0\0\0\0", &[0; 20][..], name].concat());
    let mut tar = padded(b"model/weights.bin");
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, said) in [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n".to_vec(),
            "`git lfs pull`",
        ),
        (b"<!DOCTYPE html>\n<html lang=\"en\"><head>".to_vec(), "an HTML page, not a model"),
        (b"\xef\xbb\xbf\r\n <HTML><BODY>Not found".to_vec(), "an HTML page, not a model"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied".to_vec(), "an XML document, not a model"),
        (b"{\"error\":\"Repository not found\"}".to_vec(), "a JSON text, not a model"),
        (padded(b"\x1f\x8b\x08\0"), "a gzip file; unpack it first"),
        (padded(b"\x28\xb5\x2f\xfd"), "a Zstandard file; unpack it first"),
        (padded(b"\xfd7zXZ\0"), "an xz file; unpack it first"),
        (tar, "a tar archive; unpack it first"),
        (zip(b"model.gguf"), "a zip archive; unpack it first"),
        (zip(b"archive/data.pkl"), "a PyTorch file; only GGUF is read"),
        (padded(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20"), "a PyTorch file; only GGUF is read"),
        (padded(b"\x80\x04\x95"), "a Python pickle"),
        (safetensors, "a safetensors file; only GGUF is read"),
        (padded(b"\x08\x07\x12\x07pytorch"), "an ONNX model; only GGUF is read"),
        (padded(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (padded(b"tjgg\x03\0\0\0"), "an old GGML file (GGJT)"),
        (padded(b"lmgg"), "an old GGML file;"),
        (padded(b"GGUF\0\0\0\x03"), "big-endian GGUF"),
    ] {
        let source = Arc::new(BytesSource::new("m\x1b[2J.gguf", bytes));
        let error = Model::from_source(source, &LoadParams::default()).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with("not supported: m\\x1b[2J.gguf: ") && message.contains(said),
            "{message}"
        );
    }
}

/// These are no good files of any kind.
#[test]
fn damaged_files_are_bad_files() {
    for (bytes, said) in [
        (&b""[..], "bad file: f: not a GGUF file: it is empty"),
        (&[0; 4096], "bad file: f: not a GGUF file: begins with zeros"),
        (b"GGU", "bad file: f: not a GGUF file: begins with \"GGU\""),
        (b"Access to this model is restricted.\n", "not a GGUF file but a text: \"Access to this model"),
        (b"\x7fFOO\x02\x01\x01", "not a GGUF file: begins with \"\\x7fFOO\""),
    ] {
        let error = Gguf::open(Arc::new(BytesSource::new("f", bytes))).unwrap_err();
        assert!(matches!(error, Error::Format(_)) && error.to_string().contains(said), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Model::open(folder.path(), &LoadParams::default()).unwrap_err();
    assert!(
        matches!(error, Error::InvalidArgument(_))
            && error.to_string().contains(": not a regular file but a folder;"),
        "{error}"
    );
    let error = Model::open(&folder.path().join("no\x1bsuch"), &LoadParams::default()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("no\\x1bsuch: "), "{error}");
}
