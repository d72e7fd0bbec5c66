//! Sign-in by GitHub, which speaks OAuth 2.0 without OpenID: there is no ID token, and the holder of an
//! access token is asked for.
//!
//! | when | then |
//! |---|---|
//! | the token endpoint says `error`, with status 200 as well | no token |
//! | 401, or 403 for another reason than how often we ask | the token counts no more |
//! | an answer is not what it must be, or a list has more than 1024 entries | refused |
//! | the user is in none of the organisations, and they matter | refused |
//! | GitHub does not answer in time, or has trouble of its own | away |
//!
//! Groups are those of the listed organisations alone: anybody can found one with a name that means
//! something in a policy.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use openidconnect::{AuthUrl, TokenUrl};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::backend::fetch::{Answer, Client, Question};
use crate::pure::fields::Fields;
use crate::pure::identity::Claims;
use crate::pure::session::MAX_GROUPS;
use crate::pure::{form, json};

use super::metadata::{Aliases, Metadata};

/// What is asked for: to see the user's organisations and teams, and their e-mail addresses.
pub const SCOPES: [&str; 2] = ["read:org", "user:email"];
/// How long GitHub may take for everything that is asked at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer: a hundred teams with their descriptions.
const MOST_BYTES: usize = 1024 * 1024;
/// More pages than [`MAX_GROUPS`] entries need, for a page may be short.
const MOST_PAGES: u32 = 16;

/// A GitHub as the configuration states it.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Where its API is.
    api: String,
    /// The organisations whose members are let in, and whose teams count.
    organizations: Vec<String>,
    /// Whether everybody else is let in, too.
    any_user: bool,
}

impl Rule {
    /// Whom it lets in, in words that sessions can be held to: no name of an organisation has a space.
    pub fn lets_in(&self) -> String {
        let anybody = if self.any_user { " anybody" } else { "" };
        format!("{} {}{anybody}", self.api, self.organizations.join(" "))
    }
}

/// Why nothing is known of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// GitHub can't be asked now.
    Away,
    /// GitHub does not know us, or this address of ours.
    Client,
    /// The code or the token counts no more.
    Grant,
    /// An answer is not what it must be.
    Unusable,
    /// There are more organisations, teams or addresses than are read.
    TooMany,
    /// The user is in none of the organisations.
    NotAMember,
}

/// A code to redeem.
pub struct Code<'c> {
    /// The token endpoint.
    pub endpoint: &'c str,
    /// Our name there.
    pub client_id: &'c str,
    /// Our secret.
    pub secret: &'c str,
    /// The code.
    pub code: &'c str,
    /// Where it was sent.
    pub redirect_uri: &'c str,
    /// What it is worth nothing without.
    pub verifier: &'c str,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    primary: bool,
    verified: bool,
}

#[derive(Deserialize)]
struct Organization {
    login: String,
}

#[derive(Deserialize)]
struct Team {
    slug: String,
    organization: Organization,
}

#[derive(Deserialize)]
struct Trouble {
    message: String,
}

/// The endpoints of the GitHub at `url`; none if it makes no URLs.
pub fn metadata(url: &str) -> Option<Metadata> {
    // As GitHub names itself where it does speak OpenID (RFC 9207 §2).
    let issuer = format!("{url}/login/oauth");
    Some(Metadata {
        authorization: AuthUrl::new(format!("{issuer}/authorize")).ok()?,
        token: TokenUrl::new(format!("{issuer}/access_token")).ok()?,
        issuer,
        jwks: String::new(),
        userinfo: None,
        end_session: None,
        pushed_requests: None,
        names_itself: false,
        takes_basic: false,
        takes_pss: false,
        aliases: Aliases::default(),
    })
}

