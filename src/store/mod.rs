//! What must survive: alerts, remediations, pauses, the journal, and the effects still owed.
//!
//! Decisions are made inside a transaction, by a closure that sees the store through [`Tx`] and
//! runs on the store's own thread; its reads, the new state, the journal line and the effects owed
//! commit together or not at all. Whoever waits is told after the commit. Transactions that arrive
//! while another commits share the next commit (and its fsync); a lone one does not wait for company.

mod sqlite;
mod sqlite_tx;
#[cfg(test)]
mod tests;
mod tx;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

pub use tx::{AlertRow, HistoryRow, NewAlert, Owed, Record, Tally, Tx};

/// Why the store could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the database has no room left: {0}")]
    Full(String),
    #[error("the database is in use by another process: {0}")]
    InUse(String),
    #[error("database: {0}")]
    Database(String),
    #[error("a stored {what} cannot be read: {why}")]
    Corrupt { what: &'static str, why: String },
    /// A unique key said no: somebody else claimed it first.
    #[error("claimed already: {0}")]
    Claimed(String),
    #[error("the store has stopped")]
    Stopped,
}

pub type Result<T> = std::result::Result<T, Error>;

/// One transaction waiting for the store's thread.
trait Job: Send {
    /// Runs inside the transaction; false rolls this job back.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// Tells whoever waits, after the commit (or its failure).
    fn finish(self: Box<Self>, committed: std::result::Result<(), Error>);
}

struct Typed<F, R> {
    work: Option<F>,
    result: Option<Result<R>>,
    reply: oneshot::Sender<Result<R>>,
}

impl<F, R> Job for Typed<F, R>
where
    F: FnOnce(&mut dyn Tx) -> Result<R> + Send,
    R: Send,
{
    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(tx);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, committed: std::result::Result<(), Error>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Stopped),
            // What a job found out itself says more than the commit that failed after it.
            (Err(_), Some(Err(own))) => Err(own),
            (Err(commit), _) => Err(commit),
        };
        // Whoever asked may have gone away; the commit stands all the same.
        drop(self.reply.send(result));
    }
}

/// What the store's thread is asked for.
enum Asked {
    Work(Box<dyn Job>),
    /// Closes the database and says so; what comes after is refused as stopped.
    Close(oneshot::Sender<()>),
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    jobs: std::sync::mpsc::Sender<Asked>,
    where_: Arc<str>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.where_)
    }
}

/// Where a `store` setting or `DATABASE_URL` points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Sqlite(PathBuf),
}

impl Location {
    /// Reads `sqlite:heal.db` or `sqlite:///absolute/path.db`.
    pub fn parse(url: &str) -> std::result::Result<Location, String> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Err("a PostgreSQL store is not supported yet; use sqlite:heal.db".to_owned());
        }
        let Some(rest) = url.strip_prefix("sqlite:") else {
            return Err(format!(
                "`{url}` is not a store; write sqlite:heal.db or sqlite:///absolute/path.db"
            ));
        };
        let path = rest.strip_prefix("//").unwrap_or(rest);
        if path.is_empty() || path.contains('\0') {
            return Err(format!("`{url}` names no file; write sqlite:heal.db"));
        }
        Ok(Location::Sqlite(PathBuf::from(path)))
    }
}

impl Store {
    /// Opens (makes, where missing) the database, brings its schema up to date and starts its thread.
    pub fn open(location: &Location) -> Result<Store> {
        let Location::Sqlite(path) = location;
        Store::serve(sqlite::Database::open(path)?, &path.display().to_string())
    }

    fn serve(database: sqlite::Database, name: &str) -> Result<Store> {
        let (jobs, queue) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || database.serve(&queue))
            .map_err(|error| Error::Database(error.to_string()))?;
        Ok(Store { jobs, where_: name.into() })
    }

    /// Runs `work` in a transaction and returns once it is durable.
    ///
    /// `work` must be quick and must not block: all transactions share one thread.
    /// Transactions run in the order of these calls, whenever their futures are polled.
    pub fn transact<R, F>(&self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Typed { work: Some(work), result: None, reply };
        let sent = self.jobs.send(Asked::Work(Box::new(job))).map_err(|_| Error::Stopped);
        async move {
            sent?;
            answer.await.map_err(|_| Error::Stopped)?
        }
    }

    /// Closes the database once all transactions asked for so far are done, whoever still holds a
    /// handle: the file is whole, and the next heal may open it. Later ones are [`Error::Stopped`].
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.jobs.send(Asked::Close(done)).is_ok() {
            drop(closed.await);
        }
    }
}
