//! `heal store`: looking after the database.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Files;
use crate::config::{Config, Postgres};
use crate::rule::diagnostic;
use crate::store::{Location, backup};

#[derive(Subcommand)]
pub(super) enum Store {
    /// Make a consistent copy of the database in FILE, also while heal is running (SQLite)
    Backup {
        /// The copy; it is written beside this name first and gets the name when it is whole
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace FILE where it is there already
        #[arg(long)]
        force: bool,
    },
}

/// Exit code 2 when the config cannot be read, or the store is none that this command is for.
pub(super) fn run(files: &Files, command: &Store) -> anyhow::Result<u8> {
    // As `heal serve` finds it.
    let url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    let url = match url {
        Some(url) => url,
        None => match Config::load(&files.config()) {
            Ok(config) => config.store,
            Err(problems) => {
                eprint!("{}", diagnostic::render_all(&problems, false));
                return Ok(2);
            }
        },
    };
    match command {
        Store::Backup { file, force } => back_up(&url, file, *force),
    }
}

fn back_up(url: &str, file: &Path, force: bool) -> anyhow::Result<u8> {
    if Postgres::is_meant(url) {
        // The address may hold a password, so it is not repeated.
        eprintln!("error: the store is PostgreSQL, which has its own tool for consistent copies");
        eprintln!("hint: pg_dump --format=custom --file={} \"$DATABASE_URL\"", file.display());
        return Ok(2);
    }
    let Ok(Location::Sqlite(from)) = Location::parse(url) else {
        eprintln!("error: the store is none that heal knows\nhint: write sqlite:heal.db in heal.yaml");
        return Ok(2);
    };
    let copied = backup::backup(&from, file, force)?;
    let size = if copied.bytes < 10 << 20 {
        format!("{} KiB", copied.bytes.div_ceil(1024))
    } else {
        format!("{} MiB", copied.bytes >> 20)
    };
    writeln!(
        std::io::stdout(),
        "{} is copied to {}: {size}, {} remediation{}; checked, and on disk",
        from.display(),
        file.display(),
        copied.remediations,
        if copied.remediations == 1 { "" } else { "s" }
    )?;
    Ok(0)
}
