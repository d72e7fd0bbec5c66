//! HTTP/1.1 messages: heads and the chunked coding (RFC 9112), read without a choice.
//!
//! Only what the grammar says is read. Where the RFC lets a recipient repair a message (a bare LF,
//! a folded line, white space before the colon, a doubled length), this reader refuses instead,
//! because the next reader may repair it differently (request smuggling, T9).

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode, Version};

use super::field;
use super::fields::Fields;

/// Bounds on a message's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub bytes: usize,
    /// Bytes of the request target.
    pub target_bytes: usize,
    /// Field lines.
    pub fields: usize,
}

/// Bytes of chunk extensions in one chunk; nobody uses them, and each is a place to hide.
const CHUNK_EXTENSION_BYTES: usize = 256;
/// Bytes of chunk extensions in one message, so that one-byte chunks can't be padded for ever.
const MESSAGE_EXTENSION_BYTES: usize = 4096;
/// Bytes of a trailer section.
const TRAILER_BYTES: usize = 8192;
/// Lines of a trailer section.
const TRAILER_FIELDS: usize = 32;
/// Digits of a chunk size: 15 hexadecimal digits stay below 2^60.
const CHUNK_SIZE_DIGITS: u8 = 15;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A line ends in LF alone (RFC 9112 §2.2).
    BareLineFeed,
    /// CR that is not before LF.
    BareCarriageReturn,
    /// The first line is not `method SP target SP version`.
    RequestLine,
    /// The method is not a token of at most 32 bytes.
    Method,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    Version,
    /// The first line is not `version SP status SP reason`.
    StatusLine,
    /// A line continues the one before (RFC 9112 §5.2).
    FoldedLine,
    /// White space stands before the colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field name is not a token.
    FieldName,
    /// A field value holds a control byte.
    FieldValue,
    /// The head is larger than allowed.
    HeadTooLarge,
    /// The request target is longer than allowed.
    TargetTooLong,
    /// Both a length and a coding are stated.
    LengthWithCoding,
    /// The length is not one decimal number.
    ContentLength,
    /// The coding is not exactly one `chunked`, or is stated in HTTP/1.0.
    TransferEncoding,
    /// A chunk's size line is not hexadecimal digits with short extensions.
    ChunkSize,
    /// A chunk's extensions are longer than allowed.
    ChunkExtension,
    /// A chunk does not end where its size says.
    ChunkEnd,
    /// The trailer section is larger than allowed.
    TrailersTooLarge,
    /// A trailer field that may only stand in a head (RFC 9110 §6.5.1).
    ForbiddenTrailer,
}

impl Malformed {
    /// The reason code of the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BareLineFeed => "wire.bare_lf",
            Self::BareCarriageReturn => "wire.bare_cr",
            Self::RequestLine => "wire.request_line",
            Self::Method => "wire.method",
            Self::Version => "wire.version",
            Self::StatusLine => "wire.status_line",
            Self::FoldedLine => "wire.folded_line",
            Self::SpaceBeforeColon => "wire.space_before_colon",
            Self::FieldName => "wire.field_name",
            Self::FieldValue => "wire.field_value",
            Self::HeadTooLarge => "wire.head_too_large",
            Self::TargetTooLong => "wire.target_too_long",
            Self::LengthWithCoding => "wire.length_with_coding",
            Self::ContentLength => "wire.content_length",
            Self::TransferEncoding => "wire.transfer_encoding",
            Self::ChunkSize => "wire.chunk_size",
            Self::ChunkExtension => "wire.chunk_extension",
            Self::ChunkEnd => "wire.chunk_end",
            Self::TrailersTooLarge => "wire.trailers_too_large",
            Self::ForbiddenTrailer => "wire.forbidden_trailer",
        }
    }
}

/// A request's head as sent.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// A token; known methods only are let through later.
    pub method: Bytes,
    /// The request target as sent.
    pub target: Bytes,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// Every field line.
    pub headers: Fields,
}

/// A response's head as sent.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status; 100 to 599.
    pub status: StatusCode,
    /// HTTP/1.1 or HTTP/1.0.
    pub version: Version,
    /// Every field line.
    pub headers: Fields,
}

