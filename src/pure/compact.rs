//! Numbers and texts in few bytes, as sessions are kept: lengths and whole numbers are LEB128.

/// Adds a whole number.
pub fn put_whole(mut whole: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(whole & 0x7F).unwrap_or_default();
        whole >>= 7;
        if whole == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Adds how many follow.
pub fn put_length(length: usize, out: &mut Vec<u8>) {
    // INVARIANT: a length fits 64 bits on every platform we build for.
    put_whole(u64::try_from(length).unwrap_or(u64::MAX), out);
}

/// Adds a text behind its length.
pub fn put_text(text: &str, out: &mut Vec<u8>) {
    put_length(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what was added; nothing where the bytes are no such thing.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'b>(
    /// What was not read yet.
    pub &'b [u8],
);

impl<'b> Reader<'b> {
    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    /// A whole number, in its shortest form alone: one number is not written in two ways.
    pub fn whole(&mut self) -> Option<u64> {
        let mut whole: u64 = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let low = u64::from(byte & 0x7F);
            let placed = low << shift;
            if placed >> shift != low || (byte == 0 && shift > 0) {
                return None;
            }
            whole |= placed;
            if byte & 0x80 == 0 {
                return Some(whole);
            }
        }
        None
    }

    /// How many follow, of which each takes a byte at least.
    pub fn length(&mut self) -> Option<usize> {
        let length = usize::try_from(self.whole()?).ok()?;
        (length <= self.0.len()).then_some(length)
    }

    /// The bytes behind their length.
    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A text behind its length.
    pub fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read was written in that one way.
    pub fn compact(bytes: &[u8]) {
        let mut reader = Reader(bytes);
        if let Some(whole) = reader.whole() {
            let mut again = Vec::new();
            put_whole(whole, &mut again);
            assert_eq!([&*again, reader.0].concat(), bytes);
        }
        let mut reader = Reader(bytes);
        if let Some(text) = reader.text() {
            let mut again = Vec::new();
            put_text(text, &mut again);
            assert_eq!([&*again, reader.0].concat(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_take_as_few_bytes_as_they_can() {
        for (whole, bytes) in [
            (0, &b"\x00"[..]),
            (127, b"\x7f"),
            (128, b"\x80\x01"),
            (u64::MAX, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ] {
            let mut out = Vec::new();
            put_whole(whole, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(Reader(bytes).whole(), Some(whole));
        }
        for wrong in [
            &b""[..],
            b"\x80",
            b"\x80\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Reader(wrong).whole(), None, "{wrong:?}");
        }
        assert_eq!(Reader(b"\x02a").bytes(), None);
        assert_eq!(Reader(b"\x01\xff").text(), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(whole: u64, text in ".{0,300}") {
            let mut bytes = Vec::new();
            put_whole(whole, &mut bytes);
            put_text(&text, &mut bytes);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.whole(), Some(whole));
            prop_assert_eq!(reader.text(), Some(&*text));
            prop_assert!(reader.0.is_empty());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            fuzzing::compact(&bytes);
        }
    }
}
