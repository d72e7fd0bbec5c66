//! Cookies, read strictly (RFC 6265bis): every line counts, and ours stay ours.
//!
//! A second cookie of ours refuses, because somebody else set one of them (S10); no cookie whose
//! name anybody could read as ours goes on to a backend (S8).

use bytes::Bytes;
use cookie::{Cookie, SameSite};
use http::{HeaderName, HeaderValue, header};

use super::fields::Fields;

/// What the names of all our cookies begin with. `__Host-` makes browsers keep them to one host, to
/// https and to `/`.
pub const PREFIX: &str = "__Host-portcullis";
/// The cookie of a session.
pub const SESSION: &str = "__Host-portcullis_session";
/// The cookie that binds a sign-in, and its form, to a browser.
pub const SIGN_IN: &str = "__Host-portcullis_sign_in";
/// The cookie that counts sign-ins which follow each other at once.
pub const ROUNDS: &str = "__Host-portcullis_rounds";

static COOKIE: HeaderName = header::COOKIE;
/// Bytes of all cookies of a request.
const MOST_BYTES: usize = 16 * 1024;
/// Cookies of a request.
const MOST_COOKIES: usize = 200;

/// Why the cookies of a request can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCookies {
    /// More, or longer, than a browser sends.
    TooMany,
    /// One of ours came twice.
    Repeated,
    /// One of ours holds a byte that none of ours has.
    Malformed,
}

fn pairs(headers: &Fields) -> Result<impl Iterator<Item = &[u8]>, BadCookies> {
    let lines = || headers.all(&COOKIE).map(HeaderValue::as_bytes);
    let bytes = lines().map(<[u8]>::len).fold(0, usize::saturating_add);
    let count = lines().map(|line| memchr::memchr_iter(b';', line).count().saturating_add(1));
    if bytes > MOST_BYTES || count.fold(0, usize::saturating_add) > MOST_COOKIES {
        return Err(BadCookies::TooMany);
    }
    Ok(lines().flat_map(|line| {
        let mut rest = Some(line);
        std::iter::from_fn(move || {
            let line = rest?;
            let end = memchr::memchr(b';', line).unwrap_or(line.len());
            let (pair, after) = line.split_at_checked(end)?;
            rest = after.strip_prefix(b";");
            Some(pair.trim_ascii())
        })
    }))
}

/// The value of one of our cookies.
///
/// # Errors
/// [`BadCookies`].
pub fn ours<'h>(headers: &'h Fields, name: &str) -> Result<Option<&'h str>, BadCookies> {
    if !headers.contains(&COOKIE) {
        return Ok(None);
    }
    let mut found = None;
    for pair in pairs(headers)? {
        let (key, value) = split(pair);
        if key != name.as_bytes() {
            continue;
        }
        let value = std::str::from_utf8(value).map_err(|_| BadCookies::Malformed)?;
        if !value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        {
            return Err(BadCookies::Malformed);
        }
        if found.replace(value).is_some() {
            return Err(BadCookies::Repeated);
        }
    }
    Ok(found)
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
        // A pair without `=` is a value without a name to some, and a name to others.
        None => (pair, b""),
        Some((key, value)) => (
            key.trim_ascii(),
            value.get(1..).unwrap_or_default().trim_ascii(),
        ),
    }
}

/// Whether a cookie's name could be read as one of ours: in any case of letters, with anything but
/// letters and digits around or between.
pub fn is_reserved(name: &[u8]) -> bool {
    let mut letters = letters(name);
    self::letters(PREFIX.as_bytes()).all(|ours| letters.next() == Some(ours))
}

fn letters(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(u8::to_ascii_lowercase)
}