/// Looks for the end of a head without reading a byte twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanner {
    seen: usize,
    line_start: usize,
}

impl Scanner {
    /// The length of the head at the start of `bytes`, its empty line included, or `None` when it
    /// is not all there.
    ///
    /// # Errors
    /// A line that does not end in CRLF, or more than `limit` bytes.
    pub fn end(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Malformed> {
        let Some(unseen) = bytes.get(self.seen..) else {
            return Ok(None);
        };
        for at in memchr::memchr_iter(b'\n', unseen) {
            let line_feed = self.seen.saturating_add(at);
            let before = line_feed.checked_sub(1).and_then(|at| bytes.get(at));
            if before != Some(&b'\r') || line_feed == self.line_start {
                return Err(Malformed::BareLineFeed);
            }
            let end = line_feed.saturating_add(1);
            let empty = line_feed == self.line_start.saturating_add(1);
            self.line_start = end;
            if empty {
                return if end <= limit {
                    Ok(Some(end))
                } else {
                    Err(Malformed::HeadTooLarge)
                };
            }
        }
        self.seen = bytes.len();
        match (bytes.len() >= limit, self.line_start) {
            (false, _) => Ok(None),
            // Not even the first line ends: it is the target that is long.
            (true, 0) => Err(Malformed::TargetTooLong),
            (true, _) => Err(Malformed::HeadTooLarge),
        }
    }
}

/// Reads a whole head that [`Scanner`] found.
///
/// # Errors
/// What the grammar of RFC 9112 §3 and §5 does not allow, or `limits` forbid.
pub fn request_head(head: &Bytes, limits: &HeadLimits) -> Result<RequestHead, Malformed> {
    let (line, rest) = first_line(head)?;
    let mut parts = line.splitn(3, |&b| b == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(Malformed::RequestLine);
    };
    if method.is_empty() || method.len() > 32 || !field::is_token(method) {
        return Err(Malformed::Method);
    }
    if target.is_empty() {
        return Err(Malformed::RequestLine);
    }
    if target.len() > limits.target_bytes {
        return Err(Malformed::TargetTooLong);
    }
    let version = self::version(version)?;
    Ok(RequestHead {
        method: head.slice_ref(method),
        target: head.slice_ref(target),
        version,
        headers: fields(head, rest, limits.fields, Malformed::HeadTooLarge)?,
    })
}

/// Reads a backend's head that [`Scanner`] found.
///
/// # Errors
/// What the grammar of RFC 9112 §4 and §5 does not allow, or `limits` forbid.
pub fn response_head(head: &Bytes, limits: &HeadLimits) -> Result<ResponseHead, Malformed> {
    let (line, rest) = first_line(head)?;
    let (version, after) = line.split_at_checked(8).ok_or(Malformed::StatusLine)?;
    let version = self::version(version).map_err(|_| Malformed::StatusLine)?;
    // The space before an empty reason is often left out.
    let (Some(b' '), Some(status), None | Some(b' ')) =
        (after.first(), after.get(1..4), after.get(4))
    else {
        return Err(Malformed::StatusLine);
    };
    if after.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err(Malformed::StatusLine);
    }
    let status = StatusCode::from_bytes(status)
        .ok()
        .filter(|s| s.as_u16() < 600)
        .ok_or(Malformed::StatusLine)?;
    Ok(ResponseHead {
        status,
        version,
        headers: fields(head, rest, limits.fields, Malformed::HeadTooLarge)?,
    })
}

fn first_line(head: &Bytes) -> Result<(&[u8], &[u8]), Malformed> {
    let end = memchr::memchr(b'\r', head).ok_or(Malformed::RequestLine)?;
    let (line, rest) = head.split_at_checked(end).ok_or(Malformed::RequestLine)?;
    let rest = rest
        .strip_prefix(b"\r\n")
        .ok_or(Malformed::BareCarriageReturn)?;
    Ok((line, rest))
}

fn version(text: &[u8]) -> Result<Version, Malformed> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ => Err(Malformed::Version),
    }
}

