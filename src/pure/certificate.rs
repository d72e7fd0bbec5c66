//! Whom a client's certificate names: its subject, the common name in it, and its alternative names.
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
    /// The whole subject, as RFC 4514 writes it.
    Subject(Box<str>),
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
            // Within a value the comma is escaped.
            "subject" if name.replace("\\, ", "").contains(", ") || !name.contains('=') => Err(
                "expected a subject without spaces between its parts, such as `CN=alice,O=Corp`: \
                 what `openssl x509 -subject -nameopt RFC2253,-esc_msb` shows"
                    .to_owned(),
            ),
            "subject" => Ok(Self::Subject(name.into())),
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
            Self::Subject(name) => ("subject", name),
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
    names.extend(of_subject(subject)?);
    if !rest.is_empty() {
        // Unique identifiers, which nobody may issue (RFC 5280 §4.1.2.8), would stand before.
        let (extensions, &[]) = element(rest, EXTENSIONS)? else {
            return Err(Malformed);
        };
        names.extend(alternative_names(extensions)?);
    }
    Ok(names)
}

/// The subject, unless it is empty, and the common name in it.
fn of_subject(mut subject: &[u8]) -> Result<Vec<Name>, Malformed> {
    let (mut parts, mut common) = (Vec::new(), None);
    while !subject.is_empty() {
        let (mut set, rest) = element(subject, SET)?;
        subject = rest;
        let mut part = Vec::new();
        while !set.is_empty() {
            let (attribute, rest) = element(set, SEQUENCE)?;
            set = rest;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            let text = text(value)?;
            if kind == COMMON_NAME {
                let name = text.ok_or(Malformed)?;
                if common.replace(Name::Common(name.into())).is_some() {
                    return Err(Malformed);
                }
            }
            part.push(shown(kind, value, text)?);
        }
        part.reverse();
        parts.push(part.join("+"));
    }
    // The last comes first (RFC 4514 §2.1), and so it does, by habit, of those in one place.
    parts.reverse();
    let whole = parts.join(",");
    let mut names = Vec::new();
    if !whole.is_empty() {
        // Longer than a rule can be, it could be matched by none, nor by a `deny`.
        if whole.len() > MAX_NAME_BYTES {
            return Err(Malformed);
        }
        names.push(Name::Subject(whole.into()));
    }
    names.extend(common);
    Ok(names)
}

/// The text of a value, when it is of a kind that all read alike.
fn text(value: &[u8]) -> Result<Option<&str>, Malformed> {
    let tags = [UTF8_STRING, PRINTABLE_STRING, IA5_STRING];
    let Some(tag) = tags.into_iter().find(|tag| is_at(value, *tag)) else {
        return Ok(None);
    };
    let (text, &[]) = element(value, tag)? else {
        return Err(Malformed);
    };
    utf8(text).map(Some)
}

/// The attributes that have a name in RFC 4514 §3, and two that are as usual.
const ATTRIBUTES: [(&[u8], &str); 11] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01],
        "emailAddress",
    ),
];

fn shown(kind: &[u8], value: &[u8], text: Option<&str>) -> Result<String, Malformed> {
    let known = ATTRIBUTES.iter().find(|(own, _)| *own == kind);
    let (Some((_, name)), Some(text)) = (known, text) else {
        // Its number and its bytes are what everybody can write it by (RFC 4514 §2.4).
        let digits = value.iter().flat_map(|byte| hex::upper(*byte));
        let digits: String = digits.map(char::from).collect();
        return Ok(format!("{}=#{digits}", dotted(kind)?));
    };
    let mut shown = format!("{name}=");
    for (at, c) in text.char_indices() {
        let last = at.saturating_add(c.len_utf8()) == text.len();
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || c == '#' && at == 0
            || c == ' ' && (at == 0 || last);
        if special {
            shown.push('\\');
        }
        shown.push(c);
    }
    Ok(shown)
}