/// Takes our cookies out, and joins the others in one line.
///
/// # Errors
/// [`BadCookies::TooMany`].
pub fn drop_ours(headers: &mut Fields) -> Result<(), BadCookies> {
    let lines = headers.all(&COOKIE).count();
    if lines == 0 {
        return Ok(());
    }
    let mut line = Vec::new();
    let mut dropped = false;
    for pair in pairs(headers)?.filter(|pair| !pair.is_empty()) {
        if is_reserved(split(pair).0) {
            dropped = true;
            continue;
        }
        if !line.is_empty() {
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(pair);
    }
    if lines == 1 && !dropped {
        return Ok(());
    }
    headers.remove(&COOKIE);
    if !line.is_empty() {
        let line = Bytes::from(line);
        let mut line = HeaderValue::from_maybe_shared(line).map_err(|_| BadCookies::Malformed)?;
        line.set_sensitive(true);
        headers.append(header::COOKIE, line);
    }
    Ok(())
}

/// `Set-Cookie` for one of ours, until the browser closes.
///
/// # Errors
/// [`BadCookies::Malformed`] for a value that no cookie has.
pub fn set(name: &'static str, value: &str) -> Result<HeaderValue, BadCookies> {
    header(Cookie::build((name, value)))
}

/// `Set-Cookie` for one of ours, for so many seconds.
///
/// # Errors
/// [`BadCookies::Malformed`] for a value that no cookie has.
pub fn set_for(name: &'static str, value: &str, seconds: u32) -> Result<HeaderValue, BadCookies> {
    let life = cookie::time::Duration::seconds(seconds.into());
    header(Cookie::build((name, value)).max_age(life))
}

/// `Set-Cookie` that takes one of ours away.
///
/// # Errors
/// None in practice.
pub fn expire(name: &'static str) -> Result<HeaderValue, BadCookies> {
    header(Cookie::build((name, "")).max_age(cookie::time::Duration::ZERO))
}

fn header(cookie: cookie::CookieBuilder<'_>) -> Result<HeaderValue, BadCookies> {
    let cookie = cookie
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Lax)
        .build();
    HeaderValue::try_from(cookie.to_string()).map_err(|_| BadCookies::Malformed)
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! Properties of the reader, for fuzz targets and tests.

    use super::*;

    /// No cookie of ours survives, and reading what is left twice changes nothing.
    pub fn cookie(data: &[u8]) {
        let mut headers = Fields::new();
        for line in data.split(|byte| *byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(header::COOKIE, value);
            }
        }
        let _ = ours(&headers, SESSION);
        if drop_ours(&mut headers).is_err() || headers.is_empty() {
            return;
        }
        assert!(matches!(ours(&headers, SESSION), Ok(None)), "{headers:?}");
        let once = headers.clone();
        let mut left = once
            .all(&COOKIE)
            .flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        assert!(!left.any(|pair| is_reserved(split(pair).0)));
        assert_eq!(drop_ours(&mut headers), Ok(()));
        assert_eq!(headers, once);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(lines: &[&str]) -> Fields {
        let mut headers = Fields::new();
        for line in lines {
            headers.append(
                header::COOKIE,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn left_of(lines: &[&str]) -> Fields {
        let mut headers = headers(lines);
        drop_ours(&mut headers).unwrap();
        headers
    }

    #[test]
    fn s10_a_second_cookie_of_ours_refuses() {
        let name = SESSION;
        assert_eq!(
            ours(&headers(&[&format!("a=b; {name}=x; c=d")]), name),
            Ok(Some("x"))
        );
        for lines in [
            vec![format!("{name}=x; {name}=y")],
            vec![format!("{name}=x"), format!("{name}=x")],
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(ours(&headers(&lines), name), Err(BadCookies::Repeated));
        }
    }

    #[test]
    fn s4_s7_crafted_cookies_are_refused_or_nothing() {
        let name = SESSION;
        assert_eq!(ours(&headers(&[";;;=;a;=b"]), name), Ok(None));
        assert_eq!(
            ours(&headers(&[&format!("{name}=\"x\"")]), name),
            Err(BadCookies::Malformed)
        );
        assert_eq!(
            ours(&headers(&[&"a=b;".repeat(300)]), name),
            Err(BadCookies::TooMany)
        );
        assert_eq!(
            ours(&headers(&[&"a".repeat(17_000)]), name),
            Err(BadCookies::TooMany)
        );
    }

    #[test]
    fn s8_nothing_that_reads_as_ours_goes_on() {
        for name in [
            "__Host-portcullis_session",
            "__host-PORTCULLIS_session",
            "__Host-portcullis",
            "\"__Host-portcullis_session\"",
            "__Host_portcullis.session",
        ] {
            let lines = [&*format!("a=1; {name}=x"), "b=2"];
            assert_eq!(left_of(&lines), headers(&["a=1; b=2"]), "{name}");
        }
        assert!(left_of(&["__Host-portcullis_session=x"]).is_empty());
        assert_eq!(left_of(&["a=1;  b=2"]), headers(&["a=1;  b=2"]));
    }

    #[test]
    fn our_cookies_are_bound_to_host_and_https() {
        assert_eq!(
            set(SESSION, "x").unwrap(),
            "__Host-portcullis_session=x; HttpOnly; SameSite=Lax; Secure; Path=/"
        );
        assert!(
            expire(SESSION)
                .unwrap()
                .to_str()
                .unwrap()
                .contains("Max-Age=0")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_as_cookies(text in "(__Host-portcullis_session|__HOST-|portcullis|[a-c=;\\\" \n]){0,12}") {
            fuzzing::cookie(text.as_bytes());
        }
    }
}
