//! SQLite: one connection on one thread, write-ahead log, every commit on disk before it counts
//! (`synchronous=FULL`), migrations by `user_version`.

use std::path::Path;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::sqlite_tx::SqliteTx;
use super::{Asked, Error, Job, Result};

/// Each entry brings the schema one version up; entries are never edited once released.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// Transactions that may share a commit. More would let the first wait too long for its answer.
const SHARED: usize = 256;

pub(super) struct Database {
    connection: Connection,
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
        let mut connection = Connection::open(path)
            .map_err(|error| Error::Database(format!("{shown} cannot be opened: {error}")))?;
        connection.set_prepared_statement_cache_capacity(64);
        // One heal per file: the lock is held for the life of the connection, so a second process
        // is refused at its start and not at its first write.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let in_use = |error: rusqlite::Error| match Error::from(error) {
            Error::InUse(why) => {
                Error::InUse(format!("{shown} ({why}); stop the other heal, or give this one its own store"))
            }
            Error::Database(why) => Error::Database(format!("{shown}: {why}")),
            other => other,
        };
        connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())).map_err(in_use)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(in_use)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(in_use)?;
        connection.pragma_update(None, "cache_size", -4000).map_err(in_use)?;
        migrate(&mut connection, path).map_err(|error| match error {
            Error::InUse(why) => {
                Error::InUse(format!("{shown} ({why}); stop the other heal, or give this one its own store"))
            }
            other => other,
        })?;
        Ok(Database { connection })
    }

    /// Runs jobs until it is asked to close or the last handle is dropped.
    pub(super) fn serve(mut self, queue: &Receiver<Asked>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(SHARED);
        let mut closing = None;
        while closing.is_none() {
            match queue.recv() {
                Ok(Asked::Work(first)) => batch.push(first),
                Ok(Asked::Close(done)) => {
                    closing = Some(done);
                    break;
                }
                Err(_) => break,
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
            let _ = done.send(());
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        let mut transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let [only] = batch {
            // Alone, a job needs no savepoint of its own.
            if !only.run(&mut SqliteTx::new(&transaction)) {
                transaction.rollback()?;
                return Ok(());
            }
        } else {
            for job in batch {
                let mut savepoint = transaction.savepoint()?;
                if job.run(&mut SqliteTx::new(&savepoint)) {
                    savepoint.commit()?;
                } else {
                    savepoint.rollback()?;
                    savepoint.finish()?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<()> {
    let have: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map(|version| usize::try_from(version).unwrap_or(usize::MAX))?;
    if have > MIGRATIONS.len() {
        return Err(Error::Database(format!(
            "{} was written by a newer heal (schema {have}, this one knows {}); start that version instead",
            path.display(),
            MIGRATIONS.len()
        )));
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
