//! `portcullis probe`: speaks to an application's backends around the gate, as an attacker would.
//!
//! | every backend is asked with | it should refuse, since |
//! |---|---|
//! | no identity at all | nobody is signed in |
//! | the fields by which this gate, and others, name users | anybody can write them |
//! | an assertion that is unsigned, forged, expired, or for another application or request | it proves nothing |
//!
//! A status of 2xx is taken for acceptance. All are GET requests in the name of a user who should not
//! exist. What a right assertion is answered with is shown beside: a backend that refuses that, too, has
//! perhaps not refused the others for what they are.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::backend::http1::{self, Request};
use crate::backend::pool::{Address, Pools, Spec};
use crate::body::Body;
use crate::boot::signing::Keeper;
use crate::boot::{self, Loaded};
use crate::keys::{self, SigningKeys, Unsigned};
use crate::pipeline::forward::Backend;
use crate::pipeline::request_headers::{FieldNames, Rule};
use crate::pipeline::response_headers;
use crate::pure::assertion::Statement;
use crate::pure::fields::Fields;
use crate::pure::head::Content;
use crate::pure::identity::User;
use crate::pure::session::Seconds;
use crate::pure::target::Target;

use super::{say, say_error};

/// For one request, to be connected included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing could be asked: shown to nobody that it is safe.
const UNASKED: u8 = 2;
/// By which gateways and proxies name users to applications.
const ALIASES: [&str; 20] = [
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-WEBAUTH-USER",
    "X-Authentik-Username",
    "X-Authenticated-User",
    "X-Pomerium-Claim-Email",
    "X-Goog-Authenticated-User-Email",
    "Cf-Access-Authenticated-User-Email",
    "X-MS-CLIENT-PRINCIPAL-NAME",
    "X-Amzn-Oidc-Identity",
    "Tailscale-User-Login",
    "X-User",
    "X-User-Id",
    "X-Username",
    "X-User-Email",
];

/// Whom to attack.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The application: its policy file's name, without `.toml`.
    app: String,
    /// The path to ask for: one that only signed-in users should see.
    #[arg(long, default_value = "/")]
    path: String,
    /// The user to pretend to be; whoever the application makes an account for stays there.
    #[arg(long, default_value = "portcullis-probe")]
    user: String,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// A request by which somebody tries to pass.
struct Attack {
    name: String,
    /// Whether it is right, and shown only to compare.
    control: bool,
    fields: Fields,
}

/// What came of the attacks on one backend.
struct Finding {
    address: String,
    /// Whether only this machine can reach it.
    local: bool,
    /// Answers, or why there is none, in the order of the attacks; as many as could be asked.
    answers: Vec<Result<u16, String>>,
    /// Fields that give it away.
    banners: Vec<(String, String)>,
}

