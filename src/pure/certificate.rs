//! Whom a client's certificate names: the common name of its subject, and its alternative names.
//!
//! Reads nothing else, and decides nothing: whether a certificate is any good is for the TLS library.
//! A name that two readers could read differently makes all names unreadable.

use std::fmt;

use crate::pure::hex;
use crate::pure::validity::{
    BOOLEAN, INTEGER, Malformed, SEQUENCE, VERSION, element, is_at, optional,
};

/// The longest name that a rule can state.
const MAX_NAME_BYTES: usize = 1024;
const FINGERPRINT_DIGITS: usize = 64;

const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const SET: u8 = 0x31;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.4.3 (RFC 5280 appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17 (RFC 5280 §4.2.1.6).
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

/// One name of a certificate, or what a rule says of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// SHA-256 of the DER form, in lower-case hexadecimal.
    Fingerprint(Box<str>),
    /// The common name of the subject.
    Common(Box<str>),
    /// A DNS name.
    Dns(Box<str>),
    /// An e-mail address.
    Email(Box<str>),
    /// A URI, such as a SPIFFE id.
    Uri(Box<str>),
}

impl Name {
    /// Reads a name as a policy states it: `cn:alice`, `dns:`, `email:`, `uri:` or `sha256:`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || {
            "expected a name with its kind, such as `cn:alice`, `dns:host.example`, \
             `email:alice@corp.example`, `uri:spiffe://corp.example/ci` or `sha256:` and 64 digits"
                .to_owned()
        };
        let (kind, name) = text.split_once(':').ok_or_else(form)?;
        if !is_text(name) {
            return Err(form());
        }
        match kind {
            "cn" => Ok(Self::Common(name.into())),
            "dns" if name.is_ascii() => Ok(Self::Dns(name.to_ascii_lowercase().into())),
            "email" if name.is_ascii() => Ok(Self::Email(email(name).ok_or_else(form)?)),
            "uri" if name.is_ascii() => Ok(Self::Uri(name.into())),
            "sha256" => {
                // With colons is how `openssl x509 -fingerprint` writes it.
                let digits: String = name.chars().filter(|c| *c != ':').collect();
                let are_digits = digits.bytes().all(|digit| hex::value_of(digit).is_some());
                if !are_digits || digits.len() != FINGERPRINT_DIGITS {
                    return Err(form());
                }
                Ok(Self::Fingerprint(digits.to_ascii_lowercase().into()))
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Fingerprint(digits) => ("sha256", digits),
            Self::Common(name) => ("cn", name),
            Self::Dns(name) => ("dns", name),
            Self::Email(name) => ("email", name),
            Self::Uri(name) => ("uri", name),
        };
        write!(f, "{kind}:{name}")
    }
}

/// The names of a certificate, each in the form that a rule has.
///
/// # Errors
/// What is no certificate, or has a name that can't be read, two common names, or two lists of
/// alternative names.
pub fn names(certificate: &[u8]) -> Result<Vec<Name>, Malformed> {
    let (certificate, &[]) = element(certificate, SEQUENCE)? else {
        return Err(Malformed);
    };
    let (signed, _) = element(certificate, SEQUENCE)?;
    let (_, signed) = optional(signed, VERSION)?;
    let (_serial, rest) = element(signed, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (_validity, rest) = element(rest, SEQUENCE)?;
    let (subject, rest) = element(rest, SEQUENCE)?;
    let (_key, rest) = element(rest, SEQUENCE)?;
    let mut names = Vec::new();
    names.extend(common_name(subject)?);
    if !rest.is_empty() {
        // Unique identifiers, which nobody may issue (RFC 5280 §4.1.2.8), would stand before.
        let (extensions, &[]) = element(rest, EXTENSIONS)? else {
            return Err(Malformed);
        };
        names.extend(alternative_names(extensions)?);
    }
    Ok(names)
}

fn common_name(mut subject: &[u8]) -> Result<Option<Name>, Malformed> {
    let mut found = None;
    while !subject.is_empty() {
        let (mut set, rest) = element(subject, SET)?;
        subject = rest;
        while !set.is_empty() {
            let (attribute, rest) = element(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if kind != COMMON_NAME {
                continue;
            }
            let text = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING]
                .into_iter()
                .find(|tag| is_at(value, *tag))
                .ok_or(Malformed)?;
            let (name, &[]) = element(value, text)? else {
                return Err(Malformed);
            };
            let name = Name::Common(utf8(name)?.into());
            if found.replace(name).is_some() {
                return Err(Malformed);
            }
        }
    }
    Ok(found)
}

fn alternative_names(extensions: &[u8]) -> Result<Vec<Name>, Malformed> {
    let (mut extensions, &[]) = element(extensions, SEQUENCE)? else {
        return Err(Malformed);
    };
    let mut found = None;
    while !extensions.is_empty() {
        let (extension, rest) = element(extensions, SEQUENCE)?;
        extensions = rest;
        let (kind, value) = element(extension, OBJECT_IDENTIFIER)?;
        if kind != ALTERNATIVE_NAMES {
            continue;
        }
        let (_critical, value) = optional(value, BOOLEAN)?;
        let (value, &[]) = element(value, OCTET_STRING)? else {
            return Err(Malformed);
        };
        let (mut list, &[]) = element(value, SEQUENCE)? else {
            return Err(Malformed);
        };
        let mut names = Vec::new();
        while let &[tag, ..] = list {
            let (name, rest) = element(list, tag)?;
            list = rest;
            names.extend(match tag {
                EMAIL => Some(Name::Email(email(ascii(name)?).ok_or(Malformed)?)),
                DNS => Some(Name::Dns(ascii(name)?.to_ascii_lowercase().into())),
                URI => Some(Name::Uri(ascii(name)?.into())),
                // Addresses, names of directories and such: no rule speaks of them.
                _ => None,
            });
        }
        if found.replace(names).is_some() {
            return Err(Malformed);
        }
    }
    Ok(found.unwrap_or_default())
}

/// An address as it is compared: only the domain is without case (RFC 5321 §2.4).
fn email(text: &str) -> Option<Box<str>> {
    let (local, domain) = text.split_once('@')?;
    let plain = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
    plain.then(|| format!("{local}@{}", domain.to_ascii_lowercase()).into())
}

fn ascii(bytes: &[u8]) -> Result<&str, Malformed> {
    utf8(bytes).and_then(|text| {
        if text.is_ascii() {
            Ok(text)
        } else {
            Err(Malformed)
        }
    })
}

/// `alice\0.evil.test` is `alice` to some (CVE-2009-2408).
fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    if is_text(text) {
        Ok(text)
    } else {
        Err(Malformed)
    }
}

