//! What must survive: alerts, remediations, pauses, the journal, and the effects still owed.
//!
//! Decisions are made inside a transaction, by a closure that sees the store through [`Tx`] and
//! runs on the store's own thread; its reads, the new state, the journal line and the effects owed
//! commit together or not at all. Whoever waits is told after the commit. Transactions that arrive
//! while another commits share the next commit (and its fsync); a lone one does not wait for company.

mod columns;
mod needs;
mod postgres;
mod role;
mod serve;
mod sqlite;
#[cfg(test)]
mod tests;
mod tx;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use crate::config::Postgres;
pub use needs::Needs;
pub use postgres::{Seen, look};
use serve::{Asked, Job, Reach, Turn};
pub use serve::{Cut, Moment, Verdict};
pub use sqlite::backup;
pub use tx::{
    AlertRow, Beat, HistoryRow, Kept, Limit, NewAlert, Notice, Orphans, Owed, Past, Record, Standing,
    Subject, Tally, Trimmed, Tx,
};

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
    /// This process was silent for so long that another replica took over what it had claimed.
    #[error("another replica took over what this one had claimed; it was not heard of for too long")]
    Fenced,
    /// A newer heal has brought the tables up to date while this one was running.
    #[error("a newer heal has taken over this database (schema {have}, this one knows {known})")]
    Outdated { have: i64, known: i64 },
    /// The end of the process, as a test wants it.
    #[error("the process was cut off here")]
    Cut,
}

impl Error {
    /// The store answers nothing else any more: this process has to end.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::Stopped | Error::Fenced | Error::Outdated { .. })
    }
}

pub type Result<T> = std::result::Result<T, Error>;

struct Typed<F, R> {
    reach: Reach,
    turn: Turn,
    needs: Needs,
    work: Option<F>,
    result: Option<Result<R>>,
    reply: oneshot::Sender<Result<R>>,
}

impl<F, R> Job for Typed<F, R>
where
    F: FnOnce(&mut dyn Tx) -> Result<R> + Send,
    R: Send,
{
    fn reach(&self) -> Reach {
        self.reach
    }

    fn turn(&self) -> Turn {
        self.turn
    }

    fn needs(&self) -> &Needs {
        &self.needs
    }

    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(tx);
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn finish(self: Box<Self>, committed: Result<()>) {
        let result = match (committed, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(Error::Stopped),
            // What a job found out itself says more than the commit that failed after it.
            (Err(_), Some(Err(own))) => Err(own),
            // Only a job that was told so itself came too late; others may do well the next time.
            (Err(Error::Claimed(why)), _) => Err(Error::Database(why)),
            (Err(commit), _) => Err(commit),
        };
        // Whoever asked may have gone away; the commit stands all the same.
        drop(self.reply.send(result));
    }
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    jobs: std::sync::mpsc::Sender<Asked>,
    where_: Arc<str>,
    number: i64,
    shared: bool,
    called: Arc<Notify>,
}

/// How a store is opened.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For tests; nothing is asked otherwise.
    pub cut: Cut,
}

/// A database that was opened, for the thread that drives it.
struct Opened<D> {
    database: D,
    /// See [`Store::number`].
    number: i64,
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
    Postgres(Box<Postgres>),
}

