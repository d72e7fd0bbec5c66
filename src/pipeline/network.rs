//! 2. network: who may knock.
//!
//! | when | then |
//! |---|---|
//! | the peer is no trusted proxy | the client is the peer; what it says of others is ignored (SECURITY.md F6) |
//! | the peer is a trusted proxy and says nothing | the client is the peer |
//! | the peer is a trusted proxy and its forwarding field parses | the client is the first untrusted hop from the right (RFC 7239 §5.2) |
//! | a hop on that walk does not parse | 400 `network.bad_hop` (SECURITY.md F5) |
//! | the client is in `deny`, whatever `allow` says | 403 `network.denied` |
//! | there is an `allow`, and the client is not in it | 403 `network.not_allowed` |
//!
//! Trusts the peer's address, which is the TCP peer's or what PROXY protocol put in its place, and
//! nothing else. Never resolves names. An IPv4-mapped address is the IPv4 one (SECURITY.md F8).

use std::net::IpAddr;
use std::sync::Arc;

use crate::pure::cidr::{self, IpNetwork, parse_network};
use crate::pure::connection::Connection;
use crate::pure::fields::Fields;
use crate::pure::forwarded::{self, BadHop, Header};
use crate::pure::table::{Key, Place, Problem, Table};
use crate::record::Record;
use crate::refusal::{Answer, Refusal};

/// Who may say who the client is.
#[derive(Debug)]
pub struct Trust {
    /// The proxies.
    pub networks: cidr::Set,
    /// The field that they write.
    pub header: Header,
}

/// Who may knock at one path of an application.
#[derive(Debug, Clone)]
pub struct Rule {
    trust: Arc<Trust>,
    /// Without it everybody may who is not denied.
    allow: Option<List>,
    /// What the application denies and what the path denies besides.
    deny: Vec<List>,
}

/// Networks, and where they are written.
#[derive(Debug, Clone)]
struct List {
    networks: Arc<cidr::Set>,
    said: Place,
}

/// Proof that a client may knock, and the client's address.
#[derive(Debug, PartialEq, Eq)]
pub struct Client(IpAddr);

impl Client {
    /// The client's address, in its one form: IPv4-mapped as IPv4.
    pub const fn ip(&self) -> IpAddr {
        self.0
    }
}

/// Why a client may not knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A trusted proxy's field can't be read, so that the client is unknown.
    BadHop(BadHop),
    /// The client is denied.
    Denied,
    /// Others are allowed, and not the client.
    NotAllowed,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let forbidden = Answer::Forbidden { as_whom: None };
        match refused {
            Refused::BadHop(_) => Self::new(Answer::BadRequest, "network.bad_hop"),
            Refused::Denied => Self::new(forbidden, "network.denied"),
            Refused::NotAllowed => Self::new(forbidden, "network.not_allowed"),
        }
    }
}

/// Finds the client and whether it may knock; the record learns who it is either way.
///
/// # Errors
/// [`Refused`].
pub fn admit(
    rule: &Rule,
    conn: &Connection,
    headers: &Fields,
    seen: &mut Record,
) -> Result<Client, Refused> {
    let peer = conn.peer.ip().to_canonical();
    seen.client = Some(peer);
    let trust = &rule.trust;
    let client =
        forwarded::client(peer, headers, trust.header, &trust.networks).map_err(Refused::BadHop)?;
    seen.client = Some(client);
    let holds = |list: &&List| list.networks.contains(client);
    if let Some(deny) = rule.deny.iter().find(holds) {
        seen.decider = Some(deny.said.clone());
        return Err(Refused::Denied);
    }
    if let Some(allow) = rule.allow.as_ref().filter(|list| !holds(list)) {
        seen.decider = Some(allow.said.clone());
        return Err(Refused::NotAllowed);
    }
    Ok(Client(client))
}

impl Rule {
    /// Whether a client that was let in may stay.
    pub fn lets(&self, client: IpAddr) -> bool {
        let holds = |list: &List| list.networks.contains(client);
        !self.deny.iter().any(holds) && self.allow.as_ref().is_none_or(holds)
    }
}

/// Keys of `[trusted_proxies]`.
pub const TRUST_KEYS: &[Key] = &[
    Key {
        name: "networks",
        kind: "list of networks",
        default: "required",
        doc: "Addresses of the proxies in front of the gate. Only they may say who the client is; what anybody else says is ignored and removed.",
    },
    Key {
        name: "header",
        kind: "`x-forwarded-for` or `forwarded`",
        default: "`x-forwarded-for`",
        doc: "The field that all of these proxies write, by appending to it. It is read from the right up to the first address that is not a proxy's; an entry before that which is no address refuses the request.",
    },
];

