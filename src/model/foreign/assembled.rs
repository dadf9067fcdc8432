//! A GGUF file that doesn't exist: a header in memory, and tensors of other files that are put into GGUF's form as they
//! are read. To the rest of the library it is a file like any other, and writing its bytes down makes one.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result, at};
use crate::format::ByteSource;
use crate::format::gguf::{Header, Metadata, TensorEntry, TensorType};
use crate::memory::reserve::{collected, filled, with_room};
use crate::quant::{DType, decode_row};
use crate::text::escaped;

const WHAT: &str = "tensors of another format";

/// The order of a tensor's elements in its own file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// As in GGUF.
    Plain,
    /// Rows of heads of this many rows each, in which the rotated pairs stand half a head apart; GGUF has them one after
    /// the other.
    Halves {
        /// Rows of a head.
        head: u64,
    },
    /// Groups of rows: those of some heads of queries, then one head each of keys and values. GGUF has all queries, all
    /// keys and all values.
    Groups {
        /// Heads of queries in a group.
        queries: u64,
        /// Rows of a head.
        head: u64,
    },
    /// Columns are rows, in each of several matrices one behind the other.
    Transposed,
    /// Runs of elements that stand apart.
    Apart {
        /// Elements of a run.
        run: u64,
        /// Elements from one run to the next.
        every: u64,
    },
}

/// A tensor: its entry in the header, and its data.
pub(super) struct Piece {
    pub entry: TensorEntry,
    /// Equal parts of the tensor, in order: each a source and the place where its data begin.
    pub places: Vec<Place>,
    /// The type in the source; another one than the entry's is converted to F32.
    pub from: DType,
    pub order: Order,
    /// A constant that GGUF has in the values, and the source hasn't.
    pub added: f32,
}

/// Where data begin.
#[derive(Clone)]
pub(super) struct Place {
    pub source: Arc<dyn ByteSource>,
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
        pieces.iter().try_for_each(Piece::check)?;
        Ok(Self { name, header, pieces })
    }
}

