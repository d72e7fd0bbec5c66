//! Accounts: who has a password here.
//!
//! Local ones are kept in `users.toml`, which `portcullis users` writes: the whole file anew, under a
//! lock, by an atomic rename, readable by its owner alone. Those of a method with `kind = "basic"`
//! come from an `htpasswd` file. A problem with either is told with its line, and without the text
//! of it, which may be a password.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::keys;
use crate::pure::identity::{User, is_email, is_name};
use crate::pure::table::{Key, Problem, Problems, Table};

use super::htpasswd;
use super::password::Stored;

/// The name of the method of local accounts.
pub const LOCAL: &str = "local";
/// Keys of `users.toml`.
pub const FILE_KEYS: &[Key] = &[Key {
    name: "user",
    kind: "tables by name",
    default: "none",
    doc: "The accounts, one `[user.NAME]` each; written by `portcullis users`.",
}];

/// Keys of `[user.NAME]` in `users.toml`.
pub const KEYS: &[Key] = &[
    Key {
        name: "password",
        kind: "string",
        default: "none: required",
        doc: "The hash of the password: argon2id, or bcrypt for accounts that come from elsewhere.",
    },
    Key {
        name: "groups",
        kind: "list of strings",
        default: "[]",
        doc: "The groups the user is in.",
    },
    Key {
        name: "email",
        kind: "string",
        default: "none",
        doc: "The user's e-mail address.",
    },
];

/// One account.
#[derive(Clone)]
pub struct Account {
    /// The hash of the password.
    pub stored: Arc<Stored>,
    /// Groups the user is in.
    pub groups: Vec<Arc<str>>,
    /// The user's e-mail address.
    pub email: Option<Arc<str>>,
    fingerprint: [u8; 16],
}

impl Account {
    /// An account with the password of this hash.
    pub fn new(stored: Stored, groups: Vec<Arc<str>>, email: Option<Arc<str>>) -> Self {
        let fingerprint = stored.fingerprint();
        Self {
            stored: Arc::new(stored),
            groups,
            email,
            fingerprint,
        }
    }

    /// What tells this password from the one after a change.
    pub const fn fingerprint(&self) -> &[u8; 16] {
        &self.fingerprint
    }
}

/// The accounts of one method.
#[derive(Default)]
pub struct Accounts {
    accounts: BTreeMap<Arc<str>, Account>,
    decoys: Vec<Arc<Stored>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.accounts.keys()).finish()
    }
}

impl Accounts {
    /// The accounts that a `users.toml` writes; `None` when some can't be read, after adding each
    /// problem.
    pub fn parse(file: &str, text: &str, problems: &Problems) -> Option<Self> {
        // Lines of this file are hashes, or passwords put there by mistake: none is shown.
        let found = Problems::default();
        let accounts = Table::parse(file, text, FILE_KEYS, &found).map(|table| {
            let tables = table.named_tables("user", KEYS);
            tables
                .into_iter()
                .filter_map(|(name, table)| {
                    account(&name, &table, &found).map(|account| (name.into(), account))
                })
                .collect()
        });
        let usable = found.is_empty();
        for problem in found.into_sorted() {
            problems.add(Problem {
                source_line: String::new(),
                ..problem
            });
        }
        accounts.filter(|_| usable).map(Self::of)
    }

    /// The accounts of an `htpasswd` file, all in `groups`.
    pub fn from_htpasswd(
        file: &str,
        bytes: &[u8],
        groups: &[Arc<str>],
        problems: &Problems,
    ) -> Option<Self> {
        match htpasswd::parse(bytes) {
            Ok(entries) => Some(Self::of(
                entries
                    .into_iter()
                    .map(|entry| {
                        (
                            entry.name.into(),
                            Account::new(entry.stored, groups.to_vec(), None),
                        )
                    })
                    .collect(),
            )),
            Err(bad) => {
                for line in bad {
                    problems.add(at(file.into(), line.line, line.why.to_string()));
                }
                None
            }
        }
    }

    fn of(accounts: BTreeMap<Arc<str>, Account>) -> Self {
        let decoys = accounts
            .values()
            .map(|account| Arc::clone(&account.stored))
            .collect();
        Self { accounts, decoys }
    }

