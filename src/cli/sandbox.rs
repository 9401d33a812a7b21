//! `heal sandbox`: a workspace, a fleet, a monitor and a page on loopback, and the unchanged bot
//! between them: this same binary as a child process, told where they are by the environment
//! variables that production uses.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::Files;
use crate::sandbox::fleet::{self, Fleet};
use crate::sandbox::monitor::{self, Monitor};
use crate::sandbox::page;
use crate::sandbox::workspace::{self, Posting, Workspace};

/// The rules that ship with heal, for a sandbox without a rules directory.
const SHIPPED: &[(&str, &str)] = &[
    ("talk.json", include_str!("../../rules/talk.json")),
    ("web.yaml", include_str!("../../rules/web.yaml")),
    ("db.yaml", include_str!("../../rules/db.yaml")),
    ("batch.yaml", include_str!("../../rules/batch.yaml")),
];

#[derive(clap::Args)]
pub(super) struct Options {
    /// The page's port on 127.0.0.1
    #[arg(long, default_value_t = 8420, value_name = "PORT")]
    port: u16,
    /// Show the bot's own log
    #[arg(long)]
    verbose: bool,
}

pub(super) async fn sandbox(files: &Files, options: Options) -> anyhow::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let home = tempfile::Builder::new().prefix("heal-sandbox-").tempdir().context("a temporary folder")?;
    let rules = rules_dir(files, home.path())?;
    let slack = Workspace::start(workspace::Options { limits: true, ..workspace::Options::default() })?;
    let fleet_options = fleet::Options { step_pause: Duration::from_secs(1), ..fleet::Options::default() };
    let fleet = Fleet::start(fleet_options).await?;
    let watched = slack.clone();
    let _monitor = Monitor::start(fleet.clone(), monitor::Options::default(), move |message| {
        let mut posting =
            Posting::of_sender("B0PROM", "C0ALERTS", message["text"].as_str().unwrap_or_default());
        posting.attachments = message.get("attachments").cloned();
        for name in ["username", "icons"] {
            if let Some(value) = message.get(name) {
                posting = posting.with_raw(name, value.clone());
            }
        }
        if let Err(error) = watched.post_message(posting) {
            tracing::warn!(%error, "the monitor's message could not be posted");
        }
    });
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), options.port);
    let page = page::serve(slack.clone(), Arc::new(fleet.clone()), address)?;
    let config = write_config(home.path())?;
    let mut bot = start_bot(&slack, &fleet, &config, &rules, options.verbose)?;
    println!("The sandbox is on {}\n", page.url());
    println!("Open it in a browser, stop a service on one of the hosts, and watch #alerts.");
    println!("Rules: {}. Ctrl-C ends it; nothing stays behind.", rules.display());
    std::io::stdout().flush()?;
    let code = tokio::select! {
        ended = bot.wait() => {
            eprintln!("error: the bot ended ({})", ended.map_or_else(|error| error.to_string(), |status| status.to_string()));
            eprintln!("hint: `heal sandbox --verbose` shows its log");
            1
        }
        _ = terminate.recv() => 0,
        _ = interrupt.recv() => 0,
    };
    end(bot).await;
    fleet.stop();
    slack.stop();
    Ok(code)
}

/// `--rules`, else `rules/` where there is one, else what ships.
fn rules_dir(files: &Files, home: &Path) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &files.rules {
        return Ok(dir.clone());
    }
    let here = PathBuf::from("rules");
    if here.is_dir() {
        return Ok(here);
    }
    let dir = home.join("rules");
    std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    for (name, text) in SHIPPED {
        std::fs::write(dir.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(dir)
}

fn write_config(home: &Path) -> anyhow::Result<PathBuf> {
    let path = home.join("heal.yaml");
    let store = home.join("heal.db");
    let text = format!(
        "slack:\n  channels: [\"#alerts\"]\nsenders:\n  - name: prometheus\n    format: alertmanager\n    \
         bot_id: B0PROM\napprovers: [\"@sre\"]\naws:\n  region: ap-northeast-1\n  role_tag: Role\n\
         store: sqlite://{}\nlisten: 127.0.0.1:0\n",
        store.display()
    );
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn start_bot(
    slack: &Workspace,
    fleet: &Fleet,
    config: &Path,
    rules: &Path,
    verbose: bool,
) -> anyhow::Result<Child> {
    let workspace = workspace::Options::default();
    let binary = std::env::current_exe().context("this program's own path")?;
    let log = std::env::var("RUST_LOG")
        .unwrap_or_else(|_| if verbose { "warn,heal=info" } else { "error" }.to_owned());
    Command::new(binary)
        .args(["serve", "--config"])
        .arg(config)
        .arg("--rules")
        .arg(rules)
        .env("SLACK_BOT_TOKEN", &workspace.bot_token)
        .env("SLACK_APP_TOKEN", &workspace.app_token)
        .env("SLACK_API_URL", slack.api_url())
        .env("AWS_ENDPOINT_URL_SSM", fleet.endpoint_url())
        .env("AWS_ACCESS_KEY_ID", "sandbox")
        .env("AWS_SECRET_ACCESS_KEY", "sandbox")
        .env("RUST_LOG", log)
        // Nothing of the machine's own AWS account or database is touched.
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env_remove("AWS_ENDPOINT_URL")
        .env_remove("DATABASE_URL")
        .env_remove("HEAL_CONFIG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting the bot")
}

/// Lets the bot stop by itself, as in production, but not for long.
async fn end(mut bot: Child) {
    if let Some(id) = bot.id() {
        let told = Command::new("kill").arg(id.to_string()).status().await;
        if told.is_ok() && tokio::time::timeout(Duration::from_secs(5), bot.wait()).await.is_ok() {
            return;
        }
    }
    drop(bot.kill().await);
}
