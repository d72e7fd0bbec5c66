//! The sign-in form as a browser sends it: `application/x-www-form-urlencoded`, read strictly
//! (WHATWG URL §5.1).
//!
//! Our own page makes the form, so there is one right shape: these five fields, each once, of which the
//! first may be missing. A field that is unknown, doubled or not text is no accident of a browser, and refuses.

use std::fmt;

use zeroize::Zeroizing;

use crate::pure::hex;

/// Bytes of a form; nothing longer need be read from the client.
pub const MAX_BYTES: usize = 16 * 1024;
/// Bytes of the place to return to, decoded.
const MAX_TO: usize = 2048;
/// Bytes of the token, decoded.
const MAX_CSRF: usize = 256;
/// Bytes of a name, decoded.
const MAX_NAME: usize = 256;
/// Bytes of a password, decoded.
const MAX_PASSWORD: usize = 1024;

/// A sign-in form that was sent.
pub struct SignIn {
    /// The ticket of the host that waits for the sign-in; empty without one: not yet checked.
    pub waiting: String,
    /// Where the person was going: not yet checked.
    pub to: String,
    /// The token that binds the form to the browser: not yet checked.
    pub csrf: String,
    /// The account's name.
    pub name: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIn")
    }
}

/// Why a form is not one that our page sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadForm {
    /// The whole, or a field, is longer than any that our page sends.
    TooLong,
    /// A `%` without two hexadecimal digits.
    Encoding,
    /// A byte that a browser would have encoded.
    Raw,
    /// Not UTF-8, or a control character.
    Text,
    /// A field that our page has not, or that came twice.
    Field,
    /// A field of our page is missing.
    Missing,
}

impl BadForm {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "portal.form_too_long",
            Self::Encoding => "portal.form_encoding",
            Self::Raw => "portal.form_raw_byte",
            Self::Text => "portal.form_not_text",
            Self::Field => "portal.form_field",
            Self::Missing => "portal.form_incomplete",
        }
    }
}

/// Reads a sign-in form.
///
/// # Errors
/// Everything that our own page, in any browser, does not send.
pub fn parse(body: &[u8]) -> Result<SignIn, BadForm> {
    if body.len() > MAX_BYTES {
        return Err(BadForm::TooLong);
    }
    let (mut waiting, mut to, mut csrf) = (None, None, None);
    let (mut name, mut password) = (None, None);
    for pair in body.split(|&byte| byte == b'&') {
        let at = memchr::memchr(b'=', pair).ok_or(BadForm::Field)?;
        let (key, value) = pair.split_at_checked(at).ok_or(BadForm::Field)?;
        let value = value.strip_prefix(b"=").ok_or(BadForm::Field)?;
        let (field, most) = match key {
            b"for" => (&mut waiting, MAX_CSRF),
            b"to" => (&mut to, MAX_TO),
            b"csrf" => (&mut csrf, MAX_CSRF),
            b"name" => (&mut name, MAX_NAME),
            b"password" => (&mut password, MAX_PASSWORD),
            _ => return Err(BadForm::Field),
        };
        if field.replace(decode(value, most)?).is_some() {
            return Err(BadForm::Field);
        }
    }
    let (Some(mut to), Some(mut csrf), Some(mut name), Some(password)) = (to, csrf, name, password)
    else {
        return Err(BadForm::Missing);
    };
    let mut waiting = waiting.unwrap_or_default();
    Ok(SignIn {
        waiting: std::mem::take(&mut waiting),
        to: std::mem::take(&mut to),
        csrf: std::mem::take(&mut csrf),
        name: std::mem::take(&mut name),
        password,
    })
}

/// The place to return to in the query of a request for the form, not yet checked: `None` where there
/// is not exactly one, or it is no text. Other keys are not looked at: people write queries, too.
pub fn to_in_query(query: &str) -> Option<String> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("to="))
        .map(|value| decode(value.as_bytes(), MAX_TO));
    match (values.next(), values.next()) {
        (Some(Ok(mut to)), None) => Some(std::mem::take(&mut to)),
        (_, _) => None,
    }
}