    /// The account of this name, exactly.
    pub fn get(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)
    }

    /// Every account, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Account)> {
        self.accounts.iter()
    }

    /// The hash that a name unknown to all of `asked` is checked against, so that it takes as long
    /// as a known one: that of some account of any of them, for each may have hashes of its own
    /// kind. Always the same for one name: `tag` is a keyed hash of it.
    pub fn decoy<'a>(
        asked: impl Iterator<Item = &'a Self> + Clone,
        tag: &[u8; 32],
    ) -> Option<Arc<Stored>> {
        let (number, _) = tag.split_first_chunk()?;
        let mut hashes = asked.flat_map(|accounts| &accounts.decoys);
        let count = u64::try_from(hashes.clone().count()).ok()?;
        let at = u64::from_be_bytes(*number).checked_rem(count)?;
        hashes.nth(usize::try_from(at).ok()?).map(Arc::clone)
    }

    /// The user that the account `name` is, signed in at `now`.
    pub fn user(&self, provider: &Arc<str>, name: &str, now: SystemTime) -> Option<User> {
        let (name, account) = self.accounts.get_key_value(name)?;
        Some(User {
            name: Arc::clone(name),
            provider: Arc::clone(provider),
            email: account.email.clone(),
            groups: account.groups.clone(),
            claims: Arc::default(),
            signed_in_at: now,
        })
    }

    /// Adds an account, or puts it in the place of the one with this name.
    pub fn add(&mut self, name: &str, account: Account) {
        self.accounts.insert(name.into(), account);
    }

    /// Removes an account; answers whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.accounts.remove(name).is_some()
    }

    /// The text of a `users.toml` with these accounts.
    pub fn render(&self) -> String {
        let mut text = "# Local accounts; written by `portcullis users`.\n".to_owned();
        for (name, account) in &self.accounts {
            let groups: Vec<_> = account.groups.iter().map(|group| quoted(group)).collect();
            // Writing to a string can't fail.
            let _ = write!(
                text,
                "\n[user.{}]\npassword = {}\ngroups = [{}]\n",
                quoted(name),
                quoted(account.stored.for_file()),
                groups.join(", ")
            );
            if let Some(email) = &account.email {
                let _ = writeln!(text, "email = {}", quoted(email));
            }
        }
        text
    }
}

fn account(name: &str, table: &Table, problems: &Problems) -> Option<Account> {
    if !is_account_name(name) {
        problems.add(at(
            table.file(),
            table.line(),
            htpasswd::NAME_EXPECTED.to_owned(),
        ));
    }
    let password = table.string("password");
    if !table.has("password") {
        let message = "`password` is missing; set it with `portcullis users add`".to_owned();
        problems.add(at(table.file(), table.line(), message));
    }
    let stored = password.and_then(|text| {
        Stored::parse(&text)
            .map_err(|why| {
                problems.add(at(table.file(), table.line_of("password"), why.to_string()));
            })
            .ok()
    });
    let groups = table
        .list("groups", |text| {
            group_name(text).ok_or_else(|| "a group's name".to_owned())
        })
        .unwrap_or_default();
    let email = table.value("email", |text| {
        is_email(text)
            .then(|| text.into())
            .ok_or_else(|| EMAIL_EXPECTED.to_owned())
    });
    Some(Account::new(stored?, groups, email))
}

/// What an e-mail address may be.
pub const EMAIL_EXPECTED: &str = "one plain address, such as `bob@example.com`";

/// The name of a group.
pub fn group_name(text: &str) -> Option<Arc<str>> {
    (is_name(text) && !text.contains(',')).then(|| text.into())
}

/// Whether a text can be the name of an account: HTTP basic ends names at the first `:`.
pub fn is_account_name(text: &str) -> bool {
    is_name(text) && !text.contains(':')
}

pub(super) fn at(file: Arc<str>, line: u32, message: String) -> Problem {
    Problem {
        file,
        line,
        column: 1,
        source_line: String::new(),
        width: 1,
        message,
        hint: None,
    }
}

pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Why an account file was not changed.
#[derive(Debug)]
pub enum EditError {
    /// A file can't be read or written.
    File(PathBuf, std::io::Error),
    /// The file there has problems; it is left as it is.
    Problems(Vec<Problem>),
    /// There are no random bytes for a name of the new file.
    NoRandom,
}

impl std::fmt::Display for EditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, why) => write!(f, "`{}` can't be changed: {why}", path.display()),
            Self::Problems(problems) => problems
                .iter()
                .try_for_each(|problem| write!(f, "{problem}")),
            Self::NoRandom => keys::NoRandom.fmt(f),
        }
    }
}

