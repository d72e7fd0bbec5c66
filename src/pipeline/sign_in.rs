//! 4. sign-in: who asks.
//!
//! | when | then |
//! |---|---|
//! | `Authorization` comes twice, or no scheme can be read in it | 400 `sign_in.repeated_authorization`, `sign_in.no_scheme` |
//! | one of our cookies comes twice | 400 `sign_in.repeated_cookie` |
//! | there are more cookies than a browser sends | 431 `sign_in.too_many_cookies` |
//! | the first method of the application for which there is a credential takes it | that user |
//! | .. its session is over, there never was one, or it is by a provider of other paths | as if there were no cookie |
//! | .. it can't be read | 401 `sign_in.malformed_basic` or `sign_in.malformed_bearer`, and no other method is asked |
//! | .. its password or token is bad, or of an issuer that no method takes | 401 with the reason of `identity`, likewise |
//! | .. who sends it has failed too often | 429 `sign_in.slowed` |
//! | .. it can't be checked now | 503 |
//! | .. it takes it, but it is a token of the gate's own for another application, path or method | 403 `sign_in.token_scope` |
//! | .. it takes it, but a page of another host asks for a WebSocket | 403 `sign_in.websocket_origin` |
//! | no method has a credential, and the rule is for everybody | nobody, which is for `access` to judge |
//! | no method has a credential | 401 `sign_in.no_credential`, listing every method |
//! | .. and the session of a cookie is over | the same as `sign_in.session_over`, where there is a page |
//! | `Authorization` has a scheme of no method here | it is the application's own, and no credential |
//!
//! Of several basic methods the first that knows the name is asked; a token is tried by the methods
//! of exactly the issuer that it claims, and one that claims none of theirs is introspected. Trusts no identity field of a client, and makes nothing of a
//! cookie that is malformed (SECURITY.md S4). A credential of a scheme that a method takes never goes
//! on to the backend, whichever method decided.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::ORIGIN;

use crate::identity::accounts::LOCAL;
use crate::identity::machine_tokens::{Scope, TOKENS};
use crate::identity::provider::{BASIC, Kind, Methods, named, some_of};
use crate::identity::{Failure, Identity};
use crate::pure::cookie::{self, BadCookies};
use crate::pure::credential::{BadCredential, Credential};
use crate::pure::field;
use crate::pure::fields::Fields;
use crate::pure::head::Head;
use crate::pure::identity::User;
use crate::pure::machine_token;
use crate::pure::return_to::OWN_PAGES;
use crate::pure::table::{Key, Table};
use crate::pure::target::{Authority, Host};
use crate::record::Record;
use crate::refusal::{Answer, Challenge, Refusal};
use crate::session::Live;

use super::rate::Permit;

/// Keys of `[sign_in]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "with",
        kind: "list of methods",
        default: "[\"local\"]",
        doc: "How people and programs prove who they are, in this order: `local` (accounts, by a \
              sign-in page), `basic` (accounts, by HTTP basic), `tokens` (the gate's own, made by \
              `portcullis tokens`, as bearer tokens), or the name of a `[provider.NAME]`. Of \
              several that have a page, people choose there; with one OpenID provider alone they go \
              straight to it.",
    },
    Key {
        name: "websocket_from",
        kind: "list of hosts",
        default: "the host that is asked",
        doc: "Hosts whose pages may open WebSockets as whoever is signed in, beside the \
              application's own: browsers let any page try.",
    },
];

/// How an application's users prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    ways: Vec<Way>,
    app: Arc<str>,
    realm: Arc<str>,
    websocket_from: Vec<Host>,
    /// Whether those who prove nothing are let through to `access` all the same: for public paths.
    pub anonymous: bool,
}

/// One method of an application, or several of one kind, in the place of the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    Session(Vec<Arc<str>>),
    Basic(Vec<Arc<str>>),
    Bearer(Vec<Arc<str>>),
}

impl Rule {
    /// The rule of the application `app` that `[sign_in]` states; without one, the sign-in page with
    /// local accounts. `known` are the methods that there are.
    pub fn read(table: Option<&Table>, known: &Methods, app: &str) -> Self {
        let mut rule = Self {
            ways: Vec::new(),
            app: app.into(),
            realm: realm(app),
            websocket_from: table
                .and_then(|table| {
                    table.list("websocket_from", |text| {
                        Host::parse(text.as_bytes())
                            .map_err(|_| "a host such as `app.example.com`".to_owned())
                    })
                })
                .unwrap_or_default(),
            anonymous: false,
        };
        let stated = table.and_then(|table| {
            let empty = "an empty list would let nobody sign in";
            some_of(table, "with", empty, |name| named(name, known))
        });
        for (name, kind) in stated.unwrap_or_else(|| vec![("local".into(), Kind::Session)]) {
            rule.add(name, kind);
        }
        rule
    }

