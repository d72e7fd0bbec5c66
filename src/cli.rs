//! The operator's commands.

pub mod users;
pub mod tokens;
pub mod sessions;
pub mod explain;
pub mod probe;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::boot;
use crate::boot::run;
use crate::config::reference;
use crate::pure::table::Problem;

/// What a bad configuration exits with (`EX_CONFIG` of sysexits).
const BAD_CONFIGURATION: u8 = 78;

/// An authenticating gateway in front of applications that have no login of their own.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about)]
struct Arguments {
    /// The directory that holds `portcullis.toml` and `policies/`.
    #[arg(long, short, global = true, value_name = "DIR", default_value = ".")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gate (the default).
    Run,
    /// Read the whole configuration and show every problem; the exit status says whether there are any.
    Check,
    /// Show what the rules say to a request, stage by stage.
    Explain(explain::Arguments),
    /// Attack an application's own backends, as somebody would who speaks to them around the gate.
    Probe(probe::Arguments),
    /// Hold the policies to the expectations in `policies/tests/`.
    Test,
    /// Hash a password read from standard input, for an accounts file.
    HashPassword,
    /// Add, remove and list local accounts.
    #[command(subcommand)]
    Users(users::Command),
    /// Create, list and revoke the gate's own tokens for programs.
    #[command(subcommand)]
    Tokens(tokens::Command),
    /// List and revoke sessions.
    #[command(subcommand)]
    Sessions(sessions::Command),
    /// Write completions for a shell to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output.
    Man,
    /// Write the reference of the configuration to standard output.
    #[command(hide = true)]
    Reference,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    match command.unwrap_or(Command::Run) {
        Command::Run => match run::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ run::Error::Problems(_)) => {
                say_error(&error.to_string());
                ExitCode::from(BAD_CONFIGURATION)
            }
            Err(error @ run::Error::Start(_)) => {
                say_error(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Command::Check => match boot::load(&config) {
            Ok(loaded) => {
                let apps = loaded.config.routes.apps().len();
                let tests = loaded.config.expectations.len();
                say(&format!(
                    "ok: applications: {apps}, expectations that hold: {tests}\n"
                ));
                ExitCode::SUCCESS
            }
            Err(problems) => show(&problems),
        },
        Command::Test => match boot::load(&config) {
            Ok(loaded) => {
                for expectation in &loaded.config.expectations {
                    say(&format!("ok  {}\n", expectation.name));
                }
                say(&format!(
                    "{} expectations hold\n",
                    loaded.config.expectations.len()
                ));
                ExitCode::SUCCESS
            }
            Err(problems) => show(&problems),
        },
        Command::Explain(arguments) => match boot::load(&config) {
            Ok(loaded) => explain::explain(&arguments, &loaded),
            Err(problems) => show(&problems),
        },
        Command::Probe(arguments) => match boot::load(&config) {
            Ok(loaded) => probe::probe(&config, &arguments, &loaded),
            Err(problems) => show(&problems),
        },
        Command::HashPassword => users::hash_password(),
        Command::Users(command) => users::users(&config, &command),
        Command::Tokens(command) => tokens::tokens(&config, &command),
        Command::Sessions(command) => sessions::sessions(&config, &command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "portcullis", &mut script);
            say(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Command::Man => {
            match clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Command::Reference => {
            say(&reference::markdown());
            ExitCode::SUCCESS
        }
    }
}

fn show(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        say_error(&problem.to_string());
    }
    let count = problems.len();
    say_error(&format!(
        "{count} problem{}\n",
        if count == 1 { "" } else { "s" }
    ));
    ExitCode::from(BAD_CONFIGURATION)
}

/// Writes to standard output; who closed it wants no more.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn say_error(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
