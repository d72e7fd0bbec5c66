//! 5. access: which of them may pass.
//!
//! | when | then |
//! |---|---|
//! | no rule lets anybody pass | 403 `access.nobody` |
//! | nobody is signed in, and the rule is not `public` | 403 `access.signed_out` |
//! | a `deny` holds, or a condition on the user does not | 403 `access.denied` |
//! | the condition that does not hold is on the method | 403 `access.method` |
//! | the sign-in is older than `signed_in_within` | 401 `access.stale_sign_in`: sign in again (RFC 9470) |
//! | otherwise | the request may pass; the record names the file and line that let it |
//!
//! Trusts the user that sign-in found, and the method and path of the canonical request. The
//! decision itself is `pure::access`. Sign-in asks for credentials before this stage is reached:
//! `access.signed_out` is its second lock. A rule by method is 403 and not 405, which would tell
//! somebody who may not pass what the application can do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::identity::provider::{Methods, named};
use crate::pipeline::sign_in::Subject;
use crate::pipeline::user_rate::Paced;
use crate::pure::access::{
    Asked, ClaimName, Condition, Deny, EmailDomain, Freshness, Rule as Conditions, Test, Verdict,
    Who, Why, decide as decide_purely,
};
use crate::pure::head::Head;
use crate::pure::identity::User;
use crate::pure::table::{Key, Place, Table};
use crate::pure::unit;
use crate::record::Record;
use crate::refusal::{Answer, Challenge, Refusal};
use crate::session::Live;

/// Who may pass at one path of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Whom the policy lets pass.
    pub conditions: Conditions,
    /// Whether somebody whose sign-in is too old can sign in again on a page.
    pub sign_in_page: bool,
}

/// Why somebody may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No rule lets anybody pass.
    Nobody {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
    },
    /// Nobody is signed in.
    SignedOut,
    /// This user may not pass.
    Denied {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
    },
    /// This method may not pass.
    Method {
        /// The user's name, when somebody is signed in.
        as_whom: Option<Arc<str>>,
    },
    /// The sign-in is older than this.
    Stale {
        /// The greatest age.
        within: Duration,
        /// Whether there is a page to sign in on.
        sign_in_page: bool,
    },
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (answer, reason) = match refused {
            Refused::Nobody { as_whom } => (Answer::Forbidden { as_whom }, "access.nobody"),
            Refused::SignedOut => (Answer::Forbidden { as_whom: None }, "access.signed_out"),
            Refused::Denied { as_whom } => (Answer::Forbidden { as_whom }, "access.denied"),
            Refused::Method { as_whom } => (Answer::Forbidden { as_whom }, "access.method"),
            Refused::Stale {
                within,
                sign_in_page,
            } => {
                let age = within.as_secs();
                let bearer =
                    format!("Bearer error=\"insufficient_user_authentication\", max_age=\"{age}\"");
                let challenge = Challenge {
                    challenges: vec![bearer],
                    sign_in_page,
                    within: Some(age),
                };
                (Answer::Challenge(challenge), "access.stale_sign_in")
            }
        };
        Self::new(answer, reason)
    }
}

/// Proof that somebody may pass: made here only, and asked for by whatever goes to a backend.
#[derive(Debug)]
pub struct Grant(Paced);

impl Grant {
    /// Who may, and how that is known.
    pub const fn subject(&self) -> &Subject {
        self.0.subject()
    }

    /// The session that says who; what is open for it ends with it.
    pub fn into_session(self) -> Option<Arc<Live>> {
        self.subject().session().cloned()
    }
}

/// Decides whether a request may pass; the record keeps the line that decided, either way.
///
/// # Errors
/// Why it may not.
pub fn decide(
    rule: &Rule,
    head: &Head,
    paced: Paced,
    now: SystemTime,
    seen: &mut Record,
) -> Result<Grant, Refused> {
    let user = paced.subject().user().map(|user| &**user);
    let (by, result) = rule.judge(user, &head.method, now);
    seen.decider = Some(by);
    result.map(|()| Grant(paced))
}