impl std::error::Error for EditError {}

/// The accounts in the file at `path`; `None` after adding its problems.
pub fn load(path: &Path, problems: &Problems) -> Option<Accounts> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Accounts::parse(&name, &text, problems),
        Err(why) => {
            let hint = "`portcullis users add NAME` makes it".to_owned();
            problems.about_file(&name, format!("can't be read: {why}"), Some(hint));
            None
        }
    }
}

/// The accounts in the `htpasswd` file at `path`; `None` after adding its problems.
pub fn load_htpasswd(path: &Path, groups: &[Arc<str>], problems: &Problems) -> Option<Accounts> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Accounts::from_htpasswd(&name, &bytes, groups, problems),
        Err(why) => {
            problems.about_file(&name, format!("can't be read: {why}"), None);
            None
        }
    }
}

/// Changes the accounts in the file at `path`, made if there is none. Whoever edits at the same time
/// waits.
///
/// # Errors
/// Why nothing was changed.
pub fn edit<T>(path: &Path, change: impl FnOnce(&mut Accounts) -> T) -> Result<T, EditError> {
    edit_file(path, |text, problems| {
        let mut accounts = match text {
            Some(text) => Accounts::parse(&path.display().to_string(), text, problems)?,
            None => Accounts::default(),
        };
        let changed = change(&mut accounts);
        Some((changed, accounts.render()))
    })
}

/// Writes the file at `path` anew with what `change` makes of its text, if there is one: private, under
/// a lock, and at once. Without an answer, after adding why, it stays as it is.
///
/// # Errors
/// Why nothing was changed.
pub(super) fn edit_file<T>(
    path: &Path,
    change: impl FnOnce(Option<&str>, &Problems) -> Option<(T, String)>,
) -> Result<T, EditError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |why| EditError::File(path, why)
    };
    let lock_path = beside(path, "lock");
    let lock = private(&lock_path, false).map_err(fail(&lock_path))?;
    lock.lock().map_err(fail(&lock_path))?;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
        Err(why) => return Err(fail(path)(why)),
    };
    let problems = Problems::default();
    let (changed, text) = change(text.as_deref(), &problems)
        .ok_or_else(|| EditError::Problems(problems.into_sorted()))?;
    let random = keys::random::<8>().map_err(|_| EditError::NoRandom)?;
    let new = beside(path, &format!("{:016x}.new", u64::from_be_bytes(*random)));
    replace(path, &new, &text)
        .inspect_err(|_| drop(std::fs::remove_file(&new)))
        .map_err(fail(path))?;
    Ok(changed)
}

