//! What holds the shape of the source: which module may use which, what is pure, where each
//! dependency lives, and that every parser is fuzzed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Uses of a module declared below, each with the reason why it can't be otherwise.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// The only files that import a dependency, so that an advisory or a swap touches no others.
const HOMES: &[(&str, &[&str])] = &[
    ("argon2", &["identity/password.rs"]),
    ("bcrypt", &["identity/password.rs"]),
    (
        "clap",
        &[
            "cli.rs",
            "cli/explain.rs",
            "cli/probe.rs",
            "cli/sessions.rs",
            "cli/tokens.rs",
            "cli/users.rs",
        ],
    ),
    ("cookie", &["pure/cookie.rs"]),
    ("governor", &["pipeline/rate.rs"]),
    ("hyper", &["edge/http2.rs"]),
    ("ipnetwork", &["pure/cidr.rs"]),
    ("jsonwebtoken", &["pure/jwk.rs"]),
    ("notify", &["boot/watch.rs"]),
    (
        "openidconnect",
        &[
            "identity/github.rs",
            "identity/metadata.rs",
            "identity/oidc/begin.rs",
            "identity/oidc/end.rs",
            "identity/oidc/endpoint.rs",
            "identity/oidc/vouch.rs",
            "identity/provider.rs",
            "identity/tests.rs",
        ],
    ),
    ("rcgen", &["cert.rs", "cert/development.rs"]),
    ("redb", &["session/embedded.rs"]),
    ("redis", &["session/link.rs", "session/redis.rs"]),
    ("socket2", &["edge/listen.rs"]),
    ("toml", &["pure/table.rs"]),
];

/// What a value needs no more than its arguments for.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "TcpStream",
    "UdpSocket",
    "tokio",
    "tracing",
    "SystemTime::now",
    "Instant::now",
    "rand::",
    "println!",
    "async ",
    ".await",
];

/// A source file: its module's path, its text without tests and comments, and its text as it is.
struct Source {
    file: String,
    module: Vec<String>,
    text: String,
    whole: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let file = path
                .strip_prefix(&root)
                .expect("below src")
                .display()
                .to_string();
            let Some(stem) = file.strip_suffix(".rs") else {
                continue;
            };
            if stem == "main" || stem.ends_with("tests") {
                continue;
            }
            let module = if stem == "lib" {
                Vec::new()
            } else {
                stem.split('/').map(str::to_owned).collect()
            };
            let whole = std::fs::read_to_string(&path).expect("a source file");
            found.push(Source {
                text: without_tests(&whole),
                file,
                module,
                whole,
            });
        }
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(found.len() > 50, "the tree is somewhere else");
    found
}

/// Leaves out comments and the items that only tests and fuzz targets see.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let bare = line.trim_start();
        if bare.starts_with("#[cfg(test)]") || bare.starts_with("#[cfg(any(test") {
            let indent = &line[..line.len() - bare.len()];
            let end = format!("{indent}}}");
            let item = lines
                .by_ref()
                .find(|line| !line.trim_start().starts_with('#'))
                .unwrap_or_default();
            if !item.ends_with(';') && !item.ends_with('}') {
                let _ = lines.by_ref().find(|line| *line == end);
            }
        } else if !bare.starts_with("//") {
            kept.push_str(line.split(" // ").next().unwrap_or_default());
            kept.push('\n');
        }
    }
    kept
}

/// The modules that a file declares, in order.
fn declared(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            line.trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .map(str::to_owned)
        .collect()
}

/// Every path below `prefix` that the text names, groups in braces taken apart.
fn named(text: &str, prefix: &str) -> Vec<Vec<String>> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    text.match_indices(prefix)
        .filter(|(at, _)| !text[..*at].ends_with(inside))
        .flat_map(|(at, _)| expand(&text[at + prefix.len()..]).0)
        .collect()
}

