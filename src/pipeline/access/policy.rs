//! `[access]` as written.

use std::time::Duration;

use http::Method;

use super::Rule;
use crate::identity::provider::{Methods, named};
use crate::pure::access::{
    ClaimName, Condition, Contexts, Deny, EmailAddress, EmailDomain, Freshness, Paths,
    Rule as Conditions, Test, Who,
};
use crate::pure::certificate::Name;
use crate::pure::cidr;
use crate::pure::pattern::Pattern;
use crate::pure::table::{Key, Table};
use crate::pure::target::Oddities;
use crate::pure::unit;

/// Bytes of authentication contexts, which are asked for in a URL.
const MOST_CONTEXTS: usize = 1024;

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        doc,
    }
}

const WHO: Key = key(
    "who",
    "`\"signed-in\"`, `\"public\"` or `\"nobody\"`",
    "signed in and meeting the conditions below",
    "Whom the rule is about. `access = \"public\"` is short for a table with this key alone. Needed where no condition says who may pass: `networks` alone, say, or a `not`.",
);
const USERS: Key = key(
    "users",
    "list of names",
    "any",
    "The user has one of these names, exactly. With several sign-in methods, say `providers`, too.",
);
const PROVIDERS: Key = key(
    "providers",
    "list of names",
    "any",
    "One of these sign-in methods vouches for the user.",
);
const GROUPS: Key = key(
    "groups",
    "list of names",
    "any",
    "The user is in one of these groups.",
);
const EMAILS: Key = key(
    "emails",
    "list of addresses",
    "any",
    "The user's verified e-mail address is one of these; only the case of its domain is ignored. With several sign-in methods, say `providers`, too. An address with more than one `@` can't be read.",
);
const EMAIL_DOMAINS: Key = key(
    "email_domains",
    "list of domains",
    "any",
    "The user's verified e-mail address is at one of these domains, not at one below it. An address with more than one `@` can't be read.",
);
const CLAIMS: Key = key(
    "claims",
    "table of lists",
    "any",
    "Each claim named has one of its values: `claims = { department = [\"research\"], \"realm_access.roles\" = [\"admin\"] }`. A dot goes one level down; booleans and whole numbers are compared as JSON writes them. Anything else can't be read.",
);
const SCOPES: Key = key(
    "scopes",
    "list of names",
    "any",
    "The user's token was given one of these scopes: `scope` of it, a text with spaces between (RFC 9068), or `scp` or `scopes`, a text or a list. A token with two of these claims can't be read. Who has no token, such as a browser that is signed in, has no scope. Whoever is refused for it alone is told the first of the list, so put the least there.",
);
const CLIENT_CERTIFICATES: Key = key(
    "client_certificates",
    "list of names",
    "any",
    "The client showed a certificate that an authority of the listener's `client_certificates` vouches for, and it has one of these names: `cn:alice` (the common name of its subject), `subject:CN=alice,O=Corp` (all of it, as `openssl x509 -subject -nameopt RFC2253,-esc_msb` writes it), `dns:host.example`, `email:alice@corp.example`, `uri:spiffe://corp.example/ci` (its alternative names), or the fingerprint `sha256:..`. A certificate with two common names, or with control characters in a name, has names that can't be read. It is no sign-in: `who` says whether that is needed besides.",
);
const NETWORKS: Key = key(
    "networks",
    "list of networks",
    "any",
    "The client's address, as `[network]` found it, is in one of these.",
);
const PATHS: Key = key(
    "paths",
    "table of `prefix` and `exact`, both lists of paths",
    "any",
    "The request is for one of these: `paths = { prefix = [\"/admin\"], exact = [\"/\"] }`. A prefix goes by whole segments, as in `[[path]]`.",
);
const METHODS: Key = key(
    "methods",
    "list of methods",
    "any",
    "The request has one of these methods. `GET` does not include `HEAD`.",
);
const ANY: Key = key(
    "any",
    "list of tables of conditions",
    "none",
    "All that one of these tables states holds: `any = [{ groups = [\"staff\"] }, { networks = [\"10.0.0.0/8\"] }]`.",
);
const ALL: Key = key(
    "all",
    "list of tables of conditions",
    "none",
    "All that each of these tables states holds; for two conditions of one kind, such as being in one group of each of two lists.",
);
const NOT: Key = key(
    "not",
    "table of conditions",
    "none",
    "Not all that this table states holds. What can't be read, can't be read under `not` either: it fulfils nothing, and meets a `deny`. Tables stand in each other at most 8 deep.",
);
const REPORT_ONLY: Key = key(
    "report_only",
    "true or false",
    "false",
    "Tries the rule out. What it would refuse passes, is counted in `portcullis_would_refuse_total`, and has `would_refuse` in the access log. In `[access]` of an application it leaves in force that people sign in (where the rule is not `public`), and nothing else of the table; of a path, all that the application says, beside which the path's is tried, and that people sign in. It never lets pass what a rule in force refuses.",
);