/// Writes a file beside, makes sure that it is on the disk, and puts it in place at once.
pub(crate) fn replace(path: &Path, new: &Path, text: &str) -> std::io::Result<()> {
    let mut file = private(new, true)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

fn private(path: &Path, new: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .create_new(new)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Bodies of the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use super::*;

    /// What is read is written as the same again.
    #[expect(clippy::expect_used, reason = "a panic is the finding")]
    pub fn accounts(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let problems = Problems::default();
        if let Some(accounts) = Accounts::parse("f", text, &problems) {
            let rendered = accounts.render();
            let again = Accounts::parse("f", &rendered, &problems).expect("reads again");
            assert_eq!(again.render(), rendered);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::super::password::cheap;
    use super::*;

    fn parse(text: &str) -> Result<Accounts, Vec<(u32, String)>> {
        let problems = Problems::default();
        Accounts::parse("users.toml", text, &problems).ok_or_else(|| {
            let problems = problems.into_sorted();
            assert!(
                problems
                    .iter()
                    .all(|problem| problem.source_line.is_empty())
            );
            problems
                .into_iter()
                .map(|problem| (problem.line, problem.message))
                .collect()
        })
    }

    fn account_of(password: &str) -> Account {
        Account::new(
            cheap(password),
            vec!["staff".into()],
            Some("bob@corp.test".into()),
        )
    }

    #[test]
    fn accounts_are_read() {
        let hash = cheap("secret").for_file().to_owned();
        let accounts = parse(&format!(
            "[user.bob]\npassword = \"{hash}\"\ngroups = [\"a\", \"b\"]\nemail = \"b@c.test\"\n\
             [user.\"eve smith\"]\npassword = '{hash}'\n"
        ))
        .unwrap();
        let bob = accounts
            .user(&"local".into(), "bob", SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(bob.groups, ["a", "b"].map(Arc::<str>::from));
        assert_eq!(bob.email.as_deref(), Some("b@c.test"));
        assert!(accounts.get("eve smith").unwrap().groups.is_empty());
        assert!(accounts.get("Bob").is_none(), "names are exact");
    }

    #[test]
    fn problems_are_told_with_their_line_and_without_what_stands_there() {
        let problems = parse(
            "[user.bob]\npassword = \"hunter2\"\n[user.eve]\ngroups = [\"\"]\n\
             [user.\"a:b\"]\npassword = \"$apr1$x$hunter2\"\npasword = \"hunter2\"\n",
        )
        .unwrap_err();
        let lines: Vec<_> = problems.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7]);
        assert!(
            problems
                .iter()
                .all(|(_, message)| !message.contains("hunter2")),
            "{problems:?}"
        );
        let syntax = parse("[user.bob]\npassword = \"hunter2\n").unwrap_err();
        assert!(
            syntax
                .iter()
                .all(|(_, message)| !message.contains("hunter2")),
            "{syntax:?}"
        );
    }

    #[test]
    fn a_file_is_made_changed_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        edit(&path, |accounts| accounts.add("bob", account_of("one"))).unwrap();
        edit(&path, |accounts| accounts.add("eve", account_of("two"))).unwrap();
        assert!(edit(&path, |accounts| accounts.remove("bob")).unwrap());
        assert!(!edit(&path, |accounts| accounts.remove("bob")).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let problems = Problems::default();
        let accounts = load(&path, &problems).unwrap();
        assert_eq!(
            accounts.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
            ["eve"]
        );
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "the file and its lock");
    }

    #[test]
    fn a_file_with_problems_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        std::fs::write(&path, "[user.bob]\n").unwrap();
        let refused = edit(&path, |accounts| accounts.add("eve", account_of("two")));
        assert!(matches!(refused, Err(EditError::Problems(problems)) if problems.len() == 1));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[user.bob]\n");
    }

    #[test]
    fn edits_at_the_same_time_all_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    edit(path, |accounts| {
                        accounts.add(&number.to_string(), account_of("x"))
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(load(&path, &Problems::default()).unwrap().iter().count(), 8);
    }

    #[test]
    fn a_missing_file_is_a_problem() {
        let problems = Problems::default();
        assert!(load(Path::new("/nonexistent/users.toml"), &problems).is_none());
        assert_eq!(problems.count(), 1);
    }

    #[test]
    fn unknown_names_get_the_hash_of_some_account_and_always_the_same() {
        let mut accounts = parse("").unwrap();
        assert!(Accounts::decoy([&accounts].into_iter(), &[1; 32]).is_none());
        for name in ["a", "b", "c"] {
            accounts.add(name, account_of(name));
        }
        let accounts = parse(&accounts.render()).unwrap();
        let none = parse("").unwrap();
        let decoy = |tag| Accounts::decoy([&none, &accounts].into_iter(), &[tag; 32]).unwrap();
        assert!(Arc::ptr_eq(&decoy(1), &decoy(1)));
        let picked: std::collections::HashSet<_> = (0..64)
            .map(|tag| decoy(tag).for_file().to_owned())
            .collect();
        assert_eq!(picked.len(), 3);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            names in proptest::collection::vec("[^:\\p{C}]{1,12}", 0..4),
            groups in proptest::collection::vec("[^:,\\p{C}]{1,12}", 0..4),
            email in proptest::option::of("[a-z\\\\']{1,8}@[a-z.]{1,8}"),
        ) {
            let mut accounts = Accounts::default();
            let groups: Vec<_> = groups.iter().filter_map(|group| group_name(group)).collect();
            for name in names.iter().filter(|name| is_account_name(name)) {
                let email = email.as_deref().map(Arc::from);
                accounts.add(name, Account::new(cheap("x"), groups.clone(), email));
            }
            let text = accounts.render();
            let again = parse(&text).unwrap();
            prop_assert_eq!(again.render(), text);
            prop_assert!(again.accounts.keys().eq(accounts.accounts.keys()));
            prop_assert!(again.accounts.values().all(|account| account.groups == groups));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text: String) {
            fuzzing::accounts(text.as_bytes());
        }
    }
}
