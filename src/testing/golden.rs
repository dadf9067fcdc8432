//! Reading the goldens: little-endian files with a magic and a version, in `tests/goldens`.

/// A golden file's bytes.
pub fn read(name: &str) -> Vec<u8> {
    let path = super::golden_path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Takes values off the front.
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Checks magic and version 1.
    pub fn new(bytes: &'a [u8], magic: &[u8; 4]) -> Self {
        let mut cursor = Cursor(bytes);
        assert_eq!(&cursor.take::<4>(), magic);
        assert_eq!(cursor.u32(), 1);
        cursor
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk::<N>().expect("a longer golden");
        self.0 = rest;
        *head
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub fn size(&mut self) -> usize {
        self.u32() as usize
    }

    #[allow(dead_code)] // not every golden has halves
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }
}
