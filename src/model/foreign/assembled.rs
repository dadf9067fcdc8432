//! A GGUF file that doesn't exist: a header in memory, and tensors of other files that are put into GGUF's form as they
//! are read. To the rest of the library it is a file like any other, and writing its bytes down makes one.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::format::gguf::{Header, Metadata, TensorEntry, TensorType};
use crate::memory::reserve::{collected, filled, with_room};
use crate::quant::{DType, decode_row};
use crate::text::escaped;

const WHAT: &str = "tensors of another format";

/// How a tensor stands in its own file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    /// As in GGUF.
    Plain,
    /// A vector of this type, to be widened to F32.
    Widened(DType),
    /// Rows of heads of this many rows each, in which the rotated pairs stand half a head apart; GGUF has them one after
    /// the other.
    Halves {
        /// Rows of a head.
        head: u64,
    },
    /// Columns are rows.
    Transposed,
}

/// A tensor: its entry in the header, and its data.
pub(super) struct Piece {
    pub entry: TensorEntry,
    pub form: Form,
    pub source: Arc<dyn ByteSource>,
    /// Where its data begin in the source.
    pub offset: u64,
}

/// The file.
pub struct Assembled {
    name: String,
    header: Header,
    pieces: Vec<Piece>,
}

impl Assembled {
    /// A file with this metadata and these tensors; `name` is its name in messages.
    pub(super) fn new(name: String, metadata: &Metadata, pieces: Vec<Piece>) -> Result<Self> {
        let entries = collected(pieces.iter().map(|piece| Ok(piece.entry.clone())), WHAT)?;
        let header = Header::new(metadata, &entries)?;
        for (piece, &size) in pieces.iter().zip(&header.sizes) {
            let size = match piece.form {
                Form::Widened(from) => size / 4 * from.block_bytes() as u64,
                _ => size,
            };
            match piece.offset.checked_add(size) {
                Some(end) if end <= piece.source.len() => {}
                _ => {
                    return Err(Error::format(format!(
                        "{}: tensor {} is past the end of the file; was its download interrupted?",
                        escaped(piece.source.name()),
                        escaped(&piece.entry.name)
                    )));
                }
            }
        }
        Ok(Self { name, header, pieces })
    }
}

impl ByteSource for Assembled {
    fn len(&self) -> u64 {
        self.header.file_len
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len()) {
            let (name, len) = (escaped(&self.name), self.len());
            return Err(Error::format(format!(
                "{name}: {} bytes at {offset} are past the end, {len}",
                buf.len()
            )));
        }
        // Bytes between tensors are zeros.
        buf.fill(0);
        if let Some(head) = self.header.bytes.get(offset as usize..) {
            let count = head.len().min(buf.len());
            buf[..count].copy_from_slice(&head[..count]);
        }
        let end = offset + buf.len() as u64;
        let first = self.header.offsets.partition_point(|&begin| begin <= offset).saturating_sub(1);
        for (piece, (&begin, &size)) in
            self.pieces.iter().zip(self.header.offsets.iter().zip(&self.header.sizes)).skip(first)
        {
            if begin >= end {
                break;
            }
            let (from, to) = (begin.max(offset), (begin + size).min(end));
            if from < to {
                piece.read(from - begin, &mut buf[(from - offset) as usize..(to - offset) as usize])?;
            }
        }
        Ok(())
    }
}

impl Piece {
    /// Bytes of an element of a plain type.
    fn element(&self) -> u64 {
        self.entry.ty.block().map_or(1, |(_, bytes)| bytes)
    }

    fn row_bytes(&self) -> u64 {
        self.entry.dims[0] * self.element()
    }

    /// Fills `out` with bytes of the tensor in GGUF's form.
    fn read(&self, within: u64, out: &mut [u8]) -> Result<()> {
        match self.form {
            Form::Plain => self.source.read_at(self.offset + within, out),
            Form::Widened(from) => self.read_widened(from, within, out),
            Form::Halves { head } => self.read_halves(head, within, out),
            Form::Transposed => self.read_transposed(within, out),
        }
    }

    fn read_widened(&self, from: DType, within: u64, out: &mut [u8]) -> Result<()> {
        let (first, end) = (within / 4, (within + out.len() as u64).div_ceil(4));
        let count = (end - first) as usize;
        let mut raw = filled(0u8, count * from.block_bytes(), WHAT)?;
        self.source.read_at(self.offset + first * from.block_bytes() as u64, &mut raw)?;
        let mut floats = filled(0.0f32, count, WHAT)?;
        decode_row(from, &raw, &mut floats)?;
        let mut bytes = with_room(4 * count, WHAT)?;
        floats.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        out.copy_from_slice(&bytes[(within - 4 * first) as usize..][..out.len()]);
        Ok(())
    }

