//! PostgreSQL: any number of processes on one database, each with one connection on one thread.
//!
//! Decisions of all replicas come one after another: each transaction takes one lock of the database
//! first, so that it sees the world as if it were alone, as on SQLite. The lock goes with the transaction,
//! whatever becomes of the process. A process that was taken off the list of replicas is told so by its
//! next transaction; what it does no longer counts.

mod ahead;
mod known;
mod listen;
mod look;
mod migrate;
mod pending;
mod session;
mod sql;
mod tls;
mod trim;
mod tx;
mod work;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Notify;

use self::known::Known;
pub use self::look::{Seen, look};
use self::session::Session;
use self::tls::Tls;
use self::work::PostgresTx;
use super::serve::{self, Cut, Job, Moment, Reach};
use super::{Error, Needs, Opened, Result};
use crate::config::Postgres;

/// Transactions wait so long for a database that is away; then they fail, so that who asked can say so.
const PATIENCE: Duration = Duration::from_secs(2);
/// After so long under the lock the other replicas come first, with all they have to say and to show.
const TURN: Duration = Duration::from_millis(100);
/// So many numbers a transaction has for what it owes (`generations` in the schema).
const BLOCK: i64 = 65_536;
/// Between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Database {
    at: Postgres,
    tls: Tls,
    runtime: Arc<Runtime>,
    session: Option<Session>,
    number: i64,
    /// The number of our last transaction that wrote.
    committed: i64,
    /// The first number of what the last transaction owed; and whether nobody else was on the list.
    generation: i64,
    alone: bool,
    /// How often others had touched what we have claimed.
    touched: i64,
    /// The version of the tables, as the last transaction met it.
    schema: i64,
    known: Known,
    /// Numbers that no alert has.
    alert_numbers: VecDeque<i64>,
    away: Away,
    /// Dropped, the listener ends.
    _listening: tokio::sync::oneshot::Sender<()>,
}

/// How it stands with a database that cannot be reached.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    /// The server's process that served us; it may still hold our locks.
    process: Option<i32>,
    pause: Duration,
    next_try: Option<Instant>,
}

