//! `docs/configuration.md`, written from the keys that the readers know.

use std::fmt::Write as _;

use crate::identity::{accounts, machine_tokens, provider};
use crate::pipeline::{access, cors, network, rate, request_headers, sign_in};
use crate::pure::table::Key;

use super::{expectation, gateway, policy, verify};

const INTRODUCTION: &str = "# Configuration

<!-- Written by `portcullis reference`; a test holds it to the program. -->

`portcullis.toml` holds what belongs to the gateway; each file in `policies/` protects one application;
files in `policies/tests/` say what the policies are expected to say. `portcullis check` reads all of
them and shows every problem at once. Edits are taken up live; a broken edit, or one that breaks an
expectation, changes nothing and is reported.

An unknown key is an error. Durations are written `15m`, `1h30m` or `500ms`, sizes `10MiB` or `512`,
rates `20/s` or `300/m`, networks `10.0.0.0/8` or `2001:db8::/32`.
Files are named relative to the directory of `portcullis.toml`. Common cases, ready to copy, stand in
[`policies/examples/`](../policies/examples/).
";

/// A table of a file: its keys, and how it may look.
struct Section {
    heading: &'static str,
    keys: &'static [Key],
    example: &'static str,
}

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, sections) in [
        ("`portcullis.toml`", GATEWAY),
        ("`policies/NAME.toml`", POLICY),
        ("`policies/tests/NAME.toml`", TESTS),
        ("`users.toml`\n\nWritten by `portcullis users`.", USERS),
        ("`tokens.toml`\n\nWritten by `portcullis tokens`.", TOKENS),
    ] {
        let _ = write!(page, "\n## {title}\n");
        for section in sections {
            section.write(&mut page);
        }
    }
    page
}

impl Section {
    fn write(&self, page: &mut String) {
        if !self.heading.is_empty() {
            let _ = write!(page, "\n### `{}`\n", self.heading);
        }
        if !self.example.is_empty() {
            let _ = write!(page, "\n```toml\n{}```\n", self.example);
        }
        page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
        for key in self.keys {
            let cell = |text: &str| text.replace('|', "\\|");
            let default = if key.default.is_empty() {
                "–"
            } else {
                key.default
            };
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                key.name,
                cell(key.kind),
                cell(default),
                cell(key.doc)
            );
        }
    }
}

