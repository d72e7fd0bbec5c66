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
use crate::pure::certificate::Name;
use crate::pure::connection::ClientCertificate;
use crate::pure::identity::{Claims, User};
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
    /// A claim of the user, such as `department=research`; may be repeated.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, String)>,
    /// A name of the certificate that the client shows, such as `cn:alice`; may be repeated.
    #[arg(long = "client-certificate", value_name = "NAME", value_parser = Name::parse)]
    client_certificate: Vec<Name>,
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
            claims: Arc::new(claims(&arguments.claims)),
            signed_in_at: now.checked_sub(arguments.signed_in_ago).unwrap_or(now),
        })
    });
    let question = Question {
        tls,
        authority,
        target,
        method: arguments.method.clone(),
        from: arguments.from,
        client_certificate: (!arguments.client_certificate.is_empty())
            .then(|| ClientCertificate::with_names(arguments.client_certificate.clone()).into()),
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

fn claim(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected a claim such as `department=research`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A claim that is repeated has all of its values.
fn claims(said: &[(String, String)]) -> Claims {
    let mut claims = Claims::new();
    for (name, value) in said {
        let values = claims
            .entry(name.as_str())
            .or_insert_with(|| Vec::<String>::new().into());
        if let Some(values) = values.as_array_mut() {
            values.push(value.as_str().into());
        }
    }
    claims
}
