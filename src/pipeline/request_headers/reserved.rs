//! Names that only the gateway may speak, on any route and in any spelling.

use http::HeaderName;

use crate::pure::names::{Known, Names};
use crate::pure::spelling::Reserved;

/// The families of names that only a gateway may speak.
const FAMILIES: &str = include_str!("reserved_fields.txt");

/// The names of the gateway's own fields that an operator can choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNames {
    /// The user's name.
    pub user: HeaderName,
    /// The user's e-mail address.
    pub email: HeaderName,
    /// The user's groups, joined by `,`.
    pub groups: HeaderName,
    /// The signed assertion.
    pub assertion: HeaderName,
    /// The request's id.
    pub request_id: HeaderName,
}

impl Default for FieldNames {
    fn default() -> Self {
        Self {
            user: HeaderName::from_static("x-portcullis-user"),
            email: HeaderName::from_static("x-portcullis-email"),
            groups: HeaderName::from_static("x-portcullis-groups"),
            assertion: HeaderName::from_static("x-portcullis-assertion"),
            request_id: HeaderName::from_static("x-request-id"),
        }
    }
}

impl FieldNames {
    /// Those that say who the user is.
    pub fn of_the_user(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.user, &self.email, &self.groups, &self.assertion].into_iter()
    }

    pub(super) fn contain(&self, name: &HeaderName) -> bool {
        *name == self.request_id || self.of_the_user().any(|own| own == name)
    }
}

/// The names that only the gateway may speak, on any route.
#[derive(Debug)]
pub struct ReservedNames {
    /// By which the gateway names people and connections.
    own: Reserved,
    /// By which it names requests.
    request_ids: Reserved,
    families: Reserved,
    /// Names of those families that clients may send all the same.
    spared: Names,
    known: Known<Reservation>,
}

/// What is reserved of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// It names people or connections as the gateway does: a backend has no business sending it
    /// back, a client none sending it, and no policy can let them.
    pub identity: bool,
    /// It names requests as the gateway does: no policy can let a client send it.
    pub request_id: bool,
    /// It is of a family that some gateway speaks.
    pub family: bool,
}

impl Reservation {
    /// Whether no policy can let a client send the field.
    pub const fn is_own(self) -> bool {
        self.identity || self.request_id
    }
}

impl ReservedNames {
    /// The names that stay reserved where these are what the routes send: what one backend
    /// believes, no client may say to any.
    ///
    /// # Errors
    /// A word of the shipped file that is no name.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n FieldNames>) -> Result<Self, String> {
        let words = || {
            FAMILIES
                .lines()
                .map(|line| line.split_once('#').map_or(line, |(said, _)| said))
                .flat_map(str::split_ascii_whitespace)
        };
        let families = || words().filter(|word| !word.starts_with('!'));
        let (mut own, mut request_ids) = (vec!["forwarded", "x-real-ip"], Vec::new());
        for FieldNames {
            user,
            email,
            groups,
            assertion,
            request_id,
        } in names
        {
            own.extend([user, email, groups, assertion].map(HeaderName::as_str));
            request_ids.push(request_id.as_str());
        }
        let mut reserved = Self {
            own: Reserved::new(own, ["x-forwarded-", "x-portcullis-"])?,
            request_ids: Reserved::new(request_ids, [])?,
            families: Reserved::new(
                families().filter(|word| !word.ends_with('*')),
                families().filter_map(|word| word.strip_suffix('*')),
            )?,
            spared: Names::new(words().filter_map(|word| word.strip_prefix('!')))?,
            known: Known::default(),
        };
        reserved.known = Known::of(|name| reserved.look_up(name));
        Ok(reserved)
    }

    /// What is reserved of a name, in any spelling.
    pub fn of(&self, name: &HeaderName) -> Reservation {
        self.known.get(name).unwrap_or_else(|| self.look_up(name))
    }

    fn look_up(&self, name: &HeaderName) -> Reservation {
        Reservation {
            identity: self.own.contains(name),
            request_id: self.request_ids.contains(name),
            family: self.families.contains(name) && !self.spared.contains(name),
        }
    }
}
