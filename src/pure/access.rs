//! Who may pass: rules to a verdict that names the line which decided and what was missing.
//!
//! | when | then |
//! |---|---|
//! | no rule says anything | nobody passes |
//! | every condition of one `deny` holds, or can't be read | refused, whatever else holds |
//! | the rule is `public` | everybody passes who meets its other conditions |
//! | nobody is signed in | refused |
//! | a condition does not hold, or can't be read | refused; within one condition any value does |
//! | the sign-in is older than `signed_in_within`, or in the future | refused |
//! | the sign-in was in none of the contexts of `acr` | refused |
//! | otherwise | passes |
//!
//! Doubt denies on both sides: what can't be read fulfils no condition and meets every `deny`
//! (cedar skips an erring policy, and with it an erring `forbid`). Conditions within conditions are
//! read by three-valued logic: what can't be read stays so under `not`, and decides nothing that
//! the others in an `any` or an `all` decide whichever it is. What is absent can be read: it is
//! nobody's name, and no value.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::Value;

use crate::pure::certificate::Name;
use crate::pure::cidr;
use crate::pure::connection::ClientCertificate;
use crate::pure::identity::{Claims, User};
use crate::pure::pattern::Pattern;
use crate::pure::table::Place;

/// How far a sign-in may lie in the future: the clocks of an identity provider and of the gateway
/// differ by seconds, not by minutes.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What a policy says about who may pass at one path.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Where it stands.
    pub place: Place,
    /// Whom it is about at all.
    pub who: Who,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// How fresh the sign-in must be.
    pub signed_in_within: Option<Freshness>,
    /// How the user must have signed in.
    pub acr: Option<Contexts>,
    /// Each of these refuses, whatever else holds.
    pub denies: Vec<Deny>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Nobody: nothing was said.
    Nobody,
    /// Everybody, signed in or not.
    Public,
    /// Everybody who is signed in.
    SignedIn,
}

/// One thing that must hold, and where it is said.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Where it stands.
    pub place: Place,
    /// What must hold.
    pub test: Test,
}

/// What can be asked of a request; any one value of a list will do.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The user's name, exactly.
    User(Vec<Box<str>>),
    /// The sign-in method that vouches for the user: a name means nothing without it where an
    /// application takes several.
    Provider(Vec<Box<str>>),
    /// A group the user is in, exactly.
    Group(Vec<Box<str>>),
    /// The user's verified e-mail address.
    Email(Vec<EmailAddress>),
    /// The domain of the user's verified e-mail address.
    EmailDomain(Vec<EmailDomain>),
    /// A claim of the user, with the values that will do.
    Claim(ClaimName, Vec<Box<str>>),
    /// A scope that the user's token was given.
    Scope(Vec<Box<str>>),
    /// The method as sent, exactly: `GET` does not include `HEAD`.
    Method(Vec<Method>),
    /// The client's address, as `network` resolved it.
    Network(cidr::Set),
    /// The canonical path.
    Path(Paths),
    /// A name or the fingerprint of the certificate that the client showed.
    Certificate(Vec<Name>),
    /// One of these lists holds, each all of its conditions.
    Any(Vec<Vec<Condition>>),
    /// Every one of these lists holds.
    All(Vec<Vec<Condition>>),
    /// Not all of these hold.
    Not(Vec<Condition>),
}

/// Paths, and how they are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Any of these will do.
    pub patterns: Vec<Pattern>,
    /// Whether the application's backends ignore the case of paths.
    pub ignore_case: bool,
}

/// How fresh a sign-in must be, and where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Where it stands.
    pub place: Place,
    /// The greatest age.
    pub within: Duration,
}

/// The authentication contexts of which the sign-in must have been in one, and where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contexts {
    /// Where it stands.
    pub place: Place,
    /// Any of these will do, as `acr` names them.
    pub accepted: Vec<Box<str>>,
}

/// Conditions that, all met, refuse; without any it refuses always.
#[derive(Debug, Clone, PartialEq)]
pub struct Deny {
    /// Where it stands.
    pub place: Place,
    /// All of these must hold for it to refuse.
    pub conditions: Vec<Condition>,
}

/// What a verdict is about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who asks, when somebody is signed in.
    pub user: Option<&'a User>,
    /// The method as sent.
    pub method: &'a Method,
    /// The canonical path.
    pub path: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// The certificate that the client showed, when it verified.
    pub certificate: Option<&'a ClientCertificate>,
    /// When it is asked.
    pub now: SystemTime,
}