/// Attacks; the exit status is 0 only if every backend was asked, and accepted nothing.
pub(super) fn probe(directory: &Path, arguments: &Arguments, loaded: &Loaded) -> ExitCode {
    match attack_all(directory, arguments, loaded) {
        Ok((attacks, findings)) => {
            if arguments.json {
                let report = in_json(&arguments.app, &attacks, &findings);
                say(&format!("{report:#}\n"));
            } else {
                say(&in_words(&arguments.app, &attacks, &findings));
            }
            if findings.iter().any(|found| found.accepted(&attacks) > 0) {
                ExitCode::from(1)
            } else if findings.iter().any(|found| !found.is_complete(&attacks)) {
                ExitCode::from(UNASKED)
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(error) => {
            say_error(&format!("{error}\n"));
            ExitCode::from(UNASKED)
        }
    }
}

fn attack_all(
    directory: &Path,
    arguments: &Arguments,
    loaded: &Loaded,
) -> Result<(Vec<Attack>, Vec<Finding>), String> {
    let config = &loaded.config;
    let apps = config.routes.apps();
    let Some(app) = apps.iter().find(|app| *app.name == *arguments.app) else {
        let names: Vec<&str> = apps.iter().map(|app| &*app.name).collect();
        let (app, names) = (&arguments.app, names.join("`, `"));
        return Err(format!(
            "there is no application `{app}`; there are `{names}`"
        ));
    };
    let target = Target::parse(arguments.path.as_bytes())
        .map_err(|_| format!("`{}` is no path; write one such as `/`", arguments.path))?;
    let host = config.routes.host_of(&app.name).unwrap_or_default();
    let keeper = Keeper::new(
        directory.join(&config.gateway.assertion.file),
        Arc::default(),
    );
    let rule = &app.rules_at(&target.path).request_headers;
    let keys = if rule.identity.assertion {
        let keys = keeper.read();
        keys.map_err(|error| format!("`{}` can't be read: {error}", keeper.file()))?
    } else {
        None
    };
    let forger = Forger {
        rule,
        issuer: config.gateway.assertion.issuer.as_deref(),
        app: &app.name,
        host,
        target: &target,
        user: &arguments.user,
        now: Seconds::of(boot::now()),
    };
    let attacks = forger.attacks(keys.as_ref())?;
    let specs: Vec<&Arc<Spec>> = app
        .rules
        .backends
        .backends
        .iter()
        .filter_map(|backend| match backend {
            Backend::Http(spec) => Some(spec),
            // It is a part of the gate, and has no address.
            Backend::Whoami(_) => None,
        })
        .collect();
    if specs.is_empty() {
        return Err(format!("no backend of `{}` has an address", arguments.app));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let asking = async {
        let mut findings = Vec::with_capacity(specs.len());
        for spec in specs {
            findings.push(attack(spec, host, &target, &attacks).await);
        }
        findings
    };
    let findings = tokio::task::LocalSet::new().block_on(&runtime, asking);
    Ok((attacks, findings))
}

/// What forgeries are made of.
struct Forger<'a> {
    rule: &'a Rule,
    issuer: Option<&'a str>,
    app: &'a str,
    host: &'a str,
    target: &'a Target,
    user: &'a str,
    now: Seconds,
}

impl Forger<'_> {
    fn attacks(&self, keys: Option<&SigningKeys>) -> Result<Vec<Attack>, String> {
        let FieldNames {
            user,
            email,
            groups,
            assertion,
            ..
        } = &self.rule.names;
        let address = format!("{}@example.com", self.user);
        let mut attacks = vec![with("no identity", &[])?];
        let own = [
            (user.as_str(), self.user),
            (email.as_str(), &*address),
            (groups.as_str(), "admins,admin,root"),
        ];
        attacks.push(with("the gate's own fields, by a stranger", &own)?);
        // As CGI and its kin read them, the same names.
        let odd = own.map(|(name, value)| (name.replace('-', "_"), value));
        let odd: Vec<(&str, &str)> = odd.iter().map(|(name, value)| (&**name, *value)).collect();
        attacks.push(with("the same with `_` for `-`", &odd)?);
        for alias in ALIASES {
            let value = if alias.ends_with("Email") {
                &address
            } else {
                self.user
            };
            attacks.push(with(alias, &[(alias, value)])?);
        }
        if !self.rule.identity.assertion {
            return Ok(attacks);
        }
        let mut sent = |name, said: &str| -> Result<(), String> {
            attacks.push(with(name, &[(assertion.as_str(), said)])?);
            Ok(())
        };
        let known = self.somebody();
        let right = self.statement(&known)?;
        sent("an assertion that is none", "x")?;
        sent("an unsigned assertion", &unsigned(&right)?)?;
        let Some(keys) = keys else {
            let fresh = SigningKeys::generate(boot::now()).map_err(|error| error.to_string())?;
            sent("a forged assertion", &signed(fresh.sign(&right))?)?;
            return Ok(attacks);
        };
        sent("a forged assertion", &signed(keys.forge(&right))?)?;
        let hour = Duration::from_secs(3600);
        let late = Statement {
            now: Seconds(self.now.0.saturating_sub(hour.as_secs())),
            ..right
        };
        sent("an expired assertion", &signed(keys.sign(&late))?)?;
        let elsewhere = format!("{}-elsewhere", self.app);
        let foreign = Statement {
            audience: &elsewhere,
            ..right
        };
        let name = "an assertion for another application";
        sent(name, &signed(keys.sign(&foreign))?)?;
        let path = format!("{}-elsewhere", self.target.path);
        let astray = Statement {
            path: &path,
            ..right
        };
        sent(
            "an assertion for another path",
            &signed(keys.sign(&astray))?,
        )?;
        let posted = Statement {
            method: "POST",
            ..right
        };
        let name = "an assertion for another method";
        sent(name, &signed(keys.sign(&posted))?)?;
        sent("a right assertion, to compare", &signed(keys.sign(&right))?)?;
        if let Some(last) = attacks.last_mut() {
            last.control = true;
        }
        Ok(attacks)
    }

    fn somebody(&self) -> Somebody {
        let issuer = self.issuer.map(str::to_owned);
        Somebody {
            issuer: issuer.unwrap_or_else(|| format!("https://{}", self.host)),
            user: User {
                name: self.user.into(),
                provider: "local".into(),
                email: None,
                groups: Vec::new(),
                claims: Arc::default(),
                signed_in_at: std::time::SystemTime::UNIX_EPOCH,
            },
        }
    }

    fn statement<'s>(&'s self, known: &'s Somebody) -> Result<Statement<'s>, String> {
        Ok(Statement {
            issuer: &known.issuer,
            audience: self.app,
            user: &known.user,
            email: self.rule.identity.email,
            groups: self.rule.identity.groups,
            method: "GET",
            host: self.host,
            path: &self.target.path,
            query: self.target.query.as_deref(),
            now: self.now,
            id: *keys::random().map_err(|error| error.to_string())?,
        })
    }
}

struct Somebody {
    issuer: String,
    user: User,
}

fn signed(result: Result<String, Unsigned>) -> Result<String, String> {
    result.map_err(|why| format!("nothing can be signed: {why:?}"))
}

/// With `alg` `none` (RFC 7519 §6), by which many a library was talked out of verifying.
fn unsigned(statement: &Statement<'_>) -> Result<String, String> {
    let message = statement.to_sign("none");
    let message = message.map_err(|why| format!("nothing can be stated: {why:?}"))?;
    let (_, claims) = message.split_once('.').unwrap_or_default();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"portcullis-assertion+jwt"}"#);
    Ok(format!("{header}.{claims}."))
}

