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
//! | otherwise | passes |
//!
//! Doubt denies on both sides: what can't be read fulfils no condition and meets every `deny`
//! (cedar skips an erring policy, and with it an erring `forbid`).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::Value;

use crate::pure::identity::{Claims, User};

/// How far a sign-in may lie in the future: the clocks of an identity provider and of the gateway
/// differ by seconds, not by minutes.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Where a rule stands: file and line, as the operator sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

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
    /// The domain of the user's verified e-mail address.
    EmailDomain(Vec<EmailDomain>),
    /// A claim of the user, with the values that will do.
    Claim(ClaimName, Vec<Box<str>>),
    /// The method as sent, exactly: `GET` does not include `HEAD`.
    Method(Vec<Method>),
}

/// How fresh a sign-in must be, and where it is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// Where it stands.
    pub place: Place,
    /// The greatest age.
    pub within: Duration,
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
}

/// Decides whether what is asked may pass by `rule`.
pub fn decide<'r>(rule: &'r Rule, asked: &Asked<'_>) -> Verdict<'r> {
    let denied = |by, why| Verdict::Denied { by, why };
    for deny in &rule.denies {
        if deny
            .conditions
            .iter()
            .all(|c| c.test.read(asked) != Reading::No)
        {
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
            denies: Vec::new(),
        }
    }

    /// Whether nobody can pass without having signed in.
    pub const fn needs_sign_in(&self) -> bool {
        !matches!(self.who, Who::Public)
    }
}

/// What a test says: a third answer keeps what can't be read from counting as either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Yes,
    No,
    Unreadable,
}

impl From<bool> for Reading {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Test {
    fn read(&self, asked: &Asked<'_>) -> Reading {
        if let Self::Method(methods) = self {
            return methods.contains(asked.method).into();
        }
        let Some(user) = asked.user else {
            return Reading::No;
        };
        match self {
            Self::User(names) => is_one_of(&user.name, names).into(),
            Self::Provider(names) => is_one_of(&user.provider, names).into(),
            Self::Group(names) => user
                .groups
                .iter()
                .any(|group| is_one_of(group, names))
                .into(),
            Self::EmailDomain(domains) => match user.email.as_deref() {
                None => Reading::No,
                Some(email) => match email_domain(email) {
                    None => Reading::Unreadable,
                    Some(domain) => domains.iter().any(|d| d.is(domain)).into(),
                },
            },
            Self::Claim(name, accepted) => match name.values_in(&user.claims) {
                Err(Unreadable) => Reading::Unreadable,
                Ok(values) => values.iter().any(|value| is_one_of(value, accepted)).into(),
            },
            Self::Method(methods) => methods.contains(asked.method).into(),
        }
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
            Err("a domain such as `corp.example`, without `@` or `*`".to_owned())
        }
    }

    /// Whether `domain` is this very domain, not one below it.
    fn is(&self, domain: &str) -> bool {
        self.0.eq_ignore_ascii_case(domain)
    }
}

