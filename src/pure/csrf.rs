//! Forms that only our own pages can send (SECURITY.md T15).
//!
//! Before anybody is signed in there is no session to bind a form to, so the form carries a MAC over
//! a random cookie of this browser and an expiry: another site can neither read the cookie nor,
//! for its `__Host-` name, set it. Besides, browsers say where a request comes from.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::seal::Mac;
use super::session::Seconds;

/// Random bytes in the cookie that a form is bound to, [`super::cookie::SIGN_IN`].
pub const COOKIE_BYTES: usize = 32;
/// Characters of its value.
const COOKIE_CHARACTERS: usize = 43;
/// Digits of the expiry, in hexadecimal.
const EXPIRY_DIGITS: usize = 16;
/// Characters of the MAC.
const TAG_CHARACTERS: usize = 43;

/// The value of a new cookie.
pub fn cookie(random: &[u8; COOKIE_BYTES]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// Whether a cookie's value is one that [`cookie()`] makes.
pub fn is_cookie(value: &str) -> bool {
    value.len() == COOKIE_CHARACTERS
        && URL_SAFE_NO_PAD
            .decode(value)
            .is_ok_and(|bytes| bytes.len() == COOKIE_BYTES)
}

/// The token that a form for `purpose` carries, for the browser with this cookie.
pub fn token(mac: &Mac, purpose: &str, cookie: &str, expires: Seconds) -> String {
    format!(
        "{:016x}{}",
        expires.0,
        URL_SAFE_NO_PAD.encode(tag(mac, purpose, cookie, expires))
    )
}

/// Why a form is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forged {
    /// The browser has no cookie of ours, or sent one that we never made.
    NoCookie,
    /// The token is not one of ours, or of another form or browser.
    Token,
    /// The form was opened too long ago.
    Expired,
    /// The browser says that another site sent it.
    OtherSite,
}

impl Forged {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoCookie => "portal.form_without_cookie",
            Self::Token => "portal.form_token",
            Self::Expired => "portal.form_expired",
            Self::OtherSite => "portal.cross_site",
        }
    }
}

/// Checks that a form for `purpose` was made for the browser with this cookie.
///
/// # Errors
/// Why it was not.
pub fn check(
    mac: &Mac,
    purpose: &str,
    cookie: Option<&str>,
    token: &str,
    now: Seconds,
) -> Result<(), Forged> {
    let cookie = cookie
        .filter(|value| is_cookie(value))
        .ok_or(Forged::NoCookie)?;
    let (expires, made) = token.split_at_checked(EXPIRY_DIGITS).ok_or(Forged::Token)?;
    if made.len() != TAG_CHARACTERS || !expires.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Forged::Token);
    }
    let expires = u64::from_str_radix(expires, 16)
        .map(Seconds)
        .map_err(|_| Forged::Token)?;
    let made = URL_SAFE_NO_PAD.decode(made).map_err(|_| Forged::Token)?;
    if !mac.verify(&parts(purpose, cookie, &expires.0.to_be_bytes()), &made) {
        return Err(Forged::Token);
    }
    if expires <= now {
        Err(Forged::Expired)
    } else {
        Ok(())
    }
}

fn tag(mac: &Mac, purpose: &str, cookie: &str, expires: Seconds) -> [u8; 32] {
    mac.tag(&parts(purpose, cookie, &expires.0.to_be_bytes()))
}

fn parts<'p>(purpose: &'p str, cookie: &'p str, expires: &'p [u8; 8]) -> [&'p [u8]; 3] {
    [purpose.as_bytes(), cookie.as_bytes(), expires]
}