fn is_text(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    //! What holds for any input.

    use super::*;

    /// Each name of a certificate can be stated in a policy, and is then the same.
    pub fn certificate(data: &[u8]) {
        for name in names(data).unwrap_or_default() {
            assert_eq!(Name::parse(&name.to_string()), Ok(name));
        }
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(name) = Name::parse(text)
        {
            assert_eq!(Name::parse(&name.to_string()), Ok(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

    fn made(common: &[&str], alternative: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Corp");
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternative.to_vec();
        params.self_signed(&*KEY).unwrap().der().to_vec()
    }

    fn alternative() -> Vec<SanType> {
        vec![
            SanType::DnsName("Host.Example".try_into().unwrap()),
            SanType::Rfc822Name("Alice@CORP.example".try_into().unwrap()),
            SanType::URI("spiffe://corp.example/ci".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ]
    }

    fn shown(names: Vec<Name>) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_subject_and_the_alternative_names_are_read() {
        assert_eq!(
            shown(names(&made(&["Alice Ä"], &alternative())).unwrap()),
            [
                "cn:Alice Ä",
                "dns:host.example",
                "email:Alice@corp.example",
                "uri:spiffe://corp.example/ci"
            ]
        );
        assert_eq!(shown(names(&made(&[], &[])).unwrap()), [""; 0]);
    }

    #[test]
    fn a_name_with_a_control_character_makes_all_unreadable() {
        assert_eq!(
            names(&made(&["alice\0.evil.test"], &alternative())),
            Err(Malformed)
        );
        let uri = SanType::URI("a\nb".try_into().unwrap());
        assert_eq!(names(&made(&["alice"], &[uri])), Err(Malformed));
        assert_eq!(names(&made(&[""], &[])), Err(Malformed));
    }

    #[test]
    fn a_second_common_name_makes_all_unreadable() {
        let one = [
            &[SET, 12, SEQUENCE, 10, OBJECT_IDENTIFIER, 3][..],
            COMMON_NAME,
        ]
        .concat();
        let one = [&one[..], &[UTF8_STRING, 3], b"bob"].concat();
        assert_eq!(common_name(&one), Ok(Some(Name::Common("bob".into()))));
        assert_eq!(common_name(&[&one[..], &one[..]].concat()), Err(Malformed));
        // T61String, which no two readers decode alike.
        let mut odd = one;
        odd[9] = 0x14;
        assert_eq!(common_name(&odd), Err(Malformed));
    }

    #[test]
    fn a_certificate_cut_anywhere_names_nobody() {
        let whole = made(&["alice"], &alternative());
        for length in 0..whole.len() {
            assert_eq!(names(&whole[..length]), Err(Malformed), "{length}");
        }
    }

    #[test]
    fn a_name_in_a_policy_has_its_kind() {
        for (text, shown) in [
            ("cn:Alice", "cn:Alice"),
            ("dns:Host.Example", "dns:host.example"),
            ("email:Alice@CORP.example", "email:Alice@corp.example"),
            (
                "uri:spiffe://corp.example/CI",
                "uri:spiffe://corp.example/CI",
            ),
        ] {
            assert_eq!(Name::parse(text).unwrap().to_string(), shown);
        }
        let digits = "AB".repeat(32);
        let colons = vec!["ab"; 32].join(":");
        let expected = Name::Fingerprint("ab".repeat(32).into());
        for text in [digits, colons] {
            assert_eq!(Name::parse(&format!("sha256:{text}")).unwrap(), expected);
        }
        for bad in [
            "alice",
            "CN=alice",
            "cn:",
            "dns:ü.example",
            "email:a@b@c",
            "email:alice",
            "sha256:ab",
            "sha1:aa",
            "cn:a\nb",
            "",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse(&format!("sha256:{}", "x".repeat(64))).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_panics(place in 0_usize..600, byte: u8) {
            let mut der = made(&["alice"], &alternative());
            if let Some(changed) = der.get_mut(place) {
                *changed = byte;
            }
            fuzzing::certificate(&der);
        }

        #[test]
        fn any_text_is_a_name_or_none(text in "(cn|dns|email|uri|sha256|x)?:?[ -~é]{0,20}") {
            fuzzing::certificate(text.as_bytes());
        }
    }
}
