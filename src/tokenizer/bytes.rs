//! The byte-level spelling of BPE vocabularies, which is GPT-2's: each byte is spelled as one printable character.
//! Printable Latin-1 characters spell themselves; the other 68 bytes, in order, are U+0100 and the characters after it,
//! so a space is `Ġ` (U+0120).

/// Characters by byte.
pub(super) const CHARS: [char; 256] = chars();

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

const fn chars() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let (mut byte, mut next) = (0, 0x100_u32);
    while byte < 256 {
        chars[byte] = if stands_for_itself(byte as u8) {
            byte as u8 as char
        } else {
            next += 1;
            match char::from_u32(next - 1) {
                Some(char) => char,
                None => unreachable!(),
            }
        };
        byte += 1;
    }
    chars
}

/// The byte that `char` spells.
pub(super) fn byte_of(char: char) -> Option<u8> {
    match u32::from(char) {
        code @ 0..=0xff => Some(code as u8).filter(|&byte| stands_for_itself(byte)),
        // The bytes 0..=0x20, 0x7f..=0xa0 and 0xad, in order.
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Appends the byte-level spelling of `bytes`.
pub(super) fn spell(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&byte| CHARS[usize::from(byte)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character_and_comes_back() {
        for byte in 0..=255 {
            assert_eq!(byte_of(CHARS[usize::from(byte)]), Some(byte));
        }
        let known = (0..0x1_0000).filter_map(char::from_u32).filter(|&char| byte_of(char).is_some());
        assert_eq!(known.count(), 256);
    }

    #[test]
    fn the_well_known_ones() {
        let mut spelled = String::new();
        spell(b" a\n\0\xad", &mut spelled);
        assert_eq!(spelled, "ĠaĊĀŃ");
    }
}