/// Field lines up to and with the empty line; `rest` is part of `whole`.
fn fields(
    whole: &Bytes,
    mut rest: &[u8],
    most: usize,
    too_many: Malformed,
) -> Result<Fields, Malformed> {
    let mut headers = Fields::with_capacity(16);
    let mut count = 0_usize;
    loop {
        let end = memchr::memchr(b'\r', rest).ok_or(Malformed::BareLineFeed)?;
        let (line, after) = rest.split_at_checked(end).ok_or(Malformed::BareLineFeed)?;
        rest = after
            .strip_prefix(b"\r\n")
            .ok_or(Malformed::BareCarriageReturn)?;
        if line.is_empty() {
            return if rest.is_empty() {
                Ok(headers)
            } else {
                Err(Malformed::BareCarriageReturn)
            };
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Malformed::FoldedLine);
        }
        count = count.saturating_add(1);
        if count > most {
            return Err(too_many);
        }
        let colon = memchr::memchr(b':', line).ok_or(Malformed::FieldName)?;
        let (name, value) = line.split_at_checked(colon).ok_or(Malformed::FieldName)?;
        if matches!(name.last(), Some(b' ' | b'\t')) {
            return Err(Malformed::SpaceBeforeColon);
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed::FieldName)?;
        let value = field::trim(value.get(1..).unwrap_or_default());
        let value = HeaderValue::from_maybe_shared(whole.slice_ref(value))
            .map_err(|_| Malformed::FieldValue)?;
        headers.append(name, value);
    }
}

/// How a message's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No content.
    None,
    /// As many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection ends; responses only.
    UntilClose,
}

/// A request's framing (RFC 9112 §6.3); takes the framing fields out of `headers`.
///
/// # Errors
/// Anything but no length, one length, or one `chunked`.
pub fn request_framing(version: Version, headers: &mut Fields) -> Result<Framing, Malformed> {
    match declared(version, headers)? {
        (true, _) => Ok(Framing::Chunked),
        (false, None) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// A response's framing to a request with `head_request` (RFC 9112 §6.3), and the length that a
/// response without content states; takes the framing fields out of `headers`.
///
/// # Errors
/// Anything but no length, one length, or one `chunked`.
pub fn response_framing(
    head_request: bool,
    head: &mut ResponseHead,
) -> Result<(Framing, Option<u64>), Malformed> {
    let (chunked, length) = declared(head.version, &mut head.headers)?;
    let status = head.status;
    if head_request || status == StatusCode::NOT_MODIFIED {
        return Ok((Framing::None, length));
    }
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Ok((Framing::None, None));
    }
    Ok(match (chunked, length) {
        (true, _) => (Framing::Chunked, None),
        (false, Some(length)) => (Framing::Length(length), Some(length)),
        (false, None) => (Framing::UntilClose, None),
    })
}

fn declared(version: Version, headers: &mut Fields) -> Result<(bool, Option<u64>), Malformed> {
    let coding =
        field::one(headers, &TRANSFER_ENCODING).map_err(|_| Malformed::TransferEncoding)?;
    let length = field::one(headers, &CONTENT_LENGTH).map_err(|_| Malformed::ContentLength)?;
    let chunked = match coding {
        None => false,
        Some(_) if length.is_some() => return Err(Malformed::LengthWithCoding),
        Some(_) if version != Version::HTTP_11 => return Err(Malformed::TransferEncoding),
        Some(coding) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
        Some(_) => return Err(Malformed::TransferEncoding),
    };
    let length = length
        .map(|value| decimal(value.as_bytes()).ok_or(Malformed::ContentLength))
        .transpose()?;
    if chunked || length.is_some() {
        headers.retain(|name, _| name != TRANSFER_ENCODING && name != CONTENT_LENGTH);
    }
    Ok((chunked, length))
}

/// A decimal number of at most 19 digits, nothing else.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, &b| {
        let digit = b.checked_sub(b'0').filter(|d| *d < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A decoder of the chunked coding (RFC 9112 §7.1).
#[derive(Debug, Clone)]
pub struct Chunked {
    state: ChunkState,
    extension_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size { size: u64, digits: u8 },
    Extension { size: u64, bytes: usize },
    SizeLineFeed { size: u64 },
    Data { left: u64 },
    DataCarriageReturn,
    DataLineFeed,
    Trailers(Scanner),
    End,
}

/// What a decoder makes of the bytes at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Content.
    Data(Bytes),
    /// The trailer section; the last piece of a message that has one.
    Trailers(Fields),
    /// Nothing without more bytes.
    More,
    /// The message is complete; what is left in the buffer is not of it.
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: ChunkState::Size { size: 0, digits: 0 },
            extension_bytes: 0,
        }
    }
}

