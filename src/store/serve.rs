//! The store's thread: it takes what is asked, puts transactions that wait at the same time into one
//! commit, and tells each asker after it. A lone transaction does not wait for company.
//!
//! The same for every database; what differs is behind [`Database`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Error, Needs, Result, Tx};

/// Transactions that may share a commit. More would let the first wait too long for its answer.
const SHARED: usize = 256;
/// Of those, so many are left to what goes first; the rest moves on however much that is.
const FIRST: usize = 192;

/// What a transaction may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anything: it sees the store as if it were alone in the world.
    Everything,
    /// Only remediations and effects that this replica has claimed.
    Claimed,
}

/// When a transaction's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Before all that waits.
    Next,
    /// After its like, before the others.
    First,
    After,
}

/// One transaction waiting for the store's thread.
pub(super) trait Job: Send {
    fn reach(&self) -> Reach;
    /// What it will probably look at.
    fn needs(&self) -> &Needs;
    /// Whether it goes before others.
    fn turn(&self) -> Turn;
    /// Runs inside the transaction; false rolls this job back.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// Tells whoever waits, after the commit (or its failure).
    fn finish(self: Box<Self>, committed: Result<()>);
}

/// What the store's thread is asked for.
pub(super) enum Asked {
    Work(Box<dyn Job>),
    /// Closes the database and says so; what comes after is refused as stopped.
    Close(oneshot::Sender<()>),
}

/// An instant beside a commit that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Before,
    /// It is durable, and nobody was told.
    After,
}

/// Whether the process lives on after a [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    /// As if the process were killed here: what is not durable is gone, nobody is told, and the store
    /// answers [`Error::Stopped`] from now on.
    Die,
    /// After a commit: who asked is told that it failed, as when its answer is lost and the database stays away
    /// for too long to be asked whether it counts.
    Unheard,
}

type Asking = dyn Fn(Moment) -> Verdict + Send + Sync;

/// Asked beside every commit; by it tests end a bot between two instants.
#[derive(Clone, Default)]
pub struct Cut(Option<Arc<Asking>>);

impl std::fmt::Debug for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Cut(..)" } else { "Cut(none)" })
    }
}

impl Cut {
    /// `ask` runs on the store's thread.
    pub fn new(ask: impl Fn(Moment) -> Verdict + Send + Sync + 'static) -> Cut {
        Cut(Some(Arc::new(ask)))
    }

    /// [`Error::Cut`] where the process is to die here.
    pub(super) fn at(&self, moment: Moment) -> Result<()> {
        match &self.0 {
            Some(ask) => match (ask(moment), moment) {
                (Verdict::Die, _) => Err(Error::Cut),
                (Verdict::Unheard, Moment::After) => Err(Error::Database("the answer was lost".to_owned())),
                (Verdict::Unheard, Moment::Before) | (Verdict::GoOn, _) => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// A database, as the store's thread drives it.
pub(super) trait Database {
    /// Runs jobs in one transaction, undoes those that say no, asks `cut` where something was written,
    /// and commits. So many of them ran, the first ones; the others are for a later commit. An error means
    /// that nothing of it counts.
    fn commit(&mut self, batch: &mut [Box<dyn Job>], reach: Reach, cut: &Cut) -> Result<usize>;

    /// Whether what reaches only what is claimed is better committed on its own.
    fn splits(&self) -> bool {
        false
    }

    /// After so long without work [`Database::rest`] is called; `None`: it need not be.
    fn rests_after(&self) -> Option<Duration> {
        None
    }

    /// Does what costs more than a commit.
    fn rest(&mut self) {}

    /// The end of an orderly process; `cut` is asked beside what that commits.
    fn close(self, cut: &Cut);
}

/// What was asked for and not begun.
#[derive(Default)]
struct Waiting {
    first: VecDeque<Box<dyn Job>>,
    others: VecDeque<Box<dyn Job>>,
    /// The last commit was over before any of the others had run; they begin the next.
    passed_over: bool,
    closing: Option<oneshot::Sender<()>>,
}

impl Waiting {
    /// What came after the order to close is dropped, which says to its asker that the store has stopped.
    fn take(&mut self, asked: Asked) {
        match asked {
            _ if self.closing.is_some() => {}
            Asked::Work(job) => match job.turn() {
                Turn::Next => self.first.push_front(job),
                Turn::First => self.first.push_back(job),
                Turn::After => self.others.push_back(job),
            },
            Asked::Close(done) => self.closing = Some(done),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.others.is_empty()
    }

    /// These got no turn; they are the next of their kind.
    fn put_back(&mut self, ran: &[Box<dyn Job>], jobs: impl DoubleEndedIterator<Item = Box<dyn Job>>) {
        let ran_first = ran.iter().all(|job| job.turn() != Turn::After);
        for job in jobs.rev() {
            let line = if job.turn() == Turn::After { &mut self.others } else { &mut self.first };
            line.push_front(job);
        }
        // Not undone by a second batch of the same round.
        self.passed_over |= ran_first && !self.others.is_empty();
    }

    /// Who shares the next commit.
    fn next(&mut self) -> Vec<Box<dyn Job>> {
        let first = self.first.len().min(SHARED.saturating_sub(self.others.len()).max(FIRST));
        let others = self.others.len().min(SHARED - first);
        let (first, others) = (self.first.drain(..first), self.others.drain(..others));
        match std::mem::take(&mut self.passed_over) {
            true => others.chain(first).collect(),
            false => first.chain(others).collect(),
        }
    }
}

/// Runs jobs until it is asked to close, the last handle is dropped, or `cut` says so.
pub(super) fn serve(mut database: impl Database, queue: &Receiver<Asked>, cut: &Cut) {
    let mut waiting = Waiting::default();
    loop {
        if waiting.is_empty() {
            if waiting.closing.is_some() {
                break;
            }
            let asked = match database.rests_after() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(quiet) => queue.recv_timeout(quiet),
            };
            match asked {
                Ok(asked) => waiting.take(asked),
                Err(RecvTimeoutError::Timeout) => {
                    database.rest();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while let Ok(asked) = queue.try_recv() {
            waiting.take(asked);
        }
        let mut batch = waiting.next();
        let mut claimed = Vec::new();
        if database.splits() {
            (batch, claimed) = batch.drain(..).partition(|job| job.reach() == Reach::Everything);
        }
        for (batch, reach) in [(&mut batch, Reach::Everything), (&mut claimed, Reach::Claimed)] {
            if batch.is_empty() {
                continue;
            }
            let committed = database.commit(batch, reach, cut);
            if matches!(committed, Err(Error::Cut)) {
                return; // Whoever waits is told by the end of the thread.
            }
            if let Err(error) = &committed {
                tracing::error!(%error, transactions = batch.len(), "the store could not commit; nothing of this batch counts");
            }
            if let Ok(ran) = committed {
                let rest = batch.split_off(ran);
                waiting.put_back(batch, rest.into_iter());
            }
            for job in batch.drain(..) {
                job.finish(committed.clone().map(drop));
            }
        }
    }
    database.close(cut);
    if let Some(done) = waiting.closing {
        // Whoever asked may have gone away; it is closed all the same.
        done.send(()).ok();
    }
}

/// Runs one job; whether it is to be kept. One that panics is rolled back and answered with
/// [`Error::Stopped`], and the store goes on for the others.
pub(super) fn run(job: &mut Box<dyn Job>, tx: &mut dyn Tx) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run(tx))).unwrap_or_else(|_| {
        tracing::error!("a transaction panicked; it is rolled back");
        false
    })
}