/// Yes or no, by which line, and why not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'r> {
    /// The request may pass.
    Granted {
        /// The rule that lets it.
        by: &'r Place,
    },
    /// The request may not pass.
    Denied {
        /// The line that decided.
        by: &'r Place,
        /// What was missing.
        why: Why<'r>,
    },
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why<'r> {
    /// No rule lets anybody pass.
    NoRule,
    /// Nobody is signed in.
    SignedOut,
    /// All that a `deny` states holds.
    Deny(&'r Deny),
    /// This condition does not hold.
    Missing(&'r Condition),
    /// The sign-in is older than this.
    Stale(Duration),
    /// The sign-in was in none of these contexts.
    Weak(&'r Contexts),
}

/// Decides whether what is asked may pass by `rule`.
pub fn decide<'r>(rule: &'r Rule, asked: &Asked<'_>) -> Verdict<'r> {
    let denied = |by, why| Verdict::Denied { by, why };
    for deny in &rule.denies {
        if all(&deny.conditions, asked) != Reading::No {
            return denied(&deny.place, Why::Deny(deny));
        }
    }
    match rule.who {
        Who::Nobody => return denied(&rule.place, Why::NoRule),
        Who::SignedIn if asked.user.is_none() => return denied(&rule.place, Why::SignedOut),
        Who::Public | Who::SignedIn => {}
    }
    for condition in &rule.conditions {
        if condition.test.read(asked) != Reading::Yes {
            return denied(&condition.place, Why::Missing(condition));
        }
    }
    // Last, so that nobody is asked to sign in again who may not pass anyway.
    if let Some(Freshness { place, within }) = &rule.signed_in_within {
        match asked.user {
            None => return denied(place, Why::SignedOut),
            Some(user) if !is_fresh(user, *within, asked.now) => {
                return denied(place, Why::Stale(*within));
            }
            Some(_) => {}
        }
    }
    if let Some(contexts) = &rule.acr {
        match asked.user {
            None => return denied(&contexts.place, Why::SignedOut),
            Some(user) if !contexts.have(user) => {
                return denied(&contexts.place, Why::Weak(contexts));
            }
            Some(_) => {}
        }
    }
    Verdict::Granted { by: &rule.place }
}

impl Rule {
    /// A rule that lets nobody pass: what a policy says that says nothing.
    pub const fn nobody(place: Place) -> Self {
        Self {
            place,
            who: Who::Nobody,
            conditions: Vec::new(),
            signed_in_within: None,
            acr: None,
            denies: Vec::new(),
        }
    }

    /// Whether nobody can pass without having signed in.
    pub const fn needs_sign_in(&self) -> bool {
        !matches!(self.who, Who::Public)
    }
}

/// The conditions of a rule that a request does not meet, or that can't be read of it.
pub fn unmet<'r>(rule: &'r Rule, asked: &Asked<'_>) -> Vec<&'r Condition> {
    let unmet = |condition: &&Condition| condition.test.read(asked) != Reading::Yes;
    rule.conditions.iter().filter(unmet).collect()
}

/// What a test says: a third answer keeps what can't be read from counting as either. In this order
/// `all` is the least and `any` the greatest (Kleene).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    No,
    Unreadable,
    Yes,
}

impl Reading {
    const fn opposite(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unreadable => Self::Unreadable,
            Self::Yes => Self::No,
        }
    }
}

fn all(conditions: &[Condition], asked: &Asked<'_>) -> Reading {
    let readings = conditions
        .iter()
        .map(|condition| condition.test.read(asked));
    readings.min().unwrap_or(Reading::Yes)
}

impl From<bool> for Reading {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Test {
    /// Whether the test is, anywhere in it, about who is signed in.
    pub fn is_on_user(&self) -> bool {
        let any = |list: &Vec<Condition>| list.iter().any(|one| one.test.is_on_user());
        match self {
            Self::User(_)
            | Self::Provider(_)
            | Self::Group(_)
            | Self::Email(_)
            | Self::EmailDomain(_)
            | Self::Claim(..)
            | Self::Scope(_) => true,
            Self::Method(_) | Self::Network(_) | Self::Path(_) | Self::Certificate(_) => false,
            Self::Any(lists) | Self::All(lists) => lists.iter().any(any),
            Self::Not(list) => any(list),
        }
    }