impl Rule {
    /// Whether nobody can pass without having signed in.
    pub const fn needs_sign_in(&self) -> bool {
        self.conditions.needs_sign_in()
    }

    /// The verdict with what was missing, for those who ask why.
    pub fn verdict(&self, user: Option<&User>, method: &Method, now: SystemTime) -> Verdict<'_> {
        decide_purely(&self.conditions, &Asked { user, method, now })
    }

    /// Whether a request by `user` may pass, and the line that decided either way.
    pub fn judge(
        &self,
        user: Option<&User>,
        method: &Method,
        now: SystemTime,
    ) -> (Place, Result<(), Refused>) {
        let as_whom = || user.map(|user| Arc::clone(&user.name));
        let (by, result) = match self.verdict(user, method, now) {
            Verdict::Granted { by } => (by, Ok(())),
            Verdict::Denied { by, why } => {
                let refused = match why {
                    Why::NoRule => Refused::Nobody { as_whom: as_whom() },
                    Why::SignedOut => Refused::SignedOut,
                    Why::Missing(Condition {
                        test: Test::Method(_),
                        ..
                    }) => Refused::Method { as_whom: as_whom() },
                    Why::Missing(_) | Why::Deny(_) => Refused::Denied { as_whom: as_whom() },
                    Why::Stale(within) => Refused::Stale {
                        within,
                        sign_in_page: self.sign_in_page,
                    },
                };
                (by, Err(refused))
            }
        };
        (by.clone(), result)
    }
}

/// The keys of `[access]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "who",
        kind: "`\"signed-in\"`, `\"public\"` or `\"nobody\"`",
        default: "signed in and meeting the conditions below",
        doc: "Whom the rule is about. `access = \"public\"` is short for a table with this key alone.",
    },
    Key {
        name: "users",
        kind: "list of names",
        default: "any",
        doc: "The user has one of these names, exactly. With several sign-in methods, say `providers`, too.",
    },
    Key {
        name: "providers",
        kind: "list of names",
        default: "any",
        doc: "One of these sign-in methods vouches for the user.",
    },
    Key {
        name: "groups",
        kind: "list of names",
        default: "any",
        doc: "The user is in one of these groups.",
    },
    Key {
        name: "email_domains",
        kind: "list of domains",
        default: "any",
        doc: "The user's verified e-mail address is at one of these domains, not at one below it. An address with more than one `@` is at none.",
    },
    Key {
        name: "claims",
        kind: "table of lists",
        default: "any",
        doc: "Each claim named has one of its values: `claims = { department = [\"research\"], \"realm_access.roles\" = [\"admin\"] }`. A dot goes one level down; booleans and whole numbers are compared as JSON writes them.",
    },
    Key {
        name: "methods",
        kind: "list of methods",
        default: "any",
        doc: "The request has one of these methods. `GET` does not include `HEAD`.",
    },
    Key {
        name: "signed_in_within",
        kind: "duration",
        default: "any time",
        doc: "The user proved who they are at most so long ago; otherwise they are asked to again.",
    },
    Key {
        name: "deny",
        kind: "table, or list of tables, with `users`, `providers`, `groups`, `email_domains`, `claims`, `methods`",
        default: "none",
        doc: "Refuses who meets all that one of these tables states, whatever else holds. Those of an application hold on each of its paths.",
    },
];

