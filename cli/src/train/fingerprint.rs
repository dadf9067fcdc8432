//! A fingerprint that tells files and texts apart: 64 bits by FNV-1a, the same in all versions and on all machines. It
//! is no protection against forgery.

use std::fmt::{self, Display, Formatter};

/// A fingerprint of the bytes that were added.
#[derive(Clone, Copy)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    pub fn add(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    }
}

impl Display for Fingerprint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that FNV's authors publish.
    #[test]
    fn it_is_fnv_1a() {
        for (bytes, right) in
            [(&b""[..], "cbf29ce484222325"), (b"a", "af63dc4c8601ec8c"), (b"foobar", "85944171f73967e8")]
        {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add(bytes);
            assert_eq!(fingerprint.to_string(), right);
        }
    }
}