    /// Whether the test names who may pass: one that only excludes says nothing of the others.
    pub fn names_users(&self) -> bool {
        let any = |list: &Vec<Condition>| list.iter().any(|one| one.test.names_users());
        match self {
            Self::Any(lists) | Self::All(lists) => lists.iter().any(any),
            Self::Not(_) => false,
            Self::User(_)
            | Self::Provider(_)
            | Self::Group(_)
            | Self::Email(_)
            | Self::EmailDomain(_)
            | Self::Claim(..)
            | Self::Scope(_)
            | Self::Method(_)
            | Self::Network(_)
            | Self::Path(_)
            | Self::Certificate(_) => self.is_on_user(),
        }
    }

    fn read(&self, asked: &Asked<'_>) -> Reading {
        match self {
            Self::Method(methods) => methods.contains(asked.method).into(),
            Self::Network(networks) => networks.contains(asked.client).into(),
            Self::Path(paths) => paths.have(asked.path).into(),
            Self::Certificate(accepted) => match asked.certificate {
                None => Reading::No,
                Some(certificate) => shows(certificate, accepted),
            },
            Self::Any(lists) => {
                let readings = lists.iter().map(|list| all(list, asked));
                readings.max().unwrap_or(Reading::No)
            }
            Self::All(lists) => {
                let readings = lists.iter().map(|list| all(list, asked));
                readings.min().unwrap_or(Reading::Yes)
            }
            Self::Not(list) => all(list, asked).opposite(),
            Self::User(_)
            | Self::Provider(_)
            | Self::Group(_)
            | Self::Email(_)
            | Self::EmailDomain(_)
            | Self::Claim(..)
            | Self::Scope(_) => asked.user.map_or(Reading::No, |user| self.read_user(user)),
        }
    }

    fn read_user(&self, user: &User) -> Reading {
        match self {
            Self::User(names) => is_one_of(&user.name, names).into(),
            Self::Provider(names) => is_one_of(&user.provider, names).into(),
            Self::Group(names) => user
                .groups
                .iter()
                .any(|group| is_one_of(group, names))
                .into(),
            Self::Email(addresses) => read_email(user, |email| {
                addresses.iter().any(|address| address.is(email))
            }),
            Self::EmailDomain(domains) => {
                read_email(user, |email| domains.iter().any(|d| d.is(email.domain)))
            }
            Self::Claim(name, accepted) => match name.values_in(&user.claims) {
                Err(Unreadable) => Reading::Unreadable,
                Ok(values) => values.iter().any(|value| is_one_of(value, accepted)).into(),
            },
            Self::Scope(accepted) => match scopes(&user.claims) {
                Err(Unreadable) => Reading::Unreadable,
                Ok(scopes) => scopes.iter().any(|scope| is_one_of(scope, accepted)).into(),
            },
            // Not of the user: `read` has answered these.
            Self::Method(_)
            | Self::Network(_)
            | Self::Path(_)
            | Self::Certificate(_)
            | Self::Any(_)
            | Self::All(_)
            | Self::Not(_) => Reading::Unreadable,
        }
    }
}

impl Contexts {
    /// Whether the user signed in in one of these.
    fn have(&self, user: &User) -> bool {
        let acr = user.claims.get("acr").and_then(Value::as_str);
        acr.is_some_and(|acr| is_one_of(acr, &self.accepted))
    }
}

impl Paths {
    fn have(&self, path: &str) -> bool {
        let matches = |pattern: &Pattern| pattern.matches(path, self.ignore_case).is_some();
        self.patterns.iter().any(matches)
    }
}

fn shows(certificate: &ClientCertificate, accepted: &[Name]) -> Reading {
    let by_name = |name: &Name| match (name, &certificate.names) {
        (Name::Fingerprint(digits), _) => (**digits == *certificate.fingerprint).into(),
        (_, Ok(names)) => names.contains(name).into(),
        (_, Err(_)) => Reading::Unreadable,
    };
    accepted.iter().map(by_name).max().unwrap_or(Reading::No)
}

fn read_email(user: &User, is_accepted: impl FnOnce(Address<'_>) -> bool) -> Reading {
    match user.email.as_deref() {
        None => Reading::No,
        Some(email) => match Address::read(email) {
            None => Reading::Unreadable,
            Some(address) => is_accepted(address).into(),
        },
    }
}

fn is_one_of(value: &str, list: &[Box<str>]) -> bool {
    list.iter().any(|one| **one == *value)
}

fn is_fresh(user: &User, within: Duration, now: SystemTime) -> bool {
    match now.duration_since(user.signed_in_at) {
        Ok(age) => age <= within,
        Err(ahead) => ahead.duration() <= CLOCK_SKEW,
    }
}

/// A domain of e-mail addresses, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailDomain(Box<str>);

impl EmailDomain {
    /// Reads a domain as a policy states it: `corp.example`, without `@` or wildcard.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_domain(text) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err("expected a domain such as `corp.example`, without `@` or `*`".to_owned())
        }
    }