fn with(name: &str, lines: &[(&str, &str)]) -> Result<Attack, String> {
    let mut fields = Fields::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| "a name makes no field".to_owned())?;
        let value = HeaderValue::try_from(*value);
        let value = value.map_err(|_| format!("`{}` makes no field", name.as_str()))?;
        fields.append(name, value);
    }
    Ok(Attack {
        name: name.to_owned(),
        control: false,
        fields,
    })
}

async fn attack(spec: &Arc<Spec>, host: &str, target: &Target, attacks: &[Attack]) -> Finding {
    let (address, local) = match &spec.address {
        Address::Unix(path) => (format!("unix:{}", path.display()), true),
        Address::Tcp(name, port) => {
            let ip = name.parse::<std::net::IpAddr>();
            let local = ip.map_or(name == "localhost", |ip| ip.is_loopback());
            let scheme = if spec.tls.is_some() { "https" } else { "http" };
            let open = if name.contains(':') { "[" } else { "" };
            let close = if name.contains(':') { "]" } else { "" };
            (format!("{scheme}://{open}{name}{close}:{port}"), local)
        }
    };
    let mut found = Finding {
        address,
        local,
        answers: Vec::with_capacity(attacks.len()),
        banners: Vec::new(),
    };
    let target = target.text();
    for attack in attacks {
        let asked = ask(spec, host, &target, &attack.fields);
        let answer = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok((status, fields))) => {
                found.note(&fields);
                Ok(status)
            }
            Ok(Err(error)) => Err(format!("{error:?}")),
            Err(_) => Err("no answer in time".to_owned()),
        };
        // Who can't be reached by the first can't be by the others.
        let gone = answer.is_err() && found.answers.is_empty();
        found.answers.push(answer);
        if gone {
            break;
        }
    }
    found
}