/// Keys of `[network]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "allow",
        kind: "list of networks",
        default: "everybody",
        doc: "Networks that may come, such as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.1`; everybody else is refused.",
    },
    Key {
        name: "deny",
        kind: "list of networks",
        default: "nobody",
        doc: "Networks that may not come, whatever `allow` says.",
    },
    Key {
        name: "allow_files",
        kind: "list of files",
        default: "none",
        doc: "Files with more networks for `allow`, one a line; `#` begins a comment.",
    },
    Key {
        name: "deny_files",
        kind: "list of files",
        default: "none",
        doc: "Files with more networks for `deny`, one a line; `#` begins a comment.",
    },
];

impl Trust {
    /// Trust in nobody: the peer is the client.
    pub fn nobody() -> Self {
        Self {
            networks: cidr::Set::default(),
            header: Header::XForwardedFor,
        }
    }

    /// Reads `[trusted_proxies]`; without it nobody is trusted.
    pub fn read(table: Option<&Table>) -> Self {
        let Some(table) = table else {
            return Self::nobody();
        };
        let networks = table.list("networks", |text| {
            let network = parse_network(text)?;
            // Whoever may come would choose their own address (SECURITY.md F1).
            if network.prefix() == 0 {
                return Err("the networks of the proxies, not everybody".to_owned());
            }
            Ok(network)
        });
        match &networks {
            Some(networks) if networks.is_empty() => {
                let hint = "name the proxies, or leave `[trusted_proxies]` out".to_owned();
                table.problem("networks", "`networks` is empty", Some(hint));
            }
            Some(_) => {}
            None if table.has("networks") => {}
            None => table.missing("networks", "the networks of the proxies"),
        }
        Self {
            networks: cidr::Set::new(networks.unwrap_or_default()),
            header: table
                .value("header", Header::parse)
                .unwrap_or(Header::XForwardedFor),
        }
    }
}

impl Rule {
    /// Everybody may knock.
    pub const fn everybody(trust: Arc<Trust>) -> Self {
        Self {
            trust,
            allow: None,
            deny: Vec::new(),
        }
    }
}

/// Reads `[network]` of an application, or of a path within `outer`. A path's `allow` stands in
/// place of the application's, which holds where there is none; what the application denies stays
/// denied. `load` reads a file that the configuration names.
pub fn read(
    table: Option<&Table>,
    outer: &Rule,
    load: &dyn Fn(&str) -> Result<String, String>,
) -> Rule {
    let mut rule = outer.clone();
    let Some(table) = table else {
        return rule;
    };
    let problems = table.problems().count();
    if let Some(allow) = List::read(table, "allow", "allow_files", load) {
        if allow.networks.is_empty() && table.problems().count() == problems {
            let hint = "leave `allow` out to let everybody come".to_owned();
            let message = "nobody could come: `allow` names no network";
            table.problem("allow", message, Some(hint));
        }
        rule.allow = Some(allow);
    }
    rule.deny
        .extend(List::read(table, "deny", "deny_files", load));
    rule
}

impl List {
    fn read(
        table: &Table,
        inline: &'static str,
        files: &'static str,
        load: &dyn Fn(&str) -> Result<String, String>,
    ) -> Option<Self> {
        if !table.has(inline) && !table.has(files) {
            return None;
        }
        let mut networks = table.list(inline, parse_network).unwrap_or_default();
        let file = |name: &str| Ok((name.to_owned(), load(name)?));
        for (name, text) in table.list(files, file).unwrap_or_default() {
            networks.extend(networks_of(&name, &text, table));
        }
        Some(Self {
            networks: Arc::new(cidr::Set::new(networks)),
            said: table.place_of(if table.has(inline) { inline } else { files }),
        })
    }
}

/// Lines of one file that are shown as problems: a file of another kind has thousands.
const SHOWN: usize = 10;

