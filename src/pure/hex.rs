//! Hexadecimal digits, to be read and to be written.

/// What a digit, of either case, stands for.
pub const fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a' - 10),
        b'A'..=b'F' => digit.checked_sub(b'A' - 10),
        _ => None,
    }
}

/// The two digits of a byte, in lower case.
pub const fn lower(byte: u8) -> [u8; 2] {
    [digit(byte >> 4, b'a'), digit(byte & 0x0F, b'a')]
}

/// The two digits of a byte, in upper case, as percent-encoding has them (RFC 3986 §2.1).
pub const fn upper(byte: u8) -> [u8; 2] {
    [digit(byte >> 4, b'A'), digit(byte & 0x0F, b'A')]
}

const fn digit(nibble: u8, ten: u8) -> u8 {
    match nibble {
        0..=9 => b'0'.saturating_add(nibble),
        _ => ten.saturating_add(nibble.saturating_sub(10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        for byte in 0..=u8::MAX {
            assert_eq!(lower(byte), format!("{byte:02x}").as_bytes());
            assert_eq!(upper(byte), format!("{byte:02X}").as_bytes());
            for [high, low] in [lower(byte), upper(byte)] {
                let (high, low) = (value_of(high).unwrap(), value_of(low).unwrap());
                assert_eq!(high << 4 | low, byte);
            }
            let digit = char::from(byte).to_digit(16);
            assert_eq!(value_of(byte).map(u32::from), digit);
        }
    }
}