/// The keys of a `deny`.
pub const DENY_KEYS: &[Key] = &[
    Key {
        name: "users",
        kind: "list of names",
        default: "any",
        doc: "The user has one of these names.",
    },
    Key {
        name: "providers",
        kind: "list of names",
        default: "any",
        doc: "One of these sign-in methods vouches for the user.",
    },
    Key {
        name: "groups",
        kind: "list of names",
        default: "any",
        doc: "The user is in one of these groups.",
    },
    Key {
        name: "email_domains",
        kind: "list of domains",
        default: "any",
        doc: "The user's e-mail address is at one of these domains, or can't be read.",
    },
    Key {
        name: "claims",
        kind: "table of lists",
        default: "any",
        doc: "Each claim named has one of its values, or can't be read.",
    },
    Key {
        name: "methods",
        kind: "list of methods",
        default: "any",
        doc: "The request has one of these methods.",
    },
];

/// Reads `access` of an application: a word, a table, or nothing, which lets nobody pass.
/// `sign_in_page` says whether the application has a page to sign in on.
pub fn read(app: &Table, methods: &Methods, sign_in_page: bool) -> Rule {
    Rule {
        conditions: conditions(app, methods),
        sign_in_page,
    }
}

/// Reads `access` and `methods` of a path: without the first, the application's rule holds. What
/// the application denies stays denied.
pub fn read_path(path: &Table, methods: &Methods, app: &Rule) -> Rule {
    let mut conditions = if path.has("access") {
        let mut own = conditions(path, methods);
        own.denies.extend(app.conditions.denies.iter().cloned());
        own
    } else {
        app.conditions.clone()
    };
    conditions.conditions.extend(self::methods(path));
    Rule {
        conditions,
        sign_in_page: app.sign_in_page,
    }
}

fn conditions(parent: &Table, methods: &Methods) -> Conditions {
    let place = parent.place_of("access");
    let mut rule = Conditions::nobody(place);
    if !parent.has("access") {
        return rule;
    }
    if !parent.is_table("access") {
        rule.who = parent.value("access", who).unwrap_or(Who::Nobody);
        return rule;
    }
    let Some(table) = parent.table("access", KEYS) else {
        return rule;
    };
    let found_before = table.problems().count();
    let on_user = user_conditions(&table, methods);
    let freshness = table.value("signed_in_within", fresh).map(|within| {
        let place = table.place_of("signed_in_within");
        Freshness { place, within }
    });
    rule.who = match table.value("who", who) {
        Some(who) => who,
        None if on_user.is_empty() => Who::Nobody,
        None => Who::SignedIn,
    };
    if table.problems().count() == found_before {
        let names_users = !on_user.is_empty() || freshness.is_some();
        if rule.who == Who::Public && names_users {
            let message =
                "`public` lets everybody pass, signed in or not: it goes with `methods` alone";
            table.problem("who", message, Some("say `who = \"signed-in\"`".to_owned()));
        }
        if on_user.is_empty() && !table.has("who") {
            let hint = "say `who = \"signed-in\"`, `groups = [..]` or such".to_owned();
            table.problem(
                "who",
                "nothing says who may pass, so nobody may",
                Some(hint),
            );
        }
    }
    rule.conditions = on_user;
    rule.conditions.extend(self::methods(&table));
    rule.signed_in_within = freshness;
    rule.denies = denies(&table, methods, rule.who);
    rule
}

fn denies(table: &Table, methods: &Methods, who: Who) -> Vec<Deny> {
    if !table.has("deny") {
        return Vec::new();
    }
    let tables = if table.is_table("deny") {
        table.table("deny", DENY_KEYS).into_iter().collect()
    } else {
        table.tables("deny", DENY_KEYS)
    };
    if tables.is_empty() {
        table.problem(
            "deny",
            "`deny` is empty",
            Some("leave it out to deny nobody".to_owned()),
        );
    }
    tables
        .iter()
        .map(|deny| self::deny(table, deny, methods, who))
        .collect()
}

