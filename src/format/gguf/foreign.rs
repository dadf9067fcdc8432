//! Files that are not GGUF, named by their first bytes: the message says what was given, and what would help.

use crate::error::{Error, quoted};

/// First bytes by which a file is recognised.
const HEAD: usize = 512;
/// Most characters of a text that a message shows.
const SHOWN: usize = 60;

/// A kind of file: its first bytes, and its name with what would help.
type Kind = (&'static [u8], &'static str);

/// Help for models in other formats.
const CONVERTED: &str =
    "only GGUF is read, which llama.cpp's convert_hf_to_gguf.py makes from a model's folder";

const ARCHIVES: &[Kind] = &[
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
];

const MODELS: &[Kind] = &[
    // Torch's magic number behind a pickle's first byte, and pickles of all later protocols.
    (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", "a PyTorch file"),
    (b"\x80\x02", "a Python pickle (a PyTorch file, as a rule)"),
    (b"\x80\x03", "a Python pickle (a PyTorch file, as a rule)"),
    (b"\x80\x04", "a Python pickle (a PyTorch file, as a rule)"),
    (b"\x80\x05", "a Python pickle (a PyTorch file, as a rule)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (of Keras, as a rule)"),
    (b"\x93NUMPY", "a NumPy array"),
];

/// Files that hold no model.
const OTHERS: &[Kind] = &[
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a picture, sound or film (RIFF)"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program or a library (ELF)"),
    (b"\xcf\xfa\xed\xfe", "a program or a library (Mach-O)"),
    (b"MZ", "a program or a library of Windows"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1\0\0", "an Arrow table"),
];

/// Names of a zip archive's first files that tell a kind of model.
const ZIPPED: &[Kind] = &[
    (b"data.pkl", "a PyTorch file"),
    (b".npy", "a NumPy archive (npz)"),
    (b"model.weights.h5", "a Keras file"),
    (b"metadata.json", "a Keras file"),
    (b"config.json", "a Keras file"),
];

/// Magic numbers of llama.cpp before GGUF, in the byte order of the file.
const OLD: &[Kind] = &[
    (b"lmgg", "an old GGML file"),
    (b"fmgg", "an old GGML file (GGMF)"),
    (b"tjgg", "an old GGML file (GGJT)"),
    (b"algg", "an old GGML adapter (GGLA)"),
];

/// The first bytes of a file that its kind is told from, out of those at hand.
pub(super) fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HEAD)]
}

/// The error for a file of `len` bytes that begins with `head` and not as GGUF does: [`Error::Unsupported`] for a known
/// kind of file, otherwise [`Error::Format`].
pub(super) fn error(head: &[u8], len: u64) -> Error {
    match known(head, len) {
        Some(text) => Error::Unsupported(text),
        None if head.is_empty() => {
            Error::format("not a GGUF file: it is empty; was its download interrupted?")
        }
        None if head.iter().all(|&byte| byte == 0) => {
            Error::format("not a GGUF file: begins with zeros; was its download interrupted?")
        }
        None => match text(head) {
            Some(text) => Error::format(format!("not a GGUF file but a text: {}", quoted(text))),
            None => {
                let begin = &head[..head.len().min(4)];
                Error::format(format!("not a GGUF file: begins with \"{}\"", begin.escape_ascii()))
            }
        },
    }
}

