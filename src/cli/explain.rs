//! `portcullis explain`.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Method;

use crate::boot::{self, Loaded};
use crate::explain::{self, Outcome, Question};
use crate::identity::accounts::LOCAL;
use crate::pure::identity::User;
use crate::pure::unit;

use super::{say, say_error};

/// A request to ask about.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What is asked for, such as `https://wiki.example.com/admin`.
    #[arg(long)]
    url: String,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: Method,
    /// The client.
    #[arg(long, value_name = "IP", default_value = "192.0.2.1")]
    from: IpAddr,
    /// Who is signed in.
    #[arg(long)]
    user: Option<String>,
    /// What vouches for the user.
    #[arg(long, default_value = LOCAL)]
    provider: String,
    /// The user's groups.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<String>,
    /// The user's e-mail address.
    #[arg(long)]
    email: Option<String>,
    /// How long ago the user signed in.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = unit::duration)]
    signed_in_ago: Duration,
}

/// Shows the stages; the exit status says whether the request would reach the backend.
pub(super) fn explain(arguments: &Arguments, loaded: &Loaded) -> ExitCode {
    let (tls, authority, target) = match explain::url(&arguments.url) {
        Ok(url) => url,
        Err(error) => {
            say_error(&format!("{error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let now = boot::now();
    let user = arguments.user.as_deref().map(|name| {
        // An account's own groups, unless others are asked about.
        let account = (arguments.provider == LOCAL)
            .then(|| loaded.accounts.get(name))
            .flatten();
        let groups = match account {
            Some(account) if arguments.groups.is_empty() => account.groups.clone(),
            _ => arguments
                .groups
                .iter()
                .map(|group| group.as_str().into())
                .collect(),
        };
        let email = arguments.email.as_deref().map(Arc::from);
        Arc::new(User {
            name: name.into(),
            provider: arguments.provider.as_str().into(),
            email: email.or_else(|| account.and_then(|account| account.email.clone())),
            groups,
            claims: Arc::default(),
            signed_in_at: now.checked_sub(arguments.signed_in_ago).unwrap_or(now),
        })
    });
    let question = Question {
        tls,
        authority,
        target,
        method: arguments.method.clone(),
        from: arguments.from,
        user,
    };
    let (steps, outcome) = explain::explain(&loaded.config.routes, &question, boot::clock(), now);
    for step in steps {
        let by = step.by.map(|by| format!("  ({by})")).unwrap_or_default();
        say(&format!(
            "{} {:<8} {}{by}\n",
            if step.passes { "pass" } else { "stop" },
            step.stage,
            step.says
        ));
    }
    say(&format!("=> {}\n", outcome.word()));
    match outcome {
        Outcome::Allow => ExitCode::SUCCESS,
        Outcome::SignIn | Outcome::Refuse(_) => ExitCode::from(1),
    }
}