    /// Whether `domain` is this very domain, not one below it.
    fn is(&self, domain: &str) -> bool {
        self.0.eq_ignore_ascii_case(domain)
    }
}

/// An e-mail address, its domain in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmailAddress {
    local: Box<str>,
    domain: EmailDomain,
}

impl EmailAddress {
    /// Reads an address as a policy states it: `alice@corp.example`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let address =
            Address::read(text).ok_or("expected an address such as `alice@corp.example`")?;
        Ok(Self {
            local: address.local.into(),
            domain: EmailDomain::parse(address.domain)?,
        })
    }

    /// Only a domain is without case (RFC 5321 §2.4).
    fn is(&self, address: Address<'_>) -> bool {
        *self.local == *address.local && self.domain.is(address.domain)
    }
}

impl fmt::Display for EmailDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// An address with exactly one `@`; none where two readers could differ
/// (CVE-2026-40574: `attacker@evil.test@corp.test`).
#[derive(Debug, Clone, Copy)]
struct Address<'a> {
    local: &'a str,
    domain: &'a str,
}

impl<'a> Address<'a> {
    fn read(email: &'a str) -> Option<Self> {
        let (local, domain) = email.split_once('@')?;
        let plain = |b: u8| b.is_ascii_graphic() && !b"\"(),:;<>[\\]".contains(&b) || !b.is_ascii();
        let reads = !local.is_empty() && local.bytes().all(plain) && is_domain(domain);
        reads.then_some(Self { local, domain })
    }
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            (1..=63).contains(&bytes.len())
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && bytes.first() != Some(&b'-')
                && bytes.last() != Some(&b'-')
        })
}

/// The name of a claim: `department`, or `realm_access.roles` for one inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimName(Box<str>);

/// A claim that is there, but says nothing a rule could compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreadable;

impl ClaimName {
    /// Reads a claim's name; a dot goes one level down. Names such as
    /// `https://corp.example/roles` are taken as they stand.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nested = !text.contains(['/', ':']);
        if text.is_empty() || text.len() > 256 || nested && text.split('.').any(str::is_empty) {
            return Err(
                "expected a claim's name, such as `department` or `realm_access.roles`".to_owned(),
            );
        }
        Ok(Self(text.into()))
    }

    /// The values the claim has, none when it is absent. Booleans and whole numbers count by their
    /// JSON spelling.
    fn values_in<'c>(&self, claims: &'c Claims) -> Result<Vec<Cow<'c, str>>, Unreadable> {
        let literal = claims.get(&*self.0);
        let nested = if self.0.contains('.') && !self.0.contains(['/', ':']) {
            self.descend(claims)?
        } else {
            None
        };
        match (literal, nested) {
            (None, None) => Ok(Vec::new()),
            (Some(value), None) | (None, Some(value)) => values_of(value),
            // Two claims answer to one name: which one is meant is anybody's guess.
            (Some(_), Some(_)) => Err(Unreadable),
        }
    }

    fn descend<'c>(&self, claims: &'c Claims) -> Result<Option<&'c Value>, Unreadable> {
        let mut levels = self.0.split('.');
        let mut at = levels.next().and_then(|first| claims.get(first));
        for level in levels {
            let Some(value) = at else { return Ok(None) };
            let Value::Object(inner) = value else {
                return Err(Unreadable);
            };
            at = inner.get(level);
        }
        Ok(at)
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The claims in which issuers list the scopes of a token: one text (RFC 9068 §2.2.3), or a list.
const SCOPE_CLAIMS: [&str; 3] = ["scope", "scp", "scopes"];

