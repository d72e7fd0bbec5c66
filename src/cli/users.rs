//! `portcullis users` and `portcullis hash-password`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use zeroize::Zeroizing;

use crate::config::gateway::{self, Gateway};
use crate::identity::accounts::{self, Account, group_name, is_account_name};
use crate::identity::password::Stored;
use crate::identity::provider;
use crate::keys;
use crate::pure::identity::is_email;
use crate::pure::table::{Problems, Table};

use super::{say, say_error, show};

/// What to do with local accounts.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add an account, or change the one of that name; the password is read from standard input.
    Add {
        /// The account's name.
        name: String,
        /// A group that the account is in; may be given several times.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// The account's e-mail address.
        #[arg(long)]
        email: Option<String>,
        /// Read the password from standard input without asking for it.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove an account; its sessions end.
    Remove {
        /// The account's name.
        name: String,
    },
    /// List accounts.
    List,
}

/// Hashes a password from standard input.
pub(super) fn hash_password() -> ExitCode {
    match password(false).and_then(|password| hash(&password)) {
        Ok(stored) => {
            say(&format!("{}\n", stored.for_file()));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// Adds, removes or lists accounts.
pub(super) fn users(directory: &Path, command: &Command) -> ExitCode {
    let file = match state_file(directory, |gateway| gateway.accounts) {
        Ok(file) => file,
        Err(code) => return code,
    };
    match command {
        Command::Add {
            name,
            groups,
            email,
            password_stdin,
        } => {
            let made = account(name, groups, email.as_deref(), *password_stdin);
            let account = match made {
                Ok(account) => account,
                Err(error) => return failed(&error),
            };
            match accounts::edit(&file, |accounts| accounts.add(name, account)) {
                Ok(()) => {
                    say(&format!("`{name}` can sign in\n"));
                    ExitCode::SUCCESS
                }
                Err(error) => failed(&error.to_string()),
            }
        }
        Command::Remove { name } => match accounts::edit(&file, |accounts| accounts.remove(name)) {
            Ok(true) => {
                say(&format!("`{name}` is gone\n"));
                ExitCode::SUCCESS
            }
            Ok(false) => failed(&format!("there is no account `{name}`")),
            Err(error) => failed(&error.to_string()),
        },
        Command::List => {
            let problems = Problems::default();
            match accounts::load(&file, &problems) {
                Some(accounts) => {
                    for (name, account) in accounts.iter() {
                        say(&format!(
                            "{name}\t{}\t{}\n",
                            account.groups.join(","),
                            account.email.as_deref().unwrap_or("")
                        ));
                    }
                    ExitCode::SUCCESS
                }
                None => show(&problems.into_sorted()),
            }
        }
    }
}

/// Where the configuration keeps what a command changes; its directory is made.
pub(super) fn state_file(
    directory: &Path,
    which: impl FnOnce(Gateway) -> PathBuf,
) -> Result<PathBuf, ExitCode> {
    let file = directory.join(which(gateway(directory)?.0));
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|error| failed(&format!("`{}` can't be made: {error}", parent.display())))?;
    }
    Ok(file)
}

/// What `portcullis.toml` says, and the names of its providers; policies are not looked at.
pub(super) fn gateway(directory: &Path) -> Result<(Gateway, Vec<String>), ExitCode> {
    let problems = Problems::default();
    let path = directory.join(gateway::FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        failed(&format!(
            "`{}` can't be read: {error}; give its directory with `--config`",
            path.display()
        ))
    })?;
    let read = Table::parse(gateway::FILE, &text, gateway::KEYS, &problems).map(|table| {
        let providers = table.named_tables("provider", provider::KEYS);
        let names = providers.into_iter().map(|(name, _)| name).collect();
        (Gateway::read(&table), names)
    });
    match read {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(show(&problems.into_sorted())),
    }
}

fn account(
    name: &str,
    groups: &[String],
    email: Option<&str>,
    quiet: bool,
) -> Result<Account, String> {
    if !is_account_name(name) {
        return Err(
            "a name has no control characters, no `:`, and no space at its ends".to_owned(),
        );
    }
    if email.is_some_and(|email| !is_email(email)) {
        return Err("the e-mail address is none".to_owned());
    }
    let groups = groups
        .iter()
        .map(|group| group_name(group).ok_or_else(|| format!("`{group}` is no name of a group")))
        .collect::<Result<_, _>>()?;
    let stored = hash(&password(quiet)?)?;
    Ok(Account::new(stored, groups, email.map(Arc::from)))
}

fn hash(password: &str) -> Result<Stored, String> {
    let salt = keys::random::<16>().map_err(|_| "no random bytes from the system".to_owned())?;
    Stored::new(password, &salt).map_err(|error| error.to_string())
}

/// One line of standard input.
fn password(quiet: bool) -> Result<Zeroizing<String>, String> {
    let input = std::io::stdin();
    if input.is_terminal() && !quiet {
        say_error("Password (it will show): ");
    }
    let mut line = Zeroizing::new(String::new());
    input
        .lock()
        .read_line(&mut line)
        .map_err(|error| format!("no password: {error}"))?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    Ok(password)
}

pub(super) fn failed(error: &str) -> ExitCode {
    say_error(&format!("{error}\n"));
    ExitCode::FAILURE
}