/// One request on a connection of its own: the status, and the fields.
async fn ask(
    spec: &Arc<Spec>,
    host: &str,
    target: &str,
    headers: &Fields,
) -> Result<(u16, Fields), crate::backend::Error> {
    let endpoint = Pools::default().endpoint(spec);
    let conn = endpoint.connect().await?;
    let request = Request {
        method: &Method::GET,
        target,
        host,
        headers,
        content: Content::None,
        upgrade: false,
        takes_trailers: false,
        early: &|_, _| {},
    };
    let response = http1::send(&Rc::clone(&endpoint), conn, &request, Body::Empty).await;
    let head = response.map_err(|failure| failure.error)?.head;
    Ok((head.status.as_u16(), head.headers))
}

impl Finding {
    /// Keeps the fields that give the backend away.
    fn note(&mut self, fields: &Fields) {
        let Ok(lists) = response_headers::shipped_lists() else {
            return;
        };
        for (name, value) in fields.iter() {
            let banner = (
                name.as_str().to_owned(),
                value.as_bytes().escape_ascii().to_string(),
            );
            // One value of each is enough: some change with every request.
            let known = self.banners.iter().any(|(known, _)| *known == banner.0);
            if lists.of(name).stripped && !known {
                self.banners.push(banner);
            }
        }
    }

    fn is_reached(&self) -> bool {
        self.answers.iter().any(Result::is_ok)
    }

    /// Whether every attack was answered.
    fn is_complete(&self, attacks: &[Attack]) -> bool {
        self.answers.len() == attacks.len() && self.answers.iter().all(Result::is_ok)
    }

    fn accepted(&self, attacks: &[Attack]) -> usize {
        let answers = attacks.iter().zip(&self.answers);
        answers
            .filter(|(attack, answer)| !attack.control && is_acceptance(answer))
            .count()
    }
}

fn is_acceptance(answer: &Result<u16, String>) -> bool {
    matches!(answer, Ok(200..=299))
}

fn in_words(app: &str, attacks: &[Attack], findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut line = |said: &str| {
        text.push_str(said);
        text.push('\n');
    };
    for found in findings {
        line(&format!("{app}: {}", found.address));
        line(match (found.is_reached(), found.local) {
            (false, _) => "  can't be reached around the gate from here",
            (true, true) => "  can be reached around the gate, from this machine alone",
            (true, false) => {
                "  can be reached around the gate from here; ask from elsewhere in the network, too"
            }
        });
        for (attack, answer) in attacks.iter().zip(&found.answers) {
            let (verdict, answer) = match answer {
                Ok(status) if attack.control => ("control ", status.to_string()),
                Ok(status @ 200..=299) => ("ACCEPTED", status.to_string()),
                Ok(status) => ("refused ", status.to_string()),
                Err(error) => ("no answer", error.clone()),
            };
            line(&format!("  {verdict} {answer}  {}", attack.name));
        }
        for (name, value) in &found.banners {
            line(&format!("  gives itself away: {name}: {value}"));
        }
    }
    let accepted: usize = findings.iter().map(|found| found.accepted(attacks)).sum();
    let asked: usize = findings.iter().map(|found| found.answers.len()).sum();
    line(&format!("=> accepted {accepted} of {asked}"));
    text
}

fn in_json(app: &str, attacks: &[Attack], findings: &[Finding]) -> Value {
    let backends = findings.iter().map(|found| {
        let answers = attacks.iter().zip(&found.answers).map(|(attack, answer)| {
            json!({
                "attack": attack.name,
                "control": attack.control,
                "accepted": is_acceptance(answer),
                "status": answer.as_ref().ok(),
                "error": answer.as_ref().err(),
            })
        });
        let banners = found.banners.iter();
        json!({
            "address": found.address,
            "reached": found.is_reached(),
            "local": found.local,
            "accepted": found.accepted(attacks),
            "answers": answers.collect::<Vec<_>>(),
            "banners": banners.map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
        })
    });
    json!({ "app": app, "backends": backends.collect::<Vec<_>>() })
}
