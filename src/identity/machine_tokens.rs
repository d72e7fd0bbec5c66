//! Tokens that the gate itself gives to programs, each for one application, a part of it and a time.
//!
//! They are kept in `tokens.toml`, which `portcullis tokens` writes as `portcullis users` writes
//! accounts: the whole file anew, under a lock, by an atomic rename, readable by its owner alone. It
//! holds hashes of secrets, so that whoever reads it can show none.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;

use crate::pure::identity::{Claims, User, is_name};
use crate::pure::machine_token::{self, Id, Shown};
use crate::pure::pattern::Pattern;
use crate::pure::seal;
use crate::pure::session::Seconds;
use crate::pure::table::{Key, Problem, Problems, Table};
use crate::pure::target::Oddities;

use super::accounts::{self, EditError, group_name, quoted};

/// The name of the method of the gate's own tokens.
pub const TOKENS: &str = "tokens";
/// No token is given for longer.
pub const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// Keys of `tokens.toml`.
pub const FILE_KEYS: &[Key] = &[Key {
    name: "token",
    kind: "tables by id",
    default: "none",
    doc: "The tokens, one `[token.ID]` each; written by `portcullis tokens`.",
}];

/// Keys of `[token.ID]` in `tokens.toml`.
pub const KEYS: &[Key] = &[
    Key {
        name: "name",
        kind: "string",
        default: "none: required",
        doc: "The user that whoever shows it is. Two tokens of one name are one user, so that one can take over from the other.",
    },
    Key {
        name: "hash",
        kind: "string",
        default: "none: required",
        doc: "SHA-256 of its secret, in hexadecimal digits.",
    },
    Key {
        name: "app",
        kind: "name of a policy",
        default: "none: required",
        doc: "The one application that takes it.",
    },
    Key {
        name: "path",
        kind: "path",
        default: "all",
        doc: "It is for this path and all below it, by whole segments and in exactly these letters.",
    },
    Key {
        name: "methods",
        kind: "list of methods",
        default: "all",
        doc: "It is for requests with one of these methods.",
    },
    Key {
        name: "groups",
        kind: "list of strings",
        default: "[]",
        doc: "The groups its user is in.",
    },
    Key {
        name: "created",
        kind: "date",
        default: "none: required",
        doc: "When it was made, as HTTP writes dates.",
    },
    Key {
        name: "expires",
        kind: "date",
        default: "none: required",
        doc: "When it ends; a token that never ends is refused.",
    },
];

/// One token, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineToken {
    /// The user that whoever shows it is.
    pub name: Arc<str>,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// What it is for.
    pub scope: Arc<Scope>,
    /// The groups its user is in.
    pub groups: Vec<Arc<str>>,
    /// When it was made.
    pub created: Seconds,
    /// When it ends.
    pub expires: Seconds,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The application.
    pub app: Arc<str>,
    /// The part of it; all where there is none.
    pub path: Option<Pattern>,
    /// The methods; all where there are none.
    pub methods: Vec<Method>,
}

impl Scope {
    /// Whether it is for this.
    pub fn allows(&self, app: &str, method: &Method, path: &str) -> bool {
        let path_is_in = |pattern: &Pattern| pattern.matches(path, false).is_some();
        *self.app == *app
            && self.path.as_ref().is_none_or(path_is_in)
            && (self.methods.is_empty() || self.methods.contains(method))
    }
}

/// Why a token is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadMachineToken {
    /// It is cut or mistyped.
    NotWhole,
    /// The gate does not know it, or not any more.
    Unknown,
    /// It has ended.
    Expired,
}

impl BadMachineToken {
    /// The reason in log and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotWhole => "sign_in.token_malformed",
            Self::Unknown => "sign_in.token_unknown",
            Self::Expired => "sign_in.token_expired",
        }
    }
}

/// The tokens that the gate has given and not taken back.
#[derive(Debug, Default)]
pub struct MachineTokens(BTreeMap<Id, MachineToken>);

