//! `portcullis tokens`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use http::Method;

use crate::boot;
use crate::identity::accounts::group_name;
use crate::identity::machine_tokens::{self, LONGEST_LIFE, MachineToken, Scope, date_text};
use crate::keys;
use crate::pure::machine_token::{self, Id};
use crate::pure::pattern::Pattern;
use crate::pure::session::Seconds;
use crate::pure::table::{Problems, nearest};
use crate::pure::unit;

use super::users::{failed, state_file};
use super::{say, say_error, show};

/// What to do with the gate's own tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a token for a program, and show it this once.
    Create {
        /// The user that whoever shows it is; two tokens may have one name, to take over from each other.
        #[arg(value_parser = machine_tokens::token_name)]
        name: Arc<str>,
        /// The application that takes it: the name of its policy.
        #[arg(long)]
        app: String,
        /// The part of the application that it is for: this path and all below it.
        #[arg(long, value_name = "PREFIX", value_parser = machine_tokens::path)]
        path: Option<Pattern>,
        /// A method that it is for; may be given several times.
        #[arg(long = "method", value_name = "METHOD", value_parser = machine_tokens::method)]
        methods: Vec<Method>,
        /// A group that its user is in; may be given several times.
        #[arg(long = "group", value_name = "GROUP", value_parser = group)]
        groups: Vec<Arc<str>>,
        /// How long it holds, such as `90d`; a year at most.
        #[arg(long, value_name = "DURATION", value_parser = life)]
        expires: Duration,
    },
    /// List the tokens: id, name, application, path, methods, groups and end. Nothing listed opens anything.
    List,
    /// Take a token back: what is open for it ends, too.
    Revoke {
        /// Its id: what stands between `pc_` and the next `_`.
        #[arg(value_parser = id)]
        id: Id,
    },
}

/// Makes, lists or takes back tokens.
pub(super) fn tokens(directory: &Path, command: &Command) -> ExitCode {
    let file = match state_file(directory, |gateway| gateway.tokens) {
        Ok(file) => file,
        Err(code) => return code,
    };
    match command {
        Command::Create {
            name,
            app,
            path,
            methods,
            groups,
            expires,
        } => {
            if let Err(code) = check_app(directory, app) {
                return code;
            }
            let created = Seconds::of(boot::now());
            let scope = Scope {
                app: app.as_str().into(),
                path: path.clone(),
                methods: methods.clone(),
            };
            create(&file, |hash| MachineToken {
                name: Arc::clone(name),
                hash,
                scope: Arc::new(scope),
                groups: groups.clone(),
                created,
                expires: created.plus(*expires),
            })
        }
        Command::List => list(&file),
        Command::Revoke { id } => revoke(directory, &file, id),
    }
}

fn create(file: &Path, token: impl FnOnce([u8; 32]) -> MachineToken) -> ExitCode {
    let (Ok(id), Ok(secret)) = (keys::random(), keys::random()) else {
        return failed("no random bytes from the system");
    };
    let id = Id::new(&id);
    let (text, hash) = machine_token::new(&id, &secret);
    let token = token(hash);
    let until = date_text(token.expires);
    if let Err(error) = machine_tokens::edit(file, |tokens| tokens.add(id, token)) {
        return failed(&error.to_string());
    }
    // The token alone on standard output, so that it can go to where it is needed unseen.
    say(&format!("{}\n", *text));
    say_error(&format!("it holds until {until}, and is not shown again\n"));
    ExitCode::SUCCESS
}

/// A token for an application that there is not would be found out late.
fn check_app(directory: &Path, app: &str) -> Result<(), ExitCode> {
    let loaded = boot::load(directory).map_err(|problems| show(&problems))?;
    let apps = loaded.config.routes.apps();
    let names = || apps.iter().map(|app| &*app.name);
    let Some(known) = apps.iter().find(|known| *known.name == *app) else {
        return Err(failed(&match nearest(app, names()) {
            Some(near) => format!("there is no policy `{app}`; did you mean `{near}`?"),
            None => format!("there is no policy `{app}`"),
        }));
    };
    let rules = known
        .paths
        .iter()
        .map(|(_, rules)| rules)
        .chain([&known.rules]);
    if !rules.into_iter().any(|rules| rules.sign_in.takes_tokens()) {
        say_error(&format!(
            "`{app}` does not take such tokens yet: put `tokens` into `with` of its `[sign_in]`\n"
        ));
    }
    Ok(())
}

fn list(file: &Path) -> ExitCode {
    if !file.exists() {
        return ExitCode::SUCCESS;
    }
    let problems = Problems::default();
    let Some(tokens) = machine_tokens::load(file, &problems) else {
        return show(&problems.into_sorted());
    };
    let now = Seconds::of(boot::now());
    for (id, token) in tokens.iter() {
        let path = match &token.scope.path {
            Some(Pattern::Prefix(path) | Pattern::Exact(path)) => path,
            None => "/",
        };
        let methods: Vec<_> = token.scope.methods.iter().map(Method::as_str).collect();
        let ended = if token.expires <= now { " (over)" } else { "" };
        say(&format!(
            "{}\t{}\t{}\t{path}\t{}\t{}\t{}{ended}\n",
            id.as_str(),
            token.name,
            token.scope.app,
            methods.join(","),
            token.groups.join(","),
            date_text(token.expires),
        ));
    }
    ExitCode::SUCCESS
}

fn revoke(directory: &Path, file: &Path, id: &Id) -> ExitCode {
    let name = match machine_tokens::edit(file, |tokens| tokens.revoke(id)) {
        Ok(Some(token)) => token.name,
        Ok(None) => return failed(&format!("there is no token `{}`", id.as_str())),
        Err(error) => return failed(&error.to_string()),
    };
    say(&format!("`{}` of `{name}` is taken back\n", id.as_str()));
    // A gate that can't take up the configuration keeps the one before, and the token with it.
    match boot::load(directory) {
        Ok(_) => ExitCode::SUCCESS,
        Err(problems) => {
            let code = show(&problems);
            say_error("a gate that runs takes it until these are mended\n");
            code
        }
    }
}

fn id(text: &str) -> Result<Id, String> {
    Id::parse(text).map_err(|_| "expected 12 hexadecimal digits, as `tokens list` shows".to_owned())
}

fn group(text: &str) -> Result<Arc<str>, String> {
    group_name(text).ok_or_else(|| "expected the name of a group".to_owned())
}

fn life(text: &str) -> Result<Duration, String> {
    match unit::duration(text).map_err(|expected| format!("expected {expected}"))? {
        Duration::ZERO => Err("expected more than nothing".to_owned()),
        life if life > LONGEST_LIFE => Err("expected a year at most".to_owned()),
        life => Ok(life),
    }
}