/// The keys of `[access]`.
pub const KEYS: &[Key] = &[
    WHO,
    USERS,
    PROVIDERS,
    GROUPS,
    EMAILS,
    EMAIL_DOMAINS,
    CLAIMS,
    SCOPES,
    CLIENT_CERTIFICATES,
    NETWORKS,
    PATHS,
    METHODS,
    ANY,
    ALL,
    NOT,
    key(
        "signed_in_within",
        "duration",
        "any time",
        "The user proved who they are at most so long ago; otherwise they are asked to again. A token says when by `auth_time`; one that does not say meets no such rule.",
    ),
    key(
        "acr",
        "list of names",
        "any",
        "The user signed in in one of these authentication contexts, as the claim `acr` of an OpenID provider or a token names them; otherwise they are asked to sign in again, in one of these (`acr_values`). Local accounts and passwords have none. Where the provider's own `acr_values` are set, those count that are in both lists.",
    ),
    key(
        "deny",
        "table of conditions, or list of them",
        "none",
        "Refuses who meets all that one of these tables states, whatever else holds. Those of an application hold on each of its paths.",
    ),
    key(
        "tell_missing",
        "true or false",
        "the application's",
        "Who is signed in and refused is told which conditions they don't meet. People and certificates are not named, and nobody is told of a `deny`.",
    ),
    REPORT_ONLY,
];

/// The keys of a `deny`.
pub const DENY_KEYS: &[Key] = &[
    of_a_deny(USERS),
    of_a_deny(PROVIDERS),
    of_a_deny(GROUPS),
    of_a_deny(EMAILS),
    of_a_deny(EMAIL_DOMAINS),
    of_a_deny(CLAIMS),
    of_a_deny(SCOPES),
    of_a_deny(CLIENT_CERTIFICATES),
    of_a_deny(NETWORKS),
    of_a_deny(PATHS),
    of_a_deny(METHODS),
    of_a_deny(ANY),
    of_a_deny(ALL),
    of_a_deny(NOT),
    key(
        "report_only",
        "true or false",
        "false",
        "Refuses nobody, but says in the access log and the metrics whom it would have refused.",
    ),
];

const fn of_a_deny(key: Key) -> Key {
    Key {
        doc: "As in `[access]`; met, too, by what can't be read.",
        ..key
    }
}

/// The keys of a table in `any`, `all` or `not`.
const CONDITION_KEYS: &[Key] = &[
    USERS,
    PROVIDERS,
    GROUPS,
    EMAILS,
    EMAIL_DOMAINS,
    CLAIMS,
    SCOPES,
    CLIENT_CERTIFICATES,
    NETWORKS,
    PATHS,
    METHODS,
    ANY,
    ALL,
    NOT,
];

/// The keys of `paths`.
const PATHS_KEYS: &[Key] = &[
    key("prefix", "list of paths", "none", "These and all below."),
    key("exact", "list of paths", "none", "These alone."),
];

/// How deep tables of conditions stand in each other: more than anybody can follow.
pub(super) const MAX_DEPTH: usize = 8;

