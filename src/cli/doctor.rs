//! `heal doctor`: what heal needs from Slack, AWS and its store, tried one by one; each trouble with
//! how to mend it.
//!
//! It changes nothing: it posts no message, runs no command, and makes no database. A line is printed
//! as soon as it is known, so that a check that hangs can be seen to. No secret is ever shown.

mod aws;
mod slack;

use std::io::Write;
use std::path::Path;

use crate::app::Secrets;
use crate::config::{self, Config, Postgres};
use crate::rule::diagnostic;
use crate::store::{self, Location, Store};

/// Prints a line a check; 1 when something is wrong, 2 when the config cannot be read.
pub async fn doctor(config: &Path, rules: Option<&Path>) -> anyhow::Result<u8> {
    let loaded = config::load(config, true, rules);
    let Some(config) = &loaded.config else {
        // What it says cannot be tried, so everything after it would be guesswork.
        eprint!("{}", diagnostic::render_all(&loaded.problems, false));
        return Ok(2);
    };
    let mut report = Report::new(std::io::stdout());
    files(&loaded, config, &mut report)?;
    let secrets = Secrets::from_env();
    slack::examine(config, &loaded.rules, &secrets, &mut report).await?;
    aws::examine(config, &loaded.rules, &mut report).await?;
    let in_use = store(config, &mut report).await?;
    listen(config, in_use, &mut report)?;
    report.end()
}

/// What was found, printed as it is found: one line a check, `hint:` lines below it.
pub(super) struct Report<W> {
    out: W,
    failed: usize,
    warned: usize,
}

impl<W: Write> Report<W> {
    fn new(out: W) -> Report<W> {
        Report { out, failed: 0, warned: 0 }
    }

    fn ok(&mut self, text: &str) -> std::io::Result<()> {
        self.line("ok  ", text, None)
    }

    /// heal runs, and something is not as it should be.
    fn warn(&mut self, text: &str, hint: Option<&str>) -> std::io::Result<()> {
        self.warned += 1;
        self.line("warn", text, hint)
    }

    /// heal cannot do its work.
    fn fail(&mut self, text: &str, hint: Option<&str>) -> std::io::Result<()> {
        self.failed += 1;
        self.line("FAIL", text, hint)
    }

    fn line(&mut self, grade: &str, text: &str, hint: Option<&str>) -> std::io::Result<()> {
        // Many texts of others end with their own hint.
        let (text, own) = match text.split_once("hint: ") {
            Some((text, own)) => (text.trim_end_matches([' ', ';', '\n']), Some(own)),
            None => (text, None),
        };
        let mut lines = text.lines();
        writeln!(self.out, "{grade}  {}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(self.out, "      {line}")?;
        }
        for hint in own.into_iter().chain(hint) {
            writeln!(self.out, "      hint: {hint}")?;
        }
        self.out.flush()
    }

