//! `heal serve`: runs the bot until it is told to stop.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};

use super::Files;
use crate::app::{self, Secrets, Settings};
use crate::config::{self, Loaded};
use crate::engine::{Clock, Patience};
use crate::rule::diagnostic;

pub(super) async fn serve(files: &Files) -> anyhow::Result<u8> {
    let Loaded { config, rules, problems, .. } = config::load(&files.config(), true, files.rules.as_deref());
    let errors = problems.iter().any(crate::rule::Diagnostic::is_error);
    if !problems.is_empty() {
        eprint!("{}", diagnostic::render_all(&problems, std::io::stderr().is_terminal()));
    }
    let Some(config) = config else { return Ok(2) };
    if errors {
        // A bad rule file never runs in part: what would be missing is what somebody counts on.
        eprintln!("heal does not start with these; `heal check` shows them again");
        return Ok(1);
    }
    let settings = Settings {
        config,
        rules,
        secrets: Secrets::from_env(),
        slack_api_url: std::env::var("SLACK_API_URL").ok().filter(|url| !url.is_empty()),
        ssm_endpoint: None,
        clock: Clock::default(),
        store: crate::store::Options::default(),
        patience: Patience::default(),
    };
    let missing = settings.problems();
    if !missing.is_empty() {
        for problem in missing {
            eprintln!("error: {problem}");
        }
        return Ok(2);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut bot = app::start(settings).await?;
    tracing::info!(listen = %bot.listen, "heal {} is up; health and metrics on http://{}", env!("CARGO_PKG_VERSION"), bot.listen);
    let signal = tokio::select! {
        ended = bot.ended() => return ended.map(|()| 1),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!("{signal}: stopping; what is not finished goes on at the next start");
    bot.stop().await;
    Ok(0)
}