/// The domain of an address with exactly one `@`; none where two readers could differ
/// (CVE-2026-40574: `attacker@evil.test@corp.test`).
fn email_domain(email: &str) -> Option<&str> {
    let (local, domain) = email.split_once('@')?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"(),:;<>[\\]".contains(&b) || !b.is_ascii();
    (!local.is_empty() && local.bytes().all(plain) && is_domain(domain)).then_some(domain)
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
            return Err("a claim's name, such as `department` or `realm_access.roles`".to_owned());
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule lets anybody pass"),
            Self::SignedOut => f.write_str("nobody is signed in"),
            Self::Missing(condition) => write!(f, "needs {}", condition.test),
            Self::Stale(within) => write!(f, "needs a sign-in within {} s", within.as_secs()),
            Self::Deny(deny) if deny.conditions.is_empty() => f.write_str("denied to everybody"),
            Self::Deny(deny) => {
                f.write_str("denied to ")?;
                for (i, condition) in deny.conditions.iter().enumerate() {
                    let and = if i == 0 { "" } else { " and " };
                    write!(f, "{and}{}", condition.test)?;
                }
                Ok(())
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
            Self::EmailDomain(domains) => one_of(f, "e-mail at", domains.iter().map(|d| &d.0)),
            Self::Method(methods) => one_of(f, "method", methods.iter()),
            Self::Claim(name, accepted) => {
                write!(f, "claim `{name}` ")?;
                one_of(f, "of", accepted.iter())
            }
        }
    }
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
        if let Some(domain) = email_domain(text) {
            assert_eq!(text.bytes().filter(|b| *b == b'@').count(), 1);
            assert!(EmailDomain::parse(domain).is_ok_and(|parsed| parsed.is(domain)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn at(line: u32) -> Place {
        Place {
            file: "policies/wiki.toml".into(),
            line,
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    fn list(values: &[&str]) -> Vec<Box<str>> {
        values.iter().map(|v| (*v).into()).collect()
    }

    fn when(line: u32, test: Test) -> Condition {
        Condition {
            place: at(line),
            test,
        }
    }

    fn claim(name: &str, accepted: &[&str]) -> Test {
        Test::Claim(ClaimName::parse(name).unwrap(), list(accepted))
    }

    fn domains(names: &[&str]) -> Test {
        Test::EmailDomain(
            names
                .iter()
                .map(|n| EmailDomain::parse(n).unwrap())
                .collect(),
        )
    }

    fn signed_in(conditions: Vec<Condition>) -> Rule {
        Rule {
            who: Who::SignedIn,
            conditions,
            ..Rule::nobody(at(1))
        }
    }

    fn bob() -> User {
        User {
            name: "bob".into(),
            provider: "local".into(),
            email: Some("bob@corp.test".into()),
            groups: vec!["engineering".into(), "staff".into()],
            claims: Arc::new(Claims::new()),
            signed_in_at: now() - Duration::from_secs(600),
        }
    }

    fn claiming(claims: Value) -> User {
        let Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        User {
            claims: Arc::new(claims),
            ..bob()
        }
    }

    fn with_email(email: &str) -> User {
        User {
            email: Some(email.into()),
            ..bob()
        }
    }

    fn ask<'r>(rule: &'r Rule, user: Option<&User>, method: &Method) -> Verdict<'r> {
        decide(
            rule,
            &Asked {
                user,
                method,
                now: now(),
            },
        )
    }

    #[track_caller]
    fn passes(rule: &Rule, user: Option<&User>) {
        assert_eq!(
            ask(rule, user, &Method::GET),
            Verdict::Granted { by: &rule.place }
        );
    }

    #[track_caller]
    fn refused_at(rule: &Rule, user: Option<&User>, line: u32) {
        match ask(rule, user, &Method::GET) {
            Verdict::Denied { by, .. } => assert_eq!(by.line, line),
            Verdict::Granted { .. } => panic!("granted"),
        }
    }

    #[test]
    fn nothing_said_means_nobody() {
        let rule = Rule::nobody(at(7));
        let denied = Verdict::Denied {
            by: &rule.place,
            why: Why::NoRule,
        };
        assert_eq!(ask(&rule, Some(&bob()), &Method::GET), denied);
        assert_eq!(ask(&rule, None, &Method::GET), denied);
    }

    #[test]
    fn public_lets_everybody_pass() {
        let rule = Rule {
            who: Who::Public,
            ..Rule::nobody(at(1))
        };
        passes(&rule, None);
        passes(&rule, Some(&bob()));
        assert!(!rule.needs_sign_in());
    }

    #[test]
    fn signed_in_refuses_who_is_not() {
        let rule = signed_in(Vec::new());
        passes(&rule, Some(&bob()));
        let why = Why::SignedOut;
        let denied = Verdict::Denied {
            by: &rule.place,
            why,
        };
        assert_eq!(ask(&rule, None, &Method::GET), denied);
    }

    #[test]
    fn every_condition_must_hold_and_the_missing_one_is_named() {
        let rule = signed_in(vec![
            when(3, Test::Group(list(&["engineering"]))),
            when(4, Test::User(list(&["alice", "carol"]))),
        ]);
        let Verdict::Denied { by, why } = ask(&rule, Some(&bob()), &Method::GET) else {
            panic!("granted");
        };
        assert_eq!(by.to_string(), "policies/wiki.toml:4");
        assert_eq!(why.to_string(), "needs user `alice` or `carol`");
    }

    #[test]
    fn one_value_of_a_condition_is_enough() {
        passes(
            &signed_in(vec![when(2, Test::Group(list(&["ops", "staff"])))]),
            Some(&bob()),
        );
    }

    #[test]
    fn names_and_groups_match_exactly() {
        for test in [
            Test::User(list(&["Bob", "bob ", "bo"])),
            Test::Group(list(&["Engineering", "engineer", "staff/"])),
            Test::Provider(list(&["LOCAL"])),
        ] {
            refused_at(&signed_in(vec![when(2, test)]), Some(&bob()), 2);
        }
    }

    #[test]
    fn a_name_of_another_provider_is_another_person() {
        let rule = signed_in(vec![
            when(2, Test::User(list(&["bob"]))),
            when(3, Test::Provider(list(&["corp"]))),
        ]);
        refused_at(&rule, Some(&bob()), 3);
    }

    #[test]
    fn deny_beats_whatever_else_holds() {
        let mut rule = Rule {
            who: Who::Public,
            ..Rule::nobody(at(1))
        };
        let conditions = vec![when(9, Test::Group(list(&["staff"])))];
        rule.denies.push(Deny {
            place: at(8),
            conditions,
        });
        refused_at(&rule, Some(&bob()), 8);
        passes(&rule, None);
    }

    #[test]
    fn a_deny_needs_all_that_it_states() {
        let mut rule = signed_in(Vec::new());
        let conditions = vec![
            when(9, Test::Group(list(&["staff"]))),
            when(9, Test::Method(vec![Method::DELETE])),
        ];
        rule.denies.push(Deny {
            place: at(8),
            conditions,
        });
        passes(&rule, Some(&bob()));
        let Verdict::Denied { why, .. } = ask(&rule, Some(&bob()), &Method::DELETE) else {
            panic!("granted");
        };
        assert_eq!(
            why.to_string(),
            "denied to group `staff` and method `DELETE`"
        );
    }

    #[test]
    fn a_deny_without_conditions_refuses_everybody() {
        let mut rule = Rule {
            who: Who::Public,
            ..Rule::nobody(at(1))
        };
        rule.denies.push(Deny {
            place: at(5),
            conditions: Vec::new(),
        });
        refused_at(&rule, None, 5);
    }

    #[test]
    fn what_cannot_be_read_meets_a_deny() {
        let mut rule = signed_in(Vec::new());
        let conditions = vec![when(9, claim("status", &["suspended"]))];
        rule.denies.push(Deny {
            place: at(8),
            conditions,
        });
        passes(&rule, Some(&claiming(json!({}))));
        passes(&rule, Some(&claiming(json!({"status": "active"}))));
        refused_at(&rule, Some(&claiming(json!({"status": "suspended"}))), 8);
        refused_at(
            &rule,
            Some(&claiming(json!({"status": {"is": "suspended"}}))),
            8,
        );
        refused_at(&rule, Some(&claiming(json!({"status": null}))), 8);
    }

    #[test]
    fn methods_are_told_apart_exactly() {
        let mut rule = Rule {
            who: Who::Public,
            ..Rule::nobody(at(1))
        };
        rule.conditions
            .push(when(2, Test::Method(vec![Method::GET])));
        passes(&rule, None);
        for other in ["get", "HEAD", "POST", "GETS"] {
            let method = Method::from_bytes(other.as_bytes()).unwrap();
            let Verdict::Denied { why, .. } = ask(&rule, None, &method) else {
                panic!("granted {other}");
            };
            assert_eq!(why.to_string(), "needs method `GET`");
        }
    }

    #[test]
    fn claims_are_compared_by_value() {
        let rule = signed_in(vec![when(2, claim("dept", &["research", "7", "true"]))]);
        for good in [
            json!("research"),
            json!(["sales", "research"]),
            json!(7),
            json!(true),
        ] {
            passes(&rule, Some(&claiming(json!({"dept": good}))));
        }
        for bad in [
            json!("Research"),
            json!("sales"),
            json!([]),
            json!(7.0),
            json!(null),
            json!({"research": true}),
            json!(["research", {}]),
        ] {
            refused_at(&rule, Some(&claiming(json!({"dept": bad}))), 2);
        }
        refused_at(&rule, Some(&claiming(json!({}))), 2);
    }

    #[test]
    fn a_dot_in_a_claims_name_goes_one_level_down() {
        let rule = signed_in(vec![when(2, claim("realm_access.roles", &["admin"]))]);
        passes(
            &rule,
            Some(&claiming(json!({"realm_access": {"roles": ["admin"]}}))),
        );
        passes(
            &rule,
            Some(&claiming(json!({"realm_access.roles": "admin"}))),
        );
        refused_at(
            &rule,
            Some(&claiming(json!({"realm_access": ["roles", "admin"]}))),
            2,
        );
        refused_at(&rule, Some(&claiming(json!({"roles": "admin"}))), 2);
    }

    #[test]
    fn two_claims_of_one_name_are_no_claim() {
        let rule = signed_in(vec![when(2, claim("a.b", &["x"]))]);
        refused_at(
            &rule,
            Some(&claiming(json!({"a.b": "x", "a": {"b": "x"}}))),
            2,
        );
    }

    #[test]
    fn a_claim_named_by_a_uri_is_taken_as_it_stands() {
        let rule = signed_in(vec![when(2, claim("https://corp.example/roles", &["x"]))]);
        passes(
            &rule,
            Some(&claiming(json!({"https://corp.example/roles": ["x"]}))),
        );
        refused_at(
            &rule,
            Some(&claiming(json!({"https://corp": {"example/roles": "x"}}))),
            2,
        );
    }

    #[test]
    fn j1_an_email_counts_by_the_domain_after_its_only_at_sign() {
        let rule = signed_in(vec![when(2, domains(&["corp.test"]))]);
        for good in [
            "a@corp.test",
            "a@CORP.TEST",
            "a.b+c@corp.test",
            "jürgen@corp.test",
        ] {
            passes(&rule, Some(&with_email(good)));
        }
        for bad in [
            "attacker@evil.test@corp.test",
            "a@corp.test@evil.test",
            "\"x@evil.test\"@corp.test",
            "\"x\"@corp.test",
            "a@corp.test ",
            " a@corp.test",
            "a@ corp.test",
            "a@corp.test\0",
            "a@corp.test.",
            "a@sub.corp.test",
            "a@evilcorp.test",
            "a@corp.test,b@evil.test",
            "<a@corp.test>",
            "@corp.test",
            "corp.test",
            "a@",
            "",
        ] {
            refused_at(&rule, Some(&with_email(bad)), 2);
        }
        refused_at(
            &rule,
            Some(&User {
                email: None,
                ..bob()
            }),
            2,
        );
    }

    #[test]
    fn an_unreadable_email_meets_a_deny_by_domain() {
        let mut rule = signed_in(Vec::new());
        let conditions = vec![when(9, domains(&["evil.test"]))];
        rule.denies.push(Deny {
            place: at(8),
            conditions,
        });
        passes(&rule, Some(&bob()));
        refused_at(&rule, Some(&with_email("a@evil.test@corp.test")), 8);
        refused_at(&rule, Some(&with_email("a@EVIL.test")), 8);
    }

    #[test]
    fn a_domain_in_a_policy_is_a_plain_domain() {
        for bad in [
            "@corp.test",
            "*.corp.test",
            "corp..test",
            "",
            ".corp.test",
            "corp.test.",
            "é.test",
        ] {
            assert!(EmailDomain::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_old_sign_in_is_refused_last() {
        let freshness = |secs| {
            let within = Duration::from_secs(secs);
            Some(Freshness {
                place: at(6),
                within,
            })
        };
        let mut rule = signed_in(Vec::new());
        rule.signed_in_within = freshness(600);
        passes(&rule, Some(&bob()));
        rule.signed_in_within = freshness(599);
        let why = Why::Stale(Duration::from_secs(599));
        let stale = Verdict::Denied { by: &at(6), why };
        assert_eq!(ask(&rule, Some(&bob()), &Method::GET), stale);
        rule.conditions.push(when(3, Test::User(list(&["alice"]))));
        refused_at(&rule, Some(&bob()), 3);
    }

    #[test]
    fn a_sign_in_in_the_future_is_not_fresh() {
        let mut rule = signed_in(Vec::new());
        let within = Duration::from_secs(900);
        rule.signed_in_within = Some(Freshness {
            place: at(6),
            within,
        });
        let ahead = |d| User {
            signed_in_at: now() + d,
            ..bob()
        };
        passes(&rule, Some(&ahead(CLOCK_SKEW)));
        refused_at(&rule, Some(&ahead(CLOCK_SKEW + Duration::from_secs(1))), 6);
    }

    #[test]
    fn freshness_asks_for_a_user_even_where_a_rule_is_public() {
        let mut rule = Rule {
            who: Who::Public,
            ..Rule::nobody(at(1))
        };
        let within = Duration::from_secs(900);
        rule.signed_in_within = Some(Freshness {
            place: at(6),
            within,
        });
        refused_at(&rule, None, 6);
    }

    /// The doc at the head of this file, spelled out without early returns or shared helpers.
    fn naive(rule: &Rule, asked: &Asked<'_>) -> bool {
        let holds = |test: &Test| -> Option<bool> {
            match (test, asked.user) {
                (Test::Method(list), _) => Some(list.iter().any(|m| m == asked.method)),
                (_, None) => Some(false),
                (Test::User(list), Some(u)) => Some(list.iter().any(|n| **n == *u.name)),
                (Test::Provider(list), Some(u)) => Some(list.iter().any(|n| **n == *u.provider)),
                (Test::Group(list), Some(u)) => {
                    Some(list.iter().any(|n| u.groups.iter().any(|g| **g == **n)))
                }
                (Test::EmailDomain(list), Some(u)) => match u.email.as_deref() {
                    None => Some(false),
                    Some(e) if e.matches('@').count() != 1 => None,
                    Some(e) => Some(list.iter().any(|d| e.ends_with(&format!("@{}", d.0)))),
                },
                (Test::Claim(name, list), Some(u)) => match u.claims.get(&*name.0) {
                    None => Some(false),
                    Some(Value::String(s)) => Some(list.iter().any(|n| **n == **s)),
                    Some(_) => None,
                },
            }
        };
        let denied = rule.denies.iter().any(|deny| {
            deny.conditions
                .iter()
                .all(|c| holds(&c.test) != Some(false))
        });
        let wanted = match rule.who {
            Who::Nobody => false,
            Who::Public => true,
            Who::SignedIn => asked.user.is_some(),
        };
        let all = rule.conditions.iter().all(|c| holds(&c.test) == Some(true));
        let fresh = rule.signed_in_within.as_ref().is_none_or(|f| {
            asked
                .user
                .is_some_and(|u| u.signed_in_at + f.within >= asked.now)
        });
        !denied && wanted && all && fresh
    }

    fn names() -> impl Strategy<Value = Vec<Box<str>>> {
        proptest::collection::vec("[abc]".prop_map(String::into_boxed_str), 1..3)
    }

    fn a_test() -> impl Strategy<Value = Test> {
        prop_oneof![
            names().prop_map(Test::User),
            names().prop_map(Test::Provider),
            names().prop_map(Test::Group),
            "[ab]\\.test".prop_map(|d| Test::EmailDomain(vec![EmailDomain::parse(&d).unwrap()])),
            ("[ab]", names())
                .prop_map(|(n, list)| Test::Claim(ClaimName::parse(&n).unwrap(), list)),
            Just(Test::Method(vec![Method::GET])),
            Just(Test::Method(vec![Method::POST, Method::PUT])),
        ]
    }

    fn conditions() -> impl Strategy<Value = Vec<Condition>> {
        proptest::collection::vec(a_test().prop_map(|test| when(2, test)), 0..3)
    }

    fn a_deny() -> impl Strategy<Value = Deny> {
        conditions().prop_map(|conditions| Deny {
            place: at(3),
            conditions,
        })
    }

    fn a_rule() -> impl Strategy<Value = Rule> {
        let who = prop_oneof![Just(Who::Nobody), Just(Who::Public), Just(Who::SignedIn)];
        let within = proptest::option::of(0_u64..20).prop_map(|within| {
            let within = Duration::from_secs(within?);
            Some(Freshness {
                place: at(4),
                within,
            })
        });
        (
            who,
            conditions(),
            within,
            proptest::collection::vec(a_deny(), 0..2),
        )
            .prop_map(|(who, conditions, signed_in_within, denies)| Rule {
                place: at(1),
                who,
                conditions,
                signed_in_within,
                denies,
            })
    }

    fn a_user() -> impl Strategy<Value = Option<User>> {
        let email = proptest::option::of("[ab](@[ab]\\.test){0,2}");
        let groups = proptest::collection::vec("[abc]", 0..3);
        let value = prop_oneof![
            "[abc]".prop_map(Value::from),
            Just(Value::Null),
            Just(json!({"a": "b"})),
        ];
        let claims = proptest::collection::hash_map("[ab]", value, 0..3);
        let user = ("[abc]", "[abc]", email, groups, claims, 0_u64..20).prop_map(
            |(name, provider, email, groups, claims, age)| User {
                name: name.into(),
                provider: provider.into(),
                email: email.map(Into::into),
                groups: groups.into_iter().map(Into::into).collect(),
                claims: Arc::new(claims.into_iter().collect()),
                signed_in_at: now() - Duration::from_secs(age),
            },
        );
        proptest::option::of(user)
    }

    fn a_method() -> impl Strategy<Value = Method> {
        prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::DELETE)]
    }

    fn granted(rule: &Rule, user: Option<&User>, method: &Method) -> bool {
        matches!(ask(rule, user, method), Verdict::Granted { .. })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn equal_to_a_naive_interpreter(rule in a_rule(), user in a_user(), method in a_method()) {
            let asked = Asked { user: user.as_ref(), method: &method, now: now() };
            prop_assert_eq!(granted(&rule, user.as_ref(), &method), naive(&rule, &asked));
        }

        #[test]
        fn adding_a_deny_never_grants(
            rule in a_rule(), deny in a_deny(), user in a_user(), method in a_method(),
        ) {
            let mut stricter = rule.clone();
            stricter.denies.push(deny);
            let before = granted(&rule, user.as_ref(), &method);
            prop_assert!(before || !granted(&stricter, user.as_ref(), &method));
        }

        #[test]
        fn adding_a_condition_never_grants(
            rule in a_rule(), test in a_test(), user in a_user(), method in a_method(),
        ) {
            let mut stricter = rule.clone();
            stricter.conditions.push(when(5, test));
            let before = granted(&rule, user.as_ref(), &method);
            prop_assert!(before || !granted(&stricter, user.as_ref(), &method));
        }

        #[test]
        fn no_rule_grants_nothing(rule in a_rule(), user in a_user(), method in a_method()) {
            let rule = Rule { who: Who::Nobody, ..rule };
            prop_assert!(!granted(&rule, user.as_ref(), &method));
        }

        #[test]
        fn the_fuzz_body_holds(text in "[a-c.@/: ]{0,12}") {
            fuzzing::access(text.as_bytes());
        }
    }
}