fn deny(table: &Table, deny: &Table, methods: &Methods, who: Who) -> Deny {
    let found_before = deny.problems().count();
    let mut conditions = user_conditions(deny, methods);
    if who == Who::Public && !conditions.is_empty() {
        let hint = Some("say `who = \"signed-in\"`".to_owned());
        table.problem(
            "deny",
            "where access is `public`, whom it denies can come signed out",
            hint,
        );
    }
    conditions.extend(self::methods(deny));
    if conditions.is_empty() && deny.problems().count() == found_before {
        let hint = Some("`who = \"nobody\"` lets nobody pass".to_owned());
        table.problem(
            "deny",
            "a `deny` that states nothing refuses everybody",
            hint,
        );
    }
    Deny {
        place: deny.place(),
        conditions,
    }
}

/// The conditions on the user in a table, each with its line.
fn user_conditions(table: &Table, methods: &Methods) -> Vec<Condition> {
    let name = |text: &str| match text {
        "" => Err("expected a name".to_owned()),
        name => Ok(name.into()),
    };
    let mut all = Vec::new();
    let mut add = |key, test| {
        all.push(Condition {
            place: table.place_of(key),
            test,
        })
    };
    if let Some(names) = filled(table, "users", name) {
        add("users", Test::User(names));
    }
    if let Some(names) = filled(table, "providers", |name| {
        Ok((*named(name, methods)?.0).into())
    }) {
        add("providers", Test::Provider(names));
    }
    if let Some(names) = filled(table, "groups", name) {
        add("groups", Test::Group(names));
    }
    if let Some(domains) = filled(table, "email_domains", EmailDomain::parse) {
        add("email_domains", Test::EmailDomain(domains));
    }
    if table.has("claims") {
        let claims = table.free_lists("claims");
        if claims.is_empty() {
            empty(table, "claims");
        }
        for (name, accepted) in claims {
            if accepted.is_empty() {
                empty(table, "claims");
            }
            match ClaimName::parse(&name) {
                Ok(name) => {
                    let accepted = accepted.into_iter().map(Into::into).collect();
                    add("claims", Test::Claim(name, accepted));
                }
                Err(expected) => {
                    table.problem(
                        "claims",
                        format!("`{name}` can't be used: {expected}"),
                        None,
                    );
                }
            }
        }
    }
    all
}

fn methods(table: &Table) -> Option<Condition> {
    let method = |text: &str| {
        let form = || {
            "expected a method in upper case, such as `GET`; never `CONNECT` or `TRACE`".to_owned()
        };
        let upper = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if upper && method != Method::CONNECT && method != Method::TRACE => {
                Ok(method)
            }
            Ok(_) | Err(_) => Err(form()),
        }
    };
    let methods = filled(table, "methods", method)?;
    Some(Condition {
        place: table.place_of("methods"),
        test: Test::Method(methods),
    })
}

/// A list that is not empty: an empty one would let nobody pass, or deny nobody, and look like
/// something else.
fn filled<T>(
    table: &Table,
    key: &'static str,
    parse: impl FnMut(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let found_before = table.problems().count();
    let list = table.list(key, parse)?;
    if list.is_empty() && table.problems().count() == found_before {
        empty(table, key);
    }
    Some(list)
}

fn empty(table: &Table, key: &'static str) {
    let hint = Some("leave it out to ask for none".to_owned());
    table.problem(
        key,
        format!("`{key}` has an empty list, which nothing can meet"),
        hint,
    );
}

fn who(text: &str) -> Result<Who, String> {
    match text {
        "public" => Ok(Who::Public),
        "signed-in" => Ok(Who::SignedIn),
        "nobody" => Ok(Who::Nobody),
        _ => Err("expected `signed-in`, `public` or `nobody`, or a table such as `{ groups = [\"staff\"] }`".to_owned()),
    }
}

fn fresh(text: &str) -> Result<Duration, String> {
    match unit::duration(text).map_err(|expected| format!("expected {expected}"))? {
        Duration::ZERO => Err("expected a duration of at least a second, such as `15m`".to_owned()),
        within => Ok(within),
    }
}

#[cfg(test)]
mod tests;