impl Database {
    pub(super) fn open(at: &Postgres, called: Arc<Notify>) -> Result<Opened<Database>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Database(error.to_string()))?;
        let runtime = Arc::new(runtime);
        let tls = Tls::new(at.trust())?;
        let mut session = Session::open(&runtime, at, &tls)?;
        let number = migrate::bring_up_to_date(&mut session, at)?;
        if !session.met.fsync {
            tracing::warn!(
                "this PostgreSQL has fsync = off: after a crash of its machine nothing of the store may be left"
            );
        }
        if session.met.raised {
            tracing::info!(
                "this PostgreSQL has synchronous_commit = off; heal's own transactions wait for the disk all the same"
            );
        }
        let listening = listen::start(at, &tls, number, called)?;
        let database = Database {
            at: at.clone(),
            tls,
            runtime,
            session: Some(session),
            number,
            committed: 0,
            generation: 0,
            alone: false,
            touched: 0,
            schema: 0,
            known: Known::default(),
            alert_numbers: VecDeque::new(),
            away: Away::default(),
            _listening: listening,
        };
        Ok(Opened { database, number })
    }

    /// The session, made anew where it is lost.
    fn session(&mut self) -> Result<&mut Session> {
        if self.session.as_ref().is_none_or(Session::is_lost) {
            let session = self.connect()?;
            return Ok(self.session.insert(session));
        }
        self.session.as_mut().ok_or(Error::Stopped)
    }

    fn connect(&mut self) -> Result<Session> {
        if let Some(lost) = self.session.take() {
            self.away.process = Some(lost.met.process);
        }
        self.known.forget();
        // A server that crashed may give the numbers again that nobody has used.
        self.alert_numbers.clear();
        let since = *self.away.since.get_or_insert_with(Instant::now);
        loop {
            if let Some(next) = self.away.next_try {
                let wait = next.saturating_duration_since(Instant::now());
                // Whoever comes later, while it is known to be away, is not kept waiting.
                if !wait.is_zero() && since.elapsed() + wait > PATIENCE {
                    return Err(Error::Database(format!("{} cannot be reached", self.at)));
                }
                std::thread::sleep(wait);
            }
            let met =
                Session::open(&self.runtime, &self.at, &self.tls).and_then(|session| self.settle_in(session));
            match met {
                Ok(session) => {
                    tracing::info!(away = ?since.elapsed(), "connected to PostgreSQL again");
                    self.away = Away::default();
                    return Ok(session);
                }
                Err(error) => {
                    let pause = (self.away.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                    self.away.pause = pause;
                    self.away.next_try = Some(Instant::now() + pause);
                    if since.elapsed() + pause > PATIENCE {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Ends what the server still does for us on the lost connection, and holds this replica's lock again.
    fn settle_in(&mut self, mut session: Session) -> Result<Session> {
        if let Some(process) = self.away.process.take() {
            session.rows(sql::END_PROCESS, vec![Box::new(process)])?;
        }
        migrate::hold(&mut session, self.number)?;
        Ok(session)
    }

    /// Begins a transaction that holds the lock; the first number for what it owes.
    fn begin(&mut self, reach: Reach) -> Result<i64> {
        let number = self.number;
        let mut begun = begin(self.session()?, reach, number);
        // A connection that broke while nobody used it is no failure: nothing was done yet.
        if begun.is_err() && self.session.as_ref().is_none_or(Session::is_lost) {
            begun = begin(self.session()?, reach, number);
        }
        let begun = begun.and_then(|begun| begun.ok_or(Error::Fenced));
        match begun {
            Ok(Begun { generation, replicas, touched, schema }) => {
                // Each transaction takes a block of numbers, so this one follows our last one, or others
                // came between, or are at work beside it.
                let follows = generation == self.generation + BLOCK;
                if touched != self.touched {
                    self.known.forget();
                } else if !(follows && self.alone && replicas == 1) {
                    self.known.forget_but(self.number);
                }
                (self.generation, self.alone, self.touched) = (generation, replicas == 1, touched);
                self.schema = schema;
                Ok(generation)
            }
            Err(error) => {
                // What began and came no further (the lock was not free in time) is in the way of all that follow.
                self.roll_back();
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) {
        self.known.forget();
        let Some(session) = &mut self.session else { return };
        session.begin_anew();
        if session.is_lost() || session.rows(sql::ROLLBACK, Vec::new()).is_err() {
            // It rolls back by the end of its session.
            if let Some(lost) = self.session.take() {
                self.away.process = Some(lost.met.process);
            }
        }
    }

    fn run(&mut self, batch: &mut [Box<dyn Job>], first: i64) -> Result<Done> {
        let session = self.session.as_mut().ok_or(Error::Stopped)?;
        let (known, numbers) = (&mut self.known, &mut self.alert_numbers);
        let mut tx = PostgresTx::new(session, known, numbers, (self.number, first), batch.len() > 1);
        let mut ran = 0;
        let mut needs = Needs::default();
        batch.iter().for_each(|job| needs.append(job.needs()));
        tx.read_ahead(&needs)?;
        // Reading for all takes as long for a few: were it counted, a slow server would never get further.
        let began = Instant::now();
        for job in batch {
            tx.begin_job();
            let keep = serve::run(job, &mut tx);
            tx.end_job(keep)?;
            ran += 1;
            if tx.is_full() || began.elapsed() >= TURN {
                break;
            }
        }
        Ok(Done { ran, ..tx.done()? })
    }

    /// Commits; an error means that nothing counts.
    fn finish(&mut self, done: &Done) -> Result<()> {
        let session = self.session.as_mut().ok_or(Error::Stopped)?;
        if done.wrote {
            match &done.touched {
                Touched::These(replicas) if replicas.is_empty() => {}
                Touched::These(replicas) => {
                    let replicas: Vec<i64> = replicas.iter().copied().collect();
                    session.send(sql::TOUCH, vec![Box::new(replicas)])?;
                }
                Touched::All => session.send(sql::TOUCH_OTHERS, vec![Box::new(self.number)])?,
            }
            for called in &done.called {
                session.send(sql::CALL, vec![Box::new(called.to_string())])?;
            }
            // No number is used twice, whatever becomes of this transaction.
            self.committed += 1;
            session.send(sql::MARK, vec![Box::new(self.number), Box::new(self.committed)])?;
        }
        let Err(error) = session.rows(sql::COMMIT, Vec::new()) else { return Ok(()) };
        if !session.is_lost() || !done.wrote {
            return Err(error);
        }
        // It may count all the same: the answer was lost. Nobody else writes our mark.
        tracing::warn!(%error, "the connection broke during a commit; whether it counts is looked up");
        let mark = self.committed;
        self.begin(Reach::Everything).and_then(|_| {
            let session = self.session.as_mut().ok_or(Error::Stopped)?;
            let rows = session.rows(sql::MARKED, vec![Box::new(self.number)])?;
            let found: i64 = rows.first().map_or(0, |row| row.get(0));
            self.roll_back();
            if found == mark { Ok(()) } else { Err(error) }
        })
    }
}

/// Other replicas whose claimed remediations were changed, or what stands beside them.
enum Touched {
    These(BTreeSet<i64>),
    /// Nobody looked whose they are.
    All,
}

impl Touched {
    fn append(&mut self, more: Touched) {
        match (&mut *self, more) {
            (Touched::These(all), Touched::These(more)) => all.extend(more),
            (Touched::All, _) => {}
            (_, Touched::All) => *self = Touched::All,
        }
    }

    fn one(&mut self, replica: i64) {
        self.append(Touched::These(BTreeSet::from([replica])));
    }
}

impl Default for Touched {
    fn default() -> Touched {
        Touched::These(BTreeSet::new())
    }
}

/// What the jobs of a transaction did.
struct Done {
    /// So many jobs ran; the others have to wait for the next turn.
    ran: usize,
    wrote: bool,
    /// Replicas that are owed something by it.
    called: BTreeSet<i64>,
    touched: Touched,
    /// The only job said no after it had written.
    undone: bool,
}

/// A transaction that holds the lock.
struct Begun {
    /// The first number of what it owes.
    generation: i64,
    /// How many are on the list.
    replicas: i64,
    touched: i64,
    schema: i64,
}

fn begin(session: &mut Session, reach: Reach, number: i64) -> Result<Option<Begun>> {
    session.begin_anew();
    session.send(sql::BEGIN, Vec::new())?;
    let lock = match reach {
        Reach::Everything => sql::LOCK,
        Reach::Claimed => sql::LOCK_SHARED,
    };
    session.send(lock, vec![Box::new(session.met.schema)])?;
    let rows = session.rows(sql::FENCE, vec![Box::new(number)])?;
    Ok(rows.first().map(|row| Begun {
        generation: row.get(0),
        replicas: row.get(1),
        touched: row.get(2),
        schema: row.get(3),
    }))
}

impl serve::Database for Database {
    fn commit(&mut self, batch: &mut [Box<dyn Job>], reach: Reach, cut: &Cut) -> Result<usize> {
        let first = self.begin(reach)?;
        if self.schema > migrate::known() {
            // What a newer heal wrote may look as if it could be read, and would be cut down by writing it.
            self.roll_back();
            return Err(Error::Outdated { have: self.schema, known: migrate::known() });
        }
        let ran = self.run(batch, first);
        let failed = self.session.as_ref().and_then(Session::failed).cloned();
        let done = match (ran, failed) {
            (Ok(done), None) => done,
            (Err(error), _) | (Ok(_), Some(error)) => {
                self.roll_back();
                return Err(error);
            }
        };
        if done.undone {
            self.roll_back();
            return Ok(done.ran);
        }
        if done.wrote {
            cut.at(Moment::Before)?;
        }
        if let Err(error) = self.finish(&done) {
            self.roll_back();
            return Err(error);
        }
        self.known.rest();
        if done.wrote {
            cut.at(Moment::After)?;
        }
        Ok(done.ran)
    }

    fn splits(&self) -> bool {
        !self.alone
    }

    fn close(mut self, cut: &Cut) {
        // Others need not wait for our silence. A failure costs them that wait.
        if self.session.as_ref().is_some_and(|session| !session.is_lost())
            && self.begin(Reach::Everything).is_ok()
            && cut.at(Moment::Before).is_ok()
            && let Some(mut session) = self.session.take()
        {
            drop(session.send(sql::LEAVE, vec![Box::new(self.number)]));
            drop(session.rows(sql::COMMIT, Vec::new()));
            drop(cut.at(Moment::After));
            session.close();
        }
    }
}

/// A setting of a session of heal's.
#[cfg(test)]
pub(super) fn setting(runtime: &Arc<Runtime>, at: &Postgres, name: &str) -> Result<String> {
    let mut session = Session::open(runtime, at, &Tls::new(at.trust())?)?;
    let rows = session.rows("SELECT current_setting($1)", vec![Box::new(name.to_owned())])?;
    rows.first().map(|row| row.get(0)).ok_or(Error::Stopped)
}
