//! Where a secret is kept: never in the configuration itself.
//!
//! A key that takes a secret takes `{ file = ".." }`, `{ env = ".." }` or `{ credential = ".." }`. A
//! text in its place is a problem, which does not show it.

use std::path::PathBuf;

use super::table::{Key, Table};

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In this file, relative to the configuration's directory.
    File(PathBuf),
    /// In this environment variable.
    Env(String),
    /// In this systemd credential: a file of that name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}

/// The keys of a secret.
pub const KEYS: &[Key] = &[
    Key {
        name: "file",
        kind: "file",
        default: "none",
        doc: "The file that holds the secret; a line end after it does not belong to it.",
    },
    Key {
        name: "env",
        kind: "name",
        default: "none",
        doc: "The environment variable that holds it. Other programs of the same user can read it.",
    },
    Key {
        name: "credential",
        kind: "name",
        default: "none",
        doc: "The systemd credential that holds it (`LoadCredential=`).",
    },
];

const EXPECTED: &str = "`{ file = \"..\" }`, `{ env = \"..\" }` or `{ credential = \"..\" }`";

impl SecretSource {
    /// Reads the secret that `key` names; `None` without one, and after adding what can't be used.
    pub fn read(table: &Table, key: &'static str) -> Option<Self> {
        if !table.has(key) {
            return None;
        }
        if !table.is_table(key) {
            let message = format!("`{key}` is a secret, which never stands in the configuration");
            let hint = format!("say where it is kept: {EXPECTED}");
            table.problem_unshown(key, message, Some(hint));
            return None;
        }
        let secret = table.table(key, KEYS)?;
        let before = secret.problems().count();
        let sources = [
            secret.value("file", file).map(Self::File),
            secret.value("env", variable).map(Self::Env),
            secret.value("credential", credential).map(Self::Credential),
        ];
        let mut stated = sources.into_iter().flatten();
        let first = stated.next();
        if secret.problems().count() > before {
            return None;
        }
        if first.is_none() || stated.next().is_some() {
            secret.problem(key_of(&secret), format!("expected one of {EXPECTED}"), None);
            return None;
        }
        first
    }
}

/// The path of a file that holds a private key. The key itself in its place is a problem, which does
/// not show it.
pub fn key_file(table: &Table, key: &'static str) -> Option<String> {
    let text = table.string(key)?;
    if text.contains('\n') || text.contains("-----") {
        let message = format!("`{key}` is the path of a file, not what the file holds");
        table.problem_unshown(key, message, None);
        return None;
    }
    table.value(key, |text| file(text).map(|_| text.to_owned()))
}

/// Where to point when there are several sources, or none.
fn key_of(secret: &Table) -> &'static str {
    let written = KEYS.iter().rev().find(|key| secret.has(key.name));
    written.map_or("file", |key| key.name)
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        Err("expected the path of a file".to_owned())
    } else {
        Ok(text.into())
    }
}

fn variable(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.chars().all(plain) && text.starts_with(|c: char| !c.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("expected the name of an environment variable, without `$`".to_owned())
    }
}

fn credential(text: &str) -> Result<String, String> {
    // systemd takes whatever can name a file; more would leave the credentials' directory.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if text.chars().all(plain) && text.starts_with(|c: char| c != '.') && text.len() <= 255 {
        Ok(text.to_owned())
    } else {
        Err("expected the name of a systemd credential".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::table::Problems;

    const SECTION: &[Key] = &[Key {
        name: "client_secret",
        kind: "secret",
        default: "none",
        doc: "A secret.",
    }];

    fn read(text: &str) -> (Option<SecretSource>, String) {
        let problems = Problems::default();
        let table = Table::parse("p.toml", text, SECTION, &problems).unwrap();
        let source = SecretSource::read(&table, "client_secret");
        let shown = problems.into_sorted();
        (source, shown.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_secret_comes_from_a_file_the_environment_or_a_credential() {
        for (text, source) in [
            (
                "client_secret = { file = \"a/b\" }",
                Some(SecretSource::File("a/b".into())),
            ),
            (
                "client_secret.env = \"APP_SECRET\"",
                Some(SecretSource::Env("APP_SECRET".to_owned())),
            ),
            (
                "[client_secret]\ncredential = \"oidc.secret\"",
                Some(SecretSource::Credential("oidc.secret".to_owned())),
            ),
            ("", None),
        ] {
            assert_eq!(read(text), (source, String::new()), "{text}");
        }
    }

    #[test]
    fn a_secret_in_the_configuration_is_refused_and_not_shown() {
        for text in [
            "client_secret = \"hunter2\"",
            "client_secret = [\"hunter2\"]",
            "client_secret = '''hunter2\n'''",
        ] {
            let (source, shown) = read(text);
            assert_eq!(source, None);
            assert!(
                shown.contains("never stands in the configuration"),
                "{shown}"
            );
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_private_key_in_the_configuration_is_refused_and_not_shown() {
        for (text, path) in [
            (
                "client_secret = \"certs/a.key\"",
                Some("certs/a.key".to_owned()),
            ),
            ("client_secret = \"\"", None),
            (
                "client_secret = '''-----BEGIN PRIVATE KEY-----\nhunter2'''",
                None,
            ),
            ("client_secret = 'hunter2-----END PRIVATE KEY-----'", None),
        ] {
            let problems = Problems::default();
            let table = Table::parse("p.toml", text, SECTION, &problems).unwrap();
            assert_eq!(key_file(&table, "client_secret"), path);
            let shown = problems.into_sorted();
            let shown: String = shown.iter().map(ToString::to_string).collect();
            assert_eq!(shown.is_empty(), path.is_some(), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_secret_has_one_place() {
        for text in [
            "client_secret = {}",
            "client_secret = { file = \"a\", env = \"B\" }",
            "client_secret = { file = \"\" }",
            "client_secret = { env = \"$A\" }",
            "client_secret = { env = \"1A\" }",
            "client_secret = { env = \"\" }",
            "client_secret = { credential = \"../a\" }",
            "client_secret = { credential = \"..\" }",
            "client_secret = { credential = \"\" }",
            "client_secret = { text = \"a\" }",
        ] {
            let (source, shown) = read(text);
            assert_eq!(source, None, "{text}");
            assert!(shown.starts_with("p.toml:1:"), "{text}: {shown}");
        }
    }
}
