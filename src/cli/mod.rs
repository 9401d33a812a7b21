//! The command line: what each `heal` command does, one file a command.
//!
//! Exit codes (contract): 0 well, 1 a problem the command exists to find, 2 wrong usage or an
//! unreadable config. Results go to standard output, logs to standard error.

pub mod check;
pub mod doctor;
pub mod manifest;
mod sandbox;
mod serve;
mod store;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// heal reads alerts in Slack, declares in the alert's thread what it will do, does it through AWS
/// Systems Manager once it may, and reports back in the thread.
#[derive(Parser)]
#[command(name = "heal", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(Args, Clone)]
struct Files {
    /// The configuration [default: heal.yaml]
    #[arg(long, global = true, env = "HEAL_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The rules directory [default: the config's `rules`, else rules/]
    #[arg(long, global = true, value_name = "DIR")]
    rules: Option<PathBuf>,
}

impl Files {
    fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from("heal.yaml"))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the bot
    Serve,
    /// Run the bot against a Slack-like workspace and an SSM-like fleet on this machine, with a page to play in
    Sandbox(sandbox::Options),
    /// Read config and rules; print every problem with file, line, column and a hint
    Check,
    /// Check tokens, scopes, channels, AWS permissions and the store; say how to mend each
    Doctor,
    /// Look after the database: back it up
    #[command(subcommand)]
    Store(store::Store),
    /// Print the Slack app manifest
    Manifest {
        /// For http mode: where Slack reaches heal, https://heal.example.com
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let done = match cli.command {
        Command::Check => {
            let required = cli.files.config.is_some();
            let mut out = std::io::stdout().lock();
            check::check(&cli.files.config(), required, cli.files.rules.as_deref(), &mut out)
        }
        Command::Manifest { url } => {
            let mode = match url {
                Some(base_url) => manifest::Mode::Http { base_url },
                None => manifest::Mode::Socket,
            };
            writeln!(std::io::stdout(), "{}", manifest::manifest(&mode)).map(|()| 0).map_err(Into::into)
        }
        Command::Store(command) => store::run(&cli.files, &command),
        Command::Serve => run(serve::serve(&cli.files)),
        Command::Doctor => run(doctor::doctor(&cli.files.config(), cli.files.rules.as_deref())),
        Command::Sandbox(options) => run(sandbox::sandbox(&cli.files, options)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Whoever reads standard output went away: nothing is wrong.
            let gone = error.downcast_ref::<std::io::Error>();
            if gone.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            complain(&error);
            ExitCode::from(1)
        }
    }
}

/// Says what failed and why; a `hint:` stands on a line of its own.
fn complain(error: &anyhow::Error) {
    let mut text = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let cause = cause.to_string();
        if depth > 0 && !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        } else if depth == 0 {
            text.push_str(&cause);
        }
    }
    // Hints go last, whatever was said after them.
    let (hints, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("hint:"));
    eprintln!("error: {}", lines.join("\n"));
    for hint in hints {
        eprintln!("{hint}");
    }
}

fn run(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// `RUST_LOG` says how much (default: info of heal, warnings of the rest), `HEAL_LOG=json` how.
fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,heal=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("HEAL_LOG").is_ok_and(|kind| kind == "json") {
        log.json().flatten_event(true).init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
}
