//! A configuration on disk to a running gate, and again at each reload.

pub mod first_run;
pub mod watch;
pub mod signing;
pub mod control;
pub mod run;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::cert::{self, Certificates};
use crate::config::verify::{Callers, Verify};
use crate::config::{self, Config, Files};
use crate::identity::accounts::{self, Accounts};
use crate::identity::machine_tokens::{self, MachineTokens};
use crate::identity::provider::Provider;
use crate::identity::{Identity, Shared, secrets};
use crate::keys::SharedKey;
use crate::pipeline::rate::Cells;
use crate::pipeline::request_headers::Assertion;
use crate::pipeline::{Gate, InForce, verify};
use crate::pure::cidr;
use crate::pure::secret::SecretSource;
use crate::pure::table::{Problem, Problems};

use signing::{CLIENT_TURN, Keepers};

/// Bytes of a configuration file.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The time of day, where the process takes it.
#[expect(
    clippy::disallowed_methods,
    reason = "boot is where the process gets its time"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The steady clock, where the process takes it.
#[expect(
    clippy::disallowed_methods,
    reason = "boot is where the process gets its time"
)]
pub fn clock() -> Instant {
    Instant::now()
}

/// A configuration that can be used, with the accounts it names.
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The local accounts.
    pub accounts: Accounts,
    /// The gate's own tokens.
    pub tokens: MachineTokens,
    /// Every other file that these name; a change of one is a change of the configuration.
    pub files: Vec<PathBuf>,
}

/// Reads everything below `directory`, and holds the policies to their tests.
///
/// # Errors
/// Every problem of every file.
pub fn load(directory: &Path) -> Result<Loaded, Vec<Problem>> {
    let problems = Problems::default();
    let loaded = load_into(directory, &problems);
    match loaded {
        Some(loaded) if problems.is_empty() => Ok(loaded),
        _ => Err(problems.into_sorted()),
    }
}

fn load_into(directory: &Path, problems: &Problems) -> Option<Loaded> {
    let gateway = match read(&directory.join(config::gateway::FILE)) {
        Ok(text) => text,
        Err(error) => {
            let hint = "give the directory that holds it with `--config`".to_owned();
            problems.about_file(config::gateway::FILE, error, Some(hint));
            return None;
        }
    };
    let named = std::cell::RefCell::new(Vec::new());
    let files = Files {
        gateway,
        policies: texts(&directory.join("policies"), "policies", problems),
        tests: texts(
            &directory.join("policies/tests"),
            "policies/tests",
            problems,
        ),
        load: &|file| {
            let path = directory.join(file);
            named.borrow_mut().push(path.clone());
            read(&path)
        },
    };
    if files.policies.is_empty() && problems.is_empty() {
        let hint = "each file there protects one application".to_owned();
        problems.about_file("policies", "no policy: nothing would be served", Some(hint));
    }
    let config = config::read(&files, problems)?;
    let path = directory.join(&config.gateway.accounts);
    let accounts = if path.exists() {
        accounts::load(&path, problems)?
    } else {
        Accounts::default()
    };
    let tokens_path = directory.join(&config.gateway.tokens);
    let tokens = if tokens_path.exists() {
        machine_tokens::load(&tokens_path, problems)?
    } else {
        MachineTokens::default()
    };
    for expectation in &config.expectations {
        if let Some(broken) = expectation.broken_by(&config.routes, clock(), now()) {
            problems.add(Problem {
                file: Arc::clone(&expectation.place.0),
                line: expectation.place.1,
                column: 1,
                source_line: String::new(),
                width: 1,
                message: format!("`{}`: {broken}", expectation.name),
                hint: None,
            });
        }
    }
    let mut files = named.take();
    let tls = &config.gateway.tls.certificates;
    files.extend(
        tls.iter()
            .flat_map(|(chain, key)| [chain, key])
            .map(|file| directory.join(file)),
    );
    files.extend(
        config
            .providers
            .iter()
            .flat_map(Provider::files)
            .map(|file| directory.join(file)),
    );
    let callers = config.verify.as_ref().map(|verify| &verify.callers);
    if let Some(Callers::Key(SecretSource::File(file))) = callers {
        files.push(directory.join(file));
    }
    files.extend([path, tokens_path]);
    Some(Loaded {
        config,
        accounts,
        tokens,
        files,
    })
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let length = std::fs::metadata(path)
        .map_err(|error| format!("`{shown}` can't be read: {error}"))?
        .len();
    if length > MOST_BYTES {
        return Err(format!("`{shown}` is larger than 16 MiB"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("`{shown}` can't be read: {error}"))
}

/// The TOML files of a directory, by name. Files whose names begin with a dot are editors'.
fn texts(directory: &Path, shown: &str, problems: &Problems) -> Vec<(String, String)> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        // What can't be read may hold a rule, or an expectation that the rest breaks.
        Err(error) => {
            problems.about_file(shown, format!("can't be read: {error}"), None);
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| match entry {
            Ok(entry) => Some(entry.path()),
            Err(error) => {
                problems.about_file(shown, format!("can't be read: {error}"), None);
                None
            }
        })
        .collect();
    paths.sort();
    let mut texts = Vec::with_capacity(paths.len());
    for path in paths {
        let Some(name) = config::policy_name(&path) else {
            continue;
        };
        match read(&path) {
            Ok(text) => texts.push((name, text)),
            Err(error) => problems.about_file(&format!("{shown}/{name}.toml"), error, None),
        }
    }
    texts
}

/// Makes the gate that a configuration describes; `None` after adding what can't be used.
pub fn gate(
    loaded: Loaded,
    shared: &Arc<Shared>,
    rates: &Arc<Cells>,
    signing: &Keepers,
    in_force: &Arc<InForce>,
    directory: &Path,
    problems: &Problems,
) -> Option<Gate> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let Loaded {
        config,
        accounts,
        tokens,
        ..
    } = loaded;
    let mut identity = Identity::new(
        shared,
        accounts,
        tokens,
        &config.providers,
        directory,
        problems,
    )?;
    identity
        .sign_in_host
        .clone_from(&config.gateway.session.sign_in_host);
    let asks = config.routes.apps().iter().any(|app| {
        let paths = app.paths.iter().map(|(_, rules)| rules);
        let mut all = paths.chain([&app.rules]);
        all.any(|rules| rules.request_headers.identity.assertion)
    });
    let settings = &config.gateway.assertion;
    let knows_our_keys = config.providers.iter().any(Provider::needs_published_keys);
    for (asks, keeper, turn, what) in [
        (asks, &signing.assertions, settings.rotate, "assertions"),
        (
            knows_our_keys,
            &signing.client,
            CLIENT_TURN,
            "what providers know the gate by",
        ),
    ] {
        if asks && let Err(error) = keeper.ensure(turn, now()) {
            let message = format!("{what} can't be signed: `{}`: {error}", keeper.file());
            problems.about_file(config::gateway::FILE, message, None);
            return None;
        }
    }
    let verify = match config.verify {
        None => None,
        Some(verify) => Some(askers(verify, directory, problems)?),
    };
    Some(Gate {
        in_force: Arc::clone(in_force),
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        verify,
        routes: config.routes,
        identity: Arc::new(identity),
        rates: Arc::clone(rates),
        reserved: Arc::new(config.reserved),
        assertion: Assertion {
            issuer: settings.issuer.as_deref().map(Arc::from),
            signer: Arc::clone(signing.assertions.signer()),
        },
    })
}

