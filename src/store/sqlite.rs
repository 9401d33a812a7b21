//! SQLite: one connection on one thread, write-ahead log, every commit on disk before it counts
//! (`synchronous=FULL`), migrations by `user_version`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::sqlite_tx::SqliteTx;
use super::{Asked, Error, Job, Result};

/// Each entry brings the schema one version up; entries are never edited once released.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// Transactions that may share a commit. More would let the first wait too long for its answer.
const SHARED: usize = 256;

/// How long a start waits for the file: the one it takes over from may still be folding its log.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// Folding the log into the file syncs both, some ten times a commit's wait. So it is done when nothing has
/// come for this long, and this many transactions are in the log.
const QUIET: Duration = Duration::from_millis(10);
const WORTH_FOLDING: usize = 200;
/// Pages of the log at which a commit folds it all the same: 32 MiB.
const LONGEST_LOG: u32 = 8192;

pub(super) struct Database {
    pub(super) connection: Connection,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse(error.to_string()),
            Some(ErrorCode::ConstraintViolation) => Error::Claimed(error.to_string()),
            _ => Error::Database(error.to_string()),
        }
    }
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Database> {
        let shown = path.display();
        let told = |error: rusqlite::Error| match Error::from(error) {
            Error::InUse(why) => Error::InUse(format!(
                "{shown} ({why}); hint: stop the other heal, or give this one its own store"
            )),
            Error::Database(why) => Error::Database(format!("{shown}: {why}")),
            other => other,
        };
        // A path is a path: neither `file:…?mode=memory` nor anything else in it is a setting.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(|error| {
            Error::Database(format!(
                "{shown} cannot be opened: {error}; hint: its folder must exist, and heal must be allowed to write there"
            ))
        })?;
        connection.busy_timeout(TAKE_OVER).map_err(told)?;
        connection.set_prepared_statement_cache_capacity(64);
        // One heal per file: the lock is held for the life of the connection, so a second process
        // is refused at its start and not at its first write. Set before the log's first use, it
        // also keeps the log's index in memory, so no shared memory is asked of the file system.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(told)?;
        let journal: String =
            connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(told)?;
        if journal != "wal" {
            // `:memory:` and its like forget; heal does not.
            return Err(Error::Database(format!("{shown} keeps no write-ahead log ({journal})")));
        }
        connection.pragma_update(None, "synchronous", "FULL").map_err(told)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(told)?;
        connection.pragma_update(None, "cache_size", -4000).map_err(told)?;
        connection.pragma_update(None, "wal_autocheckpoint", LONGEST_LOG).map_err(told)?;
        // What undoes one job of a shared commit is needed for microseconds: no file for that.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(told)?;
        // Else a statement with a bound LIMIT is compiled anew each time it is used.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(told)?;
        migrate(&mut connection, path).map_err(|error| match error {
            Failed::Sqlite(error) => told(error),
            Failed::Newer(error) => error,
        })?;
        Ok(Database { connection })
    }

    /// Runs jobs until it is asked to close or the last handle is dropped.
    pub(super) fn serve(mut self, queue: &Receiver<Asked>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(SHARED);
        let mut closing = None;
        let mut unfolded = 0;
        while closing.is_none() {
            let asked = if unfolded < WORTH_FOLDING {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(QUIET)
            };
            match asked {
                Ok(Asked::Work(first)) => batch.push(first),
                Ok(Asked::Close(done)) => {
                    closing = Some(done);
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    // A failure costs nothing: the log only grows, and commits say what is wrong.
                    drop(self.connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)"));
                    unfolded = 0;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while batch.len() < SHARED {
                match queue.try_recv() {
                    Ok(Asked::Work(next)) => batch.push(next),
                    Ok(Asked::Close(done)) => {
                        closing = Some(done);
                        break;
                    }
                    Err(_) => break,
                }
            }
            unfolded += batch.len();
            let committed = self.commit(&mut batch);
            if let Err(error) = &committed {
                tracing::error!(%error, transactions = batch.len(), "the store could not commit; nothing of this batch counts");
            }
            for job in batch.drain(..) {
                job.finish(committed.clone());
            }
        }
        // The log is folded into the file; a failure here costs nothing, the next start does it.
        drop(self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        drop(self.connection);
        if let Some(done) = closing {
            // Whoever asked may have gone away; it is closed all the same.
            done.send(()).ok();
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let [only] = batch {
            // Alone, a job needs no savepoint of its own.
            if !run(only, &transaction) {
                transaction.rollback()?;
                return Ok(());
            }
        } else {
            // By hand, because `Transaction::savepoint` compiles its statements each time.
            let say = |sql| transaction.prepare_cached(sql)?.execute([]);
            for job in batch {
                say("SAVEPOINT job")?;
                if !run(job, &transaction) {
                    say("ROLLBACK TO job")?;
                }
                say("RELEASE job")?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Runs one job; whether it is to be kept. One that panics is rolled back and answered with
/// [`Error::Stopped`], and the store goes on for the others.
fn run(job: &mut Box<dyn Job>, connection: &Connection) -> bool {
    catch_unwind(AssertUnwindSafe(|| job.run(&mut SqliteTx::new(connection)))).unwrap_or_else(|_| {
        tracing::error!("a transaction panicked; it is rolled back");
        false
    })
}

/// Why the schema could not be brought up to date.
enum Failed {
    Sqlite(rusqlite::Error),
    Newer(Error),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Failed {
        Failed::Sqlite(error)
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> std::result::Result<(), Failed> {
    let have: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map(|version| usize::try_from(version).unwrap_or(usize::MAX))?;
    if have > MIGRATIONS.len() {
        return Err(Failed::Newer(Error::Database(format!(
            "{} was written by a newer heal (schema {have}, this one knows {}); start that version instead",
            path.display(),
            MIGRATIONS.len()
        ))));
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(have) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    // Takes the exclusive lock now: without a write SQLite would take it later.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
    Ok(())
}
