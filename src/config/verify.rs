//! `[verify]`: the listener at which other proxies ask whether a request may pass.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::pure::cidr::{IpNetwork, parse_network};
use crate::pure::original::Style;
use crate::pure::table::{Key, Table};

use super::gateway::{Admin, Gateway, address, path};
use crate::pure::secret::SecretSource;

/// What the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// TLS, or plain HTTP.
    pub tls: bool,
    /// How a proxy tells of a request.
    pub style: Style,
    /// Which proxies may ask.
    pub callers: Callers,
}

/// How a proxy proves that it may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// It has the key that is kept here.
    Key(SecretSource),
    /// It shows a certificate of one of these authorities, in PEM.
    Certificates(PathBuf),
    /// It has one of these addresses.
    Networks(Vec<IpNetwork>),
}

/// Keys of `[verify]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "address",
        kind: "address or list",
        default: "none: required",
        doc: "Where proxies ask, at `/verify`: one that clients can't reach. Taken up at start.",
    },
    Key {
        name: "tls",
        kind: "true or false",
        default: "true",
        doc: "Whether proxies speak TLS, with the certificates of `[tls]`. Without it, cookies, passwords and the key cross the network in the clear. Taken up at start.",
    },
    Key {
        name: "style",
        kind: "`x-original`, `x-forwarded` or `envoy`",
        default: "none: required",
        doc: "How proxies tell of a request: `X-Original-Method` and `X-Original-URL` (nginx); `X-Forwarded-Method`, `-Proto`, `-Host` and `-Uri` (Traefik, Caddy, HAProxy); or by the request itself, its path behind `/verify`, and `X-Forwarded-Proto` (Envoy). In each, the last hop of `X-Forwarded-For` is the client. Proxies must set these fields, and never hand on a client's.",
    },
    Key {
        name: "key",
        kind: "`{ file = \"..\" }`, `{ env = \"..\" }` or `{ credential = \"..\" }`",
        default: "none",
        doc: "The key that proxies send as `X-Portcullis-Key`: 32 characters or more. Exactly one of `key`, `client_certificates` and `from` says which proxies may ask.",
    },
    Key {
        name: "client_certificates",
        kind: "file",
        default: "none",
        doc: "The authorities, in PEM, of whose certificates a proxy must show one. Taken up at start.",
    },
    Key {
        name: "from",
        kind: "list of networks",
        default: "none",
        doc: "The addresses of the proxies. Whatever else runs there may ask, too.",
    },
];

const CALLERS: [&str; 3] = ["key", "client_certificates", "from"];

/// Reads the table; `None` without one, and after adding what can't be used.
pub fn read(root: &Table, gateway: &Gateway) -> Option<Verify> {
    let table = root.table("verify", KEYS)?;
    let before = table.problems().count();
    for (key, expected) in [
        ("address", "an address and port such as `127.0.0.1:9081`"),
        ("style", "`x-original`, `x-forwarded` or `envoy`"),
    ] {
        if !table.has(key) {
            table.missing(key, expected);
        }
    }
    let addresses = addresses(&table, gateway);
    let tls = table.boolean("tls").unwrap_or(true);
    if tls && gateway.tls.certificates.is_empty() && !gateway.tls.development {
        let hint = "add `certificates` to `[tls]`, or `tls = false` where nobody can listen";
        let message = "`[verify]` speaks TLS, and there is no certificate";
        table.problem("tls", message, Some(hint.to_owned()));
    }
    let style = table.value("style", Style::parse);
    let callers = callers(&table, tls);
    if table.problems().count() > before {
        return None;
    }
    Some(Verify {
        addresses,
        tls,
        style: style?,
        callers: callers?,
    })
}

fn addresses(table: &Table, gateway: &Gateway) -> Vec<SocketAddr> {
    let before = table.problems().count();
    let addresses = table.list("address", address).unwrap_or_default();
    if table.has("address") && addresses.is_empty() && table.problems().count() == before {
        table.problem("address", "there is nothing to listen on", None);
    }
    let listeners = gateway.listeners.iter().flat_map(|one| &one.addresses);
    let mut taken: Vec<SocketAddr> = listeners.copied().collect();
    if let Some(Admin::Tcp(address)) = &gateway.admin {
        taken.push(*address);
    }
    for address in &addresses {
        if address.port() != 0 && taken.contains(address) {
            let message = format!("something else listens on `{address}` already");
            table.problem("address", message, None);
        }
        taken.push(*address);
    }
    addresses
}