    fn read_halves(&self, head: u64, mut within: u64, mut out: &mut [u8]) -> Result<()> {
        let row_bytes = self.row_bytes();
        while !out.is_empty() {
            let (row, column) = (within / row_bytes, within % row_bytes);
            let (first, place) = (row - row % head, row % head);
            let source_row = first + place % 2 * (head / 2) + place / 2;
            let count = ((row_bytes - column) as usize).min(out.len());
            let (now, later) = out.split_at_mut(count);
            self.source.read_at(self.offset + source_row * row_bytes + column, now)?;
            (out, within) = (later, within + count as u64);
        }
        Ok(())
    }

    fn read_transposed(&self, within: u64, out: &mut [u8]) -> Result<()> {
        let (element, row_bytes) = (self.element() as usize, self.row_bytes());
        let (columns, rows) = (self.entry.dims[0], self.entry.dims[1]);
        let (first, end) = (within / row_bytes, (within + out.len() as u64).div_ceil(row_bytes));
        let count = (end - first) as usize;
        let mut run = filled(0u8, count * element, WHAT)?;
        let mut turned = filled(0u8, count * row_bytes as usize, WHAT)?;
        for column in 0..columns {
            self.source.read_at(self.offset + (column * rows + first) * element as u64, &mut run)?;
            for (row, value) in run.chunks_exact(element).enumerate() {
                let place = row * row_bytes as usize + column as usize * element;
                turned[place..place + element].copy_from_slice(value);
            }
        }
        out.copy_from_slice(&turned[(within - first * row_bytes) as usize..][..out.len()]);
        Ok(())
    }
}

/// A tensor's number of bytes can't be known for a type of blocks, so only plain floats are put together.
pub(super) fn plain(dtype: DType) -> TensorType {
    TensorType(dtype.gguf_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BytesSource;
    use crate::format::gguf::Gguf;
    use half::bf16;

    fn piece(name: &str, dims: &[u64], dtype: DType, form: Form, bytes: &[u8]) -> Piece {
        // The data begin behind three bytes of something else.
        let source = Arc::new(BytesSource::new("source", [&[9, 9, 9], bytes].concat()));
        let entry = TensorEntry { name: name.into(), dims: dims.to_vec(), ty: plain(dtype) };
        Piece { entry, form, source, offset: 3 }
    }

    fn halves(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn file() -> Assembled {
        let mut metadata = Metadata::new();
        metadata.insert("key".into(), crate::format::gguf::Value::U8(7)).unwrap();
        let rows: Vec<u16> = (0..24).collect();
        let vector: Vec<u16> = [1.0f32, -2.0, 0.5].map(|x| bf16::from_f32(x).to_bits()).to_vec();
        let pieces = vec![
            piece("plain", &[3, 8], DType::F16, Form::Plain, &halves(&rows)),
            piece("halves", &[3, 8], DType::F16, Form::Halves { head: 4 }, &halves(&rows)),
            piece("turned", &[3, 8], DType::F16, Form::Transposed, &halves(&rows)),
            piece("widened", &[3], DType::F32, Form::Widened(DType::BF16), &halves(&vector)),
        ];
        Assembled::new("assembled".into(), &metadata, pieces).unwrap()
    }

    #[test]
    fn tensors_are_in_the_form_of_gguf() {
        let gguf = Gguf::open(Arc::new(file())).unwrap();
        let read = |name: &str| {
            let tensor = gguf.tensor(name).unwrap();
            let mut bytes = vec![0; tensor.bytes as usize];
            gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
            bytes
        };
        let rows = |order: [u16; 8]| {
            halves(&order.iter().flat_map(|r| [3 * r, 3 * r + 1, 3 * r + 2]).collect::<Vec<_>>())
        };
        assert_eq!(read("plain"), rows([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(read("halves"), rows([0, 2, 1, 3, 4, 6, 5, 7]));
        let turned: Vec<u16> = (0..8).flat_map(|row| [row, row + 8, row + 16]).collect();
        assert_eq!(read("turned"), halves(&turned));
        let widened: Vec<u8> = [1.0f32, -2.0, 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read("widened"), widened);
    }

    #[test]
    fn any_range_reads_the_same_bytes() {
        let file = file();
        let mut all = vec![1; file.len() as usize];
        file.read_at(0, &mut all).unwrap();
        for begin in 0..all.len() {
            for end in [begin, begin + 1, begin + 7, begin + 50, all.len()] {
                let Some(wanted) = all.get(begin..end) else { continue };
                let mut read = vec![2; wanted.len()];
                file.read_at(begin as u64, &mut read).unwrap();
                assert_eq!(read, wanted, "{begin}..{end}");
            }
        }
        assert!(file.read_at(all.len() as u64, &mut [0]).is_err());
        assert!(file.read_at(u64::MAX, &mut [0]).is_err());
    }

    #[test]
    fn data_past_the_end_are_refused() {
        let short = piece("short", &[4], DType::F16, Form::Plain, &[0; 7]);
        let error = Assembled::new("a".into(), &Metadata::new(), vec![short]).err().unwrap();
        assert!(error.to_string().contains("short is past the end"), "{error}");
    }
}