/// What belongs to the gateway.
const GATEWAY: &[Section] = &[
    Section {
        heading: "",
        keys: gateway::KEYS,
        example: r#"threads = 4
"#,
    },
    Section {
        heading: "[[listen]]",
        keys: gateway::LISTEN,
        example: r#"[[listen]]
address = ["0.0.0.0:443", "[::]:443"]

[[listen]]
address = ["0.0.0.0:80", "[::]:80"]
tls = false
redirect_to_https = 443

[[listen]]                                # behind a load balancer
address = "10.0.0.2:8443"
proxy_protocol_from = ["10.0.0.0/28"]
"#,
    },
    Section {
        heading: "[[listen]] client_certificates",
        keys: gateway::CLIENT_CERTIFICATES,
        example: r#"[[listen]]
address = "0.0.0.0:8444"
client_certificates = { ca = "certs/clients.pem", required = true }
"#,
    },
    Section {
        heading: "[tls]",
        keys: gateway::TLS,
        example: r#"[tls]
certificates = [
    { chain = "certs/wiki.pem", key = "certs/wiki.key" },
    { chain = "certs/shop.pem", key = "certs/shop.key" },
]
hsts = "30d"
"#,
    },
    Section {
        heading: "[tls] certificates",
        keys: gateway::CERTIFICATE,
        example: "",
    },
    Section {
        heading: "[trusted_proxies]",
        keys: network::TRUST_KEYS,
        example: r#"[trusted_proxies]
networks = ["10.0.0.0/28"]
header = "x-forwarded-for"
"#,
    },
    Section {
        heading: "[accounts]",
        keys: gateway::ACCOUNTS,
        example: r#"[accounts]
file = "/var/lib/portcullis/users.toml"
"#,
    },
    Section {
        heading: "[tokens]",
        keys: gateway::TOKENS,
        example: r#"[tokens]
file = "/var/lib/portcullis/tokens.toml"
"#,
    },
    Section {
        heading: "[provider.NAME]",
        keys: provider::KEYS,
        example: r#"[provider.ci]
kind = "jwt"
issuer = "https://issuer.example.com"
audience = ["api.example.com"]
jwks_url = "https://issuer.example.com/.well-known/jwks.json"
groups_claim = "groups"

[provider.opaque]
kind = "introspection"
introspection_url = "https://issuer.example.com/introspect"
client_id = "gate"
client_secret = { file = "/etc/portcullis/opaque.secret" }
audience = ["api.example.com"]

[provider.legacy]
kind = "basic"
file = "state/htpasswd"
groups = ["staff"]
"#,
    },
    Section {
        heading: "[session]",
        keys: gateway::SESSION,
        example: r#"[session]
absolute = "8h"
idle = "30m"
"#,
    },
    Section {
        heading: "[session.redis]",
        keys: gateway::REDIS,
        example: r#"[session.redis]
url = "rediss://redis.example:6379"
user = "portcullis"
password = { credential = "redis" }
key = { file = "state/gates.key" }
"#,
    },
    Section {
        heading: "[assertion]",
        keys: gateway::ASSERTION,
        example: r#"[assertion]
issuer = "https://gate.example.com"
rotate = "14d"
"#,
    },
    Section {
        heading: "[limits]",
        keys: gateway::LIMITS,
        example: r#"[limits]
connections = 50000
connections_per_network = 200
header_bytes = "16KiB"
body_idle = "1m"
"#,
    },
    Section {
        heading: "[headers]",
        keys: request_headers::GATEWAY_KEYS,
        example: r#"[headers]
user = "X-Remote-User"
groups = "X-Remote-Groups"
"#,
    },
    Section {
        heading: "[log]",
        keys: gateway::LOG,
        example: r#"[log]
format = "json"
level = "warn"
"#,
    },
    Section {
        heading: "[admin]",
        keys: gateway::ADMIN,
        example: r#"[admin]
address = "unix:/run/portcullis/admin.sock"
"#,
    },
    Section {
        heading: "[verify]",
        keys: verify::KEYS,
        example: r#"[verify]                                  # see docs/forward-auth.md
address = "127.0.0.1:9081"
tls = false
style = "x-original"
key = { file = "state/verify.key" }
"#,
    },
];

