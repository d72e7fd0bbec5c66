//! The shipped policies: what a user copies has to work.

use std::path::Path;

use portcullis::config::{self, Files};
use portcullis::pure::table::Problems;

const GATEWAY: &str = r#"
[[listen]]
address = "127.0.0.1:0"
tls = false

[provider.ci]
kind       = "jwt"
issuer     = "https://issuer.example.com"
audience   = ["orders-api"]
jwks_url   = "https://issuer.example.com/jwks.json"
algorithms = ["RS256", "ES256"]
"#;

#[track_caller]
fn reads(gateway: &str, policies: Vec<(String, String)>) {
    let problems = Problems::default();
    let load = |file: &str| match file {
        "certs/internal-ca.pem" => {
            let names = ["ca.test".to_owned()];
            let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
            Ok(made.cert.pem())
        }
        _ => Err(format!("`{file}` is not there")),
    };
    let files = Files {
        gateway: gateway.to_owned(),
        policies,
        tests: Vec::new(),
        load: &load,
    };
    let read = config::read(&files, &problems).is_some();
    let problems: String = problems
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(read && problems.is_empty(), "{problems}");
}

fn below(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut policies: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory")
        .filter_map(|entry| {
            let path = entry.expect("an entry").path();
            let name = config::policy_name(&path)?;
            Some((name, std::fs::read_to_string(&path).expect("a file")))
        })
        .collect();
    policies.sort();
    policies
}

#[test]
fn every_example_can_be_used_as_it_stands() {
    let examples = below("policies/examples");
    assert!(examples.len() >= 5);
    for example in examples {
        reads(GATEWAY, vec![example]);
    }
}

#[test]
fn the_shipped_configuration_can_be_used() {
    let gateway =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("portcullis.toml"));
    reads(&gateway.expect("the file"), below("policies"));
}

#[test]
fn every_toml_block_of_the_documentation_can_be_used() {
    let mut blocks = 0;
    for page in ["README.md", "docs/operations.md", "docs/tokens.md"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page))
            .expect("the page");
        let parts = text.split("```toml\n").skip(1);
        let shown: Vec<_> = parts
            .map(|block| block.split("```").next().expect("an end"))
            .collect();
        // A policy may name the methods of its page.
        let providers = shown.iter().filter(|block| {
            let mut lines = block.lines();
            !block.starts_with("# policies/") && lines.any(|line| line.starts_with("[provider."))
        });
        let of_page = providers.fold(GATEWAY.to_owned(), |all, block| all + "\n" + block);
        for block in shown {
            blocks += 1;
            if block.starts_with("# policies/") {
                reads(&of_page, vec![("documented".to_owned(), block.to_owned())]);
            } else {
                reads(
                    &format!("{block}\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n"),
                    below("policies"),
                );
            }
        }
    }
    assert!(blocks >= 12);
}

#[test]
fn every_provider_page_has_a_provider_and_a_policy_that_go_together() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers");
    let index = std::fs::read_to_string(directory.join("README.md")).expect("the index");
    let mut pages = 0;
    for entry in std::fs::read_dir(&directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name == "README.md" {
            continue;
        }
        assert!(
            index.contains(&format!("({name})")),
            "{name} is not in the index"
        );
        let text = std::fs::read_to_string(&path).expect("the page");
        let blocks = text.split("```toml\n").skip(1);
        let blocks = blocks.map(|block| block.split("\n```").next().expect("an end").to_owned());
        let (policies, gateway): (Vec<_>, Vec<_>) =
            blocks.partition(|block| block.starts_with("# policies/"));
        assert!(!policies.is_empty() && gateway.len() == 1, "{name}");
        let named = policies.into_iter().enumerate();
        let named = named.map(|(number, policy)| (format!("documented{number}"), policy));
        reads(
            &format!(
                "{}\n[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n",
                gateway[0]
            ),
            named.collect(),
        );
        pages += 1;
    }
    assert_eq!(pages, 10);
}
