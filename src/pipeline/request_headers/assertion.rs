//! The signed field: who asks, stated for this one request.

use std::sync::Arc;

use http::{HeaderValue, Method};

use super::{Refused, Rule};
use crate::keys::{self, Signer, Unsigned};
use crate::pure::assertion::{Statement, Unstated};
use crate::pure::encode_identity::Unencodable;
use crate::pure::identity::User;
use crate::pure::session::Seconds;
use crate::pure::target::Target;
use crate::record::Record;

/// What all assertions have in common.
#[derive(Debug, Default)]
pub struct Assertion {
    /// Who states them; where it is not set, the origin that was asked for.
    pub issuer: Option<Arc<str>>,
    /// What signs them.
    pub signer: Arc<Signer>,
}

impl Assertion {
    /// The field for a request of `user`.
    ///
    /// # Errors
    /// Why there is none: then nothing is sent.
    pub(super) fn field(
        &self,
        rule: &Rule,
        user: &User,
        method: &Method,
        host: &str,
        target: &Target,
        seen: &Record,
    ) -> Result<HeaderValue, Refused> {
        let keys = self.signer.keys().ok_or(Refused::Unasserted)?;
        // Whatever the listener: it is a name, and the same for one application on all of them.
        let origin = format!("https://{host}");
        let statement = Statement {
            issuer: self.issuer.as_deref().unwrap_or(&origin),
            audience: seen.app.as_deref().ok_or(Refused::Unasserted)?,
            user,
            email: rule.identity.email,
            groups: rule.identity.groups,
            method: method.as_str(),
            host,
            path: &target.path,
            query: target.query.as_deref(),
            now: Seconds::of(seen.time),
            id: *keys::random().map_err(|_| Refused::Unasserted)?,
        };
        let signed = keys.sign(&statement).map_err(|why| match why {
            Unsigned::Unstated(Unstated::Path) => Refused::AssertedPath,
            Unsigned::Unstated(Unstated::TooLong) => {
                Refused::IdentityUnencodable(Unencodable::TooLong)
            }
            Unsigned::Unstated(Unstated::Unwritable) | Unsigned::NoKey => Refused::Unasserted,
        })?;
        let mut value = HeaderValue::try_from(signed).map_err(|_| Refused::Unasserted)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