/// What the rules of an application are read with.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The sign-in methods that there are.
    pub methods: &'a Methods,
    /// Whether the application has a page to sign in on.
    pub sign_in_page: bool,
    /// What the application lets through in a path.
    pub lifted: Oddities,
    /// Whether its backends ignore the case of paths.
    pub ignore_case: bool,
    /// Whether people are told what they lack where `[access]` does not say.
    pub tell_missing: bool,
}

/// Reads `access` of an application: a word, a table, or nothing, which lets nobody pass.
pub fn read(app: &Table, context: &Context<'_>) -> Rule {
    let said = Said::read(app, context);
    let tell_missing = said.tell_missing.unwrap_or(context.tell_missing);
    let place = said.rule.place.clone();
    let (conditions, all) = said.into_rules(
        |who| Conditions {
            who,
            ..Conditions::nobody(place)
        },
        &[],
        &[],
    );
    Rule::new(conditions, all, tell_missing, context.sign_in_page)
}

/// Reads `access` and `methods` of a path: without the first, the application's rule holds. What
/// the application denies stays denied.
pub fn read_path(path: &Table, context: &Context<'_>, app: &Rule) -> Rule {
    let all_of_app = app.trial.as_deref().unwrap_or(&app.conditions);
    let (mut conditions, mut all, mut tell_missing) =
        (app.conditions.clone(), all_of_app.clone(), app.tell_missing);
    if path.has("access") {
        let said = Said::read(path, context);
        tell_missing = said.tell_missing.unwrap_or(tell_missing);
        (conditions, all) = said.into_rules(
            |who| {
                let mut rule = conditions;
                // Who is to be tried has to be known.
                if rule.who == Who::Public {
                    rule.who = who;
                }
                rule
            },
            &app.conditions.denies,
            &all_of_app.denies,
        );
    }
    if let Some(methods) = methods(path) {
        conditions.conditions.push(methods.clone());
        all.conditions.push(methods);
    }
    Rule::new(conditions, all, tell_missing, context.sign_in_page)
}

impl Rule {
    /// What is in force, and what would be but for `report_only`.
    fn new(
        conditions: Conditions,
        all: Conditions,
        tell_missing: bool,
        sign_in_page: bool,
    ) -> Self {
        Self {
            trial: (all != conditions).then(|| Box::new(all)),
            conditions,
            tell_missing,
            sign_in_page,
        }
    }
}

/// An `access` as written.
struct Said {
    /// With the denies that are in force.
    rule: Conditions,
    /// The denies that are tried.
    tried: Vec<Deny>,
    report_only: bool,
    tell_missing: Option<bool>,
}

impl Said {
    /// The rule in force, and the one that would be but for `report_only`. Where the whole rule is
    /// tried, `instead` says what is in force, given whom the rule is about; `denies` are what another
    /// rule denies besides, and `all_denies` what it would but for `report_only`.
    fn into_rules(
        self,
        instead: impl FnOnce(Who) -> Conditions,
        denies: &[Deny],
        all_denies: &[Deny],
    ) -> (Conditions, Conditions) {
        let mut all = self.rule.clone();
        all.denies.extend(self.tried);
        all.denies.extend_from_slice(all_denies);
        if self.report_only {
            return (instead(self.rule.who), all);
        }
        let mut rule = self.rule;
        rule.denies.extend_from_slice(denies);
        (rule, all)
    }

    fn read(parent: &Table, context: &Context<'_>) -> Self {
        let place = parent.place_of("access");
        let mut said = Self {
            rule: Conditions::nobody(place),
            tried: Vec::new(),
            report_only: false,
            tell_missing: None,
        };
        if !parent.has("access") {
            return said;
        }
        if !parent.is_table("access") {
            said.rule.who = parent.value("access", who).unwrap_or(Who::Nobody);
            return said;
        }
        if let Some(table) = parent.table("access", KEYS) {
            said.read_table(&table, context);
        }
        said
    }

