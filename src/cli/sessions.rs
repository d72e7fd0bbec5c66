//! `portcullis sessions`.
//!
//! A gate that runs has the file with the sessions open, and is asked; where none runs, and where the
//! sessions are in Redis, the store itself is.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use crate::boot::{self, control, run};
use crate::config::gateway::{Gateway, SessionStore};
use crate::identity::accounts::LOCAL;
use crate::identity::machine_tokens::date_text;
use crate::pure::session::{Hash, Seconds};
use crate::session::operator::{self, Asked, Said, Shown, Whose};

use super::users::{failed, gateway};
use super::{say, say_error};

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List sessions: id, sign-in method, user, host, address, sign-in, last use and browser. Nothing
    /// listed opens anything.
    List {
        /// The sessions of this user alone.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The method that the user signs in by; all without it.
        #[arg(long, value_name = "METHOD", requires = "user")]
        method: Option<String>,
    },
    /// End sessions, and what is open for them, at every gate.
    Revoke {
        /// A session, by the id that `sessions list` shows.
        #[arg(value_parser = hash, required_unless_present = "user", conflicts_with = "user")]
        id: Option<Hash>,
        /// All sessions of this user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The method that the user signs in by; all without it.
        #[arg(long, value_name = "METHOD", requires = "user")]
        method: Option<String>,
    },
}

/// Lists or ends sessions.
pub(super) fn sessions(directory: &Path, command: &Command) -> ExitCode {
    let (gateway, providers) = match gateway(directory) {
        Ok(read) => read,
        Err(code) => return code,
    };
    let whose = |name: &str, method: Option<&str>| match method {
        Some(method) => vec![of(method, name)],
        None => {
            let methods = providers.iter().map(String::as_str).chain([LOCAL]);
            methods.map(|method| of(method, name)).collect()
        }
    };
    let asked = match command {
        Command::List { user: None, .. } => Asked::ListAll,
        Command::List {
            user: Some(name),
            method,
        } => Asked::List(whose(name, method.as_deref())),
        Command::Revoke { id: Some(id), .. } => Asked::End(id.to_string()),
        Command::Revoke { user, method, .. } => Asked::EndAllOf(whose(
            user.as_deref().unwrap_or_default(),
            method.as_deref(),
        )),
    };
    let mut last = None;
    let mut hear = |said| match said {
        Said::Session(shown) => say(&line(&shown)),
        Said::Done(_) | Said::Failed(_) => last = Some(said),
    };
    if let Err(error) = ask(directory, &gateway, &asked, &mut hear) {
        return failed(&error);
    }
    match (last, &asked) {
        (Some(Said::Done(_)), Asked::ListAll | Asked::List(_)) => ExitCode::SUCCESS,
        (Some(Said::Done(0)), Asked::End(_)) => failed("there is no such session"),
        (Some(Said::Done(0)), Asked::EndAllOf(_)) => failed(
            "no session of this name by the methods that are configured; `sessions list` shows all",
        ),
        (Some(Said::Done(count)), Asked::End(_) | Asked::EndAllOf(_)) => {
            let plural = if count == 1 { "" } else { "s" };
            say_error(&format!("{count} session{plural} ended\n"));
            ExitCode::SUCCESS
        }
        (Some(Said::Failed(why)), _) => failed(&why),
        (Some(Said::Session(_)) | None, _) => failed("the answer had no end"),
    }
}

fn ask(
    directory: &Path,
    gateway: &Gateway,
    asked: &Asked,
    hear: &mut impl FnMut(Said),
) -> Result<(), String> {
    if let SessionStore::File(file) = &gateway.session.store {
        let file = directory.join(file);
        let answered = control::ask(&file, asked, &mut *hear);
        let answered = answered.map_err(|error| format!("the gate can't be asked: {error}"))?;
        if answered.is_some() {
            return Ok(());
        }
        // One that this command made would be somebody else's than the gate's.
        if !file.exists() {
            hear(Said::Done(0));
            return Ok(());
        }
    }
    let (sessions, _) = run::sessions(directory, gateway).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let say = async |said| {
        hear(said);
        Ok::<_, String>(())
    };
    runtime.block_on(operator::answer(&sessions, asked.clone(), boot::now(), say))
}

fn of(method: &str, name: &str) -> Whose {
    Whose {
        provider: method.to_owned(),
        name: name.to_owned(),
    }
}

/// A session, in fields that a terminal and a program can both be given.
fn line(shown: &Shown) -> String {
    let date = |time: u64| date_text(Seconds(time));
    let seen = date(shown.seen);
    let fields = match &shown.of {
        Some(of) => [
            shown.hash.clone(),
            of.provider.clone(),
            of.name.clone(),
            of.host.clone(),
            of.client.to_string(),
            date(of.created),
            seen,
            of.browser.clone(),
        ],
        None => {
            let mut unknown = [const { String::new() }; 8];
            let [hash, .., used, _] = &mut unknown;
            (*hash, *used) = (shown.hash.clone(), seen);
            unknown
        }
    };
    // Whatever a browser calls itself, it does not speak to the operator's terminal.
    let plain = fields.map(|field| field.replace(char::is_control, "\u{fffd}"));
    format!("{}\n", plain.join("\t"))
}

fn hash(text: &str) -> Result<Hash, String> {
    Hash::parse(text.as_bytes())
        .ok_or_else(|| "expected 64 hexadecimal digits, as `sessions list` shows".to_owned())
}
