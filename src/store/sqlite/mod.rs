//! SQLite: one connection on one thread, write-ahead log, every commit on disk before it counts
//! (`synchronous=FULL`), migrations by `user_version`. One heal writes; others may read meanwhile.

pub mod backup;
mod kept;
mod lock;
mod roles;
mod rows;
pub(super) mod trim;
mod tx;

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::serve::{self, Cut, Job, Moment, Reach};
use super::{Error, Opened, Result};
use kept::Kept;
use lock::Lock;
use roles::Roles;
use rows::SqliteTx;

/// Each entry brings the schema one version up; entries are never edited once released.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/sqlite/1.sql"), include_str!("../migrations/sqlite/2.sql")];

/// How long a start waits for the file: the one it takes over from may still be folding its log.
const TAKE_OVER: Duration = Duration::from_secs(2);

/// Folding the log into the file syncs both, some ten times a commit's wait. So it is done when nothing has
/// come for this long, and this many transactions are in the log.
const QUIET: Duration = Duration::from_millis(10);
const WORTH_FOLDING: usize = 200;
/// Pages of the log at which a commit folds it all the same: 32 MiB.
const LONGEST_LOG: u32 = 8192;
/// What somebody else still reads of the log cannot be folded, and it grows meanwhile; how long until the
/// next try, and from how many pages on people hear of it: 256 MiB.
const READ_BY_OTHERS: Duration = Duration::from_secs(1);
const LOG_TO_TELL_OF: i64 = 65_536;
/// To this many bytes the log's file shrinks when it was longer.
const LOG_AT_REST: i64 = 64 << 20;

pub(super) struct Database {
    pub(super) connection: Connection,
    number: i64,
    roles: Roles,
    kept: Kept,
    /// Stands still while nobody else writes to the file.
    version: i64,
    /// Transactions in the log since it was folded.
    unfolded: usize,
    /// Somebody else reads what was to be folded.
    read_by_others: bool,
    told_of_log: bool,
    /// After the connection, so that it goes last.
    _lock: Lock,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Error::Full(error.to_string()),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse(error.to_string()),
            // A quota and a limit on a file's size come as this, like a disk that breaks.
            Some(ErrorCode::SystemIoFailure) => {
                Error::Database(format!("{error}; hint: the disk may be full, over a quota, or failing"))
            }
            Some(ErrorCode::ConstraintViolation) => Error::Claimed(error.to_string()),
            // The log's index is a file too, and grows with it.
            _ if error.sqlite_error().map(|error| error.extended_code)
                == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) =>
            {
                Error::Full(error.to_string())
            }
            _ => Error::Database(error.to_string()),
        }
    }
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Opened<Database>> {
        let shown = path.display();
        let in_use = |why: &str| {
            Error::InUse(format!(
                "{shown} ({why}); hint: stop the other heal, or give this one its own store"
            ))
        };
        let told = |error: rusqlite::Error| match Error::from(error) {
            Error::InUse(why) => in_use(&why),
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
        // `:memory:` and its like forget; heal does not.
        let forgets = |how: &str| Error::Database(format!("{shown} keeps no write-ahead log ({how})"));
        // Whatever links lead to it, it is one file with one lock.
        let file = path.canonicalize().map_err(|_| forgets("no file"))?;
        if names(&file) > 1 {
            return Err(Error::Database(format!(
                "{shown} has several names (hard links), so that another heal could take it by another one; hint: remove the others, or make a copy"
            )));
        }
        let lock = Lock::take(&file, TAKE_OVER).map_err(|error| match error {
            Error::InUse(why) => in_use(&why),
            other => other,
        })?;
        let journal: String =
            connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).map_err(told)?;
        if journal != "wal" {
            return Err(forgets(&journal));
        }
        connection.pragma_update(None, "synchronous", "FULL").map_err(told)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(told)?;
        connection.pragma_update(None, "cache_size", -4000).map_err(told)?;
        connection.pragma_update(None, "wal_autocheckpoint", LONGEST_LOG).map_err(told)?;
        connection.pragma_update(None, "journal_size_limit", LOG_AT_REST).map_err(told)?;
        // What undoes one job of a shared commit is needed for microseconds: no file for that.
        connection.pragma_update(None, "temp_store", "MEMORY").map_err(told)?;
        // Else a statement with a bound LIMIT is compiled anew each time it is used.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(told)?;
        migrate(&mut connection, path).map_err(|error| match error {
            Failed::Sqlite(error) => told(error),
            Failed::Newer(error) => error,
        })?;
        let number = register(&mut connection).map_err(told)?;
        let database = Database {
            connection,
            number,
            roles: Roles::default(),
            kept: Kept::default(),
            version: 0,
            unfolded: 0,
            read_by_others: false,
            told_of_log: false,
            _lock: lock,
        };
        Ok(Opened { database, number })
    }

    /// Runs jobs in one transaction and commits those that say yes.
    fn transact(&mut self, batch: &mut [Box<dyn Job>], cut: &Cut) -> Result<usize> {
        let all = batch.len();
        self.unfolded += all;
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let before = transaction.total_changes();
        // A person with a tool may have written meanwhile: what is known then is read anew.
        let version = transaction.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if std::mem::replace(&mut self.version, version) != version {
            self.roles.forget();
            self.kept.forget();
        }
        let (roles, kept) = (&mut self.roles, &mut self.kept);
        let mut tx = SqliteTx { db: &transaction, me: self.number, roles, kept };
        if let [only] = batch {
            // Alone, a job needs no savepoint of its own.
            if !serve::run(only, &mut tx) {
                tx.forget();
                transaction.rollback()?;
                return Ok(all);
            }
        } else {
            // By hand, because `Transaction::savepoint` compiles its statements each time.
            let say = |sql| transaction.prepare_cached(sql)?.execute([]);
            for job in batch {
                say("SAVEPOINT job")?;
                if !serve::run(job, &mut tx) {
                    tx.forget();
                    say("ROLLBACK TO job")?;
                }
                say("RELEASE job")?;
            }
        }
        let wrote = transaction.total_changes() > before;
        if wrote {
            cut.at(Moment::Before)?;
        }
        transaction.commit()?;
        if wrote {
            cut.at(Moment::After)?;
        }
        Ok(all)
    }
}

