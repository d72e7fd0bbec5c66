//! What an answer says of the pages of other origins that may read it (Fetch §3.2.3).

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue};

use super::field;
use super::fields::Fields;
use super::origin::Origin;

/// What every page needs to know of a refusal, besides its content.
const OF_REFUSALS: [HeaderName; 2] = [WWW_AUTHENTICATE, RETRY_AFTER];

/// What pages that may read an answer may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharing {
    /// Whether they may ask with what the browser keeps for the application: its cookies.
    credentials: bool,
    /// The fields that they may read of the application's answers.
    exposed: Option<HeaderValue>,
    /// The fields that they may read of the gate's refusals.
    exposed_of_refusals: Option<HeaderValue>,
}

impl Sharing {
    /// Lets pages read these fields, and the safelisted ones (Fetch §2.2.2).
    pub fn new(credentials: bool, exposed: &[HeaderName]) -> Self {
        let unsaid = |name: &HeaderName| !exposed.contains(name);
        let of_refusals: Vec<_> = exposed
            .iter()
            .cloned()
            .chain(OF_REFUSALS.into_iter().filter(unsaid))
            .collect();
        Self {
            credentials,
            exposed: listed(exposed.iter().map(HeaderName::as_str)),
            exposed_of_refusals: listed(of_refusals.iter().map(HeaderName::as_str)),
        }
    }
}

/// A list of words, or nothing where there are none.
pub fn listed<'w>(words: impl Iterator<Item = &'w str>) -> Option<HeaderValue> {
    let words: Vec<_> = words.collect();
    let list = (!words.is_empty()).then(|| words.join(", "))?;
    HeaderValue::try_from(list).ok()
}

/// The origin other than the application's whose pages may read the answers to one request, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readers(Option<(HeaderValue, Arc<Sharing>)>);

impl Readers {
    /// No page of another origin.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The pages of `origin`; none where it makes no value.
    pub fn of(origin: &Origin, sharing: &Arc<Sharing>) -> Self {
        let value = HeaderValue::try_from(origin.to_string()).ok();
        Self(value.map(|value| (value, Arc::clone(sharing))))
    }

    /// Says in the fields of an answer who may read it; `refused` is whether it is a refusal.
    pub fn say(&self, fields: &mut Fields, refused: bool) {
        // Also where it names nobody: a cache must not give this answer to a page that may read it.
        if !varies_by_origin(fields) {
            fields.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some((origin, sharing)) = &self.0 else {
            return;
        };
        fields.set(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if sharing.credentials {
            let yes = HeaderValue::from_static("true");
            fields.set(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        let exposed = if refused {
            &sharing.exposed_of_refusals
        } else {
            &sharing.exposed
        };
        if let Some(exposed) = exposed {
            fields.set(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}

fn varies_by_origin(fields: &Fields) -> bool {
    // What can't be read says nothing, and gets a line of ours beside it.
    let names = field::list(fields, &VARY).unwrap_or_default();
    let by = |name: &&[u8]| *name == b"*" || name.eq_ignore_ascii_case(b"origin");
    names.iter().any(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X_TOTAL: HeaderName = HeaderName::from_static("x-total");

    fn spa() -> Origin {
        Origin::parse(b"https://spa.example.com").unwrap()
    }

    fn said(readers: &Readers, lines: &[(HeaderName, &'static str)], refused: bool) -> Vec<String> {
        let mut fields: Fields = lines
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect();
        readers.say(&mut fields, refused);
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            format!("{name}: {}", value.to_str().unwrap())
        };
        fields.iter().map(line).collect()
    }

    #[test]
    fn an_answer_names_its_reader_and_what_may_be_read() {
        let sharing = Arc::new(Sharing::new(true, &[X_TOTAL]));
        let readers = Readers::of(&spa(), &sharing);
        let mut expected = vec![
            "vary: Origin",
            "access-control-allow-origin: https://spa.example.com",
            "access-control-allow-credentials: true",
            "access-control-expose-headers: x-total",
        ];
        assert_eq!(said(&readers, &[], false), expected);
        expected[3] = "access-control-expose-headers: x-total, www-authenticate, retry-after";
        assert_eq!(said(&readers, &[], true), expected);
    }

    #[test]
    fn without_credentials_or_fields_nothing_is_said_of_them() {
        let readers = Readers::of(&spa(), &Arc::new(Sharing::new(false, &[])));
        let expected = [
            "vary: Origin",
            "access-control-allow-origin: https://spa.example.com",
        ];
        assert_eq!(said(&readers, &[], false), expected);
    }

    #[test]
    fn a_field_is_exposed_once() {
        let readers = Readers::of(&spa(), &Arc::new(Sharing::new(false, &[RETRY_AFTER])));
        let lines = said(&readers, &[], true);
        assert_eq!(
            lines[2],
            "access-control-expose-headers: retry-after, www-authenticate"
        );
    }

    #[test]
    fn an_answer_for_nobody_still_varies() {
        assert_eq!(said(&Readers::none(), &[], true), ["vary: Origin"]);
    }

    #[test]
    fn vary_is_added_to_and_not_doubled() {
        for (lines, expected) in [
            (&["Accept"][..], &["vary: Accept", "vary: Origin"][..]),
            (&["Accept, origin"], &["vary: Accept, origin"]),
            (&["Accept", "Origin"], &["vary: Accept", "vary: Origin"]),
            (&["*"], &["vary: *"]),
            (&["X-Origin"], &["vary: X-Origin", "vary: Origin"]),
            (&["\""], &["vary: \"", "vary: Origin"]),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| (VARY, *line)).collect();
            assert_eq!(said(&Readers::none(), &lines, false), expected);
        }
    }
}