fn callers(table: &Table, tls: bool) -> Option<Callers> {
    let mut stated = CALLERS.into_iter().filter(|key| table.has(key));
    let one = stated.next();
    let hint = "say which proxies may ask by one of `key`, `client_certificates` and `from`";
    if let Some(second) = stated.next() {
        let message = "there are two ways to say which proxies may ask";
        table.problem(second, message, Some(hint.to_owned()));
        return None;
    }
    match one {
        Some("key") => SecretSource::read(table, "key").map(Callers::Key),
        Some("client_certificates") => {
            if !tls {
                table.problem(
                    "client_certificates",
                    "client certificates need `tls = true`",
                    None,
                );
            }
            table
                .value("client_certificates", path)
                .map(Callers::Certificates)
        }
        Some(_) => networks(table).map(Callers::Networks),
        None => {
            let message = "nothing says which proxies may ask";
            table.problem("address", message, Some(hint.to_owned()));
            None
        }
    }
}

fn networks(table: &Table) -> Option<Vec<IpNetwork>> {
    let before = table.problems().count();
    let networks = table.list("from", |text| {
        let network = parse_network(text)?;
        // Whoever may ask learns of anybody's session what it opens (SECURITY.md F1).
        if network.prefix() == 0 {
            return Err("the networks of the proxies, not everybody".to_owned());
        }
        Ok(network)
    })?;
    if networks.is_empty() && table.problems().count() == before {
        table.problem("from", "`from` is empty: nobody could ask", None);
    }
    Some(networks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::gateway::{self, FILE};
    use crate::pure::table::Problems;

    const BASE: &str = "[[listen]]\naddress = \"127.0.0.1:80\"\ntls = false\n[verify]\n";

    fn try_read(text: &str) -> (Option<Verify>, Vec<String>) {
        let problems = Problems::default();
        let text = format!("{BASE}{text}");
        let root = Table::parse(FILE, &text, gateway::KEYS, &problems).unwrap();
        let verify = read(&root, &Gateway::read(&root));
        let shown = problems.into_sorted();
        let heads = shown.iter().map(|problem| problem.message.clone());
        (verify, heads.collect())
    }

    #[test]
    fn one_way_says_which_proxies_may_ask() {
        let here = "address = \"127.0.0.1:0\"\ntls = false\nstyle = \"envoy\"\n";
        for (ways, callers) in [
            (
                "key = { file = \"k\" }\n",
                Callers::Key(SecretSource::File("k".into())),
            ),
            (
                "from = \"10.0.0.1\"\n",
                Callers::Networks(vec![parse_network("10.0.0.1").unwrap()]),
            ),
        ] {
            let (verify, problems) = try_read(&format!("{here}{ways}"));
            assert_eq!(
                (verify.map(|verify| verify.callers), problems),
                (Some(callers), Vec::new())
            );
        }
        for (ways, problem) in [
            ("", "nothing says which proxies may ask"),
            (
                "from = \"::1\"\nkey = { file = \"k\" }\n",
                "there are two ways to say which proxies may ask",
            ),
            ("from = []\n", "`from` is empty: nobody could ask"),
            (
                "from = \"0.0.0.0/0\"\n",
                "`0.0.0.0/0` can't be used: the networks of the proxies, not everybody",
            ),
            (
                "key = \"0123456789abcdef0123456789abcdef\"\n",
                "`key` is a secret, which never stands in the configuration",
            ),
            (
                "client_certificates = \"ca\"\n",
                "client certificates need `tls = true`",
            ),
        ] {
            let (verify, problems) = try_read(&format!("{here}{ways}"));
            assert_eq!(
                (verify, problems),
                (None, vec![problem.to_owned()]),
                "{ways}"
            );
        }
    }

    #[test]
    fn a_listener_for_proxies_is_one_of_its_own() {
        let rest = "from = \"::1\"\nstyle = \"x-original\"\n";
        for (place, problem) in [
            (
                "",
                "`address` is missing: expected an address and port such as `127.0.0.1:9081`",
            ),
            (
                "tls = false\naddress = \"127.0.0.1:80\"\n",
                "something else listens on `127.0.0.1:80` already",
            ),
            (
                "tls = false\naddress = []\n",
                "there is nothing to listen on",
            ),
            (
                "address = \"127.0.0.1:1\"\n",
                "`[verify]` speaks TLS, and there is no certificate",
            ),
        ] {
            let (verify, problems) = try_read(&format!("{place}{rest}"));
            assert!(
                verify.is_none() && problems.contains(&problem.to_owned()),
                "{problems:?}"
            );
        }
        let (verify, problems) =
            try_read("from = \"::1\"\naddress = \"[::1]:1\"\ntls = false\nstyle = \"nginx\"\n");
        assert!(verify.is_none() && problems.len() == 1, "{problems:?}");
    }
}