/// An object identifier in numbers (X.690 §8.19).
fn dotted(kind: &[u8]) -> Result<String, Malformed> {
    let (mut numbers, mut number) = (Vec::new(), 0_u64);
    for byte in kind {
        number = number.checked_mul(128).ok_or(Malformed)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(number);
            number = 0;
        }
    }
    let (first, rest) = numbers.split_first().ok_or(Malformed)?;
    if kind.last().is_none_or(|last| last & 0x80 != 0) {
        return Err(Malformed);
    }
    // Two numbers share the first place.
    let top = (first / 40).min(2);
    let second = first.saturating_sub(top.saturating_mul(40));
    let all = [top, second].into_iter().chain(rest.iter().copied());
    let all: Vec<_> = all.map(|number| number.to_string()).collect();
    Ok(all.join("."))
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
                "subject:CN=Alice Ä,O=Corp",
                "cn:Alice Ä",
                "dns:host.example",
                "email:Alice@corp.example",
                "uri:spiffe://corp.example/ci"
            ]
        );
        assert_eq!(shown(names(&made(&[], &[])).unwrap()), ["subject:O=Corp"]);
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

    /// An element of less than 128 bytes.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn attribute(kind: &[u8], tag: u8, text: &str) -> Vec<u8> {
        let pair = [der(OBJECT_IDENTIFIER, kind), der(tag, text.as_bytes())];
        der(SEQUENCE, &pair.concat())
    }

    #[track_caller]
    fn reads(sets: &[&[Vec<u8>]], expected: Result<&[&str], Malformed>) {
        let sets: Vec<_> = sets.iter().map(|set| der(SET, &set.concat())).collect();
        let names = of_subject(&sets.concat()).map(shown);
        let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(names, expected);
    }

    #[test]
    fn a_second_common_name_makes_all_unreadable() {
        let bob = || attribute(COMMON_NAME, UTF8_STRING, "bob");
        reads(&[&[bob()]], Ok(&["subject:CN=bob", "cn:bob"]));
        reads(&[&[bob()], &[bob()]], Err(Malformed));
        reads(&[&[bob(), bob()]], Err(Malformed));
        // T61String, which no two readers decode alike.
        reads(&[&[attribute(COMMON_NAME, 0x14, "bob")]], Err(Malformed));
    }

    #[test]
    fn alternative_names_are_one_list_in_ascii() {
        let extension = |name: &str| {
            let list = der(SEQUENCE, &der(URI, name.as_bytes()));
            let kind = der(OBJECT_IDENTIFIER, ALTERNATIVE_NAMES);
            der(SEQUENCE, &[kind, der(OCTET_STRING, &list)].concat())
        };
        let read = |extensions: &[Vec<u8>]| {
            alternative_names(&der(SEQUENCE, &extensions.concat())).map(shown)
        };
        let one = || extension("urn:a");
        assert_eq!(read(&[one()]), Ok(vec!["uri:urn:a".to_owned()]));
        assert_eq!(read(&[one(), one()]), Err(Malformed));
        assert_eq!(read(&[extension("urn:ä")]), Err(Malformed));
        assert_eq!(read(&[extension("urn:\0a")]), Err(Malformed));
        assert_eq!(read(&[extension("")]), Err(Malformed));
    }

    /// As `openssl x509 -subject -nameopt RFC2253,-esc_msb` shows each of them.
    #[test]
    fn a_subject_is_written_in_one_way() {
        let organisation: &[u8] = &[0x55, 0x04, 0x0a];
        let of = |text: &str| attribute(organisation, PRINTABLE_STRING, text);
        for (text, shown) in [
            ("Corp, Inc", "subject:O=Corp\\, Inc"),
            ("#1", "subject:O=\\#1"),
            (" a b ", "subject:O=\\ a b\\ "),
            ("a+b=c", "subject:O=a\\+b=c"),
            ("\"<;>\\", "subject:O=\\\"\\<\\;\\>\\\\"),
        ] {
            reads(&[&[of(text)]], Ok(&[shown]));
        }
        let serial = attribute(&[0x55, 0x04, 0x05], PRINTABLE_STRING, "7");
        let cn = attribute(COMMON_NAME, UTF8_STRING, "a");
        reads(
            &[&[of("Corp")], &[serial, cn]],
            Ok(&["subject:CN=a+serialNumber=7,O=Corp", "cn:a"]),
        );
        // 1.2.840.113549.1 and 2.999: no name is known of these.
        let unknown = attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01], IA5_STRING, "x");
        reads(&[&[unknown]], Ok(&["subject:1.2.840.113549.1=#160178"]));
        reads(
            &[&[attribute(&[0x88, 0x37], UTF8_STRING, "x")]],
            Ok(&["subject:2.999=#0C0178"]),
        );
        reads(
            &[&[attribute(organisation, 0x1e, "\0x")]],
            Ok(&["subject:2.5.4.10=#1E020078"]),
        );
        for kind in [&[][..], &[0x88], &[0xff; 12]] {
            reads(&[&[attribute(kind, UTF8_STRING, "x")]], Err(Malformed));
        }
        reads(&[&[of("a\nb")]], Err(Malformed));
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
            "subject:alice",
            "subject:CN=alice, O=Corp",
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
        fn any_text_is_a_name_or_none(text in "(cn|subject|dns|email|uri|sha256|x)?:?[ -~é]{0,20}") {
            fuzzing::certificate(text.as_bytes());
        }
    }
}