/// Checks by `Sec-Fetch-Site` and `Origin`, where the browser sends them, that a request comes from
/// the page at `ours` (scheme, host and port). A program that sends neither passes here: it is no
/// browser that somebody else could use.
///
/// # Errors
/// [`Forged::OtherSite`].
pub fn same_origin(
    fetch_site: Option<&[u8]>,
    origin: Option<&[u8]>,
    ours: &str,
) -> Result<(), Forged> {
    let site_is_ours = match fetch_site {
        // `none` is the person at the address bar.
        Some(b"same-origin" | b"none") => true,
        Some(_) => return Err(Forged::OtherSite),
        None => false,
    };
    match origin {
        None => Ok(()),
        // Of our own page when a policy hides the referrer; `Sec-Fetch-Site` tells it from others.
        Some(b"null") if site_is_ours => Ok(()),
        Some(origin) if origin.eq_ignore_ascii_case(ours.as_bytes()) => Ok(()),
        Some(_) => Err(Forged::OtherSite),
    }
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// No bytes are a token, whatever the cookie.
    pub fn form_token(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let mac = Mac::new(&[1; 32]);
        let made = cookie(&[1; COOKIE_BYTES]);
        assert!(check(&mac, "sign-in", Some(&made), text, Seconds(0)).is_err());
        assert!(check(&mac, "sign-in", Some(text), text, Seconds(0)).is_err());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Seconds = Seconds(1000);

    fn mac() -> Mac {
        Mac::new(&[1; 32])
    }

    fn check_with(cookie: &str, token: &str) -> Result<(), Forged> {
        check(&mac(), "sign-in", Some(cookie), token, NOW)
    }

    #[test]
    fn a_form_is_taken_from_the_browser_it_was_made_for_until_it_expires() {
        let cookie = cookie(&[1; 32]);
        let token = token(&mac(), "sign-in", &cookie, Seconds(1001));
        assert_eq!(check_with(&cookie, &token), Ok(()));
        let late = check(&mac(), "sign-in", Some(&cookie), &token, Seconds(1001));
        assert_eq!(late, Err(Forged::Expired));
        assert_eq!(
            check_with(&super::cookie(&[2; 32]), &token),
            Err(Forged::Token)
        );
        let other = check(&mac(), "sign-out", Some(&cookie), &token, NOW);
        assert_eq!(other, Err(Forged::Token));
        let restarted = check(&Mac::new(&[2; 32]), "sign-in", Some(&cookie), &token, NOW);
        assert_eq!(restarted, Err(Forged::Token));
    }

    #[test]
    fn a_form_without_our_cookie_is_refused() {
        let cookie = cookie(&[1; 32]);
        let made = token(&mac(), "sign-in", &cookie, Seconds(2000));
        assert_eq!(
            check(&mac(), "sign-in", None, &made, NOW),
            Err(Forged::NoCookie)
        );
        for value in [
            "",
            "x",
            &cookie[..42],
            &format!("{cookie}="),
            &"=".repeat(43),
        ] {
            // A token made for a cookie that is none of ours must not pass either.
            let made = token(&mac(), "sign-in", value, Seconds(2000));
            assert_eq!(check_with(value, &made), Err(Forged::NoCookie), "{value}");
        }
    }

    #[test]
    fn altered_tokens_are_refused() {
        let cookie = cookie(&[1; 32]);
        let token = token(&mac(), "sign-in", &cookie, Seconds(2000));
        for at in 0..token.len() {
            assert_eq!(check_with(&cookie, &token[..at]), Err(Forged::Token));
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'f' { b'e' } else { b'f' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(
                check_with(&cookie, &altered),
                Err(Forged::Token),
                "byte {at}"
            );
        }
        assert_eq!(
            check_with(&cookie, &format!("+{}", &token[1..])),
            Err(Forged::Token)
        );
        assert_eq!(check_with(&cookie, &"é".repeat(30)), Err(Forged::Token));
    }

    #[test]
    fn other_sites_are_refused_t15() {
        const OURS: &str = "https://wiki.test:8443";
        let same = |site: Option<&str>, origin: Option<&str>| {
            same_origin(site.map(str::as_bytes), origin.map(str::as_bytes), OURS)
        };
        for (site, origin) in [
            (Some("same-origin"), Some(OURS)),
            (Some("same-origin"), Some("null")),
            (Some("same-origin"), None),
            (Some("none"), None),
            (None, Some(OURS)),
            (None, None),
        ] {
            assert_eq!(same(site, origin), Ok(()), "{site:?} {origin:?}");
        }
        for (site, origin) in [
            (Some("cross-site"), None),
            (Some("same-site"), Some(OURS)),
            (Some("Same-Origin"), None),
            (Some(""), None),
            (Some("same-origin"), Some("https://evil.test")),
            (None, Some("null")),
            (None, Some("https://wiki.test")),
            (None, Some("http://wiki.test:8443")),
            (None, Some("https://wiki.test:8443.evil.test")),
            (None, Some("")),
        ] {
            assert_eq!(
                same(site, origin),
                Err(Forged::OtherSite),
                "{site:?} {origin:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token(text: String) {
            fuzzing::form_token(text.as_bytes());
        }
    }
}