fn expand(text: &str) -> (Vec<Vec<String>>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut paths = Vec::new();
        loop {
            let (more, after) = expand(rest);
            paths.extend(more);
            let separator = after.find([',', '}']).expect("the end of a group");
            rest = after[separator + 1..].trim_start();
            if after[separator..].starts_with('}') {
                return (paths, rest);
            }
            if let Some(after) = rest.strip_prefix('}') {
                return (paths, after);
            }
        }
    }
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let (mut below, rest) = match rest.strip_prefix("::") {
        Some(rest) => expand(rest),
        None => (vec![Vec::new()], rest),
    };
    if word != "self" {
        below
            .iter_mut()
            .for_each(|path| path.insert(0, word.to_owned()));
    }
    (below, rest)
}

#[test]
fn a_module_uses_only_modules_declared_above_it() {
    let sources = sources();
    let order: BTreeMap<&[String], Vec<String>> = sources
        .iter()
        .map(|source| (source.module.as_slice(), declared(&source.text)))
        .collect();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        let parent = &source.module[..source.module.len() - 1];
        let grandparent = &parent[..parent.len().saturating_sub(1)];
        let mut used = named(&source.text, "crate::");
        for (prefix, base) in [("super::", parent), ("super::super::", grandparent)] {
            used.extend(
                named(&source.text, prefix)
                    .into_iter()
                    .filter(|path| path[0] != "super")
                    .map(|path| base.iter().cloned().chain(path).collect()),
            );
        }
        for path in used {
            let common = path
                .iter()
                .zip(&source.module)
                .take_while(|(a, b)| a == b)
                .count();
            let siblings = &order[&source.module[..common]];
            let place = |path: &[String]| {
                siblings
                    .iter()
                    .position(|name| Some(name) == path.get(common))
            };
            let excepted = EXCEPTIONS
                .iter()
                .any(|(file, of, _)| *file == source.file && path.join("::").starts_with(of));
            let ahead = match (place(&path), place(&source.module)) {
                (Some(used), Some(own)) => used >= own,
                // What a stage needs of the whole would make a circle.
                (None, Some(_)) => source.module[0] == "pipeline" && common == 1,
                (_, None) => false,
            };
            if ahead && !excepted {
                wrong.push(format!("{} uses {}", source.file, path.join("::")));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not declared above their users:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn what_is_pure_needs_nothing_but_its_arguments() {
    for source in sources()
        .iter()
        .filter(|source| source.module.first().is_some_and(|top| top == "pure"))
    {
        for impure in IMPURE {
            assert!(
                !source.text.contains(impure),
                "{} has `{impure}`",
                source.file
            );
        }
    }
}

#[test]
fn a_stage_says_at_its_head_for_what_it_refuses() {
    let mut checked = 0;
    for source in sources() {
        let [top, stage] = &source.module[..] else {
            continue;
        };
        if top != "pipeline" {
            continue;
        }
        let head: Vec<&str> = source
            .whole
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let head = head.join("\n");
        // What is between quotes, in every other place.
        for reason in source
            .text
            .split('"')
            .skip(1)
            .step_by(2)
            .filter(|text| text.starts_with(&format!("{stage}.")))
        {
            checked += 1;
            assert!(
                head.contains(&format!("`{reason}`")),
                "{}: the table does not have `{reason}`",
                source.file
            );
        }
    }
    assert!(checked > 30, "the reasons are somewhere else");
}

#[test]
fn each_dependency_has_one_home() {
    for source in sources() {
        for (dependency, homes) in HOMES {
            // A module of ours may have the name of what it makes strict.
            let ours = named(&source.text, "crate::")
                .iter()
                .any(|path| path.last().is_some_and(|last| last == dependency));
            let used = !ours && !named(&source.text, &format!("{dependency}::")).is_empty();
            assert!(
                !used || homes.contains(&&*source.file),
                "{} uses `{dependency}`, which lives in {homes:?}",
                source.file
            );
        }
    }
}

#[test]
fn every_property_has_a_fuzz_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    let mut checked = 0;
    for source in sources() {
        let Some((_, properties)) = source.whole.split_once("pub mod fuzzing {\n") else {
            continue;
        };
        let (properties, _) = properties.split_once("\n}").expect("its end");
        for (name, arguments) in properties
            .lines()
            .filter_map(|line| line.strip_prefix("    pub fn ")?.split_once('('))
        {
            // The others help these.
            if !arguments.ends_with(": &[u8]) {") {
                continue;
            }
            checked += 1;
            let target = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs")))
                .unwrap_or_default();
            assert!(
                target.contains(&format!("portcullis::fuzzing::{name}(")),
                "{}: no target calls `{name}`",
                source.file
            );
            assert!(
                manifest.contains(&format!("name = \"{name}\"")),
                "{name} is not built"
            );
            assert!(
                fuzz.join("corpus").join(name).is_dir(),
                "{name} has no corpus"
            );
        }
    }
    assert!(checked > 20, "the properties are somewhere else");
}

/// Every file below `directory` with this ending: its name without the ending, and its text.
fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                open.push(path);
            } else if let Some(name) = name.strip_suffix(ending) {
                let text = std::fs::read_to_string(&path).expect("a text");
                found.push((name.to_owned(), text));
            }
        }
    }
    found
}