/// The values of `names` in a query or a form that somebody else wrote: what else is in it is not looked
/// at.
///
/// # Errors
/// One of them comes twice, has no `=`, is no text or longer than `most` bytes.
pub fn some<const N: usize>(
    text: &[u8],
    names: [&str; N],
    most: usize,
) -> Result<[Option<Zeroizing<String>>; N], BadForm> {
    let mut found = [const { None }; N];
    for pair in text.split(|&byte| byte == b'&') {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (key, value) = pair.split_at_checked(end).ok_or(BadForm::Field)?;
        let place = names.iter().zip(&mut found);
        let Some((_, place)) = place.into_iter().find(|(name, _)| name.as_bytes() == key) else {
            continue;
        };
        let value = value.strip_prefix(b"=").ok_or(BadForm::Field)?;
        if place.replace(decode(value, most)?).is_some() {
            return Err(BadForm::Field);
        }
    }
    Ok(found)
}

/// A form to be sent.
#[derive(Default)]
pub struct Writer(String);

impl Writer {
    /// Adds a field.
    pub fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        write_encoded(name, &mut self.0);
        self.0.push('=');
        write_encoded(value, &mut self.0);
    }

    /// The form.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// A text as a form has it (WHATWG URL §5.2).
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    write_encoded(text, &mut out);
    out
}

fn write_encoded(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'*' | b'-' | b'.' | b'_' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.extend(hex::upper(byte).map(char::from));
            }
        }
    }
}