    fn end(mut self) -> anyhow::Result<u8> {
        let said = match (self.failed, self.warned) {
            (0, 0) => "all is well".to_owned(),
            (0, warned) => format!("nothing is broken; {}", count(warned, "warning")),
            (failed, 0) => count(failed, "problem"),
            (failed, warned) => format!("{}, {}", count(failed, "problem"), count(warned, "warning")),
        };
        writeln!(self.out, "\n{said}")?;
        Ok(u8::from(self.failed > 0))
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn files(loaded: &config::Loaded, config: &Config, report: &mut Report<impl Write>) -> std::io::Result<()> {
    let errors = loaded.problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = loaded.problems.len() - errors;
    let read = format!(
        "{} and {} in {}",
        config.path.display(),
        count(loaded.rules.len(), "rule"),
        loaded.rules_dir.display()
    );
    match (errors, warnings) {
        (0, 0) => report.ok(&read)?,
        (0, _) => report.warn(&format!("{read}, with warnings"), Some("`heal check` shows them"))?,
        (errors, _) => report.fail(
            &format!("the config and rules have {}, so heal does not start", count(errors, "error")),
            Some("`heal check` shows each with file, line and column"),
        )?,
    }
    if config.slack.channels.is_empty() {
        report
            .fail("no channels are named, so no alerts are read", Some("slack: {channels: [\"#alerts\"]}"))?;
    }
    if config.senders.is_empty() {
        report.fail("no senders are named, so nobody can raise an alert", Some("add one under senders:"))?;
    }
    Ok(())
}

/// Whether a running heal holds the store.
async fn store(config: &Config, report: &mut Report<impl Write>) -> std::io::Result<bool> {
    let url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let shown = if url.is_some() { "the store of DATABASE_URL" } else { config.store.as_str() };
    let location = match Location::parse(url.as_deref().unwrap_or(&config.store)) {
        Ok(location) => location,
        // It may hold a password, so the address itself is not repeated.
        Err(_) if url.is_some() => {
            report.fail(
                "DATABASE_URL is not a store that heal can use",
                Some("sqlite:heal.db, sqlite:///absolute/path.db or postgres://user:password@host/database"),
            )?;
            return Ok(false);
        }
        Err(why) => {
            report.fail(&why, None)?;
            return Ok(false);
        }
    };
    let path = match &location {
        Location::Sqlite(path) => path,
        Location::Postgres(at) => {
            postgres(at, report).await?;
            return Ok(false);
        }
    };
    if !path.exists() {
        // To open it would make it, and it would belong to whoever runs the doctor.
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        match tempfile::Builder::new().prefix(".heal-doctor-").tempfile_in(folder) {
            Ok(_) => {
                report.ok(&format!("{shown} is not there yet; heal makes it, its folder can be written"))?
            }
            Err(error) => report.fail(
                &format!("{shown} cannot be made: {error}"),
                Some("make its folder, and let heal's user write there"),
            )?,
        }
        return Ok(false);
    }
    match try_store(&location).await {
        Ok(()) => report.ok(&format!("{shown} can be opened and written"))?,
        Err(store::Error::InUse(_)) => {
            report
                .ok(&format!("{shown} is in use, most likely by the heal that runs; it was not touched"))?;
            return Ok(true);
        }
        Err(error) => report.fail(
            &format!("{shown} cannot be used: {error}"),
            Some("check the file's owner and mode, the folder's, and the room on the disk"),
        )?,
    }
    Ok(false)
}

/// Whether a PostgreSQL can be used; nothing is changed there.
async fn postgres(at: &Postgres, report: &mut Report<impl Write>) -> std::io::Result<()> {
    let looking = at.clone();
    let seen = match tokio::task::spawn_blocking(move || store::look(&looking)).await? {
        Ok(seen) => seen,
        Err(error) => return report.fail(&format!("the store cannot be used: {error}"), None),
    };
    match seen.schema {
        None => report.ok(&format!("{at} can be used; heal makes its tables there when it starts"))?,
        Some(_) if seen.older => {
            report.ok(&format!("{at} can be used; heal brings its tables up to date when it starts"))?;
        }
        Some(_) => report.ok(&format!("{at} can be used"))?,
    }
    if !seen.fsync {
        report.fail(
            "this PostgreSQL runs with fsync = off: after a crash of its machine all may be lost",
            Some("set fsync = on in postgresql.conf"),
        )?;
    }
    if seen.raised {
        report.ok("its synchronous_commit is off; heal's own transactions wait for the disk all the same")?;
    }
    Ok(())
}

async fn try_store(location: &Location) -> store::Result<()> {
    let store = Store::open(location)?;
    store.transact(|tx| tx.set_note("doctor", "")).await
}

fn listen(config: &Config, in_use: bool, report: &mut Report<impl Write>) -> std::io::Result<()> {
    let address = config.listen;
    match std::net::TcpListener::bind(address) {
        Ok(_) => report.ok(&format!("{address} is free for health and metrics")),
        Err(_) if in_use => report.ok(&format!("{address} is in use, most likely by the heal that runs")),
        Err(error) => report.fail(
            &format!("cannot listen on {address}: {error}"),
            Some("is another program there? set listen: in heal.yaml"),
        ),
    }
}