impl Chunked {
    /// Takes the next piece from the front of `buffer`.
    ///
    /// # Errors
    /// Anything that is not the chunked coding, or is beyond its bounds.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                ChunkState::Size { size, digits } => {
                    let Some(&byte) = buffer.first() else {
                        return Ok(Piece::More);
                    };
                    buffer.advance(1);
                    self.state = match (byte, char::from(byte).to_digit(16)) {
                        (_, Some(digit)) if digits < CHUNK_SIZE_DIGITS => ChunkState::Size {
                            size: (size << 4) | u64::from(digit),
                            digits: digits.saturating_add(1),
                        },
                        (b'\r', None) if digits > 0 => ChunkState::SizeLineFeed { size },
                        (b';', None) if digits > 0 => ChunkState::Extension { size, bytes: 1 },
                        _ => return Err(Malformed::ChunkSize),
                    };
                }
                ChunkState::Extension { size, bytes } => {
                    let Some(&byte) = buffer.first() else {
                        return Ok(Piece::More);
                    };
                    buffer.advance(1);
                    self.extension_bytes = self.extension_bytes.saturating_add(1);
                    self.state = match byte {
                        b'\r' => ChunkState::SizeLineFeed { size },
                        _ if bytes >= CHUNK_EXTENSION_BYTES
                            || self.extension_bytes > MESSAGE_EXTENSION_BYTES =>
                        {
                            return Err(Malformed::ChunkExtension);
                        }
                        b'\t' | b' '..=b'~' => ChunkState::Extension {
                            size,
                            bytes: bytes.saturating_add(1),
                        },
                        _ => return Err(Malformed::ChunkExtension),
                    };
                }
                ChunkState::SizeLineFeed { size } => {
                    let Some(&byte) = buffer.first() else {
                        return Ok(Piece::More);
                    };
                    if byte != b'\n' {
                        return Err(Malformed::BareCarriageReturn);
                    }
                    buffer.advance(1);
                    self.state = if size == 0 {
                        ChunkState::Trailers(Scanner::default())
                    } else {
                        ChunkState::Data { left: size }
                    };
                }
                ChunkState::Data { left } => {
                    if buffer.is_empty() {
                        return Ok(Piece::More);
                    }
                    let take = usize::try_from(left)
                        .unwrap_or(usize::MAX)
                        .min(buffer.len());
                    let left = left.saturating_sub(take as u64);
                    self.state = if left == 0 {
                        ChunkState::DataCarriageReturn
                    } else {
                        ChunkState::Data { left }
                    };
                    return Ok(Piece::Data(buffer.split_to(take).freeze()));
                }
                ChunkState::DataCarriageReturn | ChunkState::DataLineFeed => {
                    let Some(&byte) = buffer.first() else {
                        return Ok(Piece::More);
                    };
                    self.state = match (self.state, byte) {
                        (ChunkState::DataCarriageReturn, b'\r') => ChunkState::DataLineFeed,
                        (ChunkState::DataLineFeed, b'\n') => {
                            ChunkState::Size { size: 0, digits: 0 }
                        }
                        _ => return Err(Malformed::ChunkEnd),
                    };
                    buffer.advance(1);
                }
                ChunkState::Trailers(mut scanner) => {
                    if buffer.starts_with(b"\r\n") {
                        buffer.advance(2);
                        self.state = ChunkState::End;
                        return Ok(Piece::End);
                    }
                    let end = scanner.end(buffer, TRAILER_BYTES).map_err(|error| {
                        let too_large =
                            matches!(error, Malformed::HeadTooLarge | Malformed::TargetTooLong);
                        if too_large {
                            Malformed::TrailersTooLarge
                        } else {
                            error
                        }
                    })?;
                    let Some(end) = end else {
                        self.state = ChunkState::Trailers(scanner);
                        return Ok(Piece::More);
                    };
                    let section = buffer.split_to(end).freeze();
                    self.state = ChunkState::End;
                    let trailers = fields(
                        &section,
                        &section,
                        TRAILER_FIELDS,
                        Malformed::TrailersTooLarge,
                    )?;
                    if trailers.names().any(forbidden_in_trailers) {
                        return Err(Malformed::ForbiddenTrailer);
                    }
                    return Ok(Piece::Trailers(trailers));
                }
                ChunkState::End => return Ok(Piece::End),
            }
        }
    }

    /// Whether the message is complete.
    pub fn is_end(&self) -> bool {
        self.state == ChunkState::End
    }
}

