//! NumPy's format of matrices, as far as sets of vectors need it: two dimensions of little-endian f32, row after row.

use smallmind::Error;

/// Bytes of the headers that are written here: room for any number of rows.
pub const HEADER: u64 = 128;

/// Most floats of a row that are read.
const MAX_WIDTH: usize = 1 << 20;

/// What stands in front of every header: the magic, a version, and the length of what follows.
const PREFIX: usize = 10;

/// The header of a matrix.
pub fn header(rows: u64, width: usize) -> Vec<u8> {
    let about = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let len = HEADER as usize - PREFIX;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(len as u16).to_le_bytes());
    bytes.extend_from_slice(format!("{about:<0$}\n", len - 1).as_bytes());
    bytes
}

/// Rows, width, and where the rows begin, of a file that begins with these bytes.
///
/// # Errors
/// [`Error::InvalidArgument`] for another format or other types.
pub fn parse(begin: &[u8]) -> smallmind::Result<(u64, usize, u64)> {
    let bad = || Error::invalid("not a matrix of f32 in NumPy's format");
    let rest = begin.strip_prefix(b"\x93NUMPY").ok_or_else(bad)?;
    let (first, len) = match rest {
        [1, _, a, b, ..] => (PREFIX, usize::from(u16::from_le_bytes([*a, *b]))),
        [2 | 3, _, a, b, c, d, ..] => (PREFIX + 2, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Err(bad()),
    };
    let end = first.checked_add(len).filter(|end| *end <= begin.len()).ok_or_else(bad)?;
    let about = std::str::from_utf8(&begin[first..end]).map_err(|_| bad())?;
    if !about.contains("'<f4'") || !about.contains("'fortran_order': False") {
        return Err(bad());
    }
    let shape = about.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).ok_or_else(bad)?.0;
    let (rows, width) = shape.split_once(',').ok_or_else(bad)?;
    let rows = rows.trim().parse().map_err(|_| bad())?;
    let width = width.trim().parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width)).ok_or_else(bad)?;
    Ok((rows, width, end as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        for (rows, width) in [(0, 1), (7, 384), (u64::MAX, 1 << 20)] {
            let header = header(rows, width);
            assert_eq!(header.len() as u64, HEADER);
            assert_eq!(parse(&header).unwrap(), (rows, width, HEADER));
            assert!(parse(&header[..100]).is_err());
        }
        let other = String::from_utf8_lossy(&header(1, 2)[PREFIX..]).replace("<f4", "<f8");
        assert!(parse(&[&header(1, 2)[..PREFIX], other.as_bytes()].concat()).is_err());
        assert!(parse(b"{\"id\":").is_err() && parse(b"").is_err());
    }
}
