//! Models split into several files: whole ones give the same model as one file, and each fault of a part is an error
//! that names it, with nothing large held. Every case is a small model that loads, divided and then changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bad_files::{MOST_HELD, Parts};
use smallmind::format::gguf::{Gguf, Value};
use smallmind::format::{ByteSource, BytesSource, FileSource, MapSource};
use smallmind::model::{LoadParams, Model};
use smallmind::profile::alloc::total_counts;

/// The files of a model in `count` parts, the first with all pairs and (as the usual tool can make it) no tensors.
fn divided(whole: &Parts, count: usize) -> Vec<Parts> {
    let per_part = whole.tensors.len().div_ceil(count - 1);
    let mut parts = vec![Parts { pairs: whole.pairs.clone(), tensors: Vec::new() }];
    parts
        .extend(whole.tensors.chunks(per_part).map(|chunk| Parts { pairs: vec![], tensors: chunk.to_vec() }));
    assert_eq!(parts.len(), count);
    let tensors = Value::I32(whole.tensors.len() as i32);
    let numbered = parts.into_iter().enumerate().map(|(number, part)| {
        part.with("split.no", Some(Value::U16(number as u16)))
            .with("split.count", Some(Value::U16(count as u16)))
            .with("split.tensors.count", Some(tensors.clone()))
    });
    numbered.collect()
}

fn path(folder: &Path, number: usize, count: usize) -> PathBuf {
    folder.join(format!("model-{number:05}-of-{count:05}.gguf"))
}

/// Writes the parts into a new folder.
fn written(parts: &[Parts]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (i, part) in parts.iter().enumerate() {
        std::fs::write(path(folder.path(), i + 1, parts.len()), part.build()).unwrap();
    }
    folder
}

/// The message with which the first of these parts is refused.
fn refusal(folder: &tempfile::TempDir, count: usize) -> String {
    let error = Model::open(&path(folder.path(), 1, count), &LoadParams::default()).expect_err("it loads");
    let held = total_counts().peak_bytes;
    assert!(held <= MOST_HELD, "{held} bytes were held at once");
    error.to_string()
}

fn assert_refused(parts: &[Parts], named: &[&str]) {
    let message = refusal(&written(parts), parts.len());
    assert!(!message.contains('\n') && message.len() < 500, "{message}");
    for named in named {
        assert!(message.contains(named), "{named:?} is not in {message:?}");
    }
}

/// The names, shapes and bytes of all tensors.
fn contents(gguf: &Gguf) -> Vec<(String, Vec<u64>, Vec<u8>)> {
    let tensors = gguf.tensors().iter().map(|tensor| {
        let mut bytes = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        (tensor.name.clone(), tensor.shape().to_vec(), bytes)
    });
    tensors.collect()
}

#[test]
fn all_parts_make_one_model() {
    let whole = Parts::mixed();
    let bytes = |parts: &Parts| -> Arc<dyn ByteSource> { Arc::new(BytesSource::new("part", parts.build())) };
    let one = Gguf::open(bytes(&whole)).unwrap();
    for count in [2, 4] {
        let parts = divided(&whole, count);
        let folder = written(&parts);
        let first = path(folder.path(), 1, count);
        let file = Gguf::open_path(&first).unwrap();
        // SAFETY: the folder is this test's own.
        let map = Gguf::open(Arc::new(unsafe { MapSource::open(&first) }.unwrap())).unwrap();
        let memory = Gguf::open_parts(&parts.iter().map(bytes).collect::<Vec<_>>()).unwrap();
        for gguf in [&file, &map, &memory] {
            assert_eq!(gguf.parts(), count);
            assert_eq!(contents(gguf), contents(&one));
            assert_eq!(gguf.parameters(), one.parameters());
        }
        let lens = (1..=count).map(|i| FileSource::open(path(folder.path(), i, count)).unwrap().len());
        assert_eq!(file.source().len(), lens.sum::<u64>());
        Model::open(&first, &LoadParams::default()).unwrap();
        let later =
            Model::open(&path(folder.path(), 2, count), &LoadParams::default()).unwrap_err().to_string();
        assert!(later.contains("\"model-00001-of-0000") && later.contains("part 2 of"), "{later}");
    }
}

#[test]
fn parts_that_are_missing_or_out_of_place() {
    let parts = divided(&Parts::mixed(), 3);
    let folder = written(&parts);
    std::fs::remove_file(path(folder.path(), 3, 3)).unwrap();
    let message = refusal(&folder, 3);
    assert!(message.contains("part 3 is missing, \"model-00003-of-00003.gguf\""), "{message}");
    std::fs::create_dir(path(folder.path(), 3, 3)).unwrap();
    assert!(refusal(&folder, 3).contains("not a regular file"));

    let swapped = [parts[0].clone(), parts[2].clone(), parts[1].clone()];
    assert_refused(&swapped, &["model-00002-of-00003.gguf: says that it is part 3; part 2 is needed"]);
    let mut unnumbered = parts.clone();
    unnumbered[1] = unnumbered[1].clone().with("split.no", None);
    assert_refused(&unnumbered, &["says that it is no number; part 2 is needed"]);
    let mut miscounted = parts.clone();
    miscounted[2] = miscounted[2].clone().with("split.count", Some(Value::U16(4)));
    assert_refused(&miscounted, &["model-00003-of-00003.gguf: is of a model in 4 parts"]);
    miscounted[2] = miscounted[2].clone().with("split.count", None);
    assert_refused(&miscounted, &["is of a model in 1 parts"]);
}

#[test]
fn a_first_part_without_its_neighbours() {
    let parts = divided(&Parts::mixed(), 2);
    let memory = |name: &str| Gguf::open(Arc::new(BytesSource::new(name, parts[0].build())));
    let message = memory("model.gguf").unwrap_err().to_string();
    assert!(message.contains("part 1 of 2") && message.contains("-00001-of-00002.gguf"), "{message}");
    let message = memory("model-00001-of-00002.gguf").unwrap_err().to_string();
    assert!(message.contains("is no file") && message.contains("--merge"), "{message}");
    let many = parts[0].clone().with("split.count", Some(Value::U64(u64::MAX)));
    let message = Gguf::open(Arc::new(BytesSource::new("a", many.build()))).unwrap_err().to_string();
    assert!(message.contains("at most 1024"), "{message}");
    assert!(Gguf::open_parts(&[]).is_err());
}

#[test]
fn parts_of_another_model() {
    let parts = divided(&Parts::mixed(), 3);
    let changed = |change: &dyn Fn(Parts) -> Parts| {
        let mut changed = parts.clone();
        changed[2] = change(changed[2].clone());
        changed
    };
    let named = changed(&|part| part.with("general.architecture", Some(Value::Str("qwen2".into()))));
    assert_refused(&named, &["is of another model: general.architecture is \"qwen2\"", "\"llama\""]);
    let counted = changed(&|part| part.with("split.tensors.count", Some(Value::I32(77))));
    assert_refused(&counted, &["is of another model: split.tensors.count is 77"]);
    let twice = changed(&|mut part| {
        part.tensors[0] = parts[1].tensors[0].clone();
        part
    });
    assert_refused(&twice, &["in all 3 parts: two tensors are called", &parts[1].tensors[0].name]);
    let fewer = changed(&|mut part| {
        part.tensors.pop();
        part
    });
    assert_refused(&fewer, &["split.tensors.count is", "3 parts have"]);
    let short = written(&parts);
    let cut = path(short.path(), 2, 3);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let message = refusal(&short, 3);
    assert!(message.contains("model-00002-of-00003.gguf") && message.contains("past the end"), "{message}");
}
