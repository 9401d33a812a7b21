//! A consistent copy of the database, also while heal is writing it.
//!
//! The copy is what one reading transaction sees (`VACUUM INTO`), written row by row and therefore as
//! small as it can be. SQLite's page-wise backup would begin anew with every commit of the heal that
//! runs. It gets its name when it is whole, checked and on disk, so there is never half a backup.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::MIGRATIONS;

/// A heal that starts may recover its log at this moment.
const PATIENCE: Duration = Duration::from_secs(10);
/// What SQLite and heal keep beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", ".lock"];

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Of the copy.
    pub bytes: u64,
    pub remediations: u64,
}

/// Why there is no copy. What stood at its place before still stands there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no database at {}\nhint: heal makes it at its first start; is it another folder, or another config?", .0.display())]
    Missing(PathBuf),
    #[error("{} is no store of heal: {why}", .path.display())]
    NoStore { path: PathBuf, why: String },
    #[error("{} is there already\nhint: choose another name, or replace it with --force", .0.display())]
    Exists(PathBuf),
    #[error("{} belongs to a database, so a copy cannot take its place\nhint: choose another name", .0.display())]
    Database(PathBuf),
    #[error("{} cannot be written: {why}\nhint: its folder must exist, with room for the copy, and you must be allowed to write there", .path.display())]
    Unwritable { path: PathBuf, why: String },
    #[error("{} cannot be read: {why}", .path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error(
        "the copy is not whole and was removed: {0}\nhint: the database itself may be damaged; `sqlite3 FILE 'PRAGMA integrity_check'` tells, with heal stopped"
    )]
    Damaged(String),
}

/// Copies the database at `from` to `to`, readable by its owner only. An existing `to` is replaced where
/// `replace` says so.
///
/// Takes as long as reading and writing the whole database; heal goes on meanwhile, and its log grows by
/// what it commits in that time.
pub fn backup(from: &Path, to: &Path, replace: bool) -> Result<Backup, Error> {
    let source = from.canonicalize().map_err(|_| Error::Missing(from.to_owned()))?;
    let unwritable =
        |why: &dyn std::fmt::Display| Error::Unwritable { path: to.to_owned(), why: why.to_string() };
    let name = to.file_name().ok_or_else(|| unwritable(&"it names no file"))?;
    let folder = match to.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| unwritable(&error))?;
    let target = folder.join(name);
    refuse_live(&source, &target)?;
    if target.is_dir() {
        return Err(unwritable(&"it is a folder"));
    }
    if !replace && target.symlink_metadata().is_ok() {
        return Err(Error::Exists(to.to_owned()));
    }
    // Made with mode 0600, beside its later place: only within one file system is a renaming whole.
    let copy = tempfile::Builder::new().prefix(".heal-backup-").tempfile_in(&folder);
    let copy = copy.map_err(|error| unwritable(&error))?.into_temp_path();
    write(&source, &copy, from, to)?;
    let remediations = check(&copy)?;
    let bytes = sync(&copy).map_err(|error| unwritable(&error))?;
    let placed = if replace { copy.persist(&target) } else { copy.persist_noclobber(&target) };
    placed.map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::Exists(to.to_owned()),
        _ => unwritable(&error.error),
    })?;
    sync(&folder).map_err(|error| unwritable(&error))?;
    Ok(Backup { bytes, remediations })
}

/// The database itself, what is beside it, and any other file with a log: a log beside the copy would be
/// taken for the copy's own.
fn refuse_live(source: &Path, target: &Path) -> Result<(), Error> {
    let beside = |file: &Path, end: &str| {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let real = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    let own = real == source || BESIDE.iter().any(|end| real == beside(source, end));
    let logged = BESIDE[..2].iter().any(|end| beside(target, end).exists());
    if own || logged { Err(Error::Database(target.to_owned())) } else { Ok(()) }
}

fn write(source: &Path, copy: &Path, from: &Path, to: &Path) -> Result<(), Error> {
    let unreadable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::NoStore { path: from.to_owned(), why: error.to_string() },
        Some(ErrorCode::DatabaseBusy) => Error::Unreadable {
            path: from.to_owned(),
            why: format!("{error}\nhint: an older heal keeps everybody out while it runs; stop it first"),
        },
        _ => Error::Unreadable { path: from.to_owned(), why: error.to_string() },
    };
    // Read only: what is there stays as it is, whoever runs this.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(source, flags).map_err(unreadable)?;
    connection.busy_timeout(PATIENCE).map_err(unreadable)?;
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unreadable)?;
    if version == 0 {
        return Err(Error::NoStore { path: from.to_owned(), why: "nothing of heal is in it".to_owned() });
    }
    if version > i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX) {
        tracing::warn!("{} was written by a newer heal; it is copied as it is", from.display());
    }
    let name = copy
        .to_str()
        .ok_or_else(|| Error::Unwritable { path: to.to_owned(), why: "its path is not UTF-8".to_owned() })?;
    connection.execute("VACUUM INTO ?1", [name]).map(drop).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => {
            Error::Unwritable { path: to.to_owned(), why: error.to_string() }
        }
        Some(ErrorCode::DatabaseCorrupt) => Error::Damaged(error.to_string()),
        _ => unreadable(error),
    })
}

/// Reads the copy through; how many remediations are in it.
fn check(copy: &Path) -> Result<u64, Error> {
    let damaged = |error: rusqlite::Error| Error::Damaged(error.to_string());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags).map_err(damaged)?;
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if found != "ok" {
        return Err(Error::Damaged(found));
    }
    let count: i64 =
        connection.query_row("SELECT count(*) FROM remediations", [], |row| row.get(0)).map_err(damaged)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Puts a file, or what a folder lists, on disk; its size.
fn sync(path: &Path) -> std::io::Result<u64> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}