/// The scopes that the user's token was given, none where it says nothing of them.
fn scopes(claims: &Claims) -> Result<Vec<&str>, Unreadable> {
    let mut said = SCOPE_CLAIMS.iter().filter_map(|name| claims.get(*name));
    let Some(value) = said.next() else {
        return Ok(Vec::new());
    };
    // Two claims, one meaning: which one counts is anybody's guess.
    if said.next().is_some() {
        return Err(Unreadable);
    }
    match value {
        Value::String(text) => Ok(text.split(' ').filter(|scope| !scope.is_empty()).collect()),
        Value::Array(list) => {
            let scope = |one: &'_ Value| one.as_str().is_some_and(|one| !one.contains(' '));
            if !list.iter().all(scope) {
                return Err(Unreadable);
            }
            Ok(list.iter().filter_map(Value::as_str).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Err(Unreadable),
    }
}

fn values_of(value: &Value) -> Result<Vec<Cow<'_, str>>, Unreadable> {
    match value {
        Value::Array(values) => values.iter().map(value_of).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Ok(vec![value_of(value)?])
        }
    }
}

fn value_of(value: &Value) -> Result<Cow<'_, str>, Unreadable> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Bool(true) => Ok(Cow::Borrowed("true")),
        Value::Bool(false) => Ok(Cow::Borrowed("false")),
        Value::Number(n) if n.is_i64() || n.is_u64() => Ok(Cow::Owned(n.to_string())),
        Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => Err(Unreadable),
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule lets anybody pass"),
            Self::SignedOut => f.write_str("nobody is signed in"),
            Self::Missing(condition) => write!(f, "needs {}", condition.test),
            Self::Stale(within) => write!(f, "needs a sign-in within {} s", within.as_secs()),
            Self::Weak(contexts) => {
                one_of(f, "needs a sign-in in context", contexts.accepted.iter())
            }
            Self::Deny(deny) if deny.conditions.is_empty() => f.write_str("denied to everybody"),
            Self::Deny(deny) => {
                f.write_str("denied to ")?;
                joined(f, &deny.conditions)
            }
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(names) => one_of(f, "user", names.iter()),
            Self::Provider(names) => one_of(f, "sign-in by", names.iter()),
            Self::Group(names) => one_of(f, "group", names.iter()),
            Self::EmailDomain(domains) => one_of(f, "e-mail at", domains.iter()),
            Self::Email(addresses) => one_of(f, "e-mail", addresses.iter()),
            Self::Method(methods) => one_of(f, "method", methods.iter()),
            Self::Network(networks) => one_of(f, "client in", networks.networks().iter()),
            Self::Path(paths) => one_of(f, "path", paths.patterns.iter()),
            Self::Certificate(names) => one_of(f, "client certificate", names.iter()),
            Self::Claim(name, accepted) => {
                write!(f, "claim `{name}` ")?;
                one_of(f, "of", accepted.iter())
            }
            Self::Scope(names) => one_of(f, "scope", names.iter()),
            Self::Any(lists) => lists_of(f, "any of", lists),
            Self::All(lists) => lists_of(f, "all of", lists),
            Self::Not(list) => {
                f.write_str("not (")?;
                joined(f, list)?;
                f.write_str(")")
            }
        }
    }
}

fn lists_of(f: &mut fmt::Formatter<'_>, what: &str, lists: &[Vec<Condition>]) -> fmt::Result {
    f.write_str(what)?;
    lists.iter().try_for_each(|list| {
        f.write_str(" (")?;
        joined(f, list)?;
        f.write_str(")")
    })
}

fn joined(f: &mut fmt::Formatter<'_>, conditions: &[Condition]) -> fmt::Result {
    for (i, condition) in conditions.iter().enumerate() {
        let and = if i == 0 { "" } else { " and " };
        write!(f, "{and}{}", condition.test)?;
    }
    Ok(())
}

fn one_of(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    values: impl Iterator<Item = impl fmt::Display>,
) -> fmt::Result {
    f.write_str(what)?;
    for (i, value) in values.enumerate() {
        let or = if i == 0 { "" } else { " or" };
        write!(f, "{or} `{value}`")?;
    }
    Ok(())
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// Names of claims, and addresses: whatever parses prints as it was written, and one domain
    /// at most is read out of an address.
    pub fn access(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(name) = ClaimName::parse(text) {
            assert_eq!(name.to_string(), text);
        }
        if let Some(address) = Address::read(text) {
            let domain = address.domain;
            assert_eq!(text.bytes().filter(|b| *b == b'@').count(), 1);
            assert!(EmailDomain::parse(domain).is_ok_and(|parsed| parsed.is(domain)));
            assert!(EmailAddress::parse(text).is_ok_and(|parsed| parsed.is(address)));
        }
    }
}

#[cfg(test)]
mod tests;