/// Which proxies may ask; `None` after adding why their key can't be used.
fn askers(verify: Verify, directory: &Path, problems: &Problems) -> Option<verify::Rule> {
    let key = |source| {
        let text = secrets::load(&source, directory).map_err(|why| why.to_string())?;
        SharedKey::new(text.as_bytes()).map_err(|weak| weak.to_string())
    };
    let callers = match verify.callers {
        Callers::Certificates(_) => verify::Callers::Certificates,
        Callers::Networks(networks) => verify::Callers::Networks(cidr::Set::new(networks)),
        Callers::Key(source) => match key(source) {
            Ok(key) => verify::Callers::Key(key),
            Err(error) => {
                let message = format!("the key of `[verify]` can't be used: {error}");
                problems.about_file(config::gateway::FILE, message, None);
                return None;
            }
        },
    };
    Some(verify::Rule {
        callers,
        style: verify.style,
    })
}

/// Loads every certificate that a configuration names, and makes the development one if asked.
///
/// # Errors
/// What can't be used.
pub fn certificates(
    tls: &config::gateway::Tls,
    directory: &Path,
) -> Result<Certificates, cert::Error> {
    let below = |file: &PathBuf| directory.join(file);
    let mut pairs: Vec<_> = tls
        .certificates
        .iter()
        .map(|(chain, key)| (below(chain), below(key)))
        .collect();
    if tls.development {
        pairs.push(cert::development::ensure(&directory.join("certs"), now())?);
    }
    Certificates::load(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_listed_is_a_problem_and_not_empty() {
        let home = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(home.path().join(file), text).unwrap();
        std::fs::create_dir(home.path().join("policies")).unwrap();
        write(
            "portcullis.toml",
            "[[listen]]\naddress = \"127.0.0.1:0\"\ntls = false\n",
        );
        write(
            "policies/app.toml",
            "host = \"app.test\"\nbackends = [\"whoami\"]\naccess = \"public\"\n",
        );
        assert!(load(home.path()).is_ok());
        // Expectations are below it, as far as anybody can tell.
        write("policies/tests", "");
        let problems = load(home.path()).err().unwrap();
        assert_eq!(&*problems[0].file, "policies/tests");
    }
}