    fn add(&mut self, name: Arc<str>, kind: Kind) {
        for way in &mut self.ways {
            match (way, kind) {
                (Way::Session(names), Kind::Session)
                | (Way::Basic(names), Kind::Basic)
                | (Way::Bearer(names), Kind::Bearer) => {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                    return;
                }
                (Way::Session(_) | Way::Basic(_) | Way::Bearer(_), _) => {}
            }
        }
        self.ways.push(match kind {
            Kind::Session => Way::Session(vec![name]),
            Kind::Basic => Way::Basic(vec![name]),
            Kind::Bearer => Way::Bearer(vec![name]),
        });
    }

    /// Whether people can sign in by our page.
    pub fn has_page(&self) -> bool {
        !self.on_page().is_empty()
    }

    /// The methods that people choose from on our page.
    pub fn on_page(&self) -> &[Arc<str>] {
        let page = self.ways.iter().find_map(|way| match way {
            Way::Session(names) => Some(&**names),
            Way::Basic(_) | Way::Bearer(_) => None,
        });
        page.unwrap_or_default()
    }

    /// Whether a method here vouches for users of `provider`, in a session or with each request.
    pub fn takes(&self, provider: &str, in_session: bool) -> bool {
        let has = |names: &[Arc<str>]| names.iter().any(|name| **name == *provider);
        self.ways.iter().any(|way| match way {
            Way::Session(names) => in_session && has(names),
            Way::Bearer(names) => !in_session && has(names),
            // Its users are those of the local accounts.
            Way::Basic(names) => {
                let local = provider == LOCAL && names.iter().any(|name| **name == *BASIC);
                !in_session && (local || has(names))
            }
        })
    }

    /// The methods that take bearer tokens.
    pub fn bearer(&self) -> &[Arc<str>] {
        let bearer = self.ways.iter().find_map(|way| match way {
            Way::Bearer(names) => Some(&**names),
            Way::Session(_) | Way::Basic(_) => None,
        });
        bearer.unwrap_or_default()
    }

    /// Whether the gate's own tokens are taken.
    pub fn takes_tokens(&self) -> bool {
        self.bearer().iter().any(|name| **name == *TOKENS)
    }

    /// Whether the page that asks for a WebSocket is of the host that is asked, or of one that may.
    /// Browsers ask no server before, and send the cookie also from hosts of the same site; only
    /// programs say nothing of where they are (RFC 6455 §10.2). Schemes and ports don't count, as
    /// they don't for cookies.
    fn opens_websockets(&self, head: &Head) -> bool {
        let host = match field::one(&head.headers, &ORIGIN) {
            Ok(None) => return true,
            Ok(Some(origin)) => origin_host(origin.as_bytes()),
            Err(_) => None,
        };
        host.is_some_and(|host| host == head.authority.host || self.websocket_from.contains(&host))
    }

    fn challenge(&self, bad_token: bool) -> Challenge {
        let realm = &self.realm;
        let challenges = self.ways.iter().map(|way| match way {
            // A 401 must name a scheme (RFC 9110 §15.5.2); browsers pass over one they don't know.
            Way::Session(_) => {
                format!("Cookie realm=\"{realm}\", form-action=\"{OWN_PAGES}sign-in\"")
            }
            // RFC 7617 §2.1: names and passwords are UTF-8.
            Way::Basic(_) => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            // RFC 6750 §3.1: the error only where there was a token.
            Way::Bearer(_) if bad_token => {
                format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")
            }
            Way::Bearer(_) => format!("Bearer realm=\"{realm}\""),
        });
        Challenge {
            challenges: challenges.collect(),
            sign_in_page: self.has_page(),
            within: None,
            acr: None,
        }
    }
}

/// The host of an origin (RFC 6454 §7); none of `null`.
fn origin_host(origin: &[u8]) -> Option<Host> {
    let at = memchr::memmem::find(origin, b"://")?;
    let authority = origin.get(at..)?.get(3..)?;
    Authority::parse(authority)
        .ok()
        .map(|authority| authority.host)
}

/// The application's name as it can stand between quotes.
fn realm(app: &str) -> Arc<str> {
    let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || *c == ' ';
    app.chars().filter(plain).collect::<String>().into()
}

