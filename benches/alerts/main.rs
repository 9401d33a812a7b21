//! How fast, how lean: the real binary between a Slack and an SSM that answer at once.
//!
//! `cargo bench --bench alerts` prints a table of medians with least and most; `-- --help` lists the
//! options. The fakes share the machine with the bot, so what they cost is printed beside what it costs.
//! It fails when an alert is lost or anything is done twice.

mod bot;
mod floor;
mod http;
mod parts;
mod report;
mod slack;
mod ssm;
mod storage;
mod story;

use std::path::PathBuf;

use clap::Parser;

use bot::Making;
use parts::Part;
use report::Report;

#[derive(Parser)]
#[command(about = "Measures heal against a Slack and an SSM that answer at once")]
struct Options {
    /// Alerts of a burst
    #[arg(long, default_value_t = 1000)]
    alerts: usize,
    /// Alerts a second of the steady stream
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Seconds of the steady stream
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Runs of everything but the starts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Starts
    #[arg(long, default_value_t = 10)]
    starts: usize,
    /// Numbers of rules to compare; the first is the base
    #[arg(long, value_delimiter = ',', default_values_t = [10, 10_000])]
    rules: Vec<usize>,
    /// Only some parts: floor, start, steady, burst, big, restart
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The store: sqlite, postgres (a server of the benchmark's own), or the URL of an empty database
    #[arg(long, default_value = "sqlite")]
    store: String,
    /// Bots on the store; Slack deals its deliveries out to all
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Where the databases are; a commit costs what the disk there costs
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    place: PathBuf,
    /// Another program than the one just built, to compare two
    #[arg(long, default_value = env!("CARGO_BIN_EXE_heal"))]
    binary: PathBuf,
    /// Also write all figures as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Wait so many seconds before each burst and say the bot's process id, to attach a profiler
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if !options.bench {
        // `cargo test --all-targets` runs benchmarks too, and a test is not a measurement.
        println!("run it by `cargo bench --bench alerts`");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let report = local.block_on(&runtime, measure(&options))?;
    report.print();
    if let Some(path) = &options.json {
        std::fs::write(path, report.json())?;
    }
    Ok(())
}

async fn measure(options: &Options) -> anyhow::Result<Report> {
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let mut report = Report::new();
    if wanted("floor") {
        let floor = floor::measure(&options.place)?;
        report.add("floor", "one SQLite commit, on disk", "ms", &floor.lone);
        report.add("floor", "a group of 100 in one commit", "ms", &floor.group);
    }
    let making = Making {
        binary: options.binary.clone(),
        place: options.place.clone(),
        store: options.store.clone(),
        replicas: options.replicas,
    };
    for (turn, rules) in options.rules.iter().enumerate() {
        let group = format!("{rules} rules");
        let (making, group, report) = (&making, group.as_str(), &mut report);
        let mut part = Part { options, making, rules: *rules, group, report };
        if wanted("start") {
            part.starts().await?;
        }
        if wanted("steady") {
            part.steady().await?;
        }
        if wanted("burst") {
            part.bursts(false).await?;
            // How often something is delivered does not depend on the rules.
            if turn == 0 {
                part.bursts(true).await?;
            }
        }
        if turn > 0 {
            continue;
        }
        if wanted("big") {
            part.big().await?;
        }
        if wanted("restart") {
            part.restarts().await?;
        }
    }
    Ok(report)
}