impl fmt::Debug for Assembled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, tensors) = (&self.name, self.pieces.len());
        f.debug_struct("Assembled").field("name", name).field("tensors", &tensors).finish_non_exhaustive()
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
    /// A tensor that is stored as in GGUF.
    pub fn plain(
        name: String,
        dims: Vec<u64>,
        dtype: DType,
        source: Arc<dyn ByteSource>,
        offset: u64,
    ) -> Piece {
        let entry = TensorEntry { name, dims, ty: plain(dtype) };
        Piece { entry, places: vec![Place { source, offset }], from: dtype, order: Order::Plain, added: 0.0 }
    }

    /// Checks that the data are there, and that rows can be put in order.
    fn check(&self) -> Result<()> {
        let fault = |what: String| Err(Error::format(format!("tensor {} {what}", escaped(&self.entry.name))));
        let bytes = self.reach().and_then(|elements| elements.checked_mul(self.from.block_bytes() as u64));
        let bytes = bytes
            .ok_or_else(|| Error::format(format!("tensor {} is too long", escaped(&self.entry.name))))?;
        for place in &self.places {
            if place.offset.checked_add(bytes).is_none_or(|end| end > place.source.len()) {
                let name = escaped(place.source.name());
                let what = "is past the end of the file; was its download interrupted?";
                return fault(what.into()).map_err(at(|| name.to_string()));
            }
        }
        let rows = self.rows();
        let whole = |rows_each: u64| rows_each > 0 && rows.is_multiple_of(rows_each);
        match self.order {
            Order::Halves { head } if head % 2 == 1 || !whole(head) => {
                fault(format!("has {rows} rows, no whole number of heads of {head}"))
            }
            Order::Groups { queries, head } if !whole(queries.saturating_add(2).saturating_mul(head)) => {
                fault(format!("has {rows} rows, no whole number of groups of {queries} + 2 heads of {head}"))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of an element in GGUF's form, which is a plain float.
    fn element(&self) -> u64 {
        self.entry.ty.block().map_or(1, |(_, bytes)| bytes)
    }

    /// Elements of one of the places.
    fn part(&self) -> u64 {
        self.entry.dims.iter().product::<u64>() / self.places.len().max(1) as u64
    }

    /// Elements of a place from its first to its last one.
    fn reach(&self) -> Option<u64> {
        match self.order {
            Order::Apart { run, every } => {
                let runs = self.part() / run.max(1);
                runs.saturating_sub(1).checked_mul(every)?.checked_add(run)
            }
            _ => Some(self.part()),
        }
    }

    /// Elements of a row: of a vector, one.
    fn row(&self) -> u64 {
        if self.entry.dims.len() == 1 { 1 } else { self.entry.dims[0] }
    }

    fn rows(&self) -> u64 {
        self.entry.dims.iter().product::<u64>() / self.row().max(1)
    }

    /// The row of the source that is a row of GGUF.
    fn source_row(&self, row: u64) -> u64 {
        match self.order {
            Order::Plain | Order::Transposed | Order::Apart { .. } => row,
            Order::Halves { head } => {
                let (first, place) = (row - row % head, row % head);
                first + place % 2 * (head / 2) + place / 2
            }
            Order::Groups { queries, head } => {
                let (group, within) = ((queries + 2) * head, row % head);
                let groups = self.rows() / group;
                let number = row / head;
                let (of, head_of) = match number.checked_sub(groups * queries) {
                    None => (number / queries, number % queries),
                    Some(keys) if keys < groups => (keys, queries),
                    Some(values) => (values - groups, queries + 1),
                };
                of * group + head_of * head + within
            }
        }
    }

    /// Fills `out` with bytes of the tensor in GGUF's form.
    fn read(&self, within: u64, out: &mut [u8]) -> Result<()> {
        match self.order {
            Order::Transposed => self.read_transposed(within, out),
            Order::Plain => self.read_runs(self.part(), within, out),
            Order::Apart { run, .. } => self.read_runs(run, within, out),
            _ if self.entry.dims.len() == 1 => self.read_vector(within, out),
            _ => self.read_runs(self.row(), within, out),
        }
    }

    /// Runs of elements that stand together in the source too.
    fn read_runs(&self, run: u64, mut within: u64, mut out: &mut [u8]) -> Result<()> {
        let run_bytes = run * self.element();
        while !out.is_empty() {
            let (number, inside) = (within / run_bytes, within % run_bytes);
            let count = ((run_bytes - inside) as usize).min(out.len());
            let (now, later) = out.split_at_mut(count);
            let (place, first) = match self.order {
                Order::Plain => (&self.places[number as usize], 0),
                Order::Apart { every, .. } => (&self.places[0], number * every),
                _ => (&self.places[0], self.source_row(number) * run),
            };
            self.read_elements(place, first, inside, now)?;
            (out, within) = (later, within + count as u64);
        }
        Ok(())
    }

    /// Bytes of the elements from `first` on, in GGUF's type; `within` bytes are left out.
    fn read_elements(&self, place: &Place, first: u64, within: u64, out: &mut [u8]) -> Result<()> {
        let from = self.from.block_bytes() as u64;
        if plain(self.from) == self.entry.ty && self.added == 0.0 {
            return place.source.read_at(place.offset + first * from + within, out);
        }
        let skipped = within / 4;
        let count = (within + out.len() as u64).div_ceil(4) - skipped;
        let floats = self.floats(place, first + skipped, count as usize)?;
        let mut bytes = with_room(4 * floats.len(), WHAT)?;
        floats.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        out.copy_from_slice(&bytes[(within - 4 * skipped) as usize..][..out.len()]);
        Ok(())
    }

    /// Elements as they are computed with.
    fn floats(&self, place: &Place, first: u64, count: usize) -> Result<Vec<f32>> {
        let mut raw = filled(0u8, count * self.from.block_bytes(), WHAT)?;
        place.source.read_at(place.offset + first * self.from.block_bytes() as u64, &mut raw)?;
        let mut floats = filled(0.0f32, count, WHAT)?;
        decode_row(self.from, &raw, &mut floats)?;
        floats.iter_mut().for_each(|x| *x += self.added);
        Ok(floats)
    }

    /// A vector in another order, which is short: all of it is read.
    fn read_vector(&self, within: u64, out: &mut [u8]) -> Result<()> {
        let floats = self.floats(&self.places[0], 0, self.entry.dims[0] as usize)?;
        let first = within / 4;
        let mut bytes = with_room(out.len() + 8, WHAT)?;
        for row in first..(within + out.len() as u64).div_ceil(4) {
            bytes.extend_from_slice(&floats[self.source_row(row) as usize].to_le_bytes());
        }
        out.copy_from_slice(&bytes[(within - 4 * first) as usize..][..out.len()]);
        Ok(())
    }

    /// Rows that are columns in the source: a run of columns is read of each of its rows.
    fn read_transposed(&self, mut within: u64, mut out: &mut [u8]) -> Result<()> {
        let place = &self.places[0];
        let (element, row_bytes) = (self.element() as usize, self.row() * self.element());
        let (columns, rows) = (self.entry.dims[0], self.entry.dims[1]);
        while !out.is_empty() {
            // The rows of one matrix.
            let (matrix, inside) = (within / (rows * row_bytes), within % (rows * row_bytes));
            let (now, later) = out.split_at_mut(((rows * row_bytes - inside) as usize).min(out.len()));
            let (first, end) = (inside / row_bytes, (inside + now.len() as u64).div_ceil(row_bytes));
            let count = (end - first) as usize;
            let mut run = filled(0u8, count * element, WHAT)?;
            let mut transposed = filled(0u8, count * row_bytes as usize, WHAT)?;
            for column in 0..columns {
                let at = (matrix * columns + column) * rows + first;
                place.source.read_at(place.offset + at * element as u64, &mut run)?;
                for (row, value) in run.chunks_exact(element).enumerate() {
                    let start = row * row_bytes as usize + column as usize * element;
                    transposed[start..start + element].copy_from_slice(value);
                }
            }
            now.copy_from_slice(&transposed[(inside - first * row_bytes) as usize..][..now.len()]);
            (within, out) = (within + now.len() as u64, later);
        }
        Ok(())
    }
}

/// GGUF's number of a type. Only plain floats are put together.
pub(super) fn plain(dtype: DType) -> TensorType {
    TensorType(dtype.gguf_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BytesSource;
    use crate::format::gguf::Gguf;
    use half::bf16;

    fn piece(name: &str, dims: &[u64], to: DType, from: DType, order: Order, bytes: &[u8]) -> Piece {
        // The data begin behind three bytes of something else.
        let source = Arc::new(BytesSource::new("source", [&[9, 9, 9], bytes].concat()));
        let entry = TensorEntry { name: name.into(), dims: dims.to_vec(), ty: plain(to) };
        Piece { entry, places: vec![Place { source, offset: 3 }], from, order, added: 0.0 }
    }

    fn halves(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn file() -> Assembled {
        let mut metadata = Metadata::new();
        metadata.insert("key".into(), crate::format::gguf::Value::U8(7)).unwrap();
        let rows: Vec<u16> = (0..24).collect();
        let vector: Vec<u16> = [1.0f32, -2.0, 0.5].map(|x| bf16::from_f32(x).to_bits()).to_vec();
        let f16 =
            |name: &str, order: Order| piece(name, &[3, 8], DType::F16, DType::F16, order, &halves(&rows));
        let short = |name: &str, order: Order| {
            let eight: Vec<u16> = (0..8).map(|x| bf16::from_f32(x as f32).to_bits()).collect();
            piece(name, &[8], DType::F32, DType::BF16, order, &halves(&eight))
        };
        let mut pieces = vec![
            f16("plain", Order::Plain),
            f16("halves", Order::Halves { head: 4 }),
            f16("groups", Order::Groups { queries: 2, head: 1 }),
            f16("transposed", Order::Transposed),
            piece("widened", &[3], DType::F32, DType::BF16, Order::Plain, &halves(&vector)),
            short("vector halves", Order::Halves { head: 4 }),
            short("vector groups", Order::Groups { queries: 2, head: 1 }),
            piece("shifted", &[3], DType::F32, DType::BF16, Order::Plain, &halves(&vector)),
            piece("stacked", &[2, 1, 3], DType::F16, DType::F16, Order::Plain, &halves(&[5, 6])),
            piece(
                "apart",
                &[3, 2, 2],
                DType::F16,
                DType::F16,
                Order::Apart { run: 6, every: 12 },
                &halves(&rows),
            ),
            piece("matrices", &[2, 4, 3], DType::F16, DType::F16, Order::Transposed, &halves(&rows)),
        ];
        pieces[7].added = 1.0;
        let other: Arc<dyn ByteSource> = Arc::new(BytesSource::new("other", halves(&[7, 8, 9, 10])));
        let more = [0, 4].map(|offset| Place { source: other.clone(), offset });
        pieces[8].places.extend(more);
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
        assert_eq!(read("groups"), rows([0, 1, 4, 5, 2, 6, 3, 7]));
        let transposed: Vec<u16> = (0..8).flat_map(|row| [row, row + 8, row + 16]).collect();
        assert_eq!(read("transposed"), halves(&transposed));
        let of_each: Vec<u16> = (0..12).flat_map(|row| [row / 4 * 4 + row, row / 4 * 4 + row + 4]).collect();
        assert_eq!(read("matrices"), halves(&of_each));
        assert_eq!(read("apart"), rows([0, 1, 4, 5, 0, 0, 0, 0])[..24]);
        let floats = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(read("widened"), floats(&[1.0, -2.0, 0.5]));
        assert_eq!(read("shifted"), floats(&[2.0, -1.0, 1.5]));
        assert_eq!(read("vector halves"), floats(&[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]));
        assert_eq!(read("vector groups"), floats(&[0.0, 1.0, 4.0, 5.0, 2.0, 6.0, 3.0, 7.0]));
        assert_eq!(read("stacked"), halves(&[5, 6, 7, 8, 9, 10]));
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
    fn data_that_do_not_fit_are_refused() {
        let refused = |piece: Piece| {
            Assembled::new("a".into(), &Metadata::new(), vec![piece]).err().unwrap().to_string()
        };
        let f16 = |dims: &[u64], order, bytes: &[u8]| piece("a", dims, DType::F16, DType::F16, order, bytes);
        let error = refused(f16(&[4], Order::Plain, &[0; 7]));
        assert!(error.contains("source: tensor a is past the end"), "{error}");
        for every in [7, u64::MAX] {
            let apart = f16(&[2, 3, 2], Order::Apart { run: 6, every }, &[0; 24]);
            let error = refused(apart);
            assert!(error.contains("tensor a is past the end") || error.contains("too long"), "{error}");
        }
        let error = refused(f16(&[2, 3], Order::Halves { head: 2 }, &[0; 12]));
        assert!(error.contains("has 3 rows, no whole number of heads of 2"), "{error}");
        for (queries, head) in [(1, 1), (u64::MAX, 2), (0, 0)] {
            let error = refused(f16(&[2, 4], Order::Groups { queries, head }, &[0; 16]));
            assert!(error.contains("no whole number of groups"), "{error}");
        }
    }
}