impl serve::Database for Database {
    fn commit(&mut self, batch: &mut [Box<dyn Job>], _: Reach, cut: &Cut) -> Result<usize> {
        let committed = self.transact(batch, cut);
        if committed.is_err() {
            self.roles.forget();
            self.kept.forget();
        }
        committed
    }

    fn rests_after(&self) -> Option<Duration> {
        match self.unfolded >= WORTH_FOLDING {
            true => Some(QUIET),
            false => self.read_by_others.then_some(READ_BY_OTHERS),
        }
    }

    fn rest(&mut self) {
        self.unfolded = 0;
        // Whether somebody was in the way, pages of the log, and how many of them are in the file now.
        // A failure costs nothing: the log only grows, and commits say what is wrong.
        let fold = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let (pages, folded) = fold.unwrap_or((0, 0));
        self.read_by_others = folded < pages;
        if !self.read_by_others {
            self.told_of_log = false;
        } else if pages > LOG_TO_TELL_OF && !self.told_of_log {
            self.told_of_log = true;
            tracing::warn!(
                pages,
                "the database's log has {} MiB and cannot be folded: another program has been reading the database for long; hint: end it, `heal store backup` makes a copy to look at",
                pages * 4 / 1024
            );
        }
    }

    fn close(self, _: &Cut) {
        // Nothing is committed. The log is folded into the file; a failure here costs nothing, the next start does it.
        drop(self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
    }
}

/// Takes the next number. Whoever had one before is gone: the lock is this process's.
fn register(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute("DELETE FROM replicas", [])?;
    transaction.execute("INSERT INTO replicas (beat) VALUES (0)", [])?;
    let number = transaction.last_insert_rowid();
    transaction.commit()?;
    Ok(number)
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

/// How many names a file has in its file system; one where that cannot be known.
fn names(file: &Path) -> u64 {
    #[cfg(unix)]
    return std::fs::metadata(file).map_or(1, |data| std::os::unix::fs::MetadataExt::nlink(&data));
    #[cfg(not(unix))]
    return 1;
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
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if have == 0 && tables > 0 {
        return Err(Failed::Newer(Error::Database(format!(
            "{} is another program's database; hint: give heal a file of its own",
            path.display()
        ))));
    }
    for (index, sql) in MIGRATIONS.iter().enumerate().skip(have) {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", i64::try_from(index + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}