/// What belongs to an application.
const POLICY: &[Section] = &[
    Section {
        heading: "",
        keys: policy::KEYS,
        example: r#"host = ["wiki.example.com", "wiki.example.org"]
backends = ["http://10.0.0.5:8080", "http://10.0.0.6:8080"]
contact = "it@example.com"
"#,
    },
    Section {
        heading: "[network]",
        keys: network::KEYS,
        example: r#"[network]
allow = ["10.0.0.0/8", "2001:db8::/32"]
deny = ["10.66.0.0/16"]
deny_files = ["networks/abuse.txt"]
"#,
    },
    Section {
        heading: "[rate]",
        keys: rate::KEYS,
        example: r#"[rate]
per_client = "20/s"
per_user = "600/m"
per_app = "1000/s"
burst = 40
"#,
    },
    Section {
        heading: "[sign_in]",
        keys: sign_in::KEYS,
        example: r#"[sign_in]
with = ["local", "ci"]
"#,
    },
    Section {
        heading: "[access]",
        keys: access::KEYS,
        example: r#"[access]                     # all that is stated must hold
groups = ["engineering", "support"]
email_domains = ["example.com"]
signed_in_within = "12h"
any = [{ networks = ["10.0.0.0/8"] }, { not = { paths = { prefix = ["/admin"] } } }]
tell_missing = true
"#,
    },
    Section {
        heading: "[access.deny]",
        keys: access::DENY_KEYS,
        example: r#"[[access.deny]]
users = ["mallory"]

[[access.deny]]
groups = ["contractors"]
not = { methods = ["GET", "HEAD"] }
report_only = true             # tried out first
"#,
    },
    Section {
        heading: "[headers]",
        keys: request_headers::KEYS,
        example: r#"[headers]
identity = ["user", "email"]
user = "X-WEBAUTH-USER"
keep = ["X-Build-*"]
remove = ["X-Debug"]
"#,
    },
    Section {
        heading: "[cors]",
        keys: cors::KEYS,
        example: r#"[cors]
origins = ["https://spa.example.com", "http://localhost:5173"]
methods = ["GET", "POST", "PUT"]
headers = ["Content-Type"]
expose = ["X-Total-Count"]
credentials = true
"#,
    },
    Section {
        heading: "[target]",
        keys: policy::TARGET,
        example: r#"[target]                     # GitLab
allow_encoded_slash = true
"#,
    },
    Section {
        heading: "[backend]",
        keys: policy::BACKEND,
        example: r#"[backend]
connect = "2s"
first_byte = "2m"
"#,
    },
    Section {
        heading: "[limits]",
        keys: policy::LIMITS,
        example: r#"[limits]
body = "20MiB"
"#,
    },
    Section {
        heading: "[[path]]",
        keys: policy::PATH,
        example: r#"[[path]]
exact = "/healthz"
access = "public"

[[path]]
prefix = "/admin"
network = { allow = ["10.1.0.0/16"] }
access = { groups = ["wiki-admins"], signed_in_within = "15m" }
"#,
    },
];

/// What policies are expected to say.
const TESTS: &[Section] = &[Section {
    heading: "[[test]]",
    keys: expectation::TEST,
    example: r#"[[test]]
name = "administrators administer the wiki from the office"
url = "https://wiki.example.com/admin"
from = "10.1.2.3"
user = "grace"
groups = ["engineering", "wiki-admins"]
email = "grace@example.com"
expect = "allow"

[[test]]
name = "contractors will only read"
url = "https://wiki.example.com/"
method = "POST"
from = "10.1.2.3"
user = "carol"
groups = ["support", "contractors"]
email = "carol@example.com"
claims = { department = ["research"] }
expect = "allow"
would_refuse = "access.denied"
"#,
}];

/// Local accounts.
const USERS: &[Section] = &[Section {
    heading: "[user.NAME]",
    keys: accounts::KEYS,
    example: "",
}];

/// The gate's own tokens.
const TOKENS: &[Section] = &[Section {
    heading: "[token.ID]",
    keys: machine_tokens::KEYS,
    example: "",
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{broken, read};

    fn examples(sections: &[Section]) -> String {
        sections.iter().map(|section| section.example).collect()
    }

    #[test]
    fn the_committed_page_is_the_one_that_is_written() {
        let committed = include_str!("../../docs/configuration.md");
        assert!(
            committed == markdown(),
            "write it anew: cargo run -- reference > docs/configuration.md"
        );
    }

    #[test]
    fn the_examples_of_a_file_can_be_used_together() {
        let config = read(
            &examples(GATEWAY),
            &[("wiki", &examples(POLICY))],
            &[("wiki", &examples(TESTS))],
        )
        .unwrap();
        assert_eq!(broken(&config), Vec::<String>::new());
    }

    #[test]
    fn every_section_says_what_each_of_its_keys_does() {
        for section in [GATEWAY, POLICY, TESTS, USERS, TOKENS]
            .into_iter()
            .flatten()
        {
            for (at, key) in section.keys.iter().enumerate() {
                let ends = key.doc.ends_with('.');
                assert!(ends && !key.kind.is_empty(), "{key:?}");
                let twin = section
                    .keys
                    .iter()
                    .skip(at + 1)
                    .find(|other| other.name == key.name);
                assert_eq!(twin, None);
            }
        }
    }
}