impl Location {
    /// Reads `sqlite:heal.db`, `sqlite:///absolute/path.db` or `postgres://user:password@host/database`.
    pub fn parse(url: &str) -> std::result::Result<Location, String> {
        if Postgres::is_meant(url) {
            return match Postgres::parse(url) {
                Ok(at) => Ok(Location::Postgres(Box::new(at))),
                Err(why) => Err(format!("the PostgreSQL store cannot be used: {why}")),
            };
        }
        let Some(rest) = url.strip_prefix("sqlite:") else {
            // Before an @ may stand a password.
            let shown = if url.contains('@') { "this" } else { &format!("`{url}`") };
            return Err(format!(
                "{shown} is not a store; write sqlite:heal.db, sqlite:///absolute/path.db or postgres://user:password@host/database"
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
        Store::open_with(location, Options::default())
    }

    /// As [`Store::open`].
    pub fn open_with(location: &Location, options: Options) -> Result<Store> {
        let called = Arc::new(Notify::new());
        match location.clone() {
            Location::Sqlite(path) => {
                let name = path.display().to_string();
                Store::start(&name, false, called, options, move || sqlite::Database::open(&path))
            }
            Location::Postgres(at) => {
                let (name, calls) = (at.to_string(), called.clone());
                Store::start(&name, true, called, options, move || postgres::Database::open(&at, calls))
            }
        }
    }

    /// `open` runs on the store's own thread, which then drives what it opened.
    fn start<D: serve::Database>(
        name: &str,
        shared: bool,
        called: Arc<Notify>,
        options: Options,
        open: impl FnOnce() -> Result<Opened<D>> + Send + 'static,
    ) -> Result<Store> {
        let (jobs, queue) = std::sync::mpsc::channel();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || match open() {
                Ok(Opened { database, number }) => {
                    tell.send(Ok(number)).ok();
                    serve::serve(database, &queue, &options.cut);
                }
                Err(error) => {
                    tell.send(Err(error)).ok();
                }
            })
            .map_err(|error| Error::Database(error.to_string()))?;
        let number = told.recv().map_err(|_| Error::Stopped)??;
        Ok(Store { jobs, where_: name.into(), number, shared, called })
    }

    /// This process's number among all that ever used the database. What is owed by a remediation is
    /// performed by the process whose number has claimed it; a number is never used again.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// Whether other processes may use the database at the same time.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Awaits that another replica says that something is owed here. It may say so without need.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    /// For a transaction that will look at this.
    pub fn with(&self, needs: Needs) -> Asking<'_> {
        Asking { store: self, needs }
    }

    /// Runs `work` in a transaction and returns once it is durable.
    ///
    /// `work` must be quick and must not block: all transactions share one thread, and all replicas'
    /// come one after another. Transactions run in the order of these calls, whenever their futures are polled.
    pub fn transact<R, F>(&self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.with(Needs::default()).transact(work)
    }

    /// As [`Store::transact`] for what somebody waits for by the clock: it goes before what was asked for
    /// by `transact`. Slack takes a delivery for lost that is not acknowledged within 3 s, whatever else
    /// there is to do.
    pub fn transact_first<R, F>(&self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.with(Needs::default()).transact_first(work)
    }

    /// As [`Store::transact`], next whatever waits: a beat that comes late is taken for a death.
    pub fn transact_next<R, F>(&self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.with(Needs::default()).ask(Reach::Everything, Turn::Next, work)
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

/// What a transaction will look at, told to the store beforehand.
#[derive(Debug)]
pub struct Asking<'a> {
    store: &'a Store,
    needs: Needs,
}

impl Asking<'_> {
    /// See [`Store::transact`].
    pub fn transact<R, F>(self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.ask(Reach::Everything, Turn::After, work)
    }

    /// See [`Store::transact_first`].
    pub fn transact_first<R, F>(self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.ask(Reach::Everything, Turn::First, work)
    }

    /// As [`Store::transact`] for `work` that touches only what this process has claimed: it does not
    /// wait for the transactions of other replicas, and not for those asked for by `transact`.
    pub fn transact_claimed<R, F>(self, work: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        self.ask(Reach::Claimed, Turn::After, work)
    }

    fn ask<R, F>(
        self,
        reach: Reach,
        turn: Turn,
        work: F,
    ) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut dyn Tx) -> Result<R> + Send + 'static,
        R: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Typed { reach, turn, needs: self.needs, work: Some(work), result: None, reply };
        let sent = self.store.jobs.send(Asked::Work(Box::new(job))).map_err(|_| Error::Stopped);
        async move {
            sent?;
            answer.await.map_err(|_| Error::Stopped)?
        }
    }
}