/// Which credentials of the request are the gateway's, so that no backend sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consumed {
    /// `Authorization` is of a scheme that a method here takes.
    pub authorization: bool,
}

/// Why nobody is let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There are two `Authorization` fields.
    RepeatedAuthorization,
    /// `Authorization` has no scheme.
    NoScheme,
    /// A cookie of ours came twice: somebody else set one (SECURITY.md S10).
    RepeatedCookie,
    /// There are more cookies than a browser sends.
    TooManyCookies,
    /// A page of another host asks for a WebSocket as the person who is signed in here.
    WebSocketOrigin,
    /// The token is for something else.
    TokenScope {
        /// The token's name.
        as_whom: Arc<str>,
    },
    /// There is nothing that a method here takes.
    NoCredential(Challenge),
    /// There is a session cookie, but no session any more.
    SessionOver(Challenge),
    /// `Basic` is not followed by base64 of a name and a password.
    MalformedBasic(Challenge),
    /// `Bearer` is not followed by a token.
    MalformedBearer(Challenge),
    /// The credential was checked and is bad, or can't be checked.
    Failed(Failure, Challenge),
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let challenge = |challenge, reason| Self::new(Answer::Challenge(challenge), reason);
        // Bad credentials are a 401 to whoever sent them, never a way to another method.
        let bad = |ways: Challenge, reason| {
            let ways = Challenge {
                sign_in_page: false,
                ..ways
            };
            Self::new(Answer::Challenge(ways), reason)
        };
        match refused {
            Refused::RepeatedAuthorization => {
                Self::new(Answer::BadRequest, "sign_in.repeated_authorization")
            }
            Refused::NoScheme => Self::new(Answer::BadRequest, "sign_in.no_scheme"),
            Refused::RepeatedCookie => Self::new(Answer::BadRequest, "sign_in.repeated_cookie"),
            Refused::TooManyCookies => {
                Self::new(Answer::FieldsTooLarge, "sign_in.too_many_cookies")
            }
            Refused::WebSocketOrigin => Self::new(
                Answer::Forbidden { as_whom: None },
                "sign_in.websocket_origin",
            ),
            Refused::TokenScope { as_whom } => {
                let as_whom = Some(as_whom);
                Self::new(Answer::Forbidden { as_whom }, "sign_in.token_scope")
            }
            Refused::NoCredential(ways) => challenge(ways, "sign_in.no_credential"),
            Refused::SessionOver(ways) => challenge(ways, "sign_in.session_over"),
            Refused::MalformedBasic(ways) => bad(ways, "sign_in.malformed_basic"),
            Refused::MalformedBearer(ways) => bad(ways, "sign_in.malformed_bearer"),
            Refused::Failed(failure, ways) => failure
                .refusal()
                .unwrap_or_else(|| bad(ways, failure.reason())),
        }
    }
}

/// Somebody, or nobody: made here only, from a [`Permit`], and asked for by the limits of users.
#[derive(Debug)]
pub struct Subject {
    permit: Permit,
    found: Found,
}

impl Subject {
    /// The proof of the stage before.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Who asks; none on a path for everybody.
    pub const fn user(&self) -> Option<&Arc<User>> {
        self.found.user.as_ref()
    }

    /// The session that says so, or what stands for a token; what is open for it ends with it.
    pub const fn session(&self) -> Option<&Arc<Live>> {
        self.found.session.as_ref()
    }

    /// Which credentials no backend may see.
    pub const fn consumed(&self) -> Consumed {
        self.found.consumed
    }
}

/// What was found of who asks.
#[derive(Debug, Default)]
struct Found {
    user: Option<Arc<User>>,
    session: Option<Arc<Live>>,
    /// What it is for, where it is not for everything.
    scope: Option<Arc<Scope>>,
    consumed: Consumed,
}

/// The credential of a request, as far as a method here could take it.
enum Authorization {
    None,
    Basic(Option<Credential>),
    Bearer(Option<Credential>),
}

impl Authorization {
    fn read(headers: &Fields) -> Result<Self, Refused> {
        match Credential::of(headers) {
            Ok(None | Some(Credential::Other)) => Ok(Self::None),
            Ok(Some(basic @ Credential::Basic { .. })) => Ok(Self::Basic(Some(basic))),
            Ok(Some(bearer @ Credential::Bearer(_))) => Ok(Self::Bearer(Some(bearer))),
            Err(BadCredential::Basic) => Ok(Self::Basic(None)),
            Err(BadCredential::Bearer) => Ok(Self::Bearer(None)),
            Err(BadCredential::Repeated) => Err(Refused::RepeatedAuthorization),
            Err(BadCredential::Scheme) => Err(Refused::NoScheme),
        }
    }