impl PartialEq for Scanner {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen && self.line_start == other.line_start
    }
}
impl Eq for Scanner {}

/// Whether a field may not stand in trailers: framing, routing, authentication, request modifiers
/// and content format (RFC 9110 §6.5.1).
pub fn forbidden_in_trailers(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "age"
            | "authorization"
            | "cache-control"
            | "connection"
            | "content-encoding"
            | "content-length"
            | "content-range"
            | "content-type"
            | "cookie"
            | "expect"
            | "expires"
            | "forwarded"
            | "host"
            | "keep-alive"
            | "location"
            | "max-forwards"
            | "pragma"
            | "range"
            | "retry-after"
            | "set-cookie"
            | "set-cookie2"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "vary"
            | "via"
            | "warning"
            | "www-authenticate"
    ) || name.starts_with("if-")
        || name.starts_with("proxy-")
        || name.starts_with("x-forwarded-")
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the readers, for fuzz targets and tests.

    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 8192,
        target_bytes: 4096,
        fields: 64,
    };

    /// A request head that is read, written by its parts, is read as the same again; and how the
    /// bytes arrive does not matter.
    pub fn http1_request_head(data: &[u8]) {
        let whole = Scanner::default().end(data, LIMITS.bytes);
        let mut scanner = Scanner::default();
        let mut piecewise = Ok(None);
        for end in 0..=data.len() {
            piecewise = scanner.end(&data[..end], LIMITS.bytes);
            if !matches!(piecewise, Ok(None)) {
                break;
            }
        }
        assert_eq!(whole, piecewise);
        let Ok(Some(end)) = whole else { return };
        let head = Bytes::copy_from_slice(&data[..end]);
        let Ok(read) = request_head(&head, &LIMITS) else {
            return;
        };
        let mut written = Vec::new();
        written.extend_from_slice(&read.method);
        written.push(b' ');
        written.extend_from_slice(&read.target);
        written.extend_from_slice(format!(" {:?}\r\n", read.version).as_bytes());
        for (name, value) in read.headers.iter() {
            written.extend_from_slice(name.as_ref());
            written.extend_from_slice(b": ");
            written.extend_from_slice(value.as_bytes());
            written.extend_from_slice(b"\r\n");
        }
        written.extend_from_slice(b"\r\n");
        assert_eq!(
            Scanner::default().end(&written, 2 * LIMITS.bytes),
            Ok(Some(written.len()))
        );
        let again = request_head(&written.into(), &LIMITS).expect("what was written is read");
        assert_eq!(again.target, read.target);
        assert_eq!(again.headers, read.headers);
        let mut headers = read.headers.clone();
        if request_framing(read.version, &mut headers) == Ok(Framing::Chunked) {
            assert!(
                field::one(&read.headers, &CONTENT_LENGTH)
                    .expect("one")
                    .is_none()
            );
        }
    }

    /// No response head panics, and none has a status outside 100 to 599.
    pub fn http1_response_head(data: &[u8]) {
        let Ok(Some(end)) = Scanner::default().end(data, LIMITS.bytes) else {
            return;
        };
        let Ok(mut head) = response_head(&Bytes::copy_from_slice(&data[..end]), &LIMITS) else {
            return;
        };
        assert!((100..600).contains(&head.status.as_u16()));
        let _ = response_framing(false, &mut head);
    }

    /// However the bytes are cut, the content is the same, and it ends in the same place.
    pub fn chunked(data: &[u8]) {
        let whole = decode(data, data.len());
        for step in [1, 2, 3, 7] {
            let cut = decode(data, step);
            match (&whole, &cut) {
                (Ok(a), Ok(b)) => assert_eq!(a, b),
                (Err(_), Err(_)) => {}
                _ => panic!("whole {whole:?} and in steps of {step} {cut:?} differ"),
            }
        }
    }

    /// Content, trailers and whether it ended, with how much was left over.
    type Decoded = Result<(Vec<u8>, Option<Fields>, bool), Malformed>;

    fn decode(data: &[u8], step: usize) -> Decoded {
        let mut decoder = Chunked::default();
        let mut buffer = BytesMut::new();
        let (mut content, mut trailers) = (Vec::new(), None);
        for part in data.chunks(step.max(1)) {
            buffer.extend_from_slice(part);
            loop {
                match decoder.next(&mut buffer)? {
                    Piece::Data(data) => content.extend_from_slice(&data),
                    Piece::Trailers(fields) => trailers = Some(fields),
                    Piece::More => break,
                    Piece::End => return Ok((content, trailers, true)),
                }
            }
        }
        Ok((content, trailers, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 1024,
        target_bytes: 64,
        fields: 8,
    };

    #[track_caller]
    fn refuses(text: &str, reason: Malformed) {
        let got = Scanner::default()
            .end(text.as_bytes(), LIMITS.bytes)
            .and_then(|end| {
                let end = end.expect("a whole head");
                request_head(&Bytes::copy_from_slice(&text.as_bytes()[..end]), &LIMITS)
                    .and_then(|mut head| request_framing(head.version, &mut head.headers).map(drop))
            });
        assert_eq!(got, Err(reason), "{text:?}");
    }

    #[test]
    fn a_plain_head_is_read() {
        let text = Bytes::from_static(b"GET /a?b HTTP/1.1\r\nHost: x\r\nA:  b \t\r\n\r\n");
        let head = request_head(&text, &LIMITS).unwrap();
        assert_eq!(
            (&head.method[..], &head.target[..]),
            (&b"GET"[..], &b"/a?b"[..])
        );
        assert!(head.headers.named("a").eq(["b"]));
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        refuses("GET / HTTP/1.1\nHost: x\r\n\r\n", Malformed::BareLineFeed);
        refuses("GET / HTTP/1.1\r\nHost: x\n\r\n", Malformed::BareLineFeed);
        refuses("\r\nGET / HTTP/1.1\r\n\r\n", Malformed::RequestLine);
        refuses(
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            Malformed::BareCarriageReturn,
        );
        refuses("GET  / HTTP/1.1\r\n\r\n", Malformed::RequestLine);
        refuses("GET / x HTTP/1.1\r\n\r\n", Malformed::Version);
        refuses("GET / HTTP/1.2\r\n\r\n", Malformed::Version);
        refuses("GET /\r\n\r\n", Malformed::RequestLine);
        refuses("G(T / HTTP/1.1\r\n\r\n", Malformed::Method);
        refuses(
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            Malformed::FoldedLine,
        );
        refuses("GET / HTTP/1.1\r\n A: b\r\n\r\n", Malformed::FoldedLine);
        refuses(
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            Malformed::SpaceBeforeColon,
        );
        refuses("GET / HTTP/1.1\r\nA(: b\r\n\r\n", Malformed::FieldName);
        refuses("GET / HTTP/1.1\r\n: b\r\n\r\n", Malformed::FieldName);
        refuses("GET / HTTP/1.1\r\nno colon\r\n\r\n", Malformed::FieldName);
        refuses("GET / HTTP/1.1\r\nA: \x00\r\n\r\n", Malformed::FieldValue);
        refuses(
            &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(64)),
            Malformed::TargetTooLong,
        );
        refuses(
            &format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(9)),
            Malformed::HeadTooLarge,
        );
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let with = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
        refuses(
            &with("Content-Length: 1\r\nTransfer-Encoding: chunked"),
            Malformed::LengthWithCoding,
        );
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            ",chunked",
            "xchunked",
            "identity",
            "\"chunked\"",
        ] {
            refuses(
                &with(&format!("Transfer-Encoding: {coding}")),
                Malformed::TransferEncoding,
            );
        }
        refuses(
            &with("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"),
            Malformed::TransferEncoding,
        );
        refuses(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Malformed::TransferEncoding,
        );
        for length in [
            "+1",
            "-1",
            "1,1",
            "0x1",
            "1 1",
            "",
            "99999999999999999999",
            "1\r\nContent-Length: 1",
        ] {
            refuses(
                &with(&format!("Content-Length: {length}")),
                Malformed::ContentLength,
            );
        }
    }

    fn decode(text: &str) -> Result<Vec<Piece>, Malformed> {
        let mut buffer = BytesMut::from(text);
        let mut decoder = Chunked::default();
        let mut pieces = Vec::new();
        loop {
            let piece = decoder.next(&mut buffer)?;
            let last = matches!(piece, Piece::More | Piece::End);
            pieces.push(piece);
            if last {
                return Ok(pieces);
            }
        }
    }

    #[test]
    fn chunks_and_trailers_are_read() {
        let pieces = decode("3;a=b\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nGET /").unwrap();
        assert_eq!(pieces[0], Piece::Data(Bytes::from_static(b"abc")));
        assert!(matches!(&pieces[1], Piece::Trailers(t) if t.named("x-sum").eq(["1"])));
        assert_eq!(pieces[2], Piece::End);
    }

    #[test]
    fn chunks_that_two_readers_read_differently_are_refused() {
        for (text, reason) in [
            ("3\nabc\r\n0\r\n\r\n", Malformed::ChunkSize),
            ("3 3\r\nabc", Malformed::ChunkSize),
            ("3 ;a\r\nabc", Malformed::ChunkSize),
            ("0x3\r\nabc", Malformed::ChunkSize),
            ("\r\n", Malformed::ChunkSize),
            ("+3\r\nabc", Malformed::ChunkSize),
            ("1000000000000000\r\n", Malformed::ChunkSize),
            ("3\rabc", Malformed::BareCarriageReturn),
            ("3\r\nabcd\r\n", Malformed::ChunkEnd),
            ("3\r\nabc\n0", Malformed::ChunkEnd),
            ("3;\u{1}\r\nabc\r\n", Malformed::ChunkExtension),
            ("3;a\n\r\nabc\r\n", Malformed::ChunkExtension),
            ("0\r\nA: b\n\r\n", Malformed::BareLineFeed),
            (
                "0\r\nContent-Length: 3\r\n\r\n",
                Malformed::ForbiddenTrailer,
            ),
            (
                "0\r\nX-Forwarded-For: 1\r\n\r\n",
                Malformed::ForbiddenTrailer,
            ),
        ] {
            assert_eq!(decode(text), Err(reason), "{text:?}");
        }
        let long = format!("3;{}\r\nabc\r\n", "a".repeat(CHUNK_EXTENSION_BYTES));
        assert_eq!(decode(&long), Err(Malformed::ChunkExtension));
        let many = "1;aaaaaaaa\r\nx\r\n".repeat(1000);
        assert_eq!(decode(&many), Err(Malformed::ChunkExtension));
    }

    #[test]
    fn a_backend_that_frames_twice_is_not_believed() {
        let head = |text: &str| response_head(&Bytes::from(text.to_owned()), &LIMITS);
        let mut both =
            head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
        assert_eq!(
            response_framing(false, &mut both),
            Err(Malformed::LengthWithCoding)
        );
        assert_eq!(
            head("HTTP/1.1 999 X\r\n\r\n").unwrap_err(),
            Malformed::StatusLine
        );
        assert_eq!(
            head("HTTP/1.1 20 X\r\n\r\n").unwrap_err(),
            Malformed::StatusLine
        );
        assert_eq!(head("junk\r\n\r\n").unwrap_err(), Malformed::StatusLine);
        let mut bare = head("HTTP/1.1 200\r\n\r\n").unwrap();
        assert_eq!(
            response_framing(false, &mut bare),
            Ok((Framing::UntilClose, None))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_head(data in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), any::<u8>()], 0..200)) {
            fuzzing::http1_request_head(&data);
            fuzzing::http1_response_head(&data);
        }

        #[test]
        fn chunks_are_read_the_same_however_they_arrive(text in "([0-3]{0,2}(;[a-z]{0,3})?(\r\n|\r|\n)?[a-c]{0,4}(\r\n)?){0,6}") {
            fuzzing::chunked(text.as_bytes());
        }
    }
}
