//! Fields of a connection, which go no further than the next hop (RFC 9110 §7.6.1).
//!
//! Every `Connection` line counts, in any case of letters: those who read the first line only let
//! a second one name away, or keep, what it liked (H10).

use http::HeaderName;
use http::header;

use super::field;
use super::fields::Fields;

/// Options that one message may state.
const MOST_OPTIONS: usize = 32;

/// A `Connection` that can't be read: not a list of tokens, or a very long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadConnection;

/// The options of all `Connection` lines, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options(Vec<HeaderName>);

impl Options {
    /// Whether an option is stated; `option` in lower case.
    pub fn contains(&self, option: &str) -> bool {
        self.0.iter().any(|stated| stated.as_str() == option)
    }
}

/// Reads every `Connection` line.
///
/// # Errors
/// [`BadConnection`].
pub fn connection_options(headers: &Fields) -> Result<Options, BadConnection> {
    match field::one(headers, &header::CONNECTION) {
        Ok(None) => return Ok(Options::default()),
        // What almost every backend says.
        Ok(Some(value)) if value == "keep-alive" => {
            return Ok(Options(vec![HeaderName::from_static("keep-alive")]));
        }
        Ok(Some(_)) | Err(field::Repeated) => {}
    }
    let elements = field::list(headers, &header::CONNECTION).map_err(|_| BadConnection)?;
    if elements.len() > MOST_OPTIONS {
        return Err(BadConnection);
    }
    let options = elements
        .into_iter()
        .map(|name| HeaderName::from_bytes(name).map_err(|_| BadConnection));
    options.collect::<Result<_, _>>().map(Options)
}

/// Fields of the connection, whether `Connection` names them or not.
static HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// Whether a request says that its sender takes trailers (RFC 9110 §10.1.4).
pub fn takes_trailers(headers: &Fields) -> bool {
    let codings = field::list(headers, &header::TE).unwrap_or_default();
    codings
        .iter()
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Fields that decide before they are removed or rebuilt: a client behind a trusted proxy could name
/// its own address away, and pass as the proxy (H10).
static DECIDING: [HeaderName; 4] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
];

/// Whether a field is the connection's, always or because `options` name it.
pub fn is_hop_by_hop(name: &HeaderName, options: &Options) -> bool {
    HOP_BY_HOP.contains(name) || options.0.contains(name) && !DECIDING.contains(name)
}

/// Removes the fields of the connection, and those that `options` name. Framing and Host are not
/// among them: whoever reads a message takes those out itself.
pub fn strip(headers: &mut Fields, options: &Options) {
    headers.retain(|name, _| !is_hop_by_hop(name, options));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &'static str)]) -> Fields {
        let pairs = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn h10_every_connection_line_counts_in_any_case() {
        let mut headers = headers(&[
            ("connection", "close, X-One"),
            ("connection", "x-TWO"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
        ]);
        let options = connection_options(&headers).unwrap();
        assert!(options.contains("close") && options.contains("x-two"));
        strip(&mut headers, &options);
        assert_eq!(
            headers.names().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-three"]
        );
    }

    #[test]
    fn a_connection_that_is_no_list_of_names_is_refused() {
        for bad in ["a b", "\"open", "a;b", "a,(", "\u{e9}"] {
            let mut headers = Fields::new();
            headers.append(
                header::CONNECTION,
                HeaderValue::from_bytes(bad.as_bytes()).unwrap(),
            );
            assert_eq!(connection_options(&headers), Err(BadConnection), "{bad}");
        }
        let mut many = Fields::new();
        many.append(
            header::CONNECTION,
            HeaderValue::try_from("a,".repeat(33)).unwrap(),
        );
        assert_eq!(connection_options(&many), Err(BadConnection));
    }
}
