//! Signing out at a provider, and its word that somebody has.

use std::time::SystemTime;

use openidconnect::url::Url;
use zeroize::Zeroizing;

use crate::pure::id_token::{self, Logout};
use crate::pure::jwt::{self, BadToken, Token};
use crate::pure::session::Tokens;

use super::super::kept::Asker;
use super::Oidc;
use super::error::Error;

/// How somebody signs out at a provider.
pub struct EndSession {
    /// What people call the provider.
    pub title: String,
    /// Where the link leads, or the form goes.
    pub url: String,
    /// Scheme, host and port of that.
    pub origin: String,
    hint: Option<Zeroizing<String>>,
    client_id: String,
    back: String,
}

impl EndSession {
    /// What the form holds, where it is one.
    pub fn form(&self) -> Option<Vec<(&'static str, &str)>> {
        let hint = self.hint.as_ref()?;
        Some(vec![
            ("id_token_hint", hint.as_str()),
            ("client_id", &*self.client_id),
            ("post_logout_redirect_uri", &*self.back),
        ])
    }
}

impl Oidc {
    /// Reads a logout token that the provider sent.
    ///
    /// # Errors
    /// Why it is none.
    pub async fn logout(&self, text: &str, now: SystemTime) -> Result<Logout, Error> {
        if self.settings.github.is_some() {
            return Err(Error::Token(BadToken::UnknownKey));
        }
        let stated = self.stated(now).await?;
        let token = Token::parse_issued(text).map_err(Error::Token)?;
        let rule = jwt::Rule {
            types: ["logout+jwt", "JWT"]
                .into_iter()
                .filter_map(jwt::Type::named)
                .collect(),
            ..jwt::Rule::clone(&self.settings.rule)
        };
        let asker = Asker::Anybody;
        self.with_keys_by(&rule, &token, asker, &stated.value, now, |issued| {
            id_token::logout(&issued, now).map_err(Error::IdToken)
        })
        .await
    }

    /// How a browser signs out at the provider, and comes back to `back`; `None` where it offers no
    /// such place (OpenID Connect RP-Initiated Logout §2).
    pub fn end_session(&self, tokens: &Tokens, back: &str) -> Option<EndSession> {
        let stated = self.metadata.current()?;
        let mut url = Url::parse(stated.value.end_session.as_deref()?).ok()?;
        let hint = tokens.id.clone().filter(|_| self.settings.sign_out_by_form);
        if hint.is_none() {
            url.query_pairs_mut()
                .append_pair("client_id", &self.settings.client_id)
                .append_pair("post_logout_redirect_uri", back);
        }
        Some(EndSession {
            title: self.settings.title.clone(),
            origin: url.origin().ascii_serialization(),
            url: url.to_string(),
            hint,
            client_id: self.settings.client_id.clone(),
            back: back.to_owned(),
        })
    }
}