impl Rule {
    /// The rule for the GitHub at `url`, which has neither path nor slash at its end.
    pub fn new(url: &str, organizations: Vec<String>, any_user: bool) -> Self {
        let api = match url.strip_prefix("https://") {
            Some(host) if host == "github.com" || host.ends_with(".ghe.com") => {
                format!("https://api.{host}")
            }
            Some(_) | None => format!("{url}/api/v3"),
        };
        Self {
            api,
            organizations,
            any_user,
        }
    }

    /// Claims about whoever `token` is for, by the names that OpenID has for them.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn claims(&self, client: &Client, token: &str) -> Result<Claims, Error> {
        let mut bearer =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::Grant)?;
        bearer.set_sensitive(true);
        let api = Api {
            client,
            url: &self.api,
            bearer,
        };
        let asking = async {
            tokio::try_join!(
                api.get::<Account>("/user"),
                // The primary one is among the first hundred, or there is none.
                api.get::<Vec<Address>>("/user/emails?per_page=100"),
                api.list("/user/orgs", |one: Organization| one.login),
                api.list("/user/teams", |one: Team| (
                    one.organization.login,
                    one.slug
                )),
            )
        };
        let (account, addresses, organizations, teams) = tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or(Err(Error::Away))?;
        let groups = self.groups(&organizations, &teams);
        if groups.is_empty() && !self.any_user {
            return Err(Error::NotAMember);
        }
        let mut claims = Claims::new();
        let id = account.id.to_string();
        claims.insert("sub".to_owned(), json!(id));
        claims.insert("id".to_owned(), json!(id));
        claims.insert("login".to_owned(), json!(account.login));
        claims.insert("groups".to_owned(), json!(groups));
        if let Some(name) = account.name {
            claims.insert("name".to_owned(), json!(name));
        }
        let mut addresses = addresses.into_iter();
        if let Some(primary) = addresses.find(|one| one.primary && one.verified) {
            claims.insert("email".to_owned(), json!(primary.email));
            claims.insert("email_verified".to_owned(), json!(true));
        }
        Ok(claims)
    }

    /// `org` and `org/team`, with organisations spelt as the configuration does.
    fn groups(&self, organizations: &[String], teams: &[(String, String)]) -> Vec<String> {
        let mut groups = Vec::new();
        for stated in &self.organizations {
            let is_it = |name: &str| name.eq_ignore_ascii_case(stated);
            if !organizations.iter().any(|name| is_it(name)) {
                continue;
            }
            groups.push(stated.clone());
            let of_it = teams.iter().filter(|(name, _)| is_it(name));
            groups.extend(of_it.map(|(_, slug)| format!("{stated}/{slug}")));
        }
        groups
    }
}

/// Redeems a code for an access token.
///
/// # Errors
/// Why there is none.
pub async fn redeem(client: &Client, code: &Code<'_>) -> Result<Zeroizing<String>, Error> {
    let mut content = form::Writer::default();
    content.add("client_id", code.client_id);
    content.add("client_secret", code.secret);
    content.add("code", code.code);
    content.add("redirect_uri", code.redirect_uri);
    content.add("code_verifier", code.verifier);
    let mut headers = fields("application/json");
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.set(CONTENT_TYPE, form);
    let question = Question {
        method: &Method::POST,
        url: code.endpoint,
        headers,
        content: Bytes::from(content.into_string()),
    };
    let answer = ask(client, question).await?;
    if answer.status == StatusCode::NOT_FOUND {
        warn!(url = code.endpoint, "GitHub does not know the client id");
        return Err(Error::Client);
    }
    let granted: Granted = read(&answer)?;
    if let Some(error) = granted.error {
        let code: String = error.chars().take(64).collect();
        info!(error = code, "GitHub gives no token");
        return Err(match &*error {
            "bad_verification_code" | "unverified_user_email" => Error::Grant,
            _ => Error::Client,
        });
    }
    granted
        .access_token
        .map(Zeroizing::new)
        .filter(|token| answer.status == StatusCode::OK && !token.is_empty())
        .ok_or(Error::Unusable)
}