    const fn is_for(&self, way: &Way) -> bool {
        matches!(
            (self, way),
            (Self::Basic(_), Way::Basic(_)) | (Self::Bearer(_), Way::Bearer(_))
        )
    }
}

/// Finds who asks.
///
/// # Errors
/// Why nobody is let through.
pub async fn identify(
    rule: &Rule,
    identity: &Identity,
    permit: Permit,
    head: &Head,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Subject, Refused> {
    let client = permit.ip();
    seen.has_sign_in_page = rule.has_page();
    let found = find(rule, identity, client, &head.headers, now).await?;
    seen.user.clone_from(&found.user);
    if let (Some(scope), Some(user)) = (&found.scope, &found.user)
        && !scope.allows(&rule.app, &head.method, &head.target.path)
    {
        let as_whom = Arc::clone(&user.name);
        return Err(Refused::TokenScope { as_whom });
    }
    if head.upgrade.is_some() && found.user.is_some() && !rule.opens_websockets(head) {
        return Err(Refused::WebSocketOrigin);
    }
    Ok(Subject { permit, found })
}

async fn find(
    rule: &Rule,
    identity: &Identity,
    client: IpAddr,
    headers: &Fields,
    now: SystemTime,
) -> Result<Found, Refused> {
    let authorization = Authorization::read(headers)?;
    let consumed = Consumed {
        authorization: rule.ways.iter().any(|way| authorization.is_for(way)),
    };
    // Asked whether or not a method takes it: two cookies of ours are never an accident.
    let cookie = match cookie::ours(headers, cookie::SESSION) {
        Ok(cookie) => cookie,
        Err(BadCookies::Malformed) => None,
        Err(BadCookies::Repeated) => return Err(Refused::RepeatedCookie),
        Err(BadCookies::TooMany) => return Err(Refused::TooManyCookies),
    };
    let failed = |why: Failure| {
        let bad_token = matches!(
            why,
            Failure::BadToken(_)
                | Failure::OtherIssuer
                | Failure::MachineToken(_)
                | Failure::Introspection(_)
        );
        Refused::Failed(why, rule.challenge(bad_token))
    };
    for way in &rule.ways {
        let user = match (way, &authorization) {
            (Way::Session(providers), _) => {
                let Some(cookie) = cookie else { continue };
                match identity.session(cookie, now).await.map_err(failed)? {
                    // A session by a method that is for another path is none here.
                    Some(known) if providers.contains(&known.user.provider) => {
                        let (user, session) = (Some(known.user), Some(known.live));
                        return Ok(Found {
                            user,
                            session,
                            scope: None,
                            consumed,
                        });
                    }
                    Some(_) | None => continue,
                }
            }
            (Way::Basic(methods), Authorization::Basic(basic)) => {
                let Some(Credential::Basic { user, password }) = basic else {
                    return Err(Refused::MalformedBasic(rule.challenge(false)));
                };
                // In a box, as the next one: browsers come with a session, and these are long.
                Box::pin(identity.by_password(methods, user, password, client, now)).await
            }
            (Way::Bearer(methods), Authorization::Bearer(bearer)) => {
                let Some(Credential::Bearer(token)) = bearer else {
                    return Err(Refused::MalformedBearer(rule.challenge(true)));
                };
                if machine_token::is_ours(token) {
                    let machine = identity
                        .by_machine_token(methods, token, now)
                        .map_err(failed)?;
                    return Ok(Found {
                        user: Some(machine.live.user()),
                        session: Some(machine.live),
                        scope: Some(machine.scope),
                        consumed,
                    });
                }
                let program = Box::pin(identity.by_token(methods, token, now)).await;
                let program = program.map_err(failed)?;
                return Ok(Found {
                    user: Some(program.user()),
                    session: Some(program),
                    scope: None,
                    consumed,
                });
            }
            (Way::Basic(_), Authorization::None | Authorization::Bearer(_))
            | (Way::Bearer(_), Authorization::None | Authorization::Basic(_)) => continue,
        };
        let user = Some(user.map_err(failed)?);
        return Ok(Found {
            user,
            session: None,
            scope: None,
            consumed,
        });
    }
    if rule.anonymous {
        return Ok(Found {
            consumed,
            ..Found::default()
        });
    }
    let challenge = rule.challenge(false);
    Err(if cookie.is_some() && rule.has_page() {
        Refused::SessionOver(challenge)
    } else {
        Refused::NoCredential(challenge)
    })
}

#[cfg(test)]
mod tests;