    fn read_table(&mut self, table: &Table, context: &Context<'_>) {
        let found_before = table.problems().count();
        let rule = &mut self.rule;
        rule.conditions = conditions(table, context, 0);
        rule.signed_in_within = table.value("signed_in_within", fresh).map(|within| {
            let place = table.place_of("signed_in_within");
            Freshness { place, within }
        });
        let accepted = filled(table, "acr", word);
        let bytes = accepted
            .iter()
            .flatten()
            .map(|one| one.len())
            .sum::<usize>();
        if bytes > MOST_CONTEXTS {
            let expected = format!("expected {MOST_CONTEXTS} bytes in all at most");
            table.problem("acr", expected, None);
        }
        rule.acr = accepted.map(|accepted| {
            let place = table.place_of("acr");
            Contexts { place, accepted }
        });
        self.report_only = table.boolean("report_only").unwrap_or(false);
        self.tell_missing = table.boolean("tell_missing");
        let names_users = rule.conditions.iter().any(|one| one.test.names_users());
        rule.who = match table.value("who", who) {
            Some(who) => who,
            None if names_users => Who::SignedIn,
            None => Who::Nobody,
        };
        if table.problems().count() == found_before {
            let on_users = rule.conditions.iter().any(|one| one.test.is_on_user());
            let on_sign_in = rule.signed_in_within.is_some() || rule.acr.is_some();
            if rule.who == Who::Public && (on_users || on_sign_in) {
                let message = "`public` lets everybody pass, signed in or not: it goes with conditions on the request alone, such as `methods`";
                table.problem("who", message, Some("say `who = \"signed-in\"`".to_owned()));
            }
            if !names_users && !table.has("who") {
                let hint = "say `who = \"signed-in\"`, `groups = [..]` or such".to_owned();
                table.problem(
                    "who",
                    "nothing says who may pass, so nobody may",
                    Some(hint),
                );
            }
            if rule.who == Who::Nobody && table.has("who") && self.report_only {
                let message = "`nobody` can't be tried out: it would open what is closed";
                table.problem("report_only", message, None);
            }
        }
        for (deny, report_only) in denies(table, context, rule.who) {
            let list = if report_only {
                &mut self.tried
            } else {
                &mut rule.denies
            };
            list.push(deny);
        }
    }
}

/// Each with whether it is tried only.
fn denies(table: &Table, context: &Context<'_>, who: Who) -> Vec<(Deny, bool)> {
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
        .map(|deny| self::deny(table, deny, context, who))
        .collect()
}

fn deny(table: &Table, deny: &Table, context: &Context<'_>, who: Who) -> (Deny, bool) {
    let found_before = deny.problems().count();
    let conditions = conditions(deny, context, 0);
    let on_users = conditions.iter().any(|one| one.test.is_on_user());
    if who == Who::Public && on_users {
        let hint = Some("say `who = \"signed-in\"`".to_owned());
        table.problem(
            "deny",
            "where access is `public`, whom it denies can come signed out",
            hint,
        );
    }
    if conditions.is_empty() && deny.problems().count() == found_before {
        let hint = Some("`who = \"nobody\"` lets nobody pass".to_owned());
        table.problem(
            "deny",
            "a `deny` that states nothing refuses everybody",
            hint,
        );
    }
    let deny_only = Deny {
        place: deny.place(),
        conditions,
    };
    (deny_only, deny.boolean("report_only").unwrap_or(false))
}

/// The conditions in a table, each with its line: those on the user first.
fn conditions(table: &Table, context: &Context<'_>, depth: usize) -> Vec<Condition> {
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
        Ok((*named(name, context.methods)?.0).into())
    }) {
        add("providers", Test::Provider(names));
    }
    if let Some(names) = filled(table, "groups", name) {
        add("groups", Test::Group(names));
    }
    if let Some(addresses) = filled(table, "emails", EmailAddress::parse) {
        add("emails", Test::Email(addresses));
    }
    if let Some(domains) = filled(table, "email_domains", EmailDomain::parse) {
        add("email_domains", Test::EmailDomain(domains));
    }
    for claim in claims(table) {
        add("claims", claim);
    }
    // After what is on the person: who may not pass anyway is not sent for another token.
    if let Some(names) = filled(table, "scopes", word) {
        add("scopes", Test::Scope(names));
    }
    if let Some(names) = filled(table, "client_certificates", Name::parse) {
        add("client_certificates", Test::Certificate(names));
    }
    if let Some(networks) = filled(table, "networks", cidr::parse_network) {
        add("networks", Test::Network(cidr::Set::new(networks)));
    }
    if let Some(paths) = paths(table, context) {
        add("paths", Test::Path(paths));
    }
    if let Some(lists) = lists(table, "any", context, depth) {
        add("any", Test::Any(lists));
    }
    if let Some(lists) = lists(table, "all", context, depth) {
        add("all", Test::All(lists));
    }
    if table.has("not")
        && let Some(inner) = table.table("not", CONDITION_KEYS)
    {
        add(
            "not",
            Test::Not(nested(&inner, table, "not", context, depth)),
        );
    }
    all.extend(methods(table));
    all
}