/// The functions of a file that are tests.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().map(str::trim_start).filter_map(move |line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, after)) = line.split_once("fn ") {
            let name = after.split('(').next().unwrap_or_default();
            return std::mem::take(&mut is_test).then_some(name);
        }
        None
    })
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The ids of advisories, such as `T9`.
fn is_id(text: &str) -> bool {
    text.split_at_checked(1)
        .is_some_and(|(letter, number)| "HFPRSJT".contains(letter) && number.parse::<u8>().is_ok())
}

/// A page that says what is shown, and by what, is believed: it must not name what is gone.
#[test]
fn what_security_md_says_is_shown_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("SECURITY.md")).expect("SECURITY.md");
    let sources = [files("src", ".rs"), files("tests", ".rs")].concat();
    let tests: Vec<&str> = sources
        .iter()
        .flat_map(|(_, text)| tests_of(text))
        .collect();
    let attacks = files("tests/attacks", ".http");
    let ids: Vec<&str> = attacks
        .iter()
        .flat_map(|(_, text)| text.lines().take_while(|line| !line.is_empty()))
        .filter_map(|line| line.strip_prefix("advisory: "))
        .collect();
    let targets = files("fuzz/fuzz_targets", ".rs");

    let (mut wrong, mut rows, mut shown) = (Vec::new(), Vec::new(), 0);
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let last = cells.last().expect("a cell");
        if *last == "shown by" {
            continue;
        }
        if is_id(cells[0]) {
            rows.push(cells[0]);
        }
        let (by_test, by_fuzz) = last.split_once("; fuzz ").unwrap_or((last, ""));
        let proofs = quoted(by_test);
        if proofs.is_empty() {
            wrong.push(format!("nothing shows: {line}"));
        }
        for proof in proofs {
            shown += 1;
            let there = if let Some(name) = proof.strip_suffix(".http") {
                attacks.iter().any(|(attack, _)| attack == name)
            } else if is_id(proof) {
                ids.contains(&proof)
            } else {
                tests.contains(&proof)
            };
            if !there {
                wrong.push(format!("`{proof}` is not there"));
            }
        }
        for target in quoted(by_fuzz) {
            if !targets.iter().any(|(name, _)| name == target) {
                wrong.push(format!("there is no fuzz target `{target}`"));
            }
        }
    }
    for id in ids {
        if !rows.contains(&id) {
            wrong.push(format!("{id} has attacks and no row"));
        }
    }
    assert!(
        shown > 200 && rows.len() > 50,
        "the tables are somewhere else"
    );
    wrong.dedup();
    assert!(wrong.is_empty(), "SECURITY.md:\n{}", wrong.join("\n"));
}