impl MachineTokens {
    /// The tokens that a `tokens.toml` writes; `None` when some can't be read, after adding each problem.
    pub fn parse(file: &str, text: &str, problems: &Problems) -> Option<Self> {
        // What stands there by mistake may be a token: no line is shown.
        let found = Problems::default();
        let tokens = Table::parse(file, text, FILE_KEYS, &found).map(|table| {
            let tables = table.named_tables("token", KEYS);
            let read = |(id, table): (String, Table)| token(&id, &table, &found);
            tables.into_iter().filter_map(read).collect()
        });
        let usable = found.is_empty();
        for problem in found.into_sorted() {
            problems.add(Problem {
                source_line: String::new(),
                ..problem
            });
        }
        tokens.filter(|_| usable).map(Self)
    }

    /// Every token, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &MachineToken)> {
        self.0.iter()
    }

    /// Adds a token.
    pub fn add(&mut self, id: Id, token: MachineToken) {
        self.0.insert(id, token);
    }

    /// Takes a token back; answers with it, if there was one.
    pub fn revoke(&mut self, id: &Id) -> Option<MachineToken> {
        self.0.remove(id)
    }

    /// The token that was shown.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn find(
        &self,
        text: &str,
        now: SystemTime,
    ) -> Result<(&Id, &MachineToken), BadMachineToken> {
        let Shown { id, hash } =
            machine_token::parse(text).map_err(|_| BadMachineToken::NotWhole)?;
        let known = self.0.get_key_value(&id);
        let (id, token) = known
            .filter(|(_, token)| seal::same(&token.hash, &hash))
            .ok_or(BadMachineToken::Unknown)?;
        if token.expires <= Seconds::of(now) {
            return Err(BadMachineToken::Expired);
        }
        Ok((id, token))
    }

    /// The text of a `tokens.toml` with these.
    pub fn render(&self) -> String {
        let mut text = "# The gate's own tokens; written by `portcullis tokens`.\n".to_owned();
        for (id, token) in &self.0 {
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "\n[token.{}]\nname = {}\nhash = {}\napp = {}\n",
                quoted(id.as_str()),
                quoted(&token.name),
                quoted(&machine_token::hash_text(&token.hash)),
                quoted(&token.scope.app),
            );
            if let Some(Pattern::Prefix(path) | Pattern::Exact(path)) = &token.scope.path {
                let _ = writeln!(text, "path = {}", quoted(path));
            }
            let list = |items: Vec<String>| items.join(", ");
            let methods = token.scope.methods.iter();
            if !token.scope.methods.is_empty() {
                let methods = list(methods.map(|one| quoted(one.as_str())).collect());
                let _ = writeln!(text, "methods = [{methods}]");
            }
            let groups = list(token.groups.iter().map(|group| quoted(group)).collect());
            let _ = write!(
                text,
                "groups = [{groups}]\ncreated = {}\nexpires = {}\n",
                quoted(&date_text(token.created)),
                quoted(&date_text(token.expires))
            );
        }
        text
    }
}