/// The tables of `any` or `all`.
fn lists(
    table: &Table,
    key: &'static str,
    context: &Context<'_>,
    depth: usize,
) -> Option<Vec<Vec<Condition>>> {
    if !table.has(key) {
        return None;
    }
    let found_before = table.problems().count();
    let tables = table.tables(key, CONDITION_KEYS);
    if tables.is_empty() && table.problems().count() == found_before {
        empty(table, key);
    }
    let read = |inner: &Table| nested(inner, table, key, context, depth);
    Some(tables.iter().map(read).collect())
}

fn nested(
    inner: &Table,
    outer: &Table,
    key: &'static str,
    context: &Context<'_>,
    depth: usize,
) -> Vec<Condition> {
    let depth = depth.saturating_add(1);
    if depth > MAX_DEPTH {
        let message = format!("conditions stand more than {MAX_DEPTH} deep in each other");
        outer.problem(key, message, Some("take some apart".to_owned()));
        return Vec::new();
    }
    let found_before = outer.problems().count();
    let all = conditions(inner, context, depth);
    if all.is_empty() && outer.problems().count() == found_before {
        let message = format!("a table in `{key}` states nothing");
        let hint = "say what is to hold, such as `groups = [\"staff\"]`".to_owned();
        outer.problem(key, message, Some(hint));
    }
    all
}

fn claims(table: &Table) -> Vec<Test> {
    if !table.has("claims") {
        return Vec::new();
    }
    let found_before = table.problems().count();
    let claims = table.free_lists("claims");
    if claims.is_empty() && table.problems().count() == found_before {
        empty(table, "claims");
    }
    let mut all = Vec::new();
    for (name, accepted) in claims {
        if accepted.is_empty() {
            empty(table, "claims");
        }
        match ClaimName::parse(&name) {
            Ok(name) => {
                let accepted = accepted.into_iter().map(Into::into).collect();
                all.push(Test::Claim(name, accepted));
            }
            Err(expected) => {
                let message = format!("`{name}` can't be used: {expected}");
                table.problem("claims", message, None);
            }
        }
    }
    all
}

fn paths(table: &Table, context: &Context<'_>) -> Option<Paths> {
    if !table.has("paths") {
        return None;
    }
    let inner = table.table("paths", PATHS_KEYS)?;
    let found_before = table.problems().count();
    let path = |text: &str| Pattern::path(text, context.lifted);
    let prefixes = inner.list("prefix", path).unwrap_or_default();
    let exact = inner.list("exact", path).unwrap_or_default();
    let prefixes = prefixes.into_iter().map(Pattern::Prefix);
    let patterns: Vec<_> = prefixes
        .chain(exact.into_iter().map(Pattern::Exact))
        .collect();
    if patterns.is_empty() && table.problems().count() == found_before {
        empty(table, "paths");
    }
    Some(Paths {
        patterns,
        ignore_case: context.ignore_case,
    })
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

/// A word as it stands in a list with spaces between, and between quotes (RFC 6749 §3.3).
fn word(text: &str) -> Result<Box<str>, String> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !text.is_empty() && text.len() <= 256 && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("expected a word without spaces and quotes".to_owned())
    }
}

fn fresh(text: &str) -> Result<Duration, String> {
    match unit::duration(text).map_err(|expected| format!("expected {expected}"))? {
        Duration::ZERO => Err("expected a duration of at least a second, such as `15m`".to_owned()),
        within => Ok(within),
    }
}