/// The text of a value, zeroized because any of them may hold the password by a slip of the hand.
fn decode(value: &[u8], most: usize) -> Result<Zeroizing<String>, BadForm> {
    // At most as many bytes as are encoded, so that the buffer never moves and leaves a copy.
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, after @ ..] => {
                let digits = hex::value_of(*high).zip(hex::value_of(*low));
                let (high, low) = digits.ok_or(BadForm::Encoding)?;
                bytes.push((high << 4) | low);
                after
            }
            [b'%', ..] => return Err(BadForm::Encoding),
            [b'+', after @ ..] => {
                bytes.push(b' ');
                after
            }
            [byte, after @ ..] if byte.is_ascii_graphic() => {
                bytes.push(*byte);
                after
            }
            [_, ..] => return Err(BadForm::Raw),
        };
    }
    if bytes.len() > most {
        return Err(BadForm::TooLong);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| BadForm::Text)?;
    if text.chars().any(char::is_control) {
        return Err(BadForm::Text);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is bounded text, and written as browsers write it, it is read again.
    pub fn form(bytes: &[u8]) {
        if let Some(to) = std::str::from_utf8(bytes).ok().and_then(to_in_query) {
            assert!(to.len() <= MAX_TO && !to.chars().any(char::is_control));
            assert_eq!(to_in_query(&format!("to={}", encoded(&to))), Some(to));
        }
        let Ok(form) = parse(bytes) else { return };
        let fields = [
            ("for", &form.waiting, MAX_CSRF),
            ("to", &form.to, MAX_TO),
            ("csrf", &form.csrf, MAX_CSRF),
            ("name", &form.name, MAX_NAME),
            ("password", &form.password, MAX_PASSWORD),
        ];
        let mut written = Vec::new();
        for (key, value, most) in fields {
            assert!(value.len() <= most && !value.chars().any(char::is_control));
            written.push(format!("{key}={}", encoded(value)));
        }
        let written = written.join("&");
        // Writing may make three bytes of one that was sent as itself.
        if written.len() <= MAX_BYTES {
            let again = parse(written.as_bytes()).expect("a form that was read can be written");
            assert_eq!(
                (
                    &again.waiting,
                    &again.to,
                    &again.csrf,
                    &again.name,
                    &*again.password
                ),
                (
                    &form.waiting,
                    &form.to,
                    &form.csrf,
                    &form.name,
                    &*form.password
                )
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_is_read_as_a_browser_sends_it() {
        let body = b"to=%2Fwiki%3Fx%3D1&csrf=abc-_&name=J%C3%B6rg+A&password=a%2Bb%26c%3Dd+%25";
        let form = parse(body).unwrap();
        assert_eq!(
            (&*form.to, &*form.csrf, &*form.name, form.password.as_str()),
            ("/wiki?x=1", "abc-_", "Jörg A", "a+b&c=d %")
        );
    }

    #[track_caller]
    fn refused(body: impl AsRef<[u8]>, why: BadForm) {
        assert_eq!(parse(body.as_ref()).err(), Some(why));
    }

    #[test]
    fn a_field_that_is_doubled_unknown_or_missing_is_refused() {
        let form = "to=%2F&csrf=c&name=n&password=p";
        assert!(parse(form.as_bytes()).is_ok());
        for key in ["to", "csrf", "name", "password"] {
            refused(format!("{form}&{key}=x"), BadForm::Field);
            let less: Vec<_> = form
                .split('&')
                .filter(|pair| !pair.starts_with(key))
                .collect();
            refused(less.join("&"), BadForm::Missing);
        }
        for more in ["admin=1", "Name=x", "", "name", "%6eame=x", "=x"] {
            refused(format!("{form}&{more}"), BadForm::Field);
        }
        refused("", BadForm::Field);
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        let with = |name: &[u8]| [b"to=%2F&csrf=c&password=p&name=", name].concat();
        for name in [&b"%"[..], b"%4", b"%4g", b"%%41", b"%+1"] {
            refused(with(name), BadForm::Encoding);
        }
        for name in [&b"a b"[..], b"a\nb", b"\0", b"\xc3\xb6", b"\x7f"] {
            refused(with(name), BadForm::Raw);
        }
        for name in [&b"%00"[..], b"%0d%0a", b"%ff", b"%c0%af", b"%C2%85", b"%7f"] {
            refused(with(name), BadForm::Text);
        }
        refused(with(&[b'a'; MAX_NAME + 1]), BadForm::TooLong);
        refused(with(&[b'a'; MAX_BYTES]), BadForm::TooLong);
    }

    #[test]
    fn a_query_says_once_where_to_return_to() {
        let to = |query| to_in_query(query);
        assert_eq!(to("to=%2Fa%3Fb%3Dc+d").as_deref(), Some("/a?b=c d"));
        assert_eq!(to("x&error=%zz&to=/a").as_deref(), Some("/a"));
        for query in [
            "",
            "to",
            "To=/a",
            "return_to=/a",
            "to=/a&to=/a",
            "to=/a&to=%",
            "to=%00",
            "to=%ff",
        ] {
            assert_eq!(to(query), None, "{query}");
        }
        assert_eq!(to(&format!("to=/{}", "a".repeat(MAX_TO))), None);
    }

    #[test]
    fn the_password_is_in_no_debug_text() {
        let form = parse(b"to=%2F&csrf=c&name=n&password=hunter2").unwrap();
        assert!(!format!("{form:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn any_text_comes_back(name in "\\PC{0,40}", password in "\\PC{0,80}") {
            let body = format!("to=%2F&csrf=&name={}&password={}", encoded(&name), encoded(&password));
            let form = parse(body.as_bytes()).unwrap();
            prop_assert_eq!((form.name, form.password.as_str()), (name, &*password));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body in "(to|csrf|name|password|x)?(=|&|%|%2|%41|\\+|[a-z]){0,24}") {
            fuzzing::form(body.as_bytes());
        }

        #[test]
        fn any_order_and_spelling_is_read_alike(
            values in prop::array::uniform4("[ -~]{0,12}"),
            order in Just(["to", "csrf", "name", "password"]).prop_shuffle(),
        ) {
            let pairs: Vec<_> = order.iter().zip(&values).map(|(key, value)| format!("{key}={}", encoded(value))).collect();
            let body = pairs.join("&");
            prop_assert!(parse(body.as_bytes()).is_ok());
            fuzzing::form(body.as_bytes());
        }
    }
}