fn networks_of(file: &str, text: &str, table: &Table) -> Vec<IpNetwork> {
    let mut networks = Vec::new();
    let mut wrong = 0_usize;
    for (line, whole) in (1_u32..).zip(text.lines()) {
        let written = whole.split('#').next().unwrap_or_default();
        let network = written.trim();
        if network.is_empty() {
            continue;
        }
        match parse_network(network) {
            Ok(network) => networks.push(network),
            Err(expected) => {
                let before = written.chars().take_while(|c| c.is_whitespace()).count();
                table.problems().add(Problem {
                    file: file.into(),
                    line,
                    column: u32::try_from(before).unwrap_or(0).saturating_add(1),
                    source_line: whole.to_owned(),
                    width: network.chars().count(),
                    message: format!("expected {expected}"),
                    hint: None,
                });
                wrong = wrong.saturating_add(1);
                if wrong == SHOWN {
                    break;
                }
            }
        }
    }
    networks
}

/// Proofs for the tests of the stages after this one.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// The proof that the client at `ip` may knock.
    pub(crate) fn client(ip: &str) -> Client {
        Client(ip.parse::<IpAddr>().unwrap().to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use http::HeaderValue;

    use super::*;
    use crate::pure::table::Problems;

    const FILE_KEYS: &[Key] = &[
        Key {
            name: "network",
            kind: "",
            default: "",
            doc: "",
        },
        Key {
            name: "trusted_proxies",
            ..NETWORK
        },
        Key {
            name: "path",
            ..NETWORK
        },
    ];
    const NETWORK: Key = Key {
        name: "network",
        kind: "",
        default: "",
        doc: "",
    };

    fn load(name: &str) -> Result<String, String> {
        match name {
            "office.txt" => {
                Ok("# the office\n192.0.2.0/24 # ground floor\r\n\n  2001:db8::/32\n".to_owned())
            }
            "broken.txt" => {
                Ok("192.0.2.0/24\n  10.1.2.3/8 # slip\nhttp://example.com\n".to_owned())
            }
            "empty.txt" => Ok("# nobody yet\n".to_owned()),
            "binary.dat" => Ok("x\n".repeat(1000)),
            _ => Err("a file that can be read: no such file".to_owned()),
        }
    }

    fn try_rule(text: &str) -> (Rule, Problems) {
        let problems = Problems::default();
        let file = Table::parse("policies/wiki.toml", text, FILE_KEYS, &problems).unwrap();
        let trust = Trust::read(file.table("trusted_proxies", TRUST_KEYS).as_ref());
        let open = Rule::everybody(Arc::new(trust));
        let app = read(file.table("network", KEYS).as_ref(), &open, &load);
        let path = file.table("path", KEYS);
        (read(path.as_ref(), &app, &load), problems)
    }

    #[track_caller]
    fn rule(text: &str) -> Rule {
        let (rule, problems) = try_rule(text);
        let problems = problems.into_sorted();
        assert!(problems.is_empty(), "{problems:?}");
        rule
    }

    #[track_caller]
    fn problems(text: &str) -> String {
        let (_, problems) = try_rule(text);
        let shown = problems.into_sorted();
        shown.iter().map(ToString::to_string).collect::<String>()
    }

    fn ask(
        rule: &Rule,
        peer: &str,
        lines: &[(&'static str, &str)],
    ) -> (Result<String, Refused>, Record) {
        let conn = Connection {
            peer: (peer.parse::<IpAddr>().unwrap(), 4711).into(),
            tls: None,
        };
        let mut headers = Fields::new();
        for (name, value) in lines {
            headers.append(
                http::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let mut seen = Record::new("id".into(), Instant::now(), SystemTime::UNIX_EPOCH);
        let answer = admit(rule, &conn, &headers, &mut seen);
        (answer.map(|client| client.ip().to_string()), seen)
    }

    #[track_caller]
    fn admits(rule: &Rule, peer: &str) {
        let (answer, seen) = ask(rule, peer, &[]);
        let ip = peer.parse::<IpAddr>().unwrap().to_canonical();
        assert_eq!(answer, Ok(ip.to_string()), "{peer}");
        assert_eq!((seen.client, seen.decider), (Some(ip), None));
    }

    #[track_caller]
    fn refuses(rule: &Rule, peer: &str, why: Refused, line: u32) {
        let (answer, seen) = ask(rule, peer, &[]);
        assert_eq!(answer, Err(why), "{peer}");
        assert_eq!(
            seen.client,
            Some(peer.parse::<IpAddr>().unwrap().to_canonical())
        );
        let decider = seen.decider.map(|decider| decider.to_string());
        assert_eq!(decider, Some(format!("policies/wiki.toml:{line}")));
    }

    #[test]
    fn nothing_said_lets_everybody_knock() {
        for text in ["", "[network]", "[network]\ndeny = []"] {
            let rule = rule(text);
            admits(&rule, "203.0.113.9");
            admits(&rule, "2001:db8::1");
        }
    }

    #[test]
    fn only_allowed_networks_may_knock() {
        let rule = rule("[network]\n\nallow = ['10.0.0.0/8', '2001:db8::/32']");
        admits(&rule, "10.255.255.255");
        admits(&rule, "2001:db8::1");
        refuses(&rule, "11.0.0.0", Refused::NotAllowed, 3);
        refuses(&rule, "2001:db9::1", Refused::NotAllowed, 3);
    }

    #[test]
    fn deny_wins_over_allow_however_narrow() {
        let rule = rule("[network]\nallow = '10.1.2.3'\ndeny = '10.0.0.0/8'");
        refuses(&rule, "10.1.2.3", Refused::Denied, 3);
        refuses(&rule, "192.0.2.1", Refused::NotAllowed, 2);
    }

    #[test]
    fn f8_an_ipv4_mapped_peer_meets_the_ipv4_rules() {
        let denies = rule("[network]\ndeny = ['192.0.2.0/24']");
        refuses(&denies, "::ffff:192.0.2.1", Refused::Denied, 2);
        admits(&denies, "::ffff:192.0.3.1");
        let mapped = rule("[network]\ndeny = ['::ffff:192.0.2.0/120']");
        refuses(&mapped, "192.0.2.1", Refused::Denied, 2);
    }

    #[test]
    fn lists_come_from_files_too() {
        let rule = rule(
            "[network]\nallow = ['10.0.0.0/8']\nallow_files = ['office.txt']\ndeny_files = 'empty.txt'",
        );
        admits(&rule, "10.0.0.1");
        admits(&rule, "192.0.2.1");
        admits(&rule, "2001:db8::1");
        refuses(&rule, "203.0.113.9", Refused::NotAllowed, 2);
    }

    #[test]
    fn a_path_has_its_own_allow_and_keeps_what_the_application_denies() {
        let app = "[network]\nallow = ['10.0.0.0/8']\ndeny = ['10.6.6.0/24']\n[path]\n";
        let own_allow = rule(&format!("{app}allow = ['10.6.0.0/16', '192.0.2.0/24']"));
        admits(&own_allow, "192.0.2.1");
        refuses(&own_allow, "10.0.0.1", Refused::NotAllowed, 5);
        refuses(&own_allow, "10.6.6.6", Refused::Denied, 3);
        let own_deny = rule(&format!("{app}deny = ['10.7.0.0/16']"));
        admits(&own_deny, "10.0.0.1");
        refuses(&own_deny, "10.7.0.1", Refused::Denied, 5);
        refuses(&own_deny, "10.6.6.6", Refused::Denied, 3);
        refuses(&own_deny, "192.0.2.1", Refused::NotAllowed, 2);
    }

    #[test]
    fn f6_an_untrusted_peer_ignores_forwarding_headers() {
        let rule = rule("[network]\nallow = ['10.0.0.0/8']");
        let spoofed = [
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ];
        let (answer, seen) = ask(&rule, "203.0.113.9", &spoofed);
        assert_eq!(answer, Err(Refused::NotAllowed));
        assert_eq!(seen.client, "203.0.113.9".parse().ok());
        let (answer, _) = ask(&rule, "10.0.0.2", &[("x-forwarded-for", "203.0.113.9")]);
        assert_eq!(answer, Ok("10.0.0.2".to_owned()));
    }

    const BEHIND_PROXY: &str = "[trusted_proxies]\nnetworks = ['10.0.0.0/8']\n[network]\nallow = ['203.0.113.0/24', '10.0.0.0/8']";

    #[test]
    fn f6_behind_a_trusted_proxy_the_client_is_the_first_untrusted_hop_from_the_right() {
        let rule = rule(BEHIND_PROXY);
        let (answer, seen) = ask(
            &rule,
            "10.0.0.1",
            &[("x-forwarded-for", "10.0.0.1, 203.0.113.9")],
        );
        assert_eq!(answer, Ok("203.0.113.9".to_owned()));
        assert_eq!(seen.client, "203.0.113.9".parse().ok());
        let (answer, _) = ask(
            &rule,
            "10.0.0.1",
            &[("x-forwarded-for", "203.0.113.9, 198.51.100.1")],
        );
        assert_eq!(answer, Err(Refused::NotAllowed));
    }

    #[test]
    fn a_trusted_proxy_that_says_nothing_is_the_client() {
        let (answer, _) = ask(&rule(BEHIND_PROXY), "10.0.0.1", &[]);
        assert_eq!(answer, Ok("10.0.0.1".to_owned()));
    }

    #[test]
    fn f5_a_hop_that_does_not_parse_is_refused_and_the_peer_is_on_record() {
        let rule = rule(BEHIND_PROXY);
        let commas = ",".repeat(10_000);
        for (value, why) in [
            ("a", BadHop::NoAddress),
            ("::ffff:999.0.0.1", BadHop::NoAddress),
            (&*commas, BadHop::TooLong),
        ] {
            let (answer, seen) = ask(&rule, "10.0.0.1", &[("x-forwarded-for", value)]);
            assert_eq!(answer, Err(Refused::BadHop(why)), "{value}");
            assert_eq!(seen.client, "10.0.0.1".parse().ok());
            let (answer, _) = ask(&rule, "203.0.113.9", &[("x-forwarded-for", value)]);
            assert_eq!(answer, Ok("203.0.113.9".to_owned()));
        }
    }

    #[test]
    fn only_the_configured_field_of_a_trusted_proxy_is_believed() {
        let rule = rule(&BEHIND_PROXY.replace("\n[network]", "\nheader = 'forwarded'\n[network]"));
        let both = [
            ("x-forwarded-for", "10.9.9.9"),
            ("forwarded", "for=203.0.113.9"),
        ];
        assert_eq!(
            ask(&rule, "10.0.0.1", &both).0,
            Ok("203.0.113.9".to_owned())
        );
    }

    #[test]
    fn each_refusal_has_its_answer_and_reason() {
        let forbidden = || Answer::Forbidden { as_whom: None };
        for (refused, answer, reason) in [
            (
                Refused::BadHop(BadHop::NoAddress),
                Answer::BadRequest,
                "network.bad_hop",
            ),
            (Refused::Denied, forbidden(), "network.denied"),
            (Refused::NotAllowed, forbidden(), "network.not_allowed"),
        ] {
            assert_eq!(Refusal::from(refused), Refusal::new(answer, reason));
        }
    }

    #[test]
    fn an_allow_list_without_networks_is_a_problem() {
        for text in [
            "[network]\nallow = []",
            "[network]\nallow_files = []",
            "[network]\nallow_files = ['empty.txt']",
        ] {
            let shown = problems(text);
            assert!(shown.contains("nobody could come"), "{text}: {shown}");
        }
    }

    #[test]
    fn a_bad_network_is_shown_where_it_stands() {
        let shown = problems("[network]\nallow = ['10.0.0.0/8', '10.1.2.3/16']");
        assert!(shown.contains("policies/wiki.toml:2:24"), "{shown}");
        assert!(shown.contains("`10.1.0.0/16`"), "{shown}");
        assert_eq!(
            problems("[network]\ndeny_files = ['broken.txt']"),
            "broken.txt:2:3: expected a network without host bits: `10.0.0.0/8`, or `10.1.2.3` for the one address\n \
             2 |   10.1.2.3/8 # slip\n   |   ^^^^^^^^^^\n\
             broken.txt:3:1: expected a network such as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.1`\n \
             3 | http://example.com\n   | ^^^^^^^^^^^^^^^^^^\n"
        );
    }

    #[test]
    fn a_file_of_another_kind_is_not_shown_in_full() {
        let (_, problems) = try_rule("[network]\nallow_files = ['binary.dat']");
        assert_eq!(problems.count(), SHOWN);
    }

    #[test]
    fn a_file_that_can_not_be_read_is_a_problem() {
        let shown = problems("[network]\nallow_files = ['office.txt', 'gone.txt']");
        assert!(
            shown.contains("`gone.txt`") && shown.contains("no such file"),
            "{shown}"
        );
    }

    #[test]
    fn f1_trust_in_nobody_or_everybody_is_a_problem() {
        for (text, expected) in [
            ("[trusted_proxies]", "`networks` is missing"),
            ("[trusted_proxies]\nnetworks = []", "`networks` is empty"),
            (
                "[trusted_proxies]\nnetworks = ['0.0.0.0/0']",
                "not everybody",
            ),
            ("[trusted_proxies]\nnetworks = ['::/0']", "not everybody"),
            (
                "[trusted_proxies]\nnetworks = ['10.0.0.0/8']\nheader = 'x-real-ip'",
                "`x-forwarded-for` or `forwarded`",
            ),
        ] {
            let shown = problems(text);
            assert!(shown.contains(expected), "{text}: {shown}");
        }
    }
}
