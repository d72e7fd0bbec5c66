//! `docs/configuration.md`, written from the keys that the readers know.

use std::fmt::Write as _;

use crate::identity::{accounts, provider};
use crate::pipeline::{access, network, rate, request_headers, sign_in};
use crate::pure::table::Key;

use super::{expectation, gateway, policy};

const INTRODUCTION: &str = "# Configuration

<!-- Written by `portcullis reference`; a test holds it to the program. -->

`portcullis.toml` holds what belongs to the gateway; each file in `policies/` protects one application;
files in `policies/tests/` say what the policies are expected to say. `portcullis check` reads all of
them and shows every problem at once. Edits are taken up live; a broken edit, or one that breaks an
expectation, changes nothing and is reported.

An unknown key is an error. Durations are written `15m`, `1h30m` or `500ms`, sizes `10MiB` or `512`,
rates `20/s` or `300/m`, networks `10.0.0.0/8` or `2001:db8::/32`.
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n## `portcullis.toml`\n");
    for (heading, keys) in [
        ("", gateway::KEYS),
        ("[[listen]]", gateway::LISTEN),
        (
            "[[listen]] client_certificates",
            gateway::CLIENT_CERTIFICATES,
        ),
        ("[tls]", gateway::TLS),
        ("[tls] certificates", gateway::CERTIFICATE),
        ("[trusted_proxies]", network::TRUST_KEYS),
        ("[accounts]", gateway::ACCOUNTS),
        ("[provider.NAME]", provider::KEYS),
        ("[session]", gateway::SESSION),
        ("[limits]", gateway::LIMITS),
        ("[headers]", request_headers::GATEWAY_KEYS),
        ("[log]", gateway::LOG),
        ("[admin]", gateway::ADMIN),
    ] {
        section(&mut page, heading, keys);
    }
    page.push_str("\n## `policies/NAME.toml`\n");
    for (heading, keys) in [
        ("", policy::KEYS),
        ("[network]", network::KEYS),
        ("[rate]", rate::KEYS),
        ("[sign_in]", sign_in::KEYS),
        ("[access]", access::KEYS),
        ("[access.deny]", access::DENY_KEYS),
        ("[headers]", request_headers::KEYS),
        ("[target]", policy::TARGET),
        ("[backend]", policy::BACKEND),
        ("[limits]", policy::LIMITS),
        ("[[path]]", policy::PATH),
    ] {
        section(&mut page, heading, keys);
    }
    page.push_str("\n## `policies/tests/NAME.toml`\n");
    section(&mut page, "[[test]]", expectation::TEST);
    page.push_str("\n## `users.toml`\n\nWritten by `portcullis users`.\n");
    section(&mut page, "[user.NAME]", accounts::KEYS);
    page
}

fn section(page: &mut String, heading: &str, keys: &[Key]) {
    if !heading.is_empty() {
        let _ = write!(page, "\n### `{heading}`\n");
    }
    page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_page_is_the_one_that_is_written() {
        let committed = include_str!("../../docs/configuration.md");
        assert!(
            committed == super::markdown(),
            "write it anew: cargo run -- reference > docs/configuration.md"
        );
    }
}