impl MachineToken {
    /// The user that it makes of whoever shows it; when it was made is when they signed in.
    pub fn user(&self, id: &Id) -> User {
        let mut claims = Claims::new();
        claims.insert("token_id".to_owned(), id.as_str().into());
        User {
            name: Arc::clone(&self.name),
            provider: TOKENS.into(),
            email: None,
            groups: self.groups.clone(),
            claims: Arc::new(claims),
            signed_in_at: self.created.time().unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// What tells it from another, or from itself with other words.
    pub fn fingerprint(&self, id: &Id) -> [u8; 32] {
        seal::hash(format!("{id:?}{self:?}").as_bytes())
    }
}

fn token(id: &str, table: &Table, problems: &Problems) -> Option<(Id, MachineToken)> {
    let at = |line, message: String| problems.add(accounts::at(table.file(), line, message));
    let parsed = Id::parse(id).map_err(|_| {
        at(table.line(), "an id has 12 hexadecimal digits".to_owned());
    });
    for (key, what) in [
        ("name", "the user that it makes"),
        ("hash", "the hash of its secret"),
        ("app", "the application that takes it"),
        ("created", "when it was made"),
        ("expires", "when it ends: there are no tokens without end"),
    ] {
        if !table.has(key) {
            at(table.line(), format!("`{key}` is missing: {what}"));
        }
    }
    let name = table.value("name", token_name);
    let hash = table.value("hash", |text| {
        machine_token::parse_hash(text).map_err(|_| "64 hexadecimal digits".to_owned())
    });
    let app = table.value("app", |text| match text {
        "" => Err("the name of a policy".to_owned()),
        app => Ok(app.into()),
    });
    let path = table.value("path", path);
    let before = problems.count();
    let methods = table.list("methods", method);
    // An empty list would be read as no limit.
    if methods.as_ref().is_some_and(Vec::is_empty) && problems.count() == before {
        let message = "`methods` has an empty list".to_owned();
        at(table.line_of("methods"), message);
    }
    let groups = table.list("groups", |text| {
        group_name(text).ok_or_else(|| "a group's name".to_owned())
    });
    let (created, expires) = (table.value("created", date), table.value("expires", date));
    let scope = Scope {
        app: app?,
        path,
        methods: methods.unwrap_or_default(),
    };
    let token = MachineToken {
        name: name?,
        hash: hash?,
        scope: Arc::new(scope),
        groups: groups.unwrap_or_default(),
        created: created?,
        expires: expires?,
    };
    Some((parsed.ok()?, token))
}

/// The name of a token.
///
/// # Errors
/// What was expected.
pub fn token_name(text: &str) -> Result<Arc<str>, String> {
    let name = is_name(text).then(|| text.into());
    name.ok_or_else(|| "a name without control characters, and no space at its ends".to_owned())
}

/// The part of an application that a token is for.
///
/// # Errors
/// What was expected.
pub fn path(text: &str) -> Result<Pattern, String> {
    Pattern::path(text, Oddities::NONE).map(Pattern::Prefix)
}

/// A method that a token is for.
///
/// # Errors
/// What was expected.
pub fn method(text: &str) -> Result<Method, String> {
    let upper = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if upper => Ok(method),
        Ok(_) | Err(_) => Err("a method in upper case, such as `GET`".to_owned()),
    }
}

fn date(text: &str) -> Result<Seconds, String> {
    httpdate::parse_http_date(text)
        .map(Seconds::of)
        .map_err(|_| "a date such as `Sun, 06 Nov 1994 08:49:37 GMT`".to_owned())
}

/// A time as files and lists have it.
pub fn date_text(time: Seconds) -> String {
    httpdate::fmt_http_date(time.time().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// The tokens in the file at `path`; `None` after adding its problems.
pub fn load(path: &Path, problems: &Problems) -> Option<MachineTokens> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => MachineTokens::parse(&name, &text, problems),
        Err(why) => {
            let hint = "`portcullis tokens create` makes it".to_owned();
            problems.about_file(&name, format!("can't be read: {why}"), Some(hint));
            None
        }
    }
}

/// Changes the tokens in the file at `path`, made if there is none. Whoever edits at the same time
/// waits.
///
/// # Errors
/// Why nothing was changed.
pub fn edit<T>(path: &Path, change: impl FnOnce(&mut MachineTokens) -> T) -> Result<T, EditError> {
    accounts::edit_file(path, |text, problems| {
        let mut tokens = match text {
            Some(text) => MachineTokens::parse(&path.display().to_string(), text, problems)?,
            None => MachineTokens::default(),
        };
        let changed = change(&mut tokens);
        Some((changed, tokens.render()))
    })
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is written as the same again.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn machine_tokens(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let problems = Problems::default();
        if let Some(tokens) = MachineTokens::parse("f", text, &problems) {
            let rendered = tokens.render();
            let again = MachineTokens::parse("f", &rendered, &problems).expect("reads again");
            assert_eq!(again.0, tokens.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::UNIX_EPOCH;

    use super::*;

    const CREATED: &str = "created = \"Sun, 06 Nov 1994 08:49:37 GMT\"\n";
    const EXPIRES: &str = "expires = \"Sun, 06 Nov 2044 08:49:37 GMT\"\n";

    fn whole() -> String {
        format!(
            "[token.010101010101]\nname = \"backup\"\nhash = \"{}\"\napp = \"wiki\"\npath = \"/api\"\nmethods = [\"GET\"]\ngroups = [\"bots\"]\n{CREATED}{EXPIRES}",
            machine_token::hash_text(&seal::hash(&[2; 32]))
        )
    }

    fn parse(text: &str) -> Result<MachineTokens, Vec<String>> {
        let problems = Problems::default();
        MachineTokens::parse("tokens.toml", text, &problems).ok_or_else(|| {
            let problems = problems.into_sorted();
            assert!(problems.iter().all(|one| one.source_line.is_empty()));
            problems.into_iter().map(|one| one.message).collect()
        })
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_found_by_its_secret_until_it_ends() {
        let tokens = parse(&whole()).unwrap();
        let (text, _) = machine_token::new(&Id::new(&[1; 6]), &[2; 32]);
        let (id, token) = tokens.find(&text, at(1_000_000_000)).unwrap();
        let user = token.user(id);
        assert_eq!((&*user.name, &*user.provider), ("backup", "tokens"));
        assert_eq!(user.groups, [Arc::<str>::from("bots")]);
        assert_eq!(user.signed_in_at, at(784_111_777));
        let found = |text: &str, now| tokens.find(text, at(now)).map(|_| ());
        assert_eq!(found(&text, 2_362_207_777), Err(BadMachineToken::Expired));
        assert_eq!(found(&text[..80], 0), Err(BadMachineToken::NotWhole));
        let (other, _) = machine_token::new(&Id::new(&[1; 6]), &[3; 32]);
        assert_eq!(found(&other, 0), Err(BadMachineToken::Unknown));
        let (other, _) = machine_token::new(&Id::new(&[2; 6]), &[2; 32]);
        assert_eq!(found(&other, 0), Err(BadMachineToken::Unknown));
    }

    #[test]
    fn a_token_is_for_its_application_part_and_methods() {
        let tokens = parse(&whole()).unwrap();
        let scope = &tokens.iter().next().unwrap().1.scope;
        assert!(scope.allows("wiki", &Method::GET, "/api/pages"));
        for (app, method, path) in [
            ("shop", Method::GET, "/api"),
            ("wiki", Method::HEAD, "/api"),
            ("wiki", Method::GET, "/apis"),
            ("wiki", Method::GET, "/API"),
            ("wiki", Method::GET, "/"),
        ] {
            assert!(!scope.allows(app, &method, path), "{app} {method} {path}");
        }
        let wide = whole().replace("path = \"/api\"\nmethods = [\"GET\"]\n", "");
        let tokens = parse(&wide).unwrap();
        let scope = &tokens.iter().next().unwrap().1.scope;
        assert!(scope.allows("wiki", &Method::DELETE, "/"));
    }

    #[test]
    fn a_token_without_end_or_with_an_empty_limit_is_refused() {
        for (from, to) in [
            (EXPIRES, ""),
            (EXPIRES, "expires = \"never\"\n"),
            (CREATED, ""),
            ("app = \"wiki\"\n", ""),
            ("methods = [\"GET\"]", "methods = []"),
            ("methods = [\"GET\"]", "methods = [\"get\"]"),
            ("path = \"/api\"", "path = \"api\""),
            ("path = \"/api\"", "path = \"/a/../b\""),
            ("name = \"backup\"", "name = \"\""),
            ("010101010101", "01010101010A"),
            ("groups = [\"bots\"]", "scopes = [\"bots\"]"),
        ] {
            let problems = parse(&whole().replace(from, to)).unwrap_err();
            assert_eq!(problems.len(), 1, "{to}: {problems:?}");
        }
    }

    #[test]
    fn a_file_is_made_changed_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let tokens = parse(&whole()).unwrap();
        let (id, token) = tokens.iter().next().unwrap();
        edit(&path, |tokens| tokens.add(id.clone(), token.clone())).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let loaded = load(&path, &Problems::default()).unwrap();
        assert_eq!(loaded.0, tokens.0);
        let revoked = edit(&path, |tokens| tokens.revoke(id)).unwrap();
        assert_eq!(revoked.as_ref(), Some(token));
        assert!(load(&path, &Problems::default()).unwrap().0.is_empty());
        fuzzing::machine_tokens(whole().as_bytes());
    }
}
