//! How fast, how lean: the real binary between a Slack and an SSM that answer at once.
//!
//! `cargo bench --bench alerts` prints a table of medians with least and most; `-- --help` lists the
//! options. The fakes share the machine with the bot, so what they cost is printed beside what it costs.
//! It fails when an alert is lost or anything is done twice.

mod bot;
mod floor;
mod http;
mod report;
mod slack;
mod ssm;
mod story;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use report::{Report, quantile};
use story::{Scene, Stage};

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
    /// Only some parts: floor, start, steady, burst
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the databases are; a commit costs what the disk there costs
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    place: PathBuf,
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
    for (turn, rules) in options.rules.iter().enumerate() {
        let group = format!("{rules} rules");
        if wanted("start") {
            starts(options, *rules, &group, &mut report).await?;
        }
        if wanted("steady") {
            steady(options, *rules, &group, &mut report).await?;
        }
        if wanted("burst") {
            bursts(options, *rules, &group, false, &mut report).await?;
            // How often something is delivered does not depend on the rules.
            if turn == 0 {
                bursts(options, *rules, &group, true, &mut report).await?;
            }
        }
    }
    Ok(report)
}

async fn starts(options: &Options, rules: usize, group: &str, report: &mut Report) -> anyhow::Result<()> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for start in 0..options.starts {
        let scene = Scene::set(0, rules, &options.place).await?;
        ready.push(scene.bot.ready.as_secs_f64() * 1e3);
        if start < 3 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            resident.push(scene.bot.memory()?.now);
        }
    }
    report.add(group, "start to ready", "ms", &ready);
    report.add(group, "resident, idle for 10 s", "MiB", &resident);
    Ok(())
}

async fn steady(options: &Options, rules: usize, group: &str, report: &mut Report) -> anyhow::Result<()> {
    let count = (options.rate * options.seconds) as usize;
    for (stage, word) in [(Stage::Approve, "approve"), (Stage::Auto, "auto, all of it healed")] {
        let (mut p50, mut p99, mut most) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.runs {
            let scene = Scene::set(count, rules, &options.place).await?;
            scene.warm_up().await?;
            let took = scene.steady(stage, options.rate).await?;
            p50.push(quantile(&took, 0.5));
            p99.push(quantile(&took, 0.99));
            most.push(quantile(&took, 1.0));
        }
        let what = |figure: &str| format!("delivered to declared, {figure} ({word})");
        report.add(group, &what("p50"), "ms", &p50);
        report.add(group, &what("p99"), "ms", &p99);
        report.add(group, &what("max"), "ms", &most);
    }
    Ok(())
}

async fn bursts(
    options: &Options,
    rules: usize,
    group: &str,
    doubled: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    let count = options.alerts;
    let thousands = count as f64 / 1000.0;
    let mut bursts = Vec::new();
    let mut complaints = Vec::new();
    for _ in 0..options.runs {
        let scene = Scene::set(count, rules, &options.place).await?;
        scene.warm_up().await?;
        if options.pause > 0 {
            eprintln!("the bot is process {}; the burst comes in {} s", scene.bot.pid(), options.pause);
            tokio::time::sleep(Duration::from_secs(options.pause)).await;
        }
        bursts.push(scene.burst(doubled).await?);
        complaints.push(scene.bot.complaints() as f64);
    }
    let name = if doubled { "burst, every tenth twice" } else { "burst" };
    let mut add = |what: &str, unit: &str, of: &dyn Fn(&story::Burst) -> f64| {
        let figures: Vec<f64> = bursts.iter().map(of).collect();
        report.add(group, &format!("{name}: {what}"), unit, &figures);
    };
    let seconds = |took: Duration| took.as_secs_f64();
    add("to the last report", "alerts/s", &|burst| count as f64 / seconds(burst.took));
    add("to the last declaration", "alerts/s", &|burst| count as f64 / seconds(burst.declared));
    add("to the last command", "alerts/s", &|burst| count as f64 / seconds(burst.commanded));
    add("CPU to the last report, per 1,000", "s", &|burst| burst.cpu / thousands);
    add("CPU with all reactions, per 1,000", "s", &|burst| burst.cpu_quiet / thousands);
    add("CPU of resolving, per 1,000", "s", &|burst| burst.cpu_resolved / thousands);
    add("acknowledged, p99", "ms", &|burst| quantile(&burst.acks, 0.99));
    add("acknowledged, max", "ms", &|burst| quantile(&burst.acks, 1.0));
    add("resolved to the last healed", "alerts/s", &|burst| count as f64 / seconds(burst.healed));
    add("resident, peak", "MiB", &|burst| burst.memory.peak);
    add("resident, after", "MiB", &|burst| burst.memory.now);
    add("calls to Slack, per alert", "", &|burst| burst.slack_calls as f64 / count as f64);
    add("calls to SSM, per alert", "", &|burst| burst.ssm_calls as f64 / count as f64);
    add("CPU of the fakes, per 1,000", "s", &|burst| burst.cpu_fakes / thousands);
    report.add(group, &format!("{name}: warnings and errors logged"), "", &complaints);
    Ok(())
}