/// The name of a known kind of file, and what would help.
fn known(head: &[u8], len: u64) -> Option<String> {
    let of = |kinds: &[Kind]| kinds.iter().find(|kind| head.starts_with(kind.0)).map(|kind| kind.1);
    let model = |name: &str| Some(format!("{name}; {CONVERTED}"));
    if head.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer, not the model itself, which `git lfs pull` fetches".into());
    }
    if head.starts_with(b"PK\x03\x04") {
        let has = |name: &[u8]| head.windows(name.len()).any(|bytes| bytes == name);
        if let Some((_, name)) = ZIPPED.iter().find(|(file, _)| has(file)) {
            return model(name);
        }
    }
    if let Some(name) = of(ARCHIVES) {
        return Some(format!("{name}; unpack it first"));
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive; unpack it first".into());
    }
    if let Some(name) = of(MODELS) {
        return model(name);
    }
    if let Some(name) = of(OTHERS) {
        return Some(format!("{name}, not a model"));
    }
    if let Some(name) = of(OLD) {
        return Some(format!(
            "{name}; such files were replaced by GGUF in 2023, which most models are offered in"
        ));
    }
    if is_safetensors(head, len) {
        return model("a safetensors file");
    }
    if is_onnx(head) {
        return model("an ONNX model");
    }
    if head.get(4..8) == Some(b"TFL3") {
        return model("a TensorFlow Lite model");
    }
    markup(head)
}

/// Answers of servers that were stored in place of a model.
fn markup(head: &[u8]) -> Option<String> {
    let text = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head).trim_ascii_start();
    let begins =
        |with: &str| text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()));
    let name = if begins("<!doctype html") || begins("<html") || begins("<head") {
        "an HTML page"
    } else if begins("<?xml") || begins("<error") {
        "an XML document"
    } else if begins("{") && self::text(head).is_some() {
        "a JSON text"
    } else {
        return None;
    };
    Some(format!(
        "{name}, not a model; a download gives this where the address leads elsewhere or a login is needed"
    ))
}

/// A safetensors file begins with the length of a JSON text, which follows.
fn is_safetensors(head: &[u8], len: u64) -> bool {
    let Some((length, json)) = head.split_first_chunk::<8>() else { return false };
    json.first() == Some(&b'{') && (2..=len.saturating_sub(8)).contains(&u64::from_le_bytes(*length))
}

/// A protocol buffer whose first field is a small version, followed by one of the fields that ONNX writers put next.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=30, 0x12 | 0x1a | 0x22 | 0x32 | 0x3a | 0x42, _, ..])
}

/// The beginning of a text: its first characters, if the bytes are printable characters and white space.
fn text(head: &[u8]) -> Option<&str> {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let printable = |char: char| !char.is_control() || matches!(char, '\n' | '\r' | '\t');
    let is_text = valid.len() >= 8 && valid.chars().all(printable);
    is_text.then(|| valid.char_indices().nth(SHOWN).map_or(valid, |(cut, _)| &valid[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named() {
        let zip = |name: &str| [b"PK\x03\x04\x14\0\0\0\0\0".as_slice(), name.as_bytes(), b"\0\x01"].concat();
        for (head, name) in [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "a PNG picture, not a model"),
            (b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "a JPEG picture, not a model"),
            (b"%PDF-1.7\n%\xe2\xe3".to_vec(), "a PDF document, not a model"),
            (b"\x7fELF\x02\x01\x01\0".to_vec(), "a program or a library (ELF), not a model"),
            (b"PAR1\x15\x04".to_vec(), "a Parquet table, not a model"),
            (zip("arr_0.npy"), "a NumPy archive (npz); only GGUF is read"),
            (zip("metadata.json"), "a Keras file; only GGUF is read"),
            (zip("archive/data.pkl"), "a PyTorch file; only GGUF is read"),
            (zip("notes.txt"), "a zip archive; unpack it first"),
            (b"PK\x05\x06\0\0\0\0".to_vec(), "an empty zip archive"),
            (b"\x89HDF\r\n\x1a\n".to_vec(), "an HDF5 file (of Keras, as a rule); only GGUF is read"),
        ] {
            match error(&head, head.len() as u64) {
                Error::Unsupported(text) => assert!(text.starts_with(name), "{text}"),
                other => panic!("{name}: {other}"),
            }
        }
        // No kind of file, though it has a name of one in it.
        assert!(matches!(error(b"\x01\x02arr_0.npy", 11), Error::Format(_)));
    }
}