struct Api<'a> {
    client: &'a Client,
    url: &'a str,
    bearer: HeaderValue,
}

impl Api<'_> {
    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        let mut headers = fields("application/vnd.github+json");
        headers.set(AUTHORIZATION, self.bearer.clone());
        let question = Question {
            method: &Method::GET,
            url: &format!("{}{target}", self.url),
            headers,
            content: Bytes::new(),
        };
        let answer = ask(self.client, question).await?;
        match answer.status {
            StatusCode::OK => read(&answer),
            StatusCode::TOO_MANY_REQUESTS => Err(Error::Away),
            StatusCode::FORBIDDEN if is_about_rate(&answer) => Err(Error::Away),
            // A suspended account is told 403.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Grant),
            _ => Err(Error::Unusable),
        }
    }

    /// All of a list, up to the first empty page: that a page is short does not say that it is the last.
    async fn list<T: DeserializeOwned, Of>(
        &self,
        path: &str,
        of: impl Fn(T) -> Of,
    ) -> Result<Vec<Of>, Error> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let some: Vec<T> = self
                .get(&format!("{path}?per_page=100&page={page}"))
                .await?;
            if some.is_empty() {
                return Ok(all);
            }
            all.extend(some.into_iter().map(&of));
            if all.len() > MAX_GROUPS {
                break;
            }
        }
        Err(Error::TooMany)
    }
}

/// GitHub answers nobody who does not say what they are.
fn fields(accept: &'static str) -> Fields {
    let mut fields = Fields::new();
    fields.set(ACCEPT, HeaderValue::from_static(accept));
    fields.set(USER_AGENT, HeaderValue::from_static("portcullis"));
    fields
}

async fn ask(client: &Client, question: Question<'_>) -> Result<Answer, Error> {
    let url = question.url.to_owned();
    let answer = client.ask(question, MOST_BYTES, PATIENCE).await;
    let answer = answer.map_err(|why| {
        warn!(url, error = %why, "GitHub can't be asked");
        Error::Away
    })?;
    if answer.status.is_server_error() {
        warn!(url, status = answer.status.as_u16(), "GitHub can't answer");
        return Err(Error::Away);
    }
    Ok(answer)
}

fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Error> {
    let value = json::parse(&answer.content).map_err(|_| Error::Unusable)?;
    serde_json::from_value(value).map_err(|_| Error::Unusable)
}

/// GitHub refuses too many requests by 403, too, and says so in words only.
fn is_about_rate(answer: &Answer) -> bool {
    read::<Trouble>(answer).is_ok_and(|trouble| trouble.message.contains("rate limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_belongs_to_its_github() {
        for (url, api) in [
            ("https://github.com", "https://api.github.com"),
            ("https://octo.ghe.com", "https://api.octo.ghe.com"),
            ("https://git.test", "https://git.test/api/v3"),
            ("https://evilgithub.com", "https://evilgithub.com/api/v3"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/api/v3"),
        ] {
            assert_eq!(Rule::new(url, Vec::new(), true).api, api);
            let stated = metadata(url).unwrap();
            let token = format!("{url}/login/oauth/access_token");
            assert_eq!(stated.token.as_str(), token);
        }
    }

    #[test]
    fn groups_are_of_the_listed_organisations_alone() {
        let listed = vec!["acme".to_owned(), "other".to_owned()];
        let rule = Rule::new("https://github.com", listed, false);
        let team = |org: &str, slug: &str| (org.to_owned(), slug.to_owned());
        let organizations = ["Acme", "admins"].map(str::to_owned);
        let teams = [team("ACME", "ops"), team("admins", "x"), team("other", "y")];
        let groups = rule.groups(&organizations, &teams);
        // A team of an organisation that one is not in, by GitHub's own word, is none.
        assert_eq!(groups, ["acme", "acme/ops"]);
    }
}
